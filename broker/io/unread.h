/* SPDX-License-Identifier: MIT */
/* Tells when a peer has received something of what was sent to it. A socket is writable as long as
 * there is room, so waiting for that would not sleep: this is a second epoll, edge-triggered, which
 * the loop watches. It knows sockets and connections, but owns none. */
#pragma once

#include <stdbool.h>

struct lkd_connection;
struct lkd_daemon;

/* Returns 0 or -errno. */
int lkd_unread_open(struct lkd_daemon *daemon);

/* Before the loop is closed. */
void lkd_unread_close(struct lkd_daemon *daemon);

/* From now on lkd_connection_was_read() is called after the peer has received a record, and once at
 * first: it may have done so meanwhile. Returns 0 or -errno. */
int lkd_unread_watch(struct lkd_daemon *daemon, int socket_fd, struct lkd_connection *connection);
void lkd_unread_forget(struct lkd_daemon *daemon, int socket_fd);

/* Whether the peer has received all that was sent over this socket. */
bool lkd_unread_is_empty(int socket_fd);
