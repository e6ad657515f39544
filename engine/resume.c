/* SPDX-License-Identifier: MIT */
#include "engine/resume.h"

#include "common/assert.h"
#include "engine/fast.h"
#include "engine/turn.h"

static void publish(struct lki_wait *wait, uint64_t fact)
{
    LKI_STEP("resume_publish");
    wait->fact = fact;
    /* [wait-word] [drain-wait] seq_cst exchange, as in engine/wait.c */
    atomic_exchange_explicit(&wait->party->self->wait, fact, memory_order_seq_cst);
}

static enum lki_verdict ended(struct lki_wait *wait, enum lki_verdict verdict)
{
    if (wait->fact != LKI_WAIT_NONE)
        publish(wait, LKI_WAIT_NONE);
    wait->phase = LKI_WAIT_PHASE_ENDED;
    return verdict;
}

/* Where the attempt stands without a hold: in the queue with its old ticket, or nowhere. */
static enum lki_verdict queued_or_nothing(struct lki_wait *wait)
{
    if (!lki_wait_is(wait->fact, LKI_WAIT_QUEUED, wait->lock) ||
        lki_wait_mode(wait->fact) != (uint32_t)wait->mode)
        return ended(wait, LKI_NOT_HELD);
    wait->phase = LKI_WAIT_PHASE_QUEUED;
    return LKI_SLEEP;
}

void lki_lock_resume(struct lki_party *party, uint32_t lock)
{
    struct lki_lock_hot *hot = &party->area->hot[lock];
    /* relaxed: our own id, if it is there, was written for us, and only we take it out */
    if (lki_word_id(atomic_load_explicit(&hot->word, memory_order_relaxed)) != party->id)
        return;
    LKI_STEP("resume_park");
    /* [wait-word] seq_cst, as every PARKED: the unlock that follows finds it, and then the waits */
    atomic_fetch_or_explicit(&hot->word, LKI_PARKED, memory_order_seq_cst);
}

/* The word is ours. Whether the readers have been waited for is told by the sequence: for a hold of
 * data it is odd from the moment that we are inside, unless an owner died inside before us. Where
 * it does not tell, the drain is gone through once more: it ends at once where nobody reads, and
 * raises the sequence once more, of which nobody was told. */
static enum lki_verdict resume_owner(struct lki_wait *wait, uint32_t word)
{
    lki_lock_resume(wait->party, wait->lock);
    bool odd = lki_lock_sequence(wait->party->area, wait->lock) & 1;

    if (odd && !(word & LKI_DIED) && wait->hold == LKI_HOLD_DATA)
        return ended(wait, LKI_TAKEN);
    wait->died = word & LKI_DIED;
    wait->phase = LKI_WAIT_PHASE_DRAINING;
    publish(wait, LKI_WAIT_DRAINING | (uint64_t)wait->mode << LKI_WAIT_MODE_SHIFT |
                      (uint64_t)wait->lock << LKI_WAIT_LOCK_SHIFT);
    return LKI_SLEEP;
}

/* The word is ours, for update. Whether the sequence was raised is not told: it is raised once more. */
static enum lki_verdict resume_update(struct lki_wait *wait, uint32_t word)
{
    lki_lock_resume(wait->party, wait->lock);
    enum lki_verdict verdict = ended(wait, lki_taken(word));
    lki_turn_enter_update(wait->party, wait->lock, true);
    return verdict;
}

enum lki_verdict lki_wait_resume_upgrade(struct lki_wait *wait, struct lki_party *party,
                                         uint32_t lock, uint64_t now_ns, uint64_t deadline_ns)
{
    LKI_ASSERT(lock < party->area->locks);
    LKI_STEP("resume_word");
    /* relaxed: our own id, if it is there, was written for us */
    uint32_t word = atomic_load_explicit(&party->area->hot[lock].word, memory_order_relaxed);

    lki_lock_resume(party, lock);
    if (lki_word_id(word) == party->id && word & LKI_UPDATE) /* not begun, or given up again */
        return lki_wait_begin_upgrade(wait, party, lock, LKI_HOLD_DATA, now_ns, deadline_ns);
    *wait = (struct lki_wait){
        .party = party,
        .lock = lock,
        .mode = LKI_MODE_EXCLUSIVE,
        .hold = LKI_HOLD_DATA,
        .upgrade = true,
        .phase = LKI_WAIT_PHASE_ENDED,
        .start_ns = now_ns,
        .deadline_ns = deadline_ns,
        /* relaxed: our own fact */
        .fact = atomic_load_explicit(&party->self->wait, memory_order_relaxed),
    };
    return lki_word_id(word) == party->id ? resume_owner(wait, word) : ended(wait, LKI_NOT_HELD);
}

/* Our cell names the lock: the word that is loaded now, after it, says whether we are inside. */
static enum lki_verdict resume_reader(struct lki_wait *wait, unsigned cell)
{
    struct lki_party *party = wait->party;
    uint32_t word;

    if (!lki_turn_stay_shared(party, wait->lock, cell, &word))
        return queued_or_nothing(wait);
    enum lki_verdict verdict = ended(wait, lki_taken(word));
    lki_turn_pass_on(party, wait->lock);
    return verdict;
}

enum lki_verdict lki_wait_resume(struct lki_wait *wait, struct lki_party *party, uint32_t lock,
                                 enum lki_mode mode, enum lki_hold hold, uint64_t now_ns,
                                 uint64_t deadline_ns)
{
    LKI_ASSERT(lock < party->area->locks);
    *wait = (struct lki_wait){
        .party = party,
        .lock = lock,
        .mode = mode,
        .hold = hold,
        .phase = LKI_WAIT_PHASE_ENDED,
        .start_ns = now_ns, /* whoever was impatient has published it */
        .deadline_ns = deadline_ns,
        /* relaxed: our own fact */
        .fact = atomic_load_explicit(&party->self->wait, memory_order_relaxed),
    };
    LKI_STEP("resume_word");
    /* relaxed: our own id, if it is there, was written for us */
    uint32_t word = atomic_load_explicit(&party->area->hot[lock].word, memory_order_relaxed);

    if (mode != LKI_MODE_SHARED) {
        if (lki_word_id(word) != party->id)
            return queued_or_nothing(wait);
        return mode == LKI_MODE_UPDATE ? resume_update(wait, word) : resume_owner(wait, word);
    }
    int cell = lki_party_cell(party, lock);
    return cell >= 0 ? resume_reader(wait, (unsigned)cell) : queued_or_nothing(wait);
}

void lki_wake_waiters(const struct lki_area *area, lki_wake_fn wake, void *user)
{
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        LKI_STEP("wake_waiters_scan");
        /* [wait-word] seq_cst: whoever publishes later finds the words as we left them */
        if (atomic_load_explicit(&area->attachments[slot].wait, memory_order_seq_cst))
            lki_wake_slot(area, slot, wake, user);
    }
}
