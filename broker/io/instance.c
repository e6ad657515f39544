/* SPDX-License-Identifier: MIT */
#include "broker/io/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "broker/core/core.h"
#include "broker/io/proc.h"
#include "common/cleanup.h"
#include "common/fd.h"
#include "proto/channel.h"

#define EPOCH_BLOCK 64u  /* epochs, one per segment made, for one write to the lock file */
#define DYING_TRIES 500u /* two seconds */
#define DYING_NAP_NS 4000000
#define LISTEN_BACKLOG 1024 /* the kernel lowers it to net.core.somaxconn */

static int __attribute__((format(printf, 4, 5)))
refuse(struct lkd_instance_problem *out_problem, int result, int exit_code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(out_problem->text, sizeof(out_problem->text), format, arguments);
    va_end(arguments);
    out_problem->exit_code = exit_code;
    return result;
}

static int exit_code_of(int result)
{
    return result == -EACCES || result == -EPERM || result == -EROFS ? EX_NOPERM : EX_OSERR;
}

/* Splits the path into its directory, opened, and its last component. */
static int open_directory(struct lkd_instance *instance, const char *path,
                          struct lkd_instance_problem *out_problem)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    int r = lki_socket_address(path, &address, &length_bytes);
    if (r == -ENAMETOOLONG)
        return refuse(out_problem, r, EX_USAGE,
                      "the socket path has %zu bytes, a socket address takes %u: choose a shorter "
                      "directory",
                      strlen(path), LKI_SOCKET_PATH_BYTES_MAX);
    if (r < 0)
        return refuse(out_problem, r, EX_USAGE, "the socket path is empty");
    (void)snprintf(instance->path, sizeof(instance->path), "%s", path);

    char directory[sizeof(instance->path)];
    const char *slash = strrchr(instance->path, '/');
    const char *name = slash != NULL ? slash + 1 : instance->path;
    if (slash == NULL)
        (void)snprintf(directory, sizeof(directory), ".");
    else if (slash == instance->path)
        (void)snprintf(directory, sizeof(directory), "/");
    else
        (void)snprintf(directory, sizeof(directory), "%.*s", (int)(slash - instance->path),
                       instance->path);
    if (name[0] == '\0')
        return refuse(out_problem, -EINVAL, EX_USAGE, "the socket path %s names a directory", path);
    (void)snprintf(instance->name, sizeof(instance->name), "%s", name);

    instance->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (instance->directory_fd < 0) {
        r = -errno;
        return refuse(out_problem, r, r == -ENOENT || r == -ENOTDIR ? EX_NOINPUT : exit_code_of(r),
                      "cannot listen at %s: its directory %s: %s; make it, or choose another path",
                      path, directory, strerror(-r));
    }
    return 0;
}

/* Reads "PID EPOCH" from the lock file. Whatever else stands there counts as nothing. */
static void read_lock_file(int lock_fd, long *out_pid, uint64_t *out_epoch_s)
{
    char text[64] = "";
    long pid = 0;
    uint64_t epoch_s = 0;
    ssize_t length = pread(lock_fd, text, sizeof(text) - 1, 0);
    if (length > 0 && sscanf(text, "%ld %" SCNu64, &pid, &epoch_s) < 1)
        pid = 0;
    *out_pid = pid;
    *out_epoch_s = epoch_s;
}

/* A daemon whose keeper was killed holds the lock until its worker, which dies with it, has been
 * torn down: that is waited for. Returns 0, -EADDRINUSE or what flock(2) says. */
static int lock_file(int fd)
{
    for (uint32_t tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        long pid;
        uint64_t epoch_s;
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return -errno;
        read_lock_file(fd, &pid, &epoch_s);
        bool keeper_is_gone =
            pid > 0 && ((kill((pid_t)pid, 0) < 0 && errno == ESRCH) ||
                        lkd_proc_life((int32_t)pid) == LKD_PROC_EXITING); /* a zombie, say */
        if (!keeper_is_gone || tries >= DYING_TRIES)
            return -EADDRINUSE;
        (void)nanosleep(&(struct timespec){.tv_nsec = DYING_NAP_NS}, NULL);
    }
    return 0;
}

