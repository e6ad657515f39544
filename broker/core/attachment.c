/* SPDX-License-Identifier: MIT */
#include "broker/core/attachment.h"

#include <stdlib.h>

#include "broker/core/brokered_wait.h"
#include "broker/core/charge.h"
#include "broker/core/fact.h"
#include "broker/core/monitor.h"
#include "broker/core/lease.h"
#include "broker/core/registry.h"
#include "broker/core/repair_queue.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"
#include "engine/step.h"

static struct lkd_attachment_key key_of(const struct lkd_session *session, uint32_t segment)
{
    return (struct lkd_attachment_key){.session = session->number, .segment = segment};
}

struct lkd_attachment *lkd_attachment_find(const struct lkd_core *core,
                                           const struct lkd_session *session, uint32_t segment)
{
    struct lkd_attachment *attachment;
    struct lkd_attachment_key key = key_of(session, segment);
    unsigned hash = lkd_hash(core->config.hash_seed, &key, sizeof(key));
    HASH_FIND_BYHASHVALUE(by_key, core->mains, &key, sizeof(key), hash, attachment);
    return attachment;
}

static bool enlist_main(struct lkd_core *core, struct lkd_attachment *attachment)
{
    attachment->key = key_of(attachment->session, attachment->segment->number);
    unsigned hash = lkd_hash(core->config.hash_seed, &attachment->key, sizeof(attachment->key));
    HASH_ADD_KEYPTR_BYHASHVALUE(by_key, core->mains, &attachment->key, sizeof(attachment->key),
                                hash, attachment);
    return attachment->by_key.tbl != NULL;
}

static struct lkd_attachment *attachment_new(struct lkd_core *core, struct lkd_session *session,
                                             struct lkd_segment *segment, bool brokered,
                                             uint64_t now_ns)
{
    struct lkd_attachment *attachment = calloc(1, sizeof(*attachment));
    if (!attachment)
        return NULL;
    if (brokered && !lkd_deadlines_reserve(&core->deadlines)) {
        free(attachment);
        return NULL;
    }
    attachment->session = session;
    attachment->segment = segment;
    attachment->main = attachment;
    attachment->parts = 1;
    attachment->brokered = brokered;
    attachment->opened_ns = now_ns;
    lki_list_init(&attachment->of_session);
    lki_list_init(&attachment->extras);
    lki_list_init(&attachment->of_main);
    lki_list_init(&attachment->of_waits);
    lki_list_init(&attachment->of_segment_waits);
    lki_list_init(&attachment->of_ready);
    lki_list_init(&attachment->of_repairs);
    lki_list_init(&attachment->leases);
    lkd_deadline_init(&attachment->deadline);
    lkd_effect_node_init(&attachment->wake, LKD_EFFECT_WAKE);
    return attachment;
}

void lkd_attachment_free(struct lkd_core *core, struct lkd_attachment *attachment)
{
    lkd_deadlines_clear(&core->deadlines, &attachment->deadline);
    if (attachment->brokered)
        lkd_deadlines_unreserve(&core->deadlines);
    lkd_lease_forget(core, attachment);
    lkd_effect_cancel(&attachment->wake);
    lki_list_remove(&attachment->of_session);
    lki_list_remove(&attachment->of_main);
    free(attachment);
}

