/* SPDX-License-Identifier: MIT */
#include "broker/core/brokered_hold.h"

#include "broker/core/attachment.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/fence.h"
#include "broker/core/inquiry.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"

struct lkd_attachment *lkd_hold_place(struct lkd_core *core, struct lkd_attachment *main,
                                      const struct lki_message *message, uint32_t lock,
                                      uint32_t attachment)
{
    struct lkd_session *session = main->session;

    if (lock >= main->segment->locks) {
        lkd_refuse(core, session, message->id, LKI_STATUS_OUT_OF_RANGE,
                   "there is no lock %u: the segment has %u", lock, main->segment->locks);
        return NULL;
    }
    struct lkd_attachment *place = lkd_segment_attachment(main->segment, attachment);
    if (!place || place->main != main || place->state != LKD_ATTACHMENT_LIVE) {
        if (lkd_fence_refuse(core, main, attachment, lock, message))
            return NULL;
        if (message->type == LKI_REQUEST_RELEASE && lkd_session_has_ended(session, message->id))
            /* its slot has ended with the hold, under another worker */
            lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
        else
            lkd_refuse(core, session, message->id, LKI_STATUS_NOT_HOLDER,
                       "this session has no attachment %#x: that hold has ended, or is not its own",
                       attachment);
        return NULL;
    }
    if (!place->brokered) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "attachment %#x locks in shared memory by itself", attachment);
        return NULL;
    }
    return place;
}

static struct lkd_attachment *find_place(struct lkd_core *core, struct lkd_attachment *main,
                                         const struct lki_message *message)
{
    const struct lki_hold_ref *hold = &message->as.hold_ref;
    return lkd_hold_place(core, main, message, hold->lock, hold->attachment);
}

void lkd_hold_answer(struct lkd_core *core, struct lkd_attachment *place,
                     const struct lki_message *message, uint32_t lock, bool held)
{
    if (held) {
        lkd_reply_result(core, place->session, message->id, LKI_STATUS_OK, 0);
        return;
    }
    if (lkd_fence_refuse(core, place->main, place->id, lock, message))
        return;
    char holder[LKD_HOLDER_TEXT_BYTES];
    lkd_inquiry_describe(place->segment, lock, holder);
    lkd_refuse(core, place->session, message->id, LKI_STATUS_NOT_HOLDER,
               "this session does not hold lock %u%s; nothing was changed", lock, holder);
}

bool lkd_hold_is_meant(const struct lkd_attachment *place, uint32_t lock, uint64_t request)
{
    return !lkd_waits_for(place, lock) && place->record->request < request;
}

void lkd_hold_release(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message, uint64_t now_ns)
{
    uint32_t lock = message->as.hold_ref.lock;
    struct lkd_attachment *place = find_place(core, main, message);
    if (!place)
        return;
    bool held =
        lkd_hold_is_meant(place, lock, message->id) && lki_lock_held_by(&place->party, lock) != 0;
    if (held && !message->as.hold_ref.one_way) /* else it is not repeated */
        lkd_session_note_ending(place->session, message->id);
    held = held && lki_lock_release(&place->party, lock) == LKI_RELEASED;
    /* Released before, under another worker: what it wanted is so. */
    lkd_hold_answer(core, place, message, lock,
                    held || lkd_session_has_ended(place->session, message->id));
    if (!held)
        return;
    lkd_wait_note_over(place, lock);
    place->granted = false;
    if (lkd_is_extra(place))
        lkd_attachment_close_extra(core, place, now_ns);
}

void lkd_hold_mark_consistent(struct lkd_core *core, struct lkd_attachment *main,
                              const struct lki_message *message)
{
    uint32_t lock = message->as.hold_ref.lock;
    struct lkd_attachment *place = find_place(core, main, message);
    if (!place)
        return;
    /* Which kind of hold it is was told with its ACQUIRE, but the place remembers the last one alone. */
    bool to_exit =
        place->session->knows_1_4 ? message->as.hold_ref.to_exit : place->granted_to_exit;
    enum lki_hold hold = to_exit ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    lkd_hold_answer(core, place, message, lock,
                    lkd_hold_is_meant(place, lock, message->id) &&
                        lki_lock_mark_consistent(&place->party, lock, hold) == LKI_TAKEN);
}

void lkd_hold_declare(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message)
{
    const struct lki_hold_ref *hold = &message->as.hold_ref;
    struct lkd_attachment *place = find_place(core, main, message);
    if (place)
        lkd_hold_answer(core, place, message, hold->lock,
                        lkd_hold_is_meant(place, hold->lock, message->id) &&
                            lki_lock_declare(&place->party, hold->lock, hold->offset,
                                             hold->length_bytes) == LKI_TAKEN);
}
