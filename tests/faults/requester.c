/* SPDX-License-Identifier: MIT */
#include "tests/faults/requester.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/faults/story.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

static __attribute__((format(printf, 2, 3))) void violate(struct stage_outcome *outcome,
                                                          const char *format, ...)
{
    va_list arguments;
    if (outcome->violation[0] != '\0')
        return;
    va_start(arguments, format);
    (void)vsnprintf(outcome->violation, sizeof(outcome->violation), format, arguments);
    va_end(arguments);
}

static void set_on(const struct stage *stage, uint32_t on)
{
    for (int side = 0; side < STAGE_SIDES; side++)
        atomic_store(&stage->control[side]->on, on);
}

/* What the worker still does about others is not to fail for what this one asks. */
static void await_idle_worker(const struct stage *stage)
{
    for (int i = 0; i < 5000 && !atomic_load(&stage->control[STAGE_BROKER]->idle); i++)
        test_sleep_ns(LKI_NS_PER_MS / 20);
}

static void disarm(const struct stage *stage)
{
    for (int side = 0; side < STAGE_SIDES; side++)
        atomic_store(&stage->control[side]->plan.call, FAULTS_CALLS);
}

static bool has_fired(const struct stage *stage, const struct stage_fault *fault)
{
    return atomic_load(&stage->control[fault->side]->plan.fired) > 0;
}

/* The worker is killed by whoever may reap nothing: the driver. */
static void have_worker_killed(struct stage *stage)
{
    atomic_store(&stage->outcome->kill, 1);
    while (atomic_load(&stage->outcome->kill) != 0)
        test_sleep_ns(LKI_NS_PER_MS / 10);
}

/* Everything once more from the beginning, in new sessions: what was held may stay with the old
 * ones until this process ends. */
static void tell_anew(struct stage *stage, const struct story *told)
{
    char name[48];
    struct story story = {.socket_path = told->socket_path, .name = name, .file_fd = told->file_fd};
    (void)snprintf(name, sizeof(name), "again-%s", told->name);
    stage->outcome->restarted = true;
    for (unsigned i = 0; i < story_step_count; i++) {
        atomic_fetch_add(&stage->outcome->progress, 1);
        int r = story_steps[i].act(&story);
        if (r < 0) {
            violate(stage->outcome, "'%s' fails in new sessions too: %d, %s", story_steps[i].name,
                    r, lk_last_error());
            break;
        }
    }
    story_end(&story);
}

/* False: the story goes no further. */
static bool repeat(struct stage *stage, const struct stage_fault *fault, struct story *story,
                   unsigned step, int result)
{
    struct stage_outcome *outcome = stage->outcome;
    char words[300];
    (void)snprintf(words, sizeof(words), "%s", lk_last_error());
    outcome->result = result;
    outcome->failed_step = step;
    if (!has_fired(stage, fault)) {
        violate(outcome, "'%s' fails without a fault: %d, %s", story_steps[step].name, result,
                words);
        return false;
    }
    disarm(stage);
    int r = story_steps[step].act(story);
    if (r >= 0)
        return true;
    /* Whose connection is gone, or was refused, has been told so, and has to open another session.
     * The library does that by itself before the first answer; what the lost one has made is its
     * process's until that ends. */
    bool refused = strstr(words, "refuses this client") != NULL;
    bool lost_early = r == -EAGAIN && result == -EAGAIN;
    if (r != -ECONNRESET && r != -EPROTO && result != -ECONNRESET && !refused && !lost_early)
        violate(outcome, "'%s' fails with %d (%s), and repeated with %d (%s)",
                story_steps[step].name, result, words, r, lk_last_error());
    tell_anew(stage, story);
    return false;
}

static unsigned count_descriptors(void)
{
    return test_process_descriptors(getpid());
}

/* Maps of ours that are left. */
static unsigned count_maps(void)
{
    unsigned count = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fgets(line, sizeof(line), maps) != NULL)
        count += strstr(line, "memfd:lockkeeper") != NULL;
    if (maps != NULL)
        (void)fclose(maps);
    return count;
}

static void tell(struct stage *stage, const struct stage_fault *fault, struct story *story)
{
    bool armed = !fault->takeover;
    for (unsigned step = 0; step < story_step_count; step++) {
        atomic_store(&stage->outcome->step, step);
        atomic_fetch_add(&stage->outcome->progress, 1);
        await_idle_worker(stage);
        set_on(stage, armed);
        if (fault->takeover && step == story_takeover_step()) {
            set_on(stage, 1);
            have_worker_killed(stage);
        }
        int r = story_steps[step].act(story);
        set_on(stage, 0);
        if (r < 0 && !repeat(stage, fault, story, step, r))
            break;
        innocent_take_turn(&stage->innocent);
    }
    story_end(story);
    disarm(stage);
}

/* One session, so that what the C library keeps for itself is there before anything is counted. */
static void warm_up(const struct stage *stage)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    (void)lk_session_open(stage->socket_path, &options, &session);
    lk_session_close(session);
    (void)count_maps();
    (void)count_descriptors();
}

int requester_live(struct stage *stage, const struct stage_fault *fault)
{
    struct faults_control *own = stage->control[STAGE_CLIENT];
    char name[32];
    struct story story = {.socket_path = stage->socket_path,
                          .name = name,
                          .file_fd = stage->file_fd,
                          .fork_victim = true};
    (void)snprintf(name, sizeof(name), "story-%llu", (unsigned long long)stage->serial);
    atomic_store(&own->main_pid, getpid());
    warm_up(stage);
    unsigned descriptors = count_descriptors();
    unsigned maps = count_maps();
    int64_t blocks = atomic_load(&own->heap[FAULTS_MAIN].blocks);

    tell(stage, fault, &story);

    struct stage_outcome *outcome = stage->outcome;
    if (story_violation != NULL)
        violate(outcome, "%s", story_violation);
    int64_t left = atomic_load(&own->heap[FAULTS_MAIN].blocks) - blocks;
    if (left != 0)
        violate(outcome, "the requester keeps %lld blocks of memory", (long long)left);
    if (count_descriptors() != descriptors)
        violate(outcome, "the requester keeps %d descriptors",
                (int)count_descriptors() - (int)descriptors);
    if (count_maps() != maps)
        violate(outcome, "the requester keeps %d maps", (int)count_maps() - (int)maps);
    atomic_store(&outcome->done, 1);
    return 0;
}
