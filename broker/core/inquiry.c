/* SPDX-License-Identifier: MIT */
#include "broker/core/inquiry.h"

#include <stdio.h>
#include <string.h>

#include "broker/core/fact.h"
#include "broker/core/monitor.h"
#include "broker/core/lease.h"
#include "broker/core/registry.h"
#include "broker/core/repair_queue.h"
#include "broker/core/segment.h"
#include "broker/core/process.h"
#include "broker/core/session.h"
#include "common/clock.h"

#define ASK_INTERVAL_NS LKI_NS_PER_MS

void lkd_inquiry_name(const struct lkd_attachment *attachment, char *out_name)
{
    const struct lkd_segment *segment = attachment->segment;
    lkd_name_show(&segment->name, segment->name_bytes, attachment->session->uid, out_name);
}

uint32_t lkd_inquiry_owned_mode(uint32_t word)
{
    return word & LKI_UPDATE ? LKI_MODE_UPDATE : LKI_MODE_EXCLUSIVE;
}

struct lkd_attachment *lkd_inquiry_find_holder(const struct lkd_segment *segment,
                                               const struct lki_lock_state *state,
                                               uint32_t *out_mode)
{
    uint32_t owner = state->word & LKI_ID_MASK;
    if (owner != 0) {
        *out_mode = lkd_inquiry_owned_mode(state->word);
        return lkd_segment_attachment(segment, owner);
    }
    *out_mode = state->readers > 0 ? LKI_MODE_SHARED : 0;
    return state->readers > 0 ? lkd_segment_attachment(segment, state->first_reader) : NULL;
}

void lkd_inquiry_describe(const struct lkd_segment *segment, uint32_t lock, char *out_text)
{
    struct lki_lock_state state;
    uint32_t mode;
    lki_lock_look(&segment->area, lock, &state);
    const struct lkd_attachment *holder = lkd_inquiry_find_holder(segment, &state, &mode);
    out_text[0] = 0;
    if (holder)
        snprintf(out_text, LKD_HOLDER_TEXT_BYTES, "; held %sby pid %d (%s)",
                 mode == LKI_MODE_SHARED   ? "shared "
                 : mode == LKI_MODE_UPDATE ? "for update "
                                           : "",
                 holder->session->pid, holder->session->command);
}

