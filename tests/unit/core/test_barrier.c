/* SPDX-License-Identifier: MIT */
/* Barriers that the core makes: for clients that ask, and for what it takes for them itself. */
#include "world.h"

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE

static unsigned barriers;
static bool works;

static bool make(void)
{
    barriers++;
    return works;
}

static void setup(void)
{
    barriers = 0;
    works = true;
    world_setup_with(
        &(struct lkd_core_config){.broker_uid = 1000, .token_epoch_s = 9, .barrier = make});
}

TestSuite(barrier, .init = setup, .fini = world_teardown, .timeout = 20);

static uint64_t ask(uint64_t session)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_BARRIER});
}

Test(barrier, is_made_for_each_who_asks)
{
    uint64_t a = connect_as(1000, 1);
    EXPECT_STATUS(a, ask(a), LKI_STATUS_OK);
    EXPECT_STATUS(a, ask(a), LKI_STATUS_OK);
    cr_expect(eq(uint, barriers, 2));
}

Test(barrier, that_fails_is_told)
{
    uint64_t a = connect_as(1000, 1);
    works = false;
    EXPECT_STATUS(a, ask(a), LKI_STATUS_INVALID);
    cr_expect(eq(uint, barriers, 1));
}

Test(barrier, that_nobody_can_make_is_told, .init = world_setup)
{
    uint64_t a = connect_as(1000, 1);
    EXPECT_STATUS(a, ask(a), LKI_STATUS_INVALID);
}

static _Atomic uint32_t *bias(struct native *native, uint64_t session, struct lki_opened *at)
{
    native_init(native, session, at);
    _Atomic uint32_t *word = &native->area.hot[0].word;
    atomic_store(word, LKI_READ | LKI_BIASED);
    return word;
}

Test(barrier, is_made_for_an_asynchronous_taker_of_a_biased_lock)
{
    struct native native;
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    _Atomic uint32_t *word = bias(&native, a, &at);
    cr_expect(native.area.bias);
    EXPECT_STATUS(a, request_async(a, at.segment, 0, X, LKI_TIME_NEVER), LKI_STATUS_OK);
    cr_expect(eq(uint, barriers, 1));
    cr_expect(eq(u32, atomic_load(word) & (LKI_BIASED | LKI_READ), 0));
}

Test(barrier, that_fails_is_made_again_for_a_taker_that_waits)
{
    struct native native;
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    _Atomic uint32_t *word = bias(&native, a, &at);
    works = false;
    uint64_t id = request_async(a, at.segment, 0, X, LKI_TIME_NEVER);
    cr_expect(eq(ptr, (void *)reply(a, id), NULL));
    cr_expect(ne(u32, atomic_load(word) & LKI_BIASED, 0));
    works = true;
    world.now_ns += 2 * LKI_NS_PER_MS;
    tick();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u32, atomic_load(word) & LKI_BIASED, 0));
}

/* Somebody scribbled: without a barrier no area lets anybody set it. */
Test(barrier, without_one_a_biased_lock_is_not_taken, .init = world_setup)
{
    struct native native;
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    _Atomic uint32_t *word = bias(&native, a, &at);
    cr_expect(not(native.area.bias));
    uint64_t id = request_async(a, at.segment, 0, X, world.now_ns + 5 * LKI_NS_PER_MS);
    world.now_ns += 6 * LKI_NS_PER_MS;
    tick();
    EXPECT_STATUS(a, id, LKI_STATUS_TIMED_OUT);
    cr_expect(eq(u32, atomic_load(word), LKI_READ | LKI_BIASED));
}
