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
#define CROWD_SESSIONS 1000u
#define CROWD_ATTACHMENTS_MAX 2048
#define PAIRS 200000u /* per sample */

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
        unsigned sessions = CROWD_SESSIONS / CROWD_PROCESSES;
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

void bench_crowd(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 51);
    unsigned pairs = bench->quick ? PAIRS / 4 : PAIRS;
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "exclusive pair among attachments");
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

    int one = bench_series_add(group, "1 attachment");
    int many = bench_series_add(group, "1,000 attachments");
    int first = bench_series_add(group, "1,000, the first pair after a read");
    int after = bench_series_add(group, "1,000, the pairs after that one");
    bench_series_compare(group, many, one, 1.1, 1.3);
    bench_series_compare(group, after, one, 1.1, 1.3);
    pairs_ns(alone, LK_EXCLUSIVE, pairs);
    pairs_ns(crowded, LK_EXCLUSIVE, pairs);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        bench_sample(group, one, pairs_ns(alone, LK_EXCLUSIVE, pairs));
        bench_sample(group, many, pairs_ns(crowded, LK_EXCLUSIVE, pairs));
        pairs_ns(reader, LK_SHARED, 10);
        bench_sample(group, first, pairs_ns(crowded, LK_EXCLUSIVE, 1));
        bench_sample(group, after, pairs_ns(crowded, LK_EXCLUSIVE, pairs));
    }
    dismiss(&crowd);
    lk_session_close(reader_session);
    lk_session_close(session);
    lk_session_close(alone_session);
}
