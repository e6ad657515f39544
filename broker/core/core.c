/* SPDX-License-Identifier: MIT */
#include "broker/core/core.h"

#include <errno.h>
#include <stdlib.h>

#include "broker/core/attachment.h"
#include "broker/core/brokered_change.h"
#include "broker/core/brokered_hold.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/deadlock.h"
#include "broker/core/doubt.h"
#include "broker/core/forced.h"
#include "broker/core/inquiry.h"
#include "broker/core/lease.h"
#include "broker/core/listing.h"
#include "broker/core/lock_name.h"
#include "broker/core/making.h"
#include "broker/core/monitor.h"
#include "broker/core/open.h"
#include "broker/core/parked.h"
#include "broker/core/repair_queue.h"
#include "broker/core/reservation.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"
#include "common/clock.h"

int lkd_core_new(const struct lkd_core_config *config, struct lkd_core **out_core)
{
    if (config->token_epoch_s > LKD_TOKEN_EPOCH_S_MAX)
        return -EINVAL;
    struct lkd_core *core = calloc(1, sizeof(*core));
    if (!core)
        return -ENOMEM;
    core->config = *config;
    int r = lkd_ledger_view(&core->ledger, config->ledger, &config->limits);
    if (r < 0) {
        free(core);
        return r;
    }
    core->successor = r == 1;
    if (core->successor) {
        struct lkd_ledger_header *header = core->ledger.header;
        /* relaxed: written by workers that have ended */
        core->last_session = atomic_load_explicit(&header->last_session, memory_order_relaxed);
        core->last_segment = atomic_load_explicit(&header->last_segment, memory_order_relaxed);
        core->last_epoch_s = atomic_load_explicit(&header->last_epoch_s, memory_order_relaxed);
        core->config.started_ns = header->started_ns;
        core->resumed = 1 + atomic_fetch_add_explicit(&header->restarts, 1, memory_order_relaxed);
    } else {
        core->ledger.header->started_ns = config->started_ns;
    }
    lkd_quota_init(&core->quota, &config->limits, config->broker_uid, config->hash_seed);
    lkd_effects_init(&core->effects);
    lkd_deadlock_init(core);
    lki_list_init(&core->broken);
    lki_list_init(&core->ready);
    lki_list_init(&core->repairs);
    lki_list_init(&core->reserved);
    lki_list_init(&core->monitors);
    lki_list_init(&core->leases);
    lki_list_init(&core->forced);
    if (core->config.grace_ns == 0)
        core->config.grace_ns = LKD_GRACE_NS;
    if (core->config.traced_grace_ns == 0)
        core->config.traced_grace_ns = LKD_TRACED_GRACE_NS;
    *out_core = core;
    return 0;
}

static void free_session(struct lkd_core *core, struct lkd_session *session)
{
    LKI_LIST_FOREACH_SAFE (node, &session->parked)
        free(LKI_LIST_ENTRY(node, struct lkd_parked, of_session));
    LKI_LIST_FOREACH_SAFE (node, &session->attachments) { /* extras hang on their mains */
        struct lkd_attachment *extra = LKI_LIST_ENTRY(node, struct lkd_attachment, of_session);
        if (extra->main != extra)
            lkd_attachment_free(core, extra);
    }
    LKI_LIST_FOREACH_SAFE (node, &session->attachments)
        lkd_attachment_free(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_session));
    lkd_session_free(core, session);
}

/* Only forgets: no lock changes hands. What hangs together is freed from the leaves up. */
struct lkd_core *lkd_core_free(struct lkd_core *core)
{
    struct lkd_effect effect;
    struct lkd_segment *segment, *next_segment;

    if (!core)
        return NULL;
    while (lkd_core_next_effect(core, &effect))
        ; /* frees what was on its way out */
    HASH_CLEAR(by_key, core->mains);
    HASH_CLEAR(by_name, core->by_name);
    struct lkd_session *session, *next_session;
    HASH_ITER(by_number, core->sessions, session, next_session)
    {
        HASH_DELETE(by_number, core->sessions, session);
        free_session(core, session);
    }
    HASH_ITER(by_number, core->by_number, segment, next_segment)
    {
        HASH_DELETE(by_number, core->by_number, segment);
        lkd_segment_free(segment);
    }
    LKI_ASSERT(!core->processes);
    lkd_reservations_deinit(core);
    lkd_forced_drop_session(core, NULL);
    lkd_deadlines_deinit(&core->deadlines);
    lkd_deadlines_deinit(&core->lease_deadlines);
    lkd_quota_deinit(&core->quota);
    free(core);
    return NULL;
}

