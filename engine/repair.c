/* SPDX-License-Identifier: MIT */
#include "engine/repair.h"

#include <string.h>

#include "common/assert.h"
#include "engine/fence.h"
#include "engine/resume.h"
#include "engine/scan.h"
#include "engine/step.h"

uint32_t lki_attachment_open(const struct lki_area *area, uint32_t slot, uint32_t generation,
                             uint32_t flags)
{
    LKI_ASSERT(slot >= 1 && slot <= area->attachments_max);
    LKI_ASSERT(generation >= 1 && generation <= LKI_GENERATION_MAX);

    struct lki_attachment *attachment = &area->attachments[slot];
    uint32_t id = generation << LKI_GENERATION_SHIFT | slot;

    LKI_STEP("attachment_open");
    /* relaxed: nobody acts for this slot before the reply that names the id */
    atomic_store_explicit(&attachment->wait, LKI_WAIT_NONE, memory_order_relaxed);
    for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        atomic_store_explicit(&attachment->cells[cell], 0, memory_order_relaxed);
    atomic_fetch_and_explicit(&attachment->futex, ~LKI_LATE, memory_order_relaxed);
    atomic_store_explicit(&attachment->flags, flags, memory_order_relaxed);
    atomic_store_explicit(&attachment->waiting_since_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&attachment->held_since_ns, 0, memory_order_relaxed);
    if (slot > atomic_load_explicit(&area->header->attachments_used, memory_order_relaxed))
        /* [slot-count] seq_cst, pairs with lki_area_slots_used() */
        atomic_store_explicit(&area->header->attachments_used, slot, memory_order_seq_cst);
    LKI_STEP("attachment_id");
    /* release: who sees the id sees the flags */
    atomic_store_explicit(&attachment->id, id, memory_order_release);
    LKI_STEP("attachment_opened");
    return id;
}

void lki_repair_begin(struct lki_repair *repair, const struct lki_area *area, uint32_t id)
{
    *repair = (struct lki_repair){.area = area, .id = id};
}

/* The attachment of the dead, or NULL for an invented id: that can stand in words, but has no facts
 * of its own. A scribbled one may name a slot whose present owner lives: not ours to touch. */
static struct lki_attachment *attachment_of_dead(const struct lki_repair *repair)
{
    struct lki_attachment *attachment = lki_area_attachment(repair->area, repair->id);

    /* relaxed: only the broker writes ids */
    return attachment && atomic_load_explicit(&attachment->id, memory_order_relaxed) == repair->id
               ? attachment
               : NULL;
}

/* Says, before the first change is made, that everybody has to be woken after the last. It stands
 * in shared memory so that it outlives a repair which is begun anew and finds nothing any more. */
static void note_owing(struct lki_attachment *attachment)
{
    if (!attachment)
        return;
    LKI_STEP("repair_owing");
    /* relaxed: read by the broker alone */
    atomic_fetch_or_explicit(&attachment->flags, LKI_ATTACHMENT_OWING, memory_order_relaxed);
}

static void clear_facts(struct lki_repair *repair)
{
    struct lki_attachment *attachment = attachment_of_dead(repair);

    if (!attachment)
        return;
    /* seq_cst as the owner's own changes: [wait-word], [cell-word] */
    uint64_t wait = atomic_load_explicit(&attachment->wait, memory_order_seq_cst);
    if (wait) {
        if ((wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING)
            repair->drained = lki_wait_lock(wait) + 1;
        note_owing(attachment);
        LKI_STEP("repair_wait");
        atomic_exchange_explicit(&attachment->wait, LKI_WAIT_NONE, memory_order_seq_cst);
    }
    for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++) {
        if (!atomic_load_explicit(&attachment->cells[cell], memory_order_seq_cst))
            continue;
        note_owing(attachment);
        LKI_STEP("repair_cell");
        atomic_exchange_explicit(&attachment->cells[cell], 0, memory_order_seq_cst);
    }
}

static void record(const struct lki_area *area, uint32_t lock, uint64_t sequence,
                   const struct lki_death *death)
{
    struct lki_lock_hot *hot = &area->hot[lock];
    struct lki_lock_cold *cold = &area->cold[lock];

    /* relaxed: only the broker writes it. Recorded already: this one died while it drained, or the
     * repair was begun anew. Whoever did the damage at this sequence keeps the blame, and readers
     * inside may be reading the record. */
    if (atomic_load_explicit(&cold->recovery_cause, memory_order_relaxed) != LKI_CAUSE_NONE &&
        cold->recovery_token == sequence)
        return;
    /* A broker that dies in here leaves no record rather than half of one. */
    LKI_STEP("recovery_clear");
    atomic_store_explicit(&cold->recovery_cause, LKI_CAUSE_NONE, memory_order_relaxed);
    lki_fence(memory_order_release);
    LKI_STEP("recovery");
    cold->recovery_pid = death->pid;
    cold->recovery_uid = death->uid;
    cold->recovery_token = sequence;
    cold->recovery_when_ns = death->when_ns;
    memcpy(cold->recovery_command, death->command, sizeof(cold->recovery_command));
    cold->recovery_command[sizeof(cold->recovery_command) - 1] = 0;
    /* [declare] acquire, pairs with the releases in lki_lock_declare() */
    uint64_t declared = atomic_load_explicit(&hot->dirty_sequence, memory_order_acquire);
    cold->recovery_declared = declared == sequence;
    cold->recovery_dirty_offset = atomic_load_explicit(&hot->dirty_offset, memory_order_relaxed);
    cold->recovery_dirty_length = atomic_load_explicit(&hot->dirty_length, memory_order_relaxed);
    LKI_STEP("recovery_cause");
    /* release: after the rest. The CAS of the word that follows publishes the whole record. */
    atomic_store_explicit(&cold->recovery_cause, death->cause, memory_order_release);
}

