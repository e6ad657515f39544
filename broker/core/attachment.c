/* SPDX-License-Identifier: MIT */
#include "broker/core/attachment.h"

#include <stdlib.h>

#include "broker/core/brokered_wait.h"
#include "broker/core/charge.h"
#include "broker/core/fact.h"
#include "broker/core/lease.h"
#include "broker/core/registry.h"
#include "broker/core/repair_queue.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"

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
    bool fits = lki_party_init(&attachment->party, &segment->area, attachment->id,
                               lkd_attachment_wake, segment);
    LKI_ASSERT(fits);
    lki_list_append(&attachment->session->attachments, &attachment->of_session);
    lkd_charge(segment->core, attachment->session, LKD_ATTACHMENTS, 1);
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
    return attachment;
}

struct lkd_attachment *lkd_attachment_open_extra(struct lkd_core *core, struct lkd_attachment *main,
                                                 uint64_t now_ns)
{
    struct lkd_attachment *extra = attachment_new(core, main->session, main->segment, true, now_ns);
    if (!extra)
        return NULL;
    if (!occupy(extra)) {
        lkd_attachment_free(core, extra);
        return NULL;
    }
    extra->main = main;
    extra->parts = 0;
    main->parts++;
    lki_list_append(&main->extras, &extra->of_main);
    return extra;
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

static void begin_end(struct lkd_core *core, struct lkd_attachment *attachment,
                      enum lki_cause cause, uint64_t now_ns)
{
    lkd_wait_drop(core, attachment, now_ns);
    enter(attachment, LKD_ATTACHMENT_REPAIRING);
    /* It may have ended by itself just then; nobody can tell, and it was told to. */
    attachment->cause =
        cause == LKI_CAUSE_EXITED && lkd_lease_is_ending(attachment) ? LKI_CAUSE_FORCED : cause;
    attachment->ended_ns = now_ns;
    /* A client may have written over the id, which would hide the cells of the dead from its repair
     * and leave writers waiting for a reader that is gone. */
    lkd_fact_restore_id(&attachment->segment->area, attachment->slot, attachment->id);
    lki_repair_begin(&attachment->repair, &attachment->segment->area, attachment->id);
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
    lkd_segment_free_slot(segment, attachment->slot);
    lkd_uncharge(core, session, LKD_ATTACHMENTS, 1);
    lkd_effect_cancel(&attachment->wake);
    lkd_lease_holder_ended(core, attachment);
    if (attachment != main)
        lkd_attachment_free(core, attachment);
    LKI_ASSERT(main->parts > 0);
    if (--main->parts == 0) {
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
    if (slot == 0 || slot >= segment->slot_capacity || !segment->slots[slot].attachment)
        return;
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
    lkd_wait_cancel_attachment(core, attachment, now_ns);
    attachment->detach_asked = true;
    attachment->detach_request = request;
    lkd_attachment_end(core, attachment, LKI_CAUSE_CLOSED, now_ns);
}