/* Its record: a successor finds it. The control area knows it already; nobody else does. */
static void record(struct lkd_core *core, struct lkd_attachment *attachment)
{
    struct lkd_attachment_record *record = lkd_ledger_take_attachment(&core->ledger);
    LKI_ASSERT(record); /* as many as the quota admits */
    LKI_STEP("attachment_record");
    record->slot = attachment->slot;
    record->id = attachment->id;
    record->session = attachment->session->number;
    record->segment = attachment->segment->number;
    record->flags = (attachment->brokered ? LKD_ATTACHMENT_BROKERED : 0) |
                    (attachment->read_only ? LKD_ATTACHMENT_READ_ONLY : 0) |
                    (attachment->creator ? LKD_ATTACHMENT_CREATOR : 0) |
                    (attachment->main != attachment ? LKD_ATTACHMENT_EXTRA : 0) |
                    (attachment->accepts_kill ? LKD_ATTACHMENT_ACCEPTS_KILL : 0);
    record->opened_ns = attachment->opened_ns;
    /* relaxed: the state vouches for it */
    atomic_store_explicit(&record->stage, LKD_ACQUIRE_NONE, memory_order_relaxed);
    atomic_store_explicit(&record->upgrading, false, memory_order_relaxed);
    atomic_store_explicit(&record->change_request, 0, memory_order_relaxed);
    lkd_record_enter(&record->state, LKD_RECORD_LIVE);
    lkd_ledger_change(&core->ledger, record);
    attachment->record = record;
}

/* The lki_barrier_fn of the attachments that the broker drives. */
static bool make_barrier(void *user)
{
    const struct lkd_core *core = ((struct lkd_segment *)user)->core;
    return core->config.barrier && core->config.barrier();
}

/* Makes a party for it, and lets the session have it. */
static void settle_in(struct lkd_attachment *attachment)
{
    struct lkd_segment *segment = attachment->segment;
    bool fits = lki_party_init(&attachment->party, &segment->area, attachment->id,
                               lkd_attachment_wake, segment);
    LKI_ASSERT(fits);
    attachment->party.barrier = make_barrier;
    lki_list_append(&attachment->session->attachments, &attachment->of_session);
    lkd_charge(segment->core, attachment->session, LKD_ATTACHMENTS, 1);
}

/* Takes the slot and makes it live in the control area. */
static bool occupy(struct lkd_attachment *attachment)
{
    struct lkd_segment *segment = attachment->segment;
    uint32_t slot = lkd_segment_take_slot(segment, attachment);
    if (slot == 0)
        return false;
    attachment->slot = slot;
    attachment->id = lki_attachment_open(&segment->area, slot, segment->slots[slot].generation,
                                         attachment->brokered ? LKI_ATTACHMENT_BROKERED : 0);
    record(segment->core, attachment);
    settle_in(attachment);
    return true;
}

struct lkd_attachment *lkd_attachment_open(struct lkd_core *core, struct lkd_session *session,
                                           struct lkd_segment *segment,
                                           const struct lkd_attachment_wish *wish, uint64_t now_ns)
{
    struct lkd_attachment *attachment =
        attachment_new(core, session, segment, wish->brokered, now_ns);
    if (!attachment)
        return NULL;
    attachment->read_only = wish->read_only;
    attachment->creator = wish->creator;
    attachment->accepts_kill = wish->accepts_kill;
    if (!enlist_main(core, attachment)) {
        lkd_attachment_free(core, attachment);
        return NULL;
    }
    if (!occupy(attachment)) {
        HASH_DELETE(by_key, core->mains, attachment);
        lkd_attachment_free(core, attachment);
        return NULL;
    }
    lkd_monitor_attachment(core, LKI_EVENT_ATTACHED, attachment);
    return attachment;
}

/* The only writer of the state. */
static void enter(struct lkd_attachment *attachment, enum lkd_attachment_state state)
{
    switch (attachment->state) {
    case LKD_ATTACHMENT_LIVE:
        LKI_ASSERT(state == LKD_ATTACHMENT_REPAIRING);
        break;
    case LKD_ATTACHMENT_REPAIRING:
        LKI_ASSERT(state == LKD_ATTACHMENT_ENDED);
        break;
    case LKD_ATTACHMENT_ENDED:
        LKI_UNREACHABLE("an attachment that has ended changes no more");
        break;
    }
    attachment->state = state;
}

