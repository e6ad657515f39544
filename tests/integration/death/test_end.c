/* SPDX-License-Identifier: MIT */
/* A process is killed, or a session closed, while it holds or waits: what the next one is told. */
#include <errno.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "end"

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock;

/* What a child does, and what it says; shared with it. */
static struct order {
    enum lk_mode mode;
    bool declares;
    int ready; /* posted when it holds, or is about to wait */
    uint64_t token;
} * order;

static void setup(void)
{
    struct lk_segment_options options = test_options(4096, 4);
    order = test_shared(sizeof(*order));
    order->ready = test_event();
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

TestSuite(end, .init = setup, .fini = teardown, .timeout = 60);

static int hold(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, order->mode);
    order->token = lk_lock_token(its);
    if (order->declares)
        test_check(lk_lock_declare(its, 100, 23) == 0, "declare: %s", lk_last_error());
    test_event_post(order->ready);
    return test_stay();
}

/* Waits for the lock in the mode of the order, and then stays. */
static int wait_then_hold(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, order->mode);
    test_event_post(order->ready);
    return test_stay();
}

static pid_t holder(enum lk_mode mode)
{
    order->mode = mode;
    pid_t pid = test_spawn(hold, NULL);
    test_event_wait(order->ready);
    return pid;
}

static int acquire(enum lk_mode mode)
{
    return lk_lock_acquire(lock, mode, 20 * LKI_NS_PER_S);
}

Test(end, next_holder_is_told_who_died_and_the_token_has_risen)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    pid_t pid = holder(LK_EXCLUSIVE);

    test_kill(pid);

    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(int, recovery.pid, pid));
    cr_expect(eq(u32, recovery.uid, getuid()));
    cr_expect(eq(u32, recovery.cause, LK_CAUSE_EXITED));
    cr_expect(eq(u64, recovery.token, order->token));
    cr_expect(eq(u32, recovery.declared, 0));
    cr_expect(lt(u64, order->token, lk_lock_token(lock)));
}

Test(end, declared_range_reaches_the_next_holder)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    order->declares = true;
    test_kill(holder(LK_EXCLUSIVE));

    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(ne(u32, recovery.declared, 0));
    cr_expect(eq(u64, recovery.dirty_offset, 100));
    cr_expect(eq(u64, recovery.dirty_length_bytes, 23));
}

Test(end, everybody_is_told_until_it_is_marked_consistent)
{
    uint64_t version;
    test_kill(holder(LK_EXCLUSIVE));

    cr_assert(eq(int, acquire(LK_SHARED), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, lk_lock_mark_consistent(lock), -EPERM), "a reader cannot repair");
    test_release(lock);
    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    test_release(lock);
    cr_expect(eq(int, lk_read_begin(lock, &version), -EOWNERDEAD));

    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
    test_release(lock);
    cr_expect(eq(int, lk_read_begin(lock, &version), 0));
    cr_expect(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED));
}

Test(end, reader_that_died_leaves_no_damage)
{
    test_kill(holder(LK_SHARED));
    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED));
}

Test(end, holder_to_exit_that_died_leaves_no_damage)
{
    test_kill(holder(LK_EXCLUSIVE_TO_EXIT));
    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED));
    cr_expect(lt(u64, order->token, lk_lock_token(lock)));
}

/* Alone in the queue, so that nobody but the broker can wake it; its own next look is up to 250 ms
 * away. A busy machine may be late once, not three times. */
Test(end, lone_waiter_is_woken_before_it_looks_by_itself)
{
    bool woken = false;
    for (int tries = 0; !woken && tries < 3; tries++) {
        pid_t pid = holder(LK_EXCLUSIVE);
        pid_t waiter = test_spawn(wait_then_hold, NULL);
        test_await_waiters(lock, 1);
        test_sleep_ns(20 * LKI_NS_PER_MS); /* into its long nap; not for an event */

        test_kill(pid);

        woken = test_event_wait_for(order->ready, 150 * LKI_NS_PER_MS);
        if (!woken)
            test_event_wait(order->ready);
        test_kill(waiter);
        cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
        cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
        test_release(lock);
    }
    cr_expect(woken, "repair wakes nobody");
}

Test(end, queued_waiter_that_died_is_passed_over)
{
    test_acquire(lock, LK_EXCLUSIVE);
    order->mode = LK_EXCLUSIVE;
    pid_t first = test_spawn(wait_then_hold, NULL);
    test_await_waiters(lock, 1);
    pid_t second = test_spawn(wait_then_hold, NULL);
    test_await_waiters(lock, 2);

    test_kill(first);
    test_release(lock);

    test_event_wait(order->ready);
    test_kill(second);
    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
}

Test(end, waiter_killed_right_after_its_wake_loses_nothing_for_those_behind)
{
    for (int round = 0; round < 20; round++) {
        int r = acquire(LK_EXCLUSIVE);
        cr_assert(le(int, 0, r));
        if (r == LK_ACQUIRED_OWNER_DIED)
            cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
        order->mode = LK_EXCLUSIVE;
        pid_t first = test_spawn(wait_then_hold, NULL);
        test_await_waiters(lock, 1);
        test_stop(first); /* its wake comes, but it does not run any more */
        pid_t second = test_spawn(wait_then_hold, NULL);
        test_await_waiters(lock, 2);

        test_release(lock);
        test_kill(first);

        test_event_wait(order->ready);
        test_kill(second);
    }
}

Test(end, session_that_closes_while_holding_hands_on_as_a_death)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    struct test_client other;
    test_client_open(&other, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&other, 0), LK_EXCLUSIVE);

    test_client_close(&other);

    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(u32, recovery.cause, LK_CAUSE_CLOSED));
    cr_expect(eq(int, recovery.pid, getpid()));
}

Test(end, repairer_that_dies_too_leaves_the_damage_for_the_next)
{
    test_kill(holder(LK_EXCLUSIVE));
    pid_t repairer = holder(LK_EXCLUSIVE);
    struct lk_recovery recovery = {.size = sizeof(recovery)};

    test_kill(repairer);

    cr_assert(eq(int, acquire(LK_EXCLUSIVE), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(int, recovery.pid, repairer));
}
