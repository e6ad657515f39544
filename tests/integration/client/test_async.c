/* SPDX-License-Identifier: MIT */
/* Asynchronous acquires, in one queue with those who wait natively. */
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <lockkeeper/inline.h>

#include "common/clock.h"

#define ASYNC_TEST(name) Test(async, name, .init = fixture_start, .fini = fixture_stop)

static struct lk_session *session, *other;
static struct lk_segment *segment;
static struct lk_lock *lock, *their_lock;

static int calls, last_result;

static void on_acquired(struct lk_lock *which, int result, void *user)
{
    cr_expect(eq(ptr, which, lock));
    cr_expect(eq(ptr, user, &calls));
    calls++;
    last_result = result;
}

static void open_all(void)
{
    session = open_session();
    other = open_session();
    segment = open_segment(session, "s", 0, LK_CREATE);
    lock = open_lock(segment, 0);
    their_lock = open_lock(open_segment(other, "s", 0, 0), 0);
    calls = 0;
    last_result = 1000;
}

static void close_all(void)
{
    lk_session_close(session);
    lk_session_close(other);
}

static void acquire_async(enum lk_mode mode, uint64_t timeout_ns)
{
    cr_assert(eq(int, lk_lock_acquire_async(lock, mode, timeout_ns, on_acquired, &calls), 0), "%s",
              lk_last_error());
}

/* As an event loop does: polls the descriptor, then dispatches. */
static void dispatch_until_called(void)
{
    struct pollfd poll_fd = {.fd = lk_session_fd(session), .events = POLLIN};
    while (calls == 0) {
        cr_assert(eq(int, poll(&poll_fd, 1, 20000), 1), "no answer comes");
        cr_assert(ge(int, lk_session_dispatch(session), 0), "%s", lk_last_error());
    }
}

ASYNC_TEST(free_lock_is_granted_through_the_descriptor)
{
    open_all();
    acquire_async(LK_EXCLUSIVE, 0);
    dispatch_until_called();
    cr_assert(eq(int, last_result, LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), -EBUSY));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EDEADLK));
    cr_expect(eq(int, lk_lock_release(lock), 0), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_release(lock), -EPERM));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    close_all();
}

/* Who waits for one lock and takes another may close a ring: the library has to see that. */
ASYNC_TEST(while_one_is_waited_for_no_other_is_taken_without_a_look)
{
    open_all();
    struct lk_lock *second = open_lock(segment, 1);
    const struct lk_inline *view = lk_lock_inline(second, LK_INLINE_LAYOUT);
    cr_expect(ne(ptr, view->words, NULL));
    cr_expect(ne(ptr, view->cell, NULL));
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    acquire_async(LK_EXCLUSIVE, LK_WAIT_FOREVER);
    for (int i = 0; i < 2; i++) {
        cr_expect(eq(ptr, view->words, NULL));
        cr_expect(eq(ptr, view->cell, NULL));
        cr_expect(ne(ptr, view->read_words, NULL));
        cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 0), LK_ACQUIRED));
        cr_assert(eq(int, lk_lock_release(second), 0));
    }
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    dispatch_until_called();
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(ne(ptr, view->words, NULL), "open again with its next use");
    cr_expect(ne(ptr, view->cell, NULL));
    cr_assert(eq(int, lk_lock_release(second), 0));
    close_all();
}

ASYNC_TEST(native_release_grants_to_the_one_who_waits_asynchronously)
{
    open_all();
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    acquire_async(LK_EXCLUSIVE, LK_WAIT_FOREVER);
    struct lk_holder holder = {.size = sizeof(holder)};
    do
        cr_assert(eq(int, lk_lock_holder(their_lock, &holder), 0));
    while (holder.waiters == 0);
    cr_assert(eq(int, lk_session_dispatch(session), 0));
    uint64_t start_ns = lki_clock_now_ns();
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    dispatch_until_called();
    cr_expect(eq(int, last_result, LK_ACQUIRED));
    cr_expect(lt(u64, lki_clock_now_ns() - start_ns, 5 * LKI_NS_PER_S), "nudged, not napped");
    cr_expect(eq(int, lk_lock_release(lock), 0));
    close_all();
}

ASYNC_TEST(asynchronous_timeouts_and_tries)
{
    open_all();
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    acquire_async(LK_SHARED, 0);
    dispatch_until_called();
    cr_expect(eq(int, last_result, -EBUSY));
    calls = 0;
    acquire_async(LK_SHARED, 20 * LKI_NS_PER_MS);
    dispatch_until_called();
    cr_expect(eq(int, last_result, -ETIMEDOUT));
    close_all();
}

