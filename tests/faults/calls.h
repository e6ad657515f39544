/* SPDX-License-Identifier: MIT */
/* The calls that are made to fail, and each error that they can give here, from their man pages and
 * the kernel. Left out: what only a wrong argument gives (EBADF, EFAULT, EINVAL, ENOTSOCK), unless
 * an old kernel says it to a new feature. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum faults_call {
    FAULTS_ALLOC, /* malloc, calloc, realloc, and what the C library allocates for strdup and so on
                   */
    FAULTS_ACCEPT,
    FAULTS_RECEIVE, /* recvmsg, recv */
    FAULTS_SEND,    /* sendmsg, sendmmsg, send */
    FAULTS_GETSOCKOPT,
    FAULTS_PEERPIDFD, /* getsockopt(SO_PEERPIDFD) */
    FAULTS_SOCKET,    /* and socketpair */
    FAULTS_CONNECT,
    FAULTS_BIND,
    FAULTS_LISTEN,
    FAULTS_MEMFD,
    FAULTS_FTRUNCATE,
    FAULTS_FALLOCATE,
    FAULTS_FCHMOD,
    FAULTS_MMAP,
    FAULTS_MADVISE,
    FAULTS_EPOLL_CREATE,
    FAULTS_EPOLL_ADD,
    FAULTS_EPOLL_MOD,
    FAULTS_EPOLL_WAIT,
    FAULTS_EVENTFD,
    FAULTS_FUTEX_WAIT,
    FAULTS_FUTEX_WAKE,
    FAULTS_PIDFD_OPEN,
    FAULTS_PIDFD_SIGNAL,
    FAULTS_DUP,   /* fcntl(F_DUPFD_CLOEXEC), dup2 */
    FAULTS_SEALS, /* fcntl(F_ADD_SEALS) */
    FAULTS_OPEN,  /* open, openat, opendir, fopen */
    FAULTS_STAT,  /* fstat, fstatat, stat, lstat, fstatfs */
    FAULTS_READ,
    FAULTS_WRITE,
    FAULTS_POLL, /* poll, ppoll */
    FAULTS_CLONE,
    FAULTS_THREAD,
    FAULTS_TIMERFD,
    FAULTS_TIMER,
    FAULTS_SIGNALFD,
    FAULTS_PIPE,
    FAULTS_GETRANDOM,
    FAULTS_FLOCK,
    FAULTS_UNLINK,
    FAULTS_RENAME,
    FAULTS_WAIT, /* waitpid */
    FAULTS_PRCTL,
    FAULTS_SANDBOX, /* capset, landlock, seccomp by number */
    FAULTS_CALLS
};

#define FAULTS_ERRORS_MAX 10u

struct faults_call_info {
    const char *name;
    int errors[FAULTS_ERRORS_MAX]; /* ends at a 0 */
};

extern const struct faults_call_info faults_calls[FAULTS_CALLS];

/* Whether it can go on like that: a table that is full stays full, a signal has passed. */
bool faults_can_last(int error);
