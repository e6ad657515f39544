/* SPDX-License-Identifier: MIT */
/* Who waits for whom, made out of the broker's listing GRAPH: sessions, edges, rings. Pure, but for
 * memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/cli/listing.h"

enum lki_graph_kind {
    LKI_GRAPH_WAITS,  /* for the owner of the lock */
    LKI_GRAPH_DRAINS, /* owns the lock, and waits for a reader to leave */
    LKI_GRAPH_QUEUED, /* behind this one in the queue: does not count for rings */
};

struct lki_graph_node {
    uint64_t session;
    const struct lki_listing_entry *entry; /* that tells who it is, if any does */
    bool in_ring;
    size_t component; /* nodes of one ring, or of rings that touch, have the same */
};

struct lki_graph_edge {
    size_t from; /* indexes of nodes */
    size_t to;
    enum lki_graph_kind kind;
    const struct lki_listing_entry *entry; /* what `from` does: lock, mode, how long */
    bool in_ring;
};

struct lki_graph {
    struct lki_graph_node *nodes; /* by session */
    size_t node_count;
    struct lki_graph_edge *edges; /* by from */
    size_t edge_count;
    bool has_ring;
};

/* Borrows the listing. A listing is no snapshot, so a ring may be put together of what never was at
 * one time: `before` is an earlier graph (NULL: none), and an edge that is not in it is in no ring.
 * Returns 0 or -ENOMEM. */
int lki_graph_build(const struct lki_listing *listing, const struct lki_graph *before,
                    struct lki_graph *out_graph);
void lki_graph_deinit(struct lki_graph *graph);
