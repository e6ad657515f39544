/* SPDX-License-Identifier: MIT */
#include "broker/io/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd.h"

#define MAGIC UINT32_C(0x6e4c6b31) /* "1kLn" */
#define HEADER_BYTES 4096

/* Nobody leaves more: what stands behind is not read. */
#define RECORDS_READ_MAX (UINT64_C(1) << 21)

struct header {
    uint32_t magic;
    uint32_t record_bytes;
    char boot_id[40];
};

struct lkd_names_record {
    uint32_t present;
    int32_t pid;
    uint64_t key_first;
    uint64_t key_second;
    uint32_t name_kind;
    uint32_t name_id;
    uint32_t name_bytes;
    uint32_t padding;
    uint8_t name[LKI_NAME_BYTES_MAX + 1];
    uint8_t padding1[24];
};
static_assert(sizeof(struct lkd_names_record) == 320, "records of one size");

static off_t offset_of(uint64_t index)
{
    return (off_t)(HEADER_BYTES + index * sizeof(struct lkd_names_record));
}

static void read_boot_id(char out_id[40])
{
    LKI_CLEANUP(lki_close_p)
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, out_id, 39) : 0;
    memset(out_id + (length > 0 ? length : 0), 0, 40 - (size_t)(length > 0 ? length : 0));
}

/* --- Reading --- */

static bool lives(const struct lkd_names_record *record)
{
    const struct lkd_process_key key = {.first = record->key_first, .second = record->key_second};
    LKI_CLEANUP(lki_close_p) int pidfd = lkd_peer_find(record->pid, &key);
    return pidfd >= 0;
}

static bool is_sane(const struct lkd_names_record *record)
{
    return record->present == 1 && record->name_bytes >= 1 &&
           record->name_bytes <= LKI_NAME_BYTES_MAX && record->pid > 0;
}

/* Calls back for every record from index `first` on of a process that lives. Returns 0 or what the callback returned. */
static int walk(int fd, uint64_t first,
                int (*visit)(const struct lkd_names_record *record, void *user), void *user)
{
    struct header header;
    char boot_id[40];
    struct lkd_names_record record;
    read_boot_id(boot_id);
    if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || header.magic != MAGIC ||
        header.record_bytes != sizeof(record) ||
        memcmp(header.boot_id, boot_id, sizeof(boot_id)) != 0)
        return 0;
    for (uint64_t index = first; index < RECORDS_READ_MAX; index++) {
        /* What was never written is not there: most of the file, as a rule. */
        off_t data = lseek(fd, offset_of(index), SEEK_DATA);
        if (data < 0)
            break;
        if (data > offset_of(index))
            index = (uint64_t)(data - HEADER_BYTES) / sizeof(record);
        memset(&record, 0, sizeof(record)); /* the last one ends where its name does */
        if (pread(fd, &record, sizeof(record), offset_of(index)) <= 0)
            break;
        int r = is_sane(&record) && lives(&record) ? visit(&record, user) : 0;
        if (r != 0)
            return r;
    }
    return 0;
}

struct carrying {
    struct lkd_names *names;
    const struct lkd_names_filter *filter; /* or NULL */
};

static struct lkd_name_change name_of(const struct lkd_names_record *record)
{
    return (struct lkd_name_change){
        .present = true,
        .name_kind = record->name_kind,
        .name_id = record->name_id,
        .name_bytes = record->name_bytes,
        .name = record->name,
    };
}

static int carry(const struct lkd_names_record *record, void *user)
{
    const struct carrying *carrying = user;
    struct lkd_names *names = carrying->names;
    const struct lkd_name_change name = name_of(record);
    if (carrying->filter != NULL && carrying->filter->drops(&name, carrying->filter->user))
        return 0;
    struct lkd_names_record *carried =
        realloc(names->carried, (names->carried_count + 1) * sizeof(*carried));
    if (carried == NULL)
        return -ENOMEM;
    names->carried = carried;
    carried[names->carried_count++] = *record;
    return 0;
}

static int find_any(const struct lkd_names_record *record, void *user)
{
    (void)record;
    (void)user;
    return 1;
}

