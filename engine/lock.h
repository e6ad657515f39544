/* SPDX-License-Identifier: MIT */
/* The lock protocol: trying, releasing, marking, reading optimistically. docs/lock-protocol.md has
 * the rules; every order named here is in docs/memory-model.md.
 *
 * Owns nothing: a party borrows a view of a control area. No system call, no allocation, no clock:
 * who has to be woken is told through the party's wake function, and waiting is in engine/wait.h.
 * One thread at a time per party; parties are independent of each other, in one process or many. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/layout.h"

/* Called after the futex of `slot` was raised; the driver makes the sleeper run: by futex(2), or
 * through the broker where brokered. Must not call back into the engine. */
typedef void (*lki_wake_fn)(void *user, uint32_t slot, bool brokered);

/* Makes every thread of the machine that relies on LKI_BIASED pass a full memory barrier, as membarrier(2)
 * does, before it returns. False: that was not possible. Must not call back into the engine. */
typedef bool (*lki_barrier_fn)(void *user);

/* One attachment as seen by whoever acts for it: one party per attachment, for its whole life. */
struct lki_party {
    const struct lki_area *area;
    struct lki_attachment *self;
    uint32_t id; /* what it writes into words */
    /* Private copy: bit i is set while cell i names a lock. Not of the first cell, which is the fast
     * paths' and is looked at where it lies. */
    uint32_t cells_used;
    lki_wake_fn wake;
    lki_barrier_fn barrier; /* set after lki_party_init(); NULL: this driver cannot */
    void *user;
};

/* Fills a party for the live attachment `id` of the area. Borrows the area.
 * Returns false when the id names no slot of the area. */
bool lki_party_init(struct lki_party *party, const struct lki_area *area, uint32_t id,
                    lki_wake_fn wake, void *user);

enum lki_mode { /* the values of enum lk_mode */
                LKI_MODE_SHARED = 1,
                LKI_MODE_EXCLUSIVE = 2,
                LKI_MODE_UPDATE = 3, /* one at a time, beside readers; may become exclusive */
};

enum lki_hold {
    LKI_HOLD_DATA,    /* the sequence is odd inside: death means damage */
    LKI_HOLD_TO_EXIT, /* the sequence stays even: death is a plain release */
};

enum lki_verdict {
    LKI_TAKEN,      /* held */
    LKI_TAKEN_DIED, /* held, and an owner died inside */
    LKI_BUSY,       /* not held: somebody else holds it, or it is somebody else's turn */
    LKI_NESTED,     /* not held anew: this party holds it already */
    LKI_NO_CELL,    /* not held: all hold cells are taken */
    LKI_SLEEP,      /* not yet: sleep, then step again */
    LKI_TIMED_OUT,  /* not held: the deadline passed; nothing is left behind */
    LKI_RELEASED,
    LKI_NOT_HELD, /* nothing was changed */
    LKI_STALE,    /* this attachment has ended; nothing was changed */
};

/* One immediate attempt, which does not disturb readers. LKI_TAKEN, _TAKEN_DIED, _BUSY, _NESTED,
 * _NO_CELL or _STALE. lock < area->locks. */
enum lki_verdict lki_lock_try(struct lki_party *party, uint32_t lock, enum lki_mode mode,
                              enum lki_hold hold);

/* Sets BIASED on a lock that this party holds shared, if the area allows it, nobody waits and there is no
 * damage. When that pays is the caller's to know. */
void lki_lock_bias(struct lki_party *party, uint32_t lock);

/* Releases a hold of any mode. LKI_RELEASED, _NOT_HELD or _STALE. */
enum lki_verdict lki_lock_release(struct lki_party *party, uint32_t lock);

/* Makes an update hold exclusive if no reader is inside, without disturbing those who are; `hold` is how it
 * was taken. LKI_TAKEN, _TAKEN_DIED, _BUSY (still held for update), _NOT_HELD (not for update) or _STALE. To
 * wait for the readers: lki_wait_begin_upgrade(). */
enum lki_verdict lki_lock_upgrade_try(struct lki_party *party, uint32_t lock, enum lki_hold hold);

/* Makes an exclusive hold one for update or shared, or one for update shared, and lets readers in.
 * LKI_TAKEN; LKI_NOT_HELD (not in such a mode), _NO_CELL or _STALE: nothing was changed. */
enum lki_verdict lki_lock_downgrade(struct lki_party *party, uint32_t lock, enum lki_mode mode);

/* The exclusive owner says that the data is whole; `hold` is how it took the lock. LKI_TAKEN on
 * success, LKI_NOT_HELD if this party is not the exclusive owner. */
enum lki_verdict lki_lock_mark_consistent(struct lki_party *party, uint32_t lock,
                                          enum lki_hold hold);

/* The exclusive owner declares its dirty range. LKI_TAKEN, or LKI_NOT_HELD. */
enum lki_verdict lki_lock_declare(struct lki_party *party, uint32_t lock, uint64_t offset,
                                  uint64_t length_bytes);

/* The sequence now. */
static inline uint64_t lki_lock_sequence(const struct lki_area *area, uint32_t lock)
{
    /* relaxed: the value itself is the answer; nothing is read on the strength of it */
    return atomic_load_explicit(&area->hot[lock].sequence, memory_order_relaxed);
}

/* The cell in which this party holds the lock shared, or -1. */
int lki_party_cell(const struct lki_party *party, uint32_t lock);

/* Whether this party holds any lock shared. */
static inline bool lki_party_reads(const struct lki_party *party)
{
    /* relaxed: our own cell */
    return party->cells_used != 0 ||
           atomic_load_explicit(&party->self->cells[0], memory_order_relaxed) != 0;
}

/* Whether this party holds the lock, and how: 0, or an enum lki_mode. */
int lki_lock_held_by(const struct lki_party *party, uint32_t lock);

/* --- Optimistic reads; need no write access --- */

enum lki_read {
    LKI_READ_BEGUN,
    LKI_READ_WRITER_INSIDE,
    LKI_READ_DAMAGED,
};

enum lki_read lki_read_begin(const struct lki_area *area, uint32_t lock, uint64_t *out_version);
bool lki_read_valid(const struct lki_area *area, uint32_t lock, uint64_t version);
void lki_read_copy(void *to, const void *from, size_t bytes);
