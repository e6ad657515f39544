/* SPDX-License-Identifier: MIT */
#include "broker/core/deadline.h"

#include <stdlib.h>

#include "common/assert.h"

#define CAPACITY_MIN 16u

void lkd_deadline_init(struct lkd_deadline *deadline)
{
    *deadline = (struct lkd_deadline){.index = LKD_DEADLINE_UNSET};
}

bool lkd_deadlines_reserve(struct lkd_deadlines *deadlines)
{
    if (deadlines->reserved == deadlines->capacity) {
        uint32_t capacity = deadlines->capacity ? deadlines->capacity * 2 : CAPACITY_MIN;
        struct lkd_deadline **heap = realloc(deadlines->heap, capacity * sizeof(*heap));
        if (!heap)
            return false;
        deadlines->heap = heap;
        deadlines->capacity = capacity;
    }
    deadlines->reserved++;
    return true;
}

void lkd_deadlines_unreserve(struct lkd_deadlines *deadlines)
{
    LKI_ASSERT(deadlines->reserved > deadlines->count);
    deadlines->reserved--;
}

void lkd_deadlines_deinit(struct lkd_deadlines *deadlines)
{
    free(deadlines->heap);
    *deadlines = (struct lkd_deadlines){0};
}

static void put(struct lkd_deadlines *deadlines, struct lkd_deadline *deadline, uint32_t index)
{
    deadlines->heap[index] = deadline;
    deadline->index = index;
}

/* Moves the node at `index` to where its time belongs. */
static void settle(struct lkd_deadlines *deadlines, uint32_t index)
{
    struct lkd_deadline **heap = deadlines->heap;
    struct lkd_deadline *moved = heap[index];

    while (index > 0 && moved->at_ns < heap[(index - 1) / 2]->at_ns) {
        put(deadlines, heap[(index - 1) / 2], index);
        index = (index - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child + 1 < deadlines->count && heap[child + 1]->at_ns < heap[child]->at_ns)
            child++;
        if (child >= deadlines->count || heap[child]->at_ns >= moved->at_ns)
            break;
        put(deadlines, heap[child], index);
        index = child;
    }
    put(deadlines, moved, index);
}

void lkd_deadlines_set(struct lkd_deadlines *deadlines, struct lkd_deadline *deadline,
                       uint64_t at_ns)
{
    deadline->at_ns = at_ns;
    if (deadline->index == LKD_DEADLINE_UNSET) {
        LKI_ASSERT(deadlines->count < deadlines->reserved);
        put(deadlines, deadline, deadlines->count++);
    }
    settle(deadlines, deadline->index);
}

void lkd_deadlines_clear(struct lkd_deadlines *deadlines, struct lkd_deadline *deadline)
{
    uint32_t index = deadline->index;

    if (index == LKD_DEADLINE_UNSET)
        return;
    LKI_ASSERT(deadlines->heap[index] == deadline);
    deadline->index = LKD_DEADLINE_UNSET;
    struct lkd_deadline *last = deadlines->heap[--deadlines->count];
    if (last == deadline)
        return;
    put(deadlines, last, index);
    settle(deadlines, index);
}

struct lkd_deadline *lkd_deadlines_first(const struct lkd_deadlines *deadlines)
{
    return deadlines->count ? deadlines->heap[0] : NULL;
}

void lkd_deadlines_check(const struct lkd_deadlines *deadlines)
{
    LKI_ASSERT(deadlines->count <= deadlines->reserved);
    LKI_ASSERT(deadlines->reserved <= deadlines->capacity);
    for (uint32_t i = 0; i < deadlines->count; i++) {
        LKI_ASSERT(deadlines->heap[i]->index == i);
        LKI_ASSERT(i == 0 || deadlines->heap[(i - 1) / 2]->at_ns <= deadlines->heap[i]->at_ns);
    }
}
