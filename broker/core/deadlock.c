/* SPDX-License-Identifier: MIT */
#include "broker/core/deadlock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/brokered_wait.h"
#include "broker/core/doubt.h"
#include "broker/core/fact.h"
#include "broker/core/lock_name.h"
#include "broker/core/monitor.h"
#include "broker/core/registry.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "common/assert.h"
#include "common/clock.h"

/* Slots looked at in one search: within a millisecond, so that waits made on purpose cannot keep the
 * broker from its other work. A search that takes more finds nothing. */
#define WORK_MAX (UINT64_C(1) << 15)

#define LOGGED_PER_SECOND_MAX 16u /* cycles; who makes more of them shall not fill the disk */
#define SUBJECT_BYTES (64u + sizeof(((struct lkd_session *)0)->command))
#define LABEL_BYTES (LKI_NAME_TEXT_BYTES_MAX + LKI_NAME_BYTES_MAX + 16u)

/* --- Facts --- */

static struct lkd_session *session_of(const struct lkd_wait_node *node)
{
    return LKI_CONTAINER_OF(node, struct lkd_session, wait_node);
}

/* Whom the word names that keeps out whoever waits so: an owner for update keeps no reader out, who is on its
 * way in. */
static uint32_t excluding_owner(uint32_t word, uint64_t wait)
{
    bool joins = word & LKI_UPDATE && lki_wait_mode(wait) == LKI_MODE_SHARED;
    return joins ? 0 : word & LKI_ID_MASK;
}

/* Copies what concerns this waiter and this holder, the waiter's side first. */
static void read_facts(const struct lkd_attachment *waiter, const struct lkd_attachment *holder,
                       struct lkd_wait_facts *out)
{
    const struct lki_area *area = &waiter->segment->area;
    uint64_t wait = lkd_fact_look_wait(area, waiter->slot) & ~LKI_WAIT_IMPATIENT;
    uint32_t lock = lki_wait_lock(wait);

    *out = (struct lkd_wait_facts){.wait = wait, .waiter_id = waiter->id, .holder_id = holder->id};
    if (lock >= area->locks)
        return;
    out->owner = excluding_owner(lkd_fact_look_word(area, lock), wait);
    out->sequence = lkd_fact_look_sequence(area, lock);
    /* The cell before the wait: a reader empties the one before it publishes the other. */
    out->holder_reads = lkd_fact_look_reads(area, holder->slot, lock);
    out->holder_wait = lkd_fact_look_wait(area, holder->slot);
}

static void add_edge(struct lkd_wait_graph *graph, const struct lkd_attachment *waiter,
                     const struct lkd_attachment *holder)
{
    struct lkd_wait_edge edge = {
        .from = &waiter->session->wait_node,
        .to = &holder->session->wait_node,
        .waiter = waiter,
        .holder = holder,
    };
    read_facts(waiter, holder, &edge.facts);
    lkd_wait_graph_add(graph, &edge);
}

static void take_work(struct lkd_wait_graph *graph, uint64_t work)
{
    graph->work_left -= work < graph->work_left ? work : graph->work_left;
}

/* The edges of one wait. An id that names nobody alive is being repaired, which frees the word. */
static void add_edges(struct lkd_wait_graph *graph, const struct lkd_attachment *waiter)
{
    const struct lkd_segment *segment = waiter->segment;
    if (segment->quarantined)
        return;
    uint64_t wait = lkd_fact_look_wait(&segment->area, waiter->slot) & ~LKI_WAIT_IMPATIENT;
    uint32_t lock = lki_wait_lock(wait);

    if (wait == LKI_WAIT_NONE || wait == waiter->refused_wait || lock >= segment->area.locks)
        return;
    if ((wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_QUEUED) {
        uint32_t owner = excluding_owner(lkd_fact_look_word(&segment->area, lock), wait);
        const struct lkd_attachment *holder = lkd_segment_attachment(segment, owner);
        if (holder && holder->state == LKD_ATTACHMENT_LIVE)
            add_edge(graph, waiter, holder);
        return;
    }
    take_work(graph, segment->slot_capacity);
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        const struct lkd_attachment *holder = segment->slots[slot].attachment;
        if (holder && holder->state == LKD_ATTACHMENT_LIVE &&
            lkd_fact_look_reads(&segment->area, slot, lock))
            add_edge(graph, waiter, holder);
    }
}

static void edges_of(struct lkd_wait_graph *graph, struct lkd_wait_node *node,
                     const struct lkd_attachment *waiter, void *user)
{
    (void)user;
    if (waiter) {
        add_edges(graph, waiter);
        return;
    }
    const struct lki_list *all = &session_of(node)->attachments;
    for (const struct lki_list *link = all->next; link != all; link = link->next) {
        const struct lkd_attachment *attachment =
            LKI_LIST_ENTRY(link, struct lkd_attachment, of_session);
        take_work(graph, 1);
        if (attachment->state == LKD_ATTACHMENT_LIVE)
            add_edges(graph, attachment);
    }
}

