/* SPDX-License-Identifier: MIT */
/* The wait-for graph: which session waits for which, and whether a wait closes a cycle. Nodes are
 * sessions, whose attachments in several segments belong together; an edge goes from who waits to
 * who is in the way. Waiting behind somebody in a queue is no edge: whoever is before us takes its
 * turn and goes, or waits for somebody itself.
 *
 * Pure: facts come from the caller, copied, and nothing is remembered between two searches but the
 * marks in the nodes. No memory is allocated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lkd_attachment;
struct lkd_wait_node;

/* What was read about one attachment that waits and one that may be in its way. */
struct lkd_wait_facts {
    uint64_t wait; /* of the waiter, without IMPATIENT, which comes and goes */
    uint32_t waiter_id;
    uint32_t owner;    /* the id in the lock's word; 0: free */
    uint64_t sequence; /* of the lock: (owner, sequence) names one hold */
    uint32_t holder_id;
    bool holder_reads;    /* it has a cell for the lock */
    uint64_t holder_wait; /* what it waits for itself */
};

/* Whether the holder keeps the waiter waiting. */
bool lkd_wait_facts_block(const struct lkd_wait_facts *facts);

/* Whether both looks saw the same hold in the way of the same wait. */
bool lkd_wait_facts_alike(const struct lkd_wait_facts *first, const struct lkd_wait_facts *second);

struct lkd_wait_edge {
    struct lkd_wait_node *from;
    struct lkd_wait_node *to;
    const struct lkd_attachment *waiter; /* opaque here */
    const struct lkd_attachment *holder;
    struct lkd_wait_facts facts;
};

struct lkd_wait_node { /* embedded in a session; zeroed at first */
    uint64_t round;    /* of the search that reached it last */
    struct lkd_wait_node *next;
    struct lkd_wait_edge reached_by;
};

struct lkd_wait_graph;

/* Calls lkd_wait_graph_add() for each edge that leaves the node; of one wait alone when `waiter` is
 * not NULL. */
typedef void (*lkd_wait_edges_fn)(struct lkd_wait_graph *graph, struct lkd_wait_node *node,
                                  const struct lkd_attachment *waiter, void *user);

/* Reads the facts of an edge once more. False: it is not there any more, or another. */
typedef bool (*lkd_wait_again_fn)(const struct lkd_wait_edge *edge, void *user);

struct lkd_wait_graph {
    lkd_wait_edges_fn edges_of;
    lkd_wait_again_fn is_still;
    void *user;
    uint64_t round;
    uint64_t work_left; /* the edges function takes from it; 0 ends the search with no result */
    struct lkd_wait_node *goal;
    struct lkd_wait_node *last; /* of the nodes still to be looked at */
    bool found;
};

void lkd_wait_graph_init(struct lkd_wait_graph *graph, lkd_wait_edges_fn edges_of,
                         lkd_wait_again_fn is_still, void *user);

/* Looks for a cycle through this wait, and then at each of its edges a second time. Since every
 * fact was alike before the last of the first looks and after the first of the second ones, all of
 * them held at one moment in between. Finds the shortest cycle.
 *
 * Returns the number of its edges, 0: no cycle. They are read by lkd_wait_graph_edge() until the
 * next search. */
size_t lkd_wait_graph_search(struct lkd_wait_graph *graph, struct lkd_wait_node *node,
                             const struct lkd_attachment *waiter, uint64_t work_max);

/* For an edges function. */
void lkd_wait_graph_add(struct lkd_wait_graph *graph, const struct lkd_wait_edge *edge);

/* The edge of the cycle found that follows `edge`, NULL: the first one, that of the searched wait.
 */
const struct lkd_wait_edge *lkd_wait_graph_edge(const struct lkd_wait_graph *graph,
                                                const struct lkd_wait_edge *edge);
