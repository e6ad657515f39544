/* SPDX-License-Identifier: MIT */
/* The uncontended paths, inline: what lki_lock_try() and lki_lock_release() do when nothing is in
 * the way, and nothing when something is. The client library calls these first. include/lockkeeper/
 * inline.h has a copy of the exclusive pair, of shared pairs without a fence and of optimistic reads for
 * programs: what is changed here is changed there, and LK_INLINE_LAYOUT with it. */
#pragma once

#include "common/compiler.h"
#include "engine/fence.h"
#include "engine/lock.h"
#include "engine/step.h"

/* Raises the sequence for a hold that begins: to the next odd value, or by 2 for a hold to exit. */
static inline void lki_sequence_enter(struct lki_lock_hot *hot, enum lki_hold hold)
{
    LKI_STEP("sequence_enter");
    /* relaxed: only the owner of the word writes the sequence, and that is us */
    uint64_t sequence = atomic_load_explicit(&hot->sequence, memory_order_relaxed);
    uint64_t raised = hold == LKI_HOLD_TO_EXIT ? sequence + 2 : sequence + 1 + (sequence & 1);
    atomic_store_explicit(&hot->sequence, raised, memory_order_relaxed);
    /* [seqlock] release fence, pairs with the acquire fence in lki_hot_read_valid(): a reader that saw
     * a byte written from here on sees the odd sequence when it looks again. */
    lki_fence(memory_order_release);
    LKI_STEP("sequence_entered");
}

/* Raises the sequence for a hold that ends: even again, or still odd while the damage is not
 * repaired. */
static inline void lki_sequence_leave(struct lki_lock_hot *hot, uint32_t word)
{
    LKI_STEP("sequence_leave");
    uint64_t sequence = atomic_load_explicit(&hot->sequence, memory_order_relaxed);
    if (sequence & 1)
        /* [seqlock] release, pairs with the acquire in lki_hot_read_begin(): a reader that begins at
         * the even value sees all that was written under the lock. */
        atomic_store_explicit(&hot->sequence, sequence + (word & LKI_DIED ? 2 : 1),
                              memory_order_release);
    LKI_STEP("sequence_left");
}

/* The sequence as a reader finds it; odd: a writer is inside, or left damage. */
static inline uint64_t lki_hot_read_begin(const struct lki_lock_hot *hot)
{
    LKI_STEP("read_begin");
    /* [seqlock] acquire, pairs with the release in lki_sequence_leave() */
    return atomic_load_explicit(&hot->sequence, memory_order_acquire);
}

/* Whether the sequence is still what lki_hot_read_begin() gave. */
static inline bool lki_hot_read_valid(const struct lki_lock_hot *hot, uint64_t version)
{
    /* [seqlock] acquire fence, pairs with the release fence in lki_sequence_enter() */
    lki_fence(memory_order_acquire);
    LKI_STEP("read_valid");
    return atomic_load_explicit(&hot->sequence, memory_order_relaxed) == version;
}

/* Takes a free lock on which nobody reads, waits or left damage. True: held exclusively.
 * id: of a live party of the area. */
static inline bool lki_hot_take_exclusive(struct lki_lock_hot *hot, uint32_t id, enum lki_hold hold)
{
    uint32_t expected = 0;

    LKI_STEP("take_exclusive");
    /* [word-handoff] seq_cst (acquire is what the hand-off needs), pairs with the release in
     * lki_hot_release_exclusive(): what the last owner wrote under the lock is visible. Relaxed on
     * failure: a lost race reads no data. */
    if (!atomic_compare_exchange_strong_explicit(&hot->word, &expected, id, memory_order_seq_cst,
                                                 memory_order_relaxed))
        return false;
    lki_sequence_enter(hot, hold);
    return true;
}

/* Releases an exclusive hold that nobody waits for. True: released. False: nothing was done, or
 * only the sequence was left behind even, which lki_lock_release() finds and goes on from. */
