/* SPDX-License-Identifier: MIT */
/* killworker [--all | --share N] [--deeds N] [--seconds N] [--seed N] [--deed N] [--list]
 *            [--nap US] [--past] [--break NAME]
 *
 * Kills the broker's worker at the instructions of what it does: serving calls, cleaning up behind a
 * dead client, and taking over from a dead worker; beside clients that hold and wait. Another worker
 * goes on, and nothing of it may show: the call gives what it gives without, whoever waits gets the
 * lock once and is told what has to be told, every session goes on, and slots and descriptors are as
 * before. One kill in 8 is followed by that of the next worker, at any time.
 *
 * --all      every point of every deed; else one in --share (256) of one deed in --deeds (22), chosen by
 *            the seed
 * --seconds  after the points, again with other seeds, until so much time has passed
 * --deed     only this one, from 1; --list shows them
 * --nap      so many us before each step of a recording: as slow as it is beside busy processes
 * --past     goes on from each point, and kills when all is done
 * --break    plants a mistake, to see it found: those of killsweep_broker, result, and hang
 *
 * Points are the instructions of the daemon's program, and the calls that it makes of libraries, such
 * as system calls: there is a point before and behind each. Of an instruction that a loop comes to more
 * than 8 times only those turns are points that are a power of two. Exit 0: no violation. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "deed.h"
#include "tests/support/watch.h"
#include "tests/torture/killsweep/scene.h"
#include "tests/torture/killsweep/tracer.h"

#define TURNS_ALL 8u
#define STEPS_MAX 15000u /* of one path: with somebody waiting there are always timers */
#define VIOLATIONS_MAX 10u
#define LATE_NS (3 * LKI_NS_PER_S / 2)
#define NEXT_TOO 8u
#define LOG_KILLS 16u /* after which the daemon's log begins anew */

enum when {
    AT_POINT,
    RECORD,
};

static struct {
    struct scene scene;
    struct test_random random;
    enum mistake planted;
    uint64_t seed;
    uint64_t seconds;
    uint64_t share;
    uint64_t deeds;
    uint64_t only;
    uint64_t nap_ns;
    bool past;
    uint64_t swept;
    uint64_t points;
    uint64_t skipped;
    uint64_t kills;
    uint64_t reached;
    uint64_t kills_of_next;
    uint64_t late;
    int expected; /* what the call gives */
    bool seized;  /* the worker stands still already */
} run = {.seed = 1, .share = 256, .deeds = 22};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    struct test_random random = {.state = a * UINT64_C(0x9e3779b97f4a7c15) ^ b << 40 ^ c};
    return test_random_next(&random);
}

/* --- Workers --- */

/* The one that goes on after a dead one; a worker that is dead is still a child for a while. 0: none. */
static pid_t next_worker(pid_t dead)
{
    uint64_t deadline_ns = lki_clock_now_ns() + run.scene.crowd.stuck_ns;
    for (uint64_t now_ns = 0; now_ns < deadline_ns; now_ns = lki_clock_now_ns()) {
        pid_t pid = test_broker_worker(&run.scene.crowd.broker);
        if (pid != dead)
            return pid;
        test_sleep_ns(CROWD_SHORT_NS);
    }
    return 0;
}

static void kill_next_too(pid_t dead)
{
    pid_t pid = next_worker(dead);
    if (pid == 0)
        return; /* the client's call is going to be stuck */
    test_sleep_ns(test_random_below(&run.random, 4 * LKI_NS_PER_MS));
    test_check(kill(pid, SIGKILL) == 0, "kill %d", (int)pid);
    run.kills_of_next++;
}

/* --- One kill --- */

/* What is going on around the worker: what it has to have done before it is left alone. */
struct around {
    const struct deed *deed;
    pid_t client;
    bool returned; /* its call has, and it stands still behind it */
};

