// SPDX-License-Identifier: MIT
// The one file of C++ here: Boost.Interprocess is templates and inline functions. Exceptions end here.
#include <new>

#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_sharable_mutex.hpp>

#include "bench/peers/boost.h"

using boost::interprocess::interprocess_mutex;
using boost::interprocess::interprocess_sharable_mutex;

static_assert(sizeof(interprocess_mutex) <= BENCH_BOOST_BYTES_MAX, "");
static_assert(sizeof(interprocess_sharable_mutex) <= BENCH_BOOST_BYTES_MAX, "");

template <typename Body> static int caught(Body body)
{
    try {
        body();
        return 0;
    } catch (...) {
        return -1;
    }
}

int bench_boost_make_mutex(void *memory)
{
    return caught([=] { new (memory) interprocess_mutex; });
}

int bench_boost_lock(void *mutex)
{
    return caught([=] { static_cast<interprocess_mutex *>(mutex)->lock(); });
}

int bench_boost_unlock(void *mutex)
{
    return caught([=] { static_cast<interprocess_mutex *>(mutex)->unlock(); });
}

int bench_boost_mutex_pairs(void *memory, unsigned count)
{
    auto mutex = static_cast<interprocess_mutex *>(memory);
    return caught([=] {
        for (unsigned i = 0; i < count; i++) {
            mutex->lock();
            mutex->unlock();
        }
    });
}

int bench_boost_make_sharable(void *memory)
{
    return caught([=] { new (memory) interprocess_sharable_mutex; });
}

int bench_boost_sharable_lock(void *memory, int shared)
{
    auto mutex = static_cast<interprocess_sharable_mutex *>(memory);
    return caught([=] { shared ? mutex->lock_sharable() : mutex->lock(); });
}

int bench_boost_sharable_unlock(void *memory, int shared)
{
    auto mutex = static_cast<interprocess_sharable_mutex *>(memory);
    return caught([=] { shared ? mutex->unlock_sharable() : mutex->unlock(); });
}

int bench_boost_sharable_pairs(void *memory, int shared, unsigned count)
{
    auto mutex = static_cast<interprocess_sharable_mutex *>(memory);
    return caught([=] {
        for (unsigned i = 0; i < count; i++)
            if (shared) {
                mutex->lock_sharable();
                mutex->unlock_sharable();
            } else {
                mutex->lock();
                mutex->unlock();
            }
    });
}
