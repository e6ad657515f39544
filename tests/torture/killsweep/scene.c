/* SPDX-License-Identifier: MIT */
#include "scene.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/segment.h"
#include "common/cleanup.h"
#include "engine/repair.h"
#include "tracer.h"

static const char *const mistakes[] = {"",           "told",  "untold", "hold",   "slot",
                                       "descriptor", "token", "twice",  "result", "hang"};

enum mistake mistake_of(const char *name)
{
    for (unsigned i = 1; i < LKI_ARRAY_LENGTH(mistakes); i++)
        if (strcmp(mistakes[i], name) == 0)
            return (enum mistake)i;
    test_check(false, "no mistake '%s'", name);
    return MISTAKE_NONE;
}

void scene_init(struct scene *scene, enum mistake planted)
{
    *scene = (struct scene){.planted = planted};
    crowd_init(&scene->crowd);
    if (planted != MISTAKE_NONE)
        scene->crowd.stuck_ns = LKI_NS_PER_S; /* it is going to be */
    scene->shared = test_shared(sizeof(*scene->shared));
    scene->file_fd = memfd_create("offered", MFD_CLOEXEC);
    test_check(scene->file_fd >= 0 && ftruncate(scene->file_fd, 4096) == 0, "memfd");
}

void scene_deinit(struct scene *scene)
{
    crowd_deinit(&scene->crowd);
    (void)close(scene->file_fd);
}

static struct lki_lock_hot *hot_of(const struct scene *scene, const struct call *call)
{
    return &scene->crowd.segments[call->kind]->area.hot[CROWD_LOCK];
}

pid_t scene_set(struct scene *scene, const struct call *call, bool slow)
{
    crowd_begin(&scene->crowd, call->parts);
    atomic_store(&scene->shared->result, -1);
    pid_t pid = call_start(call, &scene->crowd, scene->shared, scene->file_fd, slow);
    for (unsigned i = 0; i < CROWD_ACTORS && call->parts[i].how != CROWD_ABSENT; i++)
        crowd_cast(&scene->crowd, i, call->kind, &call->parts[i]);
    if (call->before == BEFORE_PENDING) {
        if (scene->asks)
            scene->asks(scene);
        tracer_continue(pid); /* it asks */
        tracer_await_stop(pid);
    }
    scene->held_sequence = atomic_load(&hot_of(scene, call)->sequence);
    return pid;
}

void scene_await_upgrade(struct scene *scene, const struct call *call)
{
    uint64_t deadline_ns = lki_clock_now_ns() + scene->crowd.stuck_ns;
    for (uint64_t now_ns = 0; atomic_load(&hot_of(scene, call)->word) & LKI_UPDATE;
         now_ns = lki_clock_now_ns()) {
        test_check(now_ns < deadline_ns, "the upgrade does not begin");
        test_sleep_ns(CROWD_SHORT_NS);
    }
}

bool scene_release_comes(const struct scene *scene, const struct call *call)
{
    return call->what == CALL_RELEASE && call->before == BEFORE_X &&
           atomic_load(&scene->shared->result) == 0 &&
           atomic_load(&hot_of(scene, call)->sequence) == scene->held_sequence;
}

bool scene_may_expire(const struct call *call)
{
    return call->what == CALL_TIMED && call->kind == CROWD_STRICT &&
           call->parts[0].how == CROWD_HOLDS && call->parts[0].when == CROWD_AT_WAIT;
}

/* The broker waits on behalf of the victim, and whoever is before it goes on while it stands still. */
static bool waits_in_broker(const struct scene *scene, const struct call *call)
{
    bool brokered = call->kind == CROWD_STRICT || call->what == CALL_ASYNC || call->async;
    bool exclusive = call->mode == 'X' || call_is_upgrade(call);
    return brokered && exclusive && call->parts[0].how == CROWD_HOLDS &&
           call->parts[0].when == CROWD_AT_WAIT && crowd_is_cued(&scene->crowd);
}

/* No other process changes the word and sequence of a stopped owner; and the broker, which may do it on
 * its behalf, is asked whom it sees between two looks that have to be alike. */
