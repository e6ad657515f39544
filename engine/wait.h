/* SPDX-License-Identifier: MIT */
/* Waiting for a lock, as explicit steps that any driver can take: the client between futex sleeps,
 * the broker between events, a test by hand. The caller reads the clock and sleeps; the machine
 * decides.
 *
 *     lki_wait_begin(); while ((v = lki_wait_step(now, &sleep)) == LKI_SLEEP) sleep or return
 * later;
 *
 * A wait that was begun has to be stepped to an end or given up: its place in the queue is
 * published. One wait at a time per attachment. */
#pragma once

#include "engine/lock.h"

enum lki_wait_phase {
    LKI_WAIT_PHASE_ENDED,
    LKI_WAIT_PHASE_QUEUED,
    LKI_WAIT_PHASE_DRAINING,
};

struct lki_wait {
    struct lki_party *party; /* borrowed until the wait has ended */
    uint32_t lock;
    enum lki_mode mode;
    enum lki_hold hold;
    bool upgrade; /* of a hold for update, which is what giving up comes back to */
    enum lki_wait_phase phase;
    uint64_t fact; /* what is published */
    uint64_t start_ns;
    uint64_t deadline_ns; /* LKI_TIME_NEVER: none */
    uint32_t naps;        /* sleeps told so far */
    bool seen_once;       /* what follows counts */
    uint32_t seen_word;   /* the word less PARKED, its sequence, and since when they are so */
    uint64_t seen_sequence;
    uint64_t seen_since_ns;
    uint32_t died; /* LKI_DIED if the word that was taken had it */
};

struct lki_sleep {
    _Atomic uint32_t *futex; /* sleep while it has this value */
    uint32_t futex_value;
    uint64_t until_ns;
    bool ask;          /* the first nap has passed: ask the broker whether the owner lives */
    uint32_t owner;    /* the id that stands in the way; 0: readers, or nobody */
    uint64_t sequence; /* of the hold in the way: (owner, sequence) names it */
};

/* Publishes the wait. The lock has been tried and this party does not hold it in any mode.
 * Returns LKI_SLEEP (now step), LKI_NESTED, LKI_NO_CELL or LKI_STALE (nothing published). */
enum lki_verdict lki_wait_begin(struct lki_wait *wait, struct lki_party *party, uint32_t lock,
                                enum lki_mode mode, enum lki_hold hold, uint64_t now_ns,
                                uint64_t deadline_ns);

/* The same for a hold for update that is to become exclusive, once the readers have left; none comes in
 * from now on. lki_lock_upgrade_try() has been tried; `hold` is how the lock was taken. Giving up, or a
 * time-out, leaves it held for update. LKI_SLEEP (now step), LKI_NOT_HELD (not for update) or LKI_STALE. */
enum lki_verdict lki_wait_begin_upgrade(struct lki_wait *wait, struct lki_party *party,
                                        uint32_t lock, enum lki_hold hold, uint64_t now_ns,
                                        uint64_t deadline_ns);

/* Looks once. LKI_TAKEN, _TAKEN_DIED or _TIMED_OUT: ended. LKI_NO_CELL: ended, since this party has
 * filled its hold cells while it waited. LKI_SLEEP: *out_sleep says how long. */
enum lki_verdict lki_wait_step(struct lki_wait *wait, uint64_t now_ns, struct lki_sleep *out_sleep);

/* Leaves the queue, or backs out of the drain, and passes the turn on. Does nothing on an ended
 * wait. */
void lki_wait_give_up(struct lki_wait *wait);
