/* SPDX-License-Identifier: MIT */
/* Clients by the book, over a worker that may die at any step: each remembers what it has asked and
 * what it was told, answers RESUMED with RESUME and all that was not answered, and holds what it
 * was told it holds. A story is a list of lines, told one after the other; whoever compares two
 * tellings of it learns whether a death in one of them has left a trace.
 *
 * Asserted all the way: nothing is answered twice; no two are told that they hold a lock in modes
 * that conflict; tokens rise. Built on the one world. */
#pragma once

#include "world.h"

#define ACTORS 6
#define NAMES 3
#define LOCKS 4u

enum verb {
    END, /* of the story */
    CONNECT,
    OPEN, /* flags, name */
    PUBLISH,
    DETACH,
    REMOVE,
    GROW,       /* amount: bytes */
    LOCK_NAMED, /* amount: which of the names */
    ACQUIRE,    /* lock, mode; amount: deadline in ms from now, 0: never */
    TRY,        /* ACQUIRE that does not wait */
    ASYNC,      /* as ACQUIRE, in a slot of its own */
    TO_EXIT,    /* as ACQUIRE, exclusive to exit, asynchronous */
    CANCEL,     /* the actor's last ACQUIRE, ASYNC or TO_EXIT of the lock */
    RELEASE,    /* what it was told it holds */
    LET_GO,     /* the same, one-way: it lies in the socket until a worker has lived through it */
    MARK,
    DECLARE,
    GOODBYE,
    LOSE,        /* the connection ends */
    END_PROCESS, /* of the actor, and of all with the same process */
    TICK,        /* a slice of amount locks */
    WORK,        /* all slices */
    PASS,        /* amount: ms */
    /* Native ones, without the broker; they nudge it where they have to. */
    N_TRY,
    N_WAIT,
    N_STEP, /* of a wait */
    N_RELEASE,
};

#define S LKI_MODE_SHARED
#define X LKI_MODE_EXCLUSIVE

struct line {
    enum verb verb;
    int who;
    int name; /* of the segment: 0..NAMES-1 */
    uint32_t lock;
    uint32_t mode;
    uint32_t flags;
    uint64_t amount;
};

struct outcome { /* of one request or native step */
    enum verb verb;
    int who;
    int type; /* of the reply; 0: none, -1: the connection has ended */
    int status;
    bool created;
    uint64_t value;
};

struct grant {
    int who;
    int name;
    uint32_t lock;
};

#define OUTCOMES_MAX 256

/* What came of a story. */
struct telling {
    struct outcome outcomes[OUTCOMES_MAX]; /* in the order of asking */
    uint32_t outcome_count;
    struct grant grants[OUTCOMES_MAX]; /* exclusive ones, in the order of hearing */
    uint32_t grant_count;
};

/* Where workers die. A step of 0 is none. */
struct deaths {
    uint32_t line;        /* the first dies in this line */
    uint64_t step;        /* at this step of it */
    uint64_t second_step; /* its successor: that many steps after its birth */
    uint64_t third_step;
    bool stale;   /* what was in the socket is read before the RESUME */
    bool natives; /* native lines that follow are told while there is no worker */
};

/* What there was to die in. */
struct toll {
    uint64_t line_steps;     /* of the line, where nobody died in it */
    uint64_t recovery_steps; /* from the first death until all went on */
    uint32_t count;          /* deaths */
};

/* Tells a story in a fresh world, down to the end of all actors, after which nothing may be left.
 * fifo: the segments are first in, first out. */
void tell(const struct line *story, bool fifo, const struct deaths *deaths, struct telling *out,
          struct toll *out_toll);
