/* SPDX-License-Identifier: MIT */
#include "engine/wait.h"

#include "common/assert.h"
#include "common/clock.h"
#include "engine/fast.h"
#include "engine/turn.h"

#define FIRST_NAP_NS (1 * LKI_NS_PER_MS)
#define BEHIND_NAP_NS (3 * LKI_NS_PER_MS) /* the first one of who is not next, see below */
#define TURN_NAP_NS (5 * LKI_NS_PER_MS)   /* also: how long a free word may stay untouched */
#define LONG_NAP_NS (250 * LKI_NS_PER_MS) /* the backstop of every other sleep */

static void publish(struct lki_wait *wait, uint64_t fact)
{
    LKI_STEP("publish_wait");
    wait->fact = fact;
    /* [wait-word] [drain-wait] seq_cst exchange, before the look at word or cells that follows */
    atomic_exchange_explicit(&wait->party->self->wait, fact, memory_order_seq_cst);
}

enum lki_verdict lki_wait_begin(struct lki_wait *wait, struct lki_party *party, uint32_t lock,
                                enum lki_mode mode, enum lki_hold hold, uint64_t now_ns,
                                uint64_t deadline_ns)
{
    const struct lki_area *area = party->area;
    LKI_ASSERT(lock < area->locks);

    *wait = (struct lki_wait){.party = party, .phase = LKI_WAIT_PHASE_ENDED};
    /* relaxed: see lki_lock_release() */
    if (atomic_load_explicit(&party->self->id, memory_order_relaxed) != party->id)
        return LKI_STALE;
    if (lki_lock_held_by(party, lock) != 0)
        return LKI_NESTED;
    if (mode == LKI_MODE_SHARED && !lki_party_has_free_cell(party))
        return LKI_NO_CELL;

    wait->lock = lock;
    wait->mode = mode;
    wait->hold = hold;
    wait->start_ns = now_ns;
    wait->deadline_ns = deadline_ns;
    wait->phase = LKI_WAIT_PHASE_QUEUED;
    LKI_STEP("take_ticket");
    /* relaxed: the tickets' own total order is all that counts */
    uint32_t ticket = atomic_fetch_add_explicit(&area->hot[lock].ticket, 1, memory_order_relaxed);
    /* relaxed: for people */
    atomic_store_explicit(&party->self->waiting_since_ns, now_ns, memory_order_relaxed);
    publish(wait, LKI_WAIT_QUEUED | (uint64_t)mode << LKI_WAIT_MODE_SHIFT |
                      (area->patience_ns == LKI_PATIENCE_NONE ? LKI_WAIT_IMPATIENT : 0) |
                      (uint64_t)lock << LKI_WAIT_LOCK_SHIFT | ticket);
    return LKI_SLEEP;
}

static void publish_drain(struct lki_wait *wait)
{
    wait->phase = LKI_WAIT_PHASE_DRAINING;
    wait->naps = 0;
    publish(wait, LKI_WAIT_DRAINING | (uint64_t)wait->mode << LKI_WAIT_MODE_SHIFT |
                      (uint64_t)wait->lock << LKI_WAIT_LOCK_SHIFT);
}

enum lki_verdict lki_wait_begin_upgrade(struct lki_wait *wait, struct lki_party *party,
                                        uint32_t lock, enum lki_hold hold, uint64_t now_ns,
                                        uint64_t deadline_ns)
{
    struct lki_lock_hot *hot = &party->area->hot[lock];
    LKI_ASSERT(lock < party->area->locks);

    *wait = (struct lki_wait){
        .party = party,
        .lock = lock,
        .mode = LKI_MODE_EXCLUSIVE,
        .hold = hold,
        .upgrade = true,
        .phase = LKI_WAIT_PHASE_ENDED,
        .start_ns = now_ns,
        .deadline_ns = deadline_ns,
    };
    /* relaxed: see lki_lock_release() */
    if (atomic_load_explicit(&party->self->id, memory_order_relaxed) != party->id)
        return LKI_STALE;
    if (lki_lock_held_by(party, lock) != LKI_MODE_UPDATE)
        return LKI_NOT_HELD;
    atomic_store_explicit(&party->self->waiting_since_ns, now_ns, memory_order_relaxed);
    LKI_STEP("upgrade");
    /* [cell-word] seq_cst, as a taker's CAS: the look at the cells follows */
    uint32_t word =
        atomic_fetch_and_explicit(&hot->word, ~(LKI_UPDATE | LKI_READ), memory_order_seq_cst);
    wait->died = word & LKI_DIED;
    publish_drain(wait);
    return LKI_SLEEP;
}

