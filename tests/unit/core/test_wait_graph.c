/* SPDX-License-Identifier: MIT */
/* The wait-for graph over facts that the test makes up. */
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "broker/core/wait_graph.h"
#include "engine/layout.h"

#define NODES 64
#define EDGES 512

/* A made-up world: each entry says that one node waits for another. What a second look sees can be
 * changed. */
struct entry {
    unsigned from, to, waiter;
    struct lkd_wait_facts facts;
    unsigned true_looks; /* how many second looks still find it */
};

static struct {
    struct lkd_wait_graph graph;
    struct lkd_wait_node nodes[NODES];
    char waiters[EDGES]; /* addresses stand for attachments */
    struct entry entries[EDGES];
    size_t count;
    unsigned looks;
} made;

static const struct lkd_attachment *waiter_of(unsigned number)
{
    return (const struct lkd_attachment *)(const void *)&made.waiters[number];
}

static void edges_of(struct lkd_wait_graph *graph, struct lkd_wait_node *node,
                     const struct lkd_attachment *waiter, void *user)
{
    cr_assert(eq(ptr, user, &made));
    made.looks++;
    graph->work_left--;
    for (size_t i = 0; i < made.count; i++) {
        const struct entry *entry = &made.entries[i];
        if (&made.nodes[entry->from] != node || (waiter && waiter != waiter_of(entry->waiter)))
            continue;
        struct lkd_wait_edge edge = {
            .from = node,
            .to = &made.nodes[entry->to],
            .waiter = waiter_of(entry->waiter),
            .facts = entry->facts,
        };
        lkd_wait_graph_add(graph, &edge);
    }
}

static bool is_still(const struct lkd_wait_edge *edge, void *user)
{
    (void)user;
    for (size_t i = 0; i < made.count; i++) {
        struct entry *entry = &made.entries[i];
        if (&made.nodes[entry->from] != edge->from || &made.nodes[entry->to] != edge->to)
            continue;
        if (entry->true_looks == 0)
            return false;
        entry->true_looks--;
        return true;
    }
    return false;
}

static void setup(void)
{
    memset(&made, 0, sizeof(made));
    lkd_wait_graph_init(&made.graph, edges_of, is_still, &made);
}

static uint64_t queued(uint32_t lock, uint32_t ticket)
{
    return LKI_WAIT_QUEUED | (uint64_t)2 << LKI_WAIT_MODE_SHIFT |
           (uint64_t)lock << LKI_WAIT_LOCK_SHIFT | ticket;
}

static uint64_t draining(uint32_t lock)
{
    return LKI_WAIT_DRAINING | (uint64_t)lock << LKI_WAIT_LOCK_SHIFT;
}

/* `from` waits, through the attachment `waiter`, for a lock that `to` holds exclusively. */
static struct entry *waits_through(unsigned from, unsigned waiter, unsigned to)
{
    struct entry *entry = &made.entries[made.count++];
    *entry = (struct entry){
        .from = from,
        .to = to,
        .waiter = waiter,
        .facts = {.wait = queued(7, from),
                  .waiter_id = 1000 + waiter,
                  .owner = 2000 + to,
                  .holder_id = 2000 + to},
        .true_looks = 1000,
    };
    return entry;
}

static struct entry *waits(unsigned from, unsigned to)
{
    return waits_through(from, from, to);
}

/* `from` owns a word and waits for `to`, which reads. */
static void drains(unsigned from, unsigned to)
{
    struct entry *entry = waits(from, to);
    entry->facts.wait = draining(7);
    entry->facts.owner = entry->facts.waiter_id;
    entry->facts.holder_reads = true;
}

static size_t search(unsigned from)
{
    return lkd_wait_graph_search(&made.graph, &made.nodes[from], waiter_of(from), 100000);
}

TestSuite(wait_graph, .init = setup, .timeout = 30);

Test(wait_graph, ring_of_any_size_is_found_and_told_in_its_order)
{
    for (unsigned size = 2; size <= 16; size++) {
        setup();
        for (unsigned i = 0; i < size; i++)
            waits(i, (i + 1) % size);
        for (unsigned asker = 0; asker < size; asker++) {
            cr_assert(eq(sz, search(asker), (size_t)size));
            const struct lkd_wait_edge *edge = NULL;
            unsigned at = asker, count = 0;
            while ((edge = lkd_wait_graph_edge(&made.graph, edge))) {
                cr_assert(eq(ptr, edge->from, &made.nodes[at]));
                at = (at + 1) % size;
                cr_assert(eq(ptr, edge->to, &made.nodes[at]));
                count++;
            }
            cr_assert(eq(uint, count, size));
        }
    }
}