static inline bool lki_hot_release_exclusive(struct lki_lock_hot *hot, uint32_t id)
{
    uint32_t expected = id;

    /* relaxed: our own id, if it is there, was written by ourselves */
    if (atomic_load_explicit(&hot->word, memory_order_relaxed) != id)
        return false;
    lki_sequence_leave(hot, 0); /* the word is our id alone: nobody left damage */
    /* [word-handoff] release, pairs with the acquire in whoever takes the word next. */
    return atomic_compare_exchange_strong_explicit(&hot->word, &expected, 0, memory_order_release,
                                                   memory_order_relaxed);
}

/* The same two for a lock by its number. */
static inline bool lki_fast_take_exclusive(struct lki_party *party, uint32_t lock,
                                           enum lki_hold hold)
{
    return lki_hot_take_exclusive(&party->area->hot[lock], party->id, hold);
}

static inline bool lki_fast_release_exclusive(struct lki_party *party, uint32_t lock)
{
    return lki_hot_release_exclusive(&party->area->hot[lock], party->id);
}

/* Leaves cell number `cell`, and wakes an owner that drains this lock. */
void lki_cell_leave(struct lki_party *party, uint32_t lock, unsigned cell);

/* The second half of that: wakes the owner in this word, which lki_cell_clear() returned, if it
 * drains. */
void lki_cell_wake_owner(struct lki_party *party, uint32_t lock, uint32_t word);

/* The first half. Returns the word as it was afterwards. */
static inline uint32_t lki_cell_clear(struct lki_party *party, uint32_t lock, unsigned cell)
{
    LKI_STEP("leave_cell");
    /* [cell-word] seq_cst exchange, pairs with the drainer's scan: what we read under the lock
     * comes before what the writer writes once it has seen the empty cell. */
    atomic_exchange_explicit(&party->self->cells[cell], 0, memory_order_seq_cst);
    party->cells_used &= ~(UINT32_C(1) << cell);
    LKI_STEP("leave_cell_left");
    /* The word is loaded again, after the cell: the owner that was seen earlier may have given up,
     * and another may drain since; it alone may sleep for this cell. */
    return atomic_load_explicit(&party->area->hot[lock].word, memory_order_seq_cst);
}

/* Joins or begins reading, with the first cell of a party that has no other hold in it, on a lock that nobody
 * owns, reserves or left damaged. True: held shared. False: the cell is empty. */
static inline bool lki_hot_take_shared(struct lki_party *party, uint32_t lock)
{
    struct lki_lock_hot *hot = &party->area->hot[lock];

    LKI_STEP("take_shared");
    /* [cell-word] seq_cst exchange, then seq_cst load; pairs with taker's CAS of the word and load
     * of the cells: one of the two sees the other. */
    atomic_exchange_explicit(&party->self->cells[0], lock + 1, memory_order_seq_cst);
    LKI_STEP("take_shared_cell");
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_seq_cst);
    if ((word & (LKI_ID_MASK | LKI_FAIR | LKI_DIED | LKI_READ)) == LKI_READ)
        return true;
    if ((word & (LKI_ID_MASK | LKI_FAIR | LKI_DIED)) == 0) {
        LKI_STEP("take_shared_read");
        if (atomic_compare_exchange_strong_explicit(&hot->word, &word, word | LKI_READ,
                                                    memory_order_seq_cst, memory_order_relaxed))
            return true;
    }
    lki_cell_leave(party, lock, 0);
    return false;
}

/* The same, of any party. */
static inline bool lki_fast_take_shared(struct lki_party *party, uint32_t lock)
{
    /* relaxed: our own cell. Another hold could be of this very lock: the slow path looks. */
    return (party->cells_used |
            atomic_load_explicit(&party->self->cells[0], memory_order_relaxed)) == 0 &&
           lki_hot_take_shared(party, lock);
}

/* Releases the shared hold of a party that has no other. True: released. False: nothing was done. */
static inline bool lki_fast_release_shared(struct lki_party *party, uint32_t lock)
{
    /* relaxed: our own cell */
    if (party->cells_used != 0 ||
        atomic_load_explicit(&party->self->cells[0], memory_order_relaxed) != lock + 1)
        return false;
    uint32_t word = lki_cell_clear(party, lock, 0);
    if ((word & LKI_ID_MASK) != 0)
        lki_cell_wake_owner(party, lock, word);
    return true;
}

