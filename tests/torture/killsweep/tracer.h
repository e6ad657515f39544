/* SPDX-License-Identifier: MIT */
/* A path of instructions through another process, and stopping it at any of them: ptrace(2), for one
 * tracee at a time. PTRACE_SINGLESTEP walks the path once and writes it down. From then on each of
 * its instructions is reached by a breakpoint, at full speed: a single step costs 20 to 30 us on a
 * virtual machine, whose kernel does not see it without the help of the one below, so that stepping
 * to instruction k of each of thousands would take hours.
 *
 * x86-64 only. Whatever ptrace refuses aborts the test, but for tracer_is_allowed(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The moment before the instruction at pc is executed for the turn-th time. */
struct path_point {
    uint64_t pc;
    uint32_t turn; /* from 1 */
    bool syscall;  /* a system call, or the instruction behind one */
};

struct path {
    struct path_point *points;
    size_t count;
    size_t steps; /* instructions executed, also those that made no point */
};

/* Which instructions make points. Where calls is set, so does each system call anywhere else, and the
 * instruction behind it. */
struct path_range {
    uint64_t begin;
    uint64_t end;
    uint64_t clock_begin; /* the kernel's own functions: the vDSO. Equal: not looked for */
    uint64_t clock_end;
    bool calls;
    /* What the code calls elsewhere is run up to its return, not stepped through; so is what anybody
     * calls of the kernel's own functions. */
    bool over;
    /* Of tracer_record_until(). So many steps at most; 0: any number. A tracee with timers is never done.
     * Before each a nap, as if on a busy machine. */
    size_t steps_max;
    uint64_t nap_ns;
};

/* The code of the program that a process executes, without its shared libraries. */
struct path_range tracer_text_of(pid_t pid);
/* The same of this process and those that it forks. */
struct path_range tracer_own_text(void);

/* Whether this process may trace a child of its own. */
bool tracer_is_allowed(void);

/* In the tracee: lets the parent trace it, and stops until the parent goes on with it. */
void tracer_begin_here(void);
/* Stops again: the path ends here. */
void tracer_end_here(void);
/* In the parent: returns when the child has stopped in one of these. */
void tracer_await_stop(pid_t pid);

enum tracer_end {
    TRACER_REACHED,  /* stopped right before the point */
    TRACER_FINISHED, /* stopped by itself, or was told to give up, and did not pass the point */
    TRACER_DIED,     /* one of its other threads came to the point, which ended it by SIGTRAP */
};

/* Walks a stopped tracee until it stops by itself, and appends the points of its path. */
void tracer_record(pid_t pid, const struct path_range *range, struct path *out_path);

/* The same for one that does not stop by itself: until it sleeps and is_done(), or has made enough steps.
 * Then it is stopped. */
typedef bool (*tracer_done_fn)(void *user);
enum tracer_end tracer_record_until(pid_t pid, const struct path_range *range,
                                    tracer_done_fn is_done, void *user, struct path *out_path);

void path_deinit(struct path *path);

/* Sets a breakpoint for this point and lets the stopped tracee run until it is there. It may go on. */
enum tracer_end tracer_run_to(pid_t pid, const struct path_point *point);
/* The same for one that does not stop by itself: gives up when it sleeps and is_done(). It goes on
 * then, without a breakpoint and with no tracer. */
enum tracer_end tracer_run_to_unless(pid_t pid, const struct path_point *point,
                                     tracer_done_fn is_done, void *user);

/* Single-steps a stopped tracee to the point, as tracer_record() did: the slow way, to check the
 * other. */
enum tracer_end tracer_step_to(pid_t pid, const struct path_point *point);

/* SIGKILL, whatever it is doing; and reaps it if it is a child of ours. */
void tracer_kill(pid_t pid);

/* Begins to trace a process that is no child of ours, and stops it. */
void tracer_seize(pid_t pid);
/* Lets it run, traced; stop it with tracer_interrupt(). */
void tracer_continue(pid_t pid);

/* Follows the children that a process makes from now on; it goes on. */
void tracer_watch_children(pid_t pid);
/* Returns the next one, stopped before its first instruction, and lets go of the parent. */
pid_t tracer_await_child(pid_t pid);

/* Lets a stopped tracee run until it stops by itself. False: it does not for long, and still runs. */
bool tracer_finish(pid_t pid);

/* Lets a stopped tracee run until it sleeps in the kernel; it goes on doing so. */
enum tracer_end tracer_run_to_sleep(pid_t pid);
