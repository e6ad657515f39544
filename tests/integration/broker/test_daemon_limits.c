/* SPDX-License-Identifier: MIT */
/* A full descriptor table refuses the newest and nobody else; an idle broker sleeps. */
#include "daemon_fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "common/fd.h"

TestSuite(daemon_limits, .init = fixture_open, .fini = fixture_close, .timeout = 60);

#define SESSIONS 100

/* How often the daemon's first thread gave the processor up or lost it. */
static unsigned long count_switches(void)
{
    char path[64];
    char line[128];
    unsigned long switches = 0;
    unsigned long sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", broker.pid);
    FILE *file = fopen(path, "re");
    cr_assert(ne(ptr, file, NULL));
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "voluntary_ctxt_switches: %lu", &switches) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %lu", &switches) == 1)
            sum += switches;
    }
    fclose(file);
    return sum;
}

static unsigned long cpu_ticks(void)
{
    char path[64];
    unsigned long user = 0;
    unsigned long system_ticks = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", broker.pid);
    FILE *file = fopen(path, "re");
    cr_assert(ne(ptr, file, NULL));
    cr_assert(
        eq(int,
           fscanf(file, "%*d (lockkeeperd) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                  &user, &system_ticks),
           2));
    fclose(file);
    return user + system_ticks;
}

/* Time itself is what is measured here, so a test may sleep. */
static void pass_seconds(int seconds)
{
    poll(NULL, 0, seconds * 1000);
}

Test(daemon_limits, idle_with_a_hundred_sessions_it_never_wakes_up)
{
    int fds[SESSIONS];
    start_daemon(NULL);
    for (int i = 0; i < SESSIONS; i++) {
        fds[i] = connect_raw();
        expect_works(fds[i], "shared");
    }
    pass_seconds(1); /* whatever the last request left to do */
    unsigned long before = count_switches();
    unsigned long ticks = cpu_ticks();
    pass_seconds(3);
    cr_expect(eq(ulong, count_switches() - before, 0));
    cr_expect(eq(ulong, cpu_ticks() - ticks, 0), "one that never sleeps does not wake up either");
    for (int i = 0; i < SESSIONS; i++)
        close(fds[i]);
}

Test(daemon_limits, a_full_descriptor_table_refuses_the_newest_and_recovers)
{
    int fds[64];
    int count = 0;
    bool refused = false;
    struct reply reply;
    start_daemon(&(struct daemon_start){.files_max = 40});
    int first = connect_raw();
    expect_works(first, "first");
    size_t fds_before = count_fds_at_rest();

    while (count < 64 && !refused) {
        fds[count] = connect_raw();
        struct lki_message request = open_request(2, "first", 4096);
        /* The refused one may be closed before it has sent all this. */
        (void)try_hello(fds[count]);
        (void)send_request(fds[count], &request, NULL, 0);
        cr_assert(eq(int, receive_reply(fds[count], &reply), 1));
        refused = reply.message.type == LKI_REPLY_RESULT;
        for (size_t i = 0; i < reply.fd_count; i++)
            close(reply.fds[i]);
        count++;
    }
    cr_assert(refused, "%d connections with 40 descriptors", count);
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_NO_FILES));
    cr_expect(gt(int, count, 10), "the spare one was used far too early");

    /* It sleeps, although one more connection waits. */
    int waiting = connect_raw();
    unsigned long ticks = cpu_ticks();
    pass_seconds(1);
    cr_expect(lt(ulong, cpu_ticks() - ticks, 20), "the loop spins");

    struct lki_message again = open_request(3, "first", 4096);
    cr_assert(eq(int, send_request(first, &again, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(first, &reply), 1));
    cr_expect(eq(int, reply.message.type, LKI_REPLY_OPENED), "the others are served");
    for (size_t i = 0; i < reply.fd_count; i++)
        close(reply.fds[i]);

    for (int i = 0; i < count; i++)
        close(fds[i]);
    close(waiting);
    expect_fds(fds_before);
    expect_serves();
    close(first);
}
