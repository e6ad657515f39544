/* SPDX-License-Identifier: MIT */
/* A link ties the core's number of a session to its process and, while it has one, to its
 * connection. It lives on after the connection, until what the session held has been repaired. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/io/connection.h"

/* What a client is told when our descriptor table is full. */
#define LKD_NO_FILES_TEXT                                                                          \
    "the broker has no descriptors left; end some of its clients, or raise its ulimit -n"

/* Our descriptor table is full: ends a few connections that never said anything, if there are any
 * that had the time to. Their descriptors are free a little later. False: there are none. */
bool lkd_link_make_room(struct lkd_daemon *daemon);

/* Starts a session on an accepted socket. Consumes socket_fd, on failure too; the peer is told why.
 */
void lkd_link_accept(struct lkd_daemon *daemon, int socket_fd);

/* Goes on with a session that an earlier worker left: its process, and its connection if it has one.
 * Nothing is received before lkd_links_start(). Returns 0 or -errno. */
int lkd_link_adopt(struct lkd_daemon *daemon, const struct lkd_left_session *left);

/* All have been adopted: watches their processes and connections. */
void lkd_links_start(struct lkd_daemon *daemon);

/* With the session's first request: asks for the name of its process. Before the answer, since whoever
 * crashes at the start is gone soon after it. Does nothing the second time. */
void lkd_link_introduce(struct lkd_daemon *daemon, uint64_t session);

/* Behind that answer: watches the process, which may have ended by then, and that is seen at once. Not on
 * accepting, since before it has an attachment its end leaves nothing behind. */
void lkd_link_watch(struct lkd_daemon *daemon, uint64_t session);

/* Looks whether the process of a session that is attached to anything has ended, or is about to: that
 * is told as ever. For when its socket has ended, which is before its pidfd says so. */
void lkd_link_look(struct lkd_daemon *daemon, uint64_t session);

/* The connection of a session, or NULL. */
struct lkd_connection *lkd_link_connection(struct lkd_daemon *daemon, uint64_t session);

/* The process has ended: hears what its sessions said last, see one_way.h. Carries out no effects. */
void lkd_links_hear_last(struct lkd_watched *process);

/* The connection closes: the session has none from now on. */
void lkd_link_cut(struct lkd_daemon *daemon, uint64_t session);

/* The core has forgotten the number: closes the connection if there is one, lets the process go. */
void lkd_link_forget(struct lkd_daemon *daemon, uint64_t session);

/* Forgets all. */
void lkd_links_deinit(struct lkd_daemon *daemon);

/* Tells a peer without a session why it gets none, and closes. The reply has id 0: nothing was read
 * yet. Consumes socket_fd. closed may be NULL. */
void lkd_link_refuse(struct lkd_daemon *daemon, int socket_fd, int result, const char *why,
                     void (*closed)(struct lkd_daemon *daemon));
