/* SPDX-License-Identifier: MIT */
#include "broker/core/deadline.h"

#include <stdlib.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(deadline, .timeout = 20);

Test(deadline, first_is_the_earliest_whatever_is_set_moved_and_cleared)
{
    enum { NODES = 50, STEPS = 20000 };
    struct lkd_deadlines deadlines = {0};
    struct lkd_deadline nodes[NODES];
    for (int i = 0; i < NODES; i++) {
        lkd_deadline_init(&nodes[i]);
        cr_assert(lkd_deadlines_reserve(&deadlines));
    }
    unsigned seed = 4711;
    for (int step = 0; step < STEPS; step++) {
        struct lkd_deadline *node = &nodes[rand_r(&seed) % NODES];
        if (rand_r(&seed) % 3)
            lkd_deadlines_set(&deadlines, node, rand_r(&seed) % 1000);
        else
            lkd_deadlines_clear(&deadlines, node);
        lkd_deadlines_check(&deadlines);
        const struct lkd_deadline *first = lkd_deadlines_first(&deadlines);
        for (int i = 0; i < NODES; i++) {
            if (nodes[i].index == LKD_DEADLINE_UNSET)
                continue;
            cr_assert(ne(ptr, (void *)first, NULL));
            cr_assert(le(u64, first->at_ns, nodes[i].at_ns), "step %d", step);
        }
    }
    for (int i = 0; i < NODES; i++) {
        lkd_deadlines_clear(&deadlines, &nodes[i]);
        lkd_deadlines_unreserve(&deadlines);
    }
    cr_expect(eq(ptr, (void *)lkd_deadlines_first(&deadlines), NULL));
    lkd_deadlines_deinit(&deadlines);
}
