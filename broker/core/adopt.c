/* SPDX-License-Identifier: MIT */
/* Taking over from a worker that died: the objects of the core are made again from the records of
 * the ledger and the facts in the control areas. Whatever fails here ends the worker, and the next
 * one tries. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/attachment.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/charge.h"
#include "broker/core/fact.h"
#include "broker/core/lock_name.h"
#include "broker/core/registry.h"
#include "broker/core/repair_queue.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "engine/resume.h"

#define ADOPTED_REPAIR_LOCKS 4096u /* a slice, as in the loop */

/* --- What the worker is at --- */

void lkd_work_on_session(struct lkd_core *core, uint64_t session)
{
    /* relaxed: read after this worker's death alone */
    atomic_store_explicit(&core->ledger.header->work_session, session, memory_order_relaxed);
}

void lkd_work_on_segment(struct lkd_core *core, uint32_t segment)
{
    atomic_store_explicit(&core->ledger.header->work_segment, segment, memory_order_relaxed);
}

void lkd_work_done(struct lkd_core *core)
{
    lkd_work_on_session(core, 0);
    lkd_work_on_segment(core, 0);
}

/* --- What is left --- */

bool lkd_core_is_successor(const struct lkd_core *core)
{
    return core->successor;
}

static bool is_used(const _Atomic uint32_t *state)
{
    return lkd_record_state(state) != LKD_RECORD_FREE;
}

static uint32_t count(const _Atomic uint32_t *used)
{
    /* relaxed: written by a worker that has ended */
    return atomic_load_explicit(used, memory_order_relaxed);
}

bool lkd_core_next_left_segment(const struct lkd_core *core, uint32_t *cursor,
                                struct lkd_left_segment *out)
{
    const struct lkd_ledger *ledger = &core->ledger;
    while (*cursor < count(&ledger->header->segments_used)) {
        struct lkd_segment_record *record = &ledger->segments[(*cursor)++];
        if (!is_used(&record->state))
            continue;
        *out = (struct lkd_left_segment){
            .record = record,
            .number = record->number,
            .area_fd = record->area_fd,
            .data_fd = record->data_fd,
            .read_only_fd = record->read_only_fd,
            .area_bytes = record->area_bytes,
            .locks = record->locks,
            .attachments_max = record->attachments_max,
            .file = count(&record->facts) & LKD_SEGMENT_IS_FILE,
        };
        return true;
    }
    return false;
}

/* The worker died while it opened the session: nothing came of it. Its socket, if there is one, is
 * in the driver's table, and is accepted once more. */
static bool is_half_open(const struct lkd_session_record *record, bool cut)
{
    return record->pidfd == LKD_NO_FD || (!cut && record->socket_fd == LKD_NO_FD);
}

bool lkd_core_next_left_session(struct lkd_core *core, uint32_t *cursor,
                                struct lkd_left_session *out)
{
    struct lkd_ledger *ledger = &core->ledger;
    while (*cursor < count(&ledger->header->sessions_used)) {
        struct lkd_session_record *record = &ledger->sessions[(*cursor)++];
        bool cut = count(&record->flags) & LKD_SESSION_CUT;
        if (!is_used(&record->state))
            continue;
        if (is_half_open(record, cut)) {
            lkd_ledger_give_session(ledger, record);
            continue;
        }
        *out = (struct lkd_left_session){
            .record = record,
            .socket_fd = cut ? LKD_NO_FD : record->socket_fd,
            .pidfd = record->pidfd,
            .pid = record->pid,
            .uid = record->uid,
            .gid = record->gid,
        };
        return true;
    }
    return false;
}

/* --- Who is to blame --- */

void lkd_core_blame(struct lkd_core *core, bool faulty)
{
    struct lkd_ledger_header *header = core->ledger.header;
    /* relaxed: written by workers that have ended, and by this one */
    uint64_t session = atomic_load_explicit(&header->work_session, memory_order_relaxed);
    uint32_t segment = atomic_load_explicit(&header->work_segment, memory_order_relaxed);
    lkd_work_done(core);
    if (!faulty)
        return; /* whoever killed it chose the moment, not what it was at */
    uint64_t suspect_session = atomic_load_explicit(&header->suspect_session, memory_order_relaxed);
    uint32_t suspect_segment = atomic_load_explicit(&header->suspect_segment, memory_order_relaxed);
    core->convicted_session = session == suspect_session ? session : 0;
    /* Its session is the likelier cause: the segment's turn comes when that did not help. */
    core->convicted_segment =
        core->convicted_session == 0 && segment == suspect_segment ? segment : 0;
    atomic_store_explicit(&header->suspect_session, session, memory_order_relaxed);
    atomic_store_explicit(&header->suspect_segment, segment, memory_order_relaxed);
}

static void punish(struct lkd_core *core)
{
    struct lkd_session *session = lkd_session_find(core, core->convicted_session);
    if (session && lkd_session_is_connected(session)) {
        lkd_log(core, true, "two workers in a row failed over a request of pid %d (%s)",
                session->pid, session->command);
        lkd_session_break(core, session, "the broker failed twice over its requests");
    }
    struct lkd_segment *segment = lkd_registry_find_number(core, core->convicted_segment);
    if (segment && !segment->quarantined) {
        char shown[LKI_NAME_TEXT_BYTES_MAX + 1];
        lkd_name_show(&segment->name, segment->name_bytes, segment->uid, shown);
        lkd_log(core, true,
                "two workers in a row failed over the segment '%s' of uid %u: it is in quarantine",
                shown, segment->uid);
        lkd_segment_quarantine(segment);
    }
}

