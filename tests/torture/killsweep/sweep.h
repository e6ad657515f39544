/* SPDX-License-Identifier: MIT */
/* One kill: sets the stage, lets the victim run to a point, kills it, repairs, and looks whether all is
 * as it has to be. */
#pragma once

#include "scenario.h"
#include "tests/support/process.h"
#include "tracer.h"
#include "victim.h"

enum sweep_at {
    SWEEP_AT_START, /* before the first instruction of the call */
    SWEEP_AT_POINT,
    SWEEP_AT_POINT_STEPPED, /* the same, reached by single steps */
    SWEEP_PAST_POINT, /* after its call, in which it stood still at the point while others came */
    SWEEP_IN_SLEEP,   /* while it sleeps, if it does */
    SWEEP_AT_END,     /* the call has returned */
    SWEEP_RECORD,     /* single-steps and writes the path down; dies at the end */
};

enum sweep_break { /* mistakes that can be planted, to see that they are found */
                   BREAK_NOTHING,
                   BREAK_WAKE,    /* the repair wakes nobody */
                   BREAK_DIED,    /* the next owner is not told */
                   BREAK_TOLD,    /* the next owner is told although nothing was torn */
                   BREAK_ALIVE,   /* a living owner's word is freed */
                   BREAK_SLOT,    /* the slot does not come back */
                   BREAK_TOKEN,   /* the sequence falls */
                   BREAK_CELL,    /* a dead reader stays */
                   BREAK_BIAS,    /* the repair takes the mark of readers without fences away */
                   BREAK_BARRIER, /* writers do not make them seen */
                   BREAK_UPDATE,  /* the repair takes an owner for update for a writer */
};

struct sweep {
    struct stage stage;
    struct victim *victim;
    enum sweep_break planted;
    struct test_random random; /* set by the caller before each kill */
    uint64_t reached;          /* killed where it was meant to be */
    uint64_t ended;            /* its call had ended before, so it was killed after it */
    uint64_t stepped;
    uint64_t in_sleep;
    uint64_t past;    /* stopped at a point and gone on */
    uint64_t biased;  /* killed while it owned the lock and had not yet seen all readers */
    uint64_t inside;  /* killed while it owned the lock */
    uint64_t damaged; /* and somebody had to be told */
    uint64_t updates; /* killed while it owned the lock for update */
    uint64_t token;   /* the sequence right before the call */
    uint64_t blamed;  /* the token of the damage before, if there was any */
    bool stuck;       /* nothing can go on */
};

/* path: filled with SWEEP_RECORD. point: for the kinds that have one. */
void sweep_kill(struct sweep *sweep, const struct scenario *scenario, enum sweep_at at,
                const struct path_point *point, struct path *path);
