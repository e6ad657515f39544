/* SPDX-License-Identifier: MIT */
/* The crowd around a death, with a real broker: clients in processes of their own that hold and wait in
 * two segments, one native and one strict, and are used again from kill to kill; a judge who sees who
 * is inside; and a prober, a client in the driver itself, who looks afterwards whether all is as it was.
 *
 * Clients wait as they always do, with naps: a lost wake is late here and not for ever. That is for
 * killsweep, whose crowd has no naps. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lockkeeper/lockkeeper.h>

#include "tests/support/broker.h"

#define CROWD_ACTORS 3u
#define CROWD_LOCKS 4u
#define CROWD_LOCK 1u /* the one that it is about */
#define CROWD_SLOTS 12u
#define CROWD_PATH_BYTES 64u
#define CROWD_SHORT_NS (20 * UINT64_C(1000)) /* between two looks at what makes no event */

enum crowd_kind { /* of segment */
                  CROWD_NATIVE,
                  CROWD_STRICT,
                  CROWD_KINDS,
};

enum crowd_how { /* an actor takes the lock */
                 CROWD_ABSENT,
                 CROWD_HOLDS,       /* first, and releases it at its cue */
                 CROWD_WAITS,       /* and goes at once */
                 CROWD_WAITS_ASYNC, /* the same, asynchronously */
                 CROWD_BIASES,      /* first, to read until the lock is biased, and goes */
                 CROWD_ASKS,        /* not at all: asks the broker who holds it */
};

enum crowd_when {                /* who holds releases */
                  CROWD_AT_WAIT, /* when one more waits than the actors, or at the end */
                  CROWD_AT_END,  /* of the victim */
                  CROWD_AT_CUE,  /* crowd_cue(), or at the end */
};

struct crowd_part {
    enum crowd_how how;
    char mode;   /* 'X', 'S' */
    bool biased; /* holds: reads without a fence, having biased the lock */
    enum crowd_when when;
};

struct crowd_actor {
    _Atomic uint32_t order; /* a count; the driver wakes on it */
    _Atomic uint32_t done;  /* the last order that was carried out */
    _Atomic uint32_t holds; /* of that of CROWD_HOLDS: it does */
    struct crowd_part part;
    enum crowd_kind kind;
    bool died;      /* it was told that an owner died */
    uint64_t token; /* when it was inside */
};

struct crowd_judge { /* of CROWD_LOCK in one segment */
    _Atomic uint32_t writer;
    _Atomic uint32_t readers;
    _Atomic uint64_t token;
};

struct crowd_shared {
    struct crowd_actor actors[CROWD_ACTORS];
    struct crowd_judge judges[CROWD_KINDS];
    _Atomic uint32_t events;  /* raised with everything that an actor does */
    _Atomic uint32_t fellows; /* actors that wait */
    _Atomic uint32_t cue;
    _Atomic uint32_t end;
    _Atomic uint32_t violations;
};

struct crowd {
    struct crowd_shared *shared;
    struct test_broker broker;
    pid_t pids[CROWD_ACTORS];
    /* The prober. */
    struct lk_session *session;
    struct lk_segment *segments[CROWD_KINDS];
    struct lk_lock *locks[CROWD_KINDS];
    unsigned descriptors; /* of the broker, with nobody else there */
    bool frozen;          /* that number is not to be corrected any more */
    unsigned slots[CROWD_KINDS];
    unsigned waiting;    /* actors that do so by now */
    uint64_t stuck_ns;   /* after which somebody counts as stuck */
    uint64_t slowest_ns; /* from a death until its lock was ours */
};

#define CROWD_PROBER 100u
#define CROWD_VICTIM 101u

void crowd_init(struct crowd *crowd);
void crowd_deinit(struct crowd *crowd);

const char *crowd_segment_name(enum crowd_kind kind);

/* Prints and counts. Any process. */
void crowd_violation(struct crowd *crowd, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Nobody is at the lock: the next kill may be set up. */
void crowd_begin(struct crowd *crowd, const struct crowd_part parts[CROWD_ACTORS]);
/* Gives an actor its part; returns when it holds or its wait is published. */
void crowd_cast(struct crowd *crowd, unsigned actor, enum crowd_kind kind,
                const struct crowd_part *part);
void crowd_cue(struct crowd *crowd);
/* The victim is dead. */
void crowd_end(struct crowd *crowd);
bool crowd_is_done(const struct crowd *crowd, unsigned actor);
/* The first actor, with CROWD_AT_WAIT, has released the lock, or is about to. */
bool crowd_is_cued(const struct crowd *crowd);
/* Nobody but actors waits. False: stuck. */
bool crowd_await_fellows(struct crowd *crowd, enum crowd_kind kind);
/* Every actor has ended its part. False: somebody is stuck, and what there is to see was printed. */
bool crowd_await_all(struct crowd *crowd);

/* The judge: somebody comes in, and goes. */
void crowd_enter(struct crowd *crowd, enum crowd_kind kind, uint32_t who, char mode,
                 uint64_t token);
void crowd_leave(struct crowd *crowd, enum crowd_kind kind, uint32_t who, char mode);

/* Returns when the broker has done all that it was asked before, by anybody: it answers a question
 * three times. It takes messages in turns of its loop, so one that came before the second question is
 * done when the third is answered. Returns who holds the lock, a pid or 0. */
int32_t crowd_settle(struct crowd *crowd, enum crowd_kind kind);

/* Every actor without a part asks the broker something: its session goes on. False: stuck. */
bool crowd_ask_idle(struct crowd *crowd, enum crowd_kind kind);

/* The broker has as many descriptors as at first. */
bool crowd_has_descriptors(struct crowd *crowd);

/* Slots and the broker's descriptors are as they were at first. False: they never came to be. */
bool crowd_await_baseline(struct crowd *crowd);

/* The prober takes the lock, is told or not, and can use it in each way; it was the last one. False:
 * stuck. died_ns: since when somebody may have been dead. */
bool crowd_probe(struct crowd *crowd, enum crowd_kind kind, bool died, uint64_t died_ns);
