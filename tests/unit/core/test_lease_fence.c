/* SPDX-License-Identifier: MIT */
/* Leases that take a brokered hold away, and leave its process alone. */
#include "lease_fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

TestSuite(lease_fence, .init = world_setup, .fini = world_teardown, .timeout = 60);

Test(lease_fence, any_holder_in_a_strict_segment_may_be_ended)
{
    arrange_strict(LK_EXPIRY_KILL);
    pass(LEASE_NS + LKI_NS_PER_S);
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(lease_fence, a_fence_hands_a_brokered_hold_on_with_a_higher_token)
{
    arrange_strict(LK_EXPIRY_FENCE);
    struct lki_granted old = granted(holder_session, held);
    pass(LEASE_NS - 1);
    cr_assert(eq(ptr, (void *)reply(waiter_session, queued), NULL));
    pass(LKI_NS_PER_S);
    EXPECT_STATUS(waiter_session, queued, LKI_STATUS_OWNER_DIED);
    struct lki_granted fresh = granted(waiter_session, queued);
    cr_expect(lt(u64, old.token, fresh.token));
    cr_expect(logged("FENCED"));

    uint64_t late =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, late, LKI_STATUS_STALE);
    late =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, late, LKI_STATUS_NOT_HOLDER);

    /* The attachment goes on living. */
    uint64_t again =
        request_acquire(holder_session, last_opened.segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    uint64_t released =
        request_hold(waiter_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, fresh.attachment);
    EXPECT_STATUS(waiter_session, released, LKI_STATUS_OK);
    work();
    EXPECT_STATUS(holder_session, again, LKI_STATUS_OWNER_DIED);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));
}

Test(lease_fence, what_a_fence_says_of_the_past_hold_does_not_spoil_the_next)
{
    arrange_strict(LK_EXPIRY_FENCE);
    struct lki_granted old = granted(holder_session, held);
    pass(LEASE_NS + LKI_NS_PER_S);
    struct lki_granted fresh = granted(waiter_session, queued);
    request_hold(waiter_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, fresh.attachment);
    uint64_t again =
        request_acquire(holder_session, last_opened.segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    EXPECT_STATUS(holder_session, again, LKI_STATUS_OWNER_DIED);
    uint64_t released =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, released, LKI_STATUS_OK);
    released =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, released, LKI_STATUS_NOT_HOLDER);
}

Test(lease_fence, a_fence_ends_the_place_of_an_asynchronous_hold)
{
    arrange_strict(LK_EXPIRY_FENCE);
    uint32_t segment = last_opened.segment;
    uint64_t async = request_async(holder_session, segment, 4, LKI_MODE_EXCLUSIVE, 0);
    EXPECT_STATUS(holder_session, async, LKI_STATUS_OK);
    struct lki_granted old = granted(holder_session, async);
    uint64_t other = connect_as(BOB, 3);
    open_leased(other, LK_EXPIRY_FENCE, LK_STRICT);
    uint64_t wait = request_acquire(other, segment, 4, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    pass(LEASE_NS + LKI_NS_PER_S);
    EXPECT_STATUS(other, wait, LKI_STATUS_OWNER_DIED);
    uint64_t late = request_hold(holder_session, LKI_REQUEST_RELEASE, segment, 4, old.attachment);
    EXPECT_STATUS(holder_session, late, LKI_STATUS_STALE);
}

Test(lease_fence, a_fence_takes_a_shared_hold_too)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(BOB, 2);
    uint32_t segment = open_leased(holder_session, LK_EXPIRY_FENCE, LK_STRICT).segment;
    open_leased(waiter_session, LK_EXPIRY_FENCE, LK_STRICT);
    held = request_acquire(holder_session, segment, 3, LKI_MODE_SHARED, LKI_TIME_NEVER);
    struct lki_granted old = granted(holder_session, held);
    queued = request_acquire(waiter_session, segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    pass(LEASE_NS + LKI_NS_PER_S);
    EXPECT_STATUS(waiter_session, queued, LKI_STATUS_OK);
    uint64_t late = request_hold(holder_session, LKI_REQUEST_RELEASE, segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, late, LKI_STATUS_STALE);
}

Test(lease_fence, a_native_holder_is_not_fenced)
{
    arrange(LK_EXPIRY_FENCE, LK_ACCEPT_KILL, BOB);
    complain();
    pass(10 * LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(logged("not fenced: it locks in shared memory by itself"));
    cr_expect(eq(u32, lki_lock_held_by(&holder.party, 3), LKI_MODE_EXCLUSIVE));
}

static uint64_t held_ns_of(uint32_t lock)
{
    uint64_t id = request_holder(waiter_session, last_opened.segment, lock);
    return reply(waiter_session, id)->effect.message.as.holder_is.held_ns;
}

Test(lease_fence, leaves_a_later_hold_of_the_same_place_alone)
{
    arrange_strict(LK_EXPIRY_FENCE);
    struct lki_granted old = granted(holder_session, held);
    pass(LKI_NS_PER_S);
    uint64_t later = request_acquire(holder_session, last_opened.segment, 4, LKI_MODE_EXCLUSIVE, 0);
    EXPECT_STATUS(holder_session, later, LKI_STATUS_OK);
    uint64_t granted_ns = world.now_ns;
    pass(LEASE_NS);
    EXPECT_STATUS(waiter_session, queued, LKI_STATUS_OWNER_DIED);
    cr_expect(eq(u64, held_ns_of(4), world.now_ns - granted_ns));
    uint64_t id =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 4, old.attachment);
    EXPECT_STATUS(holder_session, id, LKI_STATUS_OK);
}

Test(lease_fence, of_a_hold_before_one_that_was_released)
{
    arrange_strict(LK_EXPIRY_FENCE);
    struct lki_granted old = granted(holder_session, held);
    request_acquire(holder_session, last_opened.segment, 4, LKI_MODE_EXCLUSIVE, 0);
    request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 4, old.attachment);
    pass(LEASE_NS + LKI_NS_PER_S);
    EXPECT_STATUS(waiter_session, queued, LKI_STATUS_OWNER_DIED);
}

Test(lease_fence, is_told_with_each_request_until_the_release)
{
    arrange_strict(LK_EXPIRY_FENCE);
    struct lki_granted old = granted(holder_session, held);
    pass(LEASE_NS + LKI_NS_PER_S);
    static const enum lki_message_type types[] = {LKI_REQUEST_DECLARE, LKI_REQUEST_MARK_CONSISTENT,
                                                  LKI_REQUEST_DECLARE, LKI_REQUEST_RELEASE};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        uint64_t id =
            request_hold(holder_session, types[i], last_opened.segment, 3, old.attachment);
        EXPECT_STATUS(holder_session, id, LKI_STATUS_STALE);
    }
    uint64_t id =
        request_hold(holder_session, LKI_REQUEST_RELEASE, last_opened.segment, 3, old.attachment);
    EXPECT_STATUS(holder_session, id, LKI_STATUS_NOT_HOLDER);
}