Test(wait_graph, ring_with_drains_is_found)
{
    waits(0, 1);
    drains(1, 2);
    drains(1, 5);
    waits(2, 0);
    for (unsigned asker = 0; asker < 3; asker++)
        cr_expect(eq(sz, search(asker), (size_t)3));
}

Test(wait_graph, one_of_many_readers_closes_the_ring)
{
    for (unsigned reader = 1; reader < 40; reader++)
        drains(0, reader);
    waits(31, 0);
    cr_expect(eq(sz, search(0), (size_t)2));
    cr_expect(eq(sz, search(31), (size_t)2));
}

Test(wait_graph, chain_is_no_ring)
{
    for (unsigned i = 0; i < 20; i++)
        waits(i, i + 1);
    for (unsigned asker = 0; asker < 20; asker++)
        cr_expect(eq(sz, search(asker), (size_t)0));
}

Test(wait_graph, diamond_is_no_ring_and_each_node_is_looked_at_once)
{
    drains(0, 1);
    drains(0, 2);
    waits(1, 3);
    waits(2, 3);
    drains(3, 4);
    drains(3, 5);
    waits(4, 6);
    waits(5, 6);
    cr_expect(eq(sz, search(0), (size_t)0));
    cr_expect(eq(uint, made.looks, 7));
}

Test(wait_graph, ring_that_the_asker_only_leads_to_is_not_its_own)
{
    waits(0, 1);
    waits(1, 2);
    waits(2, 1);
    cr_expect(eq(sz, search(0), (size_t)0));
    cr_expect(eq(sz, search(1), (size_t)2));
}

Test(wait_graph, only_the_asking_wait_counts_of_the_asker)
{
    waits_through(0, 0, 1);
    waits_through(0, 9, 2); /* another wait of the same session */
    waits(2, 0);
    cr_expect(eq(sz, search(0), (size_t)0));
    cr_expect(
        eq(sz, lkd_wait_graph_search(&made.graph, &made.nodes[0], waiter_of(9), 1000), (size_t)2));
}

Test(wait_graph, session_that_waits_for_its_own_hold_is_a_ring_of_one)
{
    waits(0, 0);
    cr_assert(eq(sz, search(0), (size_t)1));
    const struct lkd_wait_edge *edge = lkd_wait_graph_edge(&made.graph, NULL);
    cr_assert(ne(ptr, (void *)edge, NULL));
    cr_expect(eq(ptr, (void *)lkd_wait_graph_edge(&made.graph, edge), NULL));
}

Test(wait_graph, shortest_ring_is_told)
{
    waits(1, 2);
    waits(2, 3);
    waits(3, 0);
    drains(0, 1);
    drains(0, 4);
    waits(4, 0);
    cr_expect(eq(sz, search(0), (size_t)2));
}

Test(wait_graph, ring_seen_once_only_is_none)
{
    waits(0, 1);
    waits(1, 0)->true_looks = 0;
    cr_expect(eq(sz, search(0), (size_t)0));
    cr_expect(gt(uint, made.looks, 2), "it looks more than once before it believes that");
}

Test(wait_graph, ring_that_is_confirmed_by_a_later_look_is_found)
{
    waits(0, 1)->true_looks = 2;
    struct entry *fickle = waits(1, 0);
    fickle->true_looks = 1;
    cr_expect(eq(sz, search(0), (size_t)2));
    fickle->true_looks = 0;
    cr_expect(eq(sz, search(0), (size_t)0));
}

Test(wait_graph, search_ends_when_its_work_is_done)
{
    for (unsigned i = 0; i < 40; i++)
        waits(i, (i + 1) % 40);
    cr_expect(
        eq(sz, lkd_wait_graph_search(&made.graph, &made.nodes[0], waiter_of(0), 10), (size_t)0));
    cr_expect(eq(uint, made.looks, 10));
    cr_expect(eq(sz, search(0), (size_t)40));
}

