/* SPDX-License-Identifier: MIT */
/* Update mode between processes: one beside readers, who becomes exclusive and comes back. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "update"
#define ROUNDS 300

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock, *other;
static int ready, go;

static void setup_with(uint32_t flags)
{
    struct lk_segment_options options = test_options(4096, 2);
    options.flags |= flags;
    ready = test_event();
    go = test_event();
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
    other = test_lock(&client, 1);
}

static void setup(void)
{
    setup_with(0);
}

static void setup_strict(void)
{
    setup_with(LK_STRICT);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

TestSuite(update, .init = setup, .fini = teardown, .timeout = 100);
TestSuite(update_strict, .init = setup_strict, .fini = teardown, .timeout = 100);

static bool error_has(const char *words)
{
    return strstr(lk_last_error(), words) != NULL;
}

static int read_until_told(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, LK_SHARED);
    test_event_post(ready);
    test_event_wait(go);
    test_release(its);
    test_client_close(&own);
    return 0;
}

static int read_then_want_the_other(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0), *wanted = test_lock(&own, 1);
    test_acquire(its, LK_SHARED);
    test_event_post(ready);
    test_acquire(wanted, LK_EXCLUSIVE);
    test_release(wanted);
    test_release(its);
    test_client_close(&own);
    return 0;
}

static int hold_for_update(void *arg)
{
    struct test_client own;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_acquire(its, LK_UPDATE);
    if (arg)
        test_check(lk_lock_upgrade(its, 0) == LK_ACQUIRED, "%s", lk_last_error());
    test_event_post(ready);
    test_stay();
}

static void wait_for_the_reader(void)
{
    pid_t reader = test_spawn(read_until_told, NULL);
    test_event_wait(ready);
    test_acquire(lock, LK_UPDATE);
    uint64_t token = lk_lock_token(lock);
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), -EBUSY));
    cr_expect(error_has("readers are inside; it is still held for update"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_upgrade(lock, 5 * LKI_NS_PER_MS), -ETIMEDOUT));
    cr_expect(error_has("still held for update"), "%s", lk_last_error());
    cr_expect(eq(u64, lk_lock_token(lock), token));
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_assert(eq(int, lk_lock_holder(lock, &holder), 0));
    cr_expect(eq(u32, holder.mode, LK_UPDATE));
    cr_expect(eq(u32, holder.holders, 2));

    test_event_post(go);
    cr_expect(eq(int, lk_lock_upgrade(lock, LK_WAIT_FOREVER), LK_ACQUIRED));
    cr_expect(gt(u64, lk_lock_token(lock), token));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_UPDATE), 0));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_SHARED), 0));
    test_release(lock);
    test_reap_success(reader);
}

Test(update, is_held_beside_a_reader_and_waits_for_it_to_leave)
{
    wait_for_the_reader();
}

Test(update_strict, is_held_beside_a_reader_and_waits_for_it_to_leave)
{
    wait_for_the_reader();
}

static void let_the_readers_in(void)
{
    test_acquire(lock, LK_EXCLUSIVE);
    pid_t one = test_spawn(read_until_told, NULL), two = test_spawn(read_until_told, NULL);
    test_await_waiters(lock, 2);
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_UPDATE), 0));
    test_event_wait(ready);
    test_event_wait(ready);
    test_event_post(go);
    test_event_post(go);
    test_reap_success(one);
    test_reap_success(two);
    test_release(lock);
}

Test(update, a_downgrade_lets_the_waiting_readers_in)
{
    let_the_readers_in();
}

Test(update_strict, a_downgrade_lets_the_waiting_readers_in)
{
    let_the_readers_in();
}

Test(update, a_reader_that_waits_for_its_owner_is_no_wait_without_end)
{
    test_acquire(lock, LK_UPDATE);
    test_acquire(other, LK_EXCLUSIVE);
    pid_t reader = test_spawn(read_then_want_the_other, NULL);
    test_event_wait(ready);
    test_await_waiters(other, 1);
    cr_expect(eq(int, lk_lock_upgrade(lock, LK_WAIT_FOREVER), -EDEADLK));
    cr_expect(error_has("in a ring"), "%s", lk_last_error());
    test_release(other);
    cr_expect(eq(int, lk_lock_upgrade(lock, LK_WAIT_FOREVER), LK_ACQUIRED), "%s", lk_last_error());
    test_release(lock);
    test_reap_success(reader);
}

Test(update, the_death_of_its_owner_is_a_plain_release)
{
    pid_t owner = test_spawn(hold_for_update, NULL);
    test_event_wait(ready);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_UPDATE, 0), -EBUSY));
    test_acquire(lock, LK_SHARED);
    test_release(lock);
    test_kill(owner);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), LK_ACQUIRED));
    test_release(lock);
}

Test(update, the_death_of_one_that_became_exclusive_is_told)
{
    pid_t owner = test_spawn(hold_for_update, &broker);
    test_event_wait(ready);
    test_kill(owner);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, lk_lock_mark_consistent(lock), -EPERM));
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, lk_lock_mark_consistent(lock), 0));
    test_release(lock);
}

/* Whatever its owner had before: marked as one that writes, or others would read while it does. */
Test(update, an_upgraded_hold_is_of_data)
{
    uint64_t version;
    pid_t owner = test_spawn(hold_for_update, &broker);
    test_event_wait(ready);
    test_kill(owner);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE_TO_EXIT, LK_WAIT_FOREVER),
                 LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_downgrade(lock, LK_UPDATE), 0));
    cr_assert(eq(int, lk_lock_upgrade(lock, 0), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, lk_lock_mark_consistent(lock), 0));
    cr_expect(eq(u64, lk_lock_token(lock) & 1, 1));
    cr_expect(eq(int, lk_read_begin(lock, &version), -EAGAIN));
    test_release(lock);
}

