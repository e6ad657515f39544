/* SPDX-License-Identifier: MIT */
/* Walks every invariant of the core. Aborts on the first that is broken. */
#include "broker/core/attachment.h"
#include "broker/core/charge.h"
#include "broker/core/monitor.h"
#include "broker/core/lease.h"
#include "broker/core/parked.h"
#include "broker/core/registry.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"

static bool is_listed(const struct lki_list *node)
{
    return !lki_list_is_empty(node);
}

static void check_wait(const struct lkd_attachment *attachment)
{
    bool waiting = attachment->waiting;

    LKI_ASSERT(is_listed(&attachment->of_waits) == waiting);
    LKI_ASSERT(is_listed(&attachment->of_segment_waits) == waiting);
    LKI_ASSERT((attachment->wait.phase != LKI_WAIT_PHASE_ENDED) == waiting);
    if (!waiting) {
        LKI_ASSERT(!is_listed(&attachment->of_ready));
        LKI_ASSERT(attachment->deadline.index == LKD_DEADLINE_UNSET);
        return;
    }
    LKI_ASSERT(attachment->brokered && attachment->state == LKD_ATTACHMENT_LIVE);
    /* Every wait will be looked at again. */
    LKI_ASSERT(is_listed(&attachment->of_ready) ||
               attachment->deadline.index != LKD_DEADLINE_UNSET);
}

static void check_attachment(const struct lkd_core *core, const struct lkd_attachment *attachment)
{
    const struct lkd_segment *segment = attachment->segment;
    bool is_main = attachment->main == attachment;
    const struct lkd_attachment *found =
        lkd_attachment_find(core, attachment->session, segment->number);

    LKI_ASSERT(attachment->main->segment == segment);
    LKI_ASSERT(attachment->main->session == attachment->session);
    LKI_ASSERT(is_main || attachment->brokered);
    check_wait(attachment);
    switch (attachment->state) {
    case LKD_ATTACHMENT_LIVE:
        LKI_ASSERT(lkd_segment_attachment(segment, attachment->id) == attachment);
        LKI_ASSERT(!is_main || found == attachment);
        LKI_ASSERT(!is_listed(&attachment->of_repairs));
        LKI_ASSERT(attachment->main->state == LKD_ATTACHMENT_LIVE);
        LKI_ASSERT(!attachment->session->process->ended);
        break;
    case LKD_ATTACHMENT_REPAIRING:
        LKI_ASSERT(lkd_segment_attachment(segment, attachment->id) == attachment);
        LKI_ASSERT(found != attachment);
        LKI_ASSERT(is_listed(&attachment->of_repairs));
        break;
    case LKD_ATTACHMENT_ENDED:
        LKI_ASSERT(is_main && attachment->parts > 0);
        LKI_ASSERT(found != attachment);
        break;
    }
    if (!is_main)
        return;
    uint32_t parts = attachment->state != LKD_ATTACHMENT_ENDED;
    for (const struct lki_list *node = attachment->extras.next; node != &attachment->extras;
         node = node->next)
        parts++;
    LKI_ASSERT(parts == attachment->parts);
}

