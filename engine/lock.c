/* SPDX-License-Identifier: MIT */
#include "engine/lock.h"

#include <string.h>

#include "common/assert.h"
#include "engine/fast.h"
#include "engine/fence.h"
#include "engine/turn.h"

#ifdef LKI_STEPS
void (*lki_step_hook)(const char *name);
bool (*lki_store_hook)(_Atomic uint32_t *where, uint32_t value);
#endif

bool lki_party_init(struct lki_party *party, const struct lki_area *area, uint32_t id,
                    lki_wake_fn wake, void *user)
{
    struct lki_attachment *self = lki_area_attachment(area, id);
    if (!self)
        return false;
    *party = (struct lki_party){.area = area, .self = self, .id = id, .wake = wake, .user = user};
    for (unsigned cell = 1; cell < LKI_SHARED_HOLDS_MAX; cell++)
        /* relaxed: our own cells */
        if (atomic_load_explicit(&self->cells[cell], memory_order_relaxed) != 0)
            party->cells_used |= UINT32_C(1) << cell;
    return true;
}

static bool is_live(const struct lki_party *party)
{
    /* relaxed: the broker ends an attachment only when nothing of it can run, or at its own wish */
    return atomic_load_explicit(&party->self->id, memory_order_relaxed) == party->id;
}

static enum lki_verdict try_exclusive(struct lki_party *party, uint32_t lock, enum lki_hold hold)
{
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];
    uint32_t own_slot = lki_party_slot(party);

    LKI_STEP("try_load");
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_seq_cst); /* [wait-word] */

    for (;;) {
        if (lki_word_id(word) != 0)
            return lki_word_id(word) == party->id ? LKI_NESTED : LKI_BUSY;
        if (lki_party_cell(party, lock) >= 0)
            return LKI_NESTED;
        if (word & LKI_FAIR && lki_scan_any(area, lock, own_slot, LKI_SCAN_ALL))
            return LKI_BUSY; /* free, but it is somebody's turn */
        if (word & (LKI_READ | LKI_BIASED) && lki_scan_reader(area, lock, own_slot) != 0)
            return LKI_BUSY; /* seen before the word is touched: readers notice nothing */
        LKI_STEP("try_exclusive");
        /* [word-handoff] [cell-word] as in lki_fast_take_exclusive() */
        if (atomic_compare_exchange_strong_explicit(
                &hot->word, &word,
                lki_word_taken(word, party->id, LKI_MODE_EXCLUSIVE) | (word & LKI_PARKED),
                memory_order_seq_cst, memory_order_seq_cst))
            break;
    }
    if (word & (LKI_READ | LKI_BIASED) &&
        (!lki_turn_end_bias(party, lock) || lki_scan_reader(area, lock, own_slot) != 0)) {
        lki_turn_back_out(party, lock); /* one came in between the look and the CAS */
        return LKI_BUSY;
    }
    lki_sequence_enter(hot, hold);
    return lki_taken(word);
}

static enum lki_verdict try_shared(struct lki_party *party, uint32_t lock)
{
    const struct lki_area *area = party->area;

    LKI_STEP("try_load");
    uint32_t word =
        atomic_load_explicit(&area->hot[lock].word, memory_order_seq_cst); /* [wait-word] */

    if (lki_word_id(word) == party->id || lki_party_cell(party, lock) >= 0)
        return LKI_NESTED;
    if (!lki_party_has_free_cell(party))
        return LKI_NO_CELL;
    if (lki_word_excludes_readers(word))
        return LKI_BUSY;
    if (word & LKI_FAIR && lki_scan_any(area, lock, lki_party_slot(party), LKI_SCAN_WRITERS))
        return LKI_BUSY;
    if (!lki_turn_enter_shared(party, lock, &word))
        return LKI_BUSY;
    if (word & (LKI_FAIR | LKI_PARKED))
        /* left by a repair: else every reader would come this slow way */
        lki_turn_pass_on(party, lock);
    return lki_taken(word);
}

static enum lki_verdict try_update(struct lki_party *party, uint32_t lock)
{
    const struct lki_area *area = party->area;
    struct lki_lock_hot *hot = &area->hot[lock];

