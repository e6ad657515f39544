/* SPDX-License-Identifier: MIT */
/* Opening, sharing, publishing, growing, closing and removing segments. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define SEGMENT_TEST(name) Test(segments, name, .init = fixture_start, .fini = fixture_stop)

#define MIB (UINT64_C(1) << 20)

static int open_result(struct lk_session *session, const char *name, uint32_t flags)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = flags};
    struct lk_segment *segment = NULL;
    int r = lk_segment_open(session, name, &options, &segment);
    lk_segment_close(segment);
    return r;
}

static int write_from_child(struct child *side, void *user)
{
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    void *map = NULL;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(lk_segment_open(session, "table", NULL, &segment) == 0);
    CHILD_CHECK(lk_segment_size(segment) == MIB);
    CHILD_CHECK(lk_segment_map(segment, 0, 0, &map) == 0);
    strcpy((char *)map + 5000, "from the child");
    child_tell(side);
    lk_session_close(session);
    return 0;
}

SEGMENT_TEST(two_processes_see_the_same_bytes)
{
    struct child child;
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "table", MIB, LK_CREATE);
    char *map = map_segment(segment, 0, 0);
    child = child_start(write_from_child, NULL);
    child_await(&child);
    cr_assert(eq(str, map + 5000, "from the child"));
    child_join(&child);
    lk_session_close(session);
}

SEGMENT_TEST(creating_is_told_apart_from_attaching)
{
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = LK_CREATE};
    cr_assert(eq(int, lk_segment_open(session, "a", &options, &segment), LK_CREATED));
    cr_expect(eq(int, open_result(other, "a", LK_CREATE), 0));
    cr_expect(eq(int, open_result(other, "a", LK_CREATE_NEW), -EEXIST));
    cr_expect(eq(int, open_result(other, "b", 0), -ENOENT));
    cr_expect(error_has("'b'"), "%s", lk_last_error());
    lk_session_close(session);
    lk_session_close(other);
}

SEGMENT_TEST(second_open_of_a_session_is_the_same_handle)
{
    struct lk_session *session = open_session();
    struct lk_segment *first = open_segment(session, "a", 4096, LK_CREATE);
    struct lk_segment *second = open_segment(session, "a", 4096, LK_CREATE);
    cr_assert(eq(ptr, first, second));
    lk_segment_close(first);
    cr_assert(eq(u64, lk_segment_size(second), 4096));
    lk_segment_close(second);
    cr_assert(eq(int, open_result(session, "a", 0), -ENOENT), "ephemeral: gone with the last");
    lk_session_close(session);
}

SEGMENT_TEST(kept_segment_lives_until_removed)
{
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "kept", 4096, LK_CREATE | LK_KEEP);
    strcpy(map_segment(segment, 0, 0), "still here");
    lk_session_close(session);

    session = open_session();
    segment = open_segment(session, "kept", 0, 0);
    cr_assert(eq(str, (char *)map_segment(segment, 0, 0), "still here"));
    cr_assert(eq(int, lk_segment_remove(session, "kept"), 0));
    cr_assert(eq(str, (char *)map_segment(segment, 0, 0), "still here"), "what is attached stays");
    cr_assert(eq(int, open_result(session, "kept", 0), -ENOENT));
    cr_assert(eq(int, lk_segment_remove(session, "kept"), -ENOENT));
    lk_session_close(session);
}

static int open_and_wait(struct child *side, void *user)
{
    struct lk_session *session = NULL;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(open_result(session, "e", LK_CREATE) == LK_CREATED);
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = LK_CREATE};
    CHILD_CHECK(lk_segment_open(session, "e", &options, &segment) == LK_CREATED);
    child_tell(side);
    child_await(side);
    return 1;
}

SEGMENT_TEST(ephemeral_segment_ends_with_a_killed_process)
{
    struct child child = child_start(open_and_wait, NULL);
    child_await(&child);
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "e", 0, 0);
    lk_segment_close(segment);
    child_kill(&child);
    /* The broker is told by a pidfd; asking until it knows is all that can be done from here. */
    int r;
    do
        r = open_result(session, "e", 0);
    while (r == 0);
    cr_assert(eq(int, r, -ENOENT));
    lk_session_close(session);
}

SEGMENT_TEST(unpublished_segment_is_for_its_creator_alone)
{
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = open_segment(session, "new", 4096, LK_CREATE | LK_UNPUBLISHED);
    cr_expect(eq(int, open_result(other, "new", 0), -EAGAIN));
    cr_assert(eq(int, lk_segment_publish(segment), 0));
    struct lk_segment *opened = open_segment(other, "new", 0, 0);
    cr_expect(eq(int, lk_segment_publish(opened), -EPERM));
    lk_session_close(session);
    lk_session_close(other);
}

