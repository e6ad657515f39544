/* SPDX-License-Identifier: MIT */
#include "broker/io/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "broker/io/proc.h"
#include "common/assert.h"
#include "common/fd.h"

/* Newer than the headers of Debian 12; generic numbers, as on x86 and arm. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#define PIDFS_MAGIC 0x50494446

#define GROUPS_MAX 65536u /* NGROUPS_MAX of Linux */

static int ask_groups(int socket_fd, struct lkd_peer_info *info)
{
    socklen_t bytes = 0;
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes) == 0)
        return 0; /* none at all */
    if (errno != ERANGE)
        return -errno;
    if (bytes == 0 || bytes > GROUPS_MAX * sizeof(gid_t))
        return -EPROTO;
    static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are handed on as they come");
    info->groups = malloc(bytes);
    if (info->groups == NULL)
        return -ENOMEM;
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERGROUPS, info->groups, &bytes) < 0)
        return -errno;
    info->peer.groups = info->groups;
    info->peer.group_count = (uint32_t)(bytes / sizeof(gid_t));
    return 0;
}

/* Whether the other end of the socket has been closed. */
static bool is_hung_up(int socket_fd)
{
    struct pollfd look = {.fd = socket_fd, .events = POLLRDHUP};
    return poll(&look, 1, 0) > 0 && (look.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

/* The peer's process by its number. Between connect() and here the process may have ended and its
 * number been given to another one, which nobody can tell by the number; but then its end of the
 * socket has been closed, unless a child inherited it. The start time catches a number that changes
 * hands while we look. */
static int open_by_pid(int socket_fd, struct lkd_peer_info *info)
{
    uint64_t before;
    uint64_t after;
    int r = lkd_proc_start_time(info->peer.pid, &before);
    if (r < 0)
        return r;
    info->pidfd = pidfd_open(info->peer.pid, 0); /* close-on-exec by itself */
    if (info->pidfd < 0)
        return -errno;
    r = lkd_proc_start_time(info->peer.pid, &after);
    if (r < 0)
        return r;
    if (before != after || is_hung_up(socket_fd))
        return -ESRCH;
    info->key = (struct lkd_process_key){.first = (uint64_t)info->peer.pid, .second = after + 1};
    return 0;
}

/* Since 6.9 a pidfd has an inode of its own, the same for all pidfds of one process and never used
 * twice; before, all pidfds share one. */
static int key_of_pidfd(struct lkd_peer_info *info)
{
    static enum { UNKNOWN, YES, NO } has_inodes; /* the same for every pidfd of this kernel */
    struct stat status;
    if (has_inodes == UNKNOWN) {
        struct statfs filesystem;
        if (fstatfs(info->pidfd, &filesystem) < 0)
            return -errno;
        has_inodes = filesystem.f_type == PIDFS_MAGIC ? YES : NO;
    }
    if (has_inodes == YES) {
        if (fstat(info->pidfd, &status) < 0)
            return -errno;
        info->key = (struct lkd_process_key){.first = status.st_ino};
        return 0;
    }
    uint64_t start_time;
    int r = lkd_proc_start_time(info->peer.pid, &start_time);
    if (r < 0)
        return r;
    struct pollfd look = {.fd = info->pidfd, .events = POLLIN};
    if (poll(&look, 1, 0) != 0)
        return -ESRCH; /* ended: the start time may be that of the number's next process */
    info->key =
        (struct lkd_process_key){.first = (uint64_t)info->peer.pid, .second = start_time + 1};
    return 0;
}

static int open_process(int socket_fd, enum lkd_peer_pidfd how, struct lkd_peer_info *info)
{
    if (how == LKD_PEER_PIDFD_FALLBACK)
        return open_by_pid(socket_fd, info);
    socklen_t bytes = sizeof(info->pidfd);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &info->pidfd, &bytes) == 0)
        return key_of_pidfd(info);
    info->pidfd = -1;
    switch (errno) {
    case ENOPROTOOPT:
        return open_by_pid(socket_fd, info);
    case EINVAL: /* what some kernels say when the process was reaped already */
    case ENODATA:
        return -ESRCH;
    default:
        return -errno;
    }
}

int lkd_peer_ask(int socket_fd, enum lkd_peer_pidfd how, struct lkd_peer_info *out_info)
{
    *out_info = (struct lkd_peer_info){.pidfd = -1};
    struct ucred credentials;
    socklen_t bytes = sizeof(credentials);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) < 0)
        return -errno;
    out_info->peer.pid = credentials.pid;
    out_info->peer.uid = credentials.uid;
    out_info->peer.gid = credentials.gid;
    if (credentials.pid <= 0)
        return -ENXIO;

    int r = ask_groups(socket_fd, out_info);
    if (r == 0)
        r = open_process(socket_fd, how, out_info);
    if (r < 0)
        lkd_peer_info_deinit(out_info);
    return r;
}

int lkd_peer_recall(int socket_fd, int pidfd, int32_t pid, struct lkd_peer_info *out_info)
{
    *out_info = (struct lkd_peer_info){.pidfd = pidfd, .peer.pid = pid};
    int r = socket_fd >= 0 ? ask_groups(socket_fd, out_info) : 0;
    if (r < 0)
        return r;
    /* Without inodes of their own the numbers of the descriptors tell processes apart as well: each
     * process has one here. */
    if (key_of_pidfd(out_info) < 0)
        out_info->key = (struct lkd_process_key){.first = (uint64_t)pidfd, .second = UINT64_MAX};
    return 0;
}

int lkd_peer_find(int32_t pid, const struct lkd_process_key *key)
{
    uint64_t start_time;
    struct lkd_peer_info info = {.pidfd = pidfd_open(pid, 0), .peer.pid = pid};
    if (info.pidfd < 0)
        return -errno;
    int r = 0;
    if (key->second == 0) {
        r = key_of_pidfd(&info);
    } else {
        r = lkd_proc_start_time(pid, &start_time);
        info.key = (struct lkd_process_key){.first = (uint64_t)pid, .second = start_time + 1};
    }
    struct pollfd look = {.fd = info.pidfd, .events = POLLIN};
    bool same = r == 0 && info.key.first == key->first && info.key.second == key->second &&
                poll(&look, 1, 0) == 0;
    if (same)
        return info.pidfd;
    (void)lki_close(info.pidfd);
    return -ESRCH;
}

void lkd_peer_info_deinit(struct lkd_peer_info *info)
{
    free(info->groups);
    info->groups = NULL;
    info->peer.groups = NULL;
    info->peer.group_count = 0;
    info->pidfd = lki_close(info->pidfd);
}

static void pass_fds(int socket_fd, int on)
{
    /* Before Linux 6.16 there is no such option, and they are always taken. */
    (void)setsockopt(socket_fd, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof(on));
}

void lkd_peer_forbid_fds(int socket_fd)
{
    pass_fds(socket_fd, 0);
}

void lkd_peer_allow_fds(int socket_fd)
{
    pass_fds(socket_fd, 1);
}
