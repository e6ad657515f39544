/* SPDX-License-Identifier: MIT */
/* The C library's functions that are made to fail, as the programs and their libraries call them.
 * What a function does inside of the C library is not seen: opendir and fopen are calls of their
 * own here, and so is syscall(), by which the futex and clone calls go. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/faults/shim.h"

#define EXPORT __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)
#define SO_PEERPIDFD_NUMBER 77

/* Leaves in `real` the function behind ours. The race to fill it is harmless: all find the same. */
#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (real == NULL)                                                                              \
    *(void **)&real = faults_next(#name)

/* Fails with the planned error, if there is one for this call. */
#define MAY_FAIL(ask, failure)                                                                     \
    do {                                                                                           \
        int error = ask;                                                                           \
        if (error != 0) {                                                                          \
            errno = error;                                                                         \
            return failure;                                                                        \
        }                                                                                          \
    } while (0)

#define WRAP(call, type, failure, name, parameters, arguments)                                     \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        REAL(name);                                                                                \
        MAY_FAIL(faults_ask(call, CALLER, true), failure);                                         \
        return real arguments;                                                                     \
    }

#define WRAP_FD(call, type, name, parameters, arguments)                                           \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        REAL(name);                                                                                \
        MAY_FAIL(faults_ask_fd(call, CALLER, fd), -1);                                             \
        return real arguments;                                                                     \
    }

/* With flags that may have MSG_DONTWAIT. */
static int ask_flags(enum faults_call call, const void *caller, int fd, int flags)
{
    return flags & MSG_DONTWAIT ? faults_ask(call, caller, false) : faults_ask_fd(call, caller, fd);
}

/* --- Sockets --- */

