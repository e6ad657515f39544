/* SPDX-License-Identifier: MIT */
/* Locks on a file: flock(2), and those of fcntl(2) that belong to the open file. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "bench/bench.h"

/* The handle is the descriptor plus one, so that it is not NULL. */
static int descriptor(void *handle)
{
    return (int)(intptr_t)handle - 1;
}

static void *join(const struct bench *bench)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/lockfile", bench->directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        bench_fail("cannot open %s: %s", path, strerror(errno));
    return (void *)(intptr_t)(fd + 1);
}

static void leave(void *handle)
{
    close(descriptor(handle));
}

static int change_flock(int fd, int operation)
{
    while (flock(fd, operation) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int change_ofd(int fd, short type)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
    while (fcntl(fd, F_OFD_SETLKW, &range) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int flock_take(void *handle, enum bench_mode mode)
{
    return change_flock(descriptor(handle), mode == BENCH_SHARED ? LOCK_SH : LOCK_EX);
}

static int flock_drop(void *handle, enum bench_mode mode)
{
    (void)mode;
    return change_flock(descriptor(handle), LOCK_UN);
}

static int flock_pairs(void *handle, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, flock_take(handle, mode), flock_drop(handle, mode));
}

static int ofd_take(void *handle, enum bench_mode mode)
{
    return change_ofd(descriptor(handle), mode == BENCH_SHARED ? F_RDLCK : F_WRLCK);
}

static int ofd_drop(void *handle, enum bench_mode mode)
{
    (void)mode;
    return change_ofd(descriptor(handle), F_UNLCK);
}

static int ofd_pairs(void *handle, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, ofd_take(handle, mode), ofd_drop(handle, mode));
}

const struct bench_peer bench_peer_flock = {
    .name = "flock",
    .what = "flock(2) on a file",
    .shares = true,
    .recovers = true,
    .join = join,
    .leave = leave,
    .pairs = flock_pairs,
    .take = flock_take,
    .drop = flock_drop,
};

const struct bench_peer bench_peer_ofd = {
    .name = "ofd",
    .what = "open file description lock, fcntl(2)",
    .shares = true,
    .recovers = true,
    .join = join,
    .leave = leave,
    .pairs = ofd_pairs,
    .take = ofd_take,
    .drop = ofd_drop,
};
