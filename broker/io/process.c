/* SPDX-License-Identifier: MIT */
#include "broker/io/process.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1 /* the default ends the daemon */
#define uthash_nonfatal_oom(element) ((element)->hashed = false)
#include <uthash.h>

#include "broker/io/proc.h"
#include "common/assert.h"
#include "common/fd.h"

#define LOOKS_MAX 3u

/* The kernel takes about 20 ms for the memory of a process that has touched 256 MB, and its pidfd
 * comes after that. So while somebody waits for a process of that kind it is looked at again and
 * again, until its waiters would have asked anew: their naps last at most 250 ms. */
#define LARGE_RESIDENT_BYTES (UINT64_C(16) << 20)
#define LOOK_EVERY_MS 3u
#define UNWATCHED_EVERY_MS 250u
#define LARGE_LOOKS_MAX (LOOKS_MAX + 280u / LOOK_EVERY_MS)

struct lkd_watched {
    struct lkd_processes *processes;
    struct lkd_process_key key;
    uint64_t number;
    int32_t pid;
    int pidfd;
    uint32_t references;
    struct lki_list links;
    bool ended;
    bool watching;         /* `watch` is a handle of the loop */
    bool hashed;           /* false while a table had no memory to take it */
    uint32_t looks;        /* taken since it was last asked for */
    uint32_t looks_max;    /* to be taken since then */
    uint32_t open_handles; /* freed when the last one is closed */
    uv_poll_t watch;
    uv_timer_t next_look;
    UT_hash_handle by_key;
    UT_hash_handle by_number;
};

void lkd_processes_init(struct lkd_processes *processes, uv_loop_t *loop,
                        lkd_process_ended_fn ended, void *user)
{
    *processes = (struct lkd_processes){.loop = loop, .ended = ended, .user = user};
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct lkd_watched *process = handle->data;
    LKI_ASSERT(process->open_handles > 0);
    if (--process->open_handles > 0)
        return;
    process->pidfd = lki_close(process->pidfd);
    free(process);
}

static void say_ended(struct lkd_watched *process)
{
    if (process->ended)
        return;
    process->ended = true;
    process->processes->ended(process, process->processes->user); /* somebody may wait for that */
    if (process->references == 0)
        return; /* its last session was forgotten: the handles are being closed */
    if (process->watching)
        (void)uv_poll_stop(&process->watch);
    (void)uv_timer_stop(&process->next_look);
}

static void on_pidfd(uv_poll_t *watch, int status, int events)
{
    (void)events;
    /* An error of the watch says nothing about the process; poll(2) on the pidfd does. */
    struct lkd_watched *process = watch->data;
    struct pollfd look = {.fd = process->pidfd, .events = POLLIN};
    if (status == 0 || poll(&look, 1, 0) > 0)
        say_ended(process);
}

/* What poll(2) says of the pidfd: 1, it has ended; 0, it has not; less: nobody knows. Asked without a
 * signal in between, since a poll that fails says nothing about the process. */
static int poll_end(const struct lkd_watched *process)
{
    struct pollfd look = {.fd = process->pidfd, .events = POLLIN};
    int r;
    do
        r = poll(&look, 1, 0);
    while (r < 0 && errno == EINTR);
    return r;
}

/* For certain: else the locks of a living process would be given to others. */
static bool has_ended(const struct lkd_watched *process)
{
    return poll_end(process) > 0;
}

void lkd_watched_look(struct lkd_watched *process)
{
    if (has_ended(process) || lkd_proc_life(process->pid) == LKD_PROC_EXITING)
        say_ended(process);
}

/* Whether the pid still means this process, for certain: a pid is given again only after its process
 * was reaped, and then the pidfd is readable. */
static bool is_unreaped(const struct lkd_watched *process)
{
    return poll_end(process) == 0;
}

static void on_next_look(uv_timer_t *timer);

static void look(struct lkd_watched *process)
{
    process->looks++;
    if (process->looks == LOOKS_MAX &&
        lkd_proc_resident_bytes(process->pid) >= LARGE_RESIDENT_BYTES)
        process->looks_max = LARGE_LOOKS_MAX;
    if (lkd_proc_life(process->pid) == LKD_PROC_EXITING || has_ended(process))
        say_ended(process);
    else if (process->looks < process->looks_max)
        (void)uv_timer_start(&process->next_look, on_next_look,
                             process->looks == 1 ? 1 : LOOK_EVERY_MS, 0);
}

static void on_next_look(uv_timer_t *timer)
{
    look(timer->data);
}

static bool remember(struct lkd_watched *process)
{
    struct lkd_processes *processes = process->processes;
    process->hashed = true;
    HASH_ADD(by_key, processes->by_key, key, sizeof(process->key), process);
    if (!process->hashed)
        return false;
    HASH_ADD(by_number, processes->by_number, number, sizeof(process->number), process);
    if (!process->hashed)
        HASH_DELETE(by_key, processes->by_key, process);
    return process->hashed;
}

