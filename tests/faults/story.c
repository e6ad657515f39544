/* SPDX-License-Identifier: MIT */
#include "tests/faults/story.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/admin.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define DATA_BYTES 8192u
#define DATA_BYTES_MAX 65536u
#define SHORT_NS                                                                                   \
    (3 * LKI_NS_PER_MS) /* longer than the first nap, after which the broker is asked */
#define ANSWER_NS (8 * LKI_NS_PER_S)

const char *story_violation;

static int violate(const char *what)
{
    if (story_violation == NULL)
        story_violation = what;
    return -ENOTRECOVERABLE;
}

static int open_session(const struct story *story, struct lk_session **out)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    return *out != NULL ? 0 : lk_session_open(story->socket_path, &options, out);
}

/* --- Opening --- */

static int open_a(struct story *story)
{
    return open_session(story, &story->a);
}

static int create(struct story *story)
{
    const struct lk_segment_options options = {
        .size = sizeof(options),
        .size_bytes = DATA_BYTES,
        .size_max_bytes = DATA_BYTES_MAX,
        .locks = 8,
        .attachments_max = 8,
        .flags = LK_CREATE | LK_UNPUBLISHED | LK_RESERVE,
    };
    return lk_segment_open(story->a, story->name, &options, &story->segment);
}

static int map(struct story *story)
{
    void *data = NULL;
    int r = lk_segment_map(story->segment, 0, 0, &data);
    if (r == 0) {
        story->data = data;
        story->data[0] = 1;
    }
    return r;
}

static int publish(struct story *story)
{
    return lk_segment_publish(story->segment);
}

static int lock_handles(struct story *story)
{
    int r = story->lock != NULL ? 0 : lk_lock_at(story->segment, 0, &story->lock);
    if (r == 0 && story->victims == NULL)
        r = lk_lock_at(story->segment, 2, &story->victims);
    if (r == 0 && story->second == NULL)
        r = lk_lock_named(story->segment, "second", &story->second);
    return r;
}

static int open_b(struct story *story)
{
    int r = open_session(story, &story->b);
    if (r == 0 && story->segment_b == NULL)
        r = lk_segment_open(story->b, story->name, NULL, &story->segment_b);
    if (r >= 0 && story->lock_b == NULL)
        r = lk_lock_at(story->segment_b, 0, &story->lock_b);
    return r;
}

static int open_c(struct story *story)
{
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    int r = open_session(story, &story->c);
    if (r == 0 && story->segment_c == NULL)
        r = lk_segment_open(story->c, story->name, &options, &story->segment_c);
    if (r >= 0 && story->lock_c == NULL)
        r = lk_lock_at(story->segment_c, 0, &story->lock_c);
    if (r >= 0 && story->second_c == NULL)
        r = lk_lock_named(story->segment_c, "second", &story->second_c);
    return r;
}

/* --- Locking --- */

static int lock_a(struct story *story)
{
    int r = story->a_holds ? 0 : lk_lock_acquire(story->lock, LK_EXCLUSIVE, ANSWER_NS);
    story->a_holds = story->a_holds || r >= 0;
    return r;
}

static int find_it_locked(struct story *story)
{
    int r = lk_lock_acquire(story->lock_b, LK_EXCLUSIVE, SHORT_NS);
    if (r >= 0)
        return violate("the same lock was granted twice");
    return r == -ETIMEDOUT ? 0 : r;
}

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct story *story = user;
    (void)lock;
    story->pending = false;
    story->answer = result;
    story->c_holds = story->c_holds || result >= 0;
}

static int wait_in_c(struct story *story)
{
    if (story->pending || story->c_holds)
        return 0;
    int r = lk_lock_acquire_async(story->lock_c, LK_EXCLUSIVE, LK_WAIT_FOREVER, on_acquired, story);
    story->pending = r == 0;
    return r;
}

static int ask_for_holder(struct story *story)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    int r = lk_lock_holder(story->lock_b, &holder);
    if (r == 0 && holder.pid != getpid())
        return violate("the holder of the lock is not named");
    return r;
}

static int release_a(struct story *story)
{
    int r = story->a_holds ? lk_lock_release(story->lock) : 0;
    story->a_holds = story->a_holds && r < 0;
    return r;
}

/* Until the callback has come. */
static int hear_c(struct story *story)
{
    uint64_t deadline_ns = lki_clock_now_ns() + ANSWER_NS;
    int r = wait_in_c(story);
    while (r >= 0 && story->pending) {
        if (lki_clock_now_ns() > deadline_ns)
            return violate("an asynchronous acquire was never answered");
        r = lk_session_fd(story->c);
        if (r < 0)
            return r;
        struct pollfd ready = {.fd = r, .events = POLLIN};
        (void)poll(&ready, 1, 100);
        r = lk_session_dispatch(story->c);
    }
    return r < 0 || story->c_holds ? r : story->answer;
}

static int release_c(struct story *story)
{
    int r = story->c_holds ? lk_lock_release(story->lock_c) : 0;
    if (r == 0)
        story->c_holds = false;
    return r;
}

/* a holds the first lock, c the second and waits for the first; a must not wait for the second. */
static int close_ring(struct story *story)
{
    int r = lock_a(story);
    if (r >= 0)
        r = lk_lock_acquire(story->second_c, LK_EXCLUSIVE, ANSWER_NS);
    if (r == -EDEADLK) /* held since an attempt before this one */
        r = 0;
    if (r >= 0)
        r = wait_in_c(story);
    if (r < 0)
        return r;
    r = lk_lock_acquire(story->second, LK_EXCLUSIVE, SHORT_NS);
    if (r >= 0)
        return violate("the second lock was granted twice");
    return r == -EDEADLK || r == -ETIMEDOUT ? 0 : r;
}

