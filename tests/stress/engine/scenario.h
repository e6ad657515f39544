/* SPDX-License-Identifier: MIT */
/* What the parties of engine_interleave do, in which orders. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PARTIES_MAX 3
#define OPS_MAX 3

enum op_kind {
    OP_END,
    OP_EXCLUSIVE,
    OP_EXCLUSIVE_TIMED,
    OP_EXCLUSIVE_TRY,
    OP_EXCLUSIVE_TO_EXIT,
    OP_EXCLUSIVE_BOTH,     /* lock 0, and lock 1 inside */
    OP_EXCLUSIVE_OTHER,    /* lock 1 */
    OP_EXCLUSIVE_CARELESS, /* does not repair what it is told to be damaged */
    OP_EXCLUSIVE_CLOSE,    /* closes its session inside */
    OP_SHARED,
    OP_SHARED_TIMED,
    OP_SHARED_TRY,
    OP_OPTIMISTIC,
    OP_UPDATE,              /* looks only */
    OP_UPDATE_TRY,          /* the same */
    OP_UPGRADE,             /* for update, exclusive, and back for update */
    OP_UPGRADE_TIMED,       /* waits for readers no longer than the deadline */
    OP_UPGRADE_TRY,         /* does not wait for them */
    OP_UPDATE_TO_SHARED,    /* for update, then shared */
    OP_EXCLUSIVE_TO_SHARED, /* exclusive, then shared */
};

struct scenario {
    const char *name;
    unsigned preemptions;
    unsigned deaths;  /* of parties and of the broker in its repair; the last party is immortal */
    unsigned repairs; /* of each death, at the same time */
    unsigned naps;    /* how often a sleep may end by its own nap, instead of the deadline */
    uint64_t patience_ns;
    uint32_t
        first_word; /* of lock 0: READ as readers leave it behind; BIASED: they need no fence */
    enum op_kind ops[PARTIES_MAX][OPS_MAX];
};

extern const struct scenario scenarios[];
extern const size_t scenario_count;
