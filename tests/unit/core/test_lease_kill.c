/* SPDX-License-Identifier: MIT */
/* Ending a process, step by step: what the driver may answer, and two leases at one process. */
#include "lease_fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define X LKI_MODE_EXCLUSIVE

TestSuite(lease_kill, .init = world_setup, .fini = world_teardown, .timeout = 60);

/* Until SIGTERM was sent. */
static void arrange_asked(void)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    pass(LEASE_NS);
    cr_assert(eq(int, last_signal(), SIGTERM));
}

/* Until SIGKILL was sent. */
static void arrange_killed(void)
{
    arrange_asked();
    pass(LKD_GRACE_NS);
    looked(11, LKD_PROCESS_RUNS);
    cr_assert(eq(int, last_signal(), SIGKILL));
    forget_effects();
}

/* The same holder has lock 5 too, for which process 3 waits and complains. */
static void complain_of_another(void)
{
    static struct native other;
    uint64_t session = connect_as(BOB, 3);
    struct lki_opened attached = open_leased(session, LK_EXPIRY_KILL, 0);
    native_init(&other, session, &attached);
    cr_assert(eq(int, native_try(&holder, 5, X), LKI_TAKEN));
    native_wait(&other, 5, X);
    request_complain(session, other.segment, 5, holder.party.id,
                     lki_lock_sequence(&holder.area, 5));
}

Test(lease_kill, one_that_cannot_end_is_told_to_be_in_the_kernel)
{
    arrange_killed();
    pass(LKI_NS_PER_S);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 1));
    looked(11, LKD_PROCESS_UNINTERRUPTIBLE);
    cr_expect(logged("STUCK: SIGKILL cannot reach it, it waits in the kernel (state D)"));
}

Test(lease_kill, one_that_has_not_ended_without_a_visible_cause_is_told_so)
{
    arrange_killed();
    pass(LKI_NS_PER_S);
    looked(11, LKD_PROCESS_RUNS);
    cr_expect(logged("STUCK: it has not ended since SIGKILL"));
    looked(11, LKD_PROCESS_RUNS); /* once */
    cr_expect(eq(sz, count_logged("STUCK"), 1));
}

Test(lease_kill, a_second_look_that_is_not_answered_counts_as_one)
{
    arrange_killed();
    pass(LKI_NS_PER_S);
    cr_assert(not(logged("STUCK")));
    pass(LKI_NS_PER_S);
    cr_expect(logged("STUCK: it has not ended since SIGKILL"));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(lease_kill, a_refused_signal_is_reported_with_its_cause)
{
    arrange_asked();
    signaled(11, SIGTERM, -EINVAL);
    cr_expect(logged("not killed: the system refused the signal"));
    pass(10 * LKD_GRACE_NS);
    cr_expect(eq(int, last_signal(), SIGTERM), "and that was all");
}

Test(lease_kill, a_signal_to_who_has_gone_is_no_refusal)
{
    arrange_killed();
    signaled(11, SIGKILL, -ESRCH);
    cr_expect(not(logged("not killed")));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1), "its end is looked for at once");
}

Test(lease_kill, a_refused_signal_leaves_a_lease_that_runs_alone)
{
    arrange_asked();
    complain_of_another();
    signaled(11, SIGTERM, -EPERM);
    cr_expect(eq(sz, count_logged("may not signal it"), 1));
    cr_expect(logged("holds lock 3"));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), world.now_ns + LEASE_NS));
}

Test(lease_kill, answers_about_a_process_that_has_ended_change_nothing)
{
    arrange_asked();
    end_process(11);
    forget_effects();
    looked(11, LKD_PROCESS_RUNS);
    signaled(11, SIGTERM, -EPERM);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 0));
    cr_expect(eq(int, last_signal(), 0));
    work();
    cr_expect(eq(int, native_step(&waiter), LKI_TAKEN_DIED));
}

Test(lease_kill, of_the_process_that_all_others_come_from_is_refused)
{
    holder_session = connect_as(ALICE, 1);
    waiter_session = connect_as(ALICE, 2);
    struct lki_opened attached = open_leased(holder_session, LK_EXPIRY_KILL, LK_ACCEPT_KILL);
    native_init(&holder, holder_session, &attached);
    attached = open_leased(waiter_session, LK_EXPIRY_KILL, 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, X), LKI_TAKEN));
    native_wait(&waiter, 3, X);
    complain();
    pass(LEASE_NS);
    cr_expect(logged("not killed: that would end the broker, or the whole system"));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));
}

/* Both fall due in one event: two signals to one process, of which one is left. */
Test(lease_kill, sigkill_is_not_taken_back_by_a_second_lease)
{
    arrange(LK_EXPIRY_KILL, LK_ACCEPT_KILL, BOB);
    complain();
    world.now_ns += LKD_GRACE_NS + LKI_NS_PER_S;
    complain_of_another();
    pass(LEASE_NS - LKD_GRACE_NS - LKI_NS_PER_S);
    cr_assert(eq(int, last_signal(), SIGTERM));
    forget_effects();
    pass(LKD_GRACE_NS + LKI_NS_PER_S);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 1));
    cr_expect(eq(int, last_signal(), SIGKILL));
}

Test(lease_kill, sigkill_takes_the_place_of_a_sigterm_on_its_way)
{
    arrange_asked();
    pass(LKD_GRACE_NS);
    forget_effects();
    /* The second lease expires in the same tick in which the look at the process is given up. */
    world.now_ns += LKI_NS_PER_S - LEASE_NS;
    complain_of_another();
    world.now_ns += LEASE_NS;
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 1));
    cr_expect(eq(int, last_signal(), SIGKILL));
}

static void setup_hasty(void)
{
    world_setup_with(&(struct lkd_core_config){
        .broker_uid = 1000,
        .broker_pid = 42,
        .token_epoch_s = 1000,
        .grace_ns = 5 * LKI_NS_PER_MS,
        .traced_grace_ns = 50 * LKI_NS_PER_MS,
    });
}

Test(lease_kill, the_graces_can_be_configured, .init = setup_hasty)
{
    arrange_asked();
    pass(5 * LKI_NS_PER_MS - 1);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 0));
    pass(1);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_LOOK_AT_PROCESS), 1));
    looked(11, LKD_PROCESS_TRACED);
    cr_expect(logged("a debugger has stopped it: it has 50 ms instead"));
    pass(25 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), SIGTERM));
    looked(11, LKD_PROCESS_TRACED);
    pass(25 * LKI_NS_PER_MS);
    looked(11, LKD_PROCESS_TRACED);
    cr_expect(eq(int, last_signal(), SIGKILL), "its time is over");
}

Test(lease_kill, a_forced_release_waits_no_longer_than_the_grace, .init = setup_hasty)
{
    arrange(LK_EXPIRY_REPORT, 0, BOB);
    uint64_t root = connect_as(0, 9);
    request_force(root, "~1000/a", 3, "it hangs");
    tick();
    cr_assert(eq(int, last_signal(), SIGTERM));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), world.now_ns + 5 * LKI_NS_PER_MS));
}

Test(lease_kill, a_sigkill_that_is_refused_is_reported)
{
    arrange_killed();
    signaled(11, SIGKILL, -EPERM);
    cr_expect(logged("not killed: the broker's user may not signal it"));
    pass(10 * LKI_NS_PER_S);
    cr_expect(not(logged("STUCK")));
}
