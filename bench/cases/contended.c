/* SPDX-License-Identifier: MIT */
/* Processes that all want the same lock exclusively, all the time. */
#include "bench/cases/cell.h"
#include "common/clock.h"

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
#define GOALS_CROWD_MAX 8u /* a machine with 2 processors says little about 32 */

/* Of lockkeeper alone, over a time that is long beside the kernel's ticks. */
struct shares {
    struct bench_group *least, *most;
};

#define SHARES_NS (2 * LKI_NS_PER_S)
#define SHARE_ROUNDS 7u

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

static void set_goals(struct bench_group *groups[FIGURES])
{
    int ours = bench_series_find(groups[PAIRS], "lockkeeper");
    int robust = bench_series_find(groups[PAIRS], "robust");
    bench_series_compare(groups[PAIRS], ours, robust, 1.0, 0);
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
    if (crowd <= GOALS_CROWD_MAX)
        set_goals(groups);
}

static uint64_t shares_ns(const struct bench *bench)
{
    return bench->quick || bench->cell_ns > SHARES_NS ? bench->cell_ns : SHARES_NS;
}

static struct bench_group *add_share(const struct bench *bench, struct bench_report *report,
                                     unsigned crowd, enum bench_better better, const char *which,
                                     double goal)
{
    struct bench_group *group =
        bench_group_add(report, "1", better, bench_rounds(bench, SHARE_ROUNDS),
                        "contended: %s share of a fair one, in %g s", which,
                        (double)shares_ns(bench) / (double)LKI_NS_PER_S);
    bench_group_join(group, "processes", crowd);
    group->series[bench_series_add(group, bench_peer_lockkeeper.name)].bound = goal;
    return group;
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

static void measure_shares(struct bench *bench, const struct shares *shares, unsigned crowd)
{
    static struct cell_result result; /* large */
    uint64_t cell_ns = bench->cell_ns;
    bench->cell_ns = shares_ns(bench);
    cell_run(bench, &bench_peer_lockkeeper, crowd, 1, &result);
    bench->cell_ns = cell_ns;
    bench_sample(shares->least, 0, result.least_share);
    bench_sample(shares->most, 0, result.most_share);
}

static void judge_shares(struct bench *bench, struct bench_report *report)
{
    struct shares shares[CROWDS];
    unsigned rounds = bench_rounds(bench, SHARE_ROUNDS);
    unsigned count = 0;
    for (; count < CROWDS && crowds[count] <= GOALS_CROWD_MAX; count++) {
        shares[count].least = add_share(bench, report, crowds[count], BENCH_MORE, "smallest", 0.85);
        shares[count].most = add_share(bench, report, crowds[count], BENCH_LESS, "largest", 1.15);
    }
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < count; i++) {
            bench_progress(bench, round * count + i, rounds * count, "shares");
            measure_shares(bench, &shares[i], crowds[i]);
        }
}

/* --- Worst waits, and strict order: judged beside those alone that are compared, since the worst of half a
 * second is twice or half as long the next time, and three of them say little --- */

#define STRICT_PROCESSES 8u

struct duel {
    unsigned processes;
    const struct bench_peer *peers[3];
    size_t count;
    struct bench_group *worst, *handoffs; /* NULL: not judged */
};

static struct bench_group *add_duel(struct bench_report *report, const struct duel *duel,
                                    unsigned figure, unsigned rounds, const char *name)
{
    struct bench_group *group =
        bench_group_add(report, figures[figure].unit, figures[figure].better, rounds, "%s", name);
    for (size_t i = 0; i < duel->count; i++)
        bench_series_add(group, duel->peers[i]->name);
    return group;
}

/* The second one of `duel` is what the first is compared with. */
static void run_duel(struct bench *bench, const struct duel *duel)
{
    static struct cell_result result; /* large */
    for (size_t i = 0; i < duel->count; i++) {
        cell_run(bench, duel->peers[i], duel->processes, duel->peers[i] != &no_lock, &result);
        bench_sample(duel->worst, (int)i, result.worst_wait_ns);
        if (duel->handoffs)
            bench_sample(duel->handoffs, (int)i, result.handoffs_per_s);
    }
}

static void judge_worst(struct bench *bench, struct bench_report *report)
{
    struct duel duels[CROWDS];
    size_t count = 0;
    unsigned rounds = bench_rounds(bench, 11);
    for (; count < CROWDS && crowds[count] <= GOALS_CROWD_MAX; count++) {
        struct duel *duel = &duels[count];
        *duel = (struct duel){.processes = crowds[count],
                              .peers = {&bench_peer_lockkeeper, &bench_peer_robust, &no_lock},
                              .count = 3};
        duel->worst = add_duel(report, duel, WORST, rounds, "contended: worst wait, more rounds");
        bench_group_join(duel->worst, "processes", duel->processes);
        bench_series_compare(duel->worst, 0, 1, 0.5, 0);
        bench_series_compare(duel->worst, 0, 2, 0, 0);
    }
    for (unsigned round = 0; round < rounds; round++)
        for (size_t i = 0; i < count; i++) {
            bench_progress(bench, round * (unsigned)count + (unsigned)i, rounds * (unsigned)count,
                           "worst waits");
            run_duel(bench, &duels[i]);
        }
}

static void judge_strict_order(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 15);
    struct duel duel = {.processes = STRICT_PROCESSES,
                        .peers = {&bench_peer_lockkeeper_fifo, &bench_peer_sysv_sem},
                        .count = 2};
    duel.handoffs =
        add_duel(report, &duel, HANDOFFS, rounds, "strict order, 8 processes: hand-offs");
    duel.worst = add_duel(report, &duel, WORST, rounds, "strict order, 8 processes: worst wait");
    bench_series_compare(duel.handoffs, 0, 1, 1.0, 0);
    bench_series_compare(duel.worst, 0, 1, 1.0, 0);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, "strict order");
        run_duel(bench, &duel);
    }
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
    judge_shares(bench, report);
    if (bench_takes_part(bench, &bench_peer_robust))
        judge_worst(bench, report);
    if (bench_takes_part(bench, &bench_peer_sysv_sem))
        judge_strict_order(bench, report);
}
