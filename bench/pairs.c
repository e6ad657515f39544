/* SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "bench/bench.h"
#include "common/clock.h"

/* Each on lines of its own. */
struct peers {
    _Alignas(128) pthread_mutex_t robust;
    _Alignas(128) pthread_mutex_t plain;
    _Alignas(128) pthread_rwlock_t rwlock;
};

struct stage {
    struct peers *peers;
    struct lk_lock *exclusive;
    struct lk_lock *shared;
    unsigned pairs;
};

static struct peers *make_peers(void)
{
    struct peers *peers =
        mmap(NULL, sizeof(*peers), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t mutex;
    pthread_rwlockattr_t rwlock;
    if (peers == MAP_FAILED)
        bench_fail("no memory");
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&peers->plain, &mutex);
    pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&peers->robust, &mutex);
    pthread_mutexattr_destroy(&mutex);
    pthread_rwlockattr_init(&rwlock);
    pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED);
    pthread_rwlock_init(&peers->rwlock, &rwlock);
    pthread_rwlockattr_destroy(&rwlock);
    return peers;
}

/* One loop per kind, so that no pair pays for an indirect call. Every result is looked at, as a
 * program would. */
static int pair_exclusive(const struct stage *stage)
{
    int failed = 0;
    for (unsigned i = 0; i < stage->pairs; i++) {
        failed |= lk_lock_acquire(stage->exclusive, LK_EXCLUSIVE, LK_WAIT_FOREVER);
        failed |= lk_lock_release(stage->exclusive);
    }
    return failed;
}

static int pair_shared(const struct stage *stage)
{
    int failed = 0;
    for (unsigned i = 0; i < stage->pairs; i++) {
        failed |= lk_lock_acquire(stage->shared, LK_SHARED, LK_WAIT_FOREVER);
        failed |= lk_lock_release(stage->shared);
    }
    return failed;
}

static int pair_robust(const struct stage *stage)
{
    int failed = 0;
    for (unsigned i = 0; i < stage->pairs; i++) {
        failed |= pthread_mutex_lock(&stage->peers->robust);
        failed |= pthread_mutex_unlock(&stage->peers->robust);
    }
    return failed;
}

static int pair_plain(const struct stage *stage)
{
    int failed = 0;
    for (unsigned i = 0; i < stage->pairs; i++) {
        failed |= pthread_mutex_lock(&stage->peers->plain);
        failed |= pthread_mutex_unlock(&stage->peers->plain);
    }
    return failed;
}

static int pair_rwlock(const struct stage *stage)
{
    int failed = 0;
    for (unsigned i = 0; i < stage->pairs; i++) {
        failed |= pthread_rwlock_rdlock(&stage->peers->rwlock);
        failed |= pthread_rwlock_unlock(&stage->peers->rwlock);
    }
    return failed;
}

void bench_pairs(const struct bench *bench, struct bench_group *group)
{
    static int (*const bodies[])(const struct stage *) = {pair_robust, pair_exclusive, pair_shared,
                                                          pair_plain, pair_rwlock};
    enum { KINDS = sizeof(bodies) / sizeof(bodies[0]) };
    struct lk_session *session = bench_connect(bench);
    struct stage stage = {
        .peers = make_peers(),
        /* Two segments: a lock used only exclusively, and one used only shared. */
        .exclusive = bench_lock(bench_segment(session, "bench-pair-x", 0)),
        .shared = bench_lock(bench_segment(session, "bench-pair-s", 0)),
        .pairs = bench->pairs,
    };

    bench_group_init(group, "uncontended pair", bench->rounds);
    bench_group_add(group, "robust process-shared mutex", BENCH_NO_BASE, 0, 0);
    bench_group_add(group, "lk exclusive", 0, 1.1, 1.3);
    bench_group_add(group, "lk shared", 0, 1.1, 1.3);
    bench_group_add(group, "plain process-shared mutex", 0, 0, 0);
    bench_group_add(group, "process-shared rwlock, read", 0, 0, 0);
    for (unsigned kind = 0; kind < KINDS; kind++)
        bodies[kind](&stage); /* warm */
    for (unsigned round = 0; round < bench->rounds; round++)
        for (unsigned turn = 0; turn < KINDS; turn++) {
            unsigned kind = (turn + round) % KINDS; /* nobody always follows the same one */
            uint64_t start_ns = lki_clock_now_ns();
            if (bodies[kind](&stage) != 0)
                bench_fail("%s: a pair failed: %s", group->series[kind].name, lk_last_error());
            bench_sample(group, (int)kind, (double)(lki_clock_now_ns() - start_ns) / bench->pairs);
        }
    munmap(stage.peers, sizeof(*stage.peers));
    lk_session_close(session);
}
