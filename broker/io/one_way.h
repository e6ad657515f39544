/* SPDX-License-Identifier: MIT */
/* Releases that nobody waits for. Whoever sent one goes on as if it had had its effect, and may sleep, or end,
 * before we have read it. So what is heard here is taken out of the socket only afterwards: the socket is what
 * a successor of this worker finds it in. And what a process has sent is read before it counts as ended. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/io/daemon.h"

enum lkd_one_way {
    LKD_ONE_WAY_HEARD,
    LKD_ONE_WAY_OTHER, /* the next record is none, or the connection is at its end */
    LKD_ONE_WAY_NOTHING,
};

/* Hears the next record of the socket if it is a one-way release, and takes it out. The connection may be
 * closed afterwards. */
enum lkd_one_way lkd_one_way_hear(struct lkd_daemon *daemon, uint64_t session, int socket_fd);

/* Whether a record, or the end of the connection, is there to be received. */
bool lkd_one_way_has_unread(int socket_fd);

/* Nothing more is to come from the peer: hears the one-way releases that lie in the socket, and drops the rest.
 * *records_left: how many records may be read still, the others are lost. Carries out no effects. */
void lkd_one_way_hear_last(struct lkd_daemon *daemon, uint64_t session, int socket_fd,
                           uint32_t *records_left);

/* How many are read when a process, or a connection, has ended. A socket of the usual size holds some 300; and
 * a child of the process may go on filling it. */
#define LKD_LAST_RECORDS_MAX 1024u
