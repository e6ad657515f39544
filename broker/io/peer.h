/* SPDX-License-Identifier: MIT */
/* Who is at the other end of an accepted socket, as the kernel says: credentials, groups, the
 * process as a pidfd and its command. Owns the pidfd and the groups. No libuv; one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/core/core.h"

/* Names one process for as long as the machine runs, whatever becomes of its pid. */
struct lkd_process_key {
    uint64_t first;  /* inode of the pidfd, or the pid */
    uint64_t second; /* 0 for an inode, else the start time in ticks since boot, + 1 */
};

enum lkd_peer_pidfd {
    LKD_PEER_PIDFD_BEST,     /* SO_PEERPIDFD where the kernel has it (6.5), else pidfd_open(2) */
    LKD_PEER_PIDFD_FALLBACK, /* pidfd_open(2), with keys of pid and start time: for tests */
};

struct lkd_peer_info {
    struct lkd_peer peer; /* process is left to the caller; groups point into `groups` */
    uint32_t *groups;
    int pidfd;
    struct lkd_process_key key;
};

/**
 * Asks the kernel about the peer of an accepted socket.
 * Errors: -ENXIO (its pid is not visible from here: another pid namespace); -ESRCH (it has ended
 *         already, which is normal); -EMFILE, -ENFILE, -ENOMEM. *out is valid and empty then.
 */
int lkd_peer_ask(int socket_fd, enum lkd_peer_pidfd how, struct lkd_peer_info *out_info);

/**
 * The same for a peer whose pidfd is known from before, and is borrowed: info->pidfd has its number.
 * @socket_fd: -1: the connection has ended, and there are no groups
 * @pid:       of the process, which may have ended
 * Errors: -ENOMEM, and what getsockopt(2) says
 */
int lkd_peer_recall(int socket_fd, int pidfd, int32_t pid, struct lkd_peer_info *out_info);

/* The process of that number, if it is still the one with that key: a pidfd, the caller's. -ESRCH if
 * not, or what pidfd_open(2) says. */
int lkd_peer_find(int32_t pid, const struct lkd_process_key *key);

/* Closes and frees what it has; leaves it empty. */
void lkd_peer_info_deinit(struct lkd_peer_info *info);

/* Whether peers may send descriptors at all, where the kernel can tell them (SO_PASSRIGHTS, 6.16):
 * even one that is never received can block whoever closes the socket. Forbidden on the listening
 * socket, so that none comes along with a connection, and allowed for whom we trust. Does nothing on
 * older kernels. */
void lkd_peer_forbid_fds(int socket_fd);
void lkd_peer_allow_fds(int socket_fd);