EXPORT int accept4(int fd, __SOCKADDR_ARG address, socklen_t *bytes, int flags)
{
    REAL(accept4);
    MAY_FAIL(faults_ask_fd(FAULTS_ACCEPT, CALLER, fd), -1);
    return real(fd, address, bytes, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(recvmsg);
    MAY_FAIL(ask_flags(FAULTS_RECEIVE, CALLER, fd, flags), -1);
    return real(fd, message, flags);
}

EXPORT ssize_t recv(int fd, void *buffer, size_t bytes, int flags)
{
    REAL(recv);
    MAY_FAIL(ask_flags(FAULTS_RECEIVE, CALLER, fd, flags), -1);
    return real(fd, buffer, bytes, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    MAY_FAIL(ask_flags(FAULTS_SEND, CALLER, fd, flags), -1);
    return real(fd, message, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    REAL(sendmmsg);
    MAY_FAIL(ask_flags(FAULTS_SEND, CALLER, fd, flags), -1);
    return real(fd, messages, count, flags);
}

EXPORT ssize_t send(int fd, const void *buffer, size_t bytes, int flags)
{
    REAL(send);
    MAY_FAIL(ask_flags(FAULTS_SEND, CALLER, fd, flags), -1);
    return real(fd, buffer, bytes, flags);
}

EXPORT int getsockopt(int fd, int level, int option, void *restrict value,
                      socklen_t *restrict bytes)
{
    REAL(getsockopt);
    bool process = level == SOL_SOCKET && option == SO_PEERPIDFD_NUMBER;
    MAY_FAIL(faults_ask(process ? FAULTS_PEERPIDFD : FAULTS_GETSOCKOPT, CALLER, true), -1);
    return real(fd, level, option, value, bytes);
}

WRAP(FAULTS_SOCKET, int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(FAULTS_SOCKET, int, -1, socketpair, (int domain, int type, int protocol, int ends[2]),
     (domain, type, protocol, ends))
WRAP_FD(FAULTS_CONNECT, int, connect, (int fd, __CONST_SOCKADDR_ARG address, socklen_t bytes),
        (fd, address, bytes))
WRAP(FAULTS_BIND, int, -1, bind, (int fd, __CONST_SOCKADDR_ARG address, socklen_t bytes),
     (fd, address, bytes))
WRAP(FAULTS_LISTEN, int, -1, listen, (int fd, int backlog), (fd, backlog))

/* --- Memory --- */

WRAP(FAULTS_MEMFD, int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(FAULTS_FTRUNCATE, int, -1, ftruncate, (int fd, off_t bytes), (fd, bytes))
WRAP(FAULTS_FALLOCATE, int, -1, fallocate, (int fd, int mode, off_t offset, off_t bytes),
     (fd, mode, offset, bytes))
WRAP(FAULTS_FCHMOD, int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(FAULTS_MMAP, void *, MAP_FAILED, mmap,
     (void *address, size_t bytes, int protection, int flags, int fd, off_t offset),
     (address, bytes, protection, flags, fd, offset))
WRAP(FAULTS_MADVISE, int, -1, madvise, (void *address, size_t bytes, int advice),
     (address, bytes, advice))

/* --- Events and time --- */

WRAP(FAULTS_EPOLL_CREATE, int, -1, epoll_create1, (int flags), (flags))

EXPORT int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    REAL(epoll_ctl);
    if (operation != EPOLL_CTL_DEL)
        MAY_FAIL(faults_ask(operation == EPOLL_CTL_ADD ? FAULTS_EPOLL_ADD : FAULTS_EPOLL_MOD,
                            CALLER, true),
                 -1);
    return real(epoll_fd, operation, fd, event);
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
    REAL(epoll_wait);
    MAY_FAIL(faults_ask(FAULTS_EPOLL_WAIT, CALLER, true), -1);
    faults_note_idle(timeout_ms != 0);
    int r = real(fd, events, count, timeout_ms);
    faults_note_idle(false);
    return r;
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout_ms,
                       const sigset_t *mask)
{
    REAL(epoll_pwait);
    MAY_FAIL(faults_ask(FAULTS_EPOLL_WAIT, CALLER, true), -1);
    faults_note_idle(timeout_ms != 0);
    int r = real(fd, events, count, timeout_ms, mask);
    faults_note_idle(false);
    return r;
}

WRAP(FAULTS_POLL, int, -1, poll, (struct pollfd * fds, nfds_t count, int timeout_ms),
     (fds, count, timeout_ms))
WRAP(FAULTS_POLL, int, -1, ppoll,
     (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
     (fds, count, timeout, mask))
WRAP(FAULTS_EVENTFD, int, -1, eventfd, (unsigned value, int flags), (value, flags))
WRAP(FAULTS_SIGNALFD, int, -1, signalfd, (int fd, const sigset_t *mask, int flags),
     (fd, mask, flags))
WRAP(FAULTS_TIMERFD, int, -1, timerfd_create, (clockid_t clock, int flags), (clock, flags))
WRAP(FAULTS_TIMER, int, -1, timer_create,
     (clockid_t clock, struct sigevent *restrict event, timer_t *restrict out_timer),
     (clock, event, out_timer))
WRAP(FAULTS_PIPE, int, -1, pipe2, (int ends[2], int flags), (ends, flags))

/* --- Processes --- */

WRAP(FAULTS_PIDFD_OPEN, int, -1, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
WRAP(FAULTS_PIDFD_SIGNAL, int, -1, pidfd_send_signal,
     (int pidfd, int number, siginfo_t *info, unsigned flags), (pidfd, number, info, flags))
WRAP(FAULTS_CLONE, pid_t, -1, _Fork, (void), ())
WRAP(FAULTS_WAIT, pid_t, -1, waitpid, (pid_t pid, int *status, int options), (pid, status, options))

/* These return their error. */
EXPORT int posix_spawnp(pid_t *restrict pid, const char *restrict file,
                        const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *restrict attributes, char *const *restrict argv,
                        char *const *restrict environment)
{
    REAL(posix_spawnp);
    int error = faults_ask(FAULTS_CLONE, CALLER, true);
    return error != 0 ? error : real(pid, file, actions, attributes, argv, environment);
}

EXPORT int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                          void *(*body)(void *), void *restrict argument)
{
    REAL(pthread_create);
    int error = faults_ask(FAULTS_THREAD, CALLER, true);
    return error != 0 ? error : real(thread, attributes, body, argument);
}

EXPORT int prctl(int option, ...)
{
    REAL(prctl);
    va_list list;
    unsigned long more[4];
    va_start(list, option);
    for (int i = 0; i < 4; i++)
        more[i] = va_arg(list, unsigned long);
    va_end(list);
    MAY_FAIL(faults_ask(FAULTS_PRCTL, CALLER, true), -1);
    return real(option, more[0], more[1], more[2], more[3]);
}

/* --- Files --- */

static int ask_fcntl(int operation, const void *caller)
{
    switch (operation) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return faults_ask(FAULTS_DUP, caller, true);
    case F_ADD_SEALS:
        return faults_ask(FAULTS_SEALS, caller, true);
    default:
        return 0;
    }
}

#define FCNTL(name)                                                                                \
    EXPORT int name(int fd, int operation, ...)                                                    \
    {                                                                                              \
        REAL(name);                                                                                \
        va_list list;                                                                              \
        va_start(list, operation);                                                                 \
        long argument = va_arg(list, long);                                                        \
        va_end(list);                                                                              \
        MAY_FAIL(ask_fcntl(operation, CALLER), -1);                                                \
        return real(fd, operation, argument);                                                      \
    }

int fcntl64(int fd, int operation, ...);
FCNTL(fcntl)
FCNTL(fcntl64)

WRAP(FAULTS_DUP, int, -1, dup2, (int old_fd, int new_fd), (old_fd, new_fd))

EXPORT int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    MAY_FAIL(faults_ask(FAULTS_OPEN, CALLER, true), -1);
    return real(path, flags, mode);
}

EXPORT int openat(int directory_fd, const char *path, int flags, ...)
{
    REAL(openat);
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    MAY_FAIL(faults_ask(FAULTS_OPEN, CALLER, true), -1);
    return real(directory_fd, path, flags, mode);
}

WRAP(FAULTS_OPEN, DIR *, NULL, opendir, (const char *path), (path))
WRAP(FAULTS_OPEN, FILE *, NULL, fopen, (const char *restrict path, const char *restrict mode),
     (path, mode))
WRAP(FAULTS_STAT, int, -1, fstat, (int fd, struct stat *out), (fd, out))
WRAP(FAULTS_STAT, int, -1, fstatat,
     (int fd, const char *restrict path, struct stat *restrict out, int flags),
     (fd, path, out, flags))
WRAP(FAULTS_STAT, int, -1, stat, (const char *restrict path, struct stat *restrict out),
     (path, out))
WRAP(FAULTS_STAT, int, -1, lstat, (const char *restrict path, struct stat *restrict out),
     (path, out))
WRAP(FAULTS_STAT, int, -1, fstatfs, (int fd, struct statfs *out), (fd, out))
WRAP_FD(FAULTS_READ, ssize_t, read, (int fd, void *buffer, size_t bytes), (fd, buffer, bytes))
WRAP_FD(FAULTS_READ, ssize_t, pread, (int fd, void *buffer, size_t bytes, off_t offset),
        (fd, buffer, bytes, offset))
WRAP_FD(FAULTS_WRITE, ssize_t, write, (int fd, const void *buffer, size_t bytes),
        (fd, buffer, bytes))
WRAP_FD(FAULTS_WRITE, ssize_t, pwrite, (int fd, const void *buffer, size_t bytes, off_t offset),
        (fd, buffer, bytes, offset))
WRAP(FAULTS_FLOCK, int, -1, flock, (int fd, int operation), (fd, operation))
WRAP(FAULTS_UNLINK, int, -1, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
WRAP(FAULTS_RENAME, int, -1, renameat,
     (int old_fd, const char *old_path, int new_fd, const char *new_path),
     (old_fd, old_path, new_fd, new_path))
WRAP(FAULTS_GETRANDOM, ssize_t, -1, getrandom, (void *buffer, size_t bytes, unsigned flags),
     (buffer, bytes, flags))

/* --- By number --- */

static int ask_number(long number, long operation, const void *caller)
{
    switch (number) {
    case SYS_futex:
        return faults_ask((operation & FUTEX_CMD_MASK) == FUTEX_WAKE ? FAULTS_FUTEX_WAKE
                                                                     : FAULTS_FUTEX_WAIT,
                          caller, false);
    case SYS_clone:
        return faults_ask(FAULTS_CLONE, caller, true);
    case SYS_capset:
    case SYS_landlock_create_ruleset:
    case SYS_landlock_add_rule:
    case SYS_landlock_restrict_self:
    case SYS_seccomp:
        return faults_ask(FAULTS_SANDBOX, caller, true);
    default:
        return 0;
    }
}

EXPORT long syscall(long number, ...)
{
    REAL(syscall);
    va_list list;
    long more[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        more[i] = va_arg(list, long);
    va_end(list);
    MAY_FAIL(ask_number(number, more[1], CALLER), -1);
    return real(number, more[0], more[1], more[2], more[3], more[4], more[5]);
}
