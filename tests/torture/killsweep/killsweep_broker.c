/* SPDX-License-Identifier: MIT */
/* killsweep_broker [--all | --share N] [--calls N] [--seconds N] [--seed N] [--call N] [--list]
 *                  [--break NAME]
 *
 * Kills a client at the instructions of its calls, with a real broker and beside other clients, and
 * looks whether the broker cleans up behind it: whoever waits gets the lock once and is told exactly
 * what has to be told, tokens rise, and slots and descriptors are as before.
 *
 * --all      every point of every call; else one in --share (64) of one call in --calls (2), chosen by
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
#include <sys/mman.h>
#include <unistd.h>

#include "call.h"
#include "client/segment.h"
#include "common/cleanup.h"
#include "crowd.h"
#include "engine/repair.h"
#include "tracer.h"

#define TURNS_ALL 8u
#define VIOLATIONS_MAX 10u
#define POINT_NONE SIZE_MAX

enum mistake {
    MISTAKE_NONE,
    MISTAKE_TOLD,       /* the next owner is told although nothing was torn */
    MISTAKE_UNTOLD,     /* the next owner is not told */
    MISTAKE_HOLD,       /* the dead one's word stays */
    MISTAKE_SLOT,       /* its slot stays */
    MISTAKE_DESCRIPTOR, /* the broker keeps something open */
    MISTAKE_TOKEN,      /* the sequence falls */
    MISTAKE_TWICE,      /* the lock is granted beside the victim */
};
static const char *const mistakes[] = {"",     "told",       "untold", "hold",
                                       "slot", "descriptor", "token",  "twice"};

enum when {
    AT_START,
    AT_POINT,
    AT_END,
    RECORD,
};

static struct {
    struct crowd crowd;
    struct call_shared *shared;
    struct test_random random;
    enum mistake planted;
    int file_fd;
    uint64_t seed;
    uint64_t seconds;
    uint64_t share;
    uint64_t calls;
    uint64_t swept;
    uint64_t only;
    bool stuck;
    uint64_t points;
    uint64_t skipped;
    uint64_t kills;
    uint64_t reached;
    uint64_t settled;
    uint64_t inside;
    uint64_t damaged;
} run = {.seed = 1, .share = 64, .calls = 2, .file_fd = -1};

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    struct test_random random = {.state = a * UINT64_C(0x9e3779b97f4a7c15) ^ b << 40 ^ c};
    return test_random_next(&random);
}

/* --- One kill --- */

/* What is known of the lock while the victim stands at its point. */
struct sample {
    bool settled; /* the broker has nothing to do any more */
    bool owns;    /* the victim has the word */
    uint32_t word;
    uint64_t sequence;
};

static struct lki_lock_hot *hot_of(const struct call *call)
{
    return &run.crowd.segments[call->kind]->area.hot[CROWD_LOCK];
}

/* The broker waits on behalf of the victim, and whoever is before it goes on while it is stopped. */
static bool waits_in_broker(const struct call *call)
{
    bool brokered = call->kind == CROWD_STRICT || call->what == CALL_ASYNC;
    return brokered && call->mode == 'X' && call->parts[0].how == CROWD_HOLDS &&
           call->parts[0].when == CROWD_AT_WAIT && crowd_is_cued(&run.crowd);
}

/* No other process changes the word and sequence of a stopped owner; and the broker, which may do it on
 * its behalf, is asked whom it sees between two looks that have to be alike. */
static void take_sample(const struct call *call, pid_t pid, struct sample *out_sample)
{
    const struct lki_lock_hot *hot = hot_of(call);
    uint64_t deadline_ns = lki_clock_now_ns() + run.crowd.stuck_ns;
    for (;;) {
        out_sample->word = atomic_load(&hot->word);
        out_sample->sequence = atomic_load(&hot->sequence);
        out_sample->owns =
            crowd_settle(&run.crowd, call->kind) == pid && (out_sample->word & LKI_ID_MASK) != 0;
        bool granted = out_sample->owns && (out_sample->sequence & 1); /* else it drains */
        bool grant_comes = !granted && waits_in_broker(call);
        if (!grant_comes && out_sample->word == atomic_load(&hot->word) &&
            out_sample->sequence == atomic_load(&hot->sequence))
            return;
        if (grant_comes && lki_clock_now_ns() > deadline_ns) {
            crowd_violation(&run.crowd, "stuck: the victim's request is never granted");
            return;
        }
    }
}

