/* SPDX-License-Identifier: MIT */
#include "broker/core/brokered_wait.h"

#include "broker/core/attachment.h"
#include "broker/core/brokered_change.h"
#include "broker/core/brokered_step.h"
#include "broker/core/charge.h"
#include "broker/core/deadlock.h"
#include "broker/core/doubt.h"
#include "broker/core/fact.h"
#include "broker/core/fence.h"
#include "broker/core/inquiry.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"
#include "common/clock.h"
#include "engine/step.h"
#include "lockkeeper/lockkeeper.h"

/* How long after the last look for a deadlock a waiter that steps looks again: with its long naps.
 */
#define RECHECK_NS (200 * LKI_NS_PER_MS)

/* --- What a successor has to know --- */

/* Before the first step: which request this attempt is for. */
static void note_trying(struct lkd_attachment *place, const struct lki_message *message)
{
    const struct lki_acquire *acquire = &message->as.acquire;
    struct lkd_attachment_record *record = place->record;
    lkd_record_leave(&record->stage, LKD_ACQUIRE_NONE);
    record->request = message->id;
    record->lock = acquire->lock;
    record->mode = (uint16_t)acquire->mode;
    record->to_exit = acquire->to_exit;
    LKI_STEP("acquire_record");
    record->deadline_ns = acquire->deadline_ns;
    lkd_record_enter(&record->stage, LKD_ACQUIRE_TRYING);
}

/* Held, before the client hears of it. */
static void note_held(struct lkd_attachment *place)
{
    place->record->granted_ns = place->granted_ns;
    lkd_record_enter(&place->record->stage, LKD_ACQUIRE_HELD);
}

void lkd_wait_note_over(struct lkd_attachment *place, uint32_t lock)
{
    if (place->record->lock == lock) /* else it has acquired another since */
        lkd_record_leave(&place->record->stage, LKD_ACQUIRE_NONE);
}

void lkd_wait_begin(struct lkd_attachment *attachment, uint64_t request)
{
    lkd_charge(attachment->segment->core, attachment->session, LKD_WAITS, 1);
    attachment->waiting = true;
    attachment->acquire_request = request;
    attachment->checked_phase = LKI_WAIT_PHASE_ENDED;
    attachment->doubt = (struct lkd_doubt){.number = 0};
    lki_list_append(&attachment->session->waits, &attachment->of_waits);
    lki_list_append(&attachment->segment->waits, &attachment->of_segment_waits);
    if (lkd_is_extra(attachment))
        attachment->session->asynchronous_waits++;
}

static void end(struct lkd_core *core, struct lkd_attachment *attachment)
{
    lkd_uncharge(core, attachment->session, LKD_WAITS, 1);
    attachment->waiting = false;
    lki_list_remove(&attachment->of_waits);
    lki_list_remove(&attachment->of_segment_waits);
    lki_list_remove(&attachment->of_ready);
    lkd_deadlines_clear(&core->deadlines, &attachment->deadline);
    if (lkd_is_extra(attachment))
        attachment->session->asynchronous_waits--;
}

void lkd_wait_drop(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns)
{
    (void)now_ns;
    if (!attachment->waiting)
        return;
    uint32_t lock = attachment->wait.lock;
    end(core, attachment);
    lki_wait_give_up(&attachment->wait);
    if (attachment->wait.upgrade)
        lkd_change_note_over(attachment);
    else
        lkd_wait_note_over(attachment, lock);
}

/* Its acquire got nothing: a slot of its own is of no use any more. An upgrade that got nothing leaves its
 * hold. */
void lkd_wait_retire(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns)
{
    if (lkd_is_extra(attachment) && !attachment->granted)
        lkd_attachment_close_extra(core, attachment, now_ns);
}

/* A hold that may be fenced off may be gone by then. And where the session also locks by itself, the next
 * acquire does not go through the broker, and would find the lock held by the one before. */
bool lkd_wait_may_release_one_way(const struct lkd_attachment *attachment)
{
    return attachment->session->knows_1_4 && attachment->main->brokered &&
           attachment->segment->on_expiry != LK_EXPIRY_FENCE;
}

