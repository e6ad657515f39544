/* SPDX-License-Identifier: MIT */
/* A full descriptor table refuses the newest and nobody else; an idle broker sleeps. */
#include "daemon_fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "common/fd.h"

TestSuite(daemon_limits, .init = fixture_open, .fini = fixture_close, .timeout = 60);

#define SESSIONS 100

static void await_stopped(pid_t pid)
{
    char path[64];
    char state = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    while (state != 'T') {
        FILE *file = fopen(path, "re");
        cr_assert(ne(ptr, file, NULL));
        cr_assert(eq(int, fscanf(file, "%*d (lockkeeper-work) %c", &state), 1));
        fclose(file);
    }
}

/* How often the daemon's first thread gave the processor up or lost it. */
static unsigned long count_switches(void)
{
    char path[64];
    char line[128];
    unsigned long switches = 0;
    unsigned long sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", worker_pid());
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
    snprintf(path, sizeof(path), "/proc/%d/stat", worker_pid());
    FILE *file = fopen(path, "re");
    cr_assert(ne(ptr, file, NULL));
    cr_assert(
        eq(int,
           fscanf(file, "%*d (lockkeeper-work) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
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

#define PIPELINED 30

/* Sends OPENs of the same segment, with a LIST behind every third, and reads nothing. */
static void ask_for_descriptors(int fd)
{
    for (uint64_t id = 10; id < 10 + PIPELINED; id++) {
        struct lki_message open = open_request(id, "shared", 4096);
        struct lki_message list = {
            .type = LKI_REQUEST_LIST, .id = id, .as.list.what = LKI_LIST_BROKER};
        cr_assert(eq(int, send_request(fd, id % 3 == 0 ? &list : &open, NULL, 0), 0));
    }
}

/* Receives the reply with this id. */
static void expect_reply(int fd, uint64_t id)
{
    struct reply reply;
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "%s", read_log());
    cr_expect(eq(u64, reply.message.id, id), "replies keep their order");
    cr_expect(eq(sz, reply.fd_count, (size_t)(id % 3 == 0 ? 0 : 2)));
    for (size_t i = 0; i < reply.fd_count; i++)
        close(reply.fds[i]);
}

Test(daemon_limits, one_record_with_descriptors_is_under_way_to_a_client_at_a_time)
{
    char byte;
    start_daemon(NULL);
    int fd = connect_raw();
    expect_works(fd, "shared");
    size_t fds_before = count_fds_at_rest();
    ask_for_descriptors(fd);
    expect_serves(); /* whatever was asked before has been done */
    (void)count_fds_at_rest();

    unsigned long ticks = cpu_ticks();
    unsigned long switches = 1;
    for (int i = 0; i < 5 && switches > 0; i++) { /* on a busy machine it comes to rest late */
        unsigned long before = count_switches();
        pass_seconds(1);
        switches = count_switches() - before;
    }
    cr_expect(eq(ulong, switches, 0), "it sleeps until the client reads");
    cr_expect(lt(ulong, cpu_ticks() - ticks, 20), "the loop spins");

    /* While the broker cannot add to it: what is under way. */
    pid_t worker = worker_pid();
    cr_assert(eq(int, kill(worker, SIGSTOP), 0));
    await_stopped(worker);
    expect_reply(fd, 10);
    cr_expect(eq(int, (int)recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT), -1));
    cr_assert(eq(int, kill(worker, SIGCONT), 0));

    for (uint64_t id = 11; id < 10 + PIPELINED; id++)
        expect_reply(fd, id);
    expect_fds(fds_before);
    leave(fd);
}

Test(daemon_limits, a_client_that_ends_with_descriptors_under_way_leaves_none)
{
    start_daemon(NULL);
    int keeper = connect_raw();
    expect_works(keeper, "shared");
    size_t fds_before = count_fds_at_rest();
    int fd = connect_raw();
    send_hello(fd);
    ask_for_descriptors(fd);
    expect_serves();
    close(fd);
    expect_fds(fds_before);
    leave(keeper);
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
