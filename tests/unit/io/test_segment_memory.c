/* SPDX-License-Identifier: MIT */
#include "broker/io/segment_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static struct lkd_segment_memory memory;
static struct lkd_segment_made made;

static void setup(void)
{
    memory = (struct lkd_segment_memory)LKD_SEGMENT_MEMORY_EMPTY;
}

static void teardown(void)
{
    lkd_segment_memory_deinit(&memory);
    lkd_segment_memory_deinit(&memory); /* twice is once */
}

TestSuite(segment_memory, .init = setup, .fini = teardown, .timeout = 30);

static struct lkd_segment_spec spec_of(uint64_t data_bytes, uint64_t data_bytes_max)
{
    return (struct lkd_segment_spec){
        .area_bytes = 8192, .data_bytes = data_bytes, .data_bytes_max = data_bytes_max};
}

static struct stat status_of(int fd)
{
    struct stat status;
    cr_assert(eq(int, fstat(fd, &status), 0));
    return status;
}

/* A file without a name, opened for reading and writing. */
static int temporary_file(off_t size_bytes)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, ftruncate(fd, size_bytes), 0));
    return fd;
}

Test(segment_memory, a_segment_without_data_has_a_control_area_alone)
{
    struct lkd_segment_fds fds;
    struct lkd_segment_spec spec = spec_of(0, 0);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, made.result, 0));
    cr_expect(eq(int, memory.data_fd, -1));
    cr_assert(eq(int, lkd_segment_memory_fds(&memory, LKD_FDS_READ_WRITE, &fds), 0));
    cr_expect(eq(u32, fds.count, 1));
    lkd_segment_fds_deinit(&fds);
    cr_expect(eq(int, lkd_segment_memory_grow(&memory, 4096, false), -EINVAL));
}

Test(segment_memory, the_area_is_mapped_zeroed_and_writable)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, made.result, 0));
    uint8_t *bytes = made.area_base;
    for (size_t i = 0; i < 8192; i++)
        cr_assert(eq(u8, bytes[i], 0));
    bytes[8191] = 1;
    uint8_t byte = 0;
    cr_assert(eq(int, (int)pread(memory.area_fd, &byte, 1, 8191), 1));
    cr_expect(eq(u8, byte, 1));
}

Test(segment_memory, nobody_can_resize_or_seal_it)
{
    struct lkd_segment_spec spec = spec_of(4096, 1 << 20);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, made.result, 0));
    cr_expect(eq(int, ftruncate(memory.data_fd, 0), -1));
    cr_expect(eq(int, ftruncate(memory.data_fd, 1 << 21), -1));
    cr_expect(eq(int, fcntl(memory.data_fd, F_ADD_SEALS, F_SEAL_WRITE), -1));
}

Test(segment_memory, a_strict_member_may_write_the_data_but_not_the_locks)
{
    struct lkd_segment_fds fds;
    struct lkd_segment_spec spec = spec_of(4096, 4096);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, lkd_segment_memory_fds(&memory, LKD_FDS_STRICT, &fds), 0));
    cr_expect(eq(int, fcntl(fds.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY));
    cr_expect(eq(int, fcntl(fds.fds[1], F_GETFL) & O_ACCMODE, O_RDWR));
    lkd_segment_fds_deinit(&fds);
}

Test(segment_memory, descriptors_that_are_owned_outlive_the_memory)
{
    struct lkd_segment_fds fds;
    struct lkd_segment_spec spec = spec_of(4096, 4096);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, lkd_segment_memory_fds(&memory, LKD_FDS_READ_WRITE, &fds), 0));
    cr_assert(eq(int, lkd_segment_fds_own(&fds), 0));
    int kept = fds.fds[1];
    lkd_segment_memory_deinit(&memory);
    cr_expect(eq(long, status_of(kept).st_size, 4096));
    lkd_segment_fds_deinit(&fds);
    cr_expect(eq(int, fcntl(kept, F_GETFD), -1), "closed");
}

