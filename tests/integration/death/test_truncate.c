/* SPDX-License-Identifier: MIT */
/* Somebody truncates the file under the map. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/fd.h"
#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "truncate"
#define BYTES 65536

static struct test_broker broker;
static char path[96];
static int mapped, truncated;

static void setup(void)
{
    mapped = test_event();
    truncated = test_event();
    test_broker_start(&broker);
    snprintf(path, sizeof(path), "%s/data", broker.directory);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert(le(int, 0, fd));
    cr_assert(eq(int, ftruncate(fd, BYTES), 0));
    lki_close(fd);
}

static void teardown(void)
{
    test_broker_stop(&broker);
}

TestSuite(truncate, .init = setup, .fini = teardown, .timeout = 60);

static struct lk_segment *offer(struct lk_session *session, uint32_t flags,
                                volatile unsigned char **out_data)
{
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE | flags};
    struct lk_segment *segment = NULL;
    void *data = NULL;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    test_check(fd >= 0, "open %s", path);
    int r = lk_segment_offer(session, NAME, fd, &options, &segment);
    test_check(r >= 0, "offer: %d, %s", r, lk_last_error());
    lki_close(fd);
    r = lk_segment_map(segment, 0, 0, &data);
    test_check(r == 0, "map: %d, %s", r, lk_last_error());
    *out_data = data;
    return segment;
}

static int touch_after_truncation(void *arg)
{
    bool guarded = *(const bool *)arg;
    volatile unsigned char *data;
    struct lk_session *session = test_session(broker.socket_path);
    struct lk_segment *segment = offer(session, guarded ? LK_GUARD : 0, &data);
    struct lk_lock *lock = NULL;

    test_check(lk_lock_at(segment, 0, &lock) == 0, "lock: %s", lk_last_error());
    data[BYTES - 1] = 1;
    if (!guarded)
        signal(SIGBUS, SIG_DFL); /* not the sanitizer's report: this end is meant */
    test_event_post(mapped);
    test_event_wait(truncated);
    data[0] = 2;
    unsigned char beyond = data[BYTES - 1];
    test_check(beyond == 0, "a hole reads as %u", beyond);
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 0);
    test_check(r == -EIO, "the next call gives %d: %s", r, lk_last_error());
    lk_session_close(session);
    return 0;
}

static int play(bool guarded)
{
    pid_t pid = test_spawn(touch_after_truncation, &guarded);
    test_event_wait(mapped);
    cr_assert(eq(int, truncate(path, 4096), 0));
    test_event_post(truncated);
    return test_reap(pid);
}

static void broker_serves_on(void)
{
    struct test_client other;
    struct lk_segment_options options = test_options(4096, 1);
    test_client_open(&other, broker.socket_path, "other", &options);
    cr_expect(eq(int, test_acquire(test_lock(&other, 0), LK_EXCLUSIVE), LK_ACQUIRED));
    test_client_close(&other);
}

Test(truncate, guarded_client_reads_zeros_and_is_told)
{
    int status = play(true);
    cr_expect(eq(int, status, 0), "the guarded client ended with %#x", (unsigned)status);
    broker_serves_on();
}

Test(truncate, client_without_guard_dies_alone)
{
    int status = play(false);
    cr_assert(ne(int, WIFSIGNALED(status), 0), "it ended with %#x", (unsigned)status);
    cr_expect(eq(int, WTERMSIG(status), SIGBUS));
    broker_serves_on();
}
