/* SPDX-License-Identifier: MIT */
/* Runs simulated machines, one per seed, and says which seed shows a mistake.
 *
 *     sim [--seed N] [--seeds COUNT] [--steps N] [--seconds N] [--trace] [--twice]
 *     sim --break NAME|all [--seed N] [--seeds COUNT]
 *     sim --list-breaks
 *
 * The seeds are N, N+1, ... A failing one is printed with what was violated and how to replay it.
 * --twice runs each seed twice and compares the hashes of all that happened. --break plants a mistake:
 * then it is a failure if it is not found. The last line has the figures. Exit code 0 if all is well,
 * 1 for a violation, 2 for wrong arguments. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "tests/sim/sim.h"

#define SEEDS_OF_A_BREAK 400 /* in which it has to be found */
#define SEEDS_FOR_ALL 300    /* in which all that can happen has happened */

static const struct {
    const char *name;
    const char *what;
} breaks[SIM_BREAKS] = {
    [SIM_BREAK_NONE] = {"none", "nothing"},
    [SIM_BREAK_LOSES_WAKES] = {"loses-wakes", "one in five wakes by the broker is lost"},
    [SIM_BREAK_LOSES_CLIENT_WAKES] = {"loses-client-wakes", "3 % of the clients' wakes are lost"},
    [SIM_BREAK_GRANTS_BLINDLY] = {"grants-blindly", "who waits too long is told that it holds"},
    [SIM_BREAK_FORGETS_BEGUN] = {"forgets-begun", "a successor forgets what was begun"},
    [SIM_BREAK_BURIES_ALIVE] = {"buries-alive", "a stopped process counts as ended"},
    [SIM_BREAK_HIDES_DAMAGE] = {"hides-damage", "the mark of an owner that died is wiped"},
    [SIM_BREAK_INVENTS_DAMAGE] = {"invents-damage", "a mark is put where nobody died"},
    [SIM_BREAK_TURNS_TOKENS_BACK] = {"turns-tokens-back", "a takeover turns sequences back"},
    [SIM_BREAK_REFUSES_AT_RANDOM] = {"refuses-at-random", "a deadlock where there is no ring"},
    [SIM_BREAK_ANSWERS_TWICE] = {"answers-twice", "a reply is sent twice"},
    [SIM_BREAK_SWALLOWS_ANSWERS] = {"swallows-answers", "a reply is not sent"},
    [SIM_BREAK_OVERLOOKS_ENDS] = {"overlooks-ends", "some ends of processes are not told"},
    [SIM_BREAK_FORGETS_RESUMED] = {"forgets-resumed", "some sessions are not told to resume"},
    [SIM_BREAK_EMPTY_BARRIERS] = {"empty-barriers", "a barrier shows no stores"},
    [SIM_BREAK_BURIES_UNHEARD] = {"buries-unheard", "what the dead have sent last is not read"},
    [SIM_BREAK_TAKES_TOO_SOON] = {"takes-too-soon",
                                  "a one-way release is out of the socket before its effect"},
    [SIM_BREAK_TRUSTS_RINGS] = {"trusts-rings", "a hold is one though its release is under way"},
    [SIM_BREAK_CLAIMS_BARRIERS] = {"claims-barriers", "the broker says it has made a barrier"},
};

struct options {
    uint64_t seed;
    uint64_t seeds;
    uint64_t steps;
    uint64_t seconds; /* 0: as many as `seeds` says */
    const char *broken;
    bool trace;
    bool twice;
};

static const struct options *running; /* for on_death() */

static void print_replay(uint64_t seed, enum sim_break broken, uint64_t steps)
{
    printf("replay: sim --seed %" PRIu64 " --seeds 1 --steps %" PRIu64 "%s%s --trace\n", seed,
           steps, broken ? " --break " : "", broken ? breaks[broken].name : "");
}

static void print_failure(const struct options *options)
{
    printf("seed %" PRIu64 ", step %" PRIu64 ", at %.6f s: %s\n", sim.seed, sim.dispatches,
           (double)sim.now_ns / 1e9, sim.failure);
    print_replay(sim.seed, sim.broken, options->steps);
}

