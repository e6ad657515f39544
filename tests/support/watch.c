/* SPDX-License-Identifier: MIT */
#include "tests/support/watch.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/process.h"

/* The content of a small file of /proc; empty when there is none. */
static void read_small(const char *path, char *out, size_t size)
{
    out[0] = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    size_t length = fread(out, 1, size - 1, file);
    out[length] = 0;
    fclose(file);
}

char test_process_state(pid_t pid)
{
    char path[64];
    char text[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    read_small(path, text, sizeof(text));
    const char *after_name = strrchr(text, ')'); /* the name may hold anything, brackets too */
    return after_name && after_name[1] == ' ' ? after_name[2] : 0;
}

static uint64_t status_number(const char *text, const char *key)
{
    const char *line = strstr(text, key);
    return line ? strtoull(line + strlen(key), NULL, 10) : 0;
}

uint64_t test_process_switches(pid_t pid)
{
    char path[300];
    char text[4096];
    uint64_t sum = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    test_check(tasks != NULL, "opendir %s", path);
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        read_small(path, text, sizeof(text));
        test_check(strstr(text, "\nvoluntary_ctxt_switches:"), "no switches in %s", path);
        sum += status_number(text, "\nvoluntary_ctxt_switches:");
        sum += status_number(text, "\nnonvoluntary_ctxt_switches:");
    }
    closedir(tasks);
    return sum;
}

uint64_t test_process_resident_kib(pid_t pid)
{
    char path[64];
    char text[4096];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    read_small(path, text, sizeof(text));
    return status_number(text, "\nVmRSS:");
}

uint64_t test_process_ticks(pid_t pid)
{
    char path[64];
    char text[1024];
    unsigned long user = 0;
    unsigned long system = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    read_small(path, text, sizeof(text));
    const char *after_name = strrchr(text, ')');
    int fields = after_name
                     ? sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                              &user, &system)
                     : 0;
    test_check(fields == 2, "no times in %s", path);
    return user + system;
}

unsigned test_process_descriptors(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    test_check(directory != NULL, "opendir %s", path);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

void test_process_show_descriptors(pid_t pid)
{
    char path[300];
    char target[256];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
        if (length < 0)
            continue; /* "." and ".." */
        target[length] = 0;
        fprintf(stderr, "descriptor %s: %s\n", entry->d_name, target);
    }
    closedir(directory);
}

void test_process_describe(pid_t pid, char *out, size_t size)
{
    char path[64];
    char call[128];
    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    read_small(path, call, sizeof(call));
    call[strcspn(call, "\n")] = 0;
    char state = test_process_state(pid);
    snprintf(out, size, "state %c, system call %s", state ? state : '-', call);
}

/* The value of a line of /proc/PID/status. */
static const char *status_text(const char *text, const char *key, char *out, size_t size)
{
    const char *line = strstr(text, key);
    snprintf(out, size, "%.*s", line ? (int)strcspn(line + strlen(key), "\n") : 1,
             line ? line + strlen(key) : "-");
    return out;
}

static void show_task(pid_t pid, const char *task)
{
    char path[300], text[4096], wait[64], call[128], state[32], own[32], shared[32], blocked[32];
    snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan", (int)pid, task);
    read_small(path, wait, sizeof(wait));
    snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", (int)pid, task);
    read_small(path, call, sizeof(call));
    call[strcspn(call, "\n")] = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)pid, task);
    read_small(path, text, sizeof(text));
    fprintf(stderr, "  %d/%s %.*s: ", (int)pid, task, (int)strcspn(text, "\n"), text);
    snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, task);
    read_small(path, text, sizeof(text));
    fprintf(stderr,
            "state %s, traced by %" PRIu64 ", pending %s %s, blocked %s, in %s, system call %s\n",
            status_text(text, "\nState:\t", state, sizeof(state)),
            status_number(text, "\nTracerPid:"), status_text(text, "\nSigPnd:\t", own, sizeof(own)),
            status_text(text, "\nShdPnd:\t", shared, sizeof(shared)),
            status_text(text, "\nSigBlk:\t", blocked, sizeof(blocked)), wait, call);
}

void test_process_show_tree(pid_t pid)
{
    char path[300], children[4096];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        show_task(pid, entry->d_name);
        snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, entry->d_name);
        read_small(path, children, sizeof(children));
        for (char *rest, *word = strtok_r(children, " ", &rest); word;
             word = strtok_r(NULL, " ", &rest))
            test_process_show_tree((pid_t)strtol(word, NULL, 10));
    }
    closedir(tasks);
}

double test_load_average(void)
{
    char text[64];
    read_small("/proc/loadavg", text, sizeof(text));
    return strtod(text, NULL);
}