static void check_session(const struct lkd_core *core, const struct lkd_session *session)
{
    uint32_t asynchronous = 0;
    uint32_t parked = 0;

    LKI_ASSERT(lkd_session_find(core, session->number) == session);
    LKI_ASSERT(!is_listed(&session->of_broken)); /* events end with nobody broken */
    for (const struct lki_list *node = session->attachments.next; node != &session->attachments;
         node = node->next) {
        const struct lkd_attachment *attachment =
            LKI_LIST_ENTRY(node, struct lkd_attachment, of_session);
        LKI_ASSERT(attachment->session == session);
        check_attachment(core, attachment);
        asynchronous += attachment->waiting && attachment->main != attachment;
    }
    for (const struct lki_list *node = session->parked.next; node != &session->parked;
         node = node->next)
        parked++;
    LKI_ASSERT(asynchronous == session->asynchronous_waits);
    LKI_ASSERT(asynchronous <= LKI_ASYNC_WAITS_MAX);
    LKI_ASSERT(parked == session->parked_count && parked <= LKI_PARKED_REQUESTS_MAX);
    switch (session->state) {
    case LKD_SESSION_GREETING:
        LKI_ASSERT(lki_list_is_empty(&session->attachments) && parked == 0);
        break;
    case LKD_SESSION_OPEN:
        break;
    case LKD_SESSION_LEAVING:
        LKI_ASSERT(lki_list_is_empty(&session->waits) && parked == 0);
        break;
    case LKD_SESSION_LOST: /* else it would have been forgotten */
        LKI_ASSERT(!lki_list_is_empty(&session->attachments));
        LKI_ASSERT(lki_list_is_empty(&session->waits) && parked == 0);
        break;
    case LKD_SESSION_GONE:
        LKI_UNREACHABLE("a session that is gone is in no table");
        break;
    }
}

static void check_leases(const struct lkd_core *core)
{
    uint32_t count = 0;
    for (const struct lki_list *node = core->leases.next; node != &core->leases;
         node = node->next) {
        const struct lkd_lease *lease = LKI_LIST_ENTRY(node, struct lkd_lease, of_core);
        bool waits = lease->phase == LKD_LEASE_REPORTED || lease->phase == LKD_LEASE_STUCK;
        count++;
        LKI_ASSERT(lease->holder->state != LKD_ATTACHMENT_ENDED);
        LKI_ASSERT(!lki_list_is_empty(&lease->of_holder));
        LKI_ASSERT(lease->lock < lease->holder->segment->locks);
        /* What runs will be looked at again, what does not costs no timer. */
        LKI_ASSERT(waits == (lease->deadline.index == LKD_DEADLINE_UNSET));
    }
    LKI_ASSERT(count == core->lease_count && count <= LKI_LEASES_MAX);
    lkd_deadlines_check(&core->lease_deadlines);
}

/* --- The ledger --- */

static uint32_t fact_of(const _Atomic uint32_t *fact)
{
    /* relaxed: this thread alone writes it */
    return atomic_load_explicit(fact, memory_order_relaxed);
}

static void check_attachment_record(const struct lkd_attachment *attachment, uint32_t *count)
{
    const struct lkd_attachment_record *record = attachment->record;
    LKI_ASSERT((record == NULL) == (attachment->state == LKD_ATTACHMENT_ENDED));
    if (!record)
        return;
    uint32_t state = lkd_record_state(&record->state);
    LKI_ASSERT(state ==
               (attachment->state == LKD_ATTACHMENT_LIVE ? LKD_RECORD_LIVE : LKD_RECORD_ENDING));
    LKI_ASSERT(record->slot == attachment->slot && record->id == attachment->id);
    LKI_ASSERT(record->session == attachment->session->number);
    LKI_ASSERT(record->segment == attachment->segment->number);
    bool upgrades = attachment->waiting && attachment->wait.upgrade;
    LKI_ASSERT(upgrades == (fact_of(&record->upgrading) != 0));
    if (upgrades) {
        LKI_ASSERT(record->change_request == attachment->acquire_request);
        LKI_ASSERT(record->change_lock == attachment->wait.lock);
    } else if (attachment->waiting) {
        LKI_ASSERT(fact_of(&record->stage) == LKD_ACQUIRE_TRYING);
        LKI_ASSERT(record->request == attachment->acquire_request);
        LKI_ASSERT(record->lock == attachment->wait.lock);
    }
    (*count)++;
}