static bool is_done(void *user)
{
    const struct around *around = user;
    switch (around->deed->kind) {
    case DEED_CALL:
        return (around->returned || test_process_state(around->client) == 't') &&
               !scene_release_comes(&run.scene, around->deed->call);
    case DEED_DEATH:
        return crowd_has_descriptors(&run.scene.crowd);
    case DEED_TAKEOVER:
        break;
    }
    return true;
}

/* The client goes into its call, which waits. */
static void begin_call(struct around *around)
{
    around->returned = tracer_run_to_sleep(around->client) == TRACER_FINISHED;
    if (!around->returned)
        scene_await_upgrade(&run.scene, around->deed->call);
}

/* What is pending lies before the worker like the call itself: on a busy machine it comes as late, too. */
static void seize_before_request(struct scene *scene)
{
    tracer_seize(test_broker_worker(&scene->crowd.broker));
    run.seized = true;
}

/* Has the deed lie before a worker that stands still, and returns that. */
static pid_t begin_deed(struct around *around)
{
    pid_t keeper = run.scene.crowd.broker.pid;
    pid_t worker = test_broker_worker(&run.scene.crowd.broker);
    if (around->deed->begun)
        begin_call(around);
    switch (around->deed->kind) {
    case DEED_CALL:
        if (!run.seized)
            tracer_seize(worker);
        around->returned = tracer_run_to_sleep(around->client) == TRACER_FINISHED;
        break;
    case DEED_DEATH:
        tracer_seize(worker);
        tracer_kill(around->client);
        break;
    case DEED_TAKEOVER:
        tracer_watch_children(keeper);
        test_check(kill(worker, SIGKILL) == 0, "kill %d", (int)worker);
        worker = tracer_await_child(keeper);
        break;
    }
    return worker;
}

static enum tracer_end run_to(pid_t worker, const struct path_point *point, struct around *around)
{
    struct path_point to = *point;
    if (run.past)
        to.turn = UINT32_MAX;
    return tracer_run_to_unless(worker, &to, is_done, around);
}

static void kill_worker(pid_t worker, enum when when, const struct path_point *point,
                        struct path *path, struct around *around)
{
    struct path_range range = tracer_text_of(worker);
    enum tracer_end end = TRACER_REACHED;
    range.over = true;
    range.steps_max = STEPS_MAX;
    range.nap_ns = run.nap_ns;
    if (when == RECORD)
        end = tracer_record_until(worker, &range, is_done, around, path);
    else
        end = run_to(worker, point, around);
    run.reached += end != TRACER_FINISHED;
    if (end == TRACER_REACHED)
        tracer_kill(worker);
    else if (end == TRACER_FINISHED)
        test_check(kill(worker, SIGKILL) == 0, "kill %d", (int)worker); /* nobody traces it now */
    if (test_random_below(&run.random, NEXT_TOO) == 0)
        kill_next_too(worker);
}

/* False: its call never returns. */
static bool await_client(const struct around *around)
{
    uint64_t deadline_ns = lki_clock_now_ns() + run.scene.crowd.stuck_ns;
    if (around->returned)
        return true;
    if (around->deed->kind == DEED_TAKEOVER && !around->deed->begun)
        tracer_continue(around->client);
    for (uint64_t now_ns = 0; test_process_state(around->client) != 't';
         now_ns = lki_clock_now_ns()) {
        if (now_ns > deadline_ns) {
            char where[256];
            test_process_describe(around->client, where, sizeof(where));
            crowd_violation(&run.scene.crowd, "stuck: the client's call never returns: %s", where);
            test_process_show_tree(getpid());
            test_broker_show_log(&run.scene.crowd.broker);
            return false;
        }
        test_sleep_ns(CROWD_SHORT_NS);
    }
    tracer_await_stop(around->client);
    return true;
}

static void check_result(const struct call *call, enum when when)
{
    int result = atomic_load(&run.scene.shared->result);
    if (when == RECORD)
        run.expected = result;
    else if (call->what == CALL_TIMED && (result == -ETIMEDOUT || result == LK_ACQUIRED))
        return; /* by the time that it all took */
    else if (result != run.expected + (run.planted == MISTAKE_RESULT))
        crowd_violation(&run.scene.crowd, "result: the call gives %d instead of %d", result,
                        run.expected + (run.planted == MISTAKE_RESULT));
}

