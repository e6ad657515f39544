/* SPDX-License-Identifier: MIT */
/* Fibers: each has a stack of its own and runs until it yields. One thread; only the scheduler's
 * context resumes, only fibers yield. A fiber may be forgotten at any yield: its stack is then used
 * again, and what it had elsewhere is the caller's to free. Known to AddressSanitizer. */
#pragma once

#include <stdbool.h>

struct fiber; /* opaque */

typedef void (*fiber_fn)(void *user);

/* A fiber that runs nothing yet. NULL: no memory. */
struct fiber *fiber_new(void);
struct fiber *fiber_free(struct fiber *fiber);

/* Makes it run from the beginning of `run` when it is resumed next; whatever it did before is
 * forgotten. */
void fiber_start(struct fiber *fiber, fiber_fn run, void *user);

/* Runs it until it yields or ends. Returns whether it can go on. */
bool fiber_resume(struct fiber *fiber);

/* Back to whoever resumed this fiber. */
void fiber_yield(void);
