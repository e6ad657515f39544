/* SPDX-License-Identifier: MIT */
/* Handing a lock on: taking the word, freeing it, and seeing to it that whoever waits is told.
 * Internal to engine/; what lock.c and wait.c share. */
#pragma once

#include "engine/scan.h"

static inline uint32_t lki_party_slot(const struct lki_party *party)
{
    return party->id & LKI_SLOT_MASK;
}

/* Held now: LKI_TAKEN, or LKI_TAKEN_DIED if the word says so. */
static inline enum lki_verdict lki_taken(uint32_t word)
{
    return word & LKI_DIED ? LKI_TAKEN_DIED : LKI_TAKEN;
}

/* The free word as `id` takes it, less PARKED. DIED stays; BIASED does until the taker's barrier; READ does
 * beside an owner for update, who leaves the readers alone. */
static inline uint32_t lki_word_taken(uint32_t word, uint32_t id, enum lki_mode mode)
{
    return mode == LKI_MODE_UPDATE ? id | LKI_UPDATE | (word & (LKI_DIED | LKI_BIASED | LKI_READ))
                                   : id | (word & (LKI_DIED | LKI_BIASED));
}

/* Frees the word that this party owns, leaving `add` (0 or LKI_READ), DIED, BIASED and READ in it, and wakes
 * the oldest waiter if PARKED says that there may be one. True: it has said so. */
bool lki_turn_free_word(struct lki_party *party, uint32_t lock, uint32_t add);

/* This party has taken the word for update: raises the sequence, and wakes waiting readers if PARKED says
 * that there may be some. */
void lki_turn_enter_update(struct lki_party *party, uint32_t lock, bool parked);

/* The owner, who draws back from becoming exclusive or has been it, is one for update from now on, beside
 * `add` (0 or LKI_READ). */
void lki_turn_become_update(struct lki_party *party, uint32_t lock, uint32_t add);

/* Makes the owner of this word look for waiters when it unlocks. False: the word has changed. */
bool lki_turn_park(struct lki_party *party, uint32_t lock, uint32_t word);

/* Before this party, which owns the word, looks at the cells: where the word shows BIASED, makes the barrier
 * that shows them, and takes BIASED away. False: there was no barrier; the readers are not known. */
bool lki_turn_end_bias(struct lki_party *party, uint32_t lock);

/* Gives up a word that was taken while readers stay inside: nothing was written under it. */
void lki_turn_back_out(struct lki_party *party, uint32_t lock);

/* Makes sure that the other waiters of the lock are covered: one is awake, or the owner will look.
 */
void lki_turn_pass_on(struct lki_party *party, uint32_t lock);

/* Fills a free cell and joins or begins reading; the caller has seen to FAIR. True: inside,
 * *out_word is the word that let it in. False: an owner is in the way, the cell is empty again. A
 * cell must be free. */
bool lki_turn_enter_shared(struct lki_party *party, uint32_t lock, uint32_t *out_word);

/* The first half of it. Returns which cell. */
unsigned lki_turn_fill_cell(struct lki_party *party, uint32_t lock);

/* The second half, for a cell that names the lock already. False: the cell is empty again. */
bool lki_turn_stay_shared(struct lki_party *party, uint32_t lock, unsigned cell,
                          uint32_t *out_word);

/* cells_used when all of them are taken. */
#define LKI_OTHER_CELLS ((UINT32_C(1) << LKI_SHARED_HOLDS_MAX) - 2)

static inline bool lki_party_has_free_cell(const struct lki_party *party)
{
    /* relaxed: our own cell */
    return atomic_load_explicit(&party->self->cells[0], memory_order_relaxed) == 0 ||
           party->cells_used != LKI_OTHER_CELLS;
}
