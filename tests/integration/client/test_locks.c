/* SPDX-License-Identifier: MIT */
/* Exclusive and shared locks between processes, and what refusals say. */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/bounds.h"
#include "common/clock.h"

#define LOCK_TEST(name) Test(locks, name, .init = fixture_start, .fini = fixture_stop)

struct hold {
    enum lk_mode mode;
    uint32_t index;
};

/* Takes the lock, tells, and gives it back when told. */
static int hold_lock(struct child *side, void *user)
{
    const struct hold *hold = user;
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(lk_segment_open(session, "s", NULL, &segment) == 0);
    CHILD_CHECK(lk_lock_at(segment, hold->index, &lock) == 0);
    CHILD_CHECK(lk_lock_acquire(lock, hold->mode, 0) == LK_ACQUIRED);
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_lock_release(lock) == 0);
    child_tell(side);
    child_await(side);
    lk_session_close(session);
    return 0;
}

/* Waits as long as it takes, then tells. */
static int wait_for_lock(struct child *side, void *user)
{
    const struct hold *hold = user;
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(lk_segment_open(session, "s", NULL, &segment) == 0);
    CHILD_CHECK(lk_lock_at(segment, hold->index, &lock) == 0);
    child_tell(side);
    CHILD_CHECK(lk_lock_acquire(lock, hold->mode, LK_WAIT_FOREVER) == LK_ACQUIRED);
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_lock_release(lock) == 0);
    lk_session_close(session);
    return 0;
}

static struct lk_session *session;
static struct lk_segment *segment;
static struct lk_lock *lock;

static void open_all(void)
{
    session = open_session();
    segment = open_segment(session, "s", 0, LK_CREATE);
    lock = open_lock(segment, 0);
}

static uint32_t waiters(void)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_assert(eq(int, lk_lock_holder(lock, &holder), 0), "%s", lk_last_error());
    return holder.waiters;
}

/* Until a writer has taken the word and waits for the readers inside: then it is nobody else's
 * turn. */
static void await_writer(void)
{
    struct lk_session *third = open_session();
    struct lk_lock *probe = open_lock(open_segment(third, "s", 0, 0), 0);
    while (lk_lock_acquire(probe, LK_SHARED, 0) == LK_ACQUIRED)
        cr_assert(eq(int, lk_lock_release(probe), 0));
    lk_session_close(third);
}

LOCK_TEST(exclusive_keeps_others_out_and_names_its_holder)
{
    open_all();
    struct hold hold = {.mode = LK_EXCLUSIVE};
    struct child child = child_start(hold_lock, &hold);
    child_await(&child);

    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EBUSY));
    cr_expect(error_has("cannot lock 's'") && error_has("EBUSY"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EBUSY));
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_assert(eq(int, lk_lock_holder(lock, &holder), 0));
    cr_expect(eq(i32, holder.pid, child.pid));
    cr_expect(eq(u32, holder.uid, geteuid()));
    cr_expect(eq(u32, holder.mode, LK_EXCLUSIVE));
    cr_expect(eq(u32, holder.holders, 1));

    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 5 * LKI_NS_PER_MS), -ETIMEDOUT));
    char pid[24];
    (void)snprintf(pid, sizeof(pid), "[%d]", child.pid);
    cr_expect(error_has(pid) && error_has("ETIMEDOUT") && error_has("lockkeeper why s"), "%s",
              lk_last_error());

    child_tell(&child);
    child_await(&child);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

LOCK_TEST(shared_holds_are_together_and_a_writer_waits_for_the_last)
{
    open_all();
    struct hold read = {.mode = LK_SHARED}, write = {.mode = LK_EXCLUSIVE};
    struct child reader = child_start(hold_lock, &read);
    child_await(&reader);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), LK_ACQUIRED));
    struct child writer = child_start(wait_for_lock, &write);
    child_await(&writer);
    await_writer();
    child_tell(&reader);
    child_await(&reader);
    cr_assert(not(child_has_told(&writer, 20)), "one reader is inside");
    cr_assert(eq(int, lk_lock_release(lock), 0));
    child_await(&writer);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EBUSY));
    child_tell(&writer);
    child_join(&writer);
    child_tell(&reader);
    child_join(&reader);
    lk_session_close(session);
}

