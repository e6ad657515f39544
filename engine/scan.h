/* SPDX-License-Identifier: MIT */
/* Looking for waiters and readers of one lock: the scans that stand where other designs have lists.
 * Internal to engine/. Every scan costs one cache line per slot ever given. */
#pragma once

#include "engine/lock.h"

static inline uint32_t lki_word_id(uint32_t word)
{
    return word & LKI_ID_MASK;
}

/* Whether readers have to wait: somebody owns the word, and not for update. */
static inline bool lki_word_excludes_readers(uint32_t word)
{
    return lki_word_id(word) != 0 && !(word & LKI_UPDATE);
}

static inline bool lki_word_is_exclusive(uint32_t word, uint32_t id)
{
    return lki_word_id(word) == id && lki_word_excludes_readers(word);
}

struct lki_oldest {
    uint32_t slot;  /* 0: nobody waits */
    bool impatient; /* some waiter that is not LATE is past its patience */
};

/* The oldest waiter of a lock: among those not LATE, else among all. except_slot is passed over. */
struct lki_oldest lki_scan_oldest(const struct lki_area *area, uint32_t lock, uint32_t except_slot);

enum lki_scan_whom {
    LKI_SCAN_ALL,
    LKI_SCAN_WRITERS,
};

/* How many waiters that are not LATE wait for the lock with an older ticket. */
uint32_t lki_scan_ahead(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                        uint32_t ticket, enum lki_scan_whom whom);

/* Whether anybody that is not LATE waits for the lock. */
bool lki_scan_any(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                  enum lki_scan_whom whom);

/* Marks LATE whoever is counted by lki_scan_ahead(). */
void lki_scan_mark_late(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                        uint32_t ticket, enum lki_scan_whom whom);

/* The id of an attachment with a cell for the lock, other than own_slot; 0: none. */
uint32_t lki_scan_reader(const struct lki_area *area, uint32_t lock, uint32_t own_slot);

/* Whether this attachment has a cell for the lock. */
bool lki_attachment_reads(const struct lki_attachment *attachment, uint32_t lock);

/* Raises the futex of a slot and lets the driver wake it. */
void lki_wake_slot(const struct lki_area *area, uint32_t slot, lki_wake_fn wake, void *user);

/* Wakes every reader that waits for the lock. */
void lki_wake_readers(const struct lki_area *area, uint32_t lock, lki_wake_fn wake, void *user);
