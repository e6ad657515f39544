/* SPDX-License-Identifier: MIT */
/* What boost.cpp offers to boost.c. All return 0, or something else when an exception came. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_BOOST_BYTES_MAX 512 /* that either of them takes, with some to spare */

int bench_boost_make_mutex(void *memory);
int bench_boost_lock(void *mutex);
int bench_boost_unlock(void *mutex);
int bench_boost_mutex_pairs(void *mutex, unsigned count);

int bench_boost_make_sharable(void *memory);
int bench_boost_sharable_lock(void *sharable, int shared);
int bench_boost_sharable_unlock(void *sharable, int shared);
int bench_boost_sharable_pairs(void *sharable, int shared, unsigned count);

#ifdef __cplusplus
}
#endif