static void plant_hang(int signal)
{
    if (run.planted == MISTAKE_HANG)
        test_check(kill(run.scene.crowd.broker.pid, signal) == 0, "kill the keeper");
}

static void kill_one(const struct deed *deed, enum when when, const struct path_point *point,
                     struct path *path)
{
    struct scene *scene = &run.scene;
    const struct call *call = deed->call;
    struct sample sample = {.settled = true};
    run.seized = false;
    scene->asks = deed->kind == DEED_CALL ? seize_before_request : NULL;
    struct around around = {.deed = deed, .client = scene_set(scene, call, deed->is_slow)};
    if (deed->kind == DEED_DEATH) {
        scene_sample(scene, call, around.client, &sample);
        scene_check_sample(scene, call, SCENE_AT_START, &sample);
    }
    pid_t worker = begin_deed(&around);
    plant_hang(SIGSTOP);
    kill_worker(worker, when, point, path, &around);
    uint64_t died_ns = lki_clock_now_ns();
    if (deed->kind != DEED_DEATH) {
        scene->stuck = !await_client(&around);
        plant_hang(SIGCONT);
        if (scene->stuck)
            return;
        check_result(call, when);
        sample.settled = !scene_may_expire(call);
        if (sample.settled) {
            scene_sample(scene, call, around.client, &sample);
            scene_check_sample(scene, call, SCENE_AT_END, &sample);
        }
        tracer_kill(around.client);
    }
    scene_end(scene, call, around.client, &sample, died_ns);
    scene->stuck = scene->stuck || !crowd_ask_idle(&scene->crowd, call->kind);
    if (!scene->stuck)
        (void)crowd_settle(&scene->crowd, call->kind); /* the last of the workers answers */
}

/* --- All of them --- */

static bool must_stop(void)
{
    return run.scene.stuck || atomic_load(&run.scene.crowd.shared->violations) >= VIOLATIONS_MAX;
}

static void kill_and_report(const struct deed *deed, uint64_t number, size_t index, enum when when,
                            const struct path_point *point, struct path *path)
{
    static const char *const words[] = {"at", "after recording it"};
    uint32_t before = atomic_load(&run.scene.crowd.shared->violations);
    if (must_stop())
        return;
    run.random.state = mix(run.seed, number, index);
    uint64_t began_ns = lki_clock_now_ns();
    kill_one(deed, when, point, path);
    run.late += when == AT_POINT && lki_clock_now_ns() - began_ns > LATE_NS;
    if (++run.kills % LOG_KILLS == 0)
        (void)truncate(run.scene.crowd.broker.log_path, 0);
    if (atomic_load(&run.scene.crowd.shared->violations) == before)
        return;
    fprintf(stderr, "  in deed %" PRIu64 " (%s), killed %s", number, deed->title, words[when]);
    if (point)
        fprintf(stderr, " point %zu, %#" PRIx64 ", turn %u", index, point->pc, point->turn);
    fprintf(stderr, "; seed %" PRIu64 "\n", run.seed);
}

static bool is_chosen(const struct deed *deed, const struct path_point *point, uint64_t number,
                      size_t index)
{
    /* A farewell whose answer is lost with the worker costs its client 2 s: see GOODBYE_NS. */
    bool dear = run.share > 1 && deed->call->what == CALL_CLOSE_SESSION;
    if (point->turn > TURNS_ALL && (point->turn & (point->turn - 1)) != 0) {
        run.skipped++;
        return false;
    }
    run.points++;
    return mix(run.seed, number, index ^ 0x5eed) % (run.share * (dear ? 8 : 1)) == 0;
}