void scene_sample(struct scene *scene, const struct call *call, pid_t pid,
                  struct sample *out_sample)
{
    const struct lki_lock_hot *hot = hot_of(scene, call);
    uint64_t deadline_ns = lki_clock_now_ns() + scene->crowd.stuck_ns;
    for (;;) {
        out_sample->word = atomic_load(&hot->word);
        out_sample->sequence = atomic_load(&hot->sequence);
        out_sample->owns =
            crowd_settle(&scene->crowd, call->kind) == pid && (out_sample->word & LKI_ID_MASK) != 0;
        bool granted = out_sample->owns && (out_sample->sequence & 1); /* else it drains */
        bool grant_comes = !granted && waits_in_broker(scene, call);
        if (!grant_comes && out_sample->word == atomic_load(&hot->word) &&
            out_sample->sequence == atomic_load(&hot->sequence))
            return;
        if (grant_comes && lki_clock_now_ns() > deadline_ns) {
            crowd_violation(&scene->crowd, "stuck: the victim's request is never granted");
            return;
        }
    }
}

/* What a call for update, or one that changes a mode, has left, is what it gave. */
static void check_change(struct scene *scene, const struct call *call, const struct sample *sample)
{
    int result = atomic_load(&scene->shared->result);
    bool odd = sample->owns && (sample->sequence & 1);
    bool expected_odd = call_is_upgrade(call) && result >= LK_ACQUIRED;
    bool expected = call_is_upgrade(call) || call->what == CALL_TO_UPDATE ||
                    (call->what <= CALL_ASYNC && result >= LK_ACQUIRED);
    if (call->what == CALL_CANCEL || call->what == CALL_CLOSE_SEGMENT || call->what == CALL_RELEASE)
        return;
    if (sample->owns != expected || odd != expected_odd)
        crowd_violation(
            &scene->crowd,
            "mode: the call gave %d, it owns the lock: %d, and the sequence is %" PRIu64, result,
            sample->owns, sample->sequence);
    if (sample->owns && !odd != ((sample->word & LKI_UPDATE) != 0))
        crowd_violation(&scene->crowd, "mode: the word is %#x", sample->word);
}

void scene_check_sample(struct scene *scene, const struct call *call, enum scene_when when,
                        const struct sample *sample)
{
    struct crowd_judge *judge = &scene->crowd.shared->judges[call->kind];
    bool odd = sample->owns && (sample->sequence & 1);
    scene->settled++;
    scene->inside += sample->owns;
    scene->damaged += odd;
    if (scene->planted == MISTAKE_TWICE && odd)
        crowd_enter(&scene->crowd, call->kind, CROWD_PROBER, 'X', sample->sequence + 2);
    uint32_t writer = atomic_load(&judge->writer);
    uint32_t readers = atomic_load(&judge->readers);
    if ((sample->owns && writer != 0) || (odd && readers != 0))
        crowd_violation(&scene->crowd, "double grant: %u writes and %u read beside the victim",
                        writer, readers);
    if (scene->planted == MISTAKE_TWICE && odd)
        crowd_leave(&scene->crowd, call->kind, CROWD_PROBER, 'X');
    if (when == SCENE_AT_START && call->before == BEFORE_X && !odd)
        crowd_violation(&scene->crowd, "hold: the victim's is not there before the call");
    if (when == SCENE_AT_START && call->before == BEFORE_U && (!sample->owns || odd))
        crowd_violation(&scene->crowd, "hold: that for update is not there before the call");
    if (when == SCENE_AT_END && call->age == 2)
        check_change(scene, call, sample);
    int result = atomic_load(&scene->shared->result);
    bool acquires = call->what >= CALL_ACQUIRE && call->what <= CALL_DISPATCH;
    bool holds =
        acquires && call->mode == 'X' && result >= LK_ACQUIRED && call->what != CALL_CANCEL;
    if (when == SCENE_AT_END && acquires && call->mode == 'X' && call->what != CALL_CANCEL &&
        holds != odd)
        crowd_violation(&scene->crowd, "hold: the call gave %d, and the sequence is %" PRIu64,
                        result, sample->sequence);
    if (when == SCENE_AT_END && call->refused && call->what != CALL_TIMED && !holds)
        crowd_violation(&scene->crowd, "barrier: nobody made one, and the call gave %d", result);
}

/* Before it is awaited that everything is as it was. */
static void plant_leak(struct scene *scene)
{
    struct lki_area *area = &scene->crowd.segments[CROWD_NATIVE]->area;
    if (scene->planted == MISTAKE_DESCRIPTOR)
        scene->crowd.frozen = true;
    if (scene->planted == MISTAKE_SLOT)
        atomic_store(&area->attachments[CROWD_SLOTS].id, CROWD_SLOTS);
    if (scene->planted == MISTAKE_DESCRIPTOR)
        scene->crowd.descriptors--;
}