/* The value of the own futex to sleep on, with LATE cleared in the same access: a value that has
 * LATE is never slept on, so a mark that comes later wakes us to clear it. */
static uint32_t remember_futex(struct lki_party *party)
{
    LKI_STEP("remember_futex");
    /* [futex] seq_cst, pairs with the waker's add; [late] pairs with the scan's look at the mark */
    uint32_t value = atomic_load_explicit(&party->self->futex, memory_order_seq_cst);
    if (value & LKI_LATE) {
        LKI_STEP("clear_late");
        value = atomic_fetch_and_explicit(&party->self->futex, ~LKI_LATE, memory_order_seq_cst) &
                ~LKI_LATE;
    }
    return value;
}

static enum lki_verdict end(struct lki_wait *wait, uint32_t word)
{
    wait->phase = LKI_WAIT_PHASE_ENDED;
    return lki_taken(word);
}

static enum lki_verdict enter_exclusive(struct lki_wait *wait)
{
    publish(wait, LKI_WAIT_NONE);
    lki_sequence_enter(&wait->party->area->hot[wait->lock], wait->hold);
    return end(wait, wait->died);
}

static enum lki_verdict enter_update(struct lki_wait *wait)
{
    publish(wait, LKI_WAIT_NONE);
    lki_turn_enter_update(wait->party, wait->lock, true); /* it took the word with PARKED */
    return end(wait, wait->died);
}

static enum lki_verdict sleep_for(struct lki_wait *wait, uint64_t now_ns, uint64_t nap_ns,
                                  uint32_t futex_value, struct lki_sleep *out_sleep)
{
    uint64_t until = lki_time_add(now_ns, nap_ns);
    out_sleep->futex = &wait->party->self->futex;
    out_sleep->futex_value = futex_value;
    out_sleep->until_ns = until < wait->deadline_ns ? until : wait->deadline_ns;
    out_sleep->ask = wait->naps > 0;
    if (wait->naps < UINT32_MAX)
        wait->naps++;
    return LKI_SLEEP;
}

/* One look at the cells while we own the word; sleeps only after a look that followed the
 * publishing. */
static enum lki_verdict step_drain(struct lki_wait *wait, uint64_t now_ns,
                                   struct lki_sleep *out_sleep)
{
    struct lki_party *party = wait->party;
    uint32_t futex_value = remember_futex(party);
    bool known = lki_turn_end_bias(party, wait->lock);
    uint32_t reader = lki_scan_reader(party->area, wait->lock, lki_party_slot(party));

    if (known && reader == 0)
        return enter_exclusive(wait);
    if (now_ns >= wait->deadline_ns) {
        lki_wait_give_up(wait);
        return LKI_TIMED_OUT;
    }
    out_sleep->owner = 0; /* the readers are in the way, not an owner */
    out_sleep->sequence = lki_lock_sequence(party->area, wait->lock);
    /* Without a barrier nobody wakes us: it is tried again soon. */
    return sleep_for(wait, now_ns, wait->naps == 0 || !known ? FIRST_NAP_NS : LONG_NAP_NS,
                     futex_value, out_sleep);
}