static void begin_repair(struct lkd_attachment *attachment, enum lki_cause cause, uint64_t ended_ns)
{
    enter(attachment, LKD_ATTACHMENT_REPAIRING);
    /* It may have ended by itself just then; nobody can tell, and it was told to. */
    attachment->cause =
        cause == LKI_CAUSE_EXITED && lkd_lease_is_ending(attachment) ? LKI_CAUSE_FORCED : cause;
    attachment->ended_ns = ended_ns;
    LKI_STEP("attachment_cause");
    attachment->record->cause = attachment->cause;
    attachment->record->ended_ns = ended_ns;
    lkd_record_enter(&attachment->record->state, LKD_RECORD_ENDING);
    /* A client may have written over the id, which would hide the cells of the dead from its repair
     * and leave writers waiting for a reader that is gone. */
    if (!attachment->segment->quarantined)
        lkd_fact_restore_id(&attachment->segment->area, attachment->slot, attachment->id);
    lki_repair_begin(&attachment->repair, &attachment->segment->area, attachment->id);
}

static void begin_end(struct lkd_core *core, struct lkd_attachment *attachment,
                      enum lki_cause cause, uint64_t now_ns)
{
    lkd_wait_drop(core, attachment, now_ns);
    begin_repair(attachment, cause, now_ns);
}

static void join_main(struct lkd_attachment *extra)
{
    extra->parts = 0;
    extra->main->parts++;
    lki_list_append(&extra->main->extras, &extra->of_main);
}

/* An earlier worker was at its repair, or about to be: from the beginning, which is the same. */
static void resume_end(struct lkd_core *core, struct lkd_attachment *attachment)
{
    const struct lkd_attachment_record *record = attachment->record;
    bool known = lkd_record_state(&record->state) == LKD_RECORD_ENDING;
    /* Not known: the worker died between the end of its main and its own. */
    begin_repair(attachment, known ? (enum lki_cause)record->cause : LKI_CAUSE_CLOSED,
                 known ? record->ended_ns : attachment->opened_ns);
    lkd_repair_queue_push(core, attachment);
}

struct lkd_attachment *lkd_attachment_open_extra(struct lkd_core *core, struct lkd_attachment *main,
                                                 uint64_t now_ns)
{
    struct lkd_attachment *extra = attachment_new(core, main->session, main->segment, true, now_ns);
    if (!extra)
        return NULL;
    extra->main = main;
    if (!occupy(extra)) {
        lkd_attachment_free(core, extra);
        return NULL;
    }
    join_main(extra);
    return extra;
}

struct lkd_attachment *lkd_attachment_adopt(struct lkd_core *core, struct lkd_session *session,
                                            struct lkd_segment *segment,
                                            struct lkd_attachment_record *record)
{
    struct lkd_attachment *attachment = attachment_new(
        core, session, segment, record->flags & LKD_ATTACHMENT_BROKERED, record->opened_ns);
    if (!attachment || !lkd_segment_adopt_slot(segment, attachment, record->id))
        return NULL; /* and the worker ends */
    attachment->record = record;
    lkd_ledger_change(&core->ledger, record);
    attachment->read_only = record->flags & LKD_ATTACHMENT_READ_ONLY;
    attachment->creator = record->flags & LKD_ATTACHMENT_CREATOR;
    attachment->accepts_kill = record->flags & LKD_ATTACHMENT_ACCEPTS_KILL;
    attachment->slot = record->slot;
    attachment->id = record->id;
    bool live = lkd_record_state(&record->state) == LKD_RECORD_LIVE;
    if (record->flags & LKD_ATTACHMENT_EXTRA) {
        struct lkd_attachment *main = lkd_attachment_find(core, session, segment->number);
        if (main) {
            attachment->main = main;
            join_main(attachment);
        } else {
            live = false; /* its main has ended already, and so does it */
        }
    } else if (live && !enlist_main(core, attachment)) {
        return NULL;
    }
    lkd_fact_restore_id(&segment->area, attachment->slot, attachment->id);
    settle_in(attachment);
    if (!live)
        resume_end(core, attachment);
    return attachment;
}

