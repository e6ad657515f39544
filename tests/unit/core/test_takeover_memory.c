/* SPDX-License-Identifier: MIT */
/* A successor that finds no memory at one place or another has to end, so that the next one tries:
 * those that it takes over have asked for nothing that could fail. Each allocation of a takeover
 * fails once, and all must be as if it had not. */
#include "world.h"

#include <errno.h>
#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define SUCCESSORS 2 /* of which each fails at the same allocation: two in a row are suspicious */

TestSuite(takeover_memory, .init = world_setup, .fini = world_teardown, .timeout = 120);

/* What is there to be taken over. */
struct scene {
    uint64_t holder, waiter, other;
    uint32_t strict, plain;
    uint64_t orders, stock; /* locks of `plain` by their names */
};

static uint64_t lock_named(uint64_t session, uint32_t segment, const char *name)
{
    uint64_t id = request_lock_named(session, segment, name);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.result.value;
}

static void set_scene(struct scene *scene)
{
    scene->holder = connect_as(1000, 1);
    scene->waiter = connect_member(1000, 2, 5000);
    scene->other = connect_as(1000, 3);
    scene->strict = opened(scene->holder, "strict", LK_CREATE | LK_STRICT).segment;
    scene->plain = opened(scene->other, "plain", LK_CREATE | LK_KEEP).segment;
    (void)opened(scene->holder, "plain", 0);
    scene->orders = lock_named(scene->other, scene->plain, "orders");
    scene->stock = lock_named(scene->other, scene->plain, "stock");
    (void)opened(scene->waiter, "strict", 0);
    uint64_t id = request_acquire(scene->holder, scene->strict, 0, X, LKI_TIME_NEVER);
    EXPECT_STATUS(scene->holder, id, LKI_STATUS_OK);
    (void)request_async(scene->waiter, scene->strict, 0, X, LKI_TIME_NEVER);
}

static void resume_all(const struct scene *scene)
{
    resume(scene->holder);
    resume(scene->waiter);
    resume(scene->other);
}

static void check_scene(const struct scene *scene, uint64_t nth)
{
    cr_assert(not(was_disconnected(scene->holder)), "allocation %lu", (unsigned long)nth);
    cr_assert(not(was_disconnected(scene->waiter)), "allocation %lu", (unsigned long)nth);
    cr_assert(not(was_disconnected(scene->other)), "allocation %lu", (unsigned long)nth);
    resume_all(scene);
    cr_assert(eq(u64, lock_named(scene->holder, scene->plain, "stock"), scene->stock),
              "allocation %lu", (unsigned long)nth);
    cr_assert(eq(u64, lock_named(scene->holder, scene->plain, "orders"), scene->orders),
              "allocation %lu", (unsigned long)nth);
    uint64_t id = request_acquire(scene->holder, scene->strict, 0, X, LKI_TIME_NEVER);
    cr_assert(eq(int, status_of(scene->holder, id), LKI_STATUS_DEADLOCK), "it holds it still");
}

Test(takeover_memory, whatever_allocation_fails_nobody_is_the_worse_for_it)
{
    struct scene scene;
    uint64_t ended = 0;
    set_scene(&scene);
    for (uint64_t nth = 1;; nth++) {
        bool fired = false;
        crash();
        for (int i = 0; i < SUCCESSORS; i++) {
            world.fails_at = nth;
            int r = attempt_take_over(i > 0);
            fired = world.fails_at == 0;
            world.fails_at = 0;
            if (r == 0)
                break; /* it did without */
            cr_assert(eq(int, r, -ENOMEM));
            ended++;
            if (i == SUCCESSORS - 1)
                cr_assert(eq(int, attempt_take_over(true), 0));
        }
        check_scene(&scene, nth);
        if (!fired)
            break;
    }
    cr_expect(gt(u64, ended, 10u), "the takeover allocates");
}
