/* SPDX-License-Identifier: MIT */
/* The beginning of a worker that follows another: what that one opened is in the table of
 * descriptors, and what it knew is in the ledger. */
#pragma once

#include <stddef.h>

#include "broker/io/daemon.h"

/* Descriptors in the table that nobody knows: the dead worker's own (its loop, files that clients
 * had just sent), and connections that it had accepted and not yet noted down. */
struct lkd_strays {
    int *fds;
    size_t count;
};

/**
 * Before this worker opens anything: looks the table through.
 * @core: knows by the ledger what is in use
 * @kept: descriptors that belong to somebody else
 * @ready_fd: of this worker, if none has served before it; -1: none
 * Returns 0, -ENOMEM, or what keeps /proc/self/fd from being read. lkd_strays_deinit() either way.
 */
int lkd_takeover_survey(struct lkd_core *core, const int *kept, size_t kept_count, int ready_fd,
                        struct lkd_strays *out_strays);

/* Takes everything over: segments, processes, connections, and the strays, which it empties.
 * Returns 0 or -errno: then this worker has to end, and another tries. */
int lkd_takeover(struct lkd_daemon *daemon, struct lkd_strays *strays);

void lkd_strays_deinit(struct lkd_strays *strays);

/* Reserves the names that clients of a broker before this one still have, until they have ended.
 * Returns 0 or -ENOMEM. */
int lkd_reserve_names(struct lkd_daemon *daemon);

void lkd_reservers_deinit(struct lkd_daemon *daemon);
