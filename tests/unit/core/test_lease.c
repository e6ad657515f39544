/* SPDX-License-Identifier: MIT */
/* Leases: whom they end, when, and whom they leave alone. Time is moved by hand. */
#include "lease_fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

TestSuite(lease, .init = world_setup, .fini = world_teardown, .timeout = 60);

Test(lease, no_timer_runs_before_somebody_complains)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
    complain();
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), world.now_ns + LEASE_NS));
}

Test(lease, the_clock_starts_with_the_first_complaint)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS / 2);
    complain();
    pass(LEASE_NS / 2 - 1);
    cr_assert(eq(int, last_signal(), 0));
    pass(1);
    cr_assert(eq(int, last_signal(), SIGTERM));
}

Test(lease, a_segment_without_a_lease_has_no_clock)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(ALICE, 2);
    struct lki_opened attached = opened(holder_session, "a", LK_CREATE);
    native_init(&holder, holder_session, &attached);
    attached = opened(waiter_session, "a", 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    complain();
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease, report_names_everybody_once_per_hold)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    complain();
    pass(LEASE_NS);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOG), 1));
    const char *text = last_effect(LKD_EFFECT_LOG)->detail;
    cr_expect(ne(ptr, strstr(text, "pid 11 (worker), uid 1000, holds lock 3 for 5.000 s"), NULL),
              "%s", text);
    cr_expect(ne(ptr, strstr(text, "only reported; 1 wait: pid 2 (worker); segment 'a'"), NULL),
              "%s", text);
    complain();
    pass(10 * LEASE_NS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 1), "once per hold");
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER), "nothing more to do");
}

Test(lease, another_hold_of_the_same_owner_begins_anew)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    complain();
    pass(LEASE_NS - 1);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN), "it barges");
    complain();
    pass(1);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 0), "that one has just begun");
    pass(LEASE_NS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 1));
}

Test(lease, a_complaint_about_a_hold_of_the_past_is_ignored)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    request_complain(waiter_session, waiter.segment, 3, holder.party.id,
                     lki_lock_sequence(&holder.area, 3) - 2);
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease, who_does_not_wait_cannot_complain)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    lki_wait_give_up(&waiter.wait);
    complain();
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease, a_holder_that_released_in_time_is_left_alone)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS - 1);
    native_release(&holder, 3);
    pass(LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 0));
}

Test(lease, nothing_is_done_when_nobody_waits_any_more)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS - 1);
    lki_wait_give_up(&waiter.wait);
    pass(LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease, kill_asks_first_then_kills_then_grants)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS);
    cr_assert(eq(int, last_signal(), SIGTERM));
    signaled(11, SIGTERM, 0);
    pass(LKD_GRACE_NS - 1);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 0));
    pass(1);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 1));
    looked(11, LKD_PROCESS_STOPPED);
    cr_assert(eq(int, last_signal(), SIGKILL));
    cr_assert(eq(int, native_step(&waiter), LKI_SLEEP), "it has not ended yet");
    forget_effects();
    signaled(11, SIGKILL, 0);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1), "its end is looked for at once");

    end_process(11);
    work();
    cr_assert(eq(int, native_step(&waiter), LKI_TAKEN_DIED));
    cr_expect(eq(u32, holder.area.cold[3].recovery_cause, LKI_CAUSE_FORCED));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease, who_lets_go_when_asked_is_not_killed)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS);
    signaled(11, SIGTERM, 0);
    native_release(&holder, 3);
    pass(10 * LKD_GRACE_NS);
    cr_expect(eq(int, last_signal(), SIGTERM));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 0));
}

Test(lease, who_lets_go_while_it_is_looked_at_is_not_killed)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS + LKD_GRACE_NS);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 1));
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN), "another hold");
    looked(11, LKD_PROCESS_RUNS);
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(lease, without_consent_another_users_process_is_only_reported)
{
    arrange(LK_EXPIRY_KILL, 0, BOB);
    complain();
    pass(10 * LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(logged("not killed: no consent (LK_ACCEPT_KILL), and another user waits"));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 1));
}