ASYNC_TEST(cancelled_wait_leaves_the_queue)
{
    open_all();
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    acquire_async(LK_EXCLUSIVE, LK_WAIT_FOREVER);
    cr_expect(eq(int, lk_lock_cancel(lock), 0), "%s", lk_last_error());
    dispatch_until_called();
    cr_expect(eq(int, last_result, -ECANCELED));
    cr_expect(eq(int, lk_lock_release(their_lock), 0));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "natively again");
    close_all();
}

ASYNC_TEST(cancel_that_comes_too_late_is_told_of_the_grant)
{
    open_all();
    acquire_async(LK_EXCLUSIVE, LK_WAIT_FOREVER);
    struct pollfd poll_fd = {.fd = lk_session_fd(session), .events = POLLIN};
    cr_assert(eq(int, poll(&poll_fd, 1, 20000), 1)); /* the grant is here, and not looked at */
    cr_expect(eq(int, lk_lock_cancel(lock), 1));
    dispatch_until_called();
    cr_expect(eq(int, last_result, LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    close_all();
}

static int queue_natively(struct child *side, void *user)
{
    struct lk_session *own = NULL;
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    CHILD_CHECK(lk_lock_acquire(own_lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == LK_ACQUIRED);
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_lock_release(own_lock) == 0);
    lk_session_close(own);
    return 0;
}

static void await_waiters(uint32_t count)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    do
        cr_assert(eq(int, lk_lock_holder(their_lock, &holder), 0));
    while (holder.waiters < count);
}

/* Strictly first in, first out: native, asynchronous, native. */
ASYNC_TEST(one_queue_for_both_kinds)
{
    session = open_session();
    other = open_session();
    const struct lk_segment_options options = {
        .size = sizeof(options), .flags = LK_CREATE, .patience_ns = LK_PATIENCE_FIFO};
    cr_assert(eq(int, lk_segment_open(session, "s", &options, &segment), LK_CREATED));
    lock = open_lock(segment, 0);
    their_lock = open_lock(open_segment(other, "s", 0, 0), 0);
    calls = 0;
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child first = child_start(queue_natively, NULL);
    await_waiters(1);
    acquire_async(LK_EXCLUSIVE, LK_WAIT_FOREVER);
    await_waiters(2);
    struct child last = child_start(queue_natively, NULL);
    await_waiters(3);

    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    child_await(&first);
    cr_expect(not(child_has_told(&last, 30)));
    cr_expect(eq(int, lk_session_dispatch(session), 0), "not its turn yet");
    child_tell(&first);
    dispatch_until_called();
    cr_expect(eq(int, last_result, LK_ACQUIRED));
    cr_expect(not(child_has_told(&last, 30)));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    child_await(&last);
    child_tell(&last);
    child_join(&first);
    child_join(&last);
    close_all();
}

/* As a program does that always wants the lock again. What it asks the broker meanwhile brings the next
 * grant with it. */
static void acquire_again(struct lk_lock *which, int result, void *user)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    const bool *stop = user;
    calls++;
    cr_expect(eq(int, result, LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(which), 0), "%s", lk_last_error());
    if (*stop || calls >= 100)
        return;
    cr_expect(eq(
        int, lk_lock_acquire_async(which, LK_EXCLUSIVE, LK_WAIT_FOREVER, acquire_again, user), 0));
    cr_expect(eq(int, lk_lock_holder(which, &holder), 0), "%s", lk_last_error());
}

ASYNC_TEST(dispatch_returns_though_callbacks_acquire_again)
{
    bool stop = false;
    open_all();
    struct pollfd poll_fd = {.fd = lk_session_fd(session), .events = POLLIN};
    cr_assert(eq(
        int, lk_lock_acquire_async(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, acquire_again, &stop), 0));
    for (int turn = 1; turn <= 3; turn++) {
        cr_assert(eq(int, poll(&poll_fd, 1, 20000), 1), "no answer comes");
        cr_assert(eq(int, lk_session_dispatch(session), 1));
        cr_assert(eq(int, calls, turn));
    }
    stop = true;
    cr_assert(eq(int, poll(&poll_fd, 1, 20000), 1), "the last one is forgotten");
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    close_all();
}
