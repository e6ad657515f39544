/* SPDX-License-Identifier: MIT */
#include "client/cli/wait_graph.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define ENTRIES 64

static struct lki_listing_entry entries[ENTRIES];
static struct lki_listing listing;
static struct lki_graph graph;

static void setup(void)
{
    listing = (struct lki_listing){.entries = entries};
}

static void teardown(void)
{
    lki_graph_deinit(&graph);
}

/* In the order of a listing: per lock the holders, then the queue. */
static void add(uint32_t lock, uint64_t session, enum lki_entry_state state, uint32_t mode)
{
    static char name[] = "x";
    cr_assert(lt(sz, listing.count, ENTRIES));
    entries[listing.count] = (struct lki_listing_entry){
        .is = {.lock = lock, .session = session, .state = state, .mode = mode, .pid = 1},
        .name = name,
        .place = listing.count,
    };
    listing.count++;
}

static void build(const struct lki_graph *before)
{
    lki_graph_deinit(&graph);
    cr_assert(eq(int, lki_graph_build(&listing, before, &graph), 0));
}

static size_t in_rings(void)
{
    size_t count = 0;
    for (size_t i = 0; i < graph.edge_count; i++)
        count += graph.edges[i].in_ring;
    return count;
}

TestSuite(cli_wait_graph, .init = setup, .fini = teardown, .timeout = 20);

Test(cli_wait_graph, nothing_gives_nothing)
{
    build(NULL);
    cr_expect(eq(sz, graph.node_count + graph.edge_count, 0));
    cr_expect(not(graph.has_ring));
}

Test(cli_wait_graph, waiters_are_tied_to_the_owner_and_to_the_one_before)
{
    add(0, 10, LKI_ENTRY_HELD, 2);
    add(0, 11, LKI_ENTRY_WAITING, 2);
    add(0, 12, LKI_ENTRY_WAITING, 1);
    build(NULL);
    cr_expect(eq(sz, graph.node_count, 3));
    cr_assert(eq(sz, graph.edge_count, 3));
    cr_expect(eq(int, graph.edges[0].kind, LKI_GRAPH_WAITS));
    cr_expect(eq(int, graph.edges[2].kind, LKI_GRAPH_QUEUED));
    cr_expect(eq(u64, graph.nodes[graph.edges[2].to].session, 11));
    cr_expect(not(graph.has_ring));
}

Test(cli_wait_graph, drainer_is_tied_to_each_reader_and_queued_to_the_drainer)
{
    add(0, 10, LKI_ENTRY_DRAINING, 2);
    add(0, 11, LKI_ENTRY_HELD, 1);
    add(0, 12, LKI_ENTRY_HELD, 1);
    add(0, 13, LKI_ENTRY_WAITING, 1);
    build(NULL);
    cr_assert(eq(sz, graph.edge_count, 3));
    cr_expect(eq(int, graph.edges[0].kind, LKI_GRAPH_DRAINS));
    cr_expect(eq(int, graph.edges[1].kind, LKI_GRAPH_DRAINS));
    cr_expect(eq(u64, graph.nodes[graph.edges[2].to].session, 10));
}

Test(cli_wait_graph, ring_is_found_and_what_leads_to_it_is_not_in_it)
{
    for (uint32_t i = 0; i < 5; i++) {
        add(i, 10 + i, LKI_ENTRY_HELD, 2);
        add(i, 10 + (i + 1) % 5, LKI_ENTRY_WAITING, 2);
    }
    add(9, 10, LKI_ENTRY_HELD, 2);
    add(9, 99, LKI_ENTRY_WAITING, 2);
    build(NULL);
    cr_expect(graph.has_ring);
    cr_expect(eq(sz, in_rings(), 5));
    cr_expect(not(graph.nodes[graph.node_count - 1].in_ring));
}

Test(cli_wait_graph, chain_diamond_and_queue_are_no_ring)
{
    add(0, 10, LKI_ENTRY_HELD, 2);
    add(0, 11, LKI_ENTRY_WAITING, 2);
    add(0, 12, LKI_ENTRY_WAITING, 2); /* behind 11 */
    add(1, 12, LKI_ENTRY_HELD, 2);
    add(1, 13, LKI_ENTRY_WAITING, 2);
    add(2, 11, LKI_ENTRY_HELD, 2);
    add(2, 13, LKI_ENTRY_WAITING, 2);
    add(3, 12, LKI_ENTRY_HELD, 2);
    add(3, 11, LKI_ENTRY_DAMAGED, 2);
    build(NULL);
    cr_expect(not(graph.has_ring));
    cr_expect(eq(sz, in_rings(), 0));
}

Test(cli_wait_graph, ring_that_was_not_there_before_is_none)
{
    struct lki_graph before = {0};
    add(0, 10, LKI_ENTRY_HELD, 2);
    add(0, 11, LKI_ENTRY_WAITING, 2);
    add(1, 11, LKI_ENTRY_HELD, 2);
    add(1, 10, LKI_ENTRY_WAITING, 2);
    cr_assert(eq(int, lki_graph_build(&listing, NULL, &before), 0));
    cr_expect(before.has_ring);
    build(&before);
    cr_expect(graph.has_ring);

    /* The same sessions, but one of them holds another lock by now. */
    struct lki_listing_entry later[4] = {entries[0], entries[1], entries[2], entries[3]};
    later[2].is.lock = later[3].is.lock = 2;
    const struct lki_listing second = {.entries = later, .count = 4};
    lki_graph_deinit(&graph);
    cr_assert(eq(int, lki_graph_build(&second, &before, &graph), 0));
    cr_expect(eq(sz, graph.edge_count, 2));
    cr_expect(not(graph.has_ring));
    lki_graph_deinit(&before);
}
