/* SPDX-License-Identifier: MIT */
/* Sessions that may not write the control area: read-only ones, and all of a strict segment. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"

#define BROKERED_TEST(name) Test(brokered, name, .init = fixture_start, .fini = fixture_stop)

static struct lk_session *session, *other;
static struct lk_lock *native, *brokered;

static void open_all(void)
{
    session = open_session();
    other = open_session();
    native = open_lock(open_segment(session, "s", 4096, LK_CREATE), 0);
    brokered = open_lock(open_segment(other, "s", 0, LK_READ_ONLY), 0);
}

static void close_all(void)
{
    lk_session_close(session);
    lk_session_close(other);
}

BROKERED_TEST(read_only_session_excludes_and_is_excluded)
{
    open_all();
    cr_assert(eq(int, lk_lock_acquire(brokered, LK_SHARED, 0), LK_ACQUIRED), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 0), -EBUSY));
    cr_expect(eq(int, lk_lock_acquire(native, LK_SHARED, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(native), 0));
    cr_expect(eq(int, lk_lock_release(brokered), 0), "%s", lk_last_error());
    /* Not a try: the broker may not have read the release yet. */
    cr_expect(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(brokered, LK_SHARED, 0), -EBUSY));
    cr_expect(error_has("s"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_acquire(brokered, LK_SHARED, 10 * LKI_NS_PER_MS), -ETIMEDOUT));
    close_all();
}

BROKERED_TEST(brokered_holds_do_not_nest_and_are_released_once)
{
    open_all();
    cr_expect(eq(int, lk_lock_release(brokered), -EPERM));
    cr_assert(eq(int, lk_lock_acquire(brokered, LK_SHARED, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(brokered, LK_SHARED, 0), -EDEADLK));
    cr_expect(eq(int, lk_lock_release(brokered), 0));
    cr_expect(eq(int, lk_lock_release(brokered), -EPERM));
    close_all();
}

BROKERED_TEST(optimistic_reads_need_no_rights)
{
    open_all();
    uint64_t version = 0;
    cr_assert(eq(int, lk_read_begin(brokered, &version), 0));
    cr_expect(lk_read_valid(brokered, version));
    cr_assert(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(not(lk_read_valid(brokered, version)));
    cr_expect(eq(int, lk_read_begin(brokered, &version), -EAGAIN));
    cr_assert(eq(int, lk_lock_release(native), 0));
    close_all();
}

static int wait_brokered(struct child *side, void *user)
{
    struct lk_session *own = NULL;
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", &options, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    CHILD_CHECK(lk_lock_acquire(own_lock, LK_SHARED, LK_WAIT_FOREVER) == LK_ACQUIRED);
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_lock_release(own_lock) == 0);
    lk_session_close(own);
    return 0;
}

BROKERED_TEST(native_unlock_reaches_a_brokered_waiter)
{
    open_all();
    cr_assert(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct child child = child_start(wait_brokered, NULL);
    struct lk_holder holder = {.size = sizeof(holder)};
    do
        cr_assert(eq(int, lk_lock_holder(native, &holder), 0));
    while (holder.waiters == 0);
    cr_assert(eq(int, lk_lock_release(native), 0));
    child_await(&child);
    cr_expect(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 0), -EBUSY));
    child_tell(&child);
    cr_expect(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    child_join(&child);
    close_all();
}

BROKERED_TEST(killed_brokered_holder_is_repaired)
{
    open_all();
    struct child child = child_start(wait_brokered, NULL);
    child_await(&child);
    child_kill(&child);
    cr_expect(eq(int, lk_lock_acquire(native, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED), "%s",
              lk_last_error());
    close_all();
}

BROKERED_TEST(strict_segment_locks_through_the_broker_for_all)
{
    session = open_session();
    other = open_session();
    struct lk_segment *ours = open_segment(session, "strict", 4096, LK_CREATE | LK_STRICT);
    struct lk_segment *theirs = open_segment(other, "strict", 0, 0);
    struct lk_lock *lock = open_lock(ours, 0), *their_lock = open_lock(theirs, 0);
    strcpy(map_segment(ours, 0, 0), "data is writable");
    cr_expect(eq(str, (char *)map_segment(theirs, 0, 0), "data is writable"));

    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "%s", lk_last_error());
    uint64_t token = lk_lock_token(lock);
    cr_expect(eq(int, lk_lock_declare(lock, 0, 16), 0), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), -EBUSY));
    lk_session_close(session);

    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S),
                 LK_ACQUIRED_OWNER_DIED),
              "%s", lk_last_error());
    cr_expect(gt(u64, lk_lock_token(their_lock), token));
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    cr_expect(eq(int, lk_lock_recovery(their_lock, &recovery), 0));
    cr_expect(eq(u64, recovery.dirty_length_bytes, 16));
    cr_expect(eq(u32, recovery.cause, LK_CAUSE_CLOSED));
    cr_expect(eq(int, lk_lock_mark_consistent(their_lock), 0), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_release(their_lock), 0));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    lk_session_close(other);
}
