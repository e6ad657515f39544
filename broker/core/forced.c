/* SPDX-License-Identifier: MIT */
#include "broker/core/forced.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/fact.h"
#include "broker/core/lease.h"
#include "broker/core/lock_name.h"
#include "broker/core/registry.h"
#include "broker/core/repair_queue.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "common/assert.h"
#include "common/printable.h"
#include "lockkeeper/lockkeeper.h"

/* One request that waits. The segment cannot end before: its holders are attached, and their end
 * settles this. */
struct lkd_forced {
    struct lki_list of_core;
    struct lkd_session *session;
    const struct lkd_segment *segment;
    uint32_t lock;
    uint32_t holders; /* to be ended */
    uint64_t request;
};

/* One request on its way. */
struct forcing {
    struct lkd_core *core;
    struct lkd_session *session;
    const struct lki_message *message;
    struct lkd_segment *segment;
    uint32_t lock;
    uint64_t now_ns;
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];
    char reason[LKI_REASON_BYTES_MAX + 1];
};

static void forced_free(struct lkd_core *core, struct lkd_forced *forced)
{
    lki_list_remove(&forced->of_core);
    core->forced_count--;
    free(forced);
}

void lkd_forced_drop_session(struct lkd_core *core, const struct lkd_session *session)
{
    LKI_LIST_FOREACH_SAFE (node, &core->forced) {
        struct lkd_forced *forced = LKI_LIST_ENTRY(node, struct lkd_forced, of_core);
        if (!session || forced->session == session)
            forced_free(core, forced);
    }
}

/* --- The end --- */

/* What is left of the forced leases on a lock: of those that can still come to something, and one
 * that cannot. */
struct rest {
    uint32_t pending;
    const struct lkd_lease *stuck;
    const struct lkd_lease *refused;
};

static struct rest rest_of(const struct lkd_core *core, const struct lkd_segment *segment,
                           uint32_t lock)
{
    struct rest rest = {0};
    for (const struct lki_list *node = core->leases.next; node != &core->leases;
         node = node->next) {
        const struct lkd_lease *lease = LKI_LIST_ENTRY(node, struct lkd_lease, of_core);
        if (!lease->forced || lease->lock != lock || lease->holder->segment != segment)
            continue;
        if (lease->phase == LKD_LEASE_STUCK)
            rest.stuck = lease;
        else if (lease->phase == LKD_LEASE_REPORTED && lease->holder->state == LKD_ATTACHMENT_LIVE)
            rest.refused = lease;
        else
            rest.pending++;
    }
    return rest;
}

static void answer(struct lkd_core *core, const struct lkd_forced *forced, const struct rest *rest)
{
    if (rest->refused) {
        const struct lkd_session *holder = rest->refused->holder->session;
        lkd_refuse(core, forced->session, forced->request, LKI_STATUS_DENIED,
                   "pid %d (%s) of uid %u holds it, and the broker of uid %u may not end it; ask "
                   "that user, or root",
                   holder->pid, holder->command, holder->uid, core->config.broker_uid);
    } else if (rest->stuck) {
        const struct lkd_session *holder = rest->stuck->holder->session;
        lkd_refuse(core, forced->session, forced->request, LKI_STATUS_BUSY,
                   "pid %d (%s) was sent SIGKILL and is stuck in the kernel; the lock is handed on "
                   "when it ends, not before; see: cat /proc/%d/stack",
                   holder->pid, holder->command, holder->pid);
    } else {
        lkd_reply_result(core, forced->session, forced->request, LKI_STATUS_OK, forced->holders);
    }
}

void lkd_forced_settle(struct lkd_core *core, const struct lkd_segment *segment, uint32_t lock)
{
    if (lki_list_is_empty(&core->forced))
        return;
    struct rest rest = rest_of(core, segment, lock);
    if (rest.pending > 0)
        return;
    LKI_LIST_FOREACH_SAFE (node, &core->forced) {
        struct lkd_forced *forced = LKI_LIST_ENTRY(node, struct lkd_forced, of_core);
        if (forced->segment != segment || forced->lock != lock)
            continue;
        answer(core, forced, &rest);
        forced_free(core, forced);
    }
}

