/* SPDX-License-Identifier: MIT */
#include "broker/io/segment_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/assert.h"
#include "common/cleanup.h"
#include "common/fd.h"

#define RESERVE_STEP_BYTES (UINT64_C(64) << 20)
#define RESERVE_LEAVE_BYTES (UINT64_C(32) << 20)

#define POPULATE_BYTES_MIN (UINT64_C(256) << 10) /* 4096 locks; below it is a matter of 0.1 ms */

/* Newer than the headers of Debian 12 (Linux 6.3). */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* fallocate(2), again after a signal. -ENOSPC where the file system is full. */
static int allocate(int fd, uint64_t offset, uint64_t bytes)
{
    int r;
    do {
        r = fallocate(fd, 0, (off_t)offset, (off_t)bytes) < 0 ? -errno : 0;
    } while (r == -EINTR);
    return r;
}

/* Memory that can be had without taking it from anybody, in bytes; 0 when /proc does not tell. */
static uint64_t available_memory(void)
{
    char text[512]; /* MemAvailable is the third line */
    LKI_CLEANUP(lki_close_p) int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    text[length > 0 ? length : 0] = '\0';
    const char *line = strstr(text, "MemAvailable:");
    unsigned long long kibibytes = 0;
    if (line == NULL || sscanf(line, "MemAvailable: %llu kB", &kibibytes) != 1)
        return 0;
    return kibibytes * 1024;
}

/* Allocates the first bytes of a memfd. Memory has no end that fallocate(2) would stop at: it would
 * go on until the kernel kills somebody for it. So step by step, as long as there is enough. */
static int allocate_memory(int fd, uint64_t bytes)
{
    if (bytes > available_memory())
        return -ENOSPC;
    for (uint64_t done = 0; done < bytes;) {
        uint64_t step = bytes - done < RESERVE_STEP_BYTES ? bytes - done : RESERVE_STEP_BYTES;
        if (available_memory() < step + RESERVE_LEAVE_BYTES)
            return -ENOSPC;
        int r = allocate(fd, done, step);
        if (r < 0)
            return r;
        done += step;
    }
    return 0;
}

/* A memfd of this size, sparse, that nobody can resize. */
static int make_memfd(const char *name, uint64_t bytes, uint64_t reserve_bytes, int *out_fd)
{
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    LKI_CLEANUP(lki_close_p) int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create(name, flags);
    if (fd < 0)
        return -errno;
    /* Born with mode 0777: whoever can open /proc/PID/fd could reopen a read-only descriptor for
     * writing. */
    if (fchmod(fd, 0600) < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) < 0)
        return -errno;
    int r = allocate_memory(fd, reserve_bytes);
    if (r < 0)
        return r;
    /* Not FUTURE_WRITE: a broker that takes over has to map the control area writable. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    *out_fd = lki_steal_fd(&fd);
    return 0;
}

bool lkd_segment_memory_takes_long(const struct lkd_segment_spec *spec)
{
    return spec->reserve || spec->offered || spec->format_bytes >= POPULATE_BYTES_MIN;
}

static int make_area(struct lkd_segment_memory *memory, const struct lkd_segment_spec *spec)
{
    int r = make_memfd("lockkeeper-area", spec->area_bytes, 0, &memory->area_fd);
    if (r < 0)
        return r;
    void *base =
        mmap(NULL, spec->area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->area_fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    memory->area_base = base;
    memory->area_bytes = spec->area_bytes;
    /* Else the loop would fault the pages in one by one while it lays the table out: 64 MB for a
     * million locks. Where this is not known (before Linux 5.14) it does. */
    if (spec->format_bytes >= POPULATE_BYTES_MIN)
        (void)madvise(base, spec->format_bytes, MADV_POPULATE_WRITE);
    return 0;
}