void lkd_wait_say_granted(struct lkd_core *core, struct lkd_attachment *attachment,
                          uint64_t request, uint32_t lock, enum lki_status status)
{
    struct lkd_sending *sending =
        lkd_reply(core, attachment->session, LKI_REPLY_GRANTED, request, 0);
    if (!sending)
        return; /* lost: its process will be told apart by its end; or it will ask again */
    sending->message.as.granted = (struct lki_granted){
        .status = status,
        .attachment = attachment->id,
        .token = lki_lock_sequence(&attachment->segment->area, lock),
        .one_way = status == LKI_STATUS_OK && lkd_wait_may_release_one_way(attachment),
    };
}

void lkd_wait_grant(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                    uint32_t lock, enum lki_status status, bool to_exit, uint64_t now_ns)
{
    lkd_fence_forget(attachment->main, attachment->id, lock);
    attachment->granted = true;
    attachment->granted_lock = lock;
    attachment->granted_ns = now_ns;
    attachment->granted_to_exit = to_exit;
    note_held(attachment);
    if (to_exit)
        lkd_fact_held_since(&attachment->segment->area, attachment->slot, now_ns);
    lkd_wait_recheck_session(core, attachment->session);
    lkd_wait_say_granted(core, attachment, request, lock, status);
}

void lkd_wait_refuse(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                     uint32_t lock, enum lki_status status, const char *why)
{
    char holder[LKD_HOLDER_TEXT_BYTES];
    lkd_inquiry_describe(attachment->segment, lock, holder);
    char name[LKI_NAME_TEXT_BYTES_MAX + 1];
    lkd_inquiry_name(attachment, name);
    lkd_refuse(core, attachment->session, request, status, "cannot lock '%s' entry %u: %s%s", name,
               lock, why, holder);
}

/* Whether the broker may remember one more wait of its user. False: refused. */
bool lkd_wait_may_begin(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                        uint32_t lock)
{
    char why[LKD_CHARGE_TEXT_BYTES];
    char name[LKI_NAME_TEXT_BYTES_MAX + 1];
    if (lkd_charge_fits(core, attachment->session, LKD_WAITS, 1, why))
        return true;
    lkd_inquiry_name(attachment, name);
    lkd_refuse(core, attachment->session, request, LKI_STATUS_QUOTA,
               "cannot wait for lock '%s' entry %u: %s", name, lock, why);
    return false;
}

/* Answers an attempt or a wait that has ended. False: it goes on. */
static bool answer(struct lkd_core *core, struct lkd_attachment *attachment,
                   enum lki_verdict verdict, uint64_t request, uint32_t lock, bool to_exit,
                   uint64_t now_ns)
{
    switch (verdict) {
    case LKI_TAKEN:
        lkd_wait_grant(core, attachment, request, lock, LKI_STATUS_OK, to_exit, now_ns);
        return true;
    case LKI_TAKEN_DIED:
        lkd_wait_grant(core, attachment, request, lock, LKI_STATUS_OWNER_DIED, to_exit, now_ns);
        return true;
    case LKI_BUSY:
        lkd_wait_refuse(core, attachment, request, lock, LKI_STATUS_BUSY, "it is taken");
        break;
    case LKI_TIMED_OUT:
        lkd_wait_refuse(core, attachment, request, lock, LKI_STATUS_TIMED_OUT,
                        "the time is over and it is taken still");
        break;
    case LKI_NESTED:
        lkd_wait_refuse(core, attachment, request, lock, LKI_STATUS_DEADLOCK,
                        "this session holds it already, and locks do not nest; release it first");
        break;
    case LKI_NO_CELL:
        lkd_wait_refuse(core, attachment, request, lock, LKI_STATUS_NO_CELL,
                        "this session holds 16 locks of the segment shared, which is the maximum; "
                        "release one");
        break;
    case LKI_STALE:
    case LKI_NOT_HELD:
    case LKI_RELEASED:
        lkd_wait_refuse(core, attachment, request, lock, LKI_STATUS_STALE,
                        "the attachment has ended; open the segment again");
        break;
    case LKI_SLEEP:
        return false;
    }
    lkd_wait_note_over(attachment, lock);
    lkd_wait_retire(core, attachment, now_ns);
    return true;
}

/* Before it sleeps for the first time, when it begins to drain, and with each long nap. True: the
 * wait has been refused, and is over. */
