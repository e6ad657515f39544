/* SPDX-License-Identifier: MIT */
/* killsweep_broker [--all | --share N] [--calls N] [--seconds N] [--seed N] [--call N] [--list]
 *                  [--break NAME]
 *
 * Kills a client at the instructions of its calls, with a real broker and beside other clients, and
 * looks whether the broker cleans up behind it: whoever waits gets the lock once and is told exactly
 * what has to be told, tokens rise, and slots and descriptors are as before.
 *
 * --all      every point of every call; else one in --share (76) of one call in --calls (2), chosen by
 *            the seed
 * --seconds  after the points, again with other seeds, until so much time has passed
 * --call     only this one, from 1; --list shows them
 * --break    plants a mistake, to see it found: told, untold, hold, slot, descriptor, token, twice
 *
 * Points are the instructions of the library, engine and codec, and the calls that these make of
 * others, such as system calls: there is a point before and behind each. Of an instruction that a loop
 * comes to more than 8 times only those turns are points that are a power of two. Half of the victims
 * die when the broker has done all that they asked for, so that it is known what they held; the others
 * die with what they sent still on its way. Exit 0: no violation. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "scene.h"
#include "tracer.h"

#define TURNS_ALL 8u
#define VIOLATIONS_MAX 10u
#define POINT_NONE SIZE_MAX

enum when {
    AT_START,
    AT_POINT,
    AT_END,
    RECORD,
};

static struct {
    struct scene scene;
    struct test_random random;
    enum mistake planted;
    uint64_t seed;
    uint64_t seconds;
    uint64_t share;
    uint64_t calls;
    uint64_t swept;
    uint64_t only;
    uint64_t points;
    uint64_t skipped;
    uint64_t kills;
    uint64_t reached;
} run = {.seed = 1, .share = 76, .calls = 2};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    struct test_random random = {.state = a * UINT64_C(0x9e3779b97f4a7c15) ^ b << 40 ^ c};
    return test_random_next(&random);
}

/* --- One kill --- */

static enum tracer_end walk(pid_t pid, enum when when, const struct path_point *point,
                            struct path *path)
{
    struct path_range range = tracer_own_text();
    range.over = true;
    switch (when) {
    case AT_START:
        return TRACER_REACHED;
    case AT_POINT:
        return tracer_run_to(pid, point);
    case AT_END:
        tracer_continue(pid);
        tracer_await_stop(pid);
        break;
    case RECORD:
        tracer_record(pid, &range, path);
        break;
    }
    return TRACER_FINISHED;
}

static void kill_one(const struct call *call, enum when when, const struct path_point *point,
                     struct path *path)
{
    struct scene *scene = &run.scene;
    pid_t pid = scene_set(scene, call, when == RECORD);
    enum tracer_end end = walk(pid, when, point, path);
    run.reached += when != AT_POINT || end == TRACER_REACHED;
    struct sample sample = {.settled = test_random_next(&run.random) & 1 || when != AT_POINT};
    sample.settled = sample.settled && !scene_may_expire(call);
    if (sample.settled) {
        scene_sample(scene, call, pid, &sample);
        scene_check_sample(scene, call,
                           end == TRACER_FINISHED ? SCENE_AT_END
                           : when == AT_START     ? SCENE_AT_START
                                                  : SCENE_MEANWHILE,
                           &sample);
    }
    uint64_t died_ns = lki_clock_now_ns();
    tracer_kill(pid);
    scene_end(scene, call, pid, &sample, died_ns);
}

/* --- All of them --- */

static bool must_stop(void)
{
    return run.scene.stuck || atomic_load(&run.scene.crowd.shared->violations) >= VIOLATIONS_MAX;
}

static void kill_and_report(const struct call *call, uint64_t number, size_t index, enum when when,
                            const struct path_point *point, struct path *path)
{
    static const char *const words[] = {"before the call", "at", "after it", "after recording it"};
    uint32_t before = atomic_load(&run.scene.crowd.shared->violations);
    if (must_stop())
        return;
    run.random.state = mix(run.seed, number, index);
    kill_one(call, when, point, path);
    run.kills++;
    if (atomic_load(&run.scene.crowd.shared->violations) == before)
        return;
    fprintf(stderr, "  in call %" PRIu64 " (%s), killed %s", number, call->title, words[when]);
    if (point)
        fprintf(stderr, " point %zu, %#" PRIx64 ", turn %u", index,
                point->pc - tracer_own_text().begin, point->turn);
    fprintf(stderr, "; seed %" PRIu64 "\n", run.seed);
}