/* Looks at the offered file and makes it large enough. */
static int adopt_file(const struct lkd_segment_memory *memory, const struct lkd_segment_spec *spec,
                      struct lkd_segment_made *out_made)
{
    struct stat status;
    int flags = fcntl(memory->data_fd, F_GETFL);
    if (flags < 0 || fstat(memory->data_fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || (flags & O_ACCMODE) != O_RDWR || (flags & O_PATH))
        return -EBADF;
    uint64_t bytes = (uint64_t)status.st_size;
    if (bytes == 0) {
        if (spec->data_bytes == 0)
            return -EINVAL;
        bytes = spec->data_bytes;
        if (ftruncate(memory->data_fd, (off_t)bytes) < 0)
            return -errno;
    }
    int r = spec->reserve ? allocate(memory->data_fd, 0, bytes) : 0;
    if (r < 0)
        return r;
    out_made->data_bytes = bytes;
    out_made->file_device = (uint64_t)status.st_dev;
    out_made->file_inode = (uint64_t)status.st_ino;
    return 0;
}

void lkd_segment_memory_make(struct lkd_segment_memory *memory, const struct lkd_segment_spec *spec,
                             int offered_fd, struct lkd_segment_made *out_made)
{
    *memory = (struct lkd_segment_memory)LKD_SEGMENT_MEMORY_EMPTY;
    *out_made = (struct lkd_segment_made){.data_bytes = spec->data_bytes};
    memory->data_fd = offered_fd;
    memory->is_file = spec->offered;

    int r = spec->offered && offered_fd < 0 ? -EBADF : make_area(memory, spec);
    if (r == 0 && spec->offered)
        r = adopt_file(memory, spec, out_made);
    else if (r == 0 && spec->data_bytes_max > 0)
        r = make_memfd("lockkeeper-data", spec->data_bytes_max,
                       spec->reserve ? spec->data_bytes : 0, &memory->data_fd);
    out_made->result = r;
    out_made->area_base = memory->area_base;
    out_made->area_fd = memory->area_fd;
    out_made->data_fd = memory->data_fd;
    out_made->read_only_fd = -1;
    if (r < 0) {
        lkd_segment_memory_deinit(memory);
        out_made->area_base = NULL;
    }
}

void lkd_segment_memory_set_read_only(struct lkd_segment_memory *memory, int fd)
{
    memory->read_only_fd = fd;
}

int lkd_segment_memory_adopt(struct lkd_segment_memory *memory, const struct lkd_left_segment *left)
{
    void *base = mmap(NULL, left->area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, left->area_fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    *memory = (struct lkd_segment_memory){
        .area_base = base,
        .area_bytes = left->area_bytes,
        .area_fd = left->area_fd,
        .data_fd = left->data_fd,
        .read_only_fd = left->read_only_fd,
        .is_file = left->file,
    };
    return 0;
}

int lkd_segment_memory_grow(const struct lkd_segment_memory *memory, uint64_t data_bytes,
                            bool reserve)
{
    if (memory->data_fd < 0)
        return -EINVAL;
    if (memory->is_file) {
        struct stat status;
        if (fstat(memory->data_fd, &status) < 0)
            return -errno;
        if ((uint64_t)status.st_size < data_bytes &&
            ftruncate(memory->data_fd, (off_t)data_bytes) < 0)
            return -errno;
    }
    if (!reserve)
        return 0; /* a memfd has its full size from birth */
    return memory->is_file ? allocate(memory->data_fd, 0, data_bytes)
                           : allocate_memory(memory->data_fd, data_bytes);
}

/* A descriptor of the same file that cannot write. A dup would share the file description, and with
 * it the right to write. */
static int reopen_read_only(int fd)
{
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int reopened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return reopened < 0 ? -errno : reopened;
}

static int add_fd(struct lkd_segment_fds *fds, int fd, bool read_only)
{
    int added = read_only ? reopen_read_only(fd) : fd;
    if (added < 0)
        return added;
    fds->fds[fds->count] = added;
    fds->owned[fds->count] = read_only;
    fds->count++;
    return 0;
}

int lkd_segment_memory_fds(const struct lkd_segment_memory *memory, enum lkd_fds kind,
                           struct lkd_segment_fds *out_fds)
{
    *out_fds = (struct lkd_segment_fds){.fds = {-1, -1}};
    if (kind == LKD_FDS_NONE)
        return 0;
    int r = add_fd(out_fds, memory->area_fd, kind != LKD_FDS_READ_WRITE);
    if (r == 0 && kind == LKD_FDS_READ_ONLY && memory->read_only_fd >= 0)
        r = add_fd(out_fds, memory->read_only_fd, false);
    else if (r == 0 && memory->data_fd >= 0)
        r = add_fd(out_fds, memory->data_fd, kind == LKD_FDS_READ_ONLY);
    if (r < 0)
        lkd_segment_fds_deinit(out_fds);
    return r;
}

int lkd_segment_fds_own(struct lkd_segment_fds *fds)
{
    for (uint32_t i = 0; i < fds->count; i++) {
        if (fds->owned[i])
            continue;
        int fd = fcntl(fds->fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -errno;
        fds->fds[i] = fd;
        fds->owned[i] = true;
    }
    return 0;
}

void lkd_segment_fds_deinit(struct lkd_segment_fds *fds)
{
    for (uint32_t i = 0; i < fds->count; i++) {
        if (fds->owned[i])
            (void)lki_close(fds->fds[i]);
    }
    *fds = (struct lkd_segment_fds){.fds = {-1, -1}};
}

void lkd_segment_memory_deinit(struct lkd_segment_memory *memory)
{
    if (memory->area_base != NULL)
        (void)munmap(memory->area_base, memory->area_bytes);
    memory->area_base = NULL;
    memory->area_fd = lki_close(memory->area_fd);
    memory->data_fd = lki_close(memory->data_fd);
    memory->read_only_fd = lki_close(memory->read_only_fd);
}