/* --- The request --- */

static void refuse_reason(const struct forcing *forcing, const char *why)
{
    lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_INVALID,
               "cannot release it by force: %s; say why you end another process, for the log", why);
}

/* Takes the reason, with what would confuse a log replaced. */
static bool take_reason(struct forcing *forcing)
{
    struct lki_bytes reason = forcing->message->as.force_release.reason;

    if (reason.length_bytes == 0) {
        refuse_reason(forcing, "no reason was given");
        return false;
    }
    if (reason.length_bytes > LKI_REASON_BYTES_MAX) {
        refuse_reason(forcing, "the reason has more than 200 bytes");
        return false;
    }
    snprintf(forcing->reason, sizeof(forcing->reason), "%.*s", (int)reason.length_bytes,
             (const char *)reason.data);
    lki_printable(forcing->reason);
    return true;
}

static bool take_segment(struct forcing *forcing)
{
    const struct lki_force_release *wish = &forcing->message->as.force_release;
    struct lkd_name name;
    uint32_t name_bytes;
    const char *reason = "";

    if (lkd_registry_parse(forcing->session, wish->name, &name, &name_bytes, &reason) < 0) {
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a segment: %s", reason);
        return false;
    }
    lkd_name_show(&name, name_bytes, forcing->session->uid, forcing->shown);
    struct lkd_segment *segment = lkd_registry_find_name(forcing->core, &name, name_bytes);
    if (!segment || segment->state == LKD_SEGMENT_MAKING) {
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_NOT_FOUND,
                   "there is no such segment; see: lockkeeper ls");
        return false;
    }
    if (!lkd_rights_may_see(forcing->session, segment)) {
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_DENIED,
                   "mode %04o belongs to uid %u, you are uid %u; ask its owner", segment->mode,
                   segment->uid, forcing->session->uid);
        return false;
    }
    if (segment->quarantined) {
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_STALE,
                   "the broker failed twice over this segment and does not look at it any more; "
                   "end its processes, and let it be created anew");
        return false;
    }
    forcing->segment = segment;
    return true;
}

static bool take_lock(struct forcing *forcing)
{
    const struct lki_force_release *wish = &forcing->message->as.force_release;

    forcing->lock = wish->lock;
    if (wish->lock_name.length_bytes != 0 &&
        !lkd_lock_name_find(forcing->core, forcing->segment, wish->lock_name, &forcing->lock)) {
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_NOT_FOUND,
                   "no lock of it has the name '%.*s'; see: lockkeeper ls",
                   (int)(wish->lock_name.length_bytes < LKI_NAME_BYTES_MAX
                             ? wish->lock_name.length_bytes
                             : LKI_NAME_BYTES_MAX),
                   (const char *)wish->lock_name.data);
        return false;
    }
    if (forcing->lock < forcing->segment->locks)
        return true;
    lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_OUT_OF_RANGE,
               "there is no lock %u: the segment has %u", forcing->lock, forcing->segment->locks);
    return false;
}

/* Whoever owns the word but still drains the readers holds nothing yet. */
static bool holds(const struct forcing *forcing, const struct lkd_attachment *place)
{
    const struct lki_area *area = &forcing->segment->area;

    if ((lkd_fact_look_word(area, forcing->lock) & LKI_ID_MASK) == place->id)
        return !lki_wait_is(lkd_fact_look_wait(area, place->slot), LKI_WAIT_DRAINING,
                            forcing->lock);
    return lkd_fact_look_reads(area, place->slot, forcing->lock);
}

static bool may_end(const struct forcing *forcing, const struct lkd_attachment *holder)
{
    uint32_t uid = forcing->session->uid;
    const struct lkd_segment *segment = forcing->segment;
    bool fenced = holder->brokered && segment->on_expiry == LK_EXPIRY_FENCE;

    return uid == 0 || uid == forcing->core->config.broker_uid || uid == holder->session->uid ||
           (uid == segment->uid && (holder->main->accepts_kill || fenced));
}

