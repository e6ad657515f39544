/* SPDX-License-Identifier: MIT */
/* Update mode: an owner of the word beside readers, who may become exclusive and come back. */
#include "common/assert.h"
#include "engine/fast.h"
#include "engine/turn.h"

static bool is_live(const struct lki_party *party)
{
    /* relaxed: as in engine/lock.c */
    return atomic_load_explicit(&party->self->id, memory_order_relaxed) == party->id;
}

enum lki_verdict lki_lock_upgrade_try(struct lki_party *party, uint32_t lock, enum lki_hold hold)
{
    LKI_ASSERT(lock < party->area->locks);
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];
    uint32_t own_slot = lki_party_slot(party);

    if (!is_live(party))
        return LKI_STALE;
    if (lki_lock_held_by(party, lock) != LKI_MODE_UPDATE)
        return LKI_NOT_HELD;
    LKI_STEP("upgrade_load");
    /* [cell-word] seq_cst: a reader that is not seen below finds the word as we make it */
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_seq_cst);
    do {
        if (word & (LKI_READ | LKI_BIASED) && lki_scan_reader(area, lock, own_slot) != 0)
            return LKI_BUSY; /* seen before the word is touched: readers notice nothing */
        LKI_STEP("upgrade_try");
        /* [cell-word] as in lki_hot_take_exclusive() */
    } while (!atomic_compare_exchange_strong_explicit(&hot->word, &word,
                                                      word & ~(LKI_UPDATE | LKI_READ),
                                                      memory_order_seq_cst, memory_order_seq_cst));
    if (word & (LKI_READ | LKI_BIASED) &&
        (!lki_turn_end_bias(party, lock) || lki_scan_reader(area, lock, own_slot) != 0)) {
        lki_turn_become_update(party, lock,
                               LKI_READ); /* one came in between the look and the CAS */
        return LKI_BUSY;
    }
    lki_sequence_enter(hot, hold);
    return lki_taken(word);
}

enum lki_verdict lki_lock_downgrade(struct lki_party *party, uint32_t lock, enum lki_mode mode)
{
    LKI_ASSERT(lock < party->area->locks);
    struct lki_lock_hot *hot = &party->area->hot[lock];
    int held = lki_lock_held_by(party, lock);

    if (!is_live(party))
        return LKI_STALE;
    if (mode == LKI_MODE_EXCLUSIVE ||
        (held != LKI_MODE_EXCLUSIVE && !(held == LKI_MODE_UPDATE && mode == LKI_MODE_SHARED)))
        return LKI_NOT_HELD;
    if (mode == LKI_MODE_SHARED && lki_party_cell(party, lock) < 0 &&
        !lki_party_has_free_cell(party))
        return LKI_NO_CELL;
    /* The cell first: from the CAS of the word on it is all that keeps writers out. Filled already: by a
     * broker that died in between. */
    if (mode == LKI_MODE_SHARED && lki_party_cell(party, lock) < 0)
        lki_turn_fill_cell(party, lock);
    /* relaxed: DIED beside our own id is taken away by ourselves alone */
    lki_sequence_leave(hot, atomic_load_explicit(&hot->word, memory_order_relaxed));
    if (mode == LKI_MODE_UPDATE)
        lki_turn_become_update(party, lock, 0);
    else if (lki_turn_free_word(party, lock, LKI_READ))
        lki_wake_readers(party->area, lock, party->wake, party->user);
    return LKI_TAKEN;
}
