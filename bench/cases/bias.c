/* SPDX-License-Identifier: MIT */
/* What readers that need no fence cost the writer that ends it: it stops every processor on which such
 * readers run for a moment. Beside it the writer after readers with fences, who has to look for them
 * as well. */
#include "bench/bench.h"
#include "common/clock.h"

#define NAME "bench-bias"
#define LOCKS 4u
#define READS 10100u /* more than it takes until they need no fence */

static struct lk_segment *open_own(const struct bench *bench, struct lk_session **out_session)
{
    struct lk_segment_options options = {
        .size = sizeof(options), .locks = LOCKS, .flags = LK_CREATE};
    struct lk_segment *segment;
    *out_session = bench_connect(bench);
    if (lk_segment_open(*out_session, NAME, &options, &segment) < 0)
        bench_fail("%s", lk_last_error());
    return segment;
}

static struct lk_lock *lock_at(struct lk_segment *segment, unsigned index)
{
    struct lk_lock *lock;
    if (lk_lock_at(segment, index, &lock) < 0)
        bench_fail("%s", lk_last_error());
    return lock;
}

static void read_times(struct lk_lock *lock, unsigned times)
{
    int failed = 0;
    for (unsigned i = 0; i < times; i++) {
        failed |= lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER);
        failed |= lk_lock_release(lock);
    }
    if (failed)
        bench_fail("a shared pair failed: %s", lk_last_error());
}

static double write_ns(struct lk_lock *lock)
{
    uint64_t from = bench_ticks();
    int failed = lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    uint64_t to = bench_ticks();
    failed |= lk_lock_release(lock);
    if (failed)
        bench_fail("a pair failed: %s", lk_last_error());
    return (double)bench_ticks_ns(from, to);
}

struct busy {
    const struct bench *bench;
    struct bench_gate *gate;
};

/* Keeps a processor busy with another lock, in a process that barriers reach. */
static int read_on_and_on(void *arg)
{
    struct busy *busy = arg;
    struct lk_session *session;
    struct lk_lock *lock = lock_at(open_own(busy->bench, &session), LOCKS - 1);
    read_times(lock, READS);
    bench_gate_enter(busy->gate);
    while (!atomic_load_explicit(&busy->gate->stop, memory_order_relaxed))
        read_times(lock, 100);
    lk_session_close(session);
    return 0;
}

static void measure(struct bench *bench, struct bench_report *report, bool others)
{
    unsigned rounds = bench_rounds(bench, 301);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "exclusive acquire after readers, %s",
                        others ? "all processors busy" : "alone");
    struct bench_gate *gate = bench_share(sizeof(*gate));
    struct busy busy = {.bench = bench, .gate = gate};
    struct lk_session *session;
    struct lk_segment *segment = open_own(bench, &session);
    unsigned readers = others ? bench_processors() - 1 : 0;
    pid_t pids[64];
    if (readers > 64)
        readers = 64;
    for (unsigned i = 0; i < readers; i++)
        pids[i] = bench_spawn(read_on_and_on, &busy);
    bench_gate_await(gate, readers);
    bench_set(&gate->go, 1);
    int first = bench_series_add(group, "readers without fences");
    int fenced = bench_series_add(group, "readers with fences");
    int after = bench_series_add(group, "after a writer");
    if (others)
        group->series[first].bound = 3000;
    bench_series_compare(group, first, fenced, 0, 0);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        read_times(lock_at(segment, 0), READS);
        bench_sample(group, first, write_ns(lock_at(segment, 0)));
        read_times(lock_at(segment, 1), 10);
        bench_sample(group, fenced, write_ns(lock_at(segment, 1)));
        bench_sample(group, after, write_ns(lock_at(segment, 1)));
    }
    atomic_store(&gate->stop, 1);
    for (unsigned i = 0; i < readers; i++)
        bench_reap(pids[i]);
    lk_session_close(session);
    bench_unshare(gate, sizeof(*gate));
}

void bench_bias(struct bench *bench, struct bench_report *report)
{
    measure(bench, report, false);
    measure(bench, report, true);
}
