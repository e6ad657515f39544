/* SPDX-License-Identifier: MIT */
/* One broker per socket path. Owns PATH.lock, which it holds locked for life and takes before it
 * touches the socket, and the listening socket at PATH, which it makes or is given. The lock file is never removed: removing a
 * lock file lets two holders in. It says who holds it and which token epoch was used last: "PID
 * EPOCH\n". */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/bounds.h"

struct lkd_instance {
    char path[LKI_SOCKET_PATH_BYTES_MAX + 1];
    char name[LKI_SOCKET_PATH_BYTES_MAX + 1]; /* its last component */
    int directory_fd;
    int lock_fd;
    int listen_fd;
    int32_t pid;               /* of whoever opened it, for the lock file */
    dev_t socket_device;       /* of the socket file that we made */
    ino_t socket_inode;        /* 0: it is not ours to remove */
    uint64_t token_epoch_s;    /* the first that may be used */
    uint64_t used_epoch_s;     /* the highest used */
    uint64_t reserved_epoch_s; /* the last that may be used before the file is written again */
};

/* Why a start was refused, for the person who started us. */
struct lkd_instance_problem {
    int exit_code; /* of sysexits(3): 64 usage, 66, 71, 73, 75, 77 */
    char text[400];
};

/**
 * Takes the path: locks PATH.lock, replaces a dead socket file, listens (non-blocking
 * SOCK_SEQPACKET).
 * @mode:         permission bits of the socket file
 * @now_s:        seconds since 1970
 * @out_problem:  written on failure
 * Errors: -ENAMETOOLONG, -EINVAL (empty), -EADDRINUSE (another broker runs there), -EEXIST
 * (something that is no socket stands there), -ENOENT, -EACCES, ... On failure nothing is left
 * behind but the lock file. Changes the umask for a moment: call it before threads are started.
 */
int lkd_instance_open(struct lkd_instance *instance, const char *path, mode_t mode, uint64_t now_s,
                      struct lkd_instance_problem *out_problem);

enum lkd_socket_owner {
    LKD_SOCKET_OURS,     /* an earlier broker made it: removed at the end */
    LKD_SOCKET_MANAGERS, /* the service manager's, which keeps it when we end */
};

/**
 * The same with a socket that listens already: takes the lock at its path, and makes it
 * non-blocking, but neither binds nor replaces anything.
 * @path:         where it has to listen; NULL: wherever it does
 * @taken_fd:     consumed, on failure too
 * Errors: as above; -EPROTOTYPE (no listening SOCK_SEQPACKET socket of the Unix domain), -EINVAL
 * (bound to no path, or to another one), -ENOENT (OURS alone: its file is not there any more).
 */
int lkd_instance_adopt(struct lkd_instance *instance, const char *path, int taken_fd,
                       enum lkd_socket_owner owner, uint64_t now_s,
                       struct lkd_instance_problem *out_problem);

/* Tokens of this epoch are about to be given: sees to it that a successor begins above it, also if
 * we are killed. Writes once for a block of epochs. Returns 0 or -errno; then a successor relies on
 * the clock. */
int lkd_instance_use_epoch(struct lkd_instance *instance, uint64_t token_epoch_s);

/* Removes the socket file, if it still is ours, and gives up the lock. May be called twice. */
void lkd_instance_close(struct lkd_instance *instance);
