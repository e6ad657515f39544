/* SPDX-License-Identifier: MIT */
/* The paths that are compiled into programs: they agree with the library's, and give way to them. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <lockkeeper/inline.h>

#define INLINE_TEST(name) Test(inline, name, .init = fixture_start, .fini = fixture_stop)
#define ROUNDS 20000u

static struct lk_session *session;
static struct lk_segment *segment;
static struct lk_lock *lock;
static const struct lk_inline *fast;

static void open_all(uint32_t flags)
{
    session = open_session();
    segment = open_segment(session, "s", 4096, LK_CREATE | flags);
    lock = open_lock(segment, 0);
    fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    cr_assert(ne(ptr, (void *)fast, NULL));
}

static int acquire(void)
{
    return lk_inline_acquire(fast, lock, LK_EXCLUSIVE, 0);
}

INLINE_TEST(either_releases_what_the_other_has_acquired)
{
    open_all(0);
    cr_assert(eq(int, acquire(), LK_ACQUIRED));
    cr_expect(eq(int, acquire(), -EDEADLK), "they do not nest");
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    cr_expect(eq(int, lk_inline_release(fast, lock), -EPERM));
    cr_assert(eq(int, lk_inline_acquire(fast, lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    lk_session_close(session);
}

INLINE_TEST(a_copy_takes_any_offset_and_length_and_nothing_beside)
{
    _Alignas(8) unsigned char source[112], target[128];
    for (unsigned i = 0; i < sizeof(source); i++)
        source[i] = (unsigned char)(i + 1);
    for (size_t offset = 0; offset < 9; offset++)
        for (size_t bytes = 0; bytes <= 100; bytes++)
            for (size_t to = 8; to < 10; to++) {
                memset(target, 0xee, sizeof(target));
                lk_inline_read_copy(target + to, source + offset, bytes);
                cr_assert(eq(int, memcmp(target + to, source + offset, bytes), 0), "%zu+%zu",
                          offset, bytes);
                cr_assert(eq(u8, target[to - 1], 0xee));
                cr_assert(eq(u8, target[to + bytes], 0xee), "%zu+%zu", offset, bytes);
            }
}

INLINE_TEST(a_read_is_valid_until_somebody_writes)
{
    open_all(0);
    uint64_t version = 0;
    cr_assert(eq(int, lk_inline_read_begin(fast, lock, &version), 0));
    cr_expect(lk_inline_read_valid(fast, lock, version));
    cr_expect(lk_read_valid(lock, version));
    cr_assert(eq(int, acquire(), LK_ACQUIRED));
    cr_expect(not(lk_inline_read_valid(fast, lock, version)));
    cr_expect(eq(int, lk_inline_read_begin(fast, lock, &version), -EAGAIN));
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    cr_assert(eq(int, lk_inline_read_begin(fast, lock, &version), 0));
    cr_expect(lk_inline_read_valid(fast, lock, version));
    lk_session_close(session);
}

INLINE_TEST(another_layout_means_the_library)
{
    open_all(0);
    fast = lk_lock_inline(lock, LK_INLINE_LAYOUT + 1);
    cr_expect(eq(ptr, (void *)fast, NULL));
    cr_expect(eq(ptr, (void *)lk_lock_inline(NULL, LK_INLINE_LAYOUT), NULL));
    uint64_t version = 0;
    cr_assert(eq(int, acquire(), LK_ACQUIRED));
    cr_expect(eq(int, acquire(), -EDEADLK));
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    cr_assert(eq(int, lk_inline_read_begin(fast, lock, &version), 0));
    cr_expect(lk_inline_read_valid(fast, lock, version));
    lk_session_close(session);
}

INLINE_TEST(a_strict_segment_goes_through_the_broker)
{
    open_all(LK_STRICT);
    uint64_t version = 0;
    cr_assert(eq(int, acquire(), LK_ACQUIRED));
    cr_expect(eq(int, lk_inline_read_begin(fast, lock, &version), -EAGAIN));
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    int r;
    while ((r = lk_inline_read_begin(fast, lock, &version)) == -EAGAIN)
        ; /* the broker has not read the release yet */
    cr_assert(eq(int, r, 0));
    cr_expect(lk_inline_read_valid(fast, lock, version));
    lk_session_close(session);
}

