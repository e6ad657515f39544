/* SPDX-License-Identifier: MIT */
/* Windows: any offset, any length, beyond 4 GiB, read-only. */
#include "fixture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define WINDOW_TEST(name) Test(windows, name, .init = fixture_start, .fini = fixture_stop)

#define GIB (UINT64_C(1) << 30)

WINDOW_TEST(unaligned_windows_overlap_rightly)
{
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "w", 100000, LK_CREATE);
    unsigned char *whole = map_segment(segment, 0, 0);
    for (uint32_t i = 0; i < 100000; i++)
        whole[i] = (unsigned char)(i * 7 + i / 251);
    static const uint64_t offsets[] = {1, 4095, 4096, 4097, 12345, 99999};
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        uint64_t length = 100000 - offsets[i];
        unsigned char *window = map_segment(segment, offsets[i], length);
        cr_expect(memcmp(window, whole + offsets[i], length) == 0, "offset %lu",
                  (unsigned long)offsets[i]);
        window[0] ^= 0xff;
        cr_expect(eq(u8, whole[offsets[i]], window[0]));
        cr_expect(eq(int, lk_segment_unmap(segment, window), 0));
    }
    lk_session_close(session);
}

WINDOW_TEST(windows_beyond_four_gibibytes_are_sparse_and_apart)
{
    struct lk_session *session = open_session(), *other = open_session();
    struct lk_segment *segment = open_segment(session, "big", 64 * GIB, LK_CREATE);
    struct lk_segment *theirs = open_segment(other, "big", 0, 0);
    cr_assert(eq(u64, lk_segment_size(theirs), 64 * GIB));
    static const uint64_t offsets[] = {0, 4 * GIB - 3, 4 * GIB + 1, 5 * GIB, 64 * GIB - 8};
    for (size_t i = 0; i < 5; i++) {
        char *window = map_segment(segment, offsets[i], 8);
        cr_expect(eq(int, window[7], 0), "nothing was written there before");
        window[7] = (char)(i + 1);
        char *their_window = map_segment(theirs, offsets[i] + 7, 1);
        cr_expect(eq(int, *their_window, (int)i + 1));
    }
    void *none = NULL;
    cr_expect(eq(int, lk_segment_map(segment, 64 * GIB - 8, 9, &none), -EINVAL));
    cr_expect(eq(int, lk_segment_map(segment, UINT64_MAX - 4, 8, &none), -EINVAL));
    lk_session_close(session);
    lk_session_close(other);
}

static int write_read_only(struct child *side, void *user)
{
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    void *map = NULL;
    (void)side;
    (void)user;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &session) == 0);
    CHILD_CHECK(lk_segment_open(session, "r", &options, &segment) == 0);
    CHILD_CHECK(lk_segment_map(segment, 0, 0, &map) == 0);
    CHILD_CHECK(strcmp(map, "readable") == 0);
    CHILD_CHECK(lk_segment_grow(segment, 8192) == -EACCES);
    (void)signal(SIGSEGV, SIG_DFL); /* the sanitizer has its own */
    *(volatile char *)map = 'x';
    return 1;
}

WINDOW_TEST(read_only_session_reads_and_cannot_write)
{
    struct lk_session *session = open_session();
    struct lk_segment *segment = open_segment(session, "r", 4096, LK_CREATE);
    char *map = map_segment(segment, 0, 0);
    strcpy(map, "readable");
    struct child child = child_start(write_read_only, NULL);
    int status = 0;
    cr_assert(eq(int, waitpid(child.pid, &status, 0), child.pid));
    cr_expect(eq(int, WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV));
    cr_expect(eq(str, map, "readable"));
    close(child.to_fd);
    close(child.from_fd);
    lk_session_close(session);
}