/* --- The same for a biased lock, without a fence. Only for a process that takes part in barriers --- */

/* Whether the word says that a reader without a fence is seen, and nobody is in the way. One comparison: what
 * else may be set beside the two does not last, and readers with a fence come by. */
static inline bool lki_word_is_biased(uint32_t word)
{
    return LKI_LIKELY(word == (LKI_READ | LKI_BIASED));
}

enum lki_fenceless {
    LKI_FENCELESS_DONE,  /* held, or released */
    LKI_FENCELESS_AGAIN, /* the cell is written, but that was not enough: go on with a fence */
    LKI_FENCELESS_NOT,   /* nothing was done */
};

/* Joins the readers of a biased lock with the first cell of a party that does not have this lock in another
 * cell. AGAIN: the lock is not held; lki_hot_take_shared() goes on.
 * What the word is now is not looked at before the store: most often it is biased, and otherwise the store
 * is the one that lki_hot_take_shared() begins with.
 * value: the number of the lock + 1 */
static inline enum lki_fenceless lki_hot_take_fenceless(struct lki_lock_hot *hot,
                                                        _Atomic uint32_t *cell, uint32_t value)
{
    LKI_STEP("take_fenceless");
    /* relaxed: our own cell */
    if (LKI_UNLIKELY(atomic_load_explicit(cell, memory_order_relaxed) != 0))
        return LKI_FENCELESS_NOT;
    LKI_STEP("take_fenceless_cell");
    LKI_STORE_UNFENCED(cell, value, memory_order_relaxed);
    /* [bias] Only the compiler is held back here. The taker's barrier stops this thread before both
     * accesses, between them, or after them: before and between, the load below sees the taker;
     * after, the taker sees the cell. */
    atomic_signal_fence(memory_order_seq_cst);
    LKI_STEP("take_fenceless_look");
    /* [word-handoff] acquire: what the last owner wrote under the lock is visible */
    return lki_word_is_biased(atomic_load_explicit(&hot->word, memory_order_acquire))
               ? LKI_FENCELESS_DONE
               : LKI_FENCELESS_AGAIN;
}

/* Leaves it likewise, on whatever lock. AGAIN: released once lki_cell_leave() has emptied the cell again and
 * looked at the word. */
static inline enum lki_fenceless lki_hot_leave_fenceless(struct lki_lock_hot *hot,
                                                         _Atomic uint32_t *cell, uint32_t value)
{
    LKI_STEP("leave_fenceless");
    /* relaxed: as above */
    if (LKI_UNLIKELY(atomic_load_explicit(cell, memory_order_relaxed) != value))
        return LKI_FENCELESS_NOT;
    LKI_STEP("leave_fenceless_cell");
    /* [cell-word] release: what was read under the lock comes before what a writer writes who has seen the
     * empty cell */
    LKI_STORE_UNFENCED(cell, 0, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* [bias] as above, for a taker that drains */
    LKI_STEP("leave_fenceless_look");
    /* relaxed: nothing is read on the strength of it */
    return lki_word_is_biased(atomic_load_explicit(&hot->word, memory_order_relaxed))
               ? LKI_FENCELESS_DONE
               : LKI_FENCELESS_AGAIN;
}

/* The same two for a lock by its number, to the end. */
static inline bool lki_fast_take_fenceless(struct lki_party *party, uint32_t lock)
{
    if (party->cells_used != 0) /* another hold could be of this very lock */
        return false;
    enum lki_fenceless taken =
        lki_hot_take_fenceless(&party->area->hot[lock], &party->self->cells[0], lock + 1);
    return taken == LKI_FENCELESS_DONE ||
           (taken == LKI_FENCELESS_AGAIN && lki_hot_take_shared(party, lock));
}

static inline bool lki_fast_release_fenceless(struct lki_party *party, uint32_t lock)
{
    enum lki_fenceless left =
        lki_hot_leave_fenceless(&party->area->hot[lock], &party->self->cells[0], lock + 1);
    if (left == LKI_FENCELESS_AGAIN)
        lki_cell_leave(party, lock, 0);
    return left != LKI_FENCELESS_NOT;
}
