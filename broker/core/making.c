/* SPDX-License-Identifier: MIT */
#include "broker/core/making.h"

#include <errno.h>
#include <inttypes.h>

#include "broker/core/fact.h"
#include "broker/core/monitor.h"
#include "broker/core/open.h"
#include "broker/core/parked.h"
#include "broker/core/registry.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "common/assert.h"
#include "engine/step.h"

/* Why the driver failed, and what to do about it. */
static const char *reason_of(int result)
{
    switch (-result) {
    case ENOSPC:
        return "no space left; make room, or ask for less";
    case ENOMEM:
        return "no memory left; ask for less";
    case EMFILE:
    case ENFILE:
        return "the broker has no descriptor left; raise its limit (ulimit -n)";
    case EDQUOT:
        return "the quota is used up";
    case EACCES:
    case EPERM:
        return "the broker has no right to";
    case EFBIG:
        return "it is larger than files may be";
    case EBADF:
        return "the descriptor is not a regular file open for reading and writing";
    case EIO:
        return "the file is shorter than it was, or cannot be read";
    default:
        return "the broker could not make its memory";
    }
}

static void refuse_leader(struct lkd_core *core, struct lkd_segment *segment, int result)
{
    struct lkd_parked *leader = segment->leader;
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];

    if (!leader)
        return;
    enum lki_status status = lki_status_from_result(result == -ENFILE ? -EMFILE : result);
    lkd_name_show(&segment->name, segment->name_bytes, leader->session->uid, shown);
    if (segment->state == LKD_SEGMENT_MAKING)
        lkd_refuse(core, leader->session, leader->message.id, status,
                   "cannot create '%s' with %" PRIu64 " bytes of data and %u locks: %s", shown,
                   segment->data_bytes, segment->locks, reason_of(result));
    else
        lkd_refuse(core, leader->session, leader->message.id, status,
                   "cannot grow '%s' to %" PRIu64 " bytes: %s", shown, segment->grow_bytes,
                   reason_of(result));
    lkd_parked_free(leader);
}

/* What came of MAKE_SEGMENT: a result for the leader. */
static int examine(const struct lkd_segment *segment, const struct lkd_segment_made *made)
{
    if (made->result < 0)
        return made->result;
    LKI_ASSERT(made->area_base);
    if (segment->file && made->data_bytes < segment->data_bytes)
        return -EIO; /* somebody truncated it since the driver looked */
    return 0;
}

void lkd_core_segment_made(struct lkd_core *core, uint32_t number,
                           const struct lkd_segment_made *made, uint64_t now_ns)
{
    struct lkd_segment *segment = lkd_registry_find_number(core, number);
    struct lki_list waiting;

    lkd_core_begin(core, now_ns);
    LKI_ASSERT(segment && segment->state == LKD_SEGMENT_MAKING);
    int result = examine(segment, made);
    if (result < 0)
        refuse_leader(core, segment, result);
    lkd_parked_take(segment, &waiting);
    struct lkd_parked *leader = segment->leader;
    if (!leader) { /* refused, or its session was lost: as if nobody had asked */
        lkd_segment_end(core, segment, made->result == 0);
    } else {
        lkd_segment_format(core, segment, made);
        lkd_monitor_segment(core, LKI_EVENT_SEGMENT_CREATED, segment, leader->session);
        lkd_open_created(core, segment, leader, now_ns);
        lkd_parked_free(leader);
        lkd_segment_settle(core, segment); /* it ends again if there was no memory to attach */
    }
    lkd_parked_resume(core, &waiting, now_ns);
    lkd_core_settle(core, now_ns);
}

void lkd_making_grow(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message)
{
    struct lkd_segment *segment = main->segment;
    struct lkd_session *session = main->session;
    uint64_t size_bytes = message->as.grow.size_bytes;

    if (main->read_only) {
        lkd_refuse(core, session, message->id, LKI_STATUS_DENIED,
                   "this session opened the segment read-only; open it for writing to grow it");
        return;
    }
    if (segment->growing) { /* one after the other */
        lkd_park(core, session, segment, message, NULL);
        return;
    }
    if (size_bytes > segment->data_bytes_max) {
        lkd_refuse(core, session, message->id, LKI_STATUS_TOO_LARGE,
                   "the segment can have %" PRIu64 " bytes at most, not %" PRIu64
                   "; its creator chose size_max_bytes",
                   segment->data_bytes_max, size_bytes);
        return;
    }
    if (size_bytes < segment->data_bytes && session->repeating)
        size_bytes = segment->data_bytes; /* it grew to that before, and further since */
    if (size_bytes < segment->data_bytes) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "the segment has %" PRIu64 " bytes and never shrinks; others may have it mapped",
                   segment->data_bytes);
        return;
    }
    if (size_bytes == segment->data_bytes) {
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, size_bytes);
        return;
    }
    segment->leader = lkd_park(core, session, segment, message, NULL);
    if (!segment->leader)
        return;
    segment->growing = true;
    segment->grow_bytes = size_bytes;
    lkd_effect_push(core, &segment->grow);
}

