/* SPDX-License-Identifier: MIT */
#include "broker/core/monitor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/deadlock.h"
#include "broker/core/fact.h"
#include "broker/core/lock_name.h"
#include "broker/core/registry.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"

struct lkd_monitor {
    struct lkd_session *session;
    struct lki_list of_core;
    bool filtered; /* only what is about the segment of this name */
    struct lkd_name name;
    uint32_t name_bytes;
    uint32_t queued; /* events that have not left the core */
    uint64_t lost;   /* since the last one that was queued */
};

/* --- Who may see what --- */

static uint32_t uid_of(const struct lkd_news *news)
{
    return news->session ? news->session->uid : news->uid;
}

static bool is_about(const struct lkd_monitor *monitor, const struct lkd_news *news)
{
    const struct lkd_segment *segment = news->segment;
    if (!monitor->filtered)
        return true;
    return segment && segment->name_bytes == monitor->name_bytes &&
           segment->name.kind == monitor->name.kind && segment->name.id == monitor->name.id &&
           memcmp(segment->name.bytes, monitor->name.bytes, monitor->name_bytes) == 0;
}

static bool may_see(const struct lkd_core *core, const struct lkd_session *viewer,
                    const struct lkd_news *news)
{
    if (viewer->uid == 0 || viewer->uid == core->config.broker_uid || viewer->uid == uid_of(news))
        return true;
    return news->segment && lkd_rights_may_see(viewer, news->segment);
}

/* --- Making an event --- */

static struct lki_bytes put(uint8_t **room, const void *data, size_t length_bytes)
{
    struct lki_bytes put = {.data = *room, .length_bytes = length_bytes};
    if (length_bytes > 0)
        memcpy(*room, data, length_bytes);
    *room += length_bytes;
    return put;
}

static void fill_facts(const struct lkd_core *core, const struct lkd_news *news,
                       struct lki_event *event)
{
    event->kind = news->kind;
    event->when_ns = core->now_ns;
    event->uid = uid_of(news);
    event->pid = news->session ? news->session->pid : 0;
    event->session = news->session ? news->session->number : 0;
    event->segment = news->segment ? news->segment->number : 0;
    event->lock = news->lock;
    event->token = news->token;
    event->cause = news->cause;
    event->size_bytes = news->size_bytes;
}

/* False: no memory. */
static bool send_event(struct lkd_core *core, const struct lkd_monitor *monitor,
                       const struct lkd_news *news)
{
    char text[LKD_REPORT_BYTES_MAX] = "";
    char name[LKI_NAME_TEXT_BYTES_MAX + 1] = "";
    const char *command = news->session ? news->session->command : "";
    struct lki_bytes lock_name = {0};

    if (news->write_text)
        news->write_text(news->user, monitor->session, text, sizeof(text));
    else if (news->text)
        snprintf(text, sizeof(text), "%s", news->text);
    if (news->segment)
        lkd_name_show(&news->segment->name, news->segment->name_bytes, monitor->session->uid, name);
    if (news->segment && news->has_lock)
        lock_name = lkd_lock_name_at(news->segment, news->lock);

    size_t bytes = strlen(text) + strlen(name) + strlen(command) + lock_name.length_bytes;
    struct lkd_sending *sending = lkd_notice(core, monitor->session, LKI_REPLY_EVENT, bytes);
    if (!sending)
        return false;
    struct lki_event *event = &sending->message.as.event;
    uint8_t *room = sending->extra;
    fill_facts(core, news, event);
    event->command = put(&room, command, strlen(command));
    event->name = put(&room, name, strlen(name));
    event->lock_name = put(&room, lock_name.data, lock_name.length_bytes);
    event->text = put(&room, text, strlen(text));
    event->lost = monitor->lost;
    return true;
}

void lkd_monitor_tell(struct lkd_core *core, const struct lkd_news *news)
{
    LKI_LIST_FOREACH_SAFE (node, &core->monitors) {
        struct lkd_monitor *monitor = LKI_LIST_ENTRY(node, struct lkd_monitor, of_core);
        if (!is_about(monitor, news) || !may_see(core, monitor->session, news))
            continue;
        if (monitor->queued >= LKI_MONITOR_EVENTS_MAX || !send_event(core, monitor, news)) {
            monitor->lost++;
            continue;
        }
        monitor->queued++;
        monitor->lost = 0;
    }
}

/* --- The usual ones --- */

void lkd_monitor_session(struct lkd_core *core, enum lki_event_kind kind,
                         const struct lkd_session *session, const char *text)
{
    lkd_monitor_tell(core, &(struct lkd_news){.kind = kind, .session = session, .text = text});
}

void lkd_monitor_segment(struct lkd_core *core, enum lki_event_kind kind,
                         const struct lkd_segment *segment, const struct lkd_session *session)
{
    lkd_monitor_tell(core, &(struct lkd_news){.kind = kind,
                                              .session = session,
                                              .uid = segment->uid,
                                              .segment = segment,
                                              .size_bytes = segment->data_bytes});
}

void lkd_monitor_attachment(struct lkd_core *core, enum lki_event_kind kind,
                            const struct lkd_attachment *attachment)
{
    lkd_monitor_tell(core, &(struct lkd_news){.kind = kind,
                                              .session = attachment->session,
                                              .segment = attachment->segment,
                                              .cause = attachment->cause});
}

/* The reader that a drainer waits for; one of them. */
static const struct lkd_attachment *find_reader(const struct lkd_segment *segment, uint32_t lock)
{
    struct lki_lock_state state;
    lki_lock_look(&segment->area, lock, &state);
    return state.readers > 0 ? lkd_segment_attachment(segment, state.first_reader) : NULL;
}