static void check_sample(const struct call *call, enum when when, const struct sample *sample)
{
    struct crowd_judge *judge = &run.crowd.shared->judges[call->kind];
    bool odd = sample->owns && (sample->sequence & 1);
    run.settled++;
    run.inside += sample->owns;
    run.damaged += odd;
    if (run.planted == MISTAKE_TWICE && odd)
        crowd_enter(&run.crowd, call->kind, CROWD_PROBER, 'X', sample->sequence + 2);
    uint32_t writer = atomic_load(&judge->writer);
    uint32_t readers = atomic_load(&judge->readers);
    if (odd && (writer != 0 || readers != 0))
        crowd_violation(&run.crowd, "double grant: %u writes and %u read beside the victim", writer,
                        readers);
    if (run.planted == MISTAKE_TWICE && odd)
        crowd_leave(&run.crowd, call->kind, CROWD_PROBER, 'X');
    if (when == AT_START && call->before == BEFORE_X && !odd)
        crowd_violation(&run.crowd, "hold: the victim's is not there before the call");
    int result = atomic_load(&run.shared->result);
    bool acquires = call->what >= CALL_ACQUIRE && call->what <= CALL_DISPATCH;
    bool holds =
        acquires && call->mode == 'X' && result >= LK_ACQUIRED && call->what != CALL_CANCEL;
    if (when == AT_END && acquires && call->mode == 'X' && call->what != CALL_CANCEL &&
        holds != odd)
        crowd_violation(&run.crowd, "hold: the call gave %d, and the sequence is %" PRIu64, result,
                        sample->sequence);
}

/* Before it is awaited that everything is as it was. */
static void plant_leak(void)
{
    struct lki_area *area = &run.crowd.segments[CROWD_NATIVE]->area;
    run.crowd.frozen = run.planted == MISTAKE_DESCRIPTOR;
    if (run.planted == MISTAKE_SLOT)
        atomic_store(&area->attachments[CROWD_SLOTS].id, CROWD_SLOTS);
    if (run.planted == MISTAKE_DESCRIPTOR)
        run.crowd.descriptors--;
}

/* And afterwards, as if the repair had gone wrong. */
static void plant_in_word(const struct call *call, const struct sample *sample)
{
    struct lki_lock_hot *hot = hot_of(call);
    const struct lki_area *area = &run.crowd.segments[call->kind]->area;
    if (!sample->owns || !(sample->sequence & 1))
        return;
    if (run.planted == MISTAKE_UNTOLD)
        atomic_fetch_and(&hot->word, ~LKI_DIED);
    if (run.planted == MISTAKE_TOKEN)
        atomic_fetch_sub(&hot->sequence, 8);
    if (run.planted == MISTAKE_HOLD) /* an actor's: it lives, so nobody frees it */
        atomic_fetch_or(&hot->word, atomic_load(&area->attachments[1].id));
}

/* Whoever got the lock after the death is told what the sequence said. */
static void check_actors(const struct call *call, const struct sample *sample)
{
    bool odd = sample->owns && (sample->sequence & 1);
    if (!sample->settled && !call_always_dies(call))
        return; /* a grant may have come afterwards; see died_of() */
    for (unsigned i = 0; i < CROWD_ACTORS && call->parts[i].how != CROWD_ABSENT; i++) {
        const struct crowd_actor *actor = &run.crowd.shared->actors[i];
        bool died = call_always_dies(call) || (odd && actor->token >= sample->sequence);
        if (actor->died != died)
            crowd_violation(&run.crowd, "owner-died: actor %u was told %d instead of %d", i,
                            actor->died, died);
    }
}

/* Whether the next one has to be told, as far as that can be known. */
static bool died_of(const struct call *call, const struct sample *sample)
{
    if (call_always_dies(call))
        return true;
    if (sample->settled)
        return sample->owns && (sample->sequence & 1);
    return atomic_load(&hot_of(call)->word) & LKI_DIED;
}

static void check_record(const struct call *call, const struct sample *sample, pid_t pid)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    int r = lk_lock_recovery(run.crowd.locks[call->kind], &recovery);
    if (!sample->owns || !(sample->sequence & 1) || run.planted != MISTAKE_NONE)
        return;
    if (r != 0 || recovery.pid != pid || recovery.token != sample->sequence)
        crowd_violation(&run.crowd,
                        "record: %d, of pid %d and token %" PRIu64 ", not %d and %" PRIu64, r,
                        (int)recovery.pid, recovery.token, (int)pid, sample->sequence);
    bool torn = recovery.dirty_offset != 100 || recovery.dirty_length_bytes != 28;
    if (recovery.declared && (call->what != CALL_DECLARE || torn))
        crowd_violation(&run.crowd, "record: half of a declaration");
}

/* The name of what it made is free again. */
static void check_name(const struct call *call)
{
    if (call->what != CALL_CREATE && call->what != CALL_OFFER)
        return;
    struct lk_segment *segment = NULL;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE_NEW};
    int r = lk_segment_open(run.crowd.session, CALL_NEW_NAME, &options, &segment);
    if (r != LK_CREATED)
        crowd_violation(&run.crowd, "name: what the victim made is still there: %d, %s", r,
                        lk_last_error());
    lk_segment_close(segment);
}

