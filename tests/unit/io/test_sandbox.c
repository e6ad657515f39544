/* SPDX-License-Identifier: MIT */
/* The sandbox around one thread: it confines whichever task enters it, so that the others of the
 * process can look at it from outside. What a confined worker may and may not do, call by call, is for
 * sandbox_probe, in the release build. */
#include "broker/io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* sanitizers make calls of their own */
#else
#define SANITIZED false
#endif

struct seen {
    int entered;
    int proc_error; /* of a look at what it needs; 0: none */
    int file_error; /* of one at what is not its business */
};

static int error_of_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return error;
}

/* What the kernel says of the thread: the rest of its status file, from outside. */
static bool status_has(pid_t thread, const char *line)
{
    char path[64], text[4096] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/status", thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(ge(int, fd, 0));
    cr_assert(gt(int, (int)read(fd, text, sizeof(text) - 1), 0));
    close(fd);
    return strstr(text, line) != NULL;
}

static pthread_mutex_t ends = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t entered;
static pid_t thread_id;

static void *enter_and_stay(void *user)
{
    struct seen *seen = user;
    thread_id = (pid_t)syscall(SYS_gettid);
    seen->entered = lkd_sandbox_enter();
    seen->proc_error = error_of_open("/proc/self/stat");
    seen->file_error = error_of_open("/etc/passwd");
    pthread_barrier_wait(&entered);
    pthread_mutex_lock(&ends);
    pthread_mutex_unlock(&ends);
    return NULL;
}

Test(sandbox, confines_who_enters_it_and_nobody_else, .timeout = 30)
{
    if (SANITIZED)
        return;
    struct seen seen = {0};
    pthread_t thread;
    cr_assert(eq(int, pthread_barrier_init(&entered, NULL, 2), 0));
    pthread_mutex_lock(&ends);
    cr_assert(eq(int, pthread_create(&thread, NULL, enter_and_stay, &seen), 0));
    pthread_barrier_wait(&entered);
    cr_assert(ge(int, seen.entered, 0), "%s", strerror(-seen.entered));
    cr_expect(ne(int, seen.entered &LKD_SANDBOX_SYSTEM_CALLS, 0));
    cr_expect(status_has(thread_id, "NoNewPrivs:\t1"));
    cr_expect(status_has(thread_id, "Seccomp:\t2"));
    cr_expect(status_has(thread_id, "CapEff:\t0000000000000000"));
    cr_expect(status_has(thread_id, "CapPrm:\t0000000000000000"));
    cr_expect(eq(int, seen.proc_error, 0));
    if (seen.entered & LKD_SANDBOX_FILES)
        cr_expect(eq(int, seen.file_error, EACCES));
    cr_expect(eq(int, error_of_open("/etc/passwd"), 0), "this one has not entered");
    pthread_mutex_unlock(&ends);
    cr_assert(eq(int, pthread_join(thread, NULL), 0), "a confined thread can end");
    pthread_barrier_destroy(&entered);
}
