/* SPDX-License-Identifier: MIT */
/* Status on the wire and errno in the process. errno numbers differ between architectures and must
 * not become a format; one table converts both ways. */
#pragma once

enum lki_status { /* values are the wire format: never reuse one */
                  LKI_STATUS_OK = 0,
                  LKI_STATUS_OWNER_DIED = 1,    /* LK_ACQUIRED_OWNER_DIED */
                  LKI_STATUS_CREATED = 2,       /* LK_CREATED */
                  LKI_STATUS_INVALID = 10,      /* -EINVAL */
                  LKI_STATUS_NOT_FOUND = 11,    /* -ENOENT */
                  LKI_STATUS_EXISTS = 12,       /* -EEXIST */
                  LKI_STATUS_DENIED = 13,       /* -EACCES */
                  LKI_STATUS_NOT_HOLDER = 14,   /* -EPERM */
                  LKI_STATUS_BUSY = 15,         /* -EBUSY */
                  LKI_STATUS_TIMED_OUT = 16,    /* -ETIMEDOUT */
                  LKI_STATUS_DEADLOCK = 17,     /* -EDEADLK */
                  LKI_STATUS_NO_CELL = 18,      /* -ENOLCK */
                  LKI_STATUS_STALE = 19,        /* -ESTALE */
                  LKI_STATUS_NOT_READY = 20,    /* -EAGAIN */
                  LKI_STATUS_NO_SPACE = 21,     /* -ENOSPC */
                  LKI_STATUS_QUOTA = 22,        /* -EDQUOT */
                  LKI_STATUS_NO_FILES = 23,     /* -EMFILE */
                  LKI_STATUS_NO_MEMORY = 24,    /* -ENOMEM */
                  LKI_STATUS_FULL = 25,         /* -EUSERS */
                  LKI_STATUS_TOO_LARGE = 26,    /* -EFBIG */
                  LKI_STATUS_CANCELED = 27,     /* -ECANCELED */
                  LKI_STATUS_PENDING = 28,      /* -EALREADY */
                  LKI_STATUS_OUT_OF_RANGE = 29, /* -ERANGE */
                  LKI_STATUS_PROTOCOL = 30,     /* -EPROTO */
                  LKI_STATUS_VERSION = 31,      /* -EPROTONOSUPPORT */
                  LKI_STATUS_TRUNCATED = 32,    /* -EIO */
                  LKI_STATUS_BAD_FD = 33,       /* -EBADF */
};

/* The result of the C API for a status: 0, positive, or -errno; -EPROTO for a value that is not in
 * the table. Pure. */
int lki_status_to_result(enum lki_status status);

/* The status for a result; LKI_STATUS_PROTOCOL for one that is not in the table. Pure. */
enum lki_status lki_status_from_result(int result);
