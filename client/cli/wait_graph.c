/* SPDX-License-Identifier: MIT */
#include "client/cli/wait_graph.h"

#include <errno.h>
#include <stdlib.h>

#include <lockkeeper/lockkeeper.h>

#include "common/cleanup.h"

#define NO_COMPONENT SIZE_MAX

/* --- Edges --- */

static bool is_reader(const struct lki_listing_entry *entry)
{
    return entry->is.state == LKI_ENTRY_HELD && entry->is.mode == LK_SHARED;
}

/* Whether the one that waits is only on its way in: an owner for update keeps no reader out. */
static bool lets_in(const struct lki_listing_entry *owner, const struct lki_listing_entry *waiter)
{
    return owner->is.state == LKI_ENTRY_HELD && owner->is.mode == LK_UPDATE &&
           waiter->is.mode == LK_SHARED;
}

/* From and to are sessions until number_nodes(). */
static int add_edge(struct lki_graph *graph, enum lki_graph_kind kind,
                    const struct lki_listing_entry *from, const struct lki_listing_entry *to)
{
    if (from->is.session == 0 || to->is.session == 0 || from->is.session == to->is.session)
        return 0;
    if ((graph->edge_count & (graph->edge_count - 1)) == 0) {
        size_t room = graph->edge_count ? 2 * graph->edge_count : 1;
        struct lki_graph_edge *edges = reallocarray(graph->edges, room, sizeof(*edges));
        if (!edges)
            return -ENOMEM;
        graph->edges = edges;
    }
    graph->edges[graph->edge_count++] = (struct lki_graph_edge){
        .from = from->is.session, .to = to->is.session, .kind = kind, .entry = from};
    return 0;
}

static int add_lock(struct lki_graph *graph, const struct lki_listing_lock *lock)
{
    const struct lki_listing_entry *owner = NULL;
    int r = 0;

    for (size_t i = 0; i < lock->holders && !owner; i++)
        if (!is_reader(&lock->first[i]))
            owner = &lock->first[i];
    for (size_t i = 0; r == 0 && owner && i < lock->holders; i++)
        if (owner->is.state == LKI_ENTRY_DRAINING && is_reader(&lock->first[i]))
            r = add_edge(graph, LKI_GRAPH_DRAINS, owner, &lock->first[i]);
    for (size_t i = lock->holders; r == 0 && i < lock->count; i++) {
        if (owner && !lets_in(owner, &lock->first[i]))
            r = add_edge(graph, LKI_GRAPH_WAITS, &lock->first[i], owner);
        if (r == 0 && i > lock->holders)
            r = add_edge(graph, LKI_GRAPH_QUEUED, &lock->first[i], &lock->first[i - 1]);
    }
    return r;
}

/* --- Nodes --- */

static int compare_nodes(const void *left, const void *right)
{
    const struct lki_graph_node *a = left, *b = right;
    return a->session < b->session ? -1 : a->session > b->session;
}

static int compare_edges(const void *left, const void *right)
{
    const struct lki_graph_edge *a = left, *b = right;
    if (a->from != b->from)
        return a->from < b->from ? -1 : 1;
    return a->entry->place < b->entry->place ? -1 : a->entry->place > b->entry->place;
}

static struct lki_graph_node *find_node(const struct lki_graph *graph, uint64_t session)
{
    struct lki_graph_node key = {.session = session};
    return graph->node_count
               ? bsearch(&key, graph->nodes, graph->node_count, sizeof(key), compare_nodes)
               : NULL;
}

/* The nodes are the ends of the edges, which then have their indexes. */
static int number_nodes(struct lki_graph *graph, const struct lki_listing *listing)
{
    if (graph->edge_count == 0)
        return 0;
    graph->nodes = calloc(2 * graph->edge_count, sizeof(*graph->nodes));
    if (!graph->nodes)
        return -ENOMEM;
    for (size_t i = 0; i < graph->edge_count; i++) {
        graph->nodes[2 * i].session = graph->edges[i].from;
        graph->nodes[2 * i + 1].session = graph->edges[i].to;
    }
    qsort(graph->nodes, 2 * graph->edge_count, sizeof(*graph->nodes), compare_nodes);
    for (size_t i = 0; i < 2 * graph->edge_count; i++)
        if (i == 0 || graph->nodes[i].session != graph->nodes[graph->node_count - 1].session)
            graph->nodes[graph->node_count++] = graph->nodes[i];
    for (size_t i = 0; i < listing->count; i++) {
        struct lki_graph_node *node = find_node(graph, listing->entries[i].is.session);
        if (node && listing->entries[i].is.pid != 0)
            node->entry = &listing->entries[i];
    }
    for (size_t i = 0; i < graph->edge_count; i++) {
        graph->edges[i].from = (size_t)(find_node(graph, graph->edges[i].from) - graph->nodes);
        graph->edges[i].to = (size_t)(find_node(graph, graph->edges[i].to) - graph->nodes);
    }
    qsort(graph->edges, graph->edge_count, sizeof(*graph->edges), compare_edges);
    return 0;
}