/* Takes the free word. False: somebody else changed it. */
static bool take_word(struct lki_wait *wait, uint32_t word)
{
    struct lki_party *party = wait->party;

    LKI_STEP("take_word");
    /* [word-handoff] [cell-word] as in lki_fast_take_exclusive(). PARKED: we answer for the
     * sleepers behind us, whom nobody else will wake. */
    if (!atomic_compare_exchange_strong_explicit(&party->area->hot[wait->lock].word, &word,
                                                 lki_word_taken(word, party->id, wait->mode) |
                                                     LKI_PARKED,
                                                 memory_order_seq_cst, memory_order_relaxed))
        return false;
    wait->died = word & LKI_DIED;
    if (wait->mode == LKI_MODE_EXCLUSIVE && word & (LKI_READ | LKI_BIASED))
        publish_drain(wait);
    return true;
}

/* Notes since when word and sequence have been seen as they are. PARKED may come and go meanwhile.
 */
static void note_seen(struct lki_wait *wait, uint32_t word, uint64_t now_ns)
{
    uint64_t sequence = lki_lock_sequence(wait->party->area, wait->lock);
    word &= ~LKI_PARKED;
    if (wait->seen_once && wait->seen_word == word && wait->seen_sequence == sequence)
        return;
    wait->seen_once = true;
    wait->seen_word = word;
    wait->seen_sequence = sequence;
    wait->seen_since_ns = now_ns;
}

/* The word is free but reserved for older waiters. True: it was left untouched for so long that we
 * pass them, and have marked them LATE. */
static bool step_over(struct lki_wait *wait, uint64_t now_ns, enum lki_scan_whom whom)
{
    if (now_ns - wait->seen_since_ns < TURN_NAP_NS)
        return false;
    lki_scan_mark_late(wait->party->area, wait->lock, lki_party_slot(wait->party),
                       lki_wait_ticket(wait->fact), whom);
    return true;
}

/* Somebody is before us, and may be stopped when the turn comes: we look often enough that this
 * costs little beside how long the present hold lasts. */
static uint64_t behind_nap_ns(const struct lki_wait *wait, uint64_t now_ns, bool is_free,
                              uint32_t ahead)
{
    uint64_t turn_ns = TURN_NAP_NS * ahead;
    uint64_t quarter_ns = is_free ? 0 : (now_ns - wait->seen_since_ns) / 4;
    uint64_t nap_ns = turn_ns > quarter_ns ? turn_ns : quarter_ns;
    return nap_ns < LONG_NAP_NS ? nap_ns : LONG_NAP_NS;
}

static uint64_t queue_nap_ns(const struct lki_wait *wait, uint64_t now_ns, bool is_free)
{
    const struct lki_area *area = wait->party->area;
    uint64_t patience_ns = area->patience_ns;

    if (is_free || wait->fact & LKI_WAIT_IMPATIENT) {
        uint32_t ahead = lki_scan_ahead(area, wait->lock, lki_party_slot(wait->party),
                                        lki_wait_ticket(wait->fact), LKI_SCAN_ALL);
        /* A timer that is due before the kernel's next tick has to be programmed, and taken back with the
         * wake: in strict order each hand-off paid for it. The next in line looks after the owner. */
        if (wait->naps == 0)
            return ahead > 0 ? BEHIND_NAP_NS : FIRST_NAP_NS;
        return ahead > 0 ? behind_nap_ns(wait, now_ns, is_free, ahead) : LONG_NAP_NS;
    }
    uint64_t patient_for_ns = patience_ns - (now_ns - wait->start_ns);
    uint64_t nap_ns = wait->naps == 0 ? FIRST_NAP_NS : LONG_NAP_NS;
    return patient_for_ns < nap_ns ? patient_for_ns : nap_ns;
}

/* Tries to get through a word that is free, or to readers open. LKI_BUSY: look again. LKI_SLEEP: reserved
 * for older waiters. */