    if (lki_party_cell(party, lock) >= 0) /* readers may be inside beside an owner */
        return LKI_NESTED;
    LKI_STEP("try_load");
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_seq_cst); /* [wait-word] */

    do {
        if (lki_word_id(word) == party->id)
            return LKI_NESTED;
        if (lki_word_id(word) != 0)
            return LKI_BUSY;
        if (word & LKI_FAIR && lki_scan_any(area, lock, lki_party_slot(party), LKI_SCAN_ALL))
            return LKI_BUSY;
        LKI_STEP("try_update");
        /* [word-handoff] [cell-word] as in lki_hot_take_exclusive() */
    } while (!atomic_compare_exchange_strong_explicit(
        &hot->word, &word, lki_word_taken(word, party->id, LKI_MODE_UPDATE) | (word & LKI_PARKED),
        memory_order_seq_cst, memory_order_seq_cst));
    lki_turn_enter_update(party, lock, word & LKI_PARKED);
    return lki_taken(word);
}

enum lki_verdict lki_lock_try(struct lki_party *party, uint32_t lock, enum lki_mode mode,
                              enum lki_hold hold)
{
    LKI_ASSERT(lock < party->area->locks);
    if (!is_live(party))
        return LKI_STALE;
    switch (mode) {
    case LKI_MODE_SHARED:
        return try_shared(party, lock);
    case LKI_MODE_UPDATE:
        return try_update(party, lock);
    case LKI_MODE_EXCLUSIVE:
        break;
    }
    return try_exclusive(party, lock, hold);
}

void lki_lock_bias(struct lki_party *party, uint32_t lock)
{
    LKI_ASSERT(lock < party->area->locks);
    struct lki_lock_hot *hot = &party->area->hot[lock];

    LKI_STEP("bias_load");
    uint32_t word =
        atomic_load_explicit(&hot->word, memory_order_relaxed); /* the CAS looks again */
    if (!party->area->bias || word != LKI_READ)
        return;
    LKI_STEP("bias");
    /* [bias] seq_cst as every change of the word. Who sees BIASED and relies on it is found by the next
     * taker's barrier; we are found by our cell, which was stored with a fence. */
    atomic_compare_exchange_strong_explicit(&hot->word, &word, LKI_READ | LKI_BIASED,
                                            memory_order_seq_cst, memory_order_relaxed);
}

enum lki_verdict lki_lock_release(struct lki_party *party, uint32_t lock)
{
    LKI_ASSERT(lock < party->area->locks);
    struct lki_lock_hot *hot = &party->area->hot[lock];
    /* relaxed: our own id, if it is there, was written by ourselves */
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_relaxed);

    if (!is_live(party))
        return LKI_STALE;
    if (lki_word_id(word) == party->id) {
        lki_sequence_leave(hot, word);
        lki_turn_free_word(party, lock, 0);
        return LKI_RELEASED;
    }
    int cell = lki_party_cell(party, lock);
    if (cell < 0)
        return LKI_NOT_HELD;
    lki_cell_leave(party, lock, (unsigned)cell);
    return LKI_RELEASED;
}

enum lki_verdict lki_lock_mark_consistent(struct lki_party *party, uint32_t lock,
                                          enum lki_hold hold)
{
    LKI_ASSERT(lock < party->area->locks);
    struct lki_lock_hot *hot = &party->area->hot[lock];
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_relaxed); /* as in release */

    /* A hold to exit ends without an unlock: its sequence is made even here, before DIED goes, or
     * its own end would count as damage again. */
    if (hold == LKI_HOLD_TO_EXIT && lki_word_is_exclusive(word, party->id) && word & LKI_DIED)
        lki_sequence_leave(hot, 0);
    while (lki_word_is_exclusive(word, party->id)) {
        LKI_STEP("mark_consistent");
        /* seq_cst as every change of the word; the unlock's release is what carries the repaired
         * data */
        if (atomic_compare_exchange_strong_explicit(&hot->word, &word, word & ~LKI_DIED,
                                                    memory_order_seq_cst, memory_order_relaxed))
            return LKI_TAKEN;
    }
    return LKI_NOT_HELD;
}