/* And afterwards, as if the repair had gone wrong. */
static void plant_in_word(struct scene *scene, const struct call *call, const struct sample *sample)
{
    struct lki_lock_hot *hot = hot_of(scene, call);
    const struct lki_area *area = &scene->crowd.segments[call->kind]->area;
    if (call->kind != CROWD_NATIVE || !sample->owns || !(sample->sequence & 1))
        return;
    if (scene->planted == MISTAKE_UNTOLD)
        atomic_fetch_and(&hot->word, ~LKI_DIED);
    if (scene->planted == MISTAKE_TOKEN)
        atomic_fetch_sub(&hot->sequence, 8);
    if (scene->planted == MISTAKE_HOLD) /* an actor's: it lives, so nobody frees it */
        atomic_fetch_or(&hot->word, atomic_load(&area->attachments[1].id));
}

/* Whoever got the lock after the death is told what the sequence said. */
static void check_actors(struct scene *scene, const struct call *call, const struct sample *sample)
{
    bool odd = sample->owns && (sample->sequence & 1);
    if (!sample->settled && !call_always_dies(call))
        return; /* a grant may have come afterwards; see died_of() */
    for (unsigned i = 0; i < CROWD_ACTORS && call->parts[i].how != CROWD_ABSENT; i++) {
        const struct crowd_actor *actor = &scene->crowd.shared->actors[i];
        bool died = call_always_dies(call) || (odd && actor->token >= sample->sequence);
        if (actor->died != died)
            crowd_violation(&scene->crowd, "owner-died: actor %u was told %d instead of %d", i,
                            actor->died, died);
    }
}

/* Whether the next one has to be told, as far as that can be known. */
static bool died_of(struct scene *scene, const struct call *call, const struct sample *sample)
{
    if (call_always_dies(call))
        return true;
    if (sample->settled)
        return sample->owns && (sample->sequence & 1);
    return atomic_load(&hot_of(scene, call)->word) & LKI_DIED;
}

static void check_record(struct scene *scene, const struct call *call, const struct sample *sample,
                         pid_t pid)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    int r = lk_lock_recovery(scene->crowd.locks[call->kind], &recovery);
    if (!sample->owns || !(sample->sequence & 1) || scene->planted != MISTAKE_NONE)
        return;
    if (r != 0 || recovery.pid != pid || recovery.token != sample->sequence)
        crowd_violation(&scene->crowd,
                        "record: %d, of pid %d and token %" PRIu64 ", not %d and %" PRIu64, r,
                        (int)recovery.pid, recovery.token, (int)pid, sample->sequence);
    bool torn = recovery.dirty_offset != 100 || recovery.dirty_length_bytes != 28;
    if (recovery.declared && (call->what != CALL_DECLARE || torn))
        crowd_violation(&scene->crowd, "record: half of a declaration");
}

/* The name of what it made is free again. */
static void check_name(struct scene *scene, const struct call *call)
{
    if (call->what != CALL_CREATE && call->what != CALL_OFFER)
        return;
    struct lk_segment *segment = NULL;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE_NEW};
    int r = lk_segment_open(scene->crowd.session, CALL_NEW_NAME, &options, &segment);
    if (r != LK_CREATED)
        crowd_violation(&scene->crowd, "name: what the victim made is still there: %d, %s", r,
                        lk_last_error());
    lk_segment_close(segment);
}

void scene_end(struct scene *scene, const struct call *call, pid_t pid, const struct sample *sample,
               uint64_t died_ns)
{
    /* A request that waits in the broker may still be granted until it has seen the end of whoever
     * made it. Where it is to be known what the dead one held, nobody makes room before. */
    if (sample->settled && !crowd_await_fellows(&scene->crowd, call->kind)) {
        scene->stuck = true;
        return;
    }
    crowd_end(&scene->crowd);
    scene->stuck = !crowd_await_all(&scene->crowd);
    if (scene->stuck)
        return;
    check_actors(scene, call, sample);
    plant_leak(scene);
    scene->stuck = !crowd_await_baseline(&scene->crowd);
    if (scene->stuck)
        return;
    bool died = died_of(scene, call, sample);
    if (scene->planted == MISTAKE_TOLD && call->kind == CROWD_NATIVE && !died)
        atomic_fetch_or(&hot_of(scene, call)->word, LKI_DIED);
    plant_in_word(scene, call, sample);
    scene->stuck = !crowd_probe(&scene->crowd, call->kind, died, died_ns);
    if (scene->stuck)
        return;
    check_record(scene, call, sample, pid);
    check_name(scene, call);
}