/* --- Rings: components of more than one node, after Tarjan, without recursion --- */

struct visit {
    size_t order; /* 0: not yet */
    size_t lowest;
    size_t next_edge;
    size_t parent;
};

struct walk {
    struct lki_graph *graph;
    struct visit *visits; /* by node */
    size_t *stack;        /* nodes whose component is not known */
    size_t depth;
    size_t order;
    size_t components;
};

static void enter(struct walk *walk, size_t node, size_t parent)
{
    struct visit *visit = &walk->visits[node];
    visit->order = visit->lowest = ++walk->order;
    visit->parent = parent;
    walk->stack[walk->depth++] = node;
}

/* All that is above the node on the stack reaches it, and it reaches them. */
static void close_component(struct walk *walk, size_t node)
{
    size_t member;
    do {
        member = walk->stack[--walk->depth];
        walk->graph->nodes[member].component = walk->components;
    } while (member != node);
    walk->components++;
}

static bool counts(const struct lki_graph_edge *edge)
{
    return edge->kind != LKI_GRAPH_QUEUED && edge->in_ring; /* in_ring: may be, so far */
}

static void walk_from(struct walk *walk, size_t start)
{
    const struct lki_graph *graph = walk->graph;
    size_t node = start;
    enter(walk, start, NO_COMPONENT);
    while (node != NO_COMPONENT) {
        struct visit *visit = &walk->visits[node];
        if (visit->next_edge < graph->edge_count && graph->edges[visit->next_edge].from == node) {
            const struct lki_graph_edge *edge = &graph->edges[visit->next_edge++];
            const struct visit *target = &walk->visits[edge->to];
            if (!counts(edge))
                continue;
            if (target->order == 0) {
                enter(walk, edge->to, node);
                node = edge->to;
            } else if (graph->nodes[edge->to].component == NO_COMPONENT &&
                       target->order < visit->lowest) {
                visit->lowest = target->order;
            }
            continue;
        }
        if (visit->lowest == visit->order)
            close_component(walk, node);
        size_t parent = visit->parent;
        if (parent != NO_COMPONENT && visit->lowest < walk->visits[parent].lowest)
            walk->visits[parent].lowest = visit->lowest;
        node = parent;
    }
}

static int find_rings(struct lki_graph *graph)
{
    LKI_CLEANUP(lki_free_p) struct visit *visits = calloc(graph->node_count + 1, sizeof(*visits));
    LKI_CLEANUP(lki_free_p) size_t *stack = calloc(graph->node_count + 1, sizeof(*stack));
    if (!visits || !stack)
        return -ENOMEM;
    struct walk walk = {.graph = graph, .visits = visits, .stack = stack};
    for (size_t i = 0; i < graph->node_count; i++)
        graph->nodes[i].component = NO_COMPONENT;
    for (size_t i = graph->edge_count; i-- > 0;)
        visits[graph->edges[i].from].next_edge = i;
    for (size_t i = 0; i < graph->node_count; i++)
        if (visits[i].order == 0)
            walk_from(&walk, i);
    for (size_t i = 0; i < graph->edge_count; i++) {
        struct lki_graph_edge *edge = &graph->edges[i];
        edge->in_ring =
            counts(edge) && graph->nodes[edge->from].component == graph->nodes[edge->to].component;
        if (!edge->in_ring)
            continue;
        graph->has_ring = true;
        graph->nodes[edge->from].in_ring = graph->nodes[edge->to].in_ring = true;
    }
    return 0;
}

/* --- All together --- */

static bool has_edge(const struct lki_graph *graph, const struct lki_graph *of,
                     const struct lki_graph_edge *wanted)
{
    for (size_t i = 0; i < graph->edge_count; i++) {
        const struct lki_graph_edge *edge = &graph->edges[i];
        if (edge->in_ring && edge->kind == wanted->kind &&
            edge->entry->is.segment == wanted->entry->is.segment &&
            edge->entry->is.lock == wanted->entry->is.lock &&
            graph->nodes[edge->from].session == of->nodes[wanted->from].session &&
            graph->nodes[edge->to].session == of->nodes[wanted->to].session)
            return true;
    }
    return false;
}

int lki_graph_build(const struct lki_listing *listing, const struct lki_graph *before,
                    struct lki_graph *out_graph)
{
    struct lki_graph graph = {0};
    size_t position = 0;
    struct lki_listing_lock lock;
    int r = 0;

    while (r == 0 && (lock = lki_listing_next_lock(listing, &position)).count > 0)
        r = add_lock(&graph, &lock);
    if (r == 0)
        r = number_nodes(&graph, listing);
    for (size_t i = 0; r == 0 && i < graph.edge_count; i++)
        graph.edges[i].in_ring = !before || has_edge(before, &graph, &graph.edges[i]);
    if (r == 0)
        r = find_rings(&graph);
    if (r < 0) {
        lki_graph_deinit(&graph);
        return r;
    }
    *out_graph = graph;
    return 0;
}

void lki_graph_deinit(struct lki_graph *graph)
{
    free(graph->nodes);
    free(graph->edges);
    *graph = (struct lki_graph){0};
}
