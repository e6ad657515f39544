/* SPDX-License-Identifier: MIT */
/* A deterministic scheduler that tries every order of a few actors up to a bound. Actors are
 * fibers; they can be switched wherever the engine has an LKI_STEP, and where they call
 * schedule_step() themselves. One run follows one path of choices; the next run takes the next
 * path, depth first, until all are done.
 *
 * What costs one preemption: switching away from an actor that could go on, or an alarm while it
 * could. Choices at an actor's sleep, end or death are free. The actors keep no state of their own
 * outside what the setup function resets, so that a path means the same each time. */
#pragma once

#include <stdbool.h>

#define SCHEDULE_ACTORS_MAX 8

typedef void (*schedule_fn)(void *argument);

struct schedule_plan {
    unsigned preemptions; /* bound per run */
    unsigned deaths;      /* bound per run */
    void (*setup)(void *user);
    void (*died)(void *user, int actor); /* an actor was killed: it runs no further */
    void (*finished)(void *user);        /* everybody has ended: check what is left */
    void *user;
};

/* Runs all schedules of the plan and returns their number. On the first failure it prints the
 * schedule, step by step, and exits with 1. */
unsigned long schedule_explore(const struct schedule_plan *plan);

/* From setup(), died() or an actor: adds an actor. alarms: how often its sleeps may end by time. */
int schedule_spawn(schedule_fn run, void *argument, unsigned alarms, bool mortal);

/* From an actor: its number. Less than 0 elsewhere. */
int schedule_current(void);

/* From an actor. Sleeps until woken (false) or until its time is up (true). */
bool schedule_sleep(void);

/* From an actor: makes a sleeper run. Nothing for one that does not sleep. */
void schedule_wake(int actor);

/* A point where actors may be switched. Does nothing outside of actors. */
void schedule_step(const char *name);

/* Says what is wrong and how it came about, and exits. */
void schedule_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