static void free_dead_word(struct lki_repair *repair, uint32_t lock, const struct lki_death *death)
{
    const struct lki_area *area = repair->area;
    struct lki_lock_hot *hot = &area->hot[lock];
    /* relaxed: a word of somebody else is left alone, and the CAS checks ours again */
    uint32_t word = atomic_load_explicit(&hot->word, memory_order_relaxed);

    if (lki_word_id(word) != repair->id)
        return;
    note_owing(attachment_of_dead(repair));
    LKI_STEP("repair_sequence");
    /* relaxed: its writer has ended, and its end is how we know */
    uint64_t sequence = atomic_load_explicit(&hot->sequence, memory_order_relaxed);
    bool damaged = sequence & 1;
    /* Else the damage is older, and so is who did it. (A repair begun anew does not know who drained.) */
    if (damaged && !(word & LKI_UPDATE) && repair->drained != lock + 1)
        record(area, lock, sequence, death);
    while (lki_word_id(word) == repair->id) {
        /* READ: it may have taken the word from under readers. PARKED and FAIR: it may have died
         * between clearing PARKED and its scan, with somebody's turn due; where nobody waits they
         * stop nobody. */
        uint32_t freed = LKI_READ | LKI_PARKED | LKI_FAIR | (word & LKI_BIASED);
        if (damaged)
            freed |= LKI_DIED;
        LKI_STEP("repair_word");
        /* [word-handoff] seq_cst: the record, and what the dead one wrote, come before */
        if (atomic_compare_exchange_strong_explicit(&hot->word, &word, freed, memory_order_seq_cst,
                                                    memory_order_relaxed)) {
            repair->freed++;
            repair->damaged += damaged;
            return;
        }
    }
}

bool lki_repair_step(struct lki_repair *repair, const struct lki_death *death, uint32_t locks_max,
                     lki_wake_fn wake, void *user)
{
    const struct lki_area *area = repair->area;

    if (!repair->facts_cleared) {
        clear_facts(repair);
        repair->facts_cleared = true;
    }
    for (uint32_t i = 0; i < locks_max && repair->next_lock < area->locks; i++)
        free_dead_word(repair, repair->next_lock++, death);
    if (repair->next_lock < area->locks)
        return false;

    /* Whoever was killed may have died between its unlock and its wake, so everybody looks. One
     * that detached by itself owes nothing unless something of it was found. */
    struct lki_attachment *attachment = attachment_of_dead(repair);
    bool owes_nothing =
        death->cause == LKI_CAUSE_CLOSED && attachment &&
        !(atomic_load_explicit(&attachment->flags, memory_order_relaxed) & LKI_ATTACHMENT_OWING);
    if (!owes_nothing)
        lki_wake_waiters(area, wake, user);
    uint32_t id = repair->id;
    LKI_STEP("repair_id");
    if (attachment)
        /* release: the slot is given again only after all of the above */
        atomic_compare_exchange_strong_explicit(&attachment->id, &id, 0, memory_order_release,
                                                memory_order_relaxed);
    return true;
}

bool lki_repair_hold(const struct lki_area *area, uint32_t id, uint32_t lock,
                     const struct lki_death *death, lki_wake_fn wake, void *user)
{
    LKI_ASSERT(lock < area->locks);
    struct lki_repair repair = {.area = area, .id = id};

    /* relaxed: the broker acts for this owner, so it is the writer of both */
    if (lki_word_id(atomic_load_explicit(&area->hot[lock].word, memory_order_relaxed)) != id ||
        !(atomic_load_explicit(&area->hot[lock].sequence, memory_order_relaxed) & 1))
        return false;
    free_dead_word(&repair, lock, death);
    /* Its wake may be owed to a waiter of any kind, as after a death. */
    lki_wake_waiters(area, wake, user);
    return repair.freed > 0;
}

void lki_lock_look(const struct lki_area *area, uint32_t lock, struct lki_lock_state *out_state)
{
    LKI_ASSERT(lock < area->locks);
    struct lki_lock_hot *hot = &area->hot[lock];

    *out_state = (struct lki_lock_state){
        /* relaxed: a snapshot for people */
        .word = atomic_load_explicit(&hot->word, memory_order_relaxed),
        .sequence = atomic_load_explicit(&hot->sequence, memory_order_relaxed),
    };
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        const struct lki_attachment *attachment = &area->attachments[slot];
        uint64_t fact = atomic_load_explicit(&attachment->wait, memory_order_relaxed);
        if (lki_wait_is(fact, LKI_WAIT_QUEUED, lock))
            out_state->waiters++;
        if (!lki_attachment_reads(attachment, lock))
            continue;
        if (out_state->readers++ == 0)
            out_state->first_reader = atomic_load_explicit(&attachment->id, memory_order_relaxed);
    }
}