/* A sanitizer's report ends the process: which seed it was has to be told before. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
const char *__asan_default_options(void);

/* Stacks on the heap would be lost with each fiber that is forgotten. */
const char *__asan_default_options(void)
{
    return "detect_stack_use_after_return=0";
}

static void on_death(void)
{
    printf("seed %" PRIu64 ", step %" PRIu64 ": the process dies\n", sim.seed, sim.dispatches);
    print_replay(sim.seed, sim.broken, running->steps);
    fflush(stdout);
}

/* --- Running --- */

static double seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool run_again(const struct options *options)
{
    uint64_t seed = sim.seed;
    uint64_t hash = sim.hash;
    if (!sim_run(seed, options->steps, SIM_BREAK_NONE, false)) {
        print_failure(options);
        return false;
    }
    if (sim.hash == hash)
        return true;
    printf("seed %" PRIu64 ": a second run is another one: hash %016" PRIx64 ", then %016" PRIx64
           "\n",
           seed, hash, sim.hash);
    return false;
}

static void print_summary(const char *verdict, uint64_t seeds, const struct options *options,
                          uint64_t hash, double seconds)
{
    const struct sim_seen *seen = &sim_seen;
    printf("sim: %s: %" PRIu64 " seeds from %" PRIu64 ", %.0f seeds/s, %" PRIu64
           " dispatches, %" PRIu64 " steps, %" PRIu64 " client kills, %" PRIu64
           " worker kills, %" PRIu64 " takeovers, %" PRIu64 " pauses, %" PRIu64 " signals, %" PRIu64
           " hints lost, %" PRIu64 " taken, %" PRIu64 " told of damage, %" PRIu64
           " for update, %" PRIu64 " upgrades, %" PRIu64 " downgrades, %" PRIu64
           " of these by the broker, %" PRIu64 " deadlocks, %" PRIu64 " timed out, %" PRIu64
           " async, %" PRIu64 " without a fence, %" PRIu64 " barriers by clients, %" PRIu64
           " asked for, %" PRIu64 " by the worker, %" PRIu64 " stores shown by them, %" PRIu64
           " calm checks, %" PRIu64 " one-way releases, %" PRIu64
           " doubts of rings, rest within %.3f s, hash %016" PRIx64 "\n",
           verdict, seeds, options->seed, (double)seeds / (seconds > 0 ? seconds : 1),
           seen->dispatches, seen->steps, seen->client_kills, seen->worker_kills, seen->takeovers,
           seen->pauses, seen->signals, seen->lost_hints, seen->taken, seen->taken_died,
           seen->updates, seen->upgrades, seen->downgrades, seen->changes_by_broker,
           seen->deadlocks, seen->timed_out, seen->async_taken, seen->fenceless, seen->barriers,
           seen->barriers_asked, seen->barriers_of_worker, seen->stores_shown, seen->calm_checks,
           seen->one_way, seen->doubts, (double)seen->rest_ns_max / 1e9, hash);
}

static int run_seeds(const struct options *options)
{
    double began = seconds_now();
    uint64_t done = 0;
    uint64_t hash = 0;
    bool well = true;
    while (well && (options->seconds > 0 ? seconds_now() - began < (double)options->seconds
                                         : done < options->seeds)) {
        well = sim_run(options->seed + done, options->steps, SIM_BREAK_NONE, options->trace);
        done++;
        hash = hash * 31 + sim.hash;
        if (!well)
            print_failure(options);
        else if (options->twice)
            well = run_again(options);
    }
    if (well && done >= SEEDS_FOR_ALL &&
        (sim_seen.upgrades == 0 || sim_seen.downgrades == 0 || sim_seen.changes_by_broker == 0)) {
        printf("nothing was upgraded or downgraded, or not by the broker\n");
        well = false;
    }
    if (well && done >= SEEDS_FOR_ALL &&
        (sim_seen.fenceless == 0 || sim_seen.barriers_asked == 0 || sim_seen.stores_shown == 0)) {
        printf("no reader came without a fence when it mattered: nothing of that was checked\n");
        well = false;
    }
    if (well && done >= SEEDS_FOR_ALL && sim_seen.one_way == 0) {
        printf("nobody released one-way: nothing of that was checked\n");
        well = false;
    }
    print_summary(well ? "all is well" : "VIOLATION", done, options, hash, seconds_now() - began);
    return well ? 0 : 1;
}