static bool refuse_deadlock(struct lkd_core *core, struct lkd_attachment *attachment,
                            uint64_t now_ns)
{
    char report[LKD_REPORT_BYTES_MAX];

    if (attachment->checked_phase == attachment->wait.phase &&
        now_ns - attachment->checked_ns < attachment->recheck_ns)
        return false;
    attachment->checked_phase = attachment->wait.phase;
    attachment->checked_ns = now_ns;
    if (!lkd_deadlock_check(core, attachment, now_ns, report)) {
        bool in_doubt = attachment->doubt.number != 0;
        attachment->recheck_ns = in_doubt ? lkd_doubt_pause_ns(attachment, RECHECK_NS) : RECHECK_NS;
        return false;
    }
    uint64_t request = attachment->acquire_request;
    struct lkd_session *session = attachment->session;
    lkd_wait_drop(core, attachment, now_ns);
    lkd_wait_retire(core, attachment, now_ns);
    lkd_deadlock_refuse(core, session, request, report);
    return true;
}

/* A ring in doubt is not left to the naps. */
static uint64_t next_look_ns(const struct lkd_attachment *attachment, uint64_t until_ns)
{
    uint64_t recheck_ns = attachment->checked_ns + attachment->recheck_ns;
    return attachment->doubt.number != 0 && recheck_ns < until_ns ? recheck_ns : until_ns;
}

void lkd_wait_recheck_session(struct lkd_core *core, struct lkd_session *session)
{
    LKI_LIST_FOREACH_SAFE (node, &session->waits) {
        struct lkd_attachment *waiter = LKI_LIST_ENTRY(node, struct lkd_attachment, of_waits);
        waiter->checked_phase = LKI_WAIT_PHASE_ENDED;
        lkd_wait_wake(core, waiter);
    }
}

void lkd_wait_step(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns)
{
    struct lki_wait *wait = &attachment->wait;
    struct lki_sleep sleep = {0};
    bool to_exit = wait->hold == LKI_HOLD_TO_EXIT;
    uint32_t lock = wait->lock;
    lkd_work_on_segment(core, attachment->segment->number);
    enum lki_verdict verdict = lki_wait_step(wait, now_ns, &sleep);

    if (verdict == LKI_SLEEP) {
        if (refuse_deadlock(core, attachment, now_ns))
            return;
        lkd_deadlines_set(&core->deadlines, &attachment->deadline,
                          next_look_ns(attachment, sleep.until_ns));
        if (sleep.ask)
            lkd_inquiry_about(core, attachment, lock, sleep.owner, sleep.sequence, now_ns);
        return;
    }
    end(core, attachment);
    if (wait->upgrade)
        lkd_change_answer(core, attachment, verdict, attachment->acquire_request);
    else
        answer(core, attachment, verdict, attachment->acquire_request, lock, to_exit, now_ns);
}

/* Holds are looked up in the shared facts: a native client keeps its own party. */
bool lkd_wait_holds(const struct lkd_attachment *place, uint32_t lock)
{
    const struct lki_area *area = &place->segment->area;
    bool drains = lkd_waits_for(place, lock) && !place->wait.upgrade; /* that one holds already */
    if ((lkd_fact_word(area, lock) & LKI_ID_MASK) == place->id && !drains)
        return true;
    for (uint32_t cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        if (lkd_fact_cell(area, place->slot, cell) == lock)
            return true;
    return false;
}

/* What this session has to do with the lock already, in any of its places in the segment. */
enum involvement {
    NOT_INVOLVED,
    HOLDS,
    WAITS,
};

static enum involvement involvement_of(const struct lkd_attachment *main, uint32_t lock)
{
    if (lkd_wait_holds(main, lock))
        return HOLDS;
    if (lkd_waits_for(main, lock))
        return WAITS;
    for (const struct lki_list *node = main->extras.next; node != &main->extras;
         node = node->next) {
        const struct lkd_attachment *extra = LKI_LIST_ENTRY(node, struct lkd_attachment, of_main);
        if (lkd_wait_holds(extra, lock))
            return HOLDS;
        if (lkd_waits_for(extra, lock))
            return WAITS;
    }
    return NOT_INVOLVED;
}

static bool check_acquire(struct lkd_core *core, struct lkd_attachment *main,
                          const struct lki_message *message)
{
    const struct lki_acquire *acquire = &message->as.acquire;
    struct lkd_session *session = main->session;

    if (acquire->lock >= main->segment->locks) {
        lkd_refuse(core, session, message->id, LKI_STATUS_OUT_OF_RANGE,
                   "there is no lock %u: the segment has %u", acquire->lock, main->segment->locks);
        return false;
    }
    if (acquire->mode < LKI_MODE_SHARED || acquire->mode > LKI_MODE_UPDATE ||
        (acquire->to_exit && acquire->mode != LKI_MODE_EXCLUSIVE)) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "cannot lock in mode %u%s: use shared, exclusive, update, or exclusive to exit",
                   acquire->mode, acquire->to_exit ? " to exit" : "");
        return false;
    }
    if (!acquire->asynchronous && !main->brokered) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this attachment locks in shared memory by itself; only asynchronous acquires "
                   "go through the broker");
        return false;
    }
    if (!acquire->asynchronous && main->waiting) {
        lkd_refuse(core, session, message->id, LKI_STATUS_PENDING,
                   "this session waits for a lock of the segment already; cancel that first, or "
                   "acquire asynchronously");
        return false;
    }
    switch (involvement_of(main, acquire->lock)) {
    case NOT_INVOLVED:
        break;
    case HOLDS:
        lkd_wait_refuse(core, main, message->id, acquire->lock, LKI_STATUS_DEADLOCK,
                        "this session holds it already, and locks do not nest; release it first");
        return false;
    case WAITS:
        lkd_refuse(core, session, message->id, LKI_STATUS_PENDING,
                   "this session waits for this lock already; cancel that first");
        return false;
    }
    return true;
}

