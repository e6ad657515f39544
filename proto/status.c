/* SPDX-License-Identifier: MIT */
#include "proto/status.h"

#include <errno.h>
#include <stddef.h>

#include "common/cleanup.h"

static const struct {
    enum lki_status status;
    int result;
} status_table[] = {
    {LKI_STATUS_OK, 0},
    {LKI_STATUS_INVALID, -EINVAL},
    {LKI_STATUS_NOT_FOUND, -ENOENT},
    {LKI_STATUS_EXISTS, -EEXIST},
    {LKI_STATUS_DENIED, -EACCES},
    {LKI_STATUS_NOT_HOLDER, -EPERM},
    {LKI_STATUS_BUSY, -EBUSY},
    {LKI_STATUS_TIMED_OUT, -ETIMEDOUT},
    {LKI_STATUS_DEADLOCK, -EDEADLK},
    {LKI_STATUS_NO_CELL, -ENOLCK},
    {LKI_STATUS_STALE, -ESTALE},
    {LKI_STATUS_NOT_READY, -EAGAIN},
    {LKI_STATUS_NO_SPACE, -ENOSPC},
    {LKI_STATUS_QUOTA, -EDQUOT},
    {LKI_STATUS_NO_FILES, -EMFILE},
    {LKI_STATUS_NO_MEMORY, -ENOMEM},
    {LKI_STATUS_FULL, -EUSERS},
    {LKI_STATUS_TOO_LARGE, -EFBIG},
    {LKI_STATUS_CANCELED, -ECANCELED},
    {LKI_STATUS_PENDING, -EALREADY},
    {LKI_STATUS_OUT_OF_RANGE, -ERANGE},
    {LKI_STATUS_PROTOCOL, -EPROTO},
    {LKI_STATUS_VERSION, -EPROTONOSUPPORT},
    {LKI_STATUS_TRUNCATED, -EIO},
    {LKI_STATUS_BAD_FD, -EBADF},
    /* Both are 1 in the process, where the call tells them apart: lk_lock_acquire() returns the
     * one, lk_segment_open() the other. A result of 1 becomes the first of them. */
    {LKI_STATUS_OWNER_DIED, 1},
    {LKI_STATUS_CREATED, 1},
};

int lki_status_to_result(enum lki_status status)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(status_table); i++) {
        if (status_table[i].status == status)
            return status_table[i].result;
    }
    return -EPROTO;
}

enum lki_status lki_status_from_result(int result)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(status_table); i++) {
        if (status_table[i].result == result)
            return status_table[i].status;
    }
    return LKI_STATUS_PROTOCOL;
}