static bool find_break(const struct options *options, enum sim_break broken)
{
    for (uint64_t i = 0; i < options->seeds; i++) {
        if (sim_run(options->seed + i, options->steps, broken, options->trace))
            continue;
        printf("%-18s found with seed %" PRIu64 ", step %" PRIu64 ": %s\n", breaks[broken].name,
               sim.seed, sim.dispatches, sim.failure);
        return true;
    }
    printf("%-18s NOT FOUND in %" PRIu64 " seeds: %s\n", breaks[broken].name, options->seeds,
           breaks[broken].what);
    return false;
}

static int run_breaks(const struct options *options)
{
    uint32_t tried = 0;
    uint32_t found = 0;
    for (int i = SIM_BREAK_NONE + 1; i < SIM_BREAKS; i++) {
        if (strcmp(options->broken, "all") != 0 && strcmp(options->broken, breaks[i].name) != 0)
            continue;
        tried++;
        found += find_break(options, (enum sim_break)i);
    }
    if (tried == 0)
        fprintf(stderr, "sim: no such mistake: %s; see --list-breaks\n", options->broken);
    else
        printf("sim: %u of %u planted mistakes found\n", found, tried);
    return tried == 0 ? 2 : found == tried ? 0 : 1;
}

/* --- Arguments --- */

static bool read_number(const char *text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

static bool read_options(int count, char **arguments, struct options *options)
{
    bool seeds_given = false;
    for (int i = 1; i < count; i++) {
        const char *name = arguments[i];
        const char *value = i + 1 < count ? arguments[i + 1] : "";
        const struct {
            const char *name;
            uint64_t *number;
        } numbers[] = {{"--seed", &options->seed},
                       {"--seeds", &options->seeds},
                       {"--steps", &options->steps},
                       {"--seconds", &options->seconds}};
        bool known = false;
        for (size_t k = 0; k < LKI_ARRAY_LENGTH(numbers); k++) {
            if (strcmp(name, numbers[k].name) != 0)
                continue;
            known = read_number(value, numbers[k].number);
            seeds_given |= numbers[k].number == &options->seeds;
            i++;
        }
        if (strcmp(name, "--break") == 0) {
            options->broken = value;
            known = *value != '\0';
            i++;
        }
        options->trace |= strcmp(name, "--trace") == 0;
        options->twice |= strcmp(name, "--twice") == 0;
        if (!known && strcmp(name, "--trace") != 0 && strcmp(name, "--twice") != 0)
            return false;
    }
    if (options->broken && !seeds_given)
        options->seeds = SEEDS_OF_A_BREAK;
    return true;
}

int main(int count, char **arguments)
{
    struct options options = {.seed = 1, .seeds = 100, .steps = 1500};
    if (count == 2 && strcmp(arguments[1], "--list-breaks") == 0) {
        for (int i = SIM_BREAK_NONE + 1; i < SIM_BREAKS; i++)
            printf("%-18s %s\n", breaks[i].name, breaks[i].what);
        return 0;
    }
    if (!read_options(count, arguments, &options)) {
        fputs(
            "usage: sim [--seed N] [--seeds COUNT] [--steps N] [--seconds N] [--trace] [--twice]\n"
            "       sim --break NAME|all [--seed N] [--seeds COUNT]\n"
            "       sim --list-breaks\n",
            stderr);
        return 2;
    }
    running = &options;
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(on_death);
    int result = options.broken ? run_breaks(&options) : run_seeds(&options);
    sim_deinit();
    return result;
}
