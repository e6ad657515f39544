/* SPDX-License-Identifier: MIT */
#include "engine/turn.h"

#include "engine/fast.h"

static bool cas_word(struct lki_lock_hot *hot, uint32_t *word, uint32_t desired)
{
    LKI_STEP("cas_word");
    /* [word-handoff] [cell-word] [wait-word] seq_cst both ways: acquires what the last owner wrote,
     * releases what we did, and orders the looks at cells and waits that follow. */
    return atomic_compare_exchange_strong_explicit(&hot->word, word, desired, memory_order_seq_cst,
                                                   memory_order_seq_cst);
}

static uint32_t load_word(struct lki_lock_hot *hot)
{
    LKI_STEP("load_word");
    /* [cell-word] [wait-word] seq_cst: comes after our own cell or wait in the one total order */
    return atomic_load_explicit(&hot->word, memory_order_seq_cst);
}

bool lki_turn_free_word(struct lki_party *party, uint32_t lock, uint32_t add)
{
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];
    struct lki_oldest oldest = {0};
    bool looked = false;
    uint32_t word = load_word(hot);

    while (lki_word_id(word) == party->id) { /* anything else is a scribble: not ours to free */
        if (word & LKI_PARKED) {
            /* PARKED goes before the scan, every time: who publishes after it sets PARKED again, and
             * so makes the last CAS below fail. Without this a waiter that came and went leaves
             * PARKED behind, and another that trusts it is never seen. */
            if (!cas_word(hot, &word, word & ~LKI_PARKED))
                continue;
            word &= ~LKI_PARKED;
            oldest = lki_scan_oldest(area, lock, 0);
            looked = true;
        }
        uint32_t freed = (word & (LKI_DIED | LKI_BIASED | LKI_READ)) | add;
        if (oldest.slot != 0 && oldest.impatient)
            freed |= LKI_FAIR | LKI_PARKED;
        /* Failed: PARKED again, or a reader has set READ beside an owner for update; then what was
         * seen still counts. */
        if (!cas_word(hot, &word, freed))
            continue;
        if (oldest.slot != 0)
            lki_wake_slot(area, oldest.slot, party->wake, party->user);
        break;
    }
    return looked;
}

void lki_turn_enter_update(struct lki_party *party, uint32_t lock, bool parked)
{
    const struct lki_area *area = party->area;

    /* By 2: nothing is written, but (owner, sequence) names this hold. */
    lki_sequence_enter(&area->hot[lock], LKI_HOLD_TO_EXIT);
    if (parked)
        lki_wake_readers(area, lock, party->wake, party->user);
}

void lki_turn_become_update(struct lki_party *party, uint32_t lock, uint32_t add)
{
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];
    uint32_t word = load_word(hot);

    while (lki_word_id(word) == party->id) { /* as above */
        if (!cas_word(hot, &word, word | LKI_UPDATE | add))
            continue;
        if (word & LKI_PARKED)
            lki_wake_readers(area, lock, party->wake, party->user);
        return;
    }
}

