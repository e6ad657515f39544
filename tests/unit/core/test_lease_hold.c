/* SPDX-License-Identifier: MIT */
/* Which hold a lease is about, and whom a complaint can mean. */
#include "lease_fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/cleanup.h"

#define S LKI_MODE_SHARED
#define X LKI_MODE_EXCLUSIVE

TestSuite(lease_hold, .init = world_setup, .fini = world_teardown, .timeout = 60);

static struct native third;
static uint64_t third_session;

/* One more of the segment, process 3 of BOB. */
static void arrange_third(uint32_t on_expiry)
{
    third_session = connect_as(BOB, 3);
    struct lki_opened attached = open_leased(third_session, on_expiry, 0);
    native_init(&third, third_session, &attached);
}

/* The holder has lock 3 shared, the waiter drains it. */
static void arrange_drain(uint32_t on_expiry)
{
    arrange(on_expiry, LK_ACCEPT_KILL, BOB);
    lki_wait_give_up(&waiter.wait);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, S), LKI_TAKEN));
    native_wait(&waiter, 3, X);
    forget_effects();
}

static void complain_of_readers(struct native *drainer)
{
    pass(LKI_NS_PER_MS); /* no more often */
    request_complain(drainer->session, drainer->segment, 3, 0, 0);
}

/* Ticks once, with the repairs only begun. */
static void tick_at(uint64_t now_ns)
{
    world.now_ns = now_ns;
    tick_slice(1);
}

Test(lease_hold, of_a_dying_process_is_not_begun)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    end_process(11);
    complain();
    tick_slice(1);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), 0), "its repair goes on");
    work();
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER), "and no clock runs");
}

Test(lease_hold, of_nobody_has_no_clock)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    request_complain(waiter_session, waiter.segment, 3, 77, lki_lock_sequence(&holder.area, 3));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, of_another_than_was_complained_about_has_no_clock)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    arrange_third(LK_EXPIRY_KILL);
    request_complain(waiter_session, waiter.segment, 3, third.party.id,
                     lki_lock_sequence(&holder.area, 3));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, of_ones_own_other_place_is_no_cause_for_complaint)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    uint64_t id = request_async(waiter_session, waiter.segment, 5, X, 0);
    uint32_t place = granted(waiter_session, id).attachment;
    lki_wait_give_up(&waiter.wait);
    native_wait(&waiter, 5, X);
    request_complain(waiter_session, waiter.segment, 5, place, lki_lock_sequence(&waiter.area, 5));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, whose_waiter_is_dying_is_waited_for_by_nobody)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    world.now_ns += LEASE_NS;
    end_process(2);
    tick_slice(1);
    work();
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, that_became_a_drain_meanwhile_is_none)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    /* A word that is released and taken anew keeps its sequence while it drains. */
    atomic_store(&holder.area.attachments[holder.party.id & LKI_SLOT_MASK].wait,
                 atomic_load(&waiter.area.attachments[waiter.party.id & LKI_SLOT_MASK].wait) +
                     (LKI_WAIT_DRAINING - LKI_WAIT_QUEUED));
    tick_at(world.now_ns + LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

/* --- Readers --- */

Test(lease_hold, of_a_reader_ends_with_the_drainer)
{
    arrange_drain(LK_EXPIRY_KILL);
    complain_of_readers(&waiter);
    cr_assert(ne(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
    end_process(2);
    work();
    pass(LEASE_NS + 10 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, of_a_reader_that_another_drains_begins_anew)
{
    arrange_drain(LK_EXPIRY_KILL);
    arrange_third(LK_EXPIRY_KILL);
    complain_of_readers(&waiter);
    pass(LEASE_NS / 2);
    lki_wait_give_up(&waiter.wait);
    native_wait(&third, 3, X);
    complain_of_readers(&third);
    pass(LEASE_NS - LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), 0), "that one has waited for less");
    pass(10 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(lease_hold, of_a_reader_that_another_has_drained_for_is_over)
{
    arrange_drain(LK_EXPIRY_KILL);
    arrange_third(LK_EXPIRY_KILL);
    complain_of_readers(&waiter);
    lki_wait_give_up(&waiter.wait);
    native_wait(&third, 3, X);
    pass(LEASE_NS + 10 * LKI_NS_PER_MS); /* nobody has complained about this one */
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, of_a_reader_is_over_when_the_drainer_has_gone_in)
{
    arrange_drain(LK_EXPIRY_KILL);
    complain_of_readers(&waiter);
    /* The wait is the fact that counts, whatever the word says. */
    uint32_t slot = waiter.party.id & LKI_SLOT_MASK;
    atomic_store(&waiter.area.attachments[slot].wait, LKI_WAIT_NONE);
    pass(LEASE_NS + 10 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), 0));
}

Test(lease_hold, of_a_reader_begins_anew_with_each_drain)
{
    arrange_drain(LK_EXPIRY_KILL);
    complain_of_readers(&waiter);
    pass(LEASE_NS / 2);
    lki_wait_give_up(&waiter.wait);
    native_wait(&waiter, 3, X);
    complain_of_readers(&waiter);
    pass(LEASE_NS - LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), 0));
    pass(10 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(lease_hold, of_a_dying_reader_is_not_begun_and_nobody_is_checked)
{
    arrange_drain(LK_EXPIRY_KILL);
    end_process(11);
    forget_effects();
    request_complain(waiter_session, waiter.segment, 3, 0, 0);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 0));
    work();
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_hold, in_another_mode_is_another_one)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    complain();
    pass(LEASE_NS);
    cr_assert(eq(sz, count_logged("lease over"), 1));
    lki_wait_give_up(&waiter.wait);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, S), LKI_TAKEN));
    native_wait(&waiter, 3, X);
    complain_of_readers(&waiter);
    pass(LEASE_NS + 10 * LKI_NS_PER_MS);
    cr_expect(eq(sz, count_logged("lease over"), 2));
    cr_expect(eq(sz, count_logged("holds lock 3 shared"), 1));
}