/* Since when an owner holds exclusively. */
static uint64_t held_ns(const struct lkd_attachment *attachment, uint32_t lock, uint64_t sequence,
                        uint64_t now_ns)
{
    const struct lki_area *area = &attachment->segment->area;
    if (attachment->granted && attachment->granted_lock == lock)
        return now_ns - attachment->granted_ns;
    if (sequence & 1)
        return 0; /* a hold for data: nobody wrote down when it began */
    if ((lkd_fact_wait(area, attachment->slot) & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING)
        return lkd_fact_waiting_ns(area, attachment->slot, attachment->opened_ns, now_ns);
    return lkd_fact_held_ns(area, attachment->slot, attachment->opened_ns, now_ns);
}

/* Since when a reader is inside. */
static uint64_t read_ns(const struct lkd_attachment *attachment, uint32_t lock, uint64_t now_ns)
{
    if (attachment->granted && attachment->granted_lock == lock)
        return now_ns - attachment->granted_ns;
    /* Without a connection its process has executed something else: what it holds it took before,
     * to its end, and so wrote down when. The time would also stand there from an earlier hold. */
    if (lkd_session_is_connected(attachment->session))
        return 0;
    return lkd_fact_held_ns(&attachment->segment->area, attachment->slot, attachment->opened_ns,
                            now_ns);
}

uint64_t lkd_inquiry_held_ns(const struct lkd_attachment *attachment, uint32_t lock, uint32_t mode,
                             uint64_t sequence, uint64_t now_ns)
{
    switch (mode) {
    case LKI_MODE_EXCLUSIVE:
        return held_ns(attachment, lock, sequence, now_ns);
    case LKI_MODE_SHARED:
        return read_ns(attachment, lock, now_ns);
    default: /* for update: nobody wrote it down, unless we granted it */
        return attachment->granted && attachment->granted_lock == lock
                   ? now_ns - attachment->granted_ns
                   : 0;
    }
}

static bool check_lock(struct lkd_core *core, struct lkd_attachment *main, uint64_t request,
                       uint32_t lock)
{
    if (lock < main->segment->locks)
        return true;
    lkd_refuse(core, main->session, request, LKI_STATUS_OUT_OF_RANGE,
               "there is no lock %u: the segment has %u", lock, main->segment->locks);
    return false;
}

void lkd_inquiry_holder(struct lkd_core *core, struct lkd_attachment *main,
                        const struct lki_message *message, uint64_t now_ns)
{
    uint32_t lock = message->as.lock_ref.lock;
    if (!check_lock(core, main, message->id, lock))
        return;
    struct lki_lock_state state;
    uint32_t mode;
    lki_lock_look(&main->segment->area, lock, &state);
    const struct lkd_attachment *holder = lkd_inquiry_find_holder(main->segment, &state, &mode);
    struct lkd_sending *sending = lkd_reply(core, main->session, LKI_REPLY_HOLDER_IS, message->id,
                                            sizeof(holder->session->command));
    if (!sending)
        return;
    struct lki_holder_is *answer = &sending->message.as.holder_is;
    answer->mode = mode;
    answer->holders =
        (mode != LKI_MODE_SHARED && mode != 0) + (mode != LKI_MODE_EXCLUSIVE ? state.readers : 0);
    answer->waiters = state.waiters;
    answer->token = state.sequence;
    if (!holder)
        return;
    const struct lkd_session *session = holder->session;
    answer->pid = session->pid;
    answer->uid = session->uid;
    answer->held_ns = lkd_inquiry_held_ns(holder, lock, mode, state.sequence, now_ns);
    memcpy(sending->extra, session->command, sizeof(session->command));
    answer->command =
        (struct lki_bytes){.data = sending->extra, .length_bytes = strlen(session->command)};
}

static void check_owner(struct lkd_core *core, const struct lkd_attachment *asker, uint32_t lock,
                        uint32_t owner, uint64_t now_ns)
{
    struct lkd_segment *segment = asker->segment;
    if ((lkd_fact_word(&segment->area, lock) & LKI_ID_MASK) != owner)
        return; /* it has been handed on since */
    struct lkd_attachment *attachment = lkd_segment_attachment(segment, owner);
    if (!attachment) {
        lkd_repair_queue_push_orphan(core, segment, owner);
        return;
    }
    switch (attachment->state) {
    case LKD_ATTACHMENT_LIVE:
        lkd_process_check(core, attachment->session->process, now_ns);
        lkd_monitor_waited(core, asker, attachment, lock);
        break;
    case LKD_ATTACHMENT_REPAIRING: /* its turn comes */
    case LKD_ATTACHMENT_ENDED:
        break;
    }
}

static void check_readers(struct lkd_core *core, struct lkd_segment *segment, uint32_t lock,
                          uint64_t now_ns)
{
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        const struct lkd_attachment *attachment = segment->slots[slot].attachment;
        if (!attachment || attachment->state != LKD_ATTACHMENT_LIVE)
            continue;
        for (uint32_t cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
            if (lkd_fact_cell(&segment->area, slot, cell) == lock)
                lkd_process_check(core, attachment->session->process, now_ns);
    }
}

void lkd_inquiry_about(struct lkd_core *core, struct lkd_attachment *asker, uint32_t lock,
                       uint32_t owner, uint64_t sequence, uint64_t now_ns)
{
    if (owner != 0) {
        lkd_lease_complain(core, asker, lock, owner & LKI_ID_MASK, sequence, now_ns);
        check_owner(core, asker, lock, owner & LKI_ID_MASK, now_ns);
        return;
    }
    /* A walk over all slots: an attachment drains one lock at a time, and need not ask often. */
    if (asker->asked_ns != 0 && now_ns - asker->asked_ns < ASK_INTERVAL_NS)
        return;
    asker->asked_ns = now_ns;
    lkd_lease_complain_readers(core, asker, lock, now_ns);
    check_readers(core, asker->segment, lock, now_ns);
    lkd_monitor_waited(core, asker, asker, lock);
}

void lkd_inquiry_ask(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message, uint64_t now_ns)
{
    const struct lki_ask *ask = &message->as.ask;
    if (ask->lock < main->segment->locks) /* one-way: nobody reads a refusal */
        lkd_inquiry_about(core, main, ask->lock, ask->owner, ask->sequence, now_ns);
}
