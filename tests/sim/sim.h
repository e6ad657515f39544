/* SPDX-License-Identifier: MIT */
/* One simulated machine: a worker of the broker and some client processes as fibers in one thread,
 * with a clock, futexes, sockets and processes made of memory. Everything that happens is decided by
 * the seed: the same seed is the same run, step by step.
 *
 * What is real: broker/core, engine, the codec and the whole client library, from lk_session_open()
 * down to its system calls. What is simulated: those system calls (wraps.c), the driver of the core
 * (worker.c, in the place of broker/io and the keeper), and time.
 *
 * scheduler.c runs the tasks and makes the faults; stores.c keeps back what readers store without a
 * fence; oracle.c says what must never be; program.c is what the clients do. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "tests/sim/fiber.h"
#include "tests/sim/memory.h"

#define SIM_SLOTS 5u   /* client processes at a time */
#define SIM_THREADS 2u /* of one process; each has a session */
#define SIM_JANITOR (1u + SIM_SLOTS * SIM_THREADS)
#define SIM_TASKS (SIM_JANITOR + 1u)
#define SIM_WORKER 0u
#define SIM_PROCESSES_MAX 2048 /* in one run, one after the other */
#define SIM_NOBODY (-1)
#define SIM_FIRST_PID 100

/* Mistakes that can be planted, to see that they are found. */
enum sim_break {
    SIM_BREAK_NONE,
    SIM_BREAK_LOSES_WAKES,
    SIM_BREAK_LOSES_CLIENT_WAKES,
    SIM_BREAK_GRANTS_BLINDLY,
    SIM_BREAK_FORGETS_BEGUN,
    SIM_BREAK_BURIES_ALIVE,
    SIM_BREAK_HIDES_DAMAGE,
    SIM_BREAK_INVENTS_DAMAGE,
    SIM_BREAK_TURNS_TOKENS_BACK,
    SIM_BREAK_REFUSES_AT_RANDOM,
    SIM_BREAK_ANSWERS_TWICE,
    SIM_BREAK_SWALLOWS_ANSWERS,
    SIM_BREAK_OVERLOOKS_ENDS,
    SIM_BREAK_FORGETS_RESUMED,
    SIM_BREAK_EMPTY_BARRIERS,
    SIM_BREAK_CLAIMS_BARRIERS,
    SIM_BREAK_BURIES_UNHEARD,
    SIM_BREAK_TAKES_TOO_SOON,
    SIM_BREAK_TRUSTS_RINGS,
    SIM_BREAKS,
};

enum sim_phase {
    SIM_FAULTS,   /* clients work, and things go wrong */
    SIM_CALMING,  /* nothing goes wrong any more: everybody has to come to rest */
    SIM_LEAVING,  /* everybody leaves */
    SIM_SWEEPING, /* somebody removes what is kept */
    SIM_DONE,
};

struct sim_task {
    struct fiber *fiber;
    bool live;
    bool at_rest;
    bool paused; /* the worker; clients are paused with their process */
    int process; /* SIM_NOBODY: the worker's */
    uint64_t ready_ns;
    _Atomic uint32_t *futex;        /* sleeps there */
    const struct sim_socket *reads; /* sleeps until something lies there */
    uint32_t steps_left;            /* until somebody else may run */
    bool slow;                      /* its stores are seen late, and it computes for long */
    int saved_errno;
    const char *doing; /* for people */
};

struct sim_process {
    int32_t pid;
    uint32_t slot;
    uint32_t tasks; /* that have not ended */
    bool alive;
    bool paused;
    bool may_join; /* those that barriers reach */
    bool may_make_barriers;
    bool joined;
    uint64_t exiting_ns; /* dead: from here on a look at its tasks shows it */
    uint64_t ended_ns;   /* dead: from here on its pidfd is readable */
};

/* What kind of run this seed is: some faults are left out of some runs, so that others come to
 * depth. Chances in a million per step of the scheduler, or in a thousand per event. */