Test(lease, a_waiter_of_the_same_user_needs_no_consent)
{
    arrange(LK_EXPIRY_KILL, 0, ALICE);
    complain();
    for (uint64_t ns = 0; ns < LEASE_NS; ns += 250 * LKI_NS_PER_MS) {
        complain(); /* as it does at each long nap */
        pass(250 * LKI_NS_PER_MS);
    }
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(lease, a_waiter_of_the_same_user_that_left_consents_to_nothing)
{
    arrange(LK_EXPIRY_KILL, 0, ALICE);
    uint64_t bobs = connect_as(BOB, 3);
    struct lki_opened attached = open_leased(bobs, LK_EXPIRY_KILL, 0);
    struct native bob;
    native_init(&bob, bobs, &attached);
    native_wait(&bob, 3, LKI_MODE_EXCLUSIVE);
    complain();
    lki_wait_give_up(&waiter.wait);
    pass(LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(logged("no consent"));
}

Test(lease, the_broker_never_signals_itself)
{
    world_teardown();
    const struct lkd_core_config config = {.broker_uid = 1000, .broker_pid = 7, .token_epoch_s = 9};
    world_setup_with(&config);
    struct lkd_peer peer = {.pid = 7, .uid = ALICE, .gid = ALICE, .process = 7, .command = "x"};
    uint64_t own = connect_peer(&peer);
    send_message(own, (struct lki_message){.type = LKI_REQUEST_HELLO,
                                           .as.hello = {LKI_PROTOCOL_MAJOR, 0, LKI_LAYOUT_MAJOR}});
    waiter_session = connect_as(ALICE, 2);
    struct lki_opened attached = open_leased(own, LK_EXPIRY_KILL, LK_ACCEPT_KILL);
    native_init(&holder, own, &attached);
    attached = open_leased(waiter_session, LK_EXPIRY_KILL, 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    complain();
    pass(10 * LEASE_NS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));
    cr_expect(logged("not killed: that would end the broker"));
}

Test(lease, what_a_debugger_has_stopped_gets_longer)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS);
    uint64_t asked_ns = world.now_ns;
    while (world.now_ns < asked_ns + LKD_TRACED_GRACE_NS - LKD_GRACE_NS) {
        pass(LKD_GRACE_NS);
        looked(11, LKD_PROCESS_TRACED);
        cr_assert(eq(int, last_signal(), SIGTERM));
    }
    cr_expect(logged("a debugger has stopped it: it has 60000 ms instead"));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 2), "that is said once");
    pass(LKD_GRACE_NS);
    looked(11, LKD_PROCESS_TRACED);
    cr_assert(eq(int, last_signal(), SIGKILL), "that is over, too");
}

Test(lease, what_the_debugger_lets_go_is_killed_with_the_next_look)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS + LKD_GRACE_NS);
    looked(11, LKD_PROCESS_TRACED);
    pass(LKD_GRACE_NS);
    looked(11, LKD_PROCESS_RUNS);
    cr_expect(eq(int, last_signal(), SIGKILL));
}

Test(lease, who_cannot_die_is_reported_and_never_granted_over)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS + LKD_GRACE_NS);
    looked(11, LKD_PROCESS_UNINTERRUPTIBLE);
    cr_assert(eq(int, last_signal(), SIGKILL));
    signaled(11, SIGKILL, 0);
    pass(LKI_NS_PER_S);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 2));
    looked(11, LKD_PROCESS_UNINTERRUPTIBLE);
    cr_expect(logged("STUCK: SIGKILL cannot reach it"));
    complain();
    pass(3600 * LKI_NS_PER_S);
    cr_expect(eq(int, native_step(&waiter), LKI_SLEEP));
    cr_expect(eq(u32, lki_lock_held_by(&holder.party, 3), LKI_MODE_EXCLUSIVE));

    end_process(11);
    work();
    cr_expect(eq(int, native_step(&waiter), LKI_TAKEN_DIED));
}

Test(lease, a_signal_that_is_not_permitted_is_reported)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS);
    signaled(11, SIGTERM, -EPERM);
    cr_expect(logged("the broker's user may not signal it"));
    pass(3600 * LKI_NS_PER_S);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 1));
}

Test(lease, a_look_that_is_not_answered_is_no_reprieve)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS + LKD_GRACE_NS + LKI_NS_PER_S);
    cr_expect(eq(int, last_signal(), SIGKILL));
}

Test(lease, a_drainer_complains_about_the_readers)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(BOB, 2);
    struct lki_opened attached = open_leased(holder_session, LK_EXPIRY_KILL, LK_ACCEPT_KILL);
    native_init(&holder, holder_session, &attached);
    attached = open_leased(waiter_session, LK_EXPIRY_KILL, 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_SHARED), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    request_complain(waiter_session, waiter.segment, 3, 0, 0);
    pass(LEASE_NS);
    cr_assert(eq(int, last_signal(), 0), "it has to be seen more often than once");
    pass(4 * LKI_NS_PER_MS);
    cr_assert(eq(int, last_signal(), SIGTERM));
    end_process(11);
    work();
    cr_expect(eq(int, native_step(&waiter), LKI_TAKEN), "readers leave no damage");
}

