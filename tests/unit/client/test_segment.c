/* SPDX-License-Identifier: MIT */
#include "client/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "area_fixture.h"
#include "client/names.h"

static struct area_fixture fixture;
static struct lk_session *session;

static void setup(void)
{
    area_fixture_init(&fixture);
    cr_assert(lki_session_new(-1, "/nowhere", &session) == 0);
}

static void teardown(void)
{
    session = lk_session_close(session);
    area_fixture_deinit(&fixture);
}

#define SEGMENT_TEST(name) Test(segment, name, .init = setup, .fini = teardown)

static int open_fds(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int attach(struct lki_record *record, struct lk_segment **out)
{
    int r = lki_segment_attach(session, "build", 0, record, out);
    lki_record_deinit(record);
    return r;
}

/* What a hostile or broken broker might send; each has to be refused, and nothing kept. */
static void refuse(void (*spoil)(struct lki_record *record))
{
    int before = open_fds();
    struct lki_record record;
    struct lk_segment *segment = NULL;
    area_fixture_opened(&fixture, &record);
    spoil(&record);
    cr_expect(eq(int, attach(&record, &segment), -EPROTO));
    cr_expect(eq(ptr, segment, NULL));
    cr_expect(eq(int, open_fds(), before));
}

static void swap_in(struct lki_record *record, size_t i, int fd)
{
    (void)close(record->fds[i]);
    record->fds[i] = fd;
}

static void without_area(struct lki_record *record)
{
    lki_record_deinit(record);
}

static void without_data(struct lki_record *record)
{
    (void)close(lki_record_take_fd(record, 1));
    record->fd_count = 1;
}

/* Right in every byte, but its sender can cut it under our map. */
static void unsealed_area(struct lki_record *record)
{
    uint64_t bytes = record->message.as.opened.area_bytes;
    int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(eq(int, (int)pwrite(fd, fixture.base, bytes, 0), (int)bytes));
    swap_in(record, 0, fd);
}

static void short_area(struct lki_record *record)
{
    record->message.as.opened.area_bytes += 4096;
}

static void endless_area(struct lki_record *record)
{
    record->message.as.opened.area_bytes = UINT64_MAX - 4095;
}

static void foreign_area(struct lki_record *record)
{
    int fd = memfd_create("zeros", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(ftruncate(fd, (off_t)record->message.as.opened.area_bytes) == 0);
    cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    swap_in(record, 0, fd);
}

static void slot_beyond_the_area(struct lki_record *record)
{
    record->message.as.opened.attachment = (1u << LKI_GENERATION_SHIFT) | 500;
}

static void short_data(struct lki_record *record)
{
    record->message.as.opened.data_bytes_max *= 2;
}

static void device_as_file(struct lki_record *record)
{
    record->message.as.opened.file = true;
    swap_in(record, 1, open("/dev/null", O_RDWR | O_CLOEXEC));
}

SEGMENT_TEST(what_a_broker_sends_is_checked_before_it_is_mapped)
{
    refuse(without_area);
    refuse(without_data);
    refuse(unsealed_area);
    refuse(short_area);
    refuse(endless_area);
    refuse(foreign_area);
}

SEGMENT_TEST(what_a_broker_says_is_checked_against_the_area)
{
    refuse(slot_beyond_the_area);
    refuse(short_data);
    refuse(device_as_file);
}

SEGMENT_TEST(second_open_is_the_same_handle_and_counted)
{
    struct lki_record record, same;
    struct lk_segment *first = NULL, *second = NULL;
    area_fixture_opened(&fixture, &record);
    same = record;
    same.fds[0] = fcntl(record.fds[0], F_DUPFD_CLOEXEC, 0);
    same.fds[1] = fcntl(record.fds[1], F_DUPFD_CLOEXEC, 0);
    cr_assert(eq(int, attach(&record, &first), 0));
    int before = open_fds();
    cr_assert(eq(int, attach(&same, &second), 0));
    cr_assert(eq(ptr, first, second));
    cr_assert(eq(int, open_fds(), before - 2), "the second pair is closed");

    lk_segment_close(first);
    cr_assert(eq(u64, lk_segment_size(second), 1u << 19), "one count is left");
    lk_segment_close(second);
    cr_assert(eq(u64, lk_segment_size(second), 0));
}

SEGMENT_TEST(opening_and_closing_in_turn_takes_the_same_memory)
{
    struct lk_segment *first = NULL;
    struct lk_lock *first_lock = NULL;
    for (int i = 0; i < 3; i++) {
        struct lki_record record;
        struct lk_segment *segment = NULL;
        struct lk_lock *lock = NULL;
        area_fixture_opened(&fixture, &record);
        cr_assert(eq(int, attach(&record, &segment), 0));
        cr_assert(eq(int, lk_lock_at(segment, 1, &lock), 0));
        cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), LK_ACQUIRED));
        cr_assert(eq(int, lk_lock_release(lock), 0));
        cr_assert(i == 0 || (segment == first && lock == first_lock));
        first = segment;
        first_lock = lock;
        lk_segment_close(segment);
        cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -ESTALE));
    }
}

