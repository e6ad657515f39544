/* SPDX-License-Identifier: MIT */
#include "engine/scan.h"

#include "engine/step.h"

/* [wait-word] seq_cst, pairs with the exchange that publishes a wait: the one who publishes loads
 * the word afterwards, the one who scans has changed the word before, so one of them sees the
 * other. */
static uint64_t wait_of(const struct lki_area *area, uint32_t slot)
{
    LKI_STEP("scan_wait");
    return atomic_load_explicit(&area->attachments[slot].wait, memory_order_seq_cst);
}

/* [late] seq_cst, pairs with the waiter that clears its own mark before it looks at the word:
 * either the scan counts it again, or it finds the word as the scan left it. */
static bool is_late(const struct lki_area *area, uint32_t slot)
{
    LKI_STEP("scan_late");
    return atomic_load_explicit(&area->attachments[slot].futex, memory_order_seq_cst) & LKI_LATE;
}

/* Tickets wrap; two waiters of one moment are never 2^31 tickets apart. */
static bool is_older(uint32_t ticket, uint32_t than)
{
    return (int32_t)(ticket - than) < 0;
}

struct lki_oldest lki_scan_oldest(const struct lki_area *area, uint32_t lock, uint32_t except_slot)
{
    struct lki_oldest punctual = {0};
    uint32_t punctual_ticket = 0;
    uint32_t late_slot = 0;
    uint32_t late_ticket = 0;

    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        uint64_t fact = wait_of(area, slot);
        if (slot == except_slot || !lki_wait_is(fact, LKI_WAIT_QUEUED, lock))
            continue;
        uint32_t ticket = lki_wait_ticket(fact);
        if (is_late(area, slot)) {
            if (late_slot == 0 || is_older(ticket, late_ticket)) {
                late_slot = slot;
                late_ticket = ticket;
            }
            continue;
        }
        if (fact & LKI_WAIT_IMPATIENT)
            punctual.impatient = true;
        if (punctual.slot == 0 || is_older(ticket, punctual_ticket)) {
            punctual.slot = slot;
            punctual_ticket = ticket;
        }
    }
    if (punctual.slot == 0)
        punctual.slot = late_slot;
    return punctual;
}

/* One waiter of the lock that counts for `whom` and is not LATE. */
static bool counts(const struct lki_area *area, uint32_t slot, uint64_t fact, uint32_t lock,
                   enum lki_scan_whom whom)
{
    if (!lki_wait_is(fact, LKI_WAIT_QUEUED, lock))
        return false;
    if (whom == LKI_SCAN_WRITERS && lki_wait_mode(fact) != LKI_MODE_EXCLUSIVE)
        return false;
    return !is_late(area, slot);
}

uint32_t lki_scan_ahead(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                        uint32_t ticket, enum lki_scan_whom whom)
{
    uint32_t ahead = 0;
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        uint64_t fact = wait_of(area, slot);
        if (slot != own_slot && counts(area, slot, fact, lock, whom) &&
            is_older(lki_wait_ticket(fact), ticket))
            ahead++;
    }
    return ahead;
}

bool lki_scan_any(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                  enum lki_scan_whom whom)
{
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++)
        if (slot != own_slot && counts(area, slot, wait_of(area, slot), lock, whom))
            return true;
    return false;
}

void lki_scan_mark_late(const struct lki_area *area, uint32_t lock, uint32_t own_slot,
                        uint32_t ticket, enum lki_scan_whom whom)
{
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        uint64_t fact = wait_of(area, slot);
        if (slot == own_slot || !counts(area, slot, fact, lock, whom) ||
            !is_older(lki_wait_ticket(fact), ticket))
            continue;
        LKI_STEP("mark_late");
        /* [late] seq_cst, pairs with the waiter's own clearing */
        atomic_fetch_or_explicit(&area->attachments[slot].futex, LKI_LATE, memory_order_seq_cst);
    }
}

bool lki_attachment_reads(const struct lki_attachment *attachment, uint32_t lock)
{
    for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        /* [cell-word] seq_cst, pairs with the exchange that fills or empties the cell: acquire of
         * what a leaving reader read, and order after the taker's CAS of the word. */
        if (atomic_load_explicit(&attachment->cells[cell], memory_order_seq_cst) == lock + 1)
            return true;
    return false;
}

uint32_t lki_scan_reader(const struct lki_area *area, uint32_t lock, uint32_t own_slot)
{
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        LKI_STEP("scan_cells");
        if (slot == own_slot || !lki_attachment_reads(&area->attachments[slot], lock))
            continue;
        /* relaxed: names the reader for people and for the broker, decides nothing */
        uint32_t id = atomic_load_explicit(&area->attachments[slot].id, memory_order_relaxed);
        return (id & LKI_SLOT_MASK) == slot ? id : slot;
    }
    return 0;
}

void lki_wake_slot(const struct lki_area *area, uint32_t slot, lki_wake_fn wake, void *user)
{
    struct lki_attachment *attachment = &area->attachments[slot];

    LKI_STEP("wake_raise");
    /* [futex] seq_cst, pairs with the load that a sleeper makes before its last look: it either
     * sees what we did before, or its sleep ends at once because the value differs. */
    atomic_fetch_add_explicit(&attachment->futex, LKI_WAKE_STEP, memory_order_seq_cst);
    LKI_STEP("wake");
    /* relaxed: written before the attachment became live */
    uint32_t flags = atomic_load_explicit(&attachment->flags, memory_order_relaxed);
    wake(user, slot, flags & LKI_ATTACHMENT_BROKERED);
}

void lki_wake_readers(const struct lki_area *area, uint32_t lock, lki_wake_fn wake, void *user)
{
    uint32_t used = lki_area_slots_used(area);
    for (uint32_t slot = 1; slot <= used; slot++) {
        uint64_t fact = wait_of(area, slot);
        if (lki_wait_is(fact, LKI_WAIT_QUEUED, lock) && lki_wait_mode(fact) == LKI_MODE_SHARED)
            lki_wake_slot(area, slot, wake, user);
    }
}