/* Whether an answer is due for a request that had its effect before, under another worker: what it
 * wanted to end has ended. */
static bool is_done_already(const struct lkd_session *session, const struct lki_message *message)
{
    return (message->type == LKI_REQUEST_DETACH || message->type == LKI_REQUEST_RELEASE) &&
           lkd_session_has_ended(session, message->id);
}

/* The live attachment that the request names, or NULL after a refusal. */
static struct lkd_attachment *attached(struct lkd_core *core, struct lkd_session *session,
                                       const struct lki_message *message, uint32_t segment)
{
    struct lkd_attachment *main = lkd_attachment_find(core, session, segment);
    if (!main && is_done_already(session, message))
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
    else if (!main)
        lkd_refuse(core, session, message->id, LKI_STATUS_STALE,
                   "this session has no segment %u open; open it again", segment);
    return main;
}

/* Requests about a segment that the session has open. */
static void apply_attached(struct lkd_core *core, struct lkd_attachment *main,
                           const struct lki_message *message, uint64_t now_ns)
{
    lkd_work_on_segment(core, main->segment->number);
    switch (message->type) {
    case LKI_REQUEST_PUBLISH:
        lkd_making_publish(core, main, message);
        break;
    case LKI_REQUEST_DETACH:
        lkd_attachment_detach(core, main, message->id, now_ns);
        break;
    case LKI_REQUEST_GROW:
        lkd_making_grow(core, main, message);
        break;
    case LKI_REQUEST_LOCK_NAMED:
        lkd_lock_name_request(core, main, message);
        break;
    case LKI_REQUEST_ACQUIRE:
        lkd_wait_acquire(core, main, message, now_ns);
        break;
    case LKI_REQUEST_RELEASE:
        lkd_hold_release(core, main, message, now_ns);
        break;
    case LKI_REQUEST_MARK_CONSISTENT:
        lkd_hold_mark_consistent(core, main, message);
        break;
    case LKI_REQUEST_DECLARE:
        lkd_hold_declare(core, main, message);
        break;
    case LKI_REQUEST_CHANGE_MODE:
        lkd_change_mode(core, main, message, now_ns);
        break;
    case LKI_REQUEST_HOLDER:
        lkd_inquiry_holder(core, main, message, now_ns);
        break;
    case LKI_REQUEST_DEADLOCK_CHECK:
        lkd_deadlock_request(core, main, message, now_ns);
        break;
    default: /* lkd_core_apply() sends only these */
        LKI_UNREACHABLE("a request about a segment");
    }
}

/* ASK and NUDGE have no answer, not even when the segment is not open. */
static void apply_one_way(struct lkd_core *core, struct lkd_session *session,
                          const struct lki_message *message, uint64_t now_ns)
{
    bool ask = message->type == LKI_REQUEST_ASK;
    struct lkd_attachment *main = lkd_attachment_find(
        core, session, ask ? message->as.ask.segment : message->as.segment_ref.segment);
    if (!main || main->segment->quarantined)
        return;
    if (ask)
        lkd_inquiry_ask(core, main, message, now_ns);
    else
        lkd_wait_nudge(core, main->segment);
}

/* For a client that may not make it itself. */
static void make_barrier(struct lkd_core *core, struct lkd_session *session,
                         const struct lki_message *message)
{
    if (core->config.barrier && core->config.barrier())
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
    else
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "the kernel refuses the broker the membarrier system call");
}