static bool is_still(const struct lkd_wait_edge *edge, void *user)
{
    (void)user;
    struct lkd_wait_facts now;
    read_facts(edge->waiter, edge->holder, &now);
    return lkd_wait_facts_alike(&edge->facts, &now);
}

void lkd_deadlock_init(struct lkd_core *core)
{
    lkd_wait_graph_init(&core->wait_graph, edges_of, is_still, core);
}

/* --- Words --- */

struct words {
    char *text;
    size_t used;
    size_t room; /* with the zero */
};

static void say(struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct words *words, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written =
        vsnprintf(words->text + words->used, words->room - words->used, format, arguments);
    va_end(arguments);
    LKI_ASSERT(written >= 0);
    words->used += (size_t)written;
    if (words->used >= words->room)
        words->used = words->room - 1;
}

/* Whether `viewer` may be told of this edge's lock. NULL: the log, which is told everything. */
static bool may_see(const struct lkd_session *viewer, const struct lkd_wait_edge *edge)
{
    return !viewer || edge->from == &viewer->wait_node || edge->to == &viewer->wait_node ||
           lkd_rights_may_see(viewer, edge->waiter->segment);
}

static void label_of(const struct lkd_session *viewer, const struct lkd_wait_edge *edge,
                     char out_label[LABEL_BYTES])
{
    const struct lkd_segment *segment = edge->waiter->segment;
    uint32_t lock = lki_wait_lock(edge->facts.wait);
    struct lki_bytes name = lkd_lock_name_at(segment, lock);
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];

    lkd_name_show(&segment->name, segment->name_bytes, viewer ? viewer->uid : UINT32_MAX, shown);
    if (name.length_bytes > 0)
        snprintf(out_label, LABEL_BYTES, "%s#%.*s", shown, (int)name.length_bytes,
                 (const char *)name.data);
    else if (lock > 0)
        snprintf(out_label, LABEL_BYTES, "%s#%u", shown, lock);
    else
        snprintf(out_label, LABEL_BYTES, "%s", shown);
}

static void subject_of(const struct lkd_session *viewer, const struct lkd_session *session,
                       bool visible, char out_subject[SUBJECT_BYTES])
{
    if (session == viewer)
        snprintf(out_subject, SUBJECT_BYTES, "this session");
    else if (visible)
        snprintf(out_subject, SUBJECT_BYTES, "pid %d (%s)", session->pid, session->command);
    else
        snprintf(out_subject, SUBJECT_BYTES, "a session that you may not see");
}

