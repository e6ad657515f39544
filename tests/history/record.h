/* SPDX-License-Identifier: MIT */
/* What a process writes down about its calls while it makes them, in memory that survives it: one
 * record per attempt at a lock, from the question to the release, one per change of its mode (which is
 * the end of a hold and the beginning of another one), one per optimistic read, and, by
 * whoever ends and stops processes, one per death and per stop. All times are of one clock,
 * CLOCK_MONOTONIC. The stage is stored last: what it promises is there, at whatever instruction the
 * writer was killed. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define RECORD_LOCKS_MAX 16

enum record_kind {
    RECORD_LOCK = 1, /* all fields below */
    RECORD_READ,     /* asked, answered, result, token: the version, seen and whole */
    RECORD_DEATH, /* asked: before the kill, or the close of a session; answered: after its end */
    RECORD_STOP,  /* asked: before SIGSTOP; answered: after SIGCONT or SIGKILL */
};

enum record_stage {
    RECORD_ASKED = 1, /* the call has begun; who dies here may have got the lock or not */
    RECORD_REFUSED,   /* answered: not held */
    RECORD_HELD,      /* answered, token, told_* and seen are there */
    RECORD_WRITTEN,   /* exclusive: the canary is the token, whole */
    RECORD_LEAVING,   /* seen_last and leaving are there; who dies here may hold it or not */
    RECORD_LEFT,      /* released; also the end of the other kinds */
};

enum {
    RECORD_ASYNC = 1 << 0, /* asked by lk_lock_acquire_async() */
    RECORD_GIVEN_UP = 1 << 1 /* lk_lock_cancel() said 0: it will not be held */,
    RECORD_GRANTED = 1 << 2, /* lk_lock_cancel() said 1: it is held */
    RECORD_WHOLE = 1 << 3,   /* what was seen is one value */
    RECORD_WHOLE_LAST = 1 << 4,
    RECORD_MARKED = 1 << 5, /* lk_lock_mark_consistent() said 0 */
    RECORD_ACCEPTED = 1 << 6 /* lk_read_valid() said true */,
    RECORD_FENCELESS = 1 << 7 /* taken by the inline functions, of a biased lock */,
};

struct record {
    _Atomic uint32_t stage;
    uint32_t life; /* of the writer; of a death and a stop: whom it befell */
    uint8_t kind;
    uint8_t mode; /* enum lk_mode */
    uint8_t lock; /* counted over all segments */
    uint8_t flags;
    int32_t result; /* of the acquire */
    int32_t left_result;
    int32_t pid;   /* of the death: of whom; of a lock: of whom its recovery tells */
    uint32_t from; /* enum lk_mode: what the hold was until it changed into this one; 0: none */
    uint64_t told_token;
    uint64_t asked_ns;
    uint64_t answered_ns;
    uint64_t leaving_ns;
    uint64_t left_ns;
    uint64_t timeout_ns;
    uint64_t token;
    uint64_t seen;
    uint64_t seen_last;
};

/* relaxed would do for the checker, which reads when all is quiet; release keeps the compiler and a
 * weaker machine from moving the fields behind their stage. */
static inline void record_reach(struct record *record, enum record_stage stage)
{
    atomic_store_explicit(&record->stage, stage, memory_order_release);
}

static inline enum record_stage record_stage_of(const struct record *record)
{
    return (enum record_stage)atomic_load_explicit(&record->stage, memory_order_acquire);
}
