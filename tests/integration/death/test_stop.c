/* SPDX-License-Identifier: MIT */
/* A process is stopped, not killed: it holds up nobody longer than its own hold does. */
#include <errno.h>
#include <signal.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "stop"

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock;
static int done;

static void setup(void)
{
    struct lk_segment_options options = test_options(0, 1);
    done = test_event();
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

TestSuite(stop, .init = setup, .fini = teardown, .timeout = 60);

static int take_once(void *arg)
{
    struct test_client own;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, *(const enum lk_mode *)arg);
    test_release(its);
    test_event_post(done);
    test_client_close(&own);
    return 0;
}

static int read_until_killed(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&own, 0), LK_SHARED);
    test_event_post(done);
    return test_stay();
}

static int hold_until_killed(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    test_event_post(done);
    return test_stay();
}

static pid_t queued(enum lk_mode mode, uint32_t place)
{
    pid_t pid = test_spawn(take_once, &mode);
    test_await_waiters(lock, place);
    return pid;
}

Test(stop, waiter_stopped_at_the_head_is_passed_and_served_when_it_runs)
{
    test_acquire(lock, LK_EXCLUSIVE);
    pid_t stopped = queued(LK_EXCLUSIVE, 1);
    test_stop(stopped);
    pid_t others[3];
    for (uint32_t i = 0; i < 3; i++)
        others[i] = queued(i == 1 ? LK_SHARED : LK_EXCLUSIVE, 2 + i);

    test_release(lock);

    for (int i = 0; i < 3; i++)
        test_event_wait(done);
    for (int i = 0; i < 3; i++)
        test_reap_success(others[i]);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    test_continue(stopped);
    cr_expect(not(test_event_wait_for(done, 50 * LKI_NS_PER_MS)), "the lock is held");
    test_release(lock);
    test_event_wait(done);
    test_reap_success(stopped);
}

Test(stop, timed_writer_gives_up_behind_a_stopped_reader_and_readers_go_on)
{
    pid_t reader = test_spawn(read_until_killed, NULL);
    test_event_wait(done);
    test_stop(reader);
    struct test_client other;
    test_client_open(&other, broker.socket_path, NAME, NULL);
    struct lk_lock *others = test_lock(&other, 0);

    for (int i = 0; i < 20; i++) {
        cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LKI_NS_PER_MS), -ETIMEDOUT));
        cr_assert(eq(int, lk_lock_acquire(others, LK_SHARED, 10 * LKI_NS_PER_S), LK_ACQUIRED));
        test_release(others);
    }
    cr_expect(eq(int, lk_lock_release(lock), -EPERM), "a writer that gave up holds nothing");

    test_kill(reader);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED),
              "a dead reader leaves no damage");
    test_client_close(&other);
}

Test(stop, stopped_holder_keeps_its_lock)
{
    pid_t holder = test_spawn(hold_until_killed, NULL);
    test_event_wait(done);
    test_stop(holder);

    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 300 * LKI_NS_PER_MS), -ETIMEDOUT),
              "longer than any nap of a waiter");
    cr_expect(eq(int, lk_lock_acquire(lock, LK_SHARED, 20 * LKI_NS_PER_MS), -ETIMEDOUT));

    test_kill(holder);
    cr_expect(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED));
}
