/* SPDX-License-Identifier: MIT */
/* The C library's locks between processes, and the least that a lock in shared memory can cost. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "bench/bench.h"

static void *join(const struct bench *bench)
{
    return bench->arena;
}

/* --- The floor: two compare-and-swaps on a word that nobody else wants --- */

static inline int swap(_Atomic uint32_t *word, uint32_t from, uint32_t to)
{
    return !atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acq_rel,
                                                    memory_order_relaxed);
}

static int cas_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    _Atomic uint32_t *word = arg;
    (void)mode;
    BENCH_PAIRS(count, swap(word, 0, 1), swap(word, 1, 0));
}

/* --- Mutexes --- */

static void make_mutex_with(struct bench *bench, int robustness)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, robustness);
    int r = pthread_mutex_init(bench->arena, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (r != 0)
        bench_fail("cannot make a mutex: %s", strerror(r));
}

static void make_mutex(struct bench *bench)
{
    make_mutex_with(bench, PTHREAD_MUTEX_STALLED);
}

static void make_robust(struct bench *bench)
{
    make_mutex_with(bench, PTHREAD_MUTEX_ROBUST);
}

static int mutex_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    pthread_mutex_t *mutex = arg;
    (void)mode;
    BENCH_PAIRS(count, pthread_mutex_lock(mutex), pthread_mutex_unlock(mutex));
}

static int mutex_take(void *arg, enum bench_mode mode)
{
    (void)mode;
    int r = pthread_mutex_lock(arg);
    if (r == EOWNERDEAD)
        return pthread_mutex_consistent(arg) == 0 ? 1 : -EINVAL;
    return -r;
}

static int mutex_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return -pthread_mutex_unlock(arg);
}

/* --- Read-write lock --- */

static void make_rwlock(struct bench *bench)
{
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    int r = pthread_rwlock_init(bench->arena, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    if (r != 0)
        bench_fail("cannot make a read-write lock: %s", strerror(r));
}

static int rwlock_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    pthread_rwlock_t *lock = arg;
    if (mode == BENCH_SHARED)
        BENCH_PAIRS(count, pthread_rwlock_rdlock(lock), pthread_rwlock_unlock(lock));
    BENCH_PAIRS(count, pthread_rwlock_wrlock(lock), pthread_rwlock_unlock(lock));
}

static int rwlock_take(void *arg, enum bench_mode mode)
{
    return -(mode == BENCH_SHARED ? pthread_rwlock_rdlock(arg) : pthread_rwlock_wrlock(arg));
}

static int rwlock_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return -pthread_rwlock_unlock(arg);
}

const struct bench_peer bench_peer_cas = {
    .name = "cas+cas",
    .what = "floor: two compare-and-swaps, no waiting",
    .always = true,
    .join = join,
    .pairs = cas_pairs,
};

const struct bench_peer bench_peer_mutex = {
    .name = "mutex",
    .what = "pthread mutex, process-shared",
    .make = make_mutex,
    .join = join,
    .pairs = mutex_pairs,
    .take = mutex_take,
    .drop = mutex_drop,
};

const struct bench_peer bench_peer_robust = {
    .name = "robust",
    .what = "pthread mutex, process-shared and robust",
    .always = true,
    .recovers = true,
    .make = make_robust,
    .join = join,
    .pairs = mutex_pairs,
    .take = mutex_take,
    .drop = mutex_drop,
};

const struct bench_peer bench_peer_rwlock = {
    .name = "rwlock",
    .what = "pthread read-write lock, process-shared",
    .always = true,
    .shares = true,
    .make = make_rwlock,
    .join = join,
    .pairs = rwlock_pairs,
    .take = rwlock_take,
    .drop = rwlock_drop,
};