Test(segment_memory, an_offered_file_keeps_its_size_and_tells_its_identity)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    spec.offered = true;
    int fd = temporary_file(5000);
    struct stat status = status_of(fd);
    lkd_segment_memory_make(&memory, &spec, fd, &made);
    cr_assert(eq(int, made.result, 0));
    cr_expect(eq(u64, made.data_bytes, 5000));
    cr_expect(eq(u64, made.file_device, status.st_dev));
    cr_expect(eq(u64, made.file_inode, status.st_ino));
}

Test(segment_memory, what_cannot_be_adopted_is_refused_and_closed)
{
    struct lkd_segment_spec spec = spec_of(4096, 0);
    spec.offered = true;
    int ends[2];
    cr_assert(eq(int, pipe2(ends, O_CLOEXEC), 0));
    struct {
        const char *name;
        int fd;
        int result;
    } rows[] = {
        {"no descriptor", -1, -EBADF},
        {"pipe", ends[0], -EBADF},
        {"directory", open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC), -EBADF},
        {"read-only", open("/proc/self/exe", O_RDONLY | O_CLOEXEC), -EBADF},
        {"path alone", open("/proc/self/exe", O_PATH | O_CLOEXEC), -EBADF},
        {"character device", open("/dev/null", O_RDWR | O_CLOEXEC), -EBADF},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        lkd_segment_memory_make(&memory, &spec, rows[i].fd, &made);
        cr_expect(eq(int, made.result, rows[i].result), "%s", rows[i].name);
        cr_expect(eq(ptr, made.area_base, NULL), "%s", rows[i].name);
        cr_expect(eq(int, fcntl(rows[i].fd, F_GETFD), -1), "%s stays open", rows[i].name);
    }
    close(ends[1]);
}

Test(segment_memory, an_empty_file_needs_a_size)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    spec.offered = true;
    lkd_segment_memory_make(&memory, &spec, temporary_file(0), &made);
    cr_expect(eq(int, made.result, -EINVAL));
}

Test(segment_memory, growing_a_file_never_cuts_it)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    spec.offered = true;
    lkd_segment_memory_make(&memory, &spec, temporary_file(10000), &made);
    cr_assert(eq(int, made.result, 0));
    cr_expect(eq(int, lkd_segment_memory_grow(&memory, 20000, false), 0));
    cr_expect(eq(long, status_of(memory.data_fd).st_size, 20000));
    cr_expect(eq(int, lkd_segment_memory_grow(&memory, 15000, false), 0));
    cr_expect(eq(long, status_of(memory.data_fd).st_size, 20000));
}

Test(segment_memory, growing_memory_allocates_only_when_asked_to)
{
    struct lkd_segment_spec spec = spec_of(4096, 64 << 20);
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, lkd_segment_memory_grow(&memory, 8 << 20, false), 0));
    cr_expect(lt(long, status_of(memory.data_fd).st_blocks, 1024));
    cr_assert(eq(int, lkd_segment_memory_grow(&memory, 8 << 20, true), 0));
    cr_expect(ge(long, status_of(memory.data_fd).st_blocks, (8 << 20) / 512));
}

Test(segment_memory, more_than_there_is_cannot_be_reserved)
{
    struct lkd_segment_spec spec = spec_of(UINT64_C(1) << 44, UINT64_C(1) << 44);
    spec.reserve = true;
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_expect(eq(int, made.result, -ENOSPC));
    cr_expect(eq(int, memory.area_fd, -1));
}

/* --- What runs out --- */

static int count_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Leaves room for so many more descriptors; -1: as before. */
static void leave_fds(int room)
{
    static struct rlimit usual;
    if (usual.rlim_cur == 0)
        getrlimit(RLIMIT_NOFILE, &usual);
    struct rlimit limit = usual;
    if (room >= 0) {
        for (int fd = 0; room >= 0; fd++) { /* the lowest free numbers are given first */
            room -= fcntl(fd, F_GETFD) < 0;
            limit.rlim_cur = (rlim_t)fd;
        }
    }
    cr_assert(eq(int, setrlimit(RLIMIT_NOFILE, &limit), 0));
}

