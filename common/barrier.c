/* SPDX-License-Identifier: MIT */
#include "common/barrier.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool call(int command)
{
    int saved = errno;
    bool done = syscall(SYS_membarrier, command, 0, 0) == 0;
    errno = saved;
    return done;
}

bool lki_barrier_join(void)
{
    return call(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
}

bool lki_barrier_make(void)
{
    return call(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}