void lkd_core_segment_grown(struct lkd_core *core, uint32_t number, int result, uint64_t now_ns)
{
    struct lkd_segment *segment = lkd_registry_find_number(core, number);
    struct lki_list waiting;

    lkd_core_begin(core, now_ns);
    LKI_ASSERT(segment && segment->growing);
    if (result < 0) {
        refuse_leader(core, segment, result);
    } else {
        lkd_segment_set_data_bytes(segment, segment->grow_bytes);
        lkd_monitor_segment(core, LKI_EVENT_SEGMENT_GROWN, segment,
                            segment->leader ? segment->leader->session : NULL);
    }
    lkd_parked_take(segment, &waiting);
    struct lkd_parked *leader = segment->leader;
    if (leader) {
        lkd_reply_result(core, leader->session, leader->message.id, LKI_STATUS_OK,
                         segment->data_bytes);
        lkd_parked_free(leader);
    }
    segment->growing = false;
    lkd_segment_settle(core, segment); /* before the others: it may have been empty already */
    lkd_parked_resume(core, &waiting, now_ns);
    lkd_core_settle(core, now_ns);
}

void lkd_making_publish(struct lkd_core *core, struct lkd_attachment *main,
                        const struct lki_message *message)
{
    struct lkd_segment *segment = main->segment;

    if (!main->creator) {
        lkd_refuse(core, main->session, message->id, LKI_STATUS_NOT_HOLDER,
                   "only the session that created the segment can publish it");
        return;
    }
    switch (segment->state) {
    case LKD_SEGMENT_UNPUBLISHED:
        lkd_segment_publish(segment);
        lkd_monitor_segment(core, LKI_EVENT_SEGMENT_PUBLISHED, segment, main->session);
        break;
    case LKD_SEGMENT_PUBLISHED: /* twice is once */
        break;
    case LKD_SEGMENT_MAKING:
    case LKD_SEGMENT_ENDED:
        LKI_UNREACHABLE("a live attachment has a live segment");
        break;
    }
    lkd_reply_result(core, main->session, message->id, LKI_STATUS_OK, 0);
}

/* Before a name goes: which request takes it from which segment. */
static void note_removal(struct lkd_session *session, uint64_t request,
                         const struct lkd_segment *segment)
{
    LKI_STEP("remove_segment");
    session->record->remove_segment = segment->number;
    LKI_STEP("remove_request");
    /* release: vouches for the number */
    atomic_store_explicit(&session->record->remove_request, request, memory_order_release);
}

/* Whether this very request has removed the name before, under another worker. What has the name
 * now is another segment then, or none. */
static bool has_removed(const struct lkd_session *session, uint64_t request,
                        const struct lkd_segment *segment)
{
    /* acquire: the number behind it */
    return atomic_load_explicit(&session->record->remove_request, memory_order_acquire) ==
               request &&
           (!segment || segment->number != session->record->remove_segment);
}

void lkd_making_remove(struct lkd_core *core, struct lkd_session *session,
                       const struct lki_message *message)
{
    struct lkd_name name;
    uint32_t name_bytes;
    const char *reason = "";
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];

    if (lkd_registry_parse(session, message->as.remove.name, &name, &name_bytes, &reason) < 0) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a segment: %s", reason);
        return;
    }
    lkd_name_show(&name, name_bytes, session->uid, shown);
    struct lkd_segment *segment = lkd_registry_find_name(core, &name, name_bytes);
    if (session->repeating && has_removed(session, message->id, segment)) {
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
        return;
    }
    if (!segment) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NOT_FOUND,
                   "cannot remove '%s': there is no such segment; see: lockkeeper seg ls", shown);
        return;
    }
    if (!lkd_rights_may_remove(session, segment)) {
        lkd_refuse(core, session, message->id, LKI_STATUS_DENIED,
                   "cannot remove '%s': it belongs to uid %u, you are uid %u; ask its owner", shown,
                   segment->uid, session->uid);
        return;
    }
    if (segment->state == LKD_SEGMENT_MAKING) {
        lkd_park(core, session, segment, message, NULL);
        return;
    }
    note_removal(session, message->id, segment);
    lkd_monitor_segment(core, LKI_EVENT_SEGMENT_REMOVED, segment, session);
    lkd_registry_remove_name(core, segment);
    lkd_segment_settle(core, segment);
    lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
}