static void check_session_record(const struct lkd_session *session, uint32_t *attachment_count)
{
    const struct lkd_session_record *record = session->record;
    LKI_ASSERT(record && lkd_record_state(&record->state) == LKD_RECORD_LIVE);
    LKI_ASSERT(record->number == session->number && record->uid == session->uid);
    bool cut = fact_of(&record->flags) & LKD_SESSION_CUT;
    LKI_ASSERT(cut == (session->state == LKD_SESSION_LOST));
    bool greeted = fact_of(&record->flags) & LKD_SESSION_GREETED;
    LKI_ASSERT(cut || greeted == (session->state != LKD_SESSION_GREETING));
    for (const struct lki_list *node = session->attachments.next; node != &session->attachments;
         node = node->next)
        check_attachment_record(LKI_LIST_ENTRY(node, struct lkd_attachment, of_session),
                                attachment_count);
}

static void check_segment_record(const struct lkd_segment *segment, uint32_t *count)
{
    const struct lkd_segment_record *record = segment->record;
    LKI_ASSERT((record == NULL) == (segment->state == LKD_SEGMENT_MAKING));
    if (!record)
        return;
    uint32_t facts = fact_of(&record->facts);
    LKI_ASSERT(lkd_record_state(&record->state) == LKD_RECORD_LIVE);
    LKI_ASSERT(record->number == segment->number && record->locks == segment->locks);
    LKI_ASSERT(!(facts & LKD_SEGMENT_NAMED) == !segment->named);
    LKI_ASSERT(!(facts & LKD_SEGMENT_IS_QUARANTINED) == !segment->quarantined);
    LKI_ASSERT(!(facts & LKD_SEGMENT_IS_PUBLISHED) == (segment->state != LKD_SEGMENT_PUBLISHED));
    LKI_ASSERT(record->data_bytes == segment->data_bytes);
    (*count)++;
}

#define COUNT_USED(ledger, kind, out_count)                                                        \
    do {                                                                                           \
        for (uint32_t i = 0; i < fact_of(&(ledger)->header->kind##_used); i++)                     \
            (out_count) += lkd_record_state(&(ledger)->kind[i].state) != LKD_RECORD_FREE;          \
    } while (0)

/* Every object has its record, and there is no other: a successor would find the same. */
static void check_ledger(const struct lkd_core *core)
{
    const struct lkd_ledger *ledger = &core->ledger;
    uint32_t segments = 0;
    uint32_t attachments = 0;
    uint32_t sessions_used = 0;
    uint32_t segments_used = 0;
    uint32_t attachments_used = 0;

    for (const struct lkd_session *session = core->sessions; session;
         session = session->by_number.next)
        check_session_record(session, &attachments);
    for (const struct lkd_segment *segment = core->by_number; segment;
         segment = segment->by_number.next)
        check_segment_record(segment, &segments);
    COUNT_USED(ledger, sessions, sessions_used);
    COUNT_USED(ledger, segments, segments_used);
    COUNT_USED(ledger, attachments, attachments_used);
    LKI_ASSERT(sessions_used == core->session_count);
    LKI_ASSERT(segments_used == segments);
    LKI_ASSERT(attachments_used == attachments);
    /* relaxed: as above */
    LKI_ASSERT(atomic_load_explicit(&ledger->header->last_session, memory_order_relaxed) ==
               core->last_session);
    LKI_ASSERT(fact_of(&ledger->header->last_segment) == core->last_segment);
}

void lkd_core_check(const struct lkd_core *core)
{
    const struct lkd_session *session;
    const struct lkd_segment *segment;
    uint32_t sessions = 0;
    uint32_t segments = 0;

    for (session = core->sessions; session; session = session->by_number.next) {
        check_session(core, session);
        sessions++;
    }
    for (segment = core->by_number; segment; segment = segment->by_number.next) {
        lkd_segment_check(core, segment);
        segments++;
    }
    LKI_ASSERT(sessions == core->session_count);
    LKI_ASSERT(segments == core->segment_count);
    lkd_charge_check(core);
    lkd_monitor_check(core);
    check_ledger(core);
    LKI_ASSERT(lki_list_is_empty(&core->broken));
    lkd_deadlines_check(&core->deadlines);
    check_leases(core);
}