LOCK_TEST(waiter_gets_the_lock_when_it_is_released)
{
    open_all();
    struct hold hold = {.mode = LK_EXCLUSIVE};
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child child = child_start(wait_for_lock, &hold);
    child_await(&child);
    while (waiters() == 0)
        continue;
    cr_assert(eq(int, lk_lock_release(lock), 0));
    child_await(&child);
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

LOCK_TEST(timeout_is_kept)
{
    open_all();
    struct hold hold = {.mode = LK_EXCLUSIVE};
    struct child child = child_start(hold_lock, &hold);
    child_await(&child);
    uint64_t start_ns = lki_clock_now_ns();
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 30 * LKI_NS_PER_MS), -ETIMEDOUT));
    cr_assert(ge(u64, lki_clock_now_ns() - start_ns, 30 * LKI_NS_PER_MS));
    child_tell(&child);
    child_await(&child);
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

LOCK_TEST(refusals_that_need_nobody_else)
{
    open_all();
    struct lk_lock *none = NULL;
    cr_expect(eq(int, lk_lock_release(lock), -EPERM));
    cr_expect(error_has("DOES NOT HOLD"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_at(segment, 16, &none), -ERANGE));
    cr_expect(error_has("16 locks"), "%s", lk_last_error());
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), -EDEADLK));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER), -EDEADLK));
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_lock_release(lock), -EPERM), "twice");
    lk_session_close(session);
}

LOCK_TEST(seventeenth_shared_hold_is_refused)
{
    session = open_session();
    const struct lk_segment_options options = {
        .size = sizeof(options), .locks = 17, .flags = LK_CREATE};
    cr_assert(eq(int, lk_segment_open(session, "s", &options, &segment), LK_CREATED));
    for (uint32_t i = 0; i < LKI_SHARED_HOLDS_MAX; i++)
        cr_assert(eq(int, lk_lock_acquire(open_lock(segment, i), LK_SHARED, 0), LK_ACQUIRED));
    lock = open_lock(segment, 16);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER), -ENOLCK));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "X needs no cell");
    lk_session_close(session);
}

LOCK_TEST(names_lead_to_the_same_lock_everywhere)
{
    open_all();
    struct lk_session *other = open_session();
    struct lk_segment *theirs = open_segment(other, "s", 0, 0);
    struct lk_lock *ours_named = NULL, *theirs_named = NULL, *next = NULL;
    cr_assert(eq(int, lk_lock_named(segment, "orders", &ours_named), 0), "%s", lk_last_error());
    cr_assert(eq(int, lk_lock_named(theirs, "orders", &theirs_named), 0));
    cr_assert(eq(int, lk_lock_named(theirs, "bills", &next), 0));
    cr_assert(eq(int, lk_lock_acquire(ours_named, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(theirs_named, LK_EXCLUSIVE, 0), -EBUSY));
    cr_expect(error_has("'s#orders'"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_acquire(next, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_named(segment, "17", &next), -EINVAL));
    char name[16];
    int r = 0;
    for (int i = 0; i < 20 && r == 0; i++) {
        (void)snprintf(name, sizeof(name), "lock-%d", i);
        r = lk_lock_named(segment, name, &next);
    }
    cr_expect(eq(int, r, -ENOSPC), "the table has 16 entries");
    lk_session_close(session);
    lk_session_close(other);
}

LOCK_TEST(two_sessions_of_one_process_own_apart)
{
    open_all();
    struct lk_session *other = open_session();
    struct lk_lock *their_lock = open_lock(open_segment(other, "s", 0, 0), 0);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), -EBUSY));
    cr_expect(eq(int, lk_lock_release(their_lock), -EPERM));
    lk_session_close(session);
    lk_session_close(other);
}

LOCK_TEST(native_locks_go_on_when_the_broker_is_gone)
{
    open_all();
    struct lk_session *other = open_session();
    struct lk_lock *their_lock = open_lock(open_segment(other, "s", 0, 0), 0);
    fixture_kill_daemon();
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 3 * LKI_NS_PER_MS), -ETIMEDOUT));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct lk_segment *none = NULL;
    cr_expect(eq(int, lk_segment_open(session, "s", NULL, &none), -ECONNRESET));
    cr_expect(error_has("open a new session"), "%s", lk_last_error());
    lk_session_close(session);
    lk_session_close(other);
}