/* Reads, and writes now and then: what read-modify-write is for. */
static int count_up(void *arg)
{
    struct test_client own;
    struct test_random random = {.state = (uint64_t)(uintptr_t)arg};
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    uint64_t *values = (uint64_t *)(void *)own.data;
    for (unsigned i = 0; i < ROUNDS; i++) {
        test_acquire(its, LK_SHARED);
        test_check(values[0] == values[1], "half a write is seen");
        test_release(its);
        test_acquire(its, LK_UPDATE);
        uint64_t seen = values[0];
        int r = lk_lock_upgrade(its, test_random_below(&random, 3) ? LK_WAIT_FOREVER : 0);
        test_check(r == LK_ACQUIRED || r == -EBUSY, "%s", lk_last_error());
        if (r == -EBUSY)
            r = lk_lock_upgrade(its, LK_WAIT_FOREVER);
        test_check(r == LK_ACQUIRED, "%s", lk_last_error());
        test_check(values[0] == seen, "somebody has written beside an owner for update");
        values[0] = seen + 1;
        values[1] = seen + 1;
        r = lk_lock_downgrade(its, test_random_below(&random, 2) ? LK_UPDATE : LK_SHARED);
        test_check(r == 0, "%s", lk_last_error());
        test_check(values[0] == seen + 1, "somebody has written beside a reader");
        test_release(its);
    }
    test_client_close(&own);
    return 0;
}

static void count_up_together(void)
{
    pid_t children[3];
    for (uintptr_t i = 0; i < 3; i++)
        children[i] = test_spawn(count_up, (void *)(i + 1));
    for (unsigned i = 0; i < 3; i++)
        test_reap_success(children[i]);
    cr_expect(eq(u64, *(uint64_t *)(void *)client.data, 3 * ROUNDS));
}

Test(update, nothing_is_lost_between_the_look_and_the_write)
{
    count_up_together();
}

Test(update_strict, nothing_is_lost_between_the_look_and_the_write)
{
    count_up_together();
}

static void note(struct lk_lock *which, int result, void *user)
{
    (void)which;
    *(int *)user = result;
}

Test(update, an_asynchronous_hold_changes_its_mode_too)
{
    int result = INT32_MIN;
    cr_assert(eq(int, lk_lock_acquire_async(lock, LK_UPDATE, LK_WAIT_FOREVER, note, &result), 0));
    while (result == INT32_MIN) {
        struct pollfd poll_fd = {.fd = lk_session_fd(client.session), .events = POLLIN};
        cr_assert(eq(int, poll(&poll_fd, 1, 30000), 1));
        cr_assert(ge(int, lk_session_dispatch(client.session), 0));
    }
    cr_assert(eq(int, result, LK_ACQUIRED));
    pid_t reader = test_spawn(read_until_told, NULL);
    test_event_wait(ready);
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), -EBUSY));
    test_event_post(go);
    cr_expect(eq(int, lk_lock_upgrade(lock, LK_WAIT_FOREVER), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_SHARED), 0));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_SHARED), -EPERM));
    test_release(lock);
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), -EPERM));
    test_reap_success(reader);
}