INLINE_TEST(a_closed_lock_is_stale)
{
    open_all(0);
    uint64_t version = 0;
    lk_lock_close(lock);
    cr_expect(eq(int, acquire(), -ESTALE));
    cr_expect(eq(int, lk_inline_release(fast, lock), -ESTALE));
    cr_expect(eq(int, lk_inline_read_begin(fast, lock, &version), -ESTALE));
    cr_expect(not(lk_inline_read_valid(fast, lock, version)));
    lk_session_close(session);
}

static int use_inherited(struct child *side, void *user)
{
    uint64_t version;
    (void)side;
    (void)user;
    CHILD_CHECK(lk_inline_release(fast, lock) == -ESTALE);
    CHILD_CHECK(lk_inline_acquire(fast, lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == -ESTALE);
    CHILD_CHECK(lk_inline_acquire(fast, lock, LK_SHARED, LK_WAIT_FOREVER) == -ESTALE);
    CHILD_CHECK(lk_inline_read_begin(fast, lock, &version) == -ESTALE);
    CHILD_CHECK(!lk_inline_read_valid(fast, lock, 0));
    return 0;
}

INLINE_TEST(a_forked_child_has_nothing)
{
    open_all(0);
    cr_assert(eq(int, acquire(), LK_ACQUIRED));
    struct child child = child_start(use_inherited, NULL);
    child_join(&child);
    cr_assert(eq(int, lk_inline_release(fast, lock), 0));
    lk_session_close(session);
}

/* More than a session has views at hand, and than fit into one map of them. */
#define MANY 1300u
static struct lk_lock *many[MANY];

static int use_many_inherited(struct child *side, void *user)
{
    (void)side;
    (void)user;
    for (unsigned i = 0; i < MANY; i++) {
        const struct lk_inline *view = lk_lock_inline(many[i], LK_INLINE_LAYOUT);
        CHILD_CHECK(lk_inline_acquire(view, many[i], LK_EXCLUSIVE, LK_WAIT_FOREVER) == -ESTALE);
        CHILD_CHECK(lk_inline_acquire(view, many[i], LK_SHARED, LK_WAIT_FOREVER) == -ESTALE);
    }
    return 0;
}

INLINE_TEST(of_many_locks_a_forked_child_has_none)
{
    struct lk_segment_options options = {
        .size = sizeof(options), .flags = LK_CREATE, .size_bytes = 4096, .locks = MANY};
    session = open_session();
    cr_assert(eq(int, lk_segment_open(session, "s", &options, &segment), 1), "%s", lk_last_error());
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = open_lock(segment, i);
        fast = lk_lock_inline(many[i], LK_INLINE_LAYOUT);
        cr_assert(ne(ptr, fast->words, NULL));
        cr_assert(eq(int, lk_inline_acquire(fast, many[i], LK_EXCLUSIVE, 0), LK_ACQUIRED));
    }
    struct child child = child_start(use_many_inherited, NULL);
    child_join(&child);
    for (unsigned i = 0; i < MANY; i++)
        cr_assert(
            eq(int, lk_inline_release(lk_lock_inline(many[i], LK_INLINE_LAYOUT), many[i]), 0));
    lk_session_close(session);
}

/* Adds one to both words under the lock, by turns inline and through the library. */
static int add(struct lk_lock *of, const struct lk_inline *view, volatile uint64_t *words)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        bool inlined = i % 3 != 0;
        int r = inlined ? lk_inline_acquire(view, of, LK_EXCLUSIVE, LK_WAIT_FOREVER)
                        : lk_lock_acquire(of, LK_EXCLUSIVE, LK_WAIT_FOREVER);
        if (r != LK_ACQUIRED || words[0] != words[1])
            return -EPROTO;
        words[0]++;
        words[1]++;
        r = i % 2 != 0 ? lk_inline_release(view, of) : lk_lock_release(of);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_as_another(struct child *side, void *user)
{
    struct lk_session *own = NULL;
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    void *words = NULL;
    (void)side;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    CHILD_CHECK(lk_segment_map(own_segment, 0, 0, &words) == 0);
    CHILD_CHECK(add(own_lock, lk_lock_inline(own_lock, LK_INLINE_LAYOUT), words) == 0);
    lk_session_close(own);
    return 0;
}

INLINE_TEST(two_processes_exclude_each_other)
{
    open_all(0);
    uint64_t *words = map_segment(segment, 0, 0);
    struct child child = child_start(add_as_another, NULL);
    cr_assert(eq(int, add(lock, fast, words), 0));
    child_join(&child);
    cr_expect(eq(u64, words[0], 2 * ROUNDS));
    lk_session_close(session);
}
