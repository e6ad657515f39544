/* SPDX-License-Identifier: MIT */
/* Descriptors: closing, handing over, scope cleanup. Thread-safe as the system calls are. */
#pragma once

#include <unistd.h>

/* Closes fd if it is one (>= 0) and returns -1, so that `fd = lki_close(fd)` leaves nothing stale.
 * Keeps errno. */
int lki_close(int fd);

/* For LKI_CLEANUP on an int. */
static inline void lki_close_p(int *fd)
{
    *fd = lki_close(*fd);
}

/* Takes the descriptor out of *fd and leaves -1. */
static inline int lki_steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}
