/* SPDX-License-Identifier: MIT */
/* The processes behind sessions, each known by a number of the driver's: how they are looked at,
 * and what their end means. One is freed with its last session. */
#pragma once

#include "broker/core/state.h"

struct lkd_process *lkd_process_find(const struct lkd_core *core, uint64_t number);

/* Finds it or makes it. NULL: no memory. */
struct lkd_process *lkd_process_get(struct lkd_core *core, uint64_t number);

/* Frees it if it has no session. */
void lkd_process_drop_unused(struct lkd_core *core, struct lkd_process *process);

/* Asks the driver whether the process is ending, at most once per millisecond. */
void lkd_process_check(struct lkd_core *core, struct lkd_process *process, uint64_t now_ns);