SEGMENT_TEST(segment_grows_in_place_for_everybody)
{
    struct lk_session *session = open_session(), *other = open_session();
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .size_max_bytes = MIB, .flags = LK_CREATE};
    struct lk_segment *segment = NULL;
    cr_assert(eq(int, lk_segment_open(session, "g", &options, &segment), LK_CREATED));
    struct lk_segment *theirs = open_segment(other, "g", 0, 0);
    char *map = map_segment(segment, 0, MIB); /* the whole, before it is there */
    char *their_map = map_segment(theirs, 0, MIB);

    cr_assert(ge(int, lk_segment_grow(segment, 64 * 1024), 0), "%s", lk_last_error());
    cr_assert(eq(u64, lk_segment_size(theirs), 64 * 1024));
    map[64 * 1024 - 1] = 'x';
    cr_assert(eq(chr, their_map[64 * 1024 - 1], 'x'));
    cr_expect(eq(int, lk_segment_grow(segment, 4096), -EINVAL), "never shrinks");
    cr_expect(eq(int, lk_segment_grow(segment, 2 * MIB), -EFBIG));
    cr_expect(eq(u64, lk_segment_size(segment), 64 * 1024));
    lk_session_close(session);
    lk_session_close(other);
}

SEGMENT_TEST(reserved_memory_is_there_and_too_much_is_an_error)
{
    struct lk_session *session = open_session();
    cr_expect(eq(int, open_result(session, "r", LK_CREATE | LK_RESERVE), LK_CREATED));
    const struct lk_segment_options huge = {
        .size = sizeof(huge), .size_bytes = UINT64_C(1) << 63, .flags = LK_CREATE};
    struct lk_segment *segment = NULL;
    int r = lk_segment_open(session, "huge", &huge, &segment);
    cr_expect(lt(int, r, 0), "2^63 bytes");
    cr_expect(eq(ptr, segment, NULL));
    lk_session_close(session);
}

SEGMENT_TEST(segment_without_data_is_a_plain_lock)
{
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "plain", 0, LK_CREATE);
    struct lk_lock *lock = open_lock(segment, 0);
    void *map = NULL;
    cr_expect(eq(u64, lk_segment_size(segment), 0));
    cr_expect(eq(int, lk_segment_map(segment, 0, 0, &map), -EINVAL));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    lk_session_close(session);
}

SEGMENT_TEST(full_descriptor_table_is_an_error_that_loses_nothing)
{
    struct lk_session *session = open_session();
    struct rlimit limit, tight;
    cr_assert(eq(int, getrlimit(RLIMIT_NOFILE, &limit), 0));
    tight = limit;
    int next = fcntl(0, F_DUPFD, 3);
    close(next);
    for (int room = 0; room < 2; room++) { /* one descriptor, and none, where two are needed */
        tight.rlim_cur = (rlim_t)(next + room);
        cr_assert(eq(int, setrlimit(RLIMIT_NOFILE, &tight), 0));
        cr_expect(eq(int, open_result(session, "m", LK_CREATE_NEW | LK_KEEP), -EMFILE), "room %d",
                  room);
        cr_expect(error_has("descriptor"), "%s", lk_last_error());
    }
    struct lk_session *none = NULL;
    tight.rlim_cur = (rlim_t)next;
    cr_assert(eq(int, setrlimit(RLIMIT_NOFILE, &tight), 0));
    cr_expect(eq(int, lk_session_open(fixture.socket_path, NULL, &none), -EMFILE));
    cr_assert(eq(int, setrlimit(RLIMIT_NOFILE, &limit), 0));
    cr_expect(eq(int, open_result(session, "m", LK_CREATE_NEW | LK_KEEP), LK_CREATED),
              "it was not created");
    lk_session_close(session);
}

SEGMENT_TEST(names_and_arguments_that_are_wrong_are_refused)
{
    struct lk_session *session = open_session();
    cr_expect(eq(int, open_result(session, "", LK_CREATE), -EINVAL));
    cr_expect(eq(int, open_result(session, "a#1", LK_CREATE), -EINVAL));
    cr_expect(eq(int, open_result(session, "a/b", LK_CREATE), -EINVAL));
    cr_expect(eq(int, open_result(session, "a\tb", LK_CREATE), -EINVAL));
    cr_expect(eq(int, lk_segment_remove(session, "a/b"), -EINVAL));
    const struct lk_segment_options many = {
        .size = sizeof(many), .locks = UINT32_MAX, .flags = LK_CREATE};
    struct lk_segment *segment = NULL;
    cr_expect(eq(int, lk_segment_open(session, "many", &many, &segment), -EFBIG));
    lk_session_close(session);
}
