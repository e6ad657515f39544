/* SPDX-License-Identifier: MIT */
/* LKI_STEP(name) stands between every two accesses to shared memory, so that a test can stop, kill
 * or interleave at each. Nothing is left of it in release builds. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef LKI_STEPS
/* Called at each step of every thread; NULL: nothing. Set it before any other thread runs. */
extern void (*lki_step_hook)(const char *name);
#define LKI_STEP(name)                                                                             \
    do {                                                                                           \
        if (lki_step_hook)                                                                         \
            lki_step_hook(name);                                                                   \
    } while (0)
#else
#define LKI_STEP(name) ((void)0)
#endif

/* A store that others may see later than a load which follows it: no fence stands between them. A test can
 * keep it back for as long as a processor might. */
#ifdef LKI_STEPS
/* Returns whether it has taken the store over; NULL: none. */
extern bool (*lki_store_hook)(_Atomic uint32_t *where, uint32_t value);
#define LKI_STORE_UNFENCED(where, value, order)                                                    \
    do {                                                                                           \
        if (!lki_store_hook || !lki_store_hook(where, value))                                      \
            atomic_store_explicit(where, value, order);                                            \
    } while (0)
#else
#define LKI_STORE_UNFENCED(where, value, order) atomic_store_explicit(where, value, order)
#endif
