/* SPDX-License-Identifier: MIT */
#include "tests/stress/engine/scenario.h"

#include "common/cleanup.h"
#include "engine/layout.h"

#define FIFO LKI_PATIENCE_NONE
#define BARGE LKI_PATIENCE_DEFAULT_NS
#define X OP_EXCLUSIVE
#define S OP_SHARED
#define XT OP_EXCLUSIVE_TIMED
#define ST OP_SHARED_TIMED
#define C OP_EXCLUSIVE_CARELESS
#define U OP_UPDATE
#define UX OP_UPGRADE
#define UXT OP_UPGRADE_TIMED
#define US OP_UPDATE_TO_SHARED
#define XS OP_EXCLUSIVE_TO_SHARED
#define B (LKI_READ | LKI_BIASED)

const struct scenario scenarios[] = {
    {"two writers twice", 3, 0, 1, 0, BARGE, 0, {{X, X}, {X, X}}},
    {"two writers twice, in turn", 3, 0, 1, 0, FIFO, 0, {{X, X}, {X, X}}},
    {"three writers", 2, 0, 1, 0, BARGE, 0, {{X}, {X}, {X}}},
    {"three writers in turn", 2, 0, 1, 0, FIFO, 0, {{X}, {X}, {X}}},
    {"writer and reader twice", 3, 0, 1, 0, BARGE, 0, {{X, X}, {S, S}}},
    {"writer and reader twice, in turn", 3, 0, 1, 0, FIFO, 0, {{X, X}, {S, S}}},
    {"two readers and a writer", 2, 0, 1, 0, BARGE, 0, {{S, S}, {S}, {X}}},
    {"two writers and a reader in turn", 2, 0, 1, 0, FIFO, 0, {{X}, {X}, {S}}},
    {"tries among waits", 2, 0, 1, 0, BARGE, 0, {{X}, {OP_EXCLUSIVE_TRY, OP_SHARED_TRY}, {S}}},
    {"tries among turns", 2, 0, 1, 0, FIFO, 0, {{X}, {OP_EXCLUSIVE_TRY, OP_SHARED_TRY}, {S}}},
    {"a writer gives up", 3, 0, 1, 0, BARGE, 0, {{X, X}, {XT}, {X}}},
    {"a writer gives its turn up", 2, 0, 1, 0, FIFO, 0, {{X}, {XT}, {X}}},
    {"a reader gives up", 2, 0, 1, 0, BARGE, 0, {{X}, {ST}, {X}}},
    {"a reader gives its turn up", 2, 0, 1, 0, FIFO, 0, {{X}, {ST}, {S}}},
    {"a drain gives up", 2, 0, 1, 0, BARGE, LKI_READ, {{S, S}, {XT}, {X}}},
    {"a drain gives up before a reader", 2, 0, 1, 0, FIFO, LKI_READ, {{S}, {XT}, {S}}},
    {"optimistic reader", 3, 0, 1, 0, BARGE, 0, {{X, X}, {OP_OPTIMISTIC, OP_OPTIMISTIC}}},
    {"to exit beside data", 2, 0, 1, 0, BARGE, 0, {{OP_EXCLUSIVE_TO_EXIT}, {X}, {S}}},
    {"stopped at the head of the queue", 1, 0, 1, 3, FIFO, 0, {{X}, {X}, {X}}},
    {"stopped before a reader", 1, 0, 1, 3, FIFO, 0, {{X}, {X}, {S}}},
    {"death of a writer", 1, 1, 1, 0, BARGE, 0, {{X}, {X}, {X}}},
    {"death of a writer in turn", 1, 1, 1, 0, FIFO, 0, {{X}, {X}, {X}}},
    {"death beside a reader", 1, 1, 1, 0, BARGE, LKI_READ, {{X}, {S}, {X}}},
    {"death of a reader", 1, 1, 1, 0, FIFO, LKI_READ, {{S}, {S}, {X}}},
    {"death among three readers and writers", 1, 1, 1, 0, FIFO, 0, {{S}, {X}, {S}}},
    {"death with two locks",
     1,
     1,
     1,
     0,
     BARGE,
     0,
     {{OP_EXCLUSIVE_BOTH}, {OP_EXCLUSIVE_OTHER}, {X}}},
    {"death in a hold to exit", 1, 1, 1, 0, BARGE, 0, {{OP_EXCLUSIVE_TO_EXIT}, {S}, {X}}},
    {"death and time-out", 1, 1, 1, 0, FIFO, LKI_READ, {{X}, {XT}, {X}}},
    {"death under optimistic readers", 1, 1, 1, 0, BARGE, 0, {{X}, {OP_OPTIMISTIC}, {X}}},
    {"death of one of two, twice", 2, 1, 1, 0, BARGE, 0, {{X, X}, {X, X}}},
    {"two deaths", 0, 2, 1, 0, BARGE, 0, {{X}, {X}, {X}}},
    {"nobody mends the damage", 1, 1, 1, 0, BARGE, 0, {{C}, {C, OP_OPTIMISTIC}, {C, C}}},
    {"two brokers repair one death", 2, 1, 2, 0, BARGE, 0, {{X}, {X}}},
    {"the broker dies in the repair", 0, 2, 1, 0, FIFO, LKI_READ, {{X}, {S}, {X}}},
    {"biased: writer and reader twice", 3, 0, 1, 0, BARGE, B, {{X, X}, {S, S}}},
    {"biased: writer and reader twice, in turn", 3, 0, 1, 0, FIFO, B, {{X, X}, {S, S}}},
    {"biased: two readers and a writer", 2, 0, 1, 0, BARGE, B, {{S, S}, {S}, {X}}},
    {"biased: two writers and a reader in turn", 2, 0, 1, 0, FIFO, B, {{X}, {X}, {S, S}}},
    {"biased: tries", 3, 0, 1, 0, BARGE, B, {{OP_EXCLUSIVE_TRY, OP_SHARED_TRY}, {S, S}}},
    {"biased: a drain gives up", 2, 0, 1, 0, BARGE, B, {{S, S}, {XT}, {X}}},
    {"biased: death of a reader", 1, 1, 1, 0, FIFO, B, {{S}, {S}, {X}}},
    {"biased: death of a writer", 1, 1, 1, 0, FIFO, B, {{X}, {S, S}, {X}}},
    {"biased: the broker dies in the repair", 0, 2, 1, 0, FIFO, B, {{X}, {S}, {X}}},
    {"a session closes inside", 1, 1, 1, 0, BARGE, LKI_READ, {{OP_EXCLUSIVE_CLOSE}, {S}, {X}}},
    {"update: upgrade and reader twice", 3, 0, 1, 0, BARGE, 0, {{UX, UX}, {S, S}}},
    {"update: upgrade and reader twice, in turn", 3, 0, 1, 0, FIFO, LKI_READ, {{UX, UX}, {S, S}}},
    {"update: upgrades and a reader", 2, 0, 1, 0, BARGE, 0, {{UX}, {UX}, {S, S}}},
    {"update: beside a writer and a reader", 2, 0, 1, 0, BARGE, LKI_READ, {{U, UX}, {X}, {S}}},
    {"update: beside both, in turn", 2, 0, 1, 0, FIFO, 0, {{UX}, {X}, {S}}},
    {"update: tries",
     2,
     0,
     1,
     0,
     BARGE,
     LKI_READ,
     {{OP_UPDATE_TRY, OP_UPGRADE_TRY}, {S, OP_SHARED_TRY}, {X}}},
    {"update: an upgrade gives up", 2, 0, 1, 0, BARGE, LKI_READ, {{UXT, UXT}, {S, S}, {S}}},
    {"update: an upgrade gives up before a writer", 2, 0, 1, 0, FIFO, LKI_READ, {{UXT}, {S}, {X}}},
    {"update: to shared", 2, 0, 1, 0, BARGE, 0, {{US, XS}, {X}, {S}}},
    {"update: to shared, in turn", 2, 0, 1, 0, FIFO, LKI_READ, {{XS}, {US}, {X}}},
    {"update: under an optimistic reader",
     3,
     0,
     1,
     0,
     BARGE,
     0,
     {{UX, XS}, {OP_OPTIMISTIC, OP_OPTIMISTIC}}},
    {"update: death", 1, 1, 1, 0, BARGE, LKI_READ, {{UX}, {S}, {X}}},
    {"update: death in turn", 1, 1, 1, 0, FIFO, 0, {{UX}, {UX}, {S}}},
    {"update: death among downgrades", 1, 1, 1, 0, FIFO, 0, {{XS}, {US}, {X}}},
    {"update: nobody mends the damage", 1, 1, 1, 0, BARGE, 0, {{C}, {UX, OP_OPTIMISTIC}, {C, C}}},
    {"biased: upgrade and reader twice", 3, 0, 1, 0, BARGE, B, {{UX, UX}, {S, S}}},
    {"biased: update tries", 2, 0, 1, 0, BARGE, B, {{OP_UPGRADE_TRY, US}, {S, S}, {S}}},
    {"biased: an upgrade gives up", 2, 0, 1, 0, BARGE, B, {{UXT}, {S, S}, {X}}},
    {"biased: death of an upgrade", 1, 1, 1, 0, FIFO, B, {{UX}, {S, S}, {X}}},
};

const size_t scenario_count = LKI_ARRAY_LENGTH(scenarios);
