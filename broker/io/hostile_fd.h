/* SPDX-License-Identifier: MIT */
/* Descriptors that a peer sent, and sockets that may still hold some: fstat() and close() of such
 * can block for seconds (a lingering TCP socket, a file of a hung file system). All of that happens
 * here, on libuv's helper threads; the callbacks run on the loop. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "broker/core/core.h"
#include "broker/io/daemon.h"

/* Closes descriptors elsewhere. Consumes them; if there is no memory for that, closes them here. */
void lkd_hostile_close(struct lkd_daemon *daemon, const int *fds, size_t count);

/* Shuts the socket down, at once, then closes it: here if it is empty, else elsewhere, where what the
 * peer sent is read away and closed before. The peer still gets what was sent to it: closing with unread
 * data would reset it. Consumes socket_fd. closed may be NULL. */
typedef void (*lkd_hostile_closed_fn)(struct lkd_daemon *daemon);
void lkd_hostile_close_socket(struct lkd_daemon *daemon, int socket_fd,
                              lkd_hostile_closed_fn closed);

/* Looks at a descriptor elsewhere, then calls examined with what it is; the descriptor is handed
 * back. The record is copied for the callback. Consumes fd. Returns 0, or -ENOMEM (fd is closed).
 */
typedef void (*lkd_hostile_examined_fn)(struct lkd_daemon *daemon, uint64_t session, int fd,
                                        const struct lkd_offer *offer, const uint8_t *record,
                                        size_t record_bytes);
int lkd_hostile_examine(struct lkd_daemon *daemon, uint64_t session, int fd, const uint8_t *record,
                        size_t record_bytes, lkd_hostile_examined_fn examined);