void lkd_attachment_end(struct lkd_core *core, struct lkd_attachment *attachment,
                        enum lki_cause cause, uint64_t now_ns)
{
    struct lkd_segment *segment = attachment->segment;

    if (attachment->state != LKD_ATTACHMENT_LIVE)
        return;
    begin_end(core, attachment, cause, now_ns);
    lkd_repair_queue_push(core, attachment);
    if (attachment->main != attachment)
        return;
    HASH_DELETE(by_key, core->mains, attachment);
    /* Nobody can publish it any more: the next opener makes a fresh one. */
    if (attachment->creator && segment->state == LKD_SEGMENT_UNPUBLISHED)
        lkd_registry_remove_name(core, segment);
    LKI_LIST_FOREACH_SAFE (node, &attachment->extras)
        lkd_attachment_end(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_main), cause,
                           now_ns);
}

void lkd_attachment_end_session(struct lkd_core *core, struct lkd_session *session,
                                enum lki_cause cause, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &session->attachments)
        lkd_attachment_end(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_session), cause,
                           now_ns);
}

void lkd_attachment_close_extra(struct lkd_core *core, struct lkd_attachment *extra,
                                uint64_t now_ns)
{
    LKI_ASSERT(extra->main != extra);
    begin_end(core, extra, LKI_CAUSE_CLOSED, now_ns);
    extra->repair.next_lock = extra->segment->area.locks;
    struct lki_death death = {.cause = LKI_CAUSE_CLOSED, .when_ns = now_ns};
    bool done = lki_repair_step(&extra->repair, &death, 1, lkd_attachment_wake, extra->segment);
    LKI_ASSERT(done);
    lkd_attachment_repaired(core, extra);
}

void lkd_attachment_repaired(struct lkd_core *core, struct lkd_attachment *attachment)
{
    struct lkd_segment *segment = attachment->segment;
    struct lkd_session *session = attachment->session;
    struct lkd_attachment *main = attachment->main;

    enter(attachment, LKD_ATTACHMENT_ENDED);
    lkd_ledger_give_attachment(&core->ledger, attachment->record);
    attachment->record = NULL;
    lkd_segment_free_slot(segment, attachment->slot);
    lkd_uncharge(core, session, LKD_ATTACHMENTS, 1);
    lkd_effect_cancel(&attachment->wake);
    lkd_lease_holder_ended(core, attachment);
    if (attachment != main)
        lkd_attachment_free(core, attachment);
    LKI_ASSERT(main->parts > 0);
    if (--main->parts == 0) {
        lkd_monitor_attachment(core, LKI_EVENT_DETACHED, main);
        if (main->detach_asked)
            lkd_reply_result(core, session, main->detach_request, LKI_STATUS_OK, 0);
        lkd_attachment_free(core, main);
    }
    lkd_segment_settle(core, segment);
    lkd_session_shrunk(core, session);
}

void lkd_attachment_wake(void *user, uint32_t slot, bool brokered)
{
    struct lkd_segment *segment = user;
    (void)brokered; /* a fact that clients can write; our own record says it better */
    if (slot >= segment->slot_capacity || !segment->slots[slot].attachment)
        return; /* nobody has it, whatever stands there; nobody ever has slot 0 */
    struct lkd_attachment *attachment = segment->slots[slot].attachment;
    if (attachment->state != LKD_ATTACHMENT_LIVE)
        return;
    if (attachment->brokered)
        lkd_wait_wake(segment->core, attachment);
    else
        lkd_effect_push(segment->core, &attachment->wake);
}

void lkd_attachment_detach(struct lkd_core *core, struct lkd_attachment *attachment,
                           uint64_t request, uint64_t now_ns)
{
    lkd_session_note_ending(attachment->session, request);
    lkd_wait_cancel_attachment(core, attachment, now_ns);
    attachment->detach_asked = true;
    attachment->detach_request = request;
    lkd_attachment_end(core, attachment, LKI_CAUSE_CLOSED, now_ns);
}
