/* SPDX-License-Identifier: MIT */
#include "broker/io/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd.h"

/* Flags of a task in its stat line; from the kernel's include/linux/sched.h. */
#define TASK_EXITING 0x00000004u       /* PF_EXITING: inside do_exit() */
#define TASK_POST_COREDUMP 0x00000008u /* PF_POSTCOREDUMP: stopped for the dump, then do_exit() */
#define TASK_DUMPING_CORE 0x00000200u  /* PF_DUMPCORE: the one that writes the dump */

#define STAT_BYTES_MAX 1024u

/* A process with more tasks than this is left to its pidfd. */
#define TASKS_MAX 1024u

struct task_stat {
    char state;
    uint32_t flags;
    long threads;
    uint64_t start_ticks;
};

/* Reads a small file below directory_fd, zero-terminated. Returns its length or -errno. */
static ssize_t read_file(int directory_fd, const char *path, char *out_text, size_t capacity_bytes)
{
    LKI_CLEANUP(lki_close_p) int fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    ssize_t length = read(fd, out_text, capacity_bytes - 1);
    if (length < 0)
        return -errno; /* ESRCH: it ended between the two calls */
    out_text[length] = '\0';
    return length;
}

/* Errors: -EPROTO */
static int parse_stat(const char *text, struct task_stat *out_stat)
{
    /* The command stands in parentheses and may hold any byte, closing parentheses too. */
    const char *rest = strrchr(text, ')');
    if (rest == NULL)
        return -EPROTO;
    unsigned long flags;
    unsigned long long start;
    int fields = sscanf(rest + 1,
                        " %c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld "
                        "%*d %llu",
                        &out_stat->state, &flags, &out_stat->threads, &start);
    if (fields != 4)
        return -EPROTO;
    out_stat->flags = (uint32_t)flags;
    out_stat->start_ticks = start;
    return 0;
}

static int read_stat(int directory_fd, const char *path, struct task_stat *out_stat)
{
    char text[STAT_BYTES_MAX];
    ssize_t length = read_file(directory_fd, path, text, sizeof(text));
    return length < 0 ? (int)length : parse_stat(text, out_stat);
}

int lkd_proc_start_time(int32_t pid, uint64_t *out_ticks)
{
    char path[32];
    struct task_stat task;
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/stat", pid);
    int r = read_stat(AT_FDCWD, path, &task);
    if (r == 0)
        *out_ticks = task.start_ticks;
    return r;
}

void lkd_proc_command(int32_t pid, char *out_command, size_t capacity_bytes)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/comm", pid);
    ssize_t length = read_file(AT_FDCWD, path, out_command, capacity_bytes);
    if (length < 0)
        length = 0;
    if (length > 0 && out_command[length - 1] == '\n')
        length--;
    out_command[length] = '\0';
}

uint64_t lkd_proc_resident_bytes(int32_t pid)
{
    char path[32];
    char text[128];
    unsigned long long pages;
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/statm", pid);
    if (read_file(AT_FDCWD, path, text, sizeof(text)) < 0 || sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool is_task_over(const struct task_stat *task)
{
    return task->state == 'Z' || task->state == 'X' || task->state == 'x' ||
           (task->flags & (TASK_EXITING | TASK_POST_COREDUMP | TASK_DUMPING_CORE)) != 0;
}

/* Of a process that has no task but its first; false if it has more, or that cannot be told. Without
 * its list of tasks, which takes four times as long to read. A leader that was over at the first look
 * starts no other task; one that it had started before would be counted at the second. */
static bool tell_if_alone(int32_t pid, enum lkd_proc_life *out_life)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/stat", pid);
    LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int look = 0; look < 2; look++) {
        char text[STAT_BYTES_MAX];
        struct task_stat leader;
        ssize_t length = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
        if (length < 0)
            return false;
        text[length] = '\0';
        if (parse_stat(text, &leader) < 0 || leader.threads != 1)
            return false;
        *out_life = is_task_over(&leader) ? LKD_PROC_EXITING : LKD_PROC_RUNS;
        if (*out_life == LKD_PROC_RUNS)
            return true;
    }
    return true;
}

/* Counts the tasks in the list if all of them are over, else -1. With known, tasks that are not in
 * that list make it -1 as well; without, they are written to out_tids. */
static long count_over(DIR *tasks, long *out_tids, const long *known, long known_count)
{
    long count = 0;
    rewinddir(tasks);
    for (const struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        long tid = strtol(entry->d_name, NULL, 10);
        char path[300];
        struct task_stat task;
        (void)snprintf(path, sizeof(path), "%s/stat", entry->d_name);
        int r = read_stat(dirfd(tasks), path, &task);
        if (r != -ESRCH && (r < 0 || !is_task_over(&task)))
            return -1;
        if (known != NULL) {
            long i = 0;
            while (i < known_count && known[i] != tid)
                i++;
            if (i == known_count)
                return -1;
        } else if (count == (long)TASKS_MAX) {
            return -1;
        } else {
            out_tids[count] = tid;
        }
        count++;
    }
    return count;
}

/* A running task could start another one behind our back while we walk. So: walk once, all over;
 * walk again, and every task is one of those seen before. Who could have started a new one in
 * between? The directory itself may leave tasks out while others disappear from it; the kernel's
 * own count tells. */
enum lkd_proc_life lkd_proc_life(int32_t pid)
{
    char path[32];
    struct task_stat leader;
    enum lkd_proc_life life;
    if (tell_if_alone(pid, &life))
        return life;
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return LKD_PROC_RUNS; /* gone: the pidfd says so, in its own time */
    life = LKD_PROC_RUNS;
    long tids[TASKS_MAX];
    long first = count_over(tasks, tids, NULL, 0);
    if (first > 0 && count_over(tasks, NULL, tids, first) == first &&
        read_stat(dirfd(tasks), "../stat", &leader) == 0 && leader.threads == first)
        life = LKD_PROC_EXITING;
    closedir(tasks);
    return life;
}

enum lkd_process_state lkd_proc_state(int32_t pid)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "/proc/%" PRId32 "/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return LKD_PROCESS_RUNS;
    bool all_stopped = true;
    bool uninterruptible = false;
    bool traced = false;
    uint32_t count = 0;
    for (const struct dirent *entry;
         !traced && count < TASKS_MAX && (entry = readdir(tasks)) != NULL;) {
        struct task_stat task;
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/stat", entry->d_name);
        if (read_stat(dirfd(tasks), path, &task) < 0)
            continue;
        count++;
        traced = task.state == 't'; /* a tracing stop: there is a tracer, and it holds the task */
        uninterruptible = uninterruptible || task.state == 'D';
        all_stopped = all_stopped && task.state == 'T';
    }
    closedir(tasks);
    if (traced)
        return LKD_PROCESS_TRACED;
    if (uninterruptible)
        return LKD_PROCESS_UNINTERRUPTIBLE;
    return all_stopped && count > 0 ? LKD_PROCESS_STOPPED : LKD_PROCESS_RUNS;
}