/* --- What the log says --- */

Test(lease_hold, that_several_wait_for_is_told_with_their_number)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    arrange_third(LK_EXPIRY_REPORT);
    native_wait(&third, 3, X);
    uint64_t dying = connect_as(BOB, 4);
    struct native fourth;
    struct lki_opened attached = open_leased(dying, LK_EXPIRY_REPORT, 0);
    native_init(&fourth, dying, &attached);
    native_wait(&fourth, 3, X);
    complain();
    end_process(4);
    tick_at(world.now_ns + LEASE_NS);
    cr_expect(logged("only reported; 2 wait: pid 2 (worker), ...; segment 'a'"), "%s",
              last_effect(LKD_EFFECT_LOG)->detail);
}

Test(lease_hold, whose_time_would_not_end_is_told_what_the_segment_has)
{
    static const struct {
        uint32_t on_expiry;
        const char *text;
    } rows[] = {
        {LK_EXPIRY_REPORT, "a lease of 5000 ms (0: none) and report on expiry"},
        {LK_EXPIRY_KILL, "a lease of 5000 ms (0: none) and kill on expiry"},
        {LK_EXPIRY_FENCE, "a lease of 5000 ms (0: none) and fence on expiry"},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        uint64_t creator = connect_as(ALICE, 20 + i);
        open_leased(creator, rows[i].on_expiry, 0);
        struct lki_message message = open_message("~1000/a", 0);
        message.as.open.lease_ns = 1;
        uint64_t id = send_message(creator, message);
        EXPECT_STATUS(creator, id, LKI_STATUS_INVALID);
        cr_expect(ne(ptr, strstr(detail_of(creator, id), rows[i].text), NULL), "%s",
                  detail_of(creator, id));
        end_process(20 + i);
        work();
    }
}

/* --- Room --- */

Test(lease_hold, that_is_only_reported_makes_room_for_one_that_is_overdue)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(ALICE, 2);
    struct lki_message message = open_message("~1000/a", LK_CREATE);
    message.as.open.lease_ns = LEASE_NS;
    message.as.open.locks = LKI_LEASES_MAX + 2;
    message.as.open.attachments_max = 4;
    struct lki_opened attached =
        reply(holder_session, send_message(holder_session, message))->effect.message.as.opened;
    native_init(&holder, holder_session, &attached);
    attached = opened(waiter_session, "a", 0);
    native_init(&waiter, waiter_session, &attached);
    for (uint32_t lock = 0; lock < LKI_LEASES_MAX + 2; lock++) {
        if (lock == 1) { /* the first is reported, the others run */
            pass(LEASE_NS);
            cr_assert(eq(sz, count_logged("only reported"), 1));
        }
        if (lock > 0)
            lki_wait_give_up(&waiter.wait);
        cr_assert(eq(int, native_try(&holder, lock, X), LKI_TAKEN));
        native_wait(&waiter, lock, X);
        request_complain(waiter_session, waiter.segment, lock, holder.party.id,
                         lki_lock_sequence(&holder.area, lock));
    }
    pass(LEASE_NS);
    cr_expect(eq(sz, count_logged("holds lock 1025"), 0), "one too many");
    lki_wait_give_up(&waiter.wait);
    native_wait(&waiter, LKI_LEASES_MAX, X);
    request_complain(waiter_session, waiter.segment, LKI_LEASES_MAX, holder.party.id,
                     lki_lock_sequence(&holder.area, LKI_LEASES_MAX));
    pass(LEASE_NS);
    cr_expect(eq(sz, count_logged("holds lock 1024"), 1), "the reported one made room");
}

Test(lease_hold, that_was_to_be_ended_by_force_keeps_its_room)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    uint64_t root = connect_as(0, 9);
    uint64_t forced = request_force(root, "~1000/a", 3, "it hangs");
    tick();
    signaled(11, SIGTERM, -EPERM);
    EXPECT_STATUS(root, forced, LKI_STATUS_DENIED);
    lki_wait_give_up(&waiter.wait);

    uint64_t crowd = connect_as(ALICE, 12), other = connect_as(ALICE, 13);
    struct lki_message message = open_message("~1000/many", LK_CREATE);
    message.as.open.lease_ns = LEASE_NS;
    message.as.open.locks = LKI_LEASES_MAX;
    struct lki_opened attached =
        reply(crowd, send_message(crowd, message))->effect.message.as.opened;
    native_init(&holder, crowd, &attached);
    attached = opened(other, "many", 0);
    native_init(&waiter, other, &attached);
    for (uint32_t lock = 0; lock < LKI_LEASES_MAX; lock++) { /* one more than there is room for */
        cr_assert(eq(int, native_try(&holder, lock, X), LKI_TAKEN));
        native_wait(&waiter, lock, X);
        request_complain(other, waiter.segment, lock, holder.party.id,
                         lki_lock_sequence(&holder.area, lock));
        if (lock + 1 < LKI_LEASES_MAX)
            lki_wait_give_up(&waiter.wait);
    }
    pass(LEASE_NS);
    cr_expect(eq(sz, count_logged("only reported"), 0), "for the last there was none");
}
