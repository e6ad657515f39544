/* SPDX-License-Identifier: MIT */
#include "broker/core/brokered_change.h"

#include "broker/core/brokered_hold.h"
#include "broker/core/brokered_step.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/fact.h"
#include "broker/core/session.h"
#include "engine/resume.h"
#include "engine/step.h"

/* --- What a successor has to know --- */

static void note_begun(struct lkd_attachment *place, uint64_t request)
{
    LKI_STEP("change_record");
    /* release: before its effects, which are releases at least */
    atomic_store_explicit(&place->record->change_request, request, memory_order_release);
    LKI_STEP("change_recorded");
}

static void note_upgrading(struct lkd_attachment *place, const struct lki_message *message)
{
    const struct lki_change_mode *change = &message->as.change_mode;
    struct lkd_attachment_record *record = place->record;

    note_begun(place, message->id);
    record->change_lock = change->lock;
    record->change_deadline_ns = change->deadline_ns;
    lkd_record_enter(&record->upgrading, true);
}

void lkd_change_note_over(struct lkd_attachment *place)
{
    lkd_record_leave(&place->record->upgrading, false);
}

/* Whether another worker had begun this very request. */
static bool was_begun(const struct lkd_attachment *place, uint64_t request)
{
    /* relaxed: written by a worker that has ended, or by this one */
    return place->session->repeating &&
           atomic_load_explicit(&place->record->change_request, memory_order_relaxed) == request;
}

/* --- To exclusive --- */

void lkd_change_answer(struct lkd_core *core, struct lkd_attachment *place,
                       enum lki_verdict verdict, uint64_t request)
{
    uint32_t lock = place->record->change_lock;
    lkd_change_note_over(place); /* before anybody is told: what the word says is what came of it */
    switch (verdict) {
    case LKI_TAKEN:
        lkd_wait_say_granted(core, place, request, lock, LKI_STATUS_OK);
        break;
    case LKI_TAKEN_DIED:
        lkd_wait_say_granted(core, place, request, lock, LKI_STATUS_OWNER_DIED);
        break;
    case LKI_BUSY:
        lkd_wait_refuse(core, place, request, lock, LKI_STATUS_BUSY,
                        "readers are inside; it is still held for update");
        break;
    default: /* the hold is known to be there: nothing else is left */
        lkd_wait_refuse(core, place, request, lock, LKI_STATUS_TIMED_OUT,
                        "readers stayed inside; it is still held for update");
        break;
    }
}

static void upgrade(struct lkd_core *core, struct lkd_attachment *place,
                    const struct lki_message *message, uint64_t now_ns)
{
    const struct lki_change_mode *change = &message->as.change_mode;
    uint32_t lock = change->lock;

    if (place->waiting) {
        lkd_refuse(core, place->session, message->id, LKI_STATUS_PENDING,
                   "this session waits for a lock of the segment; cancel that first");
        return;
    }
    note_upgrading(place, message);
    if (place->granted_lock == lock)
        place->granted_to_exit = false; /* from here on it is a hold for data */
    if (place->record->lock == lock)
        place->record->to_exit = false;
    enum lki_verdict verdict = lki_lock_upgrade_try(&place->party, lock, LKI_HOLD_DATA);
    if (verdict != LKI_BUSY || change->deadline_ns == 0) {
        lkd_change_answer(core, place, verdict, message->id);
        return;
    }
    if (!lkd_wait_may_begin(core, place, message->id, lock)) {
        lkd_change_note_over(place);
        return;
    }
    (void)lki_wait_begin_upgrade(&place->wait, &place->party, lock, LKI_HOLD_DATA, now_ns,
                                 change->deadline_ns); /* held for update: it begins */
    lkd_wait_begin(place, message->id);
    lkd_wait_step(core, place, now_ns);
}

/* True: this very request has been seen to by another worker, or is. */
static bool is_known_upgrade(struct lkd_core *core, struct lkd_attachment *place,
                             const struct lki_message *message)
{
    uint32_t lock = message->as.change_mode.lock;
    if (!was_begun(place, message->id))
        return false;
    if (lkd_waits_for(place, lock)) /* its answer comes when the wait ends */
        return true;
    if (lki_lock_held_by(&place->party, lock) != LKI_MODE_EXCLUSIVE)
        return false; /* nothing came of it, and nobody was told: begun anew */
    bool died = lkd_fact_word(place->party.area, lock) & LKI_DIED;
    lkd_wait_say_granted(core, place, message->id, lock,
                         died ? LKI_STATUS_OWNER_DIED : LKI_STATUS_OK);
    return true;
}

void lkd_change_adopt(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns)
{
    const struct lkd_attachment_record *record = place->record;
    uint64_t request = atomic_load_explicit(&record->change_request, memory_order_relaxed);
    enum lki_verdict verdict = lki_wait_resume_upgrade(
        &place->wait, &place->party, record->change_lock, now_ns, record->change_deadline_ns);
    if (verdict == LKI_SLEEP) {
        lkd_wait_begin(place, request);
        lkd_wait_wake(core, place);
    } else {
        lkd_change_answer(core, place, verdict, request);
    }
}

/* --- Weaker --- */

static bool is_weaker(enum lki_mode mode, int held)
{
    return held == LKI_MODE_EXCLUSIVE || (held == LKI_MODE_UPDATE && mode == LKI_MODE_SHARED);
}

static void downgrade(struct lkd_core *core, struct lkd_attachment *place,
                      const struct lki_message *message)
{
    const struct lki_change_mode *change = &message->as.change_mode;
    uint32_t lock = change->lock;
    enum lki_mode mode = (enum lki_mode)change->mode;
    int held = lki_lock_held_by(&place->party, lock);

    if (was_begun(place, message->id) && held == (int)mode) {
        lkd_hold_answer(core, place, message, lock, true);
        return;
    }
    /* Before it is noted: else a successor takes what is refused for done. */
    if (!lkd_hold_is_meant(place, lock, message->id) || !is_weaker(mode, held)) {
        lkd_hold_answer(core, place, message, lock, false);
        return;
    }
    note_begun(place, message->id);
    enum lki_verdict verdict = lki_lock_downgrade(&place->party, lock, mode);
    if (verdict == LKI_NO_CELL)
        lkd_wait_refuse(core, place, message->id, lock, LKI_STATUS_NO_CELL,
                        "this session holds 16 locks of the segment shared, which is the maximum; "
                        "release one");
    else
        lkd_hold_answer(core, place, message, lock, verdict == LKI_TAKEN);
}

void lkd_change_mode(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message, uint64_t now_ns)
{
    const struct lki_change_mode *change = &message->as.change_mode;
    struct lkd_attachment *place =
        lkd_hold_place(core, main, message, change->lock, change->attachment);
    if (!place)
        return;
    switch (change->mode) {
    case LKI_MODE_EXCLUSIVE:
        if (is_known_upgrade(core, place, message))
            return;
        if (lkd_hold_is_meant(place, change->lock, message->id) &&
            lki_lock_held_by(&place->party, change->lock) == LKI_MODE_UPDATE)
            upgrade(core, place, message, now_ns);
        else
            lkd_hold_answer(core, place, message, change->lock, false);
        break;
    case LKI_MODE_UPDATE:
    case LKI_MODE_SHARED:
        downgrade(core, place, message);
        break;
    default:
        lkd_refuse(core, main->session, message->id, LKI_STATUS_INVALID,
                   "there is no mode %u to change to: use exclusive, update or shared",
                   change->mode);
        break;
    }
}