SEGMENT_TEST(windows_of_any_offset_show_the_same_bytes)
{
    struct lki_record record;
    struct lk_segment *segment = NULL;
    area_fixture_opened(&fixture, &record);
    cr_assert(eq(int, attach(&record, &segment), 0));
    void *whole = NULL, *part = NULL, *rest = NULL;
    cr_assert(eq(int, lk_segment_map(segment, 0, 0, &whole), 0));
    cr_assert(eq(int, lk_segment_map(segment, 4095, 2, &part), 0));
    cr_assert(eq(int, lk_segment_map(segment, (1u << 20) - 1, 1, &rest), 0), "up to the maximum");
    ((char *)whole)[4096] = 'x';
    cr_assert(eq(chr, ((char *)part)[1], 'x'));

    cr_expect(eq(int, lk_segment_map(segment, 1u << 20, 1, &rest), -EINVAL), "beyond the end");
    cr_expect(eq(int, lk_segment_map(segment, 1u << 20, 0, &rest), -EINVAL));
    cr_expect(eq(int, lk_segment_map(segment, 1, UINT64_MAX, &rest), -EINVAL), "wraps around");
    cr_expect(eq(int, lk_segment_map(segment, UINT64_C(1) << 63, 1, &rest), -EINVAL));
    cr_expect(eq(int, lk_segment_map(segment, 0, 1, NULL), -EINVAL));
    cr_expect(eq(int, lk_segment_unmap(segment, (char *)part + 1), -EINVAL));
    cr_expect(eq(int, lk_segment_unmap(segment, part), 0));
    cr_expect(eq(int, lk_segment_unmap(segment, part), -EINVAL), "twice");
}

SEGMENT_TEST(size_that_was_scribbled_stays_within_what_was_checked)
{
    struct lki_record record;
    struct lk_segment *segment = NULL;
    area_fixture_opened(&fixture, &record);
    cr_assert(eq(int, attach(&record, &segment), 0));
    fixture.area.header->data_bytes = UINT64_MAX;
    cr_assert(eq(u64, lk_segment_size(segment), 1u << 20));
}

SEGMENT_TEST(calls_without_a_broker_are_connection_reset)
{
    struct lk_segment *segment = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    cr_expect(eq(int, lk_segment_open(session, "x", &options, &segment), -ECONNRESET));
    cr_expect(ne(ptr, strstr(lk_last_error(), "is gone"), NULL), "%s", lk_last_error());
    cr_expect(eq(int, lk_segment_remove(session, "x"), -ECONNRESET));
}

SEGMENT_TEST(wrong_arguments_are_refused_before_anything_is_sent)
{
    struct lk_segment *segment = NULL;
    const struct lk_segment_options unsized = {.flags = LK_CREATE};
    const struct lk_segment_options unknown = {.size = sizeof(unknown), .flags = 1u << 30};
    cr_expect(eq(int, lk_segment_open(session, "x", &unsized, &segment), -EINVAL));
    cr_expect(eq(int, lk_segment_open(session, "x", &unknown, &segment), -EINVAL));
    cr_expect(eq(int, lk_segment_open(session, "", NULL, &segment), -EINVAL));
    cr_expect(eq(int, lk_segment_open(session, "x", NULL, NULL), -EINVAL));
    cr_expect(eq(int, lk_segment_open(NULL, "x", NULL, &segment), -EINVAL));
    cr_expect(eq(int, lk_segment_offer(session, "x", -1, NULL, &segment), -EBADF));
    int device = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_expect(eq(int, lk_segment_offer(session, "x", device, NULL, &segment), -EBADF));
    (void)close(device);
    int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    cr_expect(eq(int, lk_segment_offer(session, "x", read_only, NULL, &segment), -EBADF));
    (void)close(read_only);
}
