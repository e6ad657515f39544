/* SPDX-License-Identifier: MIT */
/* The memory behind one segment: a sealed memfd for the control area, mapped here, and the data, a
 * sealed memfd or an offered file. The data is never mapped here: a file that somebody truncates
 * must not take the broker with it. System calls only, no libuv. Making and growing may take long:
 * may run on any thread, one at a time per segment. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/core/core.h"

struct lkd_segment_memory {
    void *area_base; /* NULL: not mapped */
    uint64_t area_bytes;
    int area_fd;
    int data_fd;      /* -1: a segment without data */
    int read_only_fd; /* the same file for readers; -1: memory, which is reopened when needed */
    bool is_file;
};

/* Where the fields start. */
#define LKD_SEGMENT_MEMORY_EMPTY                                                                   \
    {                                                                                              \
        .area_fd = -1, .data_fd = -1, .read_only_fd = -1                                           \
    }

/* Whether making it may keep the kernel busy for long: then it is done on a helper thread. */
bool lkd_segment_memory_takes_long(const struct lkd_segment_spec *spec);

/**
 * Makes what the core asked for.
 * @offered_fd: consumed, on failure too; -1 when spec->offered is false
 * @out_made:   result is 0 or -errno: -EBADF (offered is no regular file, or not open for both
 * ways), -ENOSPC, -ENOMEM, -EMFILE, -EINVAL (nothing to extend the empty file to), ...
 */
void lkd_segment_memory_make(struct lkd_segment_memory *memory, const struct lkd_segment_spec *spec,
                             int offered_fd, struct lkd_segment_made *out_made);

/* Readers of a file get this descriptor, which cannot write. Consumed. */
void lkd_segment_memory_set_read_only(struct lkd_segment_memory *memory, int fd);

/* Maps what an earlier worker made. The descriptors stay open when that fails. Returns 0 or -errno.
 */
int lkd_segment_memory_adopt(struct lkd_segment_memory *memory,
                             const struct lkd_left_segment *left);

/* Makes the data at least data_bytes long; with reserve, allocated. Never shortens anything.
 * Returns 0 or -errno. */
int lkd_segment_memory_grow(const struct lkd_segment_memory *memory, uint64_t data_bytes,
                            bool reserve);

/* What is sent to a client. Those that had to be reopened are owned, the others borrowed from the
 * memory. */
struct lkd_segment_fds {
    int fds[2]; /* control area, then data if there is any */
    bool owned[2];
    uint32_t count;
};

/* The descriptors for a client. Returns 0 or -errno. */
int lkd_segment_memory_fds(const struct lkd_segment_memory *memory, enum lkd_fds kind,
                           struct lkd_segment_fds *out_fds);

/* Makes all of them owned, so that they outlive the memory. Returns 0 or -errno; call deinit
 * anyway. */
int lkd_segment_fds_own(struct lkd_segment_fds *fds);

/* Closes those that are owned. */
void lkd_segment_fds_deinit(struct lkd_segment_fds *fds);

/* Unmaps and closes; leaves it empty. */
void lkd_segment_memory_deinit(struct lkd_segment_memory *memory);
