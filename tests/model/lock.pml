/* SPDX-License-Identifier: MIT */
/* The lock protocol of docs/lock-protocol.md for one lock and N attachments, with every shared access
 * as a step of its own. README.md beside this file says what is modelled and what is left out.
 *
 * A scenario is a set of -D options (see `run`): N, OPS0.. (which operations a client may choose from),
 * ROUNDS0.. (how many it does), and budgets: DEATHS, TIMEOUTS, NAPS, PAUSES, RESTARTS. A mutant is one
 * more -D with a name M_*; each must make some scenario fail.
 *
 * Sleeps never end by themselves here. In the engine every sleep is a bounded nap, which hides a lost
 * wake-up; here it shows as an invalid end state. */

#ifndef N
#define N 2
#endif
#ifndef OPS0
#define OPS0 (OP_X | OP_S)
#endif
#ifndef OPS1
#define OPS1 (OP_X | OP_S)
#endif
#ifndef OPS2
#define OPS2 (OP_X | OP_S)
#endif
#ifndef ROUNDS0
#define ROUNDS0 1
#endif
#ifndef ROUNDS1
#define ROUNDS1 1
#endif
#ifndef ROUNDS2
#define ROUNDS2 1
#endif
#ifdef CRASHES        /* of clients or workers, whichever: one budget for both */
#define DEATHS CRASHES
#define RESTARTS CRASHES
#define deaths crashes
#define restarts crashes
byte crashes = CRASHES;
#endif
#ifndef DEATHS
#define DEATHS 0   /* clients that may be killed, each at any step */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0 /* operations that have a deadline; it may pass at any sleep, or never */
#endif
#ifndef TIMED
#define TIMED 7    /* bit i: client i may have a deadline */
#endif
#ifndef ALWAYS_TIMED
#define ALWAYS_TIMED 0 /* bit i: client i always has one */
#endif
#ifndef MORTAL
#define MORTAL 7   /* bit i: client i may be killed */
#endif
#ifndef NAPS
#define NAPS 0     /* 10 ms naps of waiters that see a free word reserved for somebody older */
#endif
#ifndef PAUSES
#define PAUSES 0   /* clients that may be stopped (SIGSTOP) for ever */
#endif
#ifndef PAUSABLE
#define PAUSABLE 7 /* bit i: client i may be stopped */
#endif
#ifdef PAUSE_INSIDE
#define PAUSE_WHERE (sinside & ME_BIT) /* a reader, inside */
#else
#define PAUSE_WHERE ((wt[me] & WAIT) && (word & ID) != me + 1) /* a waiter, in the queue */
#endif
#ifndef TICKS
#define TICKS 0    /* with PAUSES: how often the rest may run dry and need their naps */
#endif
#ifndef RESTARTS
#define RESTARTS 0 /* broker workers that die inside a repair and are replaced */
#endif
#ifndef EARLY_LOOKS
#define EARLY_LOOKS 0 /* repairs that start from a word that the broker read while the owner lived */
#endif
#ifndef BROKERED
#define BROKERED 0 /* bit i: client i is driven by the broker and woken through a nudge message */
#endif
/* Patience: 0 none (strict FIFO: IMPATIENT from the start), 1 a waiter may lose it at any look,
 * 2 endless. */
#ifndef PATIENCE
#define PATIENCE 0
#endif

/* BIAS: how often a reader may set BIASED; undefined: there is none, and every store is seen at once. */
#ifndef BARRIERLESS
#define BARRIERLESS 0 /* bit i: client i may find nobody who makes the barrier for it */
#endif

/* UPDATES: there is update mode. */
#ifndef CHANGES
#define CHANGES 1 /* of the mode of one hold: upgrades and downgrades */
#endif

#include "state.pml"  /* shared memory, ghosts, what one step is */
#include "steps.pml"  /* scan, wake, leave, pass on: shared by client and broker */
#include "client.pml" /* one session after another in one slot */
#ifdef WORKER
#include "ledger.pml" /* what a worker works on, and how it is woken */
#include "resume.pml" /* a worker that is replaced */
#include "asker.pml"  /* clients that lock through it */
#define START(i) if :: BROKERED & (1 << (i)) -> run asker(i) :: else -> run client(i) fi
#else
#include "broker.pml" /* repair, nudges, and the clock for stopped clients */
#define START(i) run client(i)
#endif

#ifdef BIAS
/* A store becomes visible some time later by itself. */
proctype buffers()
{
end_idle:
    do
    :: atomic { pend[0] -> FLUSH(0) }
    :: atomic { pend[1] -> FLUSH(1) }
#if N == 3
    :: atomic { pend[2] -> FLUSH(2) }
#endif
    od
}
#endif

init
{
    atomic {
#ifdef WORKER
        run worker(); /* WORKER_PID */
        run judge();
#endif
        START(0);
        START(1);
#if N == 3
        START(2);
#endif
#ifdef BIAS
        run buffers();
#endif
#ifdef WORKER
        skip
#else
#if DEATHS
        run broker();
#endif
#if BROKERED
        run nudged();
#endif
#if PAUSES
        run clock()
#endif
#endif
    }
}