static int watch_new(struct lkd_processes *processes, struct lkd_peer_info *info,
                     struct lkd_watched **out_process)
{
    struct lkd_watched *process = calloc(1, sizeof(*process));
    if (process == NULL)
        return -ENOMEM;
    process->processes = processes;
    process->key = info->key;
    process->number = ++processes->last_number;
    process->pid = info->peer.pid;
    process->references = 1;
    lki_list_init(&process->links);
    process->pidfd = info->pidfd;
    /* Before the first handle lives, the structure may be freed at once. */
    if (!remember(process)) {
        free(process);
        return -ENOMEM;
    }
    (void)uv_timer_init(processes->loop, &process->next_look); /* cannot fail */
    process->open_handles = 1;
    process->next_look.data = process;
    info->pidfd = -1;
    *out_process = process;
    return 0;
}

static void on_unwatched(uv_timer_t *timer)
{
    struct lkd_watched *process = timer->data;
    if (has_ended(process))
        say_ended(process);
}

void lkd_watched_start(struct lkd_watched *process)
{
    if (process->watching || process->ended)
        return;
    int r = uv_poll_init(process->processes->loop, &process->watch, process->pidfd);
    if (r == 0) {
        process->watching = true;
        process->open_handles++;
        process->watch.data = process;
        r = uv_poll_start(&process->watch, UV_READABLE, on_pidfd);
    }
    if (r < 0)
        (void)uv_timer_start(&process->next_look, on_unwatched, UNWATCHED_EVERY_MS,
                             UNWATCHED_EVERY_MS);
}

int lkd_processes_get(struct lkd_processes *processes, struct lkd_peer_info *info,
                      struct lkd_watched **out_process)
{
    struct lkd_watched *process = NULL;
    HASH_FIND(by_key, processes->by_key, &info->key, sizeof(info->key), process);
    if (process == NULL)
        return watch_new(processes, info, out_process);
    if (process->ended)
        return -ESRCH;
    process->references++;
    *out_process = process;
    return 0;
}

struct lkd_watched *lkd_watched_unref(struct lkd_watched *process)
{
    if (process == NULL)
        return NULL;
    LKI_ASSERT(process->references > 0);
    if (--process->references > 0)
        return NULL;
    HASH_DELETE(by_key, process->processes->by_key, process);
    HASH_DELETE(by_number, process->processes->by_number, process);
    process->ended = true; /* nobody is left to be told */
    if (process->watching)
        uv_close((uv_handle_t *)&process->watch, on_handle_closed);
    uv_close((uv_handle_t *)&process->next_look, on_handle_closed);
    return NULL;
}

struct lki_list *lkd_watched_links(struct lkd_watched *process)
{
    return &process->links;
}

int lkd_watched_pidfd(const struct lkd_watched *process)
{
    return process->pidfd;
}

bool lkd_processes_describe(const struct lkd_processes *processes, uint64_t number,
                            struct lkd_process_key *out_key, int32_t *out_pid)
{
    struct lkd_watched *process = NULL;
    HASH_FIND(by_number, processes->by_number, &number, sizeof(number), process);
    if (process == NULL)
        return false;
    *out_key = process->key;
    *out_pid = process->pid;
    return true;
}

uint64_t lkd_watched_number(const struct lkd_watched *process)
{
    return process->number;
}

/* The process of this number if it has not ended, else NULL. */
static struct lkd_watched *find_living(const struct lkd_processes *processes, uint64_t number)
{
    struct lkd_watched *process = NULL;
    HASH_FIND(by_number, processes->by_number, &number, sizeof(number), process);
    return process == NULL || process->ended ? NULL : process;
}

int lkd_processes_pidfd(const struct lkd_processes *processes, uint64_t number)
{
    const struct lkd_watched *process = find_living(processes, number);
    return process == NULL ? -ESRCH : process->pidfd;
}

enum lkd_process_state lkd_processes_state(struct lkd_processes *processes, uint64_t number)
{
    const struct lkd_watched *process = find_living(processes, number);
    if (process == NULL)
        return LKD_PROCESS_RUNS;
    enum lkd_process_state state = lkd_proc_state(process->pid);
    return is_unreaped(process) ? state : LKD_PROCESS_RUNS; /* else it may be another one's */
}

void lkd_processes_check(struct lkd_processes *processes, uint64_t number)
{
    struct lkd_watched *process = find_living(processes, number);
    if (process == NULL)
        return;
    if (uv_is_active((uv_handle_t *)&process->next_look)) {
        /* A look that is under way answers this question too; a large one is looked at for longer.
         */
        if (process->looks > LOOKS_MAX)
            process->looks = LOOKS_MAX;
        return;
    }
    process->looks = 0;
    process->looks_max = LOOKS_MAX;
    look(process);
}