/* --- Writing --- */

static int write_all(const struct lkd_names *names)
{
    struct header header = {.magic = MAGIC, .record_bytes = sizeof(struct lkd_names_record)};
    read_boot_id(header.boot_id);
    for (size_t i = 0; i < names->carried_count; i++)
        if (pwrite(names->fd, &names->carried[i], sizeof(names->carried[i]),
                   offset_of(names->slots + i)) != sizeof(names->carried[i]))
            return -EIO;
    /* Last: a file that says nothing is none. */
    return pwrite(names->fd, &header, sizeof(header), 0) == sizeof(header) ? 0 : -EIO;
}

/* The old file stays what it is until the new one is whole. */
static int begin(struct lkd_names *names)
{
    char fresh[sizeof(names->file) + 8];
    (void)snprintf(fresh, sizeof(fresh), "%s.new", names->file);
    names->fd = openat(names->directory_fd, fresh,
                       O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (names->fd < 0)
        return -errno;
    int r = write_all(names);
    if (r == 0 && renameat(names->directory_fd, fresh, names->directory_fd, names->file) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlinkat(names->directory_fd, fresh, 0);
        names->fd = lki_close(names->fd);
    }
    return r;
}

int lkd_names_open(struct lkd_names *names, int directory_fd, const char *base, uint32_t slots,
                   const struct lkd_names_filter *filter)
{
    *names = (struct lkd_names){.directory_fd = directory_fd, .fd = -1, .slots = slots};
    (void)snprintf(names->file, sizeof(names->file), "%s.names", base);
    LKI_CLEANUP(lki_close_p)
    int old = openat(directory_fd, names->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    if (old >= 0 && fstat(old, &status) == 0 && S_ISREG(status.st_mode) &&
        (status.st_uid == geteuid() || status.st_uid == 0)) {
        struct carrying carrying = {.names = names, .filter = filter};
        int r = walk(old, 0, carry, &carrying);
        if (r < 0)
            return r;
    }
    return begin(names);
}

void lkd_names_resume(struct lkd_names *names, int directory_fd, const char *base, uint32_t slots,
                      int fd)
{
    *names = (struct lkd_names){.directory_fd = directory_fd, .fd = fd, .slots = slots};
    (void)snprintf(names->file, sizeof(names->file), "%s.names", base);
    struct carrying carrying = {.names = names};
    if (fd >= 0)
        (void)walk(fd, slots, carry, &carrying); /* without memory some are not reserved any more */
}

int lkd_names_note(const struct lkd_names *names, const struct lkd_name_change *change,
                   const struct lkd_names_owner *owner)
{
    struct lkd_names_record record = {.present = change->present};
    if (names->fd < 0)
        return 0;
    size_t bytes = sizeof(record.present);
    if (change->present) {
        record.pid = owner->pid;
        record.key_first = owner->key.first;
        record.key_second = owner->key.second;
        record.name_kind = change->name_kind;
        record.name_id = change->name_id;
        record.name_bytes = change->name_bytes;
        memcpy(record.name, change->name, change->name_bytes);
        bytes = offsetof(struct lkd_names_record, name) + change->name_bytes;
    }
    ssize_t written = pwrite(names->fd, &record, bytes, offset_of(change->index));
    if (written < 0)
        return -errno;
    return written == (ssize_t)bytes ? 0 : -ENOSPC;
}

void lkd_names_carried(const struct lkd_names *names, size_t i, struct lkd_name_change *out_name,
                       struct lkd_names_owner *out_owner)
{
    const struct lkd_names_record *record = &names->carried[i];
    *out_name = name_of(record);
    *out_owner = (struct lkd_names_owner){
        .key = {.first = record->key_first, .second = record->key_second}, .pid = record->pid};
}

void lkd_names_close(struct lkd_names *names)
{
    if (names->fd >= 0 && walk(names->fd, 0, find_any, NULL) == 0)
        (void)unlinkat(names->directory_fd, names->file, 0);
    names->fd = lki_close(names->fd);
    free(names->carried);
    names->carried = NULL;
    names->carried_count = 0;
}