/* A slot of its own for an asynchronous acquire, or NULL after a refusal. */
static struct lkd_attachment *open_extra(struct lkd_core *core, struct lkd_attachment *main,
                                         uint64_t request, uint64_t now_ns)
{
    struct lkd_segment *segment = main->segment;

    if (main->session->asynchronous_waits >= LKI_ASYNC_WAITS_MAX) {
        lkd_refuse(core, main->session, request, LKI_STATUS_NOT_READY,
                   "this session waits for %u locks asynchronously, which is the maximum; wait for "
                   "one of them, or cancel it",
                   LKI_ASYNC_WAITS_MAX);
        return NULL;
    }
    if (segment->slots_taken >= segment->attachments_max) {
        lkd_refuse(core, main->session, request, LKI_STATUS_FULL,
                   "all %u attachments of the segment are taken, and an asynchronous acquire takes "
                   "one; close a session, or create the segment with a larger attachments_max",
                   segment->attachments_max);
        return NULL;
    }
    char why[LKD_CHARGE_TEXT_BYTES];
    if (!lkd_charge_fits(core, main->session, LKD_ATTACHMENTS, 1, why)) {
        lkd_refuse(core, main->session, request, LKI_STATUS_QUOTA,
                   "an asynchronous acquire takes an attachment, and %s", why);
        return NULL;
    }
    struct lkd_attachment *extra = lkd_attachment_open_extra(core, main, now_ns);
    if (!extra)
        lkd_refuse(core, main->session, request, LKI_STATUS_NO_MEMORY,
                   "the broker has no memory for one more attachment");
    return extra;
}

/* This very request went on under another worker: it waits, or holds already. True: that is the
 * answer. False: nothing came of it, or it was refused, and nobody was told: begin anew. */
static bool is_known_acquire(struct lkd_core *core, struct lkd_attachment *main,
                             const struct lki_message *message)
{
    struct lkd_attachment *place = main;
    if (message->as.acquire.asynchronous) {
        place = NULL;
        LKI_LIST_FOREACH_SAFE (node, &main->extras) {
            struct lkd_attachment *extra = LKI_LIST_ENTRY(node, struct lkd_attachment, of_main);
            if (extra->record->request == message->id) /* one that has ended is in no list */
                place = extra;
        }
    }
    if (!place || place->record->request != message->id)
        return false;
    uint32_t lock = place->record->lock;
    switch ((enum lkd_acquire_stage)lkd_record_state(&place->record->stage)) {
    case LKD_ACQUIRE_NONE:
        break;
    case LKD_ACQUIRE_TRYING: /* its answer comes when the wait ends */
        return true;
    case LKD_ACQUIRE_HELD:
        lkd_wait_say_granted(core, place, message->id, lock,
                             lkd_fact_word(&place->segment->area, lock) & LKI_DIED
                                 ? LKI_STATUS_OWNER_DIED
                                 : LKI_STATUS_OK);
        return true;
    }
    return false;
}

