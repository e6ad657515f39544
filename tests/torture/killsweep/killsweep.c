/* SPDX-License-Identifier: MIT */
/* killsweep [--all | --share N] [--seconds N] [--seed N] [--scenario N] [--step-every N] [--break NAME]
 *
 * Kills a client at every instruction of its calls, beside others that hold, read and wait, repairs
 * what it leaves with the broker's own repair, and looks whether everybody gets the lock once, is told
 * exactly what has to be told, and nobody sleeps for ever.
 *
 * --all        every point of every path; else one in --share (8), chosen by the seed
 * --seconds    after the points, again with other seeds, until so much time has passed
 * --scenario   only this one, from 1
 * --step-every every so many points one is reached by single steps as well (512; 0: none)
 * --break      plants a mistake, to see it found: wake, died, told, alive, slot, token, cell, bias,
 *              barrier
 *
 * Where it is about read bias, the victim is also stopped at each point and goes on once others have come
 * and done what they could.
 *
 * Points are the instructions of the library and the engine. Those of the C library and the vDSO are
 * run through: they touch no shared memory, but by system calls, and there is a point before and
 * behind each of these. Of an instruction that a loop comes to more than 8 times, every 16th of the
 * later turns is a point, and each that is a power of two. Exit 0: no violation. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "sweep.h"

#define TURNS_ALL 8u
#define TURNS_EVERY 16u
#define PATH_LONG 200u
#define SLEEP_KILLS 8u
#define VIOLATIONS_MAX 10u

static struct {
    struct sweep sweep;
    uint64_t seed;
    uint64_t seconds;
    uint64_t share;
    uint64_t only;
    uint64_t step_every;
    uint64_t points;  /* of all paths */
    uint64_t steps;   /* of all paths, with those that make no points */
    uint64_t skipped; /* later turns of loops */
    uint64_t kills;
} run = {.seed = 1, .share = 8, .step_every = 512};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    struct test_random random = {.state = a * UINT64_C(0x9e3779b97f4a7c15) ^ b << 40 ^ c};
    return test_random_next(&random);
}

static bool must_stop(void)
{
    return run.sweep.stuck || atomic_load(&run.sweep.stage.shared->violations) >= VIOLATIONS_MAX;
}

static void report(const struct scenario *scenario, uint64_t number, const char *what,
                   const struct path_point *point)
{
    fprintf(stderr, "  in scenario %" PRIu64 " (%s), killed %s", number, scenario->title, what);
    if (point)
        fprintf(stderr, " %#" PRIx64 ", turn %u", point->pc - tracer_own_text().begin, point->turn);
    fprintf(stderr, "; seed %" PRIu64 "\n", run.seed);
}

static void kill_once(const struct scenario *scenario, uint64_t number, uint64_t index,
                      enum sweep_at at, const struct path_point *point)
{
    static const char *const words[] = {"before the call",         "at",           "at, by steps,",
                                        "past, having stopped at", "in its sleep", "after it",
                                        "after recording it"};
    uint32_t before = atomic_load(&run.sweep.stage.shared->violations);
    run.sweep.random.state = mix(run.seed, number, index);
    sweep_kill(&run.sweep, scenario, at, point, NULL);
    run.kills++;
    if (atomic_load(&run.sweep.stage.shared->violations) != before)
        report(scenario, number, words[at], point);
}

static bool is_chosen(const struct path_point *point, uint64_t number, uint64_t index,
                      uint64_t share)
{
    uint64_t choice = mix(run.seed, number, index ^ 0x5eed);
    if (point->turn > TURNS_ALL && (point->turn & (point->turn - 1)) != 0 &&
        mix(run.seed, point->pc, point->turn) % TURNS_EVERY != 0) {
        run.skipped++;
        return false;
    }
    run.points++;
    return choice % share == 0;
}

/* About update mode: of many scenarios that have the same steps only a few points each. About read bias: what
 * matters when a reader leaves is a window of an instruction or two; the long paths differ by who else
 * reads, and are the same for the most part. */
static uint64_t share_of(const struct scenario *scenario, const struct path *path)
{
    if (scenario->update && run.share != 1)
        return run.share * 8;
    if (!scenario->bias || run.share == 1)
        return run.share;
    if (path->count > PATH_LONG)
        return run.share * 8;
    return scenario_is_release(scenario) ? (run.share + 7) / 8 : (run.share + 1) / 2;
}

