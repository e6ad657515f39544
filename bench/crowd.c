/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define CROWD_NAME "bench-crowd"
#define CROWD_PROCESSES 4
#define CROWD_ATTACHMENTS_MAX 2048

struct crowd {
    pid_t pids[CROWD_PROCESSES];
};

static void be_a_crowd(const struct bench *bench, unsigned sessions, int ready, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (unsigned i = 0; i < sessions; i++)
        bench_segment(bench_connect(bench), CROWD_NAME, CROWD_ATTACHMENTS_MAX);
    if (write(ready, "r", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void gather(const struct bench *bench, struct crowd *crowd)
{
    int ready[2];
    pid_t parent = getpid();

    if (pipe(ready) < 0)
        bench_fail("cannot make a pipe: %s", strerror(errno));
    for (unsigned i = 0; i < CROWD_PROCESSES; i++) {
        unsigned sessions = bench->crowd / CROWD_PROCESSES;
        crowd->pids[i] = fork();
        if (crowd->pids[i] < 0)
            bench_fail("cannot fork: %s", strerror(errno));
        if (crowd->pids[i] == 0) {
            close(ready[0]);
            be_a_crowd(bench, sessions, ready[1], parent);
        }
    }
    close(ready[1]);
    for (unsigned i = 0; i < CROWD_PROCESSES; i++) {
        char byte;
        if (read(ready[0], &byte, 1) != 1)
            bench_fail("a process of the crowd ended");
    }
    close(ready[0]);
}

static void dismiss(const struct crowd *crowd)
{
    for (unsigned i = 0; i < CROWD_PROCESSES; i++)
        kill(crowd->pids[i], SIGKILL);
    for (unsigned i = 0; i < CROWD_PROCESSES; i++)
        waitpid(crowd->pids[i], NULL, 0);
}

/* Nanoseconds per pair. */
static double pairs_ns(struct lk_lock *lock, enum lk_mode mode, unsigned pairs)
{
    int failed = 0;
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < pairs; i++) {
        failed |= lk_lock_acquire(lock, mode, LK_WAIT_FOREVER);
        failed |= lk_lock_release(lock);
    }
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    if (failed)
        bench_fail("a pair failed: %s", lk_last_error());
    return (double)took_ns / pairs;
}

void bench_crowd(const struct bench *bench, struct bench_group *group)
{
    struct crowd crowd;
    struct lk_session *alone_session = bench_connect(bench);
    struct lk_session *session = bench_connect(bench);
    struct lk_session *reader_session = bench_connect(bench);
    struct lk_lock *alone =
        bench_lock(bench_segment(alone_session, "bench-alone", CROWD_ATTACHMENTS_MAX));
    gather(bench, &crowd);
    struct lk_lock *crowded = bench_lock(bench_segment(session, CROWD_NAME, CROWD_ATTACHMENTS_MAX));
    struct lk_lock *reader =
        bench_lock(bench_segment(reader_session, CROWD_NAME, CROWD_ATTACHMENTS_MAX));

    bench_group_init(group, "exclusive pair among attachments", bench->rounds);
    int one = bench_group_add(group, "1 attachment", BENCH_NO_BASE, 0, 0);
    int many = bench_group_add(group, "1,000 attachments", one, 1.1, 1.3);
    int first = bench_group_add(group, "1,000, the first pair after a read", BENCH_NO_BASE, 0, 0);
    int after = bench_group_add(group, "1,000, the pairs after that one", one, 1.1, 1.3);
    pairs_ns(alone, LK_EXCLUSIVE, bench->pairs);
    pairs_ns(crowded, LK_EXCLUSIVE, bench->pairs);
    for (unsigned round = 0; round < bench->rounds; round++) {
        bench_sample(group, one, pairs_ns(alone, LK_EXCLUSIVE, bench->pairs));
        bench_sample(group, many, pairs_ns(crowded, LK_EXCLUSIVE, bench->pairs));
        pairs_ns(reader, LK_SHARED, 10);
        bench_sample(group, first, pairs_ns(crowded, LK_EXCLUSIVE, 1));
        bench_sample(group, after, pairs_ns(crowded, LK_EXCLUSIVE, bench->pairs));
    }
    dismiss(&crowd);
    lk_session_close(reader_session);
    lk_session_close(session);
    lk_session_close(alone_session);
}
