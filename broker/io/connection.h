/* SPDX-License-Identifier: MIT */
/* One accepted socket: records in, records out. Receives a bounded number of records per turn of
 * the loop; sends at once what the socket takes and queues the rest, within bounds. A peer that
 * breaks the rules is dropped, with one line in the log; nothing that a peer does ends anything but
 * its own connection. Freed in the close callback of its handle and nowhere else; until then it is
 * closing and ignores events. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/io/daemon.h"
#include "broker/io/log.h"
#include "broker/io/segment_memory.h"

struct lkd_connection; /* opaque */

struct lkd_connection_peer {
    uint64_t session;
    int32_t pid;
    uint32_t uid;
    bool may_offer; /* files */
};

/**
 * Receives nothing before lkd_connection_start(). Takes over socket_fd on success; on
 * failure it stays the caller's: a worker that takes over and fails must leave it to its successor.
 * Errors: -ENOMEM, and what epoll_ctl(2) says
 */
int lkd_connection_open(struct lkd_daemon *daemon, int socket_fd,
                        const struct lkd_connection_peer *peer,
                        struct lkd_connection **out_connection);

/* Receives what has come already, and whatever comes from now on. May close the connection. */
void lkd_connection_start(struct lkd_connection *connection);

/* The same for one that an earlier worker had: only from now on, and not before the loop turns. May
 * close it. */
void lkd_connection_resume(struct lkd_connection *connection);

/* The connection whose node in daemon->connections this is. */
struct lkd_connection *lkd_connection_of(struct lki_list *node);

/* Sends or queues. fds are borrowed. May close the connection. */
void lkd_connection_send(struct lkd_connection *connection, const struct lki_message *message,
                         struct lkd_segment_fds *fds);

/* Sends an EVENT, which waits for nobody: false if the socket does not take it now, or something
 * else waits already. May close the connection; then it counts as sent. */
bool lkd_connection_send_event(struct lkd_connection *connection,
                               const struct lki_message *message);

/* The peer has received something: what waited for that goes out. May close the connection.
 * (unread.c)
 */
void lkd_connection_was_read(struct lkd_connection *connection);

/* The peer breaks the rules, or cannot be served: logs why, closes, and tells the core. */
void lkd_connection_drop(struct lkd_connection *connection, const char *reason);

/* Whether a one-way release may lie in the socket. */
bool lkd_connection_may_have_released(const struct lkd_connection *connection);

/* The peer's process has ended: hears the one-way releases that it left, see one_way.h. The
 * caller carries out what that causes. */
void lkd_connection_hear_last(struct lkd_connection *connection, uint32_t *records_left);

/* Logs that the connection ends, with who it was and why. */
void lkd_connection_log(const struct lkd_connection *connection, enum lkd_log_level level,
                        const char *reason);

/* Closes it; what the socket did not take by now is lost. The core has been told, or asked for it.
 */
void lkd_connection_close(struct lkd_connection *connection);

/* The file that came with the OPEN which the core is working on, for the caller to keep; -1: none.
 */
int lkd_connection_take_offer(struct lkd_connection *connection);