enum lki_verdict lki_lock_declare(struct lki_party *party, uint32_t lock, uint64_t offset,
                                  uint64_t length_bytes)
{
    LKI_ASSERT(lock < party->area->locks);
    struct lki_lock_hot *hot = &party->area->hot[lock];

    if (lki_lock_held_by(party, lock) != LKI_MODE_EXCLUSIVE)
        return LKI_NOT_HELD;
    /* The range counts for the sequence beside it, which is cleared first and stored last: dying in
     * between leaves no declaration rather than half of one. */
    LKI_STEP("declare");
    atomic_store_explicit(&hot->dirty_sequence, 0, memory_order_relaxed);
    LKI_STEP("declare_range");
    /* [declare] release, pairs with the acquire in repair: cleared before the range is touched */
    atomic_store_explicit(&hot->dirty_offset, offset, memory_order_release);
    LKI_STEP("declare_length");
    atomic_store_explicit(&hot->dirty_length, length_bytes, memory_order_release);
    LKI_STEP("declare_sequence");
    atomic_store_explicit(&hot->dirty_sequence, lki_lock_sequence(party->area, lock),
                          memory_order_release);
    /* [declare] release fence: the declaration comes before the first byte that it speaks of */
    lki_fence(memory_order_release);
    return LKI_TAKEN;
}

int lki_lock_held_by(const struct lki_party *party, uint32_t lock)
{
    uint32_t word = atomic_load_explicit(&party->area->hot[lock].word,
                                         memory_order_relaxed); /* as in release */

    if (lki_word_id(word) == party->id)
        return word & LKI_UPDATE ? LKI_MODE_UPDATE : LKI_MODE_EXCLUSIVE;
    return lki_party_cell(party, lock) >= 0 ? LKI_MODE_SHARED : 0;
}

enum lki_read lki_read_begin(const struct lki_area *area, uint32_t lock, uint64_t *out_version)
{
    const struct lki_lock_hot *hot = &area->hot[lock];
    uint64_t version = lki_hot_read_begin(hot);

    if (!(version & 1)) {
        *out_version = version;
        return LKI_READ_BEGUN;
    }
    LKI_STEP("read_word");
    /* relaxed: only tells two refusals apart */
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_relaxed);
    return lki_word_id(word) == 0 && word & LKI_DIED ? LKI_READ_DAMAGED : LKI_READ_WRITER_INSIDE;
}

bool lki_read_valid(const struct lki_area *area, uint32_t lock, uint64_t version)
{
    return lki_hot_read_valid(&area->hot[lock], version);
}

static uint64_t load_piece(const unsigned char *from)
{
    return __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
}

/* Relaxed loads, so that a writer's concurrent stores are no data race; the order comes from the
 * seqlock. The source may start at any byte, the target is private. */
void lki_read_copy(void *to, const void *from, size_t bytes)
{
    enum { PIECE = sizeof(uint64_t) };
    unsigned char *target = to;
    const unsigned char *source = from;

    while (bytes > 0 && (uintptr_t)source % PIECE != 0) {
        *target++ = __atomic_load_n(source++, __ATOMIC_RELAXED);
        bytes--;
    }
    /* Four loads, then four stores, each in a register: half the time of one by one. */
    for (; bytes >= 4 * PIECE; bytes -= 4 * PIECE, source += 4 * PIECE, target += 4 * PIECE) {
        uint64_t first = load_piece(source), second = load_piece(source + PIECE);
        uint64_t third = load_piece(source + 2 * PIECE), fourth = load_piece(source + 3 * PIECE);
        memcpy(target, &first, PIECE);
        memcpy(target + PIECE, &second, PIECE);
        memcpy(target + 2 * PIECE, &third, PIECE);
        memcpy(target + 3 * PIECE, &fourth, PIECE);
    }
    for (; bytes >= PIECE; bytes -= PIECE, source += PIECE, target += PIECE) {
        uint64_t piece = load_piece(source);
        memcpy(target, &piece, PIECE);
    }
    while (bytes-- > 0)
        *target++ = __atomic_load_n(source++, __ATOMIC_RELAXED);
}