void lkd_wait_acquire(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message, uint64_t now_ns)
{
    const struct lki_acquire *acquire = &message->as.acquire;
    enum lki_mode mode = (enum lki_mode)acquire->mode;
    enum lki_hold hold = acquire->to_exit ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    uint32_t lock = acquire->lock;
    uint64_t request = message->id;

    if (main->session->repeating && is_known_acquire(core, main, message))
        return;
    if (!check_acquire(core, main, message))
        return;
    struct lkd_attachment *place =
        acquire->asynchronous ? open_extra(core, main, request, now_ns) : main;
    if (!place)
        return;
    note_trying(place, message);
    enum lki_verdict verdict = lki_lock_try(&place->party, lock, mode, hold);
    if (verdict == LKI_BUSY && acquire->deadline_ns > 0 &&
        !lkd_wait_may_begin(core, place, request, lock)) {
        lkd_wait_note_over(place, lock);
        lkd_wait_retire(core, place, now_ns);
        return;
    }
    if (verdict == LKI_BUSY && acquire->deadline_ns > 0)
        verdict = lki_wait_begin(&place->wait, &place->party, lock, mode, hold, now_ns,
                                 acquire->deadline_ns);
    if (answer(core, place, verdict, request, lock, acquire->to_exit, now_ns))
        return;
    lkd_wait_begin(place, request);
    lkd_wait_step(core, place, now_ns);
}

void lkd_wait_wake(struct lkd_core *core, struct lkd_attachment *attachment)
{
    if (attachment->waiting && lki_list_is_empty(&attachment->of_ready))
        lki_list_append(&core->ready, &attachment->of_ready);
}

void lkd_wait_due(struct lkd_core *core, uint64_t now_ns)
{
    struct lkd_deadline *first;
    while ((first = lkd_deadlines_first(&core->deadlines)) && first->at_ns <= now_ns) {
        lkd_deadlines_clear(&core->deadlines, first);
        lkd_wait_wake(core, LKI_CONTAINER_OF(first, struct lkd_attachment, deadline));
    }
}

void lkd_wait_settle(struct lkd_core *core, uint64_t now_ns)
{
    for (uint32_t steps = 0; steps < LKD_STEPS_MAX && !lki_list_is_empty(&core->ready); steps++) {
        struct lkd_attachment *attachment =
            LKI_LIST_ENTRY(core->ready.next, struct lkd_attachment, of_ready);
        lki_list_remove(&attachment->of_ready);
        lkd_wait_step(core, attachment, now_ns);
    }
}

void lkd_wait_nudge(struct lkd_core *core, struct lkd_segment *segment)
{
    LKI_LIST_FOREACH_SAFE (node, &segment->waits)
        lkd_wait_wake(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_segment_waits));
}

static void cancel(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns)
{
    struct lkd_session *session = attachment->session;
    uint64_t request = attachment->acquire_request;

    lkd_wait_drop(core, attachment, now_ns);
    lkd_wait_retire(core, attachment, now_ns);
    lkd_reply_result(core, session, request, LKI_STATUS_CANCELED, 0);
}

void lkd_wait_cancel(struct lkd_core *core, struct lkd_session *session,
                     const struct lki_message *message, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &session->waits) {
        struct lkd_attachment *waiter = LKI_LIST_ENTRY(node, struct lkd_attachment, of_waits);
        if (waiter->acquire_request != message->as.cancel.request)
            continue;
        cancel(core, waiter, now_ns);
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
        return;
    }
    lkd_refuse(core, session, message->id, LKI_STATUS_NOT_FOUND,
               "that acquire does not wait: it was answered before");
}

void lkd_wait_cancel_session(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &session->waits)
        cancel(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_waits), now_ns);
}

void lkd_wait_cancel_attachment(struct lkd_core *core, struct lkd_attachment *main, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &main->session->waits) {
        struct lkd_attachment *waiter = LKI_LIST_ENTRY(node, struct lkd_attachment, of_waits);
        if (waiter->main == main)
            cancel(core, waiter, now_ns);
    }
}

void lkd_wait_drop_session(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &session->waits) {
        struct lkd_attachment *waiter = LKI_LIST_ENTRY(node, struct lkd_attachment, of_waits);
        lkd_wait_drop(core, waiter, now_ns);
        lkd_wait_retire(core, waiter, now_ns);
    }
}