static int take_lock(struct lkd_instance *instance, uint64_t now_s,
                     struct lkd_instance_problem *out_problem)
{
    char lock_name[sizeof(instance->name) + 8];
    (void)snprintf(lock_name, sizeof(lock_name), "%s.lock", instance->name);
    /* O_NOFOLLOW: in a directory that others write to, the name could be a link of theirs. */
    LKI_CLEANUP(lki_close_p)
    int fd = openat(instance->directory_fd, lock_name,
                    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0) {
        int r = -errno;
        return refuse(out_problem, r, exit_code_of(r), "cannot open %s.lock: %s", instance->path,
                      strerror(-r));
    }
    struct stat status;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        (status.st_uid != geteuid() && status.st_uid != 0))
        return refuse(out_problem, -EPERM, EX_NOPERM,
                      "%s.lock is no regular file of ours: remove it, or choose another directory",
                      instance->path);
    long pid;
    uint64_t stored_epoch_s;
    int r = lock_file(fd);
    if (r < 0) {
        read_lock_file(fd, &pid, &stored_epoch_s);
        if (r == -EADDRINUSE)
            return refuse(
                out_problem, r, EX_TEMPFAIL,
                "another lockkeeperd (pid %ld) runs at %s: use that one, or stop it first", pid,
                instance->path);
        return refuse(out_problem, r, EX_OSERR, "cannot lock %s.lock: %s", instance->path,
                      strerror(-r));
    }
    read_lock_file(fd, &pid, &stored_epoch_s);
    instance->lock_fd = lki_steal_fd(&fd);
    /* Tokens must rise from one broker to the next, also within a second and over a clock set back.
     * A scribbled number must not use up all the epochs that there are. */
    uint64_t least = stored_epoch_s < LKD_TOKEN_EPOCH_S_MAX - EPOCH_BLOCK ? stored_epoch_s + 1 : 0;
    instance->token_epoch_s = now_s > least ? now_s : least;
    return lkd_instance_use_epoch(instance, instance->token_epoch_s);
}

static int write_lock_file(const struct lkd_instance *instance, uint64_t token_epoch_s)
{
    char text[64];
    int length =
        snprintf(text, sizeof(text), "%ld %" PRIu64 "\n", (long)instance->pid, token_epoch_s);
    ssize_t written = pwrite(instance->lock_fd, text, (size_t)length, 0);
    if (written != length)
        return written < 0 ? -errno : -ENOSPC;
    return ftruncate(instance->lock_fd, length) < 0 ? -errno : 0;
}

int lkd_instance_use_epoch(struct lkd_instance *instance, uint64_t token_epoch_s)
{
    if (token_epoch_s > instance->used_epoch_s)
        instance->used_epoch_s = token_epoch_s;
    if (token_epoch_s <= instance->reserved_epoch_s)
        return 0;
    int r = write_lock_file(instance, token_epoch_s + EPOCH_BLOCK);
    if (r == 0)
        instance->reserved_epoch_s = token_epoch_s + EPOCH_BLOCK;
    return r;
}

/* Whether somebody answers at the path: a daemon that knows nothing of our lock file. */
static int check_nobody_listens(const struct lkd_instance *instance)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    int r = lki_socket_address(instance->path, &address, &length_bytes);
    if (r < 0)
        return r;
    static const int types[] = {SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        LKI_CLEANUP(lki_close_p)
        int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            return -errno;
        /* EAGAIN: somebody is there, with a full queue. EPROTOTYPE: somebody of another type. */
        if (connect(fd, (struct sockaddr *)&address, length_bytes) == 0 || errno == EAGAIN)
            return -EADDRINUSE;
    }
    return 0;
}

