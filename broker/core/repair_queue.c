/* SPDX-License-Identifier: MIT */
#include "broker/core/repair_queue.h"

#include <string.h>

#include "broker/core/attachment.h"
#include "broker/core/monitor.h"
#include "broker/core/registry.h"
#include "broker/core/segment.h"
#include "common/assert.h"

/* The end of a repair looks at every slot: what that costs, in locks. */
#define SLOTS_PER_LOCK 4u

static void enqueue(struct lkd_core *core, struct lkd_segment *segment)
{
    if (lki_list_is_empty(&segment->of_repairs))
        lki_list_append(&core->repairs, &segment->of_repairs);
}

void lkd_repair_queue_push(struct lkd_core *core, struct lkd_attachment *attachment)
{
    lki_list_append(&attachment->segment->repairs, &attachment->of_repairs);
    enqueue(core, attachment->segment);
}

void lkd_repair_queue_push_orphan(struct lkd_core *core, struct lkd_segment *segment, uint32_t id)
{
    if (segment->orphaned)
        return;
    segment->orphaned = true;
    lki_repair_begin(&segment->orphan, &segment->area, id);
    enqueue(core, segment);
}

bool lkd_repair_queue_is_empty(const struct lkd_core *core)
{
    return lki_list_is_empty(&core->repairs);
}

static struct lki_death death_of(const struct lkd_attachment *attachment)
{
    const struct lkd_session *session = attachment->session;
    struct lki_death death = {
        .pid = session->pid,
        .uid = session->uid,
        .cause = attachment->cause,
        .when_ns = attachment->ended_ns,
    };
    memcpy(death.command, session->command, sizeof(death.command));
    return death;
}

static void tell(struct lkd_core *core, const struct lkd_attachment *attachment)
{
    const struct lkd_segment *segment = attachment->segment;
    /* That a reader or a command of 'run' ends with its hold is everyday life: no line each. */
    if (attachment->repair.damaged == 0)
        return;
    char name[LKI_NAME_TEXT_BYTES_MAX + 1];
    lkd_name_show(&segment->name, segment->name_bytes, core->config.broker_uid, name);
    lkd_log(core, true,
            "pid %d (%s) %s while it held %u of the locks of '%s' to change data: the next holder "
            "of each is told",
            attachment->session->pid, attachment->session->command,
            attachment->cause == LKI_CAUSE_EXITED   ? "ended"
            : attachment->cause == LKI_CAUSE_FORCED ? "was ended"
                                                    : "closed its session or segment",
            attachment->repair.damaged, name);
}

/* One slice of the segment's first repair. Returns the work done, in locks. */
static uint32_t step_orphan(struct lkd_core *core, struct lkd_segment *segment, uint64_t now_ns,
                            uint32_t locks_max)
{
    uint32_t before = segment->orphan.next_lock;
    lkd_work_on_segment(core, segment->number);
    struct lki_death death = {.cause = LKI_CAUSE_EXITED, .when_ns = now_ns};
    bool done = lki_repair_step(&segment->orphan, &death, locks_max, lkd_attachment_wake, segment);
    uint32_t work = segment->orphan.next_lock - before;
    if (done) {
        segment->orphaned = false;
        char name[LKI_NAME_TEXT_BYTES_MAX + 1];
        lkd_name_show(&segment->name, segment->name_bytes, core->config.broker_uid, name);
        lkd_log(core, true,
                "%u locks had an owner %#x that nobody is: somebody wrote over them; freed; "
                "segment '%s'",
                segment->orphan.freed, segment->orphan.id, name);
    }
    return work;
}

static uint32_t step_attachment(struct lkd_core *core, struct lkd_attachment *attachment,
                                uint32_t locks_max, struct lkd_attachment **out_repaired)
{
    struct lkd_segment *segment = attachment->segment;
    uint32_t before = attachment->repair.next_lock;
    struct lki_death death = death_of(attachment);
    lkd_work_on_segment(core, segment->number);
    bool done = segment->quarantined || lki_repair_step(&attachment->repair, &death, locks_max,
                                                        lkd_attachment_wake, segment);
    uint32_t work = attachment->repair.next_lock - before;
    lkd_monitor_repaired(core, attachment, before);
    if (done) {
        work += segment->slot_capacity / SLOTS_PER_LOCK;
        lki_list_remove(&attachment->of_repairs);
        tell(core, attachment);
        *out_repaired = attachment;
    }
    return work;
}

/* One slice of one segment, which then goes to the end of the line. Returns the work done. */
static uint32_t step_segment(struct lkd_core *core, struct lkd_segment *segment, uint64_t now_ns,
                             uint32_t locks_max)
{
    struct lkd_attachment *repaired = NULL;
    uint32_t work;

    if (segment->orphaned)
        work = step_orphan(core, segment, now_ns, locks_max);
    else
        work = step_attachment(
            core, LKI_LIST_ENTRY(segment->repairs.next, struct lkd_attachment, of_repairs),
            locks_max, &repaired);
    lki_list_remove(&segment->of_repairs);
    if (segment->orphaned || !lki_list_is_empty(&segment->repairs))
        enqueue(core, segment);
    if (repaired)
        lkd_attachment_repaired(core, repaired); /* may free it, and end the segment */
    else
        lkd_segment_settle(core, segment);
    return work;
}

void lkd_repair_queue_step(struct lkd_core *core, uint64_t now_ns, uint32_t locks_max)
{
    uint32_t left = locks_max > 0 ? locks_max : 1;

    while (left > 0 && !lki_list_is_empty(&core->repairs)) {
        struct lkd_segment *segment =
            LKI_LIST_ENTRY(core->repairs.next, struct lkd_segment, of_repairs);
        uint32_t work = step_segment(core, segment, now_ns, left);
        left -= work < left ? work : left;
    }
}