static void set_stage(const struct call *call, pid_t pid)
{
    for (unsigned i = 0; i < CROWD_ACTORS && call->parts[i].how != CROWD_ABSENT; i++)
        crowd_cast(&run.crowd, i, call->kind, &call->parts[i]);
    if (call->before == BEFORE_PENDING) {
        tracer_continue(pid); /* it asks */
        tracer_await_stop(pid);
    }
}

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
    struct crowd *crowd = &run.crowd;
    crowd_begin(crowd, call->parts);
    atomic_store(&run.shared->result, -1);
    pid_t pid = call_start(call, crowd, run.shared, run.file_fd, when == RECORD);
    set_stage(call, pid);
    enum tracer_end end = walk(pid, when, point, path);
    run.reached += when != AT_POINT || end == TRACER_REACHED;
    struct sample sample = {.settled = test_random_next(&run.random) & 1 || when != AT_POINT};
    if (call->what == CALL_TIMED && waits_in_broker(call))
        sample.settled = false; /* it is granted, or expires meanwhile */
    if (sample.settled) {
        take_sample(call, pid, &sample);
        check_sample(call, end == TRACER_FINISHED ? AT_END : when, &sample);
    }
    uint64_t died_ns = lki_clock_now_ns();
    tracer_kill(pid);
    crowd_end(crowd);
    run.stuck = !crowd_await_all(crowd);
    if (run.stuck)
        return;
    check_actors(call, &sample);
    plant_leak();
    run.stuck = !crowd_await_baseline(crowd);
    if (run.stuck)
        return;
    bool died = died_of(call, &sample);
    if (run.planted == MISTAKE_TOLD && !died)
        atomic_fetch_or(&hot_of(call)->word, LKI_DIED);
    plant_in_word(call, &sample);
    run.stuck = !crowd_probe(crowd, call->kind, died, died_ns);
    if (run.stuck)
        return;
    check_record(call, &sample, pid);
    check_name(call);
}

/* --- All of them --- */

static bool must_stop(void)
{
    return run.stuck || atomic_load(&run.crowd.shared->violations) >= VIOLATIONS_MAX;
}

static void kill_and_report(const struct call *call, uint64_t number, size_t index, enum when when,
                            const struct path_point *point, struct path *path)
{
    static const char *const words[] = {"before the call", "at", "after it", "after recording it"};
    uint32_t before = atomic_load(&run.crowd.shared->violations);
    if (must_stop())
        return;
    run.random.state = mix(run.seed, number, index);
    kill_one(call, when, point, path);
    run.kills++;
    if (atomic_load(&run.crowd.shared->violations) == before)
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

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    test_check(*text && *end == '\0', "%s is no number", text);
    return number;
}

static enum mistake mistake_of(const char *name)
{
    for (unsigned i = 1; i < LKI_ARRAY_LENGTH(mistakes); i++)
        if (strcmp(mistakes[i], name) == 0)
            return (enum mistake)i;
    test_check(false, "no mistake '%s'", name);
    return MISTAKE_NONE;
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
            run.share = number_of(argv[++i]);
        else if (more && strcmp(argv[i], "--calls") == 0)
            run.calls = number_of(argv[++i]);
        else if (more && strcmp(argv[i], "--seconds") == 0)
            run.seconds = number_of(argv[++i]);
        else if (more && strcmp(argv[i], "--seed") == 0)
            run.seed = number_of(argv[++i]);
        else if (more && strcmp(argv[i], "--call") == 0)
            run.only = number_of(argv[++i]);
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
           run.swept, count, run.kills, run.points, run.reached, run.settled, run.inside,
           run.damaged, run.skipped, (double)run.crowd.slowest_ns / 1e6, ms / 1000, ms % 1000 / 100,
           seed, atomic_load(&run.crowd.shared->violations));
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
    crowd_init(&run.crowd);
    if (run.planted != MISTAKE_NONE)
        run.crowd.stuck_ns = LKI_NS_PER_S; /* it is going to be */
    run.shared = test_shared(sizeof(*run.shared));
    run.file_fd = memfd_create("offered", MFD_CLOEXEC);
    test_check(run.file_fd >= 0 && ftruncate(run.file_fd, 4096) == 0, "memfd");
    do {
        for (size_t i = 0; i < count && !must_stop(); i++)
            if (run.only ? run.only == i + 1 : mix(run.seed, i, 0xca11) % run.calls == 0)
                sweep_call(&list[i], i + 1);
        run.seed++;
    } while (!must_stop() && lki_clock_now_ns() < began_ns + run.seconds * LKI_NS_PER_S);
    summarize(count, seed, (lki_clock_now_ns() - began_ns) / LKI_NS_PER_MS);
    bool failed = atomic_load(&run.crowd.shared->violations) != 0;
    crowd_deinit(&run.crowd);
    (void)close(run.file_fd);
    return failed ? 1 : 0;
}