static uint32_t segment_of(const struct lki_message *message)
{
    switch (message->type) {
    case LKI_REQUEST_GROW:
        return message->as.grow.segment;
    case LKI_REQUEST_LOCK_NAMED:
        return message->as.lock_named.segment;
    case LKI_REQUEST_ACQUIRE:
        return message->as.acquire.segment;
    case LKI_REQUEST_RELEASE:
    case LKI_REQUEST_MARK_CONSISTENT:
    case LKI_REQUEST_DECLARE:
        return message->as.hold_ref.segment;
    case LKI_REQUEST_CHANGE_MODE:
        return message->as.change_mode.segment;
    case LKI_REQUEST_HOLDER:
    case LKI_REQUEST_DEADLOCK_CHECK:
        return message->as.lock_ref.segment;
    default: /* PUBLISH and DETACH */
        return message->as.segment_ref.segment;
    }
}

void lkd_core_apply(struct lkd_core *core, struct lkd_session *session,
                    const struct lki_message *message, const struct lkd_offer *offer,
                    uint64_t now_ns)
{
    struct lkd_attachment *main;

    switch (message->type) {
    case LKI_REQUEST_OPEN:
        lkd_open_request(core, session, message, offer, now_ns);
        break;
    case LKI_REQUEST_REMOVE:
        lkd_making_remove(core, session, message);
        break;
    case LKI_REQUEST_CANCEL:
        lkd_wait_cancel(core, session, message, now_ns);
        break;
    case LKI_REQUEST_LIST:
        lkd_listing_request(core, session, message, now_ns);
        break;
    case LKI_REQUEST_MONITOR:
        lkd_monitor_request(core, session, message);
        break;
    case LKI_REQUEST_FORCE_RELEASE:
        lkd_forced_request(core, session, message, now_ns);
        break;
    case LKI_REQUEST_BARRIER:
        make_barrier(core, session, message);
        break;
    case LKI_REQUEST_GOODBYE:
        lkd_session_goodbye(core, session, message->id, now_ns);
        break;
    case LKI_REQUEST_ASK:
    case LKI_REQUEST_NUDGE:
        apply_one_way(core, session, message, now_ns);
        break;
    case LKI_REQUEST_PUBLISH:
    case LKI_REQUEST_DETACH:
    case LKI_REQUEST_GROW:
    case LKI_REQUEST_LOCK_NAMED:
    case LKI_REQUEST_ACQUIRE:
    case LKI_REQUEST_RELEASE:
    case LKI_REQUEST_MARK_CONSISTENT:
    case LKI_REQUEST_DECLARE:
    case LKI_REQUEST_CHANGE_MODE:
    case LKI_REQUEST_HOLDER:
    case LKI_REQUEST_DEADLOCK_CHECK:
        main = attached(core, session, message, segment_of(message));
        if (main && main->segment->quarantined && message->type != LKI_REQUEST_DETACH)
            lkd_refuse(core, session, message->id, LKI_STATUS_STALE,
                       "the broker failed twice over this segment and does not look at it any "
                       "more; remove it, and let it be created anew");
        else if (main)
            apply_attached(core, main, message, now_ns);
        break;
    case LKI_REQUEST_HELLO:
        if (!session->repeating)
            lkd_session_break(core, session, "a second hello");
        break;
    case LKI_REQUEST_RESUME: /* accepts() has seen to it */
    case LKI_MESSAGE_NONE:
    case LKI_REPLY_RESULT:
    case LKI_REPLY_OPENED:
    case LKI_REPLY_GRANTED:
    case LKI_REPLY_HOLDER_IS:
    case LKI_REPLY_LIST_PAGE:
    case LKI_REPLY_RESUMED:
    case LKI_REPLY_EVENT:
        lkd_session_break(core, session, "what it sent is not a request");
        break;
    }
}

/* A RELEASE that is not answered. It has its effect once, wherever its worker dies, because the driver takes
 * it out of the socket afterwards; nobody repeats it. Hearing it twice is once: whatever makes another
 * hold of the lock lies behind it. Nor could it end that one: see lkd_hold_is_meant(), since a slot that has
 * been given again may have the same id. */
static bool is_one_way(const struct lki_message *message)
{
    return message->type == LKI_REQUEST_RELEASE && message->as.hold_ref.one_way;
}

/* What came from a session that was taken over. Until its RESUME nothing is heard that would come
 * again; behind it ids rise anew from the first that it repeats. False: nothing is to be done. */