/* "'b#3', held shared by pid 13 (make)" */
static void say_edge(struct words *words, const struct lkd_session *viewer,
                     const struct lkd_wait_edge *edge, bool holder_visible)
{
    char label[LABEL_BYTES], holder[SUBJECT_BYTES];
    bool drains = (edge->facts.wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING;

    subject_of(viewer, session_of(edge->to), holder_visible, holder);
    if (!may_see(viewer, edge)) {
        say(words, "a lock that you may not see, held by %s", holder);
        return;
    }
    label_of(viewer, edge, label);
    say(words, "'%s', held %sby %s", label, drains ? "shared " : "", holder);
}

/* "'a', held by pid 12 (make), which waits for 'b', held by ..." */
static void say_ring(struct words *words, const struct lkd_wait_graph *graph,
                     const struct lkd_session *viewer, size_t edges)
{
    const struct lkd_wait_edge *edge = lkd_wait_graph_edge(graph, NULL);
    size_t told = 0;

    for (; edge; edge = lkd_wait_graph_edge(graph, edge), told++) {
        const struct lkd_wait_edge *next = lkd_wait_graph_edge(graph, edge);
        size_t before = words->used;
        if (told > 0)
            say(words, ", which waits for ");
        say_edge(words, viewer, edge, may_see(viewer, edge) || (next && may_see(viewer, next)));
        if (words->used < words->room - 64)
            continue;
        words->used = before;
        say(words, ", and so on through %zu more", edges - told);
        break;
    }
}

static void write_report(const struct lkd_wait_graph *graph, const struct lkd_session *viewer,
                         size_t edges, char out_report[LKD_REPORT_BYTES_MAX])
{
    static const char hint[] = "; release what you hold, and try again";
    /* What does not fit before the last edge is left out in the middle. */
    struct words words = {.text = out_report, .room = LKD_REPORT_BYTES_MAX - sizeof(hint) + 1};
    char label[LABEL_BYTES];

    label_of(viewer, lkd_wait_graph_edge(graph, NULL), label);
    say(&words,
        "cannot lock '%s': the wait would never end, %zu session%s in a ring: this session "
        "waits for ",
        label, edges, edges == 1 ? "" : "s");
    say_ring(&words, graph, viewer, edges);
    memcpy(out_report + words.used, hint, sizeof(hint));
}

static void write_log(struct lkd_core *core, const struct lkd_wait_graph *graph, size_t edges,
                      uint64_t now_ns)
{
    if (now_ns - core->deadlock_second_ns >= LKI_NS_PER_S) {
        core->deadlock_second_ns = now_ns;
        core->deadlocks_logged = 0;
    }
    if (core->deadlocks_logged++ >= LOGGED_PER_SECOND_MAX)
        return;
    const struct lkd_wait_edge *edge = lkd_wait_graph_edge(graph, NULL);
    lkd_log(core, true, "deadlock of %zu sessions: pid %d (%s) is refused (EDEADLK)", edges,
            session_of(edge->from)->pid, session_of(edge->from)->command);
    for (; edge; edge = lkd_wait_graph_edge(graph, edge)) {
        char line[LKD_TEXT_BYTES_MAX];
        struct words words = {.text = line, .room = sizeof(line)};
        const struct lkd_session *from = session_of(edge->from);
        say(&words, "deadlock: pid %d (%s, uid %u) waits for ", from->pid, from->command,
            from->uid);
        say_edge(&words, NULL, edge, true);
        lkd_log(core, true, "%s", line);
    }
}

struct ring {
    const struct lkd_wait_graph *graph;
    size_t edges;
};

/* The report, as far as a bystander may know it. */
static void write_news(const void *user, const struct lkd_session *viewer, char *out_text,
                       size_t bytes)
{
    const struct ring *ring = user;
    struct words words = {.text = out_text, .room = bytes};

    say(&words, "%zu session%s in a ring: it waits for ", ring->edges, ring->edges == 1 ? "" : "s");
    say_ring(&words, ring->graph, viewer, ring->edges);
}

static void tell_monitors(struct lkd_core *core, const struct lkd_attachment *attachment,
                          size_t edges)
{
    const struct ring ring = {&core->wait_graph, edges};
    lkd_monitor_tell(core, &(struct lkd_news){.kind = LKI_EVENT_DEADLOCK,
                                              .session = attachment->session,
                                              .segment = attachment->segment,
                                              .has_lock = true,
                                              .lock = lki_wait_lock(attachment->refused_wait),
                                              .write_text = write_news,
                                              .user = &ring});
}

/* --- Asking --- */

bool lkd_deadlock_check(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns,
                        char out_report[LKD_REPORT_BYTES_MAX])
{
    struct lkd_wait_graph *graph = &core->wait_graph;
    struct lkd_session *session = attachment->session;

    attachment->refused_wait = LKI_WAIT_NONE; /* the answer may have been too late for its asker */
    size_t edges = lkd_wait_graph_search(graph, &session->wait_node, attachment, WORK_MAX);
    if (edges == 0) {
        lkd_doubt_drop(attachment);
        return false;
    }
    if (!lkd_doubt_is_settled(core, attachment))
        return false;
    /* Two that close a ring together do not both lose: this wait is as good as given up. */
    attachment->refused_wait = lkd_wait_graph_edge(graph, NULL)->facts.wait;
    write_report(graph, session, edges, out_report);
    write_log(core, graph, edges, now_ns);
    tell_monitors(core, attachment, edges);
    return true;
}

void lkd_deadlock_refuse(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                         const char *report)
{
    size_t length = strlen(report);
    struct lkd_sending *sending = lkd_reply(core, session, LKI_REPLY_RESULT, request, length);
    if (!sending)
        return;
    memcpy(sending->extra, report, length);
    sending->message.as.result.status = LKI_STATUS_DEADLOCK;
    sending->message.as.result.detail =
        (struct lki_bytes){.data = sending->extra, .length_bytes = length};
}

void lkd_deadlock_request(struct lkd_core *core, struct lkd_attachment *main,
                          const struct lki_message *message, uint64_t now_ns)
{
    uint32_t lock = message->as.lock_ref.lock;
    uint64_t wait = lkd_fact_look_wait(&main->segment->area, main->slot);
    char report[LKD_REPORT_BYTES_MAX];

    if (wait == LKI_WAIT_NONE || lki_wait_lock(wait) != lock) {
        /* It has taken the lock, while it waits for others asynchronously. */
        lkd_wait_recheck_session(core, main->session);
    } else if (lkd_deadlock_check(core, main, now_ns, report)) { /* in doubt: it asks again */
        lkd_deadlock_refuse(core, main->session, message->id, report);
        return;
    }
    lkd_reply_result(core, main->session, message->id, LKI_STATUS_OK, 0);
}
