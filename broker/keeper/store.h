/* SPDX-License-Identifier: MIT */
/* What the service manager keeps of a broker, for the one that follows when keeper and worker are
 * both lost: the ledger, and the memory of every segment, each as a descriptor with a name. Then no
 * segment is lost, its locks stay held by whoever lives, and the dead are cleaned up after. The
 * connections are lost; their processes are found again by what the ledger says of them.
 *
 * The manager is told after the fact. A segment that came in the last moment before the loss is none
 * of those that come back: its name is refused instead, as without a manager (broker/io/names.h).
 *
 * Keeper alone; one thread. Owns no descriptor: those that are stored are the worker's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/core/ledger.h"
#include "broker/core/resource.h"
#include "broker/keeper/service_manager.h"

/* The manager passes all names in one variable, of 128 KiB at most; see FileDescriptorStoreMax= in
 * the units, which is the same. */
#define LKD_STORE_FDS_MAX 8000u

struct lkd_store {
    struct lkd_service *service; /* borrowed */
    struct lkd_stored *stored;   /* per record of a segment */
    uint32_t stored_max;
    uint32_t fds;
    bool has_ledger;
    bool full; /* and the log says so */
};

/**
 * Without a manager nothing will ever be stored.
 * @ledger_fd: what it says has been stored, by the broker or the image before; -1: nothing has
 * Returns 0 or -ENOMEM.
 */
int lkd_store_init(struct lkd_store *store, struct lkd_service *service,
                   const struct lkd_limits *limits, int ledger_fd);
void lkd_store_deinit(struct lkd_store *store);

/**
 * Has the manager keep the segments that have come since, and drop those that have gone.
 * @ledger_fd: the memory of the ledger, stored with the first segment
 * Returns:    whether all is told; false: the manager's queue is full, call again later
 */
bool lkd_store_update(struct lkd_store *store, const struct lkd_ledger *ledger, int ledger_fd);

/* Has the manager drop everything: a clean end. */
void lkd_store_clear(struct lkd_store *store);

/**
 * What an earlier broker had stored, made fit to go on from: descriptors have the numbers that they
 * have here, connections are gone, processes are found anew. Segments whose memory is missing are
 * given up, and so is everything if the ledger is not one for these limits.
 * Returns: the descriptor of the ledger, the caller's; -1: there is nothing to go on from
 */
int lkd_store_restore(struct lkd_service *service, const struct lkd_limits *limits);

/* Whether the segments of a restored ledger, of -1 none, have this name. */
bool lkd_store_has_name(int ledger_fd, const struct lkd_limits *limits, uint32_t name_kind,
                        uint32_t name_id, const uint8_t *name, uint32_t name_bytes);