Test(lease, a_reader_that_leaves_for_a_moment_is_another_one)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(BOB, 2);
    struct lki_opened attached = open_leased(holder_session, LK_EXPIRY_KILL, LK_ACCEPT_KILL);
    native_init(&holder, holder_session, &attached);
    attached = open_leased(waiter_session, LK_EXPIRY_KILL, 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_SHARED), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    request_complain(waiter_session, waiter.segment, 3, 0, 0);
    pass(LEASE_NS / 2);
    lki_wait_give_up(&waiter.wait);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_SHARED), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    pass(LEASE_NS / 2 + LKI_NS_PER_S);
    cr_expect(eq(int, last_signal(), 0));
}

Test(lease, who_drains_holds_nothing_and_is_left_alone)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    native_release(&holder, 3);
    cr_assert(eq(int, native_step(&waiter), LKI_TAKEN));
    native_release(&waiter, 3);
    uint64_t third = connect_as(BOB, 3);
    struct lki_opened attached = open_leased(third, LK_EXPIRY_KILL, 0);
    struct native reader;
    native_init(&reader, third, &attached);
    cr_assert(eq(int, native_try(&reader, 3, LKI_MODE_SHARED), LKI_TAKEN));
    native_wait(&holder, 3, LKI_MODE_EXCLUSIVE); /* owns the word, and drains */
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    complain();
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
    pass(10 * LEASE_NS);
    cr_expect(eq(int, last_signal(), 0));
}

/* --- Options and bounds --- */

Test(lease, a_lease_is_the_creators)
{
    arrange(LK_EXPIRY_KILL, 0, BOB);
    uint64_t third = connect_as(BOB, 3);
    struct lki_message message = open_message("~1000/a", 0);
    cr_expect(
        eq(int, reply(third, send_message(third, message))->effect.message.type, LKI_REPLY_OPENED),
        "who asks for none takes what there is");
    uint64_t fourth = connect_as(BOB, 4);
    message.as.open.lease_ns = LEASE_NS + 1;
    message.as.open.on_expiry = LK_EXPIRY_KILL;
    EXPECT_STATUS(fourth, send_message(fourth, message), LKI_STATUS_INVALID);
    message.as.open.lease_ns = LEASE_NS;
    message.as.open.on_expiry = LK_EXPIRY_FENCE;
    EXPECT_STATUS(fourth, send_message(fourth, message), LKI_STATUS_INVALID);
    message.as.open.lease_ns = 0;
    EXPECT_STATUS(fourth, send_message(fourth, message), LKI_STATUS_INVALID);
    message.as.open.on_expiry = 3;
    EXPECT_STATUS(fourth, send_message(fourth, message), LKI_STATUS_INVALID);
}

Test(lease, no_more_than_the_maximum_run_and_a_reported_one_makes_room)
{
    holder_session = connect_as(ALICE, 11);
    struct lki_message message = open_message("~1000/a", LK_CREATE);
    message.as.open.lease_ns = LEASE_NS;
    message.as.open.mode = 0666;
    message.as.open.locks = LKI_LEASES_MAX + 1;
    message.as.open.attachments_max = 4;
    struct lki_opened attached =
        reply(holder_session, send_message(holder_session, message))->effect.message.as.opened;
    native_init(&holder, holder_session, &attached);
    waiter_session = connect_as(ALICE, 2);
    message.as.open.flags = 0;
    attached =
        reply(waiter_session, send_message(waiter_session, message))->effect.message.as.opened;
    native_init(&waiter, waiter_session, &attached);
    for (uint32_t lock = 0; lock <= LKI_LEASES_MAX; lock++) {
        cr_assert(eq(int, native_try(&holder, lock, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
        native_wait(&waiter, lock, LKI_MODE_EXCLUSIVE);
        request_complain(waiter_session, waiter.segment, lock, holder.party.id,
                         lki_lock_sequence(&holder.area, lock));
        if (lock < LKI_LEASES_MAX)
            lki_wait_give_up(&waiter.wait);
    }
    /* The last complaint found no room: no clock runs for it, the others have nobody waiting. */
    pass(LEASE_NS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 0));
    request_complain(waiter_session, waiter.segment, LKI_LEASES_MAX, holder.party.id,
                     lki_lock_sequence(&holder.area, LKI_LEASES_MAX));
    pass(LEASE_NS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 1));
}
