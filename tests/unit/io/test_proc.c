/* SPDX-License-Identifier: MIT */
#include "broker/io/proc.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(proc, .timeout = 30);

static int started[2];

/* Forks; the child runs body and stays until it is killed. Returns when body is done. */
static pid_t fork_staying(void (*body)(void))
{
    char byte;
    cr_assert(eq(int, pipe(started), 0));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body();
        if (write(started[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    cr_assert(eq(int, (int)read(started[0], &byte, 1), 1));
    return pid;
}

static void reap(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert(eq(int, waitpid(pid, NULL, 0), pid));
}

static void do_nothing(void)
{
}

Test(proc, a_process_that_runs_or_sleeps_or_is_stopped_is_not_exiting)
{
    cr_expect(eq(int, lkd_proc_life(getpid()), LKD_PROC_RUNS));
    pid_t pid = fork_staying(do_nothing);
    cr_expect(eq(int, lkd_proc_life(pid), LKD_PROC_RUNS), "sleeping");
    kill(pid, SIGSTOP);
    cr_assert(eq(int, waitpid(pid, NULL, WUNTRACED), pid));
    cr_expect(eq(int, lkd_proc_life(pid), LKD_PROC_RUNS), "stopped");
    reap(pid);
}

Test(proc, a_zombie_is_exiting)
{
    pid_t pid = fork_staying(do_nothing);
    kill(pid, SIGKILL);
    siginfo_t info;
    cr_assert(eq(int, waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0));
    cr_expect(eq(int, lkd_proc_life(pid), LKD_PROC_EXITING));
    reap(pid);
}

Test(proc, a_process_that_is_gone_is_left_to_its_pidfd)
{
    pid_t pid = fork_staying(do_nothing);
    reap(pid);
    uint64_t ticks;
    cr_expect(eq(int, lkd_proc_life(pid), LKD_PROC_RUNS));
    cr_expect(eq(int, lkd_proc_start_time(pid, &ticks), -ESRCH));
}

static void *stay(void *user)
{
    (void)user;
    if (write(started[1], "", 1) == 1)
        for (;;)
            pause();
    return NULL;
}

static void leave_only_a_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, stay, NULL) != 0)
        _exit(1);
    pthread_exit(NULL); /* the leader becomes a zombie, the process lives */
}

Test(proc, a_process_whose_first_thread_has_ended_is_not_exiting)
{
    pid_t pid = fork_staying(leave_only_a_thread);
    for (int i = 0; i < 50; i++) {
        cr_assert(eq(int, lkd_proc_life(pid), LKD_PROC_RUNS));
        poll(NULL, 0, 1); /* the leader takes its time to end */
    }
    reap(pid);
}

static void take_a_nasty_name(void)
{
    prctl(PR_SET_NAME, ") Z 0 (\n");
}

Test(proc, a_name_with_parentheses_does_not_confuse_the_fields)
{
    char command[32];
    uint64_t plain;
    uint64_t nasty;
    pid_t first = fork_staying(do_nothing);
    cr_assert(eq(int, lkd_proc_start_time(first, &plain), 0));
    reap(first);
    pid_t pid = fork_staying(take_a_nasty_name);
    cr_expect(eq(int, lkd_proc_life(pid), LKD_PROC_RUNS));
    cr_assert(eq(int, lkd_proc_start_time(pid, &nasty), 0));
    cr_expect(ge(u64, nasty, plain));
    cr_expect(lt(u64, nasty, plain + 1000), "ten seconds later");
    lkd_proc_command(pid, command, sizeof(command));
    cr_expect(eq(str, command, ") Z 0 (\n"));
    reap(pid);
}

static void touch_memory(void)
{
    size_t bytes = (size_t)256 << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    memset(memory, 1, bytes);
}

/* The reason why this exists: the pidfd says so only after the memory has been torn down. */
Test(proc, a_killed_process_is_seen_exiting_before_its_pidfd_fires)
{
    bool seen_before = false;
    for (int round = 0; round < 5 && !seen_before; round++) {
        pid_t pid = fork_staying(touch_memory);
        int pidfd = pidfd_open(pid, 0);
        cr_assert(ge(int, pidfd, 0));
        kill(pid, SIGKILL);
        struct pollfd fired = {.fd = pidfd, .events = POLLIN};
        enum lkd_proc_life life;
        do {
            life = lkd_proc_life(pid);
        } while (life == LKD_PROC_RUNS && poll(&fired, 1, 0) == 0);
        seen_before = life == LKD_PROC_EXITING && poll(&fired, 1, 0) == 0;
        close(pidfd);
        reap(pid);
    }
    cr_expect(seen_before);
}

Test(proc, a_command_is_cut_to_what_fits)
{
    char command[4];
    pid_t pid = fork_staying(do_nothing);
    lkd_proc_command(pid, command, sizeof(command));
    cr_expect(eq(sz, strlen(command), 3));
    reap(pid);
    lkd_proc_command(pid, command, sizeof(command));
    cr_expect(eq(str, command, ""), "gone");
}

static void touch_64_megabytes(void)
{
    size_t bytes = (size_t)64 << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    memset(memory, 1, bytes);
}

Test(proc, resident_memory_is_what_was_touched)
{
    pid_t small = fork_staying(do_nothing);
    pid_t large = fork_staying(touch_64_megabytes);
    uint64_t small_bytes = lkd_proc_resident_bytes(small);
    cr_expect(lt(u64, 0, small_bytes));
    cr_expect(lt(u64, small_bytes + (UINT64_C(60) << 20), lkd_proc_resident_bytes(large)));
    reap(small);
    reap(large);
    cr_expect(eq(u64, lkd_proc_resident_bytes(large), 0), "it is gone");
}

/* Waits until the kernel shows the state: nobody announces it. */
static void expect_state(pid_t pid, enum lkd_process_state expected)
{
    enum lkd_process_state state;
    for (int i = 0; (state = lkd_proc_state(pid)) != expected && i < 10000; i++)
        usleep(1000);
    cr_expect(eq(int, state, expected));
}

Test(proc, a_stopped_process_is_told_from_one_that_a_debugger_has_stopped)
{
    pid_t pid = fork_staying(do_nothing);
    expect_state(pid, LKD_PROCESS_RUNS);
    kill(pid, SIGSTOP);
    expect_state(pid, LKD_PROCESS_STOPPED);
    kill(pid, SIGCONT);
    expect_state(pid, LKD_PROCESS_RUNS);
    cr_assert(eq(int, (int)ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0));
    expect_state(pid, LKD_PROCESS_RUNS); /* watched, but not stopped */
    cr_assert(eq(int, (int)ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0));
    expect_state(pid, LKD_PROCESS_TRACED);
    reap(pid);
    cr_expect(eq(int, lkd_proc_state(pid), LKD_PROCESS_RUNS), "it is gone");
}

/* As after vfork(2): the caller waits in the kernel, in state D, until its child has gone. */
static void wait_for_a_child(void)
{
    pid_t parent = getpid();
    if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) /* it was killed before this was asked for */
            _exit(0);
        for (;;)
            pause();
    }
}

Test(proc, one_that_waits_in_the_kernel_is_uninterruptible)
{
    int gone[2];
    char byte;
    cr_assert(eq(int, pipe(gone), 0));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        wait_for_a_child();
        _exit(0);
    }
    close(gone[1]);
    expect_state(pid, LKD_PROCESS_UNINTERRUPTIBLE);
    reap(pid); /* this wait is one that SIGKILL ends, and its child ends with it */
    cr_expect(eq(int, (int)read(gone[0], &byte, 1), 0), "both have gone");
    close(gone[0]);
}