static int cancel_c(struct story *story)
{
    int r = story->pending ? lk_lock_cancel(story->lock_c) : 0;
    if (r >= 0 && story->pending)
        r = lk_session_dispatch(story->c);
    if (r < 0)
        return r;
    if (story->c_holds)
        return violate("what was to be cancelled was granted, although another holds it");
    return lk_lock_release(story->second_c);
}

static int read_shared(struct story *story)
{
    int r = release_a(story);
    if (r >= 0)
        r = lk_lock_acquire(story->lock_b, LK_SHARED, ANSWER_NS);
    if (r >= 0)
        r = lk_lock_acquire(story->lock, LK_SHARED, ANSWER_NS);
    if (r >= 0)
        r = lk_lock_release(story->lock);
    int released = lk_lock_release(story->lock_b);
    return r < 0 ? r : released;
}

/* --- Files, sizes, lists --- */

static int offer(struct story *story)
{
    char name[64];
    void *data = NULL;
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .locks = 2, .flags = LK_CREATE | LK_GUARD};
    (void)snprintf(name, sizeof(name), "f%s", story->name);
    int r = story->file != NULL
                ? 0
                : lk_segment_offer(story->a, name, story->file_fd, &options, &story->file);
    if (r >= 0)
        r = lk_segment_map(story->file, 0, 0, &data);
    if (r >= 0)
        r = lk_segment_unmap(story->file, data);
    return r;
}

static int read_offered(struct story *story)
{
    char name[64];
    struct lk_segment *file = NULL;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    (void)snprintf(name, sizeof(name), "f%s", story->name);
    int r = lk_segment_open(story->c, name, &options, &file);
    lk_segment_close(file);
    return r;
}

static int grow(struct story *story)
{
    return lk_segment_grow(story->segment, 4 * DATA_BYTES);
}

static int count_entry(const struct lki_list_entry *entry, void *user)
{
    unsigned *count = user;
    (void)entry;
    ++*count;
    return 0;
}

static int list(struct story *story)
{
    unsigned count = 0;
    int r = lki_admin_list(story->b, LKI_LIST_SEGMENTS, NULL, count_entry, &count);
    if (r == 0)
        r = lki_admin_list(story->b, LKI_LIST_LOCKS, story->name, count_entry, &count);
    return r;
}

/* --- A death --- */

static int be_victim(const struct story *story, int ready_fd)
{
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    if (lk_session_open(story->socket_path, &options, &session) < 0 ||
        lk_segment_open(session, story->name, NULL, &segment) < 0 ||
        lk_lock_at(segment, 2, &lock) < 0 || lk_lock_acquire(lock, LK_EXCLUSIVE, ANSWER_NS) < 0)
        return 1;
    (void)!write(ready_fd, "", 1);
    for (;;)
        (void)pause();
}

/* A process that holds the third lock. */
static pid_t start_victim(const struct story *story)
{
    int ready[2];
    char byte;
    pid_t parent = getpid();
    if (pipe(ready) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? be_victim(story, ready[1]) : 1);
    }
    (void)close(ready[1]);
    bool holds = pid > 0 && read(ready[0], &byte, 1) == 1;
    (void)close(ready[0]);
    if (pid > 0 && !holds) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    return holds ? pid : -1;
}

static int end_by_force(struct story *story)
{
    if (!story->fork_victim)
        return 0;
    uint64_t ended = 0;
    pid_t pid = start_victim(story);
    if (pid < 0)
        return -ECHILD;
    int r = lki_admin_force_release(story->b, story->name, 2, NULL, "a test", &ended);
    if (r < 0)
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (r < 0)
        return r;
    r = lk_lock_acquire(story->victims, LK_EXCLUSIVE, ANSWER_NS);
    if (r == LK_ACQUIRED)
        return violate("nobody was told that the owner died");
    if (r == LK_ACQUIRED_OWNER_DIED)
        r = lk_lock_mark_consistent(story->victims);
    int released = lk_lock_release(story->victims);
    return r < 0 ? r : released;
}

/* --- The end --- */

static int end_segments(struct story *story)
{
    story->file = lk_segment_close(story->file);
    int r = lk_segment_remove(story->b, story->name);
    return r == -ENOENT ? 0 : r; /* removed by the attempt before this one */
}

static int close_sessions(struct story *story)
{
    story_end(story);
    return 0;
}

const struct story_step story_steps[] = {
    {"open the first session", open_a},
    {"create the segment", create},
    {"map", map},
    {"publish", publish},
    {"open locks", lock_handles},
    {"lock", lock_a},
    {"open the second session", open_b},
    {"open read-only", open_c},
    {"wait for a lock in vain", find_it_locked},
    {"wait asynchronously", wait_in_c},
    {"ask for the holder", ask_for_holder},
    {"release", release_a},
    {"hear of the lock", hear_c},
    {"release through the broker", release_c},
    {"close a ring", close_ring},
    {"cancel", cancel_c},
    {"lock shared", read_shared},
    {"offer a file", offer},
    {"open the file read-only", read_offered},
    {"grow", grow},
    {"list", list},
    {"end a holder", end_by_force},
    {"remove", end_segments},
    {"close", close_sessions},
};
const unsigned story_step_count = LKI_ARRAY_LENGTH(story_steps);

unsigned story_takeover_step(void)
{
    for (unsigned i = 0; i < story_step_count; i++)
        if (story_steps[i].act == ask_for_holder)
            return i;
    return 0;
}

void story_end(struct story *story)
{
    story->c = lk_session_close(story->c);
    story->b = lk_session_close(story->b);
    story->a = lk_session_close(story->a);
    *story = (struct story){.socket_path = story->socket_path,
                            .name = story->name,
                            .file_fd = story->file_fd,
                            .fork_victim = story->fork_victim};
}
