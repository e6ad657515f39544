/* SPDX-License-Identifier: MIT */
/* Processes that read under a shared lock, and now and then write under an exclusive one. */
#include "bench/cases/cell.h"

static const unsigned crowds[] = {1, 2, 4, 8};
static const struct {
    const char *share;
    unsigned write_every;
} mixes[] = {{"no writes", 0}, {"0.1 % writes", 1000}, {"1 % writes", 100}, {"10 % writes", 10}};
#define CROWDS ((unsigned)(sizeof(crowds) / sizeof(*crowds)))
#define MIXES ((unsigned)(sizeof(mixes) / sizeof(*mixes)))

/* A quarter as long as under contention: there are many, and nobody has to wait for a turn. */
#define PART 4u

/* Strict order and the broker say nothing new here, and a mutex has no readers. */
static bool takes_part(const struct bench_peer *peer)
{
    return peer->take && peer->shares && peer != &bench_peer_lockkeeper_fifo &&
           !(peer->ours && peer->remote);
}

void bench_readers(struct bench *bench, struct bench_report *report)
{
    static struct cell_result result; /* large */
    struct bench_group *groups[MIXES][CROWDS];
    unsigned rounds = bench_rounds(bench, 3);
    unsigned done = 0;
    unsigned total = rounds * MIXES * CROWDS;
    uint64_t cell_ns = bench->cell_ns;

    for (size_t m = 0; m < MIXES; m++)
        for (size_t c = 0; c < CROWDS; c++) {
            struct bench_group *group = bench_group_add(report, "1/s", BENCH_MORE, rounds,
                                                        "readers, %s: pairs", mixes[m].share);
            bench_group_join(group, "processes", crowds[c]);
            groups[m][c] = group;
            for (size_t i = 0; i < bench->peer_count; i++)
                if (takes_part(bench->peers[i]))
                    bench_series_add(group, bench->peers[i]->name);
            bench_series_compare(group, bench_series_find(group, "lockkeeper"),
                                 bench_series_find(group, "rwlock"), 0, 0);
        }
    bench->cell_ns = cell_ns / PART;
    for (unsigned round = 0; round < rounds; round++)
        for (size_t m = 0; m < MIXES; m++)
            for (size_t c = 0; c < CROWDS; c++) {
                struct bench_group *group = groups[m][c];
                bench_progress(bench, done++, total, group->name);
                for (size_t i = 0; i < bench->peer_count; i++) {
                    if (!takes_part(bench->peers[i]))
                        continue;
                    cell_run(bench, bench->peers[i], crowds[c], mixes[m].write_every, &result);
                    bench_sample(group, bench_series_find(group, bench->peers[i]->name),
                                 result.pairs_per_s);
                }
            }
    bench->cell_ns = cell_ns;
}
