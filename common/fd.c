/* SPDX-License-Identifier: MIT */
#include "common/fd.h"

#include <errno.h>

int lki_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        (void)close(fd); /* EINTR included: on Linux the descriptor is gone in every case */
        errno = saved;
    }
    return -1;
}