bool lki_turn_park(struct lki_party *party, uint32_t lock, uint32_t word)
{
    if (word & LKI_PARKED)
        return true;
    /* [wait-word] seq_cst: our wait is published before PARKED can be seen */
    LKI_STEP("park");
    if (!atomic_compare_exchange_strong_explicit(&party->area->hot[lock].word, &word,
                                                 word | LKI_PARKED, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return false;
    /* We answer for the sleepers now: an owner for update keeps no reader out, but one that slept when it
     * came does not know. */
    if (word & LKI_UPDATE)
        lki_wake_readers(party->area, lock, party->wake, party->user);
    return true;
}

bool lki_turn_end_bias(struct lki_party *party, uint32_t lock)
{
    struct lki_lock_hot *hot = &party->area->hot[lock];

    LKI_STEP("end_bias_load");
    /* relaxed: nobody sets it while we own the word */
    if (!(atomic_load_explicit(&hot->word, memory_order_relaxed) & LKI_BIASED))
        return true;
    LKI_STEP("end_bias");
    if (!party->barrier || !party->barrier(party->user))
        return false;
    LKI_STEP("end_bias_word");
    /* [bias] seq_cst, after the barrier: whoever finds the word without it need not make another */
    atomic_fetch_and_explicit(&hot->word, ~LKI_BIASED, memory_order_seq_cst);
    return true;
}

void lki_turn_back_out(struct lki_party *party, uint32_t lock)
{
    lki_turn_free_word(party, lock, LKI_READ);
    /* The queue moves one by one, but all these readers could have been inside all the time. */
    lki_wake_readers(party->area, lock, party->wake, party->user);
}

void lki_turn_pass_on(struct lki_party *party, uint32_t lock)
{
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];

    for (;;) {
        /* The word is loaded before the scan and changed from that value alone: a FAIR that
         * somebody left since, for a waiter that the scan did not see, makes the CAS fail. If the
         * word has come back to the very same value, that waiter, who is awake, may be overtaken
         * once. */
        uint32_t word = load_word(hot);
        struct lki_oldest oldest = lki_scan_oldest(area, lock, lki_party_slot(party));
        bool is_free = lki_word_id(word) == 0;

        if (oldest.slot == 0) {
            if (!is_free || !(word & (LKI_FAIR | LKI_PARKED)) ||
                cas_word(hot, &word, word & ~(LKI_FAIR | LKI_PARKED)))
                return;
        } else if (is_free) {
            lki_wake_slot(area, oldest.slot, party->wake, party->user);
            return;
        } else if (lki_turn_park(party, lock, word)) {
            return; /* the owner will look when it unlocks */
        }
    }
}

int lki_party_cell(const struct lki_party *party, uint32_t lock)
{
    if (atomic_load_explicit(&party->self->cells[0], memory_order_relaxed) == lock + 1)
        return 0;
    for (uint32_t left = party->cells_used; left != 0; left &= left - 1) {
        int cell = __builtin_ctz(left);
        /* relaxed: only this party writes its cells while it lives */
        if (atomic_load_explicit(&party->self->cells[cell], memory_order_relaxed) == lock + 1)
            return cell;
    }
    return -1;
}

unsigned lki_turn_fill_cell(struct lki_party *party, uint32_t lock)
{
    /* relaxed: our own cell; who scribbles on it does not make us leave the array */
    bool first = party->cells_used == LKI_OTHER_CELLS ||
                 atomic_load_explicit(&party->self->cells[0], memory_order_relaxed) == 0;
    unsigned cell = first ? 0 : (unsigned)__builtin_ctz(~(party->cells_used | 1));

    LKI_STEP("enter_cell");
    /* [cell-word] seq_cst exchange, then a seq_cst access to the word: see lki_fast_take_shared() */
    atomic_exchange_explicit(&party->self->cells[cell], lock + 1, memory_order_seq_cst);
    party->cells_used |= (UINT32_C(1) << cell) & ~UINT32_C(1);
    return cell;
}

bool lki_turn_enter_shared(struct lki_party *party, uint32_t lock, uint32_t *out_word)
{
    unsigned cell = lki_turn_fill_cell(party, lock);
    return lki_turn_stay_shared(party, lock, cell, out_word);
}

bool lki_turn_stay_shared(struct lki_party *party, uint32_t lock, unsigned cell, uint32_t *out_word)
{
    struct lki_lock_hot *hot = &party->area->hot[lock];
    uint32_t word = load_word(hot);
    while (!lki_word_excludes_readers(word)) {
        if (word & LKI_READ || cas_word(hot, &word, word | LKI_READ)) {
            *out_word = word;
            return true;
        }
    }
    lki_cell_leave(party, lock, cell);
    return false;
}

void lki_cell_leave(struct lki_party *party, uint32_t lock, unsigned cell)
{
    uint32_t word = lki_cell_clear(party, lock, cell);
    if (lki_word_id(word) != 0)
        lki_cell_wake_owner(party, lock, word);
}

void lki_cell_wake_owner(struct lki_party *party, uint32_t lock, uint32_t word)
{
    const struct lki_area *area = party->area;
    uint32_t owner = lki_word_id(word);
    struct lki_attachment *attachment = lki_area_attachment(area, owner);
    if (!attachment || attachment == party->self)
        return;
    LKI_STEP("leave_owner_wait");
    /* [drain-wait] seq_cst, pairs with the drainer's publishing exchange, after which it scans the
     * cells once more: either it finds ours empty, or we find it draining. */
    uint64_t fact = atomic_load_explicit(&attachment->wait, memory_order_seq_cst);
    if (lki_wait_is(fact, LKI_WAIT_DRAINING, lock))
        lki_wake_slot(area, owner & LKI_SLOT_MASK, party->wake, party->user);
}