static int remove_dead_socket(const struct lkd_instance *instance,
                              struct lkd_instance_problem *out_problem)
{
    struct stat status;
    if (fstatat(instance->directory_fd, instance->name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        int r = -errno;
        return r == -ENOENT ? 0
                            : refuse(out_problem, r, exit_code_of(r), "cannot examine %s: %s",
                                     instance->path, strerror(-r));
    }
    if (!S_ISSOCK(status.st_mode))
        return refuse(out_problem, -EEXIST, EX_CANTCREAT,
                      "%s exists and is not a socket: remove it, or choose another path",
                      instance->path);
    int r = check_nobody_listens(instance);
    if (r == -EADDRINUSE)
        return refuse(out_problem, r, EX_TEMPFAIL,
                      "another program listens at %s: choose another path", instance->path);
    if (r < 0)
        return refuse(out_problem, r, EX_OSERR, "cannot probe %s: %s", instance->path,
                      strerror(-r));
    if (unlinkat(instance->directory_fd, instance->name, 0) < 0) {
        r = -errno;
        return refuse(out_problem, r, exit_code_of(r), "cannot remove the dead socket %s: %s",
                      instance->path, strerror(-r));
    }
    return 0;
}

static int bind_and_listen(struct lkd_instance *instance, mode_t mode)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    int r = lki_socket_address(instance->path, &address, &length_bytes);
    if (r < 0)
        return r;
    LKI_CLEANUP(lki_close_p)
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* The mode has to be right at birth: with chmod(2) afterwards there is a moment to slip in. */
    mode_t old_mask = umask(~mode & 0777);
    r = bind(fd, (struct sockaddr *)&address, length_bytes) < 0 ? -errno : 0;
    (void)umask(old_mask);
    if (r < 0)
        return r;
    struct stat status;
    if (listen(fd, LISTEN_BACKLOG) < 0 ||
        fstatat(instance->directory_fd, instance->name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        r = -errno;
        (void)unlinkat(instance->directory_fd, instance->name, 0);
        return r;
    }
    instance->socket_device = status.st_dev;
    instance->socket_inode = status.st_ino;
    instance->listen_fd = lki_steal_fd(&fd);
    return 0;
}

/* --- A socket that is there already --- */

static int get_socket_number(int fd, int option)
{
    int number = 0;
    socklen_t bytes = sizeof(number);
    return getsockopt(fd, SOL_SOCKET, option, &number, &bytes) == 0 ? number : -1;
}

/* The path that a listener is bound to. */
static int inspect_listener(int fd, char *out_path, size_t capacity_bytes,
                            struct lkd_instance_problem *out_problem)
{
    if (get_socket_number(fd, SO_ACCEPTCONN) != 1 || get_socket_number(fd, SO_DOMAIN) != AF_UNIX ||
        get_socket_number(fd, SO_TYPE) != SOCK_SEQPACKET)
        return refuse(out_problem, -EPROTOTYPE, EX_USAGE,
                      "the inherited descriptor %d is no listening Unix socket of type seqpacket: "
                      "give the socket unit ListenSequentialPacket=PATH and Accept=no",
                      fd);
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
        return -errno;
    size_t room = bytes - offsetof(struct sockaddr_un, sun_path);
    size_t length = bytes > offsetof(struct sockaddr_un, sun_path)
                        ? strnlen(address.sun_path,
                                  room < sizeof(address.sun_path) ? room : sizeof(address.sun_path))
                        : 0;
    if (length == 0 || length >= capacity_bytes)
        return refuse(out_problem, -EINVAL, EX_USAGE,
                      "the inherited socket %d is bound to no path of 1 to %u bytes: PATH.lock has "
                      "to lie beside it; give the socket unit ListenSequentialPacket=PATH",
                      fd, LKI_SOCKET_PATH_BYTES_MAX);
    memcpy(out_path, address.sun_path, length);
    out_path[length] = '\0';
    return 0;
}

static bool is_same_file(const char *path, const char *other)
{
    struct stat status;
    struct stat other_status;
    return strcmp(path, other) == 0 ||
           (stat(path, &status) == 0 && stat(other, &other_status) == 0 &&
            status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino);
}

/* Notes the file as ours, unless it is the manager's. */
static int claim_socket_file(struct lkd_instance *instance, enum lkd_socket_owner owner,
                             struct lkd_instance_problem *out_problem)
{
    struct stat status;
    if (owner == LKD_SOCKET_MANAGERS)
        return 0;
    if (fstatat(instance->directory_fd, instance->name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISSOCK(status.st_mode))
        return refuse(out_problem, -ENOENT, EX_NOINPUT,
                      "the socket that an earlier broker left at %s is not there any more",
                      instance->path);
    instance->socket_device = status.st_dev;
    instance->socket_inode = status.st_ino;
    return 0;
}

/* No listen(2): from then on clients would be told our credentials, where they now see the user who
 * made the socket. */
static int set_non_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

int lkd_instance_adopt(struct lkd_instance *instance, const char *path, int taken_fd,
                       enum lkd_socket_owner owner, uint64_t now_s,
                       struct lkd_instance_problem *out_problem)
{
    LKI_CLEANUP(lki_close_p) int fd = taken_fd;
    char bound_path[LKI_SOCKET_PATH_BYTES_MAX + 1];
    *instance =
        (struct lkd_instance){.directory_fd = -1, .lock_fd = -1, .listen_fd = -1, .pid = getpid()};
    *out_problem = (struct lkd_instance_problem){.exit_code = EX_OSERR};
    int r = inspect_listener(fd, bound_path, sizeof(bound_path), out_problem);
    if (r == 0 && path != NULL && !is_same_file(path, bound_path))
        r = refuse(out_problem, -EINVAL, EX_USAGE,
                   "the inherited socket listens at %s, not at %s: leave --socket out, or have the "
                   "socket unit listen there",
                   bound_path, path);
    if (r == 0)
        r = open_directory(instance, bound_path, out_problem);
    if (r == 0)
        r = take_lock(instance, now_s, out_problem);
    if (r == 0)
        r = claim_socket_file(instance, owner, out_problem);
    if (r == 0)
        r = set_non_blocking(fd);
    if (r == 0) {
        instance->listen_fd = lki_steal_fd(&fd);
        return 0;
    }
    if (out_problem->text[0] == '\0')
        (void)refuse(out_problem, r, exit_code_of(r), "cannot use the inherited socket: %s",
                     strerror(-r));
    lkd_instance_close(instance);
    return r;
}

/* --- Lifecycle --- */

int lkd_instance_open(struct lkd_instance *instance, const char *path, mode_t mode, uint64_t now_s,
                      struct lkd_instance_problem *out_problem)
{
    *instance =
        (struct lkd_instance){.directory_fd = -1, .lock_fd = -1, .listen_fd = -1, .pid = getpid()};
    *out_problem = (struct lkd_instance_problem){.exit_code = EX_OSERR};
    int r = open_directory(instance, path, out_problem);
    if (r == 0)
        r = take_lock(instance, now_s, out_problem);
    if (r == 0)
        r = remove_dead_socket(instance, out_problem);
    if (r == 0)
        r = bind_and_listen(instance, mode);
    if (r < 0) {
        if (out_problem->text[0] == '\0')
            (void)refuse(out_problem, r, exit_code_of(r), "cannot listen at %s: %s", path,
                         strerror(-r));
        lkd_instance_close(instance);
    }
    return r;
}

void lkd_instance_close(struct lkd_instance *instance)
{
    struct stat status;
    /* Not ours any more when somebody removed the file and made another. */
    if (instance->listen_fd >= 0 && instance->socket_inode != 0 &&
        fstatat(instance->directory_fd, instance->name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        status.st_dev == instance->socket_device && status.st_ino == instance->socket_inode)
        (void)unlinkat(instance->directory_fd, instance->name, 0);
    instance->listen_fd = lki_close(instance->listen_fd);
    if (instance->lock_fd >= 0) /* the epochs of the block that were not used can be */
        (void)write_lock_file(instance, instance->used_epoch_s);
    instance->lock_fd = lki_close(instance->lock_fd);
    instance->directory_fd = lki_close(instance->directory_fd);
}
