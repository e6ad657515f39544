/* SPDX-License-Identifier: MIT */
/* What read bias costs where it does not pay: reads with writes in between, in a segment whose locks may
 * be biased, and in one of a broker that may not make the barrier which ends a bias, so that it allows
 * none. Nothing else differs. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "bench/bench.h"
#include "common/clock.h"

/* After a write come 10,000 reads until a lock is biased: with one in 10,100 each write has a bias to
 * end that was of use for 99 reads. No mix is worse. */
static const struct {
    const char *share;
    unsigned write_every;
} mixes[] = {{"10 % writes", 10},
             {"1 % writes", 100},
             {"0.1 % writes", 1000},
             {"one write in 10,100", 10100},
             {"no writes", 0}};
#define MIXES ((unsigned)(sizeof(mixes) / sizeof(*mixes)))
#define CROWDS 2u /* of one process, and of two */
#define PART 4u   /* of the time of a measurement under contention */

/* EPERM to membarrier(2), in this process and what it becomes. */
static bool refuse_barriers(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof(code) / sizeof(*code), .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

struct shared {
    struct bench_gate gate;
    struct {
        _Alignas(128) uint64_t pairs;
    } workers[CROWDS];
};

struct job {
    const struct bench *place;
    struct shared *shared;
    unsigned index, write_every;
};

/* No clock and no counts but one: a pair is so short that they would hide it. */
static int read_and_write(void *arg)
{
    struct job *job = arg;
    struct lk_session *session = bench_connect(job->place);
    char name[32];
    snprintf(name, sizeof(name), "bench-mixed-%u", job->place->makes);
    struct lk_lock *lock = bench_lock(bench_segment(session, name, 0));
    unsigned until_write = job->write_every;
    uint64_t pairs = 0;
    int failed = 0;
    bench_gate_enter(&job->shared->gate);
    do {
        bool writes = until_write > 0 && --until_write == 0;
        if (writes)
            until_write = job->write_every;
        failed |= lk_lock_acquire(lock, writes ? LK_EXCLUSIVE : LK_SHARED, LK_WAIT_FOREVER);
        failed |= lk_lock_release(lock);
        pairs++;
    } while (!atomic_load_explicit(&job->shared->gate.stop, memory_order_relaxed));
    job->shared->workers[job->index].pairs = pairs;
    lk_session_close(session);
    return failed != 0;
}

/* By the clock, whoever made it. */
static double pair_ns(struct bench *place, unsigned processes, unsigned write_every)
{
    struct shared *shared = bench_share(sizeof(*shared));
    struct job job = {.place = place, .shared = shared, .write_every = write_every};
    pid_t pids[CROWDS];
    uint64_t pairs = 0;
    place->makes++; /* another lock each time */
    for (; job.index < processes; job.index++)
        pids[job.index] = bench_spawn(read_and_write, &job);
    bench_gate_await(&shared->gate, processes);
    uint64_t start_ns = lki_clock_now_ns();
    bench_set(&shared->gate.go, 1);
    bench_sleep(place->cell_ns);
    atomic_store_explicit(&shared->gate.stop, 1, memory_order_relaxed);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    for (unsigned i = 0; i < processes; i++) {
        bench_reap(pids[i]);
        pairs += shared->workers[i].pairs;
    }
    bench_unshare(shared, sizeof(*shared));
    return (double)took_ns / (double)(pairs ? pairs : 1);
}

static void measure_round(struct bench *const places[2], struct bench_group *groups[MIXES][CROWDS],
                          unsigned round)
{
    for (unsigned m = 0; m < MIXES; m++)
        for (unsigned c = 0; c < CROWDS; c++)
            for (unsigned turn = 0; turn < 2; turn++) {
                unsigned way = (turn + round) % 2;
                bench_sample(groups[m][c], (int)way,
                             pair_ns(places[way], c + 1, mixes[m].write_every));
            }
}

void bench_mixed(struct bench *bench, struct bench_report *report)
{
    struct bench_group *groups[MIXES][CROWDS];
    unsigned rounds = bench_rounds(bench, 7);
    struct bench with = *bench, without = *bench;
    struct bench *const places[] = {&with, &without};

    for (unsigned m = 0; m < MIXES; m++)
        for (unsigned c = 0; c < CROWDS; c++) {
            struct bench_group *group = bench_group_add(
                report, "ns", BENCH_LESS, rounds, "pair of mixed readers, %s", mixes[m].share);
            bench_group_join(group, "processes", c + 1);
            int biased = bench_series_add(group, "bias allowed");
            bench_series_compare(group, biased, bench_series_add(group, "no bias"), 1.3, 0);
            groups[m][c] = group;
        }
    with.cell_ns = without.cell_ns = bench->cell_ns / PART;
    snprintf(without.socket_path, sizeof(without.socket_path), "%s/no-bias.sock", bench->directory);
    without.before_exec = refuse_barriers;
    bench_daemon_start(&without);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, "mixed readers");
        measure_round(places, groups, round);
    }
    bench_daemon_stop(&without);
}
