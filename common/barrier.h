/* SPDX-License-Identifier: MIT */
/* A full memory barrier in every thread of every process that has joined, from outside: membarrier(2),
 * expedited and global. What others would pay for with a fence each time, the rare party pays for once. */
#pragma once

#include <stdbool.h>

/* From here on the barriers of any process reach all threads of this one. For this process until it ends
 * or executes another program; to be called again in a forked child. May take as long as a grace period
 * of the kernel (tens of milliseconds) where the process has several threads. False: the kernel has
 * no such call, or this process may not make it. Threads: any. */
bool lki_barrier_join(void);

/* Returns after every running thread of those that have joined has passed a full memory barrier; those that
 * do not run have passed one when they were switched. False: as above; nothing was done. Threads: any. */
bool lki_barrier_make(void);
