/* SPDX-License-Identifier: MIT */
/* Boost.Interprocess, where its headers and a C++ compiler were there when the bench was built. Its named
 * mutexes are the same as these, found by a name. */
#include <stddef.h>

#include "bench/bench.h"
#include "bench/peers/boost.h"

#ifdef BENCH_HAS_BOOST

static const char *missing(void)
{
    return NULL;
}

static void make_mutex(struct bench *bench)
{
    if (bench_boost_make_mutex(bench->arena) != 0)
        bench_fail("cannot make a mutex of Boost.Interprocess");
}

static void make_sharable(struct bench *bench)
{
    if (bench_boost_make_sharable(bench->arena) != 0)
        bench_fail("cannot make a sharable mutex of Boost.Interprocess");
}

static int mutex_pairs(void *mutex, enum bench_mode mode, unsigned count)
{
    (void)mode;
    return bench_boost_mutex_pairs(mutex, count);
}

static int mutex_take(void *mutex, enum bench_mode mode)
{
    (void)mode;
    return bench_boost_lock(mutex);
}

static int mutex_drop(void *mutex, enum bench_mode mode)
{
    (void)mode;
    return bench_boost_unlock(mutex);
}

static int sharable_pairs(void *mutex, enum bench_mode mode, unsigned count)
{
    return bench_boost_sharable_pairs(mutex, mode == BENCH_SHARED, count);
}

static int sharable_take(void *mutex, enum bench_mode mode)
{
    return bench_boost_sharable_lock(mutex, mode == BENCH_SHARED);
}

static int sharable_drop(void *mutex, enum bench_mode mode)
{
    return bench_boost_sharable_unlock(mutex, mode == BENCH_SHARED);
}

#else

static const char *missing(void)
{
    return "this bench was built without it: that takes a C++ compiler and libboost-dev, and no "
           "sanitizers";
}

#define make_mutex NULL
#define make_sharable NULL
#define mutex_pairs NULL
#define mutex_take NULL
#define mutex_drop NULL
#define sharable_pairs NULL
#define sharable_take NULL
#define sharable_drop NULL

#endif

static void *join(const struct bench *bench)
{
    return bench->arena;
}

const struct bench_peer bench_peer_boost_mutex = {
    .name = "boost-mutex",
    .what = "Boost.Interprocess: interprocess_mutex",
    .missing = missing,
    .make = make_mutex,
    .join = join,
    .pairs = mutex_pairs,
    .take = mutex_take,
    .drop = mutex_drop,
};

const struct bench_peer bench_peer_boost_sharable = {
    .name = "boost-sharable",
    .what = "Boost.Interprocess: interprocess_sharable_mutex",
    .shares = true,
    .missing = missing,
    .make = make_sharable,
    .join = join,
    .pairs = sharable_pairs,
    .take = sharable_take,
    .drop = sharable_drop,
};
