/* SPDX-License-Identifier: MIT */
/* A connection as its two halves see it: connection.c, which receives, and outgoing.c, which sends. Nobody else
 * includes this. */
#pragma once

#include <uv.h>

#include "broker/io/connection.h"
#include "broker/io/daemon.h"
#include "common/list.h"

struct lkd_connection {
    struct lkd_daemon *daemon;
    struct lkd_connection_peer peer;
    struct lki_list node; /* in daemon->connections */
    int fd;
    bool closing;
    bool in_offer; /* an OPEN with a file is being answered: nothing is received meanwhile */
    uint64_t offer_request; /* its id */
    int offer_fd;
    int events; /* watched now */
    struct lki_list outgoing;
    size_t outgoing_bytes;
    uint32_t fds_under_way;
    uint32_t fds_queued;
    bool watches_reads;   /* the queue goes on when the peer has received what is under way */
    uint32_t records;     /* received; 2: two or more, a hello and a request */
    uint32_t may_release; /* holds whose release may come one-way, at least */
    uv_poll_t handle;
};

/* --- connection.c --- */

/* The connection has ended, or has to (for the reason given): the core is told. No settling here;
 * every caller does that. */
void lkd_connection_lose(struct lkd_connection *connection, const char *reason);

/* Watches for what is wanted now; drops it if that cannot be. */
void lkd_connection_watch_or_drop(struct lkd_connection *connection);

/* The OPEN that came with a file is answered: what nobody took is closed, and reading goes on. */
void lkd_connection_end_offer(struct lkd_connection *connection);

/* --- outgoing.c --- */

/* Whether records wait for room in the socket, or for the peer to receive those before them. */
bool lkd_outgoing_is_queued(const struct lkd_connection *connection);

/* Whether the next of them has descriptors, and those of an earlier one were not received yet. */
bool lkd_outgoing_is_held_back(const struct lkd_connection *connection);

/* Sends what the socket takes by now. */
void lkd_outgoing_flush(struct lkd_connection *connection);

/* Drops what is queued. */
void lkd_outgoing_deinit(struct lkd_connection *connection);
