/* SPDX-License-Identifier: MIT */
/* What must be true while processes lock, read and die: the judge of the kill stress. It lives in
 * memory of its own, shared by the workers and untouched by lockkeeper, and knows who is inside
 * which lock by marks that its owner sets after the acquire and clears before the release. So a
 * mark that a living process left is proof that the process is inside. A process that is about to
 * be killed is marked as doomed first: its marks say nothing any more. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

#define ORACLE_LOCKS 3
#define ORACLE_WORKERS 6
#define ORACLE_LIVES_MAX 16384
#define ORACLE_CANARY_WORDS 64

/* In the data of the segment, one per lock: all words alike, except while a writer is inside. */
struct oracle_canary {
    _Atomic uint64_t words[ORACLE_CANARY_WORDS];
};

struct oracle_lock {
    _Atomic uint32_t writer;                  /* the life that is inside exclusively, or 0 */
    _Atomic uint32_t readers[ORACLE_WORKERS]; /* the life of that worker that reads, or 0 */
    _Atomic uint32_t damaged;                 /* released without being marked consistent */
    _Atomic uint64_t token;                   /* of the last exclusive hold */
    _Atomic uint64_t healed_token;            /* of the last hold that marked it consistent */
};

struct oracle_worker {
    _Atomic uint32_t life;
    _Atomic uint32_t place;    /* enum oracle_place, for the report of a stuck one */
    _Atomic uint64_t progress; /* operations ended */
    _Atomic uint64_t longest_wait_ns;
};

enum oracle_place {
    ORACLE_OPENING,
    ORACLE_BETWEEN,
    ORACLE_ACQUIRING_SHARED,
    ORACLE_ACQUIRING_EXCLUSIVE,
    ORACLE_INSIDE_SHARED,
    ORACLE_INSIDE_EXCLUSIVE,
    ORACLE_RELEASING,
    ORACLE_PLACES,
};

struct oracle_life {
    _Atomic uint32_t doomed;
    _Atomic int32_t pid;
};

struct oracle {
    struct oracle_lock locks[ORACLE_LOCKS];
    struct oracle_worker workers[ORACLE_WORKERS];
    struct oracle_life lives[ORACLE_LIVES_MAX];
    _Atomic uint32_t stop;
    _Atomic uint32_t violations;
    _Atomic uint64_t exclusive, shared, optimistic, told, gave_up;
};

/* One worker's view; the canary is in the data of its segment. */
struct oracle_self {
    struct oracle *oracle;
    uint32_t worker;
    uint32_t life;
};

/* Counts and prints a violation. */
void oracle_violation(struct oracle *oracle, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Right after an acquire that gave LK_ACQUIRED or LK_ACQUIRED_OWNER_DIED, and right before the
 * release. The exclusive pair rewrites the canary in between. */
void oracle_enter_exclusive(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                            int result, struct oracle_canary *canary);
void oracle_leave_exclusive(const struct oracle_self *self, uint32_t index, int result, bool healed,
                            struct oracle_canary *canary);
void oracle_enter_shared(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                         int result, struct oracle_canary *canary);
void oracle_leave_shared(const struct oracle_self *self, uint32_t index, struct lk_lock *lock,
                         int result, struct oracle_canary *canary);

/* Before lk_lock_mark_consistent(). */
void oracle_heal(const struct oracle_self *self, uint32_t index, struct lk_lock *lock);

/* An optimistic read of the canary: whatever counts as valid is whole. */
void oracle_read(const struct oracle_self *self, uint32_t index, const struct lk_lock *lock,
                 const struct oracle_canary *canary);

const char *oracle_place_name(uint32_t place);