/* --- Records ---
 *
 * Nobody but workers writes them, so that these hold unless memory failed. Then nothing may be built
 * on it: what indexes the areas comes from here. */

static bool is_sound_segment(const struct lkd_core *core, const struct lkd_segment_record *record)
{
    return record->number != 0 && !lkd_registry_find_number(core, record->number) &&
           record->locks >= 1 && record->locks <= LKI_LOCKS_MAX && record->attachments_max >= 1 &&
           record->attachments_max <= LKI_ATTACHMENTS_MAX &&
           record->area_bytes == lki_area_bytes(record->locks, record->attachments_max) &&
           record->name_bytes <= LKI_NAME_BYTES_MAX;
}

static bool is_sound_session(const struct lkd_core *core, const struct lkd_session_record *record)
{
    return record->number != 0 && !lkd_session_find(core, record->number) &&
           memchr(record->command, 0, sizeof(record->command)) != NULL;
}

static bool is_sound_attachment(const struct lkd_segment *segment,
                                const struct lkd_attachment_record *record)
{
    uint32_t slot = record->id & LKI_SLOT_MASK, generation = record->id >> LKI_GENERATION_SHIFT;
    bool acquires = lkd_record_state(&record->stage) != LKD_ACQUIRE_NONE;
    if (slot < 1 || slot > segment->attachments_max || slot != record->slot)
        return false;
    if (generation < 1 || generation > LKI_GENERATION_MAX)
        return false;
    if (lkd_record_state(&record->upgrading) && record->change_lock >= segment->locks)
        return false;
    return !acquires || (record->lock < segment->locks && record->mode >= LKI_MODE_SHARED &&
                         record->mode <= LKI_MODE_UPDATE);
}

/* --- Segments and sessions --- */

int lkd_core_adopt_segment(struct lkd_core *core, const struct lkd_left_segment *left,
                           void *area_base)
{
    struct lkd_segment *segment;
    if (!is_sound_segment(core, left->record))
        return -EPROTO;
    int r = lkd_segment_adopt(core, left->record, area_base, &segment);
    if (r == 0 && !segment->quarantined && !lkd_lock_names_adopt(core, segment))
        r = -ENOMEM;
    return r;
}

int lkd_core_adopt_session(struct lkd_core *core, const struct lkd_left_session *left,
                           const struct lkd_peer *peer, uint64_t *out_session)
{
    if (!is_sound_session(core, left->record))
        return -EPROTO;
    const struct lkd_session *session = lkd_session_adopt(core, left->record, peer);
    if (!session)
        return -ENOMEM;
    *out_session = session->number;
    return 0;
}

/* --- The rest --- */

enum which {
    MAINS,
    EXTRAS,
};

/* Mains come first: extras hang on them. */
static int adopt_attachments(struct lkd_core *core, enum which which)
{
    struct lkd_ledger *ledger = &core->ledger;
    for (uint32_t i = 0; i < count(&ledger->header->attachments_used); i++) {
        struct lkd_attachment_record *record = &ledger->attachments[i];
        bool extra = record->flags & LKD_ATTACHMENT_EXTRA;
        if (!is_used(&record->state) || extra != (which == EXTRAS))
            continue;
        struct lkd_session *session = lkd_session_find(core, record->session);
        struct lkd_segment *segment = lkd_registry_find_number(core, record->segment);
        if (!session || !segment || !is_sound_attachment(segment, record))
            return -EPROTO;
        if (!lkd_attachment_adopt(core, session, segment, record))
            return -ENOMEM;
    }
    return 0;
}

static int charge_segments(struct lkd_core *core)
{
    for (struct lkd_segment *segment = core->by_number; segment;
         segment = segment->by_number.next) {
        struct lkd_account *account = lkd_quota_account(&core->quota, segment->record->charged_uid);
        if (!account)
            return -ENOMEM;
        lkd_charge_adopted_segment(core, account, segment->record->charged_session, segment);
    }
    return 0;
}

/* Waits and holds go on; an extra that is of no use any more is freed on the way. */
static void adopt_waits(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (node, &session->attachments)
        lkd_wait_adopt(core, LKI_LIST_ENTRY(node, struct lkd_attachment, of_session), now_ns);
    if (!lkd_session_is_connected(session)) /* the worker died between the loss and this */
        lkd_wait_drop_session(core, session, now_ns);
}

int lkd_core_adopt(struct lkd_core *core, uint64_t now_ns)
{
    struct lkd_segment *segment, *next_segment;
    struct lkd_session *session, *next_session;

    int r = charge_segments(core);
    if (r == 0)
        r = adopt_attachments(core, MAINS);
    if (r == 0)
        r = adopt_attachments(core, EXTRAS);
    if (r < 0)
        return r;
    punish(core);
    HASH_ITER(by_number, core->sessions, session, next_session)
    {
        adopt_waits(core, session, now_ns);
    }
    HASH_ITER(by_number, core->by_number, segment, next_segment)
    {
        lkd_work_on_segment(core, segment->number);
        if (!segment->quarantined) {
            lkd_segment_drop_unknown(segment);
            /* The dead worker may have owed a wake to any of them. */
            lki_wake_waiters(&segment->area, lkd_attachment_wake, segment);
        }
        lkd_segment_settle(core, segment);
    }
    lkd_work_done(core); /* nobody is to blame for what fails from here on */
    HASH_ITER(by_number, core->sessions, session, next_session)
    {
        if (!lkd_session_adopted(core, session))
            return -ENOMEM;
    }
    /* What ended just before the worker did has its slot back before anybody asks for one again. */
    lkd_repair_queue_step(core, now_ns, ADOPTED_REPAIR_LOCKS);
    lkd_core_settle(core, now_ns);
    return 0;
}