static void sweep_scenario(const struct scenario *scenario, uint64_t number)
{
    struct path path = {.points = NULL};
    run.sweep.random.state = mix(run.seed, number, 0);
    sweep_kill(&run.sweep, scenario, SWEEP_RECORD, NULL, &path);
    if (atomic_load(&run.sweep.stage.shared->violations) != 0)
        report(scenario, number, "after recording it", NULL);
    run.steps += path.steps;
    if (!must_stop())
        kill_once(scenario, number, 1, SWEEP_AT_START, NULL);
    uint64_t share = share_of(scenario, &path);
    for (size_t i = 0; i < path.count && !must_stop(); i++) {
        if (!is_chosen(&path.points[i], number, i, share))
            continue;
        bool both = run.share == 1; /* else one of the two, by the seed */
        bool past = scenario->bias && (both || mix(run.seed, i, number) & 1);
        if (both || !past)
            kill_once(scenario, number, i, SWEEP_AT_POINT, &path.points[i]);
        if (past && !must_stop())
            kill_once(scenario, number, i, SWEEP_PAST_POINT, &path.points[i]);
        if (run.step_every && run.kills % run.step_every == 0 && !must_stop())
            kill_once(scenario, number, i, SWEEP_AT_POINT_STEPPED, &path.points[i]);
    }
    if (!must_stop())
        kill_once(scenario, number, 2, SWEEP_AT_END, NULL);
    for (uint64_t i = 0; scenario->sleeps && i < SLEEP_KILLS && !must_stop(); i++)
        kill_once(scenario, number, 3 + i, SWEEP_IN_SLEEP, NULL);
    path_deinit(&path);
}

static enum sweep_break mistake_of(const char *name)
{
    static const char *const names[] = {"",      "wake", "died", "told",    "alive", "slot",
                                        "token", "cell", "bias", "barrier", "update"};
    for (unsigned i = 1; i < LKI_ARRAY_LENGTH(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum sweep_break)i;
    test_check(false, "no mistake '%s'", name);
    return BREAK_NOTHING;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--all") == 0)
            run.share = 1;
        else if (more && strcmp(argv[i], "--share") == 0)
            run.share = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seconds") == 0)
            run.seconds = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seed") == 0)
            run.seed = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--scenario") == 0)
            run.only = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--step-every") == 0)
            run.step_every = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--break") == 0)
            run.sweep.planted = mistake_of(argv[++i]);
        else
            test_check(false, "unknown argument %s", argv[i]);
    }
    test_check(run.share > 0, "--share 0");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (!tracer_is_allowed()) {
        printf("killsweep: skipped: this process may not trace its children (ptrace)\n");
        return 77;
    }
    size_t count;
    const struct scenario *list = scenarios(&count);
    uint64_t began_ns = lki_clock_now_ns();
    uint64_t until_ns = began_ns + run.seconds * LKI_NS_PER_S;
    uint64_t seed = run.seed;
    printf("killsweep: %zu scenarios, seed %" PRIu64 ", one point in %" PRIu64 "\n", count, seed,
           run.share);
    fflush(stdout);
    run.sweep.stage.no_barrier = run.sweep.planted == BREAK_BARRIER;
    stage_init(&run.sweep.stage);
    run.sweep.victim = victim_new(&run.sweep.stage);
    do {
        for (size_t i = 0; i < count && !must_stop(); i++)
            if (run.only == 0 || run.only == i + 1)
                sweep_scenario(&list[i], i + 1);
        run.seed++;
    } while (!must_stop() && lki_clock_now_ns() < until_ns);
    uint32_t violations = atomic_load(&run.sweep.stage.shared->violations);
    uint64_t ms = (lki_clock_now_ns() - began_ns) / LKI_NS_PER_MS;
    const struct sweep *sweep = &run.sweep;
    printf("killsweep: %zu scenarios, %" PRIu64 " kills of %" PRIu64 " points (%" PRIu64
           " as meant, %" PRIu64 " after the call, %" PRIu64 " in its sleep, %" PRIu64
           " by single steps, %" PRIu64 " gone on before; %" PRIu64
           " while it owned the word, %" PRIu64 " for update, %" PRIu64
           " with readers unseen, %" PRIu64 " with an odd sequence; %" PRIu64
           " later turns of loops left out) in %" PRIu64 ".%" PRIu64 " s, seed %" PRIu64
           ": %u violations\n",
           run.only ? 1 : count, run.kills, run.points, sweep->reached, sweep->ended,
           sweep->in_sleep, sweep->stepped, sweep->past, sweep->inside, sweep->updates,
           sweep->biased, sweep->damaged, run.skipped, ms / 1000, ms % 1000 / 100, seed,
           violations);
    run.sweep.victim = victim_free(run.sweep.victim);
    stage_deinit(&run.sweep.stage);
    return violations == 0 ? 0 : 1;
}
