/* SPDX-License-Identifier: MIT */
/* Files as the data of segments. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define FILE_TEST(name) Test(files, name, .init = fixture_start, .fini = fixture_stop)

/* A file that is unlinked already, so that nothing is left behind. */
static int make_file(const char *text, off_t bytes)
{
    int fd = open(fixture.directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, (int)pwrite(fd, text, strlen(text), 0), (int)strlen(text)));
    if (bytes > 0)
        cr_assert(eq(int, ftruncate(fd, bytes), 0));
    return fd;
}

static int offer(struct lk_session *session, const char *name, int fd, uint64_t size_bytes,
                 uint32_t flags, struct lk_segment **out)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = size_bytes, .flags = flags};
    return lk_segment_offer(session, name, fd, &options, out);
}

FILE_TEST(offered_file_is_shared_by_those_who_open_its_name)
{
    int fd = make_file("in the file", 10000);
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = NULL;
    cr_assert(eq(int, offer(session, "f", fd, 0, LK_CREATE, &segment), LK_CREATED), "%s",
              lk_last_error());
    cr_expect(eq(u64, lk_segment_size(segment), 10000));
    struct lk_segment *theirs = open_segment(other, "f", 0, 0);
    char *map = map_segment(segment, 0, 0), *their_map = map_segment(theirs, 3, 8);
    cr_expect(eq(str, map, "in the file"));
    cr_expect(eq(str, their_map, "the file"));
    map[0] = 'I';
    char byte = 0;
    cr_expect(eq(int, (int)pread(fd, &byte, 1, 0), 1));
    cr_expect(eq(chr, byte, 'I'));
    lk_session_close(session);
    lk_session_close(other);
    close(fd);
}

FILE_TEST(same_file_offered_twice_attaches_and_another_is_refused)
{
    int fd = make_file("one", 4096), other_fd = make_file("two", 4096);
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = NULL, *again = NULL;
    cr_assert(eq(int, offer(session, "f", fd, 0, LK_CREATE, &segment), LK_CREATED));
    cr_expect(eq(int, offer(other, "f", fd, 0, LK_CREATE, &again), 0), "%s", lk_last_error());
    lk_segment_close(again);
    again = NULL;
    cr_expect(eq(int, offer(other, "f", other_fd, 0, LK_CREATE, &again), -ESTALE));
    cr_expect(eq(ptr, again, NULL));
    lk_session_close(session);
    lk_session_close(other);
    close(fd);
    close(other_fd);
}

FILE_TEST(empty_file_is_extended_first)
{
    int fd = make_file("", 0);
    struct lk_session *session = open_session();
    struct lk_segment *segment = NULL;
    cr_expect(eq(int, offer(session, "f", fd, 0, LK_CREATE, &segment), -EINVAL), "to what size?");
    cr_assert(eq(int, offer(session, "f", fd, 5000, LK_CREATE, &segment), LK_CREATED), "%s",
              lk_last_error());
    struct stat status;
    cr_assert(eq(int, fstat(fd, &status), 0));
    cr_expect(eq(int, (int)status.st_size, 5000));
    ((char *)map_segment(segment, 0, 0))[4999] = 'x';
    lk_session_close(session);
    close(fd);
}

FILE_TEST(what_is_no_file_for_us_is_refused)
{
    struct lk_session *session = open_session();
    struct lk_segment *segment = NULL;
    int ends[2];
    cr_assert(eq(int, pipe(ends), 0));
    cr_expect(eq(int, offer(session, "f", ends[0], 4096, LK_CREATE, &segment), -EBADF));
    int directory = open(fixture.directory, O_RDONLY | O_CLOEXEC);
    cr_expect(eq(int, offer(session, "f", directory, 4096, LK_CREATE, &segment), -EBADF));
    cr_expect(eq(int, offer(session, "f", 9999, 4096, LK_CREATE, &segment), -EBADF));
    cr_expect(eq(ptr, segment, NULL));
    close(ends[0]);
    close(ends[1]);
    close(directory);
    lk_session_close(session);
}

FILE_TEST(truncation_under_a_guarded_map_is_an_error_for_everybody)
{
    (void)signal(SIGBUS, SIG_DFL); /* Criterion and the sanitizer have theirs */
    int fd = make_file("in the file", 5 * 4096);
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = NULL;
    cr_assert(eq(int, offer(session, "f", fd, 0, LK_CREATE | LK_GUARD, &segment), LK_CREATED));
    struct lk_segment *theirs = open_segment(other, "f", 0, LK_GUARD);
    struct lk_lock *lock = open_lock(segment, 0), *their_lock = open_lock(theirs, 0);
    struct lk_lock *held = open_lock(segment, 1);
    char *map = map_segment(segment, 0, 0);
    cr_assert(eq(int, lk_lock_acquire(held, LK_EXCLUSIVE, 0), LK_ACQUIRED));

    cr_assert(eq(int, ftruncate(fd, 4096), 0));
    cr_expect(eq(int, map[3 * 4096], 0), "the hole reads as zeros");
    cr_expect(eq(str, map, "in the file"), "the rest is there");
    cr_expect(eq(int, lk_lock_release(held), -EIO), "what was written may be lost");
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EIO));
    cr_expect(error_has("truncated"), "%s", lk_last_error());
    void *none = NULL;
    cr_expect(eq(int, lk_segment_map(segment, 0, 0, &none), -EIO));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_SHARED, 0), -EIO), "theirs too");
    lk_session_close(session);

    struct lk_lock *same = open_lock(theirs, 1);
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_expect(eq(int, lk_lock_holder(same, &holder), 0));
    cr_expect(eq(i32, holder.pid, 0), "it was released all the same");
    lk_session_close(other);
    close(fd);
}

FILE_TEST(sparse_file_beyond_four_gibibytes)
{
    int fd = make_file("", (off_t)6 << 30);
    struct lk_session *session = open_session();
    struct lk_segment *segment = NULL;
    cr_assert(eq(int, offer(session, "f", fd, 0, LK_CREATE, &segment), LK_CREATED));
    char *window = map_segment(segment, (UINT64_C(5) << 30) + 17, 4);
    memcpy(window, "far", 4);
    char bytes[4] = "";
    cr_expect(eq(int, (int)pread(fd, bytes, 4, ((off_t)5 << 30) + 17), 4));
    cr_expect(eq(str, bytes, "far"));
    lk_session_close(session);
    close(fd);
}