static bool hears(struct lkd_core *core, struct lkd_session *session,
                  const struct lki_message *message)
{
    if (message->type == LKI_REQUEST_RESUME) {
        lkd_session_resume(core, session, message->as.resume.number);
        return false;
    }
    if (session->resuming)
        return message->type == LKI_REQUEST_ASK || message->type == LKI_REQUEST_NUDGE ||
               is_one_way(message); /* its client may be asleep for long, or dead */
    if (!session->requested || message->id > session->last_request)
        return true;
    if (!session->adopted) /* else it was told twice to repeat */
        lkd_session_break(core, session, "its request ids do not rise");
    return false;
}

/* Whether the session may speak now: HELLO comes first, and ids rise. */
static bool accepts(struct lkd_core *core, struct lkd_session *session,
                    const struct lki_message *message)
{
    if (!hears(core, session, message))
        return false;
    if (!session->resuming)
        lkd_session_receive(session, message->id);
    session->unanswered = is_one_way(message) ? message->id : 0;
    switch (session->state) {
    case LKD_SESSION_GREETING:
        if (message->type == LKI_REQUEST_HELLO)
            lkd_session_greet(core, session, message);
        else
            lkd_session_break(core, session, "its first record is no hello");
        return false;
    case LKD_SESSION_OPEN:
        lkd_session_introduce(core, session);
        return true;
    case LKD_SESSION_LEAVING: /* it said goodbye; what comes after is not heard */
    case LKD_SESSION_LOST:
    case LKD_SESSION_GONE:
        break;
    }
    return false;
}

bool lkd_core_message(struct lkd_core *core, uint64_t number, const struct lki_message *message,
                      const struct lkd_offer *offer, uint64_t now_ns)
{
    struct lkd_session *session = lkd_session_find(core, number);

    lkd_core_begin(core, now_ns);
    lkd_work_on_session(core, number);
    if (session)
        lkd_doubt_note_record(core, session);
    bool heard = session && accepts(core, session, message);
    if (heard)
        lkd_core_apply(core, session, message, offer, now_ns);
    lkd_core_settle(core, now_ns);
    return heard;
}

void lkd_core_session_quiet(struct lkd_core *core, uint64_t number)
{
    struct lkd_session *session = core->last_doubt > 0 ? lkd_session_find(core, number) : NULL;
    if (session)
        lkd_doubt_note_quiet(core, session);
}

void lkd_core_begin(struct lkd_core *core, uint64_t now_ns)
{
    lkd_effects_release(&core->effects);
    core->now_ns = now_ns;
}

void lkd_core_settle(struct lkd_core *core, uint64_t now_ns)
{
    lkd_session_settle(core, now_ns);
    lkd_wait_settle(core, now_ns);
    lkd_session_settle(core, now_ns); /* a grant that could not be sent breaks its session */
    lkd_work_done(core);
}

void lkd_core_tick(struct lkd_core *core, uint64_t now_ns, uint32_t slice_locks)
{
    lkd_core_begin(core, now_ns);
    lkd_wait_due(core, now_ns);
    lkd_lease_due(core, now_ns);
    lkd_repair_queue_step(core, now_ns, slice_locks);
    lkd_core_settle(core, now_ns);
}

const char *lkd_core_refusal(const struct lkd_core *core)
{
    return core->refusal;
}

uint64_t lkd_core_token_epoch_s(const struct lkd_core *core)
{
    return core->last_epoch_s;
}

uint64_t lkd_core_deadline_ns(const struct lkd_core *core)
{
    if (!lki_list_is_empty(&core->ready) || !lkd_repair_queue_is_empty(core))
        return 0;
    const struct lkd_deadline *wait = lkd_deadlines_first(&core->deadlines);
    const struct lkd_deadline *lease = lkd_deadlines_first(&core->lease_deadlines);
    uint64_t wait_ns = wait ? wait->at_ns : LKI_TIME_NEVER;
    uint64_t lease_ns = lease ? lease->at_ns : LKI_TIME_NEVER;
    return wait_ns < lease_ns ? wait_ns : lease_ns;
}
