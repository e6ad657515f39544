/* SPDX-License-Identifier: MIT */
/* Waits and holds of brokered attachments that another worker began. */
#include "broker/core/attachment.h"
#include "broker/core/brokered_change.h"
#include "broker/core/brokered_step.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/segment.h"
#include "engine/resume.h"

static void adopt_attempt(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns)
{
    const struct lkd_attachment_record *record = place->record;
    enum lki_hold hold = record->to_exit ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    enum lki_verdict verdict =
        lki_wait_resume(&place->wait, &place->party, record->lock, (enum lki_mode)record->mode,
                        hold, now_ns, record->deadline_ns);
    switch (verdict) {
    case LKI_SLEEP:
        lkd_wait_begin(place, record->request);
        lkd_wait_wake(core, place);
        break;
    case LKI_TAKEN:
    case LKI_TAKEN_DIED:
        lkd_wait_grant(core, place, record->request, record->lock,
                       verdict == LKI_TAKEN ? LKI_STATUS_OK : LKI_STATUS_OWNER_DIED,
                       record->to_exit, now_ns);
        break;
    default: /* nothing is left of it */
        lkd_wait_note_over(place, record->lock);
        lkd_wait_retire(core, place, now_ns);
        break;
    }
}

static void adopt_hold(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns)
{
    const struct lkd_attachment_record *record = place->record;
    if (!lkd_wait_holds(place, record->lock)) {
        /* released, and the worker died before it wrote that down */
        lkd_wait_note_over(place, record->lock);
        lkd_wait_retire(core, place, now_ns);
        return;
    }
    lki_lock_resume(&place->party, record->lock);
    place->granted = true;
    place->granted_lock = record->lock;
    place->granted_to_exit = record->to_exit;
    place->granted_ns = record->granted_ns;
}

void lkd_wait_adopt(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns)
{
    if (!place->brokered || place->state != LKD_ATTACHMENT_LIVE || place->segment->quarantined)
        return;
    if (lkd_record_state(&place->record->upgrading))
        lkd_change_adopt(core, place, now_ns);
    switch ((enum lkd_acquire_stage)lkd_record_state(&place->record->stage)) {
    case LKD_ACQUIRE_NONE:
        lkd_wait_retire(core, place, now_ns);
        break;
    case LKD_ACQUIRE_TRYING:
        adopt_attempt(core, place, now_ns);
        break;
    case LKD_ACQUIRE_HELD:
        adopt_hold(core, place, now_ns);
        break;
    }
}