static void sweep_deed(const struct deed *deed, uint64_t number)
{
    struct path path = {.points = NULL};
    uint64_t before = run.points;
    run.swept++;
    kill_and_report(deed, number, SIZE_MAX, RECORD, NULL, &path);
    /* Nothing would be killed in it, and nobody know. In few steps there may be nothing to do for it. */
    if (path.count == 0 && path.steps >= STEPS_MAX)
        crowd_violation(&run.scene.crowd, "recording: no point of deed %" PRIu64 " in %zu steps",
                        number, path.steps);
    for (size_t i = 0; i < path.count && !must_stop(); i++)
        if (is_chosen(deed, &path.points[i], number, i))
            kill_and_report(deed, number, i, AT_POINT, &path.points[i], NULL);
    if (run.only)
        printf("%s: %" PRIu64 " points, %zu steps\n", deed->title, run.points - before, path.steps);
    path_deinit(&path);
}

static void show_list(void)
{
    size_t count;
    const struct deed *list = deeds(&count);
    for (size_t i = 0; i < count; i++)
        printf("%3zu %s\n", i + 1, list[i].title);
    exit(0);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--all") == 0)
            run.share = run.deeds = 1;
        else if (strcmp(argv[i], "--list") == 0)
            show_list();
        else if (more && strcmp(argv[i], "--share") == 0)
            run.share = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--deeds") == 0)
            run.deeds = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seconds") == 0)
            run.seconds = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--seed") == 0)
            run.seed = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--deed") == 0)
            run.only = test_number(argv[++i]);
        else if (more && strcmp(argv[i], "--nap") == 0)
            run.nap_ns = test_number(argv[++i]) * 1000;
        else if (strcmp(argv[i], "--past") == 0)
            run.past = true;
        else if (more && strcmp(argv[i], "--break") == 0)
            run.planted = mistake_of(argv[++i]);
        else
            test_check(false, "unknown argument %s", argv[i]);
    }
    test_check(run.share > 0 && run.deeds > 0, "a share of 0");
}

static void summarize(size_t count, uint64_t seed, uint64_t ms)
{
    printf("killworker: %" PRIu64 " of %zu deeds, %" PRIu64 " kills of %" PRIu64 " points (%" PRIu64
           " as meant; %" PRIu64 " with that of the next worker; %" PRIu64
           " later turns of loops left out); the next one had the lock after %.1f ms at most; "
           "%" PRIu64 " took more than 1.5 s; %" PRIu64 ".%" PRIu64 " s, seed %" PRIu64
           ": %u violations\n",
           run.swept, count, run.kills, run.points, run.reached, run.kills_of_next, run.skipped,
           (double)run.scene.crowd.slowest_ns / 1e6, run.late, ms / 1000, ms % 1000 / 100, seed,
           atomic_load(&run.scene.crowd.shared->violations));
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (!tracer_is_allowed()) {
        printf("killworker: skipped: this process may not trace its children (ptrace)\n");
        return 77;
    }
    size_t count;
    const struct deed *list = deeds(&count);
    uint64_t began_ns = lki_clock_now_ns();
    uint64_t seed = run.seed;
    printf("killworker: one of %" PRIu64 " of %zu deeds, seed %" PRIu64 ", one point in %" PRIu64
           "\n",
           run.deeds, count, seed, run.share);
    scene_init(&run.scene, run.planted);
    run.scene.crowd.broker.restarts = true;
    run.scene.crowd.frozen = true; /* a worker that begins has less open than one that serves */
    do {
        for (size_t i = 0; i < count && !must_stop(); i++)
            if (run.only ? run.only == i + 1 : mix(run.seed, i, 0xdeed) % run.deeds == 0)
                sweep_deed(&list[i], i + 1);
        run.seed++;
    } while (!must_stop() && lki_clock_now_ns() < began_ns + run.seconds * LKI_NS_PER_S);
    summarize(count, seed, (lki_clock_now_ns() - began_ns) / LKI_NS_PER_MS);
    bool failed = atomic_load(&run.scene.crowd.shared->violations) != 0;
    scene_deinit(&run.scene);
    return failed ? 1 : 0;
}
