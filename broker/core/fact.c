/* SPDX-License-Identifier: MIT */
#include "broker/core/fact.h"
#include "engine/step.h"

#include <string.h>

#include "engine/repair.h"

void lkd_fact_publish(const struct lki_area *area)
{
    LKI_STEP("fact_publish");
    /* [published] release: an opener that finds the segment published finds its data initialised;
     * the creator's writes came before its request. */
    atomic_store_explicit(&area->header->state, LKI_SEGMENT_PUBLISHED, memory_order_release);
}

void lkd_fact_set_data_bytes(const struct lki_area *area, uint64_t data_bytes)
{
    LKI_STEP("fact_data_bytes");
    /* [data-bytes] release: whoever sees the size finds the memory there */
    atomic_store_explicit(&area->header->data_bytes, data_bytes, memory_order_release);
}

void lkd_fact_name_lock(const struct lki_area *area, uint32_t lock, const void *name,
                        uint32_t name_bytes)
{
    struct lki_lock_cold *cold = &area->cold[lock];
    LKI_STEP("fact_lock_name");
    memcpy(cold->name, name, name_bytes);
    LKI_STEP("fact_lock_name_bytes");
    /* [lock-name] release: whoever sees the length sees the name */
    atomic_store_explicit(&cold->name_bytes, name_bytes, memory_order_release);
}

uint32_t lkd_fact_lock_name(const struct lki_area *area, uint32_t lock, uint8_t *out_name)
{
    const struct lki_lock_cold *cold = &area->cold[lock];
    /* [lock-name] acquire: the name behind its length */
    uint32_t name_bytes = atomic_load_explicit(&cold->name_bytes, memory_order_acquire);
    if (name_bytes > LKI_NAME_BYTES_MAX)
        return 0; /* a scribble */
    memcpy(out_name, cold->name, name_bytes);
    return name_bytes;
}

void lkd_fact_restore_id(const struct lki_area *area, uint32_t slot, uint32_t id)
{
    LKI_STEP("fact_id");
    /* relaxed: the broker alone writes ids and reads this one again, in the repair */
    atomic_store_explicit(&area->attachments[slot].id, id, memory_order_relaxed);
}

void lkd_fact_drop_id(const struct lki_area *area, uint32_t slot)
{
    _Atomic uint32_t *id = &area->attachments[slot].id;
    LKI_STEP("fact_drop_id");
    /* relaxed: as above. Most have none: then nothing is written. */
    if (atomic_load_explicit(id, memory_order_relaxed) != 0)
        atomic_store_explicit(id, 0, memory_order_relaxed);
}

/* [two-looks] acquire: the looks of one search stay in their order, so that facts which were alike
 * in both held all together in between. */

uint32_t lkd_fact_look_word(const struct lki_area *area, uint32_t lock)
{
    return atomic_load_explicit(&area->hot[lock].word, memory_order_acquire);
}

uint64_t lkd_fact_look_sequence(const struct lki_area *area, uint32_t lock)
{
    return atomic_load_explicit(&area->hot[lock].sequence, memory_order_acquire);
}

uint64_t lkd_fact_look_wait(const struct lki_area *area, uint32_t slot)
{
    LKI_STEP("fact_look_wait"); /* its owner may write something else between two looks */
    return atomic_load_explicit(&area->attachments[slot].wait, memory_order_acquire);
}

bool lkd_fact_look_reads(const struct lki_area *area, uint32_t slot, uint32_t lock)
{
    for (uint32_t cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        if (atomic_load_explicit(&area->attachments[slot].cells[cell], memory_order_acquire) ==
            lock + 1)
            return true;
    return false;
}

/* Everything below is relaxed: one fact for people, on the strength of which nothing is read. */

void lkd_fact_held_since(const struct lki_area *area, uint32_t slot, uint64_t now_ns)
{
    atomic_store_explicit(&area->attachments[slot].held_since_ns, now_ns, memory_order_relaxed);
}

uint32_t lkd_fact_word(const struct lki_area *area, uint32_t lock)
{
    return atomic_load_explicit(&area->hot[lock].word, memory_order_relaxed);
}

uint64_t lkd_fact_wait(const struct lki_area *area, uint32_t slot)
{
    return atomic_load_explicit(&area->attachments[slot].wait, memory_order_relaxed);
}

bool lkd_fact_recovered(const struct lki_area *area, uint32_t lock, int32_t pid, uint64_t when_ns,
                        uint64_t *out_token)
{
    const struct lki_lock_cold *cold = &area->cold[lock];
    /* The record is the broker's own: plain, as it is written. */
    if (atomic_load_explicit(&cold->recovery_cause, memory_order_relaxed) == LKI_CAUSE_NONE ||
        cold->recovery_pid != pid || cold->recovery_when_ns != when_ns)
        return false;
    *out_token = cold->recovery_token;
    return true;
}

uint64_t lkd_fact_waiting_since(const struct lki_area *area, uint32_t slot)
{
    return atomic_load_explicit(&area->attachments[slot].waiting_since_ns, memory_order_relaxed);
}

uint32_t lkd_fact_cell(const struct lki_area *area, uint32_t slot, uint32_t cell)
{
    uint32_t value =
        atomic_load_explicit(&area->attachments[slot].cells[cell], memory_order_relaxed);
    return value >= 1 && value <= area->locks ? value - 1 : UINT32_MAX;
}

static uint64_t age_ns(uint64_t since_ns, uint64_t opened_ns, uint64_t now_ns)
{
    return since_ns >= opened_ns && since_ns <= now_ns && since_ns != 0 ? now_ns - since_ns : 0;
}

uint64_t lkd_fact_waiting_ns(const struct lki_area *area, uint32_t slot, uint64_t opened_ns,
                             uint64_t now_ns)
{
    return age_ns(lkd_fact_waiting_since(area, slot), opened_ns, now_ns);
}

uint64_t lkd_fact_held_ns(const struct lki_area *area, uint32_t slot, uint64_t opened_ns,
                          uint64_t now_ns)
{
    uint64_t since =
        atomic_load_explicit(&area->attachments[slot].held_since_ns, memory_order_relaxed);
    return age_ns(since, opened_ns, now_ns);
}
