/* SPDX-License-Identifier: MIT */
#include "tests/support/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/watch.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define EXIT_LEAK 23 /* as LeakSanitizer's own */
#define PATIENCE_NS (30 * LKI_NS_PER_S)

static void (*fail_cleanup)(void);
static pid_t fail_pid;

uint64_t test_number(const char *text)
{
    char *end;
    uint64_t number = strtoull(text, &end, 10);
    test_check(*text && *end == '\0', "%s is no number", text);
    return number;
}

void test_on_fail(void (*cleanup)(void))
{
    fail_cleanup = cleanup;
    fail_pid = getpid();
}

void test_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    int saved_errno = errno;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: [%d] %s: %s (errno: %s)\n", file, line, (int)getpid(), condition, text,
            strerror(saved_errno));
    fflush(stderr);
    void (*cleanup)(void) = fail_pid == getpid() ? fail_cleanup : NULL;
    fail_cleanup = NULL;
    if (cleanup)
        cleanup();
    abort();
}

static bool leaves_as_it_is;

void test_leave_as_it_is(void)
{
    leaves_as_it_is = true;
}

/* The end by _exit(2) asks nobody, and exit(3) would run what belongs to the parent. Of a process
 * that has changed its user LeakSanitizer may not look at the threads, and gives up on it. */
static bool leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
    return !leaves_as_it_is && prctl(PR_GET_DUMPABLE) == 1 &&
           __lsan_do_recoverable_leak_check() != 0;
#else
    return false;
#endif
}

pid_t test_spawn(int (*body)(void *arg), void *arg)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    test_check(pid >= 0, "fork");
    if (pid > 0)
        return pid;
    test_check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
    if (getppid() != parent)
        _exit(1); /* it ended before we asked to be told */
    int code = body(arg);
    fflush(NULL);
    _exit(code == 0 && leaks() ? EXIT_LEAK : code);
}

int test_reap(pid_t pid)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    int status = 0;
    pid_t reaped;
    /* There is no waitpid with a time limit. A pidfd would be an event, but WNOHANG and a short
     * nap costs no descriptor; nothing is measured here. */
    while ((reaped = waitpid(pid, &status, WNOHANG)) == 0) {
        if (lki_clock_now_ns() > deadline_ns) {
            char where[256];
            test_process_describe(pid, where, sizeof(where));
            kill(pid, SIGKILL);
            test_check(false, "process %d does not end: %s", (int)pid, where);
        }
        test_sleep_ns(LKI_NS_PER_MS / 5);
    }
    test_check(reaped == pid, "waitpid %d", (int)pid);
    return status;
}

void test_reap_success(pid_t pid)
{
    int status = test_reap(pid);
    test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %d ended with status %#x",
               (int)pid, (unsigned)status);
}

void test_kill(pid_t pid)
{
    test_check(kill(pid, SIGKILL) == 0, "kill %d", (int)pid);
    test_reap(pid);
}

static void await_stopped(pid_t pid)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    while (test_process_state(pid) != 'T') {
        test_check(lki_clock_now_ns() < deadline_ns, "process %d does not stop", (int)pid);
        test_sleep_ns(LKI_NS_PER_MS / 10);
    }
}

void test_stop(pid_t pid)
{
    test_check(kill(pid, SIGSTOP) == 0, "stop %d", (int)pid);
    siginfo_t info;
    if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT | WNOHANG) < 0 && errno == ECHILD) {
        await_stopped(pid); /* somebody else's child */
        return;
    }
    test_check(waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOWAIT) == 0, "waitid %d", (int)pid);
    test_check(info.si_code == CLD_STOPPED, "process %d ended instead of stopping", (int)pid);
    test_check(waitid(P_PID, (id_t)pid, &info, WSTOPPED) == 0, "waitid %d", (int)pid);
}

void test_continue(pid_t pid)
{
    test_check(kill(pid, SIGCONT) == 0, "continue %d", (int)pid);
}

void *test_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    test_check(memory != MAP_FAILED, "mmap of %zu bytes", bytes);
    return memory;
}

int test_event(void)
{
    int event = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    test_check(event >= 0, "eventfd");
    return event;
}

void test_event_post(int event)
{
    test_check(eventfd_write(event, 1) == 0, "eventfd_write");
}

bool test_event_wait_for(int event, uint64_t timeout_ns)
{
    uint64_t deadline_ns = lki_clock_now_ns() + timeout_ns;
    for (;;) {
        uint64_t now_ns = lki_clock_now_ns();
        uint64_t left_ns = now_ns < deadline_ns ? deadline_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / LKI_NS_PER_S),
                                .tv_nsec = (long)(left_ns % LKI_NS_PER_S)};
        struct pollfd poll_fd = {.fd = event, .events = POLLIN};
        int ready = ppoll(&poll_fd, 1, &left, NULL);
        if (ready < 0 && errno == EINTR)
            continue;
        test_check(ready >= 0, "ppoll");
        if (ready == 0)
            return false;
        eventfd_t value;
        test_check(eventfd_read(event, &value) == 0, "eventfd_read");
        return true;
    }
}

void test_event_wait(int event)
{
    test_check(test_event_wait_for(event, PATIENCE_NS), "nothing happened for 30 s");
}

int test_stay(void)
{
    for (;;)
        pause();
}

void test_sleep_ns(uint64_t ns)
{
    struct timespec left = {.tv_sec = (time_t)(ns / LKI_NS_PER_S),
                            .tv_nsec = (long)(ns % LKI_NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
        ;
}

/* splitmix64 by Sebastiano Vigna, public domain: any seed will do, 0 too. */
uint64_t test_random_next(struct test_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
