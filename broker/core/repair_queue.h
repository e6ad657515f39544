/* SPDX-License-Identifier: MIT */
/* What is left to repair, in slices: segments take turns, so that one with many locks does not hold
 * up the others; in a segment, one attachment after the other. Queueing needs no memory. */
#pragma once

#include "broker/core/state.h"

void lkd_repair_queue_push(struct lkd_core *core, struct lkd_attachment *attachment);

/* Repairs an id that stands in words but names no attachment. One at a time per segment; another
 * one is asked for again by whoever waits for it. */
void lkd_repair_queue_push_orphan(struct lkd_core *core, struct lkd_segment *segment, uint32_t id);

/* Does about locks_max locks' worth of work. */
void lkd_repair_queue_step(struct lkd_core *core, uint64_t now_ns, uint32_t locks_max);

bool lkd_repair_queue_is_empty(const struct lkd_core *core);
