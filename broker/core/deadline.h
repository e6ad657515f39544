/* SPDX-License-Identifier: MIT */
/* Deadlines in order: a binary heap of nodes embedded in what waits. Room is reserved beforehand,
 * so that setting a deadline cannot fail. Owns its array, not the nodes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LKD_DEADLINE_UNSET UINT32_MAX

struct lkd_deadline {
    uint64_t at_ns;
    uint32_t index; /* in the heap, or LKD_DEADLINE_UNSET */
};

struct lkd_deadlines {
    struct lkd_deadline **heap;
    uint32_t count;
    uint32_t reserved;
    uint32_t capacity;
};

void lkd_deadline_init(struct lkd_deadline *deadline);

/* Room for one more node. False: no memory. */
bool lkd_deadlines_reserve(struct lkd_deadlines *deadlines);
void lkd_deadlines_unreserve(struct lkd_deadlines *deadlines);
void lkd_deadlines_deinit(struct lkd_deadlines *deadlines);

/* Sets or moves a deadline, for which there is room. */
void lkd_deadlines_set(struct lkd_deadlines *deadlines, struct lkd_deadline *deadline,
                       uint64_t at_ns);
void lkd_deadlines_clear(struct lkd_deadlines *deadlines, struct lkd_deadline *deadline);

/* The earliest, or NULL. */
struct lkd_deadline *lkd_deadlines_first(const struct lkd_deadlines *deadlines);

void lkd_deadlines_check(const struct lkd_deadlines *deadlines);
