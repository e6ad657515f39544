/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

double bench_ns_per_tick = 1;

pid_t bench_spawn(int (*body)(void *arg), void *arg)
{
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(getppid() == parent ? body(arg) : 1);
}

static void become(const char *program, char *const *arguments, int log, int signal, uid_t uid,
                   gid_t gid, pid_t parent)
{
    if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(127);
    if (geteuid() == 0 && uid != 0 &&
        (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(uid) < 0))
        _exit(127);
    prctl(PR_SET_PDEATHSIG, signal); /* after setuid(), which clears it */
    if (getppid() == parent)
        execv(program, arguments);
    _exit(127);
}

pid_t bench_exec(const struct bench *bench, char *const *arguments, const char *log_name,
                 int signal, uid_t uid, gid_t gid)
{
    char path[96];
    pid_t parent = getpid();
    snprintf(path, sizeof(path), "%s/%s", bench->directory, log_name);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (pid == 0 && bench->before_exec && !bench->before_exec())
        _exit(127);
    if (pid == 0)
        become(arguments[0], arguments, log, signal, uid, gid, parent);
    close(log);
    return pid;
}

const char *bench_last_line(const struct bench *bench, const char *log_name)
{
    static char line[256];
    char path[96], next[256];
    snprintf(path, sizeof(path), "%s/%s", bench->directory, log_name);
    snprintf(line, sizeof(line), "nothing");
    FILE *file = fopen(path, "re");
    while (file && fgets(next, sizeof(next), file))
        if (next[strspn(next, " \t\n")] != '\0')
            snprintf(line, sizeof(line), "%.*s", (int)strcspn(next, "\n"), next);
    if (file)
        fclose(file);
    return line;
}

void bench_reap(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            bench_fail("cannot wait for a process: %s", strerror(errno));
    if (status != 0)
        bench_fail("a process of the measurement failed (status %#x)", (unsigned)status);
}

void bench_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int bench_stay(void)
{
    for (;;)
        pause();
}

static cpu_set_t usable;
static bool usable_known;

static void look_at_processors(void)
{
    if (usable_known)
        return;
    CPU_ZERO(&usable);
    if (sched_getaffinity(0, sizeof(usable), &usable) < 0)
        CPU_SET(0, &usable);
    usable_known = true;
}

unsigned bench_processors(void)
{
    look_at_processors();
    return (unsigned)CPU_COUNT(&usable);
}

void bench_pin(unsigned processor)
{
    cpu_set_t one;
    unsigned left = processor % bench_processors();
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &usable) && left-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof(one), &one);
            return;
        }
}

void bench_unpin(void)
{
    look_at_processors();
    sched_setaffinity(0, sizeof(usable), &usable);
}

void bench_sleep(uint64_t ns)
{
    struct timespec left = {.tv_sec = (time_t)(ns / LKI_NS_PER_S),
                            .tv_nsec = (long)(ns % LKI_NS_PER_S)};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

void *bench_share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        bench_fail("no memory");
    return memory;
}

void bench_unshare(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

bool bench_wait_while(_Atomic uint32_t *word, uint32_t value)
{
    struct timespec patience = {.tv_sec = 30};
    /* Acquire, pairs with the release in bench_set(): what was written before it is visible. */
    while (atomic_load_explicit(word, memory_order_acquire) == value)
        if (syscall(SYS_futex, word, FUTEX_WAIT, value, &patience, NULL, 0) < 0 &&
            errno == ETIMEDOUT)
            return false;
    return true;
}

void bench_set(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bench_count(_Atomic uint32_t *word)
{
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bench_gate_enter(struct bench_gate *gate)
{
    bench_count(&gate->ready);
    if (!bench_wait_while(&gate->go, 0))
        _exit(1);
}

void bench_gate_await(struct bench_gate *gate, uint32_t processes)
{
    for (;;) {
        uint32_t ready = atomic_load_explicit(&gate->ready, memory_order_acquire);
        if (ready == processes)
            return;
        if (!bench_wait_while(&gate->ready, ready))
            bench_fail("only %u of %u processes got ready", ready, processes);
    }
}

#if !defined(__x86_64__)
uint64_t bench_clock(void);
uint64_t bench_clock(void)
{
    return lki_clock_now_ns();
}
#endif

void bench_calibrate(void)
{
    uint64_t start_ns = lki_clock_now_ns();
    uint64_t start = bench_ticks();
    bench_sleep(20 * LKI_NS_PER_MS);
    uint64_t end = bench_ticks();
    uint64_t end_ns = lki_clock_now_ns();
    if (end > start)
        bench_ns_per_tick = (double)(end_ns - start_ns) / (double)(end - start);
}