Test(segment_memory, descriptors_that_run_out_leave_none_behind)
{
    struct lkd_segment_spec spec = spec_of(4096, 4096);
    int before = count_fds();
    int room = 0;
    do {
        cr_assert(lt(int, room, 8));
        leave_fds(room++);
        lkd_segment_memory_make(&memory, &spec, -1, &made);
        leave_fds(-1);
        cr_assert(made.result == 0 || made.result == -EMFILE, "%d", made.result);
        cr_expect(eq(int, count_fds() - before, made.result == 0 ? 2 : 0));
        cr_expect(eq(int, made.area_base != NULL, made.result == 0));
    } while (made.result != 0);
    cr_expect(eq(int, room, 3), "one for the area, one for the data");
}

Test(segment_memory, descriptors_for_a_reader_that_run_out_leave_none_behind)
{
    struct lkd_segment_spec spec = spec_of(4096, 4096);
    struct lkd_segment_fds fds;
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_assert(eq(int, made.result, 0));
    int before = count_fds();
    for (int room = 0; room < 2; room++) {
        leave_fds(room);
        int r = lkd_segment_memory_fds(&memory, LKD_FDS_READ_ONLY, &fds);
        leave_fds(-1);
        cr_expect(eq(int, r, -EMFILE));
        cr_expect(eq(u32, fds.count, 0));
        cr_expect(eq(int, count_fds(), before));
    }
    cr_assert(eq(int, lkd_segment_memory_fds(&memory, LKD_FDS_READ_WRITE, &fds), 0));
    leave_fds(1);
    int r = lkd_segment_fds_own(&fds);
    leave_fds(-1);
    cr_expect(eq(int, r, -EMFILE));
    lkd_segment_fds_deinit(&fds);
    cr_expect(eq(int, count_fds(), before), "the one that was owned is closed, the other stays");
    cr_expect(eq(long, status_of(memory.data_fd).st_size, 4096));
}

Test(segment_memory, an_area_beyond_all_addresses_cannot_be_mapped)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    spec.area_bytes = UINT64_C(1) << 60;
    int before = count_fds();
    lkd_segment_memory_make(&memory, &spec, -1, &made);
    cr_expect(eq(int, made.result, -ENOMEM));
    cr_expect(eq(int, count_fds(), before));
}

Test(segment_memory, what_an_earlier_worker_left_has_to_be_mappable)
{
    struct lkd_left_segment left = {.area_fd = -1, .area_bytes = 8192};
    cr_expect(eq(int, lkd_segment_memory_adopt(&memory, &left), -EBADF));
    cr_expect(eq(ptr, memory.area_base, NULL), "and nothing was taken");
}

static void limit_file_size(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &limit), 0));
}

Test(segment_memory, files_that_may_not_be_so_large_stay_as_they_are)
{
    struct lkd_segment_spec spec = spec_of(1 << 20, 1 << 20);
    spec.offered = true;
    int empty = temporary_file(0), small = temporary_file(4096);
    limit_file_size(64 << 10);
    lkd_segment_memory_make(&memory, &spec, empty, &made);
    int made_result = made.result;
    spec.data_bytes = 0;
    lkd_segment_memory_make(&memory, &spec, small, &made);
    int grown = lkd_segment_memory_grow(&memory, 1 << 20, false);
    limit_file_size(RLIM_INFINITY);
    cr_expect(eq(int, made_result, -EFBIG));
    cr_assert(eq(int, made.result, 0));
    cr_expect(eq(int, grown, -EFBIG));
    cr_expect(eq(long, status_of(small).st_size, 4096));
}

Test(segment_memory, a_file_is_allocated_when_asked_to)
{
    struct lkd_segment_spec spec = spec_of(0, 0);
    spec.offered = true;
    spec.reserve = true;
    lkd_segment_memory_make(&memory, &spec, temporary_file(1 << 20), &made);
    cr_assert(eq(int, made.result, 0));
    cr_expect(ge(long, status_of(memory.data_fd).st_blocks, (1 << 20) / 512));
    cr_assert(eq(int, lkd_segment_memory_grow(&memory, 2 << 20, true), 0));
    cr_expect(ge(long, status_of(memory.data_fd).st_blocks, (2 << 20) / 512));
}
