/* SPDX-License-Identifier: MIT */
/* The crowd around a victim: a control area in shared memory, processes that hold, read and wait in it
 * and are used again from kill to kill, and a judge who sees who is inside. There is no daemon: the
 * driver does what the broker does after a death, with the engine's own repair.
 *
 * The crowd sleeps without the naps of the protocol, until somebody wakes it: a wake that is lost is
 * somebody stuck, not somebody late. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/lock.h"

#define STAGE_LOCKS 4u
#define STAGE_LOCK 1u   /* the one that it is about */
#define STAGE_LOCK_X 0u /* held exclusively besides, in some scenarios */
#define STAGE_LOCK_S 2u /* held shared besides */
#define STAGE_ACTORS 6u

enum stage_slot { /* of the area; the order is the one of the scans */
                  STAGE_SLOT_VICTIM_LOW = 1,
                  STAGE_SLOT_PROBER,
                  STAGE_SLOT_DEAD, /* who damaged the lock before */
                  STAGE_SLOT_ACTOR,
                  STAGE_SLOT_VICTIM_HIGH = STAGE_SLOT_ACTOR + STAGE_ACTORS,
                  STAGE_SLOTS = STAGE_SLOT_VICTIM_HIGH,
};

enum stage_when { /* an actor does the second half of what it does */
                  STAGE_AT_ONCE,
                  STAGE_VICTIM_WAITS, /* its wait is published and the word says so, or it drains */
                  STAGE_VICTIM_SLEEPS, /* and its process sleeps */
                  STAGE_VICTIM_SEEN,   /* it owns the word, or its wait is published */
                  STAGE_VICTIM_STOPS,  /* it stands still, alive, so that others may come */
                  STAGE_VICTIM_STANDS, /* this, or STAGE_VICTIM_SLEEPS */
                  STAGE_VICTIM_DEAD,   /* and repaired: also ends every other wait for the victim */
};

struct stage_role {
    char mode;      /* 'X', 'S', 'U'; 0: no part in this */
    bool holds;     /* takes the lock before the victim comes, and releases it then; else waits */
    bool frozen;    /* publishes its wait and does not look again until then */
    bool fenceless; /* reads without a fence, if the lock is biased */
    bool unseen;    /* and its store is seen after a barrier alone */
    bool lingers;   /* the same when it leaves; or when everybody else has had their time */
    bool late;      /* holds: takes the lock when the victim stops, if it can */
    bool stays;     /* releases when everybody else has had their time, not at the death */
    enum stage_when when; /* releases, goes on waiting, or (neither) begins to wait */
};

enum stage_state { /* of an actor */
                   STAGE_IDLE,
                   STAGE_WORKING, /* told, and not yet at the point where it waits */
                   STAGE_WAITING, /* its wait is published and it sleeps, or is about to */
                   STAGE_HOLDING,
                   STAGE_HIDDEN, /* waits for the victim */
                   STAGE_DONE,
};

struct stage_actor {
    _Atomic uint32_t order; /* a count; the driver wakes on it */
    _Atomic uint32_t state; /* enum stage_state */
    struct stage_role role;
    uint32_t id;
    _Atomic uint32_t keeps; /* 1: a store of its is not seen yet */
    bool died;              /* it was told that an owner died */
    uint64_t token;         /* the sequence when it was inside */
};

struct stage_shared {
    struct stage_actor actors[STAGE_ACTORS];
    _Atomic uint32_t events; /* raised with every change of a state */
    _Atomic uint32_t stopped;
    _Atomic uint32_t dead;     /* the victim is dead and repaired */
    _Atomic uint32_t last;     /* whoever stays goes */
    _Atomic uint32_t barriers; /* asked for: see reader.h */
    _Atomic uint32_t victim_pid;
    uint32_t victim_id;
    uint64_t patience_ns;
    /* The judge of STAGE_LOCK. */
    _Atomic uint32_t writer;  /* who is inside exclusively: slot */
    _Atomic uint32_t updater; /* and for update */
    _Atomic uint32_t readers;
    _Atomic uint32_t victim_reads; /* 1: one of the readers is the victim */
    _Atomic uint64_t token;        /* the last one */
    _Atomic uint32_t violations;
};

struct stage {
    struct stage_shared *shared;
    struct lki_area area;
    int area_fd;
    struct lki_party prober;
    pid_t pids[STAGE_ACTORS];
    bool lose_wakes; /* a planted mistake: nobody is woken by the driver */
    bool no_barrier; /* another: nobody makes one; set before stage_init() */
};

/* *stage has nothing but planted mistakes. */
void stage_init(struct stage *stage);
void stage_deinit(struct stage *stage);

/* Prints and counts. Any process. */
void stage_violation(struct stage *stage, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Gives an actor its part and returns when it is where it stays until the victim comes, or after its
 * beginning. */
void stage_cast(struct stage *stage, unsigned actor, const struct stage_role *role);

/* Says so, and wakes whoever waits for it. */
void stage_announce(_Atomic uint32_t *what);

/* Returns when nobody goes on by itself: all hold, have ended, sleep or wait for what is yet to be
 * announced. False: as below. */
bool stage_settle(struct stage *stage);

/* Every actor with a part has ended it. False: somebody is stuck; what there is to see was printed. */
bool stage_await_all(struct stage *stage);

/* The judge: somebody comes in, and goes. */
void stage_enter(struct stage *stage, uint32_t slot, char mode);
void stage_leave(struct stage *stage, uint32_t slot, char mode);

/* What the broker does once the process is dead: repairs the attachment. slice: locks per step; and
 * the repair is begun anew after so many steps (0: never). */
void stage_repair(struct stage *stage, uint32_t id, uint32_t slice, uint32_t restart_after);

/* A lki_wake_fn that wakes by futex; user is the stage. */
void stage_wake(void *user, uint32_t slot, bool brokered);

/* The word, the sequence, each wait and cell: for the report of a failure. */
void stage_show(const struct stage *stage);