static bool is_chosen(const struct path_point *point, uint64_t number, size_t index)
{
    if (point->turn > TURNS_ALL && (point->turn & (point->turn - 1)) != 0) {
        run.skipped++;
        return false;
    }
    run.points++;
    return mix(run.seed, number, index ^ 0x5eed) % run.share == 0;
}

static void sweep_call(const struct call *call, uint64_t number)
{
    run.swept++;
    struct path path = {.points = NULL};
    uint64_t before = run.points;
    kill_and_report(call, number, POINT_NONE, RECORD, NULL, &path);
    kill_and_report(call, number, POINT_NONE - 1, AT_START, NULL, NULL);
    for (size_t i = 0; i < path.count && !must_stop(); i++)
        if (is_chosen(&path.points[i], number, i))
            kill_and_report(call, number, i, AT_POINT, &path.points[i], NULL);
    kill_and_report(call, number, POINT_NONE - 2, AT_END, NULL, NULL);
    if (run.only)
        printf("%s: %" PRIu64 " points\n", call->title, run.points - before);
    path_deinit(&path);
}

static void show_list(void)
{
    size_t count;
    const struct call *list = calls(&count);
    for (size_t i = 0; i < count; i++)
        printf("%3zu %s\n", i + 1, list[i].title);
    exit(0);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--all") == 0)
            run.share = run.calls = 1;
        else if (strcmp(argv[i], "--list") == 0)
            show_list();
        else if (more && strcmp(argv[i], "--share") == 0)
            run.share = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--calls") == 0)
            run.calls = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seconds") == 0)
            run.seconds = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seed") == 0)
            run.seed = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--call") == 0)
            run.only = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--break") == 0)
            run.planted = mistake_of(argv[++i]);
        else
            test_check(false, "unknown argument %s", argv[i]);
    }
    test_check(run.share > 0 && run.calls > 0, "a share of 0");
}

static void summarize(size_t count, uint64_t seed, uint64_t ms)
{
    printf("killsweep_broker: %" PRIu64 " of %zu calls, %" PRIu64 " kills of %" PRIu64
           " points (%" PRIu64 " as meant; %" PRIu64 " with nothing on its way, of these %" PRIu64
           " while it owned the word, %" PRIu64 " with an odd sequence; %" PRIu64
           " later turns of loops left out); the next one had the lock after %.1f ms at most; "
           "%" PRIu64 ".%" PRIu64 " s, seed %" PRIu64 ": %u violations\n",
           run.swept, count, run.kills, run.points, run.reached, run.scene.settled,
           run.scene.inside, run.scene.damaged, run.skipped,
           (double)run.scene.crowd.slowest_ns / 1e6, ms / 1000, ms % 1000 / 100, seed,
           atomic_load(&run.scene.crowd.shared->violations));
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (!tracer_is_allowed()) {
        printf("killsweep_broker: skipped: this process may not trace its children (ptrace)\n");
        return 77;
    }
    size_t count;
    const struct call *list = calls(&count);
    uint64_t began_ns = lki_clock_now_ns();
    uint64_t seed = run.seed;
    printf("killsweep_broker: one of %" PRIu64 " of %zu calls, seed %" PRIu64
           ", one point in %" PRIu64 "\n",
           run.calls, count, seed, run.share);
    scene_init(&run.scene, run.planted);
    do {
        for (size_t i = 0; i < count && !must_stop(); i++)
            if (run.only ? run.only == i + 1 : mix(run.seed, i, 0xca11) % run.calls == 0)
                sweep_call(&list[i], i + 1);
        run.seed++;
    } while (!must_stop() && lki_clock_now_ns() < began_ns + run.seconds * LKI_NS_PER_S);
    summarize(count, seed, (lki_clock_now_ns() - began_ns) / LKI_NS_PER_MS);
    bool failed = atomic_load(&run.scene.crowd.shared->violations) != 0;
    scene_deinit(&run.scene);
    return failed ? 1 : 0;
}
