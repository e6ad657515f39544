/* SPDX-License-Identifier: MIT */
/* A process that holds many locks is killed: how long until another one has acquired every one of
 * them, and been told of the death at each. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

struct scene {
    const struct bench *bench;
    char name[32];
    uint32_t locks;
    _Atomic uint32_t *held;
};

static struct lk_segment *open_table(const struct scene *scene, struct lk_session *session)
{
    struct lk_segment_options options = {
        .size = sizeof(options), .locks = scene->locks, .flags = LK_CREATE};
    struct lk_segment *segment;
    if (lk_segment_open(session, scene->name, &options, &segment) < 0)
        bench_fail("%s", lk_last_error());
    return segment;
}

/* All of them in turn; fails unless each says `expected`. */
static void acquire_all(struct lk_segment *segment, uint32_t locks, int expected)
{
    struct lk_lock *lock;
    for (uint32_t index = 0; index < locks; index++)
        if (lk_lock_at(segment, index, &lock) < 0 ||
            lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) != expected)
            bench_fail("lock %u of %u: %s", index, locks, lk_last_error());
}

static int hold_all(void *arg)
{
    struct scene *scene = arg;
    acquire_all(open_table(scene, bench_connect(scene->bench)), scene->locks, LK_ACQUIRED);
    bench_set(scene->held, 1);
    return bench_stay();
}

static double one_repair(struct bench *bench, uint32_t locks)
{
    struct scene scene = {.bench = bench, .locks = locks, .held = bench_share(4096)};
    snprintf(scene.name, sizeof(scene.name), "bench-repair-%u", bench->makes++);
    struct lk_session *session = bench_connect(bench);
    struct lk_segment *segment = open_table(&scene, session);
    pid_t holder = bench_spawn(hold_all, &scene);
    if (!bench_wait_while(scene.held, 0))
        bench_fail("the holder of %u locks does not get them", locks);
    uint64_t start_ns = lki_clock_now_ns();
    kill(holder, SIGKILL);
    acquire_all(segment, locks, LK_ACQUIRED_OWNER_DIED);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    bench_kill(holder);
    lk_session_close(session);
    bench_unshare(scene.held, 4096);
    return (double)took_ns;
}

void bench_repair(struct bench *bench, struct bench_report *report)
{
    static const uint32_t tables[] = {1, 1000, 100000};
    unsigned rounds = bench_rounds(bench, 3);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t locks = bench->quick && tables[i] > 1000 ? 5000 : tables[i];
        struct bench_group *group = bench_group_add(report, "ns", BENCH_LESS, rounds,
                                                    "repair: until the next has them all");
        bench_group_join(group, "locks held by the dead", locks);
        int ours = bench_series_add(group, "lockkeeper");
        for (unsigned round = 0; round < rounds; round++) {
            bench_progress(bench, i * rounds + round, 3 * rounds, group->name);
            bench_sample(group, ours, one_repair(bench, locks));
        }
    }
}