void lkd_monitor_waited(struct lkd_core *core, const struct lkd_attachment *asker,
                        struct lkd_attachment *holder, uint32_t lock)
{
    if (!lkd_monitor_is_watched(core))
        return;
    const struct lkd_segment *segment = holder->segment;
    uint64_t sequence = lkd_fact_look_sequence(&segment->area, lock);
    if (holder->waited_for && holder->waited_lock == lock && holder->waited_sequence == sequence)
        return;
    const struct lkd_attachment *other = holder == asker ? find_reader(segment, lock) : holder;
    if (!other)
        return; /* it has left meanwhile */
    holder->waited_for = true;
    holder->waited_lock = lock;
    holder->waited_sequence = sequence;
    char text[96];
    snprintf(text, sizeof(text), "%spid %d (%s) waits for it", other == holder ? "" : "read; ",
             asker->session->pid, asker->session->command);
    lkd_monitor_tell(core, &(struct lkd_news){.kind = LKI_EVENT_LOCK_WAITED_FOR,
                                              .session = other->session,
                                              .segment = segment,
                                              .has_lock = true,
                                              .lock = lock,
                                              .token = sequence,
                                              .text = text});
}

void lkd_monitor_repaired(struct lkd_core *core, const struct lkd_attachment *attachment,
                          uint32_t first)
{
    if (!lkd_monitor_is_watched(core) || attachment->repair.damaged == 0)
        return;
    const struct lkd_segment *segment = attachment->segment;
    for (uint32_t lock = first; lock < attachment->repair.next_lock; lock++) {
        uint64_t token;
        if (!lkd_fact_recovered(&segment->area, lock, attachment->session->pid,
                                attachment->ended_ns, &token))
            continue;
        lkd_monitor_tell(core, &(struct lkd_news){.kind = LKI_EVENT_LOCK_DAMAGED,
                                                  .session = attachment->session,
                                                  .segment = segment,
                                                  .has_lock = true,
                                                  .lock = lock,
                                                  .token = token,
                                                  .cause = attachment->cause});
    }
}

/* --- Watching --- */

/* A few watch for many: one user does not keep the others from it. */
static const char *refusal_of(const struct lkd_core *core, const struct lkd_session *session)
{
    uint32_t all = 0, own = 0;
    for (const struct lki_list *node = core->monitors.next; node != &core->monitors;
         node = node->next) {
        all++;
        own += LKI_LIST_ENTRY(node, struct lkd_monitor, of_core)->session->uid == session->uid;
    }
    bool free_of_shares = session->uid == 0 || session->uid == core->config.broker_uid;
    if (all >= LKI_MONITORS_MAX)
        return "as many sessions as may do so get events already; end one of them";
    if (own >= LKI_MONITORS_OF_UID_MAX && !free_of_shares)
        return "as many sessions of this user as may do so get events already; end one of them";
    return NULL;
}

static struct lkd_monitor *monitor_new(struct lkd_core *core, struct lkd_session *session)
{
    struct lkd_monitor *monitor = calloc(1, sizeof(*monitor));
    if (!monitor)
        return NULL;
    monitor->session = session;
    lki_list_append(&core->monitors, &monitor->of_core);
    session->monitor = monitor;
    return monitor;
}

void lkd_monitor_request(struct lkd_core *core, struct lkd_session *session,
                         const struct lki_message *message)
{
    const struct lki_bytes *filter = &message->as.monitor.name;
    struct lkd_name name;
    uint32_t name_bytes = 0;
    const char *reason = "";

    if (filter->length_bytes > 0 &&
        lkd_registry_parse(session, *filter, &name, &name_bytes, &reason) < 0) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a segment: %s", reason);
        return;
    }
    if (session->monitor) {
        lkd_refuse(core, session, message->id, LKI_STATUS_PENDING,
                   "this session gets events already; use another session");
        return;
    }
    const char *refusal = refusal_of(core, session);
    if (refusal) {
        lkd_refuse(core, session, message->id, LKI_STATUS_QUOTA, "%s", refusal);
        return;
    }
    struct lkd_monitor *monitor = monitor_new(core, session);
    if (!monitor) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NO_MEMORY,
                   "the broker has no memory for it");
        return;
    }
    if (filter->length_bytes > 0) {
        monitor->filtered = true;
        monitor->name = name;
        monitor->name_bytes = name_bytes;
    }
    lkd_reply_result(core, session, message->id, LKI_STATUS_OK, 0);
}

void lkd_monitor_stop(struct lkd_session *session)
{
    if (!session->monitor)
        return;
    lki_list_remove(&session->monitor->of_core);
    free(session->monitor);
    session->monitor = NULL;
}

void lkd_monitor_handed_out(struct lkd_core *core, uint64_t number)
{
    const struct lkd_session *session = lkd_session_find(core, number);
    if (!session || !session->monitor)
        return;
    LKI_ASSERT(session->monitor->queued > 0);
    session->monitor->queued--;
}

void lkd_core_events_lost(struct lkd_core *core, uint64_t number, uint64_t count)
{
    lkd_effects_release(&core->effects);
    const struct lkd_session *session = lkd_session_find(core, number);
    if (session && session->monitor)
        session->monitor->lost += count;
}

void lkd_monitor_check(const struct lkd_core *core)
{
    uint32_t count = 0;
    for (const struct lki_list *node = core->monitors.next; node != &core->monitors;
         node = node->next, count++) {
        const struct lkd_monitor *monitor = LKI_LIST_ENTRY(node, struct lkd_monitor, of_core);
        LKI_ASSERT(monitor->session->monitor == monitor);
        LKI_ASSERT(lkd_session_is_connected(monitor->session));
        LKI_ASSERT(monitor->queued <= LKI_MONITOR_EVENTS_MAX);
    }
    LKI_ASSERT(count <= LKI_MONITORS_MAX);
}
