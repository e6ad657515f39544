/* SPDX-License-Identifier: MIT */
/* What is swept: one call of the library by a victim, before a state of the lock and beside others. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stage.h"

enum scenario_word {                    /* of the lock, before anybody comes */
                     WORD_FREE,         /* 0 */
                     WORD_STALE,        /* free, with what a repair leaves: READ, PARKED and FAIR */
                     WORD_DIED,         /* free and damaged */
                     WORD_BROKEN,       /* free and damaged, as a repair leaves it */
                     WORD_BIASED,       /* read, by readers that need no fence */
                     WORD_BIASED_STALE, /* the same, with what a repair leaves */
};

enum scenario_before { /* what the victim has done before its call */
                       BEFORE_NOTHING,
                       BEFORE_X,
                       BEFORE_S,
                       BEFORE_EXIT,
                       BEFORE_X_MARKED, /* holds a lock that was damaged, and has marked it */
                       BEFORE_READ,     /* has read once: one more, and it biases the lock */
                       BEFORE_U,
};

enum scenario_call {
    CALL_INLINE_S, /* this and CALL_INLINE_RELEASE: by lockkeeper/inline.h */
    CALL_X,
    CALL_S,
    CALL_EXIT,
    CALL_TRY_X,
    CALL_TRY_S,
    CALL_TIMED_X,
    CALL_TIMED_S,
    CALL_RELEASE,
    CALL_INLINE_RELEASE,
    CALL_MARK,
    CALL_DECLARE,
    CALL_CLOSE_HANDLE, /* gives the handle of a held lock back, which releases nothing */
    CALL_U,
    CALL_TRY_U,
    CALL_TIMED_U,
    CALL_U_UPGRADE, /* takes it for update and upgrades it */
    CALL_UPGRADE,
    CALL_TRY_UPGRADE,
    CALL_TIMED_UPGRADE,
    CALL_DOWN_U,
    CALL_DOWN_S,
};

#define PATIENCE_LONG_NS (20 * UINT64_C(1000000000)) /* nobody grows impatient */
#define PATIENCE_SHORT_NS UINT64_C(500000)

struct scenario {
    char title[80];
    enum scenario_word word;
    enum scenario_before before;
    enum scenario_call call;
    uint64_t patience_ns;
    bool more_held; /* the victim also holds one lock exclusively and another shared */
    bool update;    /* it is about update mode */
    bool sleeps;    /* the victim sleeps in its call */
    bool last_slot; /* the victim has the last slot instead of the first */
    bool cannot;    /* the victim can make no barrier */
    bool joined;    /* the victim reads without a fence where it can */
    bool
        bias; /* it is about read bias: the victim is also stopped at each point and goes on, and in
                     * the end a reader without a fence has to keep a writer out */
    struct stage_role roles[STAGE_ACTORS];
};

/* All of them, in an order that stays. Static storage. */
const struct scenario *scenarios(size_t *out_count);

bool scenario_is_acquire(const struct scenario *scenario);
bool scenario_is_release(const struct scenario *scenario);
bool scenario_is_upgrade(const struct scenario *scenario);
bool scenario_holds_at_end(const struct scenario *scenario, bool succeeded);

/* The mode in which the victim holds the lock once its call has succeeded, as in struct stage_role; 0: in
 * none, or as before. */
char scenario_mode(const struct scenario *scenario);

/* Whether the lock counts as damaged if the victim is killed right before its call, and after it; and
 * to whoever gets it while the victim lives. */
bool scenario_died_at_start(const struct scenario *scenario);
bool scenario_died_at_end(const struct scenario *scenario, bool acquired);
bool scenario_died_meanwhile(const struct scenario *scenario);
