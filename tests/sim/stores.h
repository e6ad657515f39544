/* SPDX-License-Identifier: MIT */
/* Stores without a fence behind them, which others see later than a processor goes on to its next load:
 * how much later is decided by the seed. And membarrier(2), which shows those of all that have joined. */
#pragma once

#include "tests/sim/sim.h"

void stores_init(void); /* of one run */

/* For lki_store_hook: whether the store of the current task is kept back. */
bool stores_keep_back(_Atomic uint32_t *where, uint32_t value);

/* At each step of the engine: before the next access of its own a task sees its store, and so does
 * everybody. But for the one look that no fence stands before. */
void stores_at_engine_step(const char *name);

/* Between the accesses of those that use no fence, and before the barrier: the step to be slow at. */
bool stores_are_at_stake(const char *name);

void stores_show(const struct sim_task *task);
void stores_show_process(int process); /* it is stopped, or has ended: switching is a barrier */
void stores_grow_older(void);          /* at each dispatch */

/* The system call, by the current task. Returns 0, or -1 with errno. */
long stores_membarrier(int command);

/* The last shared hold that the task was told of was taken without a fence. */
bool stores_took_fenceless(const struct sim_task *task);
