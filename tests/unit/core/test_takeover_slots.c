/* SPDX-License-Identifier: MIT */
/* A slot of a control area that a worker was giving when it died, to whoever never asks for it again. */
#include "world.h"

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE

TestSuite(takeover_slots, .init = world_setup, .fini = world_teardown, .timeout = 60);

struct asking {
    uint64_t session;
    uint32_t segment;
};

/* How many slots have an id. */
static uint32_t ids_of(const struct native *any)
{
    uint32_t count = 0;
    for (uint32_t slot = 1; slot <= any->area.attachments_max; slot++)
        count += atomic_load(&any->area.attachments[slot].id) != 0;
    return count;
}

/* False: the worker lives, it has fewer steps. */
static bool dies_at_step(uint64_t step, void (*event)(void *user), void *user)
{
    world.dies_at = world.steps + step;
    bool alive = survives(event, user);
    world.dies_at = 0;
    if (!alive)
        take_over();
    return !alive;
}

static void acquire(void *user)
{
    const struct asking *asking = user;
    (void)request_async(asking->session, asking->segment, 0, X, LKI_TIME_NEVER);
}

static void open_x(void *user)
{
    const struct asking *asking = user;
    (void)request_open(asking->session, "x", 0);
}

/* As a client does whose segment is closed: what it waited for asynchronously it does not repeat. */
Test(takeover_slots, one_for_an_acquire_that_is_not_repeated_is_free_again)
{
    uint64_t a = connect_as(1000, 1);
    struct asking asking = {.session = connect_as(1000, 2)};
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native owner;
    native_init(&owner, a, &at);
    cr_assert(eq(int, native_try(&owner, 0, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    asking.segment = at.segment;
    for (uint64_t step = 1;; step++) {
        (void)opened(asking.session, "x", 0);
        bool died = dies_at_step(step, acquire, &asking);
        if (died) {
            resume(a);
            resume(asking.session);
        }
        uint64_t id = request_segment(asking.session, LKI_REQUEST_DETACH, at.segment);
        work();
        EXPECT_STATUS(asking.session, id, LKI_STATUS_OK);
        cr_assert(eq(u32, ids_of(&owner), 1), "step %lu", (unsigned long)step);
        if (!died)
            break;
    }
}

Test(takeover_slots, one_for_a_process_that_ends_meanwhile_is_free_again)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native owner;
    native_init(&owner, a, &at);
    for (uint64_t process = 1001; process < 1021;
         process++) /* more slots than a successor begins with */
        (void)opened(connect_as(1000, process), "x", 0);
    for (uint64_t process = 1001; process < 1021; process++)
        end_process(process);
    work();
    for (uint64_t step = 1;; step++) {
        struct asking asking = {.session = connect_as(1000, 1 + step), .segment = at.segment};
        bool died = dies_at_step(step, open_x, &asking);
        if (died)
            resume(a);
        end_process(1 + step);
        lose(asking.session);
        work();
        cr_assert(eq(u32, ids_of(&owner), 1), "step %lu", (unsigned long)step);
        if (!died)
            break;
    }
}