struct sim_plan {
    uint32_t kill_client;
    uint32_t kill_worker;
    uint32_t pause_client;
    uint32_t pause_worker;
    uint32_t lose_hint;     /* of a thousand */
    uint32_t spurious_wake; /* of a thousand sleeps */
    uint32_t slow_wake;     /* of a thousand */
    uint32_t slow_record;   /* of a thousand */
    uint32_t slow_end;      /* of a thousand process ends */
    uint32_t kill_taker;    /* of a thousand barriers by clients */
    uint32_t slow_barrier;  /* of a thousand requests for one */
    uint32_t sandboxed;     /* of a thousand processes: may not join, or not make barriers */
    uint32_t slice_max;     /* steps in one go */
    uint32_t stickiness;    /* of a thousand: the same task goes on */
    uint32_t slots;
    uint32_t locks;
    uint32_t segments;   /* bits: which of them are in use */
    uint32_t shared;     /* of a hundred acquires */
    uint32_t in_a_row;   /* of a thousand acquires: several times, and mostly shared */
    bool bias;           /* the broker can make barriers, so that there is read bias */
    uint32_t bias_reads; /* at most, until a lock is biased */
    uint32_t store_age;  /* dispatches at most, until a store of one that is not slow is seen */
    uint32_t slow_tasks; /* of a thousand times that one reads in a row */
};

struct sim {
    uint64_t seed;
    uint64_t random;
    uint64_t hash; /* of all that happened */
    uint64_t now_ns;
    uint64_t dispatches;
    uint64_t steps_max; /* dispatches with faults */
    enum sim_break broken;
    bool trace;
    enum sim_phase phase;
    uint64_t phase_since_ns;
    struct sim_plan plan;
    struct sim_task tasks[SIM_TASKS];
    struct sim_task *current; /* NULL: the scheduler */
    uint32_t last;            /* task that ran last */
    struct sim_process processes[SIM_PROCESSES_MAX];
    int process_count;
    bool failed;
    char failure[600];
    uint64_t nudge_lost_ns; /* when one was lost the last time */
};

extern struct sim sim;

/* What all runs have shown so far. */
struct sim_seen {
    uint64_t dispatches, steps, taken, taken_died, timed_out, busy, deadlocks, client_kills,
        worker_kills, pauses, takeovers, async_taken, async_canceled, lost_hints, wakes,
        reads_valid, calm_checks, signals, fenceless, stores_shown, barriers, barriers_of_worker,
        barriers_asked, updates, upgrades, downgrades, changes_by_broker, one_way, doubts;
    uint64_t rest_ns_max; /* longest that a run took to come to rest */
};
extern struct sim_seen sim_seen;

/* --- Chance: random.c --- */
uint64_t sim_random(void);
uint32_t sim_below(uint32_t count);
bool sim_chance(uint32_t per_mille);
uint64_t sim_between(uint64_t least, uint64_t most);
void sim_mix(uint64_t value); /* into the hash */

/* --- Tasks: scheduler.c --- */

/* Runs one seed. Returns whether all was well; else sim.failure says what was not. */
bool sim_run(uint64_t seed, uint64_t steps, enum sim_break broken, bool trace);
void sim_deinit(void); /* what is kept between runs */

/* Something that must never be. Ends the run; never returns. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn, cold));
void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2))); /* with --trace */

/* The current task sleeps until woken or until_ns. */
void sim_block(uint64_t until_ns);
/* It runs, and does nothing that anybody sees. */
void sim_compute(void);
void sim_wake(struct sim_task *task, uint64_t at_ns); /* at the latest then */
void sim_wake_worker(uint64_t at_ns);
void sim_step(const char *name); /* another task may run now */

bool sim_faults(void); /* things may still go wrong */
bool sim_task_is_paused(const struct sim_task *task);

/* --- Later: events without a task --- */
enum sim_timer_kind {
    SIM_TIMER_SPAWN,        /* a client process in slot a */
    SIM_TIMER_START_WORKER, /* the next one */
    SIM_TIMER_CONTINUE,     /* process a */
    SIM_TIMER_CONTINUE_WORKER,
    SIM_TIMER_SIGNAL, /* b, to process a */
};
void sim_after(uint64_t delay_ns, enum sim_timer_kind kind, int a, int b);

/* --- Processes: scheduler.c --- */
void sim_kill_process(int process);
int sim_process_of_pid(int32_t pid); /* SIM_NOBODY: there was none */
