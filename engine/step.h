/* SPDX-License-Identifier: MIT */
/* LKI_STEP(name) stands between every two accesses to shared memory, so that a test can stop, kill
 * or interleave at each. Nothing is left of it in release builds. */
#pragma once

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