static enum lki_verdict try_open_word(struct lki_wait *wait, uint32_t word, uint64_t now_ns)
{
    struct lki_party *party = wait->party;
    const struct lki_area *area = party->area;
    bool shared = wait->mode == LKI_MODE_SHARED;
    enum lki_scan_whom whom = shared ? LKI_SCAN_WRITERS : LKI_SCAN_ALL;

    if (word & LKI_FAIR && lki_scan_ahead(area, wait->lock, lki_party_slot(party),
                                          lki_wait_ticket(wait->fact), whom) > 0)
        return step_over(wait, now_ns, whom) ? LKI_BUSY : LKI_SLEEP;
    if (!shared) {
        if (!take_word(wait, word))
            return LKI_BUSY;
        if (wait->mode == LKI_MODE_UPDATE)
            return enter_update(wait);
        return wait->phase == LKI_WAIT_PHASE_DRAINING ? LKI_BUSY : enter_exclusive(wait);
    }
    if (!lki_party_has_free_cell(party)) { /* filled since the wait began */
        lki_wait_give_up(wait);
        return LKI_NO_CELL;
    }
    if (!lki_turn_enter_shared(party, wait->lock, &word))
        return LKI_BUSY;
    publish(wait, LKI_WAIT_NONE);
    lki_turn_pass_on(party, wait->lock);
    return end(wait, word);
}

static void grow_impatient(struct lki_wait *wait, uint64_t now_ns)
{
    if (!(wait->fact & LKI_WAIT_IMPATIENT) &&
        now_ns - wait->start_ns >= wait->party->area->patience_ns)
        publish(wait, wait->fact | LKI_WAIT_IMPATIENT);
}

enum lki_verdict lki_wait_step(struct lki_wait *wait, uint64_t now_ns, struct lki_sleep *out_sleep)
{
    struct lki_party *party = wait->party;
    LKI_ASSERT(wait->phase != LKI_WAIT_PHASE_ENDED);

    for (;;) {
        if (wait->phase == LKI_WAIT_PHASE_DRAINING)
            return step_drain(wait, now_ns, out_sleep);

        uint32_t futex_value = remember_futex(party);
        grow_impatient(wait, now_ns);
        LKI_STEP("look");
        /* [wait-word] seq_cst: after our wait was published */
        uint32_t word =
            atomic_load_explicit(&party->area->hot[wait->lock].word, memory_order_seq_cst);
        uint32_t owner = lki_word_id(word);
        note_seen(wait, word, now_ns);
        if (owner == 0 || (wait->mode == LKI_MODE_SHARED && !lki_word_excludes_readers(word))) {
            enum lki_verdict verdict = try_open_word(wait, word, now_ns);
            if (verdict == LKI_BUSY)
                continue;
            if (verdict != LKI_SLEEP)
                return verdict;
        } else if (!lki_turn_park(party, wait->lock, word)) {
            continue;
        }
        if (now_ns >= wait->deadline_ns) {
            lki_wait_give_up(wait);
            return LKI_TIMED_OUT;
        }
        out_sleep->owner = owner;
        out_sleep->sequence = lki_lock_sequence(party->area, wait->lock);
        return sleep_for(wait, now_ns, queue_nap_ns(wait, now_ns, owner == 0), futex_value,
                         out_sleep);
    }
}

void lki_wait_give_up(struct lki_wait *wait)
{
    enum lki_wait_phase phase = wait->phase;

    wait->phase = LKI_WAIT_PHASE_ENDED;
    switch (phase) {
    case LKI_WAIT_PHASE_ENDED:
        break;
    case LKI_WAIT_PHASE_QUEUED:
        publish(wait, LKI_WAIT_NONE);
        lki_turn_pass_on(wait->party, wait->lock); /* the wake that came for us is passed on */
        break;
    case LKI_WAIT_PHASE_DRAINING:
        publish(wait, LKI_WAIT_NONE);
        if (wait->upgrade)
            lki_turn_become_update(wait->party, wait->lock, LKI_READ);
        else
            lki_turn_back_out(wait->party, wait->lock);
        break;
    }
}