/* The next place from *slot on that holds the lock, or NULL. */
static struct lkd_attachment *next_holder(const struct forcing *forcing, uint32_t *slot)
{
    while (*slot < forcing->segment->slot_capacity) {
        struct lkd_attachment *place = forcing->segment->slots[(*slot)++].attachment;
        if (place && holds(forcing, place))
            return place;
    }
    return NULL;
}

/* All of them, or none: half a forced release helps nobody. */
static bool check_holders(const struct forcing *forcing, uint32_t *out_count)
{
    const struct lkd_attachment *holder;
    uint32_t count = 0;

    for (uint32_t slot = 1; (holder = next_holder(forcing, &slot)); count++) {
        if (may_end(forcing, holder))
            continue;
        lkd_refuse(forcing->core, forcing->session, forcing->message->id, LKI_STATUS_DENIED,
                   "pid %d (%s) of uid %u holds it; only that user, root and uid %u, whose broker "
                   "this is, may end it%s",
                   holder->session->pid, holder->session->command, holder->session->uid,
                   forcing->core->config.broker_uid,
                   forcing->session->uid == forcing->segment->uid
                       ? ", and you if it had opened the segment with LK_ACCEPT_KILL"
                       : "");
        return false;
    }
    *out_count = count;
    return true;
}

/* Not in the list yet: what is settled while its holders are being looked up is not this. */
static struct lkd_forced *forced_new(const struct forcing *forcing, uint32_t holders)
{
    struct lkd_forced *forced =
        forcing->core->forced_count < LKI_FORCED_MAX ? calloc(1, sizeof(*forced)) : NULL;
    if (!forced)
        return NULL;
    lki_list_init(&forced->of_core);
    forced->session = forcing->session;
    forced->segment = forcing->segment;
    forced->lock = forcing->lock;
    forced->holders = holders;
    forced->request = forcing->message->id;
    return forced;
}

static void end_holders(const struct forcing *forcing, uint32_t count)
{
    struct lkd_core *core = forcing->core;
    struct lkd_attachment *holder;
    struct lkd_forced *forced = forced_new(forcing, count);

    if (!forced) {
        lkd_refuse(core, forcing->session, forcing->message->id, LKI_STATUS_NOT_READY,
                   "the broker is busy with %u forced releases, which is the maximum, or has no "
                   "memory; try again",
                   core->forced_count);
        return;
    }
    for (uint32_t slot = 1; (holder = next_holder(forcing, &slot));) {
        if (lkd_lease_force(core, holder, forcing->lock, forcing->now_ns))
            continue;
        lkd_refuse(core, forcing->session, forcing->message->id, LKI_STATUS_NOT_READY,
                   "the broker watches %u overdue holds, which is the maximum, or has no memory; "
                   "pid %d and those behind it were not ended; try again",
                   core->lease_count, holder->session->pid);
        free(forced);
        return;
    }
    lki_list_append(&core->forced, &forced->of_core);
    core->forced_count++;
    lkd_forced_settle(core, forcing->segment, forcing->lock); /* they may just have let go */
}

/* An id that nobody has is no holder, but keeps the lock from everybody until it is repaired. */
static void free_orphan(const struct forcing *forcing)
{
    uint32_t owner = lkd_fact_word(&forcing->segment->area, forcing->lock) & LKI_ID_MASK;
    if (owner != 0 && !lkd_segment_attachment(forcing->segment, owner))
        lkd_repair_queue_push_orphan(forcing->core, forcing->segment, owner);
}

void lkd_forced_request(struct lkd_core *core, struct lkd_session *session,
                        const struct lki_message *message, uint64_t now_ns)
{
    struct forcing forcing = {
        .core = core, .session = session, .message = message, .now_ns = now_ns};
    uint32_t count;

    if (!take_reason(&forcing) || !take_segment(&forcing) || !take_lock(&forcing) ||
        !check_holders(&forcing, &count))
        return;
    lkd_log(core, true,
            "forced release of lock %u asked for by pid %d (%s), uid %u: %s; %u hold it; segment "
            "'%s'",
            forcing.lock, session->pid, session->command, session->uid, forcing.reason, count,
            forcing.shown);
    if (count > 0) {
        end_holders(&forcing, count);
        return;
    }
    free_orphan(&forcing);
    lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
}