Test(wait_graph, facts_say_who_is_in_the_way)
{
    enum { WAITER = 11, HOLDER = 12, OTHER = 13 };
    static const struct {
        const char *row;
        struct lkd_wait_facts facts;
        bool blocks;
    } rows[] = {
        {"owner", {.owner = HOLDER, .holder_id = HOLDER}, true},
        {"another owner", {.owner = OTHER, .holder_id = HOLDER}, false},
        {"free word", {.owner = 0, .holder_id = HOLDER}, false},
        {"reader before a queue", {.owner = 0, .holder_id = HOLDER, .holder_reads = true}, false},
        {"nobody", {.owner = 0, .holder_id = 0}, false},
        {"just taken by the waiter", {.owner = WAITER, .holder_id = WAITER}, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct lkd_wait_facts facts = rows[i].facts;
        facts.waiter_id = WAITER;
        facts.wait = queued(3, 1);
        cr_expect(eq(int, lkd_wait_facts_block(&facts), rows[i].blocks), "%s", rows[i].row);
    }
}

Test(wait_graph, facts_say_whom_a_drain_waits_for)
{
    enum { WAITER = 11, HOLDER = 12, OTHER = 13 };
    const struct {
        const char *row;
        struct lkd_wait_facts facts;
        bool blocks;
    } rows[] = {
        {"reader", {.owner = WAITER, .holder_id = HOLDER, .holder_reads = true}, true},
        {"no reader", {.owner = WAITER, .holder_id = HOLDER}, false},
        {"word lost", {.owner = OTHER, .holder_id = HOLDER, .holder_reads = true}, false},
        {"own cell", {.owner = WAITER, .holder_id = WAITER, .holder_reads = true}, false},
        {"reader that waits for another lock",
         {.owner = WAITER, .holder_id = HOLDER, .holder_reads = true, .holder_wait = queued(4, 9)},
         true},
        {"a reader's try: its cell is filled for a moment while it waits",
         {.owner = WAITER, .holder_id = HOLDER, .holder_reads = true, .holder_wait = queued(3, 9)},
         false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct lkd_wait_facts facts = rows[i].facts;
        facts.waiter_id = WAITER;
        facts.wait = draining(3);
        cr_expect(eq(int, lkd_wait_facts_block(&facts), rows[i].blocks), "%s", rows[i].row);
    }
    struct lkd_wait_facts none = {.owner = 12, .holder_id = 12, .waiter_id = 11};
    cr_expect(not(lkd_wait_facts_block(&none)), "who waits for nothing is not in an edge");
}

Test(wait_graph, looks_are_alike_only_if_wait_and_hold_are_the_same)
{
    const struct lkd_wait_facts first = {
        .wait = queued(3, 1), .waiter_id = 11, .owner = 12, .holder_id = 12, .sequence = 5};
    struct lkd_wait_facts second = first;
    second.holder_wait = queued(9, 9);
    cr_expect(lkd_wait_facts_alike(&first, &second), "what the holder does is another edge");
    second = first;
    second.wait = queued(3, 2);
    cr_expect(not(lkd_wait_facts_alike(&first, &second)), "another wait for the same lock");
    second = first;
    second.sequence = 7;
    cr_expect(not(lkd_wait_facts_alike(&first, &second)), "another hold of the same owner");
    second = first;
    second.owner = 0;
    cr_expect(not(lkd_wait_facts_alike(&first, &second)), "released");
}

Test(wait_graph, looks_are_alike_only_if_the_same_two_are_in_it)
{
    const struct lkd_wait_facts first = {
        .wait = queued(3, 1), .waiter_id = 11, .owner = 12, .holder_id = 12, .sequence = 5};
    struct lkd_wait_facts second = first;
    second.waiter_id = 13;
    cr_expect(not(lkd_wait_facts_alike(&first, &second)), "another waiter in the same slot");
    second = first;
    second.holder_id = 13;
    cr_expect(not(lkd_wait_facts_alike(&first, &second)), "another holder");

    struct lkd_wait_facts drain = {
        .wait = draining(3), .waiter_id = 11, .owner = 11, .holder_id = 12, .holder_reads = true};
    second = drain;
    cr_expect(lkd_wait_facts_alike(&drain, &second));
    second.holder_id = 13;
    cr_expect(not(lkd_wait_facts_alike(&drain, &second)), "another reader");
    second = drain;
    second.holder_reads = false;
    cr_expect(not(lkd_wait_facts_alike(&drain, &second)), "the reader has left");
    cr_expect(not(lkd_wait_facts_alike(&second, &drain)), "the reader had not come");
}

Test(wait_graph, what_blocks_nobody_is_no_edge)
{
    waits(0, 1);
    waits(1, 0)->facts.owner = 0; /* freed meanwhile */
    cr_expect(eq(sz, search(0), (size_t)0));
}

Test(wait_graph, search_does_not_begin_anew_when_its_work_is_done)
{
    waits(0, 1);
    waits(1, 0)->true_looks = 0;
    cr_expect(
        eq(sz, lkd_wait_graph_search(&made.graph, &made.nodes[0], waiter_of(0), 2), (size_t)0));
    cr_expect(eq(uint, made.looks, 2), "one round, not confirmed");
}
