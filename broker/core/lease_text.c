/* SPDX-License-Identifier: MIT */
/* What the log says about leases. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "broker/core/fact.h"
#include "broker/core/lease.h"
#include "broker/core/registry.h"
#include "common/clock.h"
#include "lockkeeper/lockkeeper.h"

#define WAITERS_BYTES 96u

const char *lkd_lease_policy(uint32_t on_expiry)
{
    switch (on_expiry) {
    case LK_EXPIRY_KILL:
        return "kill";
    case LK_EXPIRY_FENCE:
        return "fence";
    default:
        return "report";
    }
}

/* "2 wait, among them pid 5 (make)": who drains counts as one. */
static void describe_waiters(const struct lkd_lease *lease, char *out_text)
{
    const struct lkd_segment *segment = lease->holder->segment;
    const struct lkd_session *first = NULL;
    uint32_t count = 0;

    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        const struct lkd_attachment *attachment = segment->slots[slot].attachment;
        if (!attachment || attachment->state != LKD_ATTACHMENT_LIVE)
            continue;
        uint64_t fact = lkd_fact_wait(&segment->area, slot);
        if (!lki_wait_is(fact, LKI_WAIT_QUEUED, lease->lock) &&
            !lki_wait_is(fact, LKI_WAIT_DRAINING, lease->lock))
            continue;
        if (count++ == 0)
            first = attachment->session;
    }
    if (first)
        snprintf(out_text, WAITERS_BYTES, "%u wait: pid %d (%s)%s", count, first->pid,
                 first->command, count > 1 ? ", ..." : "");
    else
        snprintf(out_text, WAITERS_BYTES, "nobody waits");
}

void lkd_lease_log(struct lkd_core *core, const struct lkd_lease *lease, uint64_t now_ns,
                   const char *format, ...)
{
    const struct lkd_segment *segment = lease->holder->segment;
    const struct lkd_session *session = lease->holder->session;
    char what[128];
    char waiters[WAITERS_BYTES];
    char name[LKI_NAME_TEXT_BYTES_MAX + 1];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    describe_waiters(lease, waiters);
    lkd_name_show(&segment->name, segment->name_bytes, core->config.broker_uid, name);
    /* The name last: it may be long, and the line is cut. */
    lkd_log(core, true,
            "%s: pid %d (%s), uid %u, holds lock %u%s for %" PRIu64
            ".%03u s at least; %s; %s; segment '%s'",
            lease->forced ? "forced release" : "lease over", session->pid, session->command,
            session->uid, lease->lock, lease->shared ? " shared" : "",
            (now_ns - lease->since_ns) / LKI_NS_PER_S,
            (unsigned)((now_ns - lease->since_ns) % LKI_NS_PER_S / LKI_NS_PER_MS), what, waiters,
            name);
}
