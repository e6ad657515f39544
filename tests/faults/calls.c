/* SPDX-License-Identifier: MIT */
#include "tests/faults/calls.h"

#include <errno.h>

const struct faults_call_info faults_calls[FAULTS_CALLS] = {
    [FAULTS_ALLOC] = {"alloc", {ENOMEM}},
    [FAULTS_ACCEPT] = {"accept4",
                       {EAGAIN, EINTR, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM,
                        EPROTO}},
    [FAULTS_RECEIVE] = {"recvmsg", {EAGAIN, EINTR, ENOMEM, ECONNRESET}},
    [FAULTS_SEND] = {"sendmsg",
                     {EAGAIN, EINTR, ENOBUFS, ENOMEM, EPIPE, ECONNRESET, EPERM, ETOOMANYREFS}},
    [FAULTS_GETSOCKOPT] = {"getsockopt", {ENOMEM, ENOBUFS}},
    [FAULTS_PEERPIDFD] = {"getsockopt(SO_PEERPIDFD)",
                          {EMFILE, ENFILE, ENOMEM, ESRCH, EINVAL, ENODATA}},
    /* setsockopt(2) is not among them: SO_PASSRIGHTS and SO_PASSCRED, which are set, are flags of the
     * socket, and a kernel that lacks the former lacks it in every call. */
    [FAULTS_SOCKET] = {"socket", {EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES}},
    [FAULTS_CONNECT] = {"connect", {EINTR, ECONNREFUSED, EACCES, ENOENT, EAGAIN, ENOMEM}},
    [FAULTS_BIND] = {"bind", {EADDRINUSE, EACCES, ENOMEM, ENOSPC, EROFS, EIO}},
    [FAULTS_LISTEN] = {"listen", {EADDRINUSE, ENOMEM}},
    [FAULTS_MEMFD] = {"memfd_create", {EMFILE, ENFILE, ENOMEM, EINVAL, EACCES}},
    [FAULTS_FTRUNCATE] = {"ftruncate", {EINTR, EFBIG, EIO, ENOSPC, EPERM, EROFS}},
    [FAULTS_FALLOCATE] = {"fallocate", {EINTR, ENOSPC, ENOMEM, EIO, EFBIG, EOPNOTSUPP, EPERM}},
    [FAULTS_FCHMOD] = {"fchmod", {EPERM, EIO, EROFS}},
    [FAULTS_MMAP] = {"mmap", {ENOMEM, EAGAIN, ENFILE, EPERM, EACCES, ENODEV}},
    [FAULTS_MADVISE] = {"madvise", {ENOMEM, EAGAIN, EINVAL}},
    [FAULTS_EPOLL_CREATE] = {"epoll_create1", {EMFILE, ENFILE, ENOMEM}},
    [FAULTS_EPOLL_ADD] = {"epoll_ctl(ADD)", {ENOMEM, ENOSPC}},
    [FAULTS_EPOLL_MOD] = {"epoll_ctl(MOD)", {ENOMEM}},
    [FAULTS_EPOLL_WAIT] = {"epoll_wait", {EINTR}},
    [FAULTS_EVENTFD] = {"eventfd", {EMFILE, ENFILE, ENOMEM, ENODEV}},
    [FAULTS_FUTEX_WAIT] = {"futex(WAIT)", {EINTR, EAGAIN, ETIMEDOUT, ENOMEM}},
    [FAULTS_FUTEX_WAKE] = {"futex(WAKE)", {EFAULT, ENOMEM}},
    [FAULTS_PIDFD_OPEN] = {"pidfd_open", {EMFILE, ENFILE, ENODEV, ENOMEM, ESRCH}},
    [FAULTS_PIDFD_SIGNAL] = {"pidfd_send_signal", {EPERM, ESRCH}},
    [FAULTS_DUP] = {"fcntl(F_DUPFD)", {EMFILE}},
    [FAULTS_SEALS] = {"fcntl(F_ADD_SEALS)", {EPERM, EBUSY}},
    [FAULTS_OPEN] = {"open", {EMFILE, ENFILE, ENOMEM, EACCES, EINTR, ENOENT, ELOOP, EIO, ENXIO}},
    [FAULTS_STAT] = {"fstat", {ENOMEM, EIO, EACCES, EOVERFLOW}},
    [FAULTS_READ] = {"read", {EINTR, EAGAIN, EIO, ENOMEM}},
    /* Not EAGAIN: what does not block is an eventfd, and its counter does not overflow. */
    [FAULTS_WRITE] = {"write", {EINTR, EIO, ENOSPC, EDQUOT}},
    [FAULTS_POLL] = {"poll", {EINTR, ENOMEM}},
    [FAULTS_CLONE] = {"clone", {EAGAIN, ENOMEM, EPERM}},
    [FAULTS_THREAD] = {"pthread_create", {EAGAIN, EPERM}},
    [FAULTS_TIMERFD] = {"timerfd_create", {EMFILE, ENFILE, ENOMEM, ENODEV}},
    [FAULTS_TIMER] = {"timer_create", {EAGAIN, ENOMEM}},
    [FAULTS_SIGNALFD] = {"signalfd", {EMFILE, ENFILE, ENOMEM, ENODEV}},
    [FAULTS_PIPE] = {"pipe2", {EMFILE, ENFILE}},
    [FAULTS_GETRANDOM] = {"getrandom", {EINTR, ENOSYS}},
    [FAULTS_FLOCK] = {"flock", {EINTR, ENOLCK, EWOULDBLOCK}},
    [FAULTS_UNLINK] = {"unlinkat", {EACCES, EBUSY, EIO, EROFS}},
    [FAULTS_RENAME] = {"renameat", {EACCES, EIO, ENOSPC, EROFS}},
    [FAULTS_WAIT] = {"waitpid", {EINTR}},
    [FAULTS_PRCTL] = {"prctl", {EPERM, EINVAL}},
    [FAULTS_SANDBOX] = {"capset, landlock, seccomp", {EPERM, ENOSYS, ENOMEM, EOPNOTSUPP}},
};

bool faults_can_last(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ||
           error == ENOSPC;
}
