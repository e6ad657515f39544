/* SPDX-License-Identifier: MIT */
/* Processes that all want the same lock exclusively, all the time. */
#include "bench/cases/cell.h"

enum { PAIRS, HANDOFFS, LEAST, MOST, WORST, FIGURES };

static const struct {
    const char *name;
    const char *unit;
    enum bench_better better;
} figures[FIGURES] = {
    [PAIRS] = {"contended: pairs", "1/s", BENCH_MORE},
    [HANDOFFS] = {"contended: hand-offs", "1/s", BENCH_MORE},
    [LEAST] = {"contended: smallest share of a fair one", "1", BENCH_MORE},
    [MOST] = {"contended: largest share of a fair one", "1", BENCH_LESS},
    [WORST] = {"contended: worst wait", "ns", BENCH_LESS},
};

static const unsigned crowds[] = {2, 4, 8, 32};
#define CROWDS ((unsigned)(sizeof(crowds) / sizeof(*crowds)))

/* The floor of a worst wait: the same processes, none of which waits for another. */
static void *join_nothing(const struct bench *bench)
{
    return bench->arena;
}

static int do_nothing(void *handle, enum bench_mode mode)
{
    (void)handle;
    (void)mode;
    return 0;
}

static const struct bench_peer no_lock = {
    .name = "no lock", .join = join_nothing, .take = do_nothing, .drop = do_nothing};

static bool takes_part(const struct bench_peer *peer)
{
    return peer->take != NULL;
}

/* For K up to 8; a machine with 2 processors says little about 32. */
static void set_goals(struct bench_group *groups[FIGURES])
{
    int ours = bench_series_find(groups[PAIRS], "lockkeeper");
    int fifo = bench_series_find(groups[PAIRS], "lockkeeper-fifo");
    int robust = bench_series_find(groups[PAIRS], "robust");
    int sysv = bench_series_find(groups[PAIRS], "sysv-sem");
    bench_series_compare(groups[PAIRS], ours, robust, 1.0, 0);
    bench_series_compare(groups[WORST], ours, robust, 0.5, 0);
    bench_series_compare(groups[WORST], ours, bench_series_find(groups[WORST], no_lock.name), 0, 0);
    groups[LEAST]->series[ours].bound = 0.85;
    groups[MOST]->series[ours].bound = 1.15;
    if (groups[PAIRS]->x == 8) {
        bench_series_compare(groups[HANDOFFS], fifo, sysv, 1.0, 0);
        bench_series_compare(groups[WORST], fifo, sysv, 1.0, 0);
    }
}

static void add_crowd(const struct bench *bench, struct bench_report *report, unsigned crowd,
                      struct bench_group *groups[FIGURES])
{
    unsigned rounds = bench_rounds(bench, 3);
    for (unsigned figure = 0; figure < FIGURES; figure++) {
        groups[figure] = bench_group_add(report, figures[figure].unit, figures[figure].better,
                                         rounds, "%s", figures[figure].name);
        bench_group_join(groups[figure], "processes", crowd);
        for (size_t i = 0; i < bench->peer_count; i++)
            if (takes_part(bench->peers[i]))
                bench_series_add(groups[figure], bench->peers[i]->name);
    }
    bench_series_add(groups[WORST], no_lock.name);
    groups[WORST]->curve_name = "contended: waits";
    if (crowd <= 8)
        set_goals(groups);
}

static void measure_one(struct bench *bench, const struct bench_peer *peer,
                        struct bench_group *const groups[FIGURES], unsigned crowd)
{
    static struct cell_result result; /* large */
    int series = bench_series_find(groups[PAIRS], peer->name);
    cell_run(bench, peer, crowd, 1, &result);
    bench_sample(groups[PAIRS], series, result.pairs_per_s);
    bench_sample(groups[HANDOFFS], series, result.handoffs_per_s);
    bench_sample(groups[LEAST], series, result.least_share);
    bench_sample(groups[MOST], series, result.most_share);
    bench_sample(groups[WORST], series, result.worst_wait_ns);
    bench_series_curve(groups[WORST], series, &result.waits);
}

static void measure_floor(struct bench *bench, struct bench_group *worst, unsigned crowd)
{
    static struct cell_result result; /* large */
    cell_run(bench, &no_lock, crowd, 0, &result);
    bench_sample(worst, bench_series_find(worst, no_lock.name), result.worst_wait_ns);
}

void bench_contended(struct bench *bench, struct bench_report *report)
{
    struct bench_group *groups[CROWDS][FIGURES];
    unsigned rounds = bench_rounds(bench, 3);
    unsigned done = 0;
    unsigned total = rounds * CROWDS * (unsigned)bench->peer_count;

    for (size_t c = 0; c < CROWDS; c++)
        add_crowd(bench, report, crowds[c], groups[c]);
    for (unsigned round = 0; round < rounds; round++)
        for (size_t c = 0; c < CROWDS; c++) {
            for (size_t i = 0; i < bench->peer_count; i++) {
                const struct bench_peer *peer = bench->peers[i];
                bench_progress(bench, done++, total, peer->name);
                if (takes_part(peer))
                    measure_one(bench, peer, groups[c], crowds[c]);
            }
            measure_floor(bench, groups[c][WORST], crowds[c]);
        }
}
