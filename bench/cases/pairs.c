/* SPDX-License-Identifier: MIT */
/* Lock and unlock without contention, against everything else that locks on this machine without
 * asking another process: those are in brokered.c. */
#include <stdio.h>

#include "bench/bench.h"
#include "common/clock.h"

#define SERIES_MAX                                                                                 \
    (2 * BENCH_PEERS_MAX + 5) /* of lockkeeper two modes more, the inline pairs, and empty calls */
#define SAMPLE_NS (4 * LKI_NS_PER_MS)

struct kind {
    const struct bench_peer *peer;
    enum bench_mode mode;
    void *handle;
    unsigned count; /* of pairs in a sample */
    int series;
    char name[48];
    void *arena;
};

/* Series names are borrowed by the report, which outlives this case. */
static struct kind kinds[SERIES_MAX];

static uint64_t run_ns(const struct kind *kind)
{
    uint64_t start_ns = lki_clock_now_ns();
    if (kind->peer->pairs(kind->handle, kind->mode, kind->count) != 0)
        bench_fail("%s: a pair failed: %s", kind->name, kind->peer->ours ? lk_last_error() : "");
    return lki_clock_now_ns() - start_ns;
}

/* So many pairs that a sample takes long enough for the clock, and not longer. */
static void calibrate(struct kind *kind, uint64_t sample_ns)
{
    uint64_t took_ns;
    for (kind->count = 8; (took_ns = run_ns(kind)) < sample_ns / 4; kind->count *= 4)
        ;
    double count = (double)kind->count * (double)sample_ns / (double)(took_ns ? took_ns : 1);
    kind->count = count < 8 ? 8 : (unsigned)count;
}

/* Each has an arena of its own, since all are there at the same time. */
static void add_kind(struct bench *bench, struct bench_group *group, size_t *count,
                     const struct bench_peer *peer, enum bench_mode mode)
{
    struct kind *kind = &kinds[(*count)++];
    *kind = (struct kind){.peer = peer, .mode = mode};
    bench->arena = bench_share(BENCH_ARENA_BYTES);
    kind->arena = bench->arena;
    bench_peer_make(bench, peer);
    kind->handle = peer->join(bench);
    snprintf(kind->name, sizeof(kind->name), "%s%s", peer->name,
             mode == BENCH_SHARED    ? ", shared"
             : mode == BENCH_UPDATE  ? ", update"
             : mode == BENCH_UPGRADE ? ", update and upgrade"
                                     : "");
    kind->series = bench_series_add(group, kind->name);
}

static void remove_kind(struct bench *bench, struct kind *kind)
{
    bench->arena = kind->arena;
    if (kind->peer->leave)
        kind->peer->leave(kind->handle);
    bench_peer_unmake(bench, kind->peer);
    bench_unshare(kind->arena, BENCH_ARENA_BYTES);
}

/* Goals are for reading on a quiet machine; beyond a limit something is broken. */
static void set_goals(struct bench_group *group)
{
    int floor = bench_series_find(group, "cas+cas");
    int robust = bench_series_find(group, "robust");
    int exclusive = bench_series_find(group, "lockkeeper");
    int shared = bench_series_find(group, "lockkeeper, shared");
    int rwlock = bench_series_find(group, "rwlock, shared");
    int inlined = bench_series_find(group, "lockkeeper, inline");
    int shared_inlined = bench_series_find(group, "lockkeeper, inline, shared");
    bench_series_compare(group, exclusive, robust, 0.75, 1.3);
    bench_series_compare(group, exclusive, floor, 1.4, 0);
    bench_series_compare(group, shared, robust, 0, 1.3);
    bench_series_compare(group, shared, rwlock, 0.3, 0);
    bench_series_compare(group, shared, bench_series_find(group, bench_peer_empty_calls.name), 0,
                         0);
    bench_series_compare(group, inlined, floor, 1.25, 0);
    bench_series_compare(group, shared_inlined, rwlock, 0.1, 0);
    group->series[shared].bound = 5;
    group->series[shared_inlined].bound = 1.5;
    for (size_t i = 0; i < group->series_count; i++)
        if ((int)i != exclusive && (int)i != shared && (int)i != floor && (int)i != inlined &&
            (int)i != shared_inlined)
            bench_series_compare(group, (int)i, floor, 0, 0);
}

void bench_pairs(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 51);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "uncontended pair");
    uint64_t sample_ns = bench->cell_ns < SAMPLE_NS ? bench->cell_ns : SAMPLE_NS;
    void *arena = bench->arena;
    size_t count = 0;

    for (size_t i = 0; i < bench->peer_count; i++) {
        const struct bench_peer *peer = bench->peers[i];
        if (peer->remote || peer == &bench_peer_lockkeeper_fifo)
            continue; /* strict order costs nothing while nobody waits */
        add_kind(bench, group, &count, peer, BENCH_EXCLUSIVE);
        if (peer->shares)
            add_kind(bench, group, &count, peer, BENCH_SHARED);
    }
    add_kind(bench, group, &count, &bench_peer_lockkeeper, BENCH_UPDATE);
    add_kind(bench, group, &count, &bench_peer_lockkeeper, BENCH_UPGRADE);
    add_kind(bench, group, &count, &bench_peer_lockkeeper_inline, BENCH_EXCLUSIVE);
    add_kind(bench, group, &count, &bench_peer_lockkeeper_inline, BENCH_SHARED);
    add_kind(bench, group, &count, &bench_peer_empty_calls, BENCH_EXCLUSIVE);
    set_goals(group);
    for (size_t i = 0; i < count; i++)
        calibrate(&kinds[i], sample_ns); /* and warms up */
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        for (size_t turn = 0; turn < count; turn++) {
            struct kind *kind = &kinds[(turn + round) % count]; /* nobody always follows the same */
            bench_sample(group, kind->series, (double)run_ns(kind) / kind->count);
        }
    }
    for (size_t i = 0; i < count; i++)
        remove_kind(bench, &kinds[i]);
    bench->arena = arena;
}
