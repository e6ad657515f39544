/* SPDX-License-Identifier: MIT */
#include "broker/core/wait_graph.h"

#include "engine/layout.h"

/* A cycle seen once and not again belongs to somebody who moves; one that stays is found by one of
 * the next looks. */
#define LOOKS_MAX 8u

bool lkd_wait_facts_block(const struct lkd_wait_facts *facts)
{
    uint32_t lock = lki_wait_lock(facts->wait);

    /* Whoever has just taken the word still says that it waits, until it takes that back. */
    if (facts->holder_id == 0 || facts->holder_id == facts->waiter_id)
        return false;
    if ((facts->wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_QUEUED)
        return facts->owner == facts->holder_id;
    /* A reader that fills its cell, finds the owner and empties it again is not inside, nor is one
     * that waits for this lock: locks do not nest. */
    return (facts->wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING &&
           facts->owner == facts->waiter_id && facts->holder_reads &&
           !lki_wait_is(facts->holder_wait, LKI_WAIT_QUEUED, lock);
}

bool lkd_wait_facts_alike(const struct lkd_wait_facts *first, const struct lkd_wait_facts *second)
{
    return first->wait == second->wait && first->waiter_id == second->waiter_id &&
           first->owner == second->owner && first->sequence == second->sequence &&
           first->holder_id == second->holder_id && lkd_wait_facts_block(first) &&
           lkd_wait_facts_block(second);
}

void lkd_wait_graph_init(struct lkd_wait_graph *graph, lkd_wait_edges_fn edges_of,
                         lkd_wait_again_fn is_still, void *user)
{
    *graph = (struct lkd_wait_graph){.edges_of = edges_of, .is_still = is_still, .user = user};
}

void lkd_wait_graph_add(struct lkd_wait_graph *graph, const struct lkd_wait_edge *edge)
{
    if (graph->found || !lkd_wait_facts_block(&edge->facts))
        return;
    if (edge->to == graph->goal) {
        graph->goal->reached_by = *edge;
        graph->found = true;
        return;
    }
    if (edge->to->round == graph->round)
        return; /* reached before, on a way that is no longer */
    edge->to->round = graph->round;
    edge->to->reached_by = *edge;
    edge->to->next = NULL;
    graph->last->next = edge->to;
    graph->last = edge->to;
}

/* Breadth first: the queue is the chain of `next` from the goal on. */
static void look(struct lkd_wait_graph *graph, struct lkd_wait_node *goal,
                 const struct lkd_attachment *waiter)
{
    graph->round++;
    graph->goal = goal;
    graph->last = goal;
    graph->found = false;
    goal->round = graph->round;
    goal->next = NULL;
    graph->edges_of(graph, goal, waiter, graph->user);
    for (struct lkd_wait_node *node = goal->next; node && !graph->found && graph->work_left > 0;
         node = node->next)
        graph->edges_of(graph, node, NULL, graph->user);
}

/* Turns the way back that the search left into a way forward, through `next`. Returns how long it
 * is. */
static size_t turn_round(struct lkd_wait_node *goal)
{
    size_t count = 0;
    struct lkd_wait_node *node = goal;
    do {
        struct lkd_wait_node *before = node->reached_by.from;
        before->next = node;
        node = before;
        count++;
    } while (node != goal);
    return count;
}

const struct lkd_wait_edge *lkd_wait_graph_edge(const struct lkd_wait_graph *graph,
                                                const struct lkd_wait_edge *edge)
{
    const struct lkd_wait_node *from = edge ? edge->to : graph->goal;
    if (edge && from == graph->goal)
        return NULL;
    return &from->next->reached_by;
}

static bool is_confirmed(const struct lkd_wait_graph *graph)
{
    const struct lkd_wait_edge *edge = NULL;
    while ((edge = lkd_wait_graph_edge(graph, edge)))
        if (!graph->is_still(edge, graph->user))
            return false;
    return true;
}

size_t lkd_wait_graph_search(struct lkd_wait_graph *graph, struct lkd_wait_node *node,
                             const struct lkd_attachment *waiter, uint64_t work_max)
{
    graph->work_left = work_max;
    for (unsigned looks = 0; looks < LOOKS_MAX && graph->work_left > 0; looks++) {
        look(graph, node, waiter);
        if (!graph->found)
            return 0;
        size_t count = turn_round(node);
        if (is_confirmed(graph))
            return count;
    }
    return 0;
}
