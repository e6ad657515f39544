/* SPDX-License-Identifier: MIT */
#include "broker/core/effect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/monitor.h"
#include "broker/core/segment.h"
#include "broker/core/session.h"
#include "common/assert.h"

void lkd_effect_node_init(struct lkd_effect_node *node, enum lkd_effect_kind kind)
{
    lki_list_init(&node->link);
    node->kind = kind;
}

void lkd_effects_init(struct lkd_effects *effects)
{
    lki_list_init(&effects->wakes);
    lki_list_init(&effects->queue);
    lki_list_init(&effects->partings);
    effects->current = NULL;
}

void lkd_effects_release(struct lkd_effects *effects)
{
    free(effects->current);
    effects->current = NULL;
}

static struct lki_list *list_of(struct lkd_effects *effects, enum lkd_effect_kind kind)
{
    switch (kind) {
    case LKD_EFFECT_WAKE:
        return &effects->wakes;
    case LKD_EFFECT_DISCONNECT:
    case LKD_EFFECT_FORGET_SESSION:
        return &effects->partings;
    default:
        return &effects->queue;
    }
}

void lkd_effect_push(struct lkd_core *core, struct lkd_effect_node *node)
{
    if (lki_list_is_empty(&node->link))
        lki_list_append(list_of(&core->effects, node->kind), &node->link);
}

void lkd_effect_cancel(struct lkd_effect_node *node)
{
    lki_list_remove(&node->link);
}

static struct lkd_sending *sending_new(struct lkd_core *core, enum lkd_effect_kind kind,
                                       size_t extra_bytes)
{
    struct lkd_sending *sending = calloc(1, sizeof(*sending) + extra_bytes);
    if (!sending)
        return NULL;
    lkd_effect_node_init(&sending->node, kind);
    lkd_effect_push(core, &sending->node);
    return sending;
}

struct lkd_sending *lkd_notice(struct lkd_core *core, struct lkd_session *session,
                               enum lki_message_type type, size_t extra_bytes)
{
    LKI_ASSERT(lkd_session_is_connected(session));
    struct lkd_sending *sending = sending_new(core, LKD_EFFECT_SEND, extra_bytes);
    if (!sending)
        return NULL;
    sending->session = session->number;
    sending->message.type = type;
    return sending;
}

/* Whether its client sends a request again which an earlier worker has begun: whoever answers before
 * that is heard answers twice, and the second time perhaps otherwise. */
static bool will_come_again(const struct lkd_session *session, uint64_t request)
{
    bool heard = session->requested && request <= session->last_request;
    return session->adopted && request <= session->doubtful_until && !heard;
}

struct lkd_sending *lkd_reply(struct lkd_core *core, struct lkd_session *session,
                              enum lki_message_type type, uint64_t request, size_t extra_bytes)
{
    if (!lkd_session_is_connected(session))
        return NULL;
    if (session->resuming || will_come_again(session, request))
        return NULL; /* whatever it asked it asks again */
    if (session->unanswered != 0 && request == session->unanswered)
        return NULL; /* it waits for none */
    struct lkd_sending *sending = lkd_notice(core, session, type, extra_bytes);
    if (!sending) {
        lkd_session_break(core, session, "the broker has no memory for a reply");
        return NULL;
    }
    sending->message.id = request;
    return sending;
}

void lkd_reply_result(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                      enum lki_status status, uint64_t value)
{
    struct lkd_sending *sending = lkd_reply(core, session, LKI_REPLY_RESULT, request, 0);
    if (!sending)
        return;
    sending->message.as.result.status = status;
    sending->message.as.result.value = value;
}

/* Formats into the extra bytes and returns the length. A text that does not fit is cut. */
__attribute__((format(printf, 3, 0))) static size_t
write_text(struct lkd_sending *sending, size_t bytes_max, const char *format, va_list arguments)
{
    int length = vsnprintf((char *)sending->extra, bytes_max, format, arguments);
    LKI_ASSERT(length >= 0);
    return (size_t)length < bytes_max ? (size_t)length : bytes_max - 1;
}

void lkd_refuse(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                enum lki_status status, const char *format, ...)
{
    struct lkd_sending *sending =
        lkd_reply(core, session, LKI_REPLY_RESULT, request, LKD_TEXT_BYTES_MAX);
    if (!sending)
        return;
    va_list arguments;
    va_start(arguments, format);
    size_t length = write_text(sending, LKD_TEXT_BYTES_MAX, format, arguments);
    va_end(arguments);
    sending->message.as.result.status = status;
    sending->message.as.result.detail =
        (struct lki_bytes){.data = sending->extra, .length_bytes = length};
}

void lkd_log(struct lkd_core *core, bool warning, const char *format, ...)
{
    struct lkd_sending *sending = sending_new(core, LKD_EFFECT_LOG, LKD_TEXT_BYTES_MAX);
    if (!sending)
        return;
    va_list arguments;
    va_start(arguments, format);
    write_text(sending, LKD_TEXT_BYTES_MAX, format, arguments);
    va_end(arguments);
    sending->warning = warning;
}

static void hand_out_sending(struct lkd_core *core, struct lkd_sending *sending,
                             struct lkd_effect *out)
{
    core->effects.current = sending;
    out->session = sending->session;
    out->segment = sending->segment;
    out->fds = sending->fds;
    out->message = sending->message;
    if (sending->message.type == LKI_REPLY_EVENT)
        lkd_monitor_handed_out(core, sending->session);
    if (sending->node.kind == LKD_EFFECT_LOG) {
        out->warning = sending->warning;
        snprintf(out->text, sizeof(out->text), "%s", (const char *)sending->extra);
    }
}

static void hand_out_session(struct lkd_core *core, struct lkd_effect_node *node,
                             struct lkd_effect *out)
{
    if (node->kind == LKD_EFFECT_DISCONNECT) {
        struct lkd_session *session = LKI_CONTAINER_OF(node, struct lkd_session, disconnect);
        out->session = session->number;
        snprintf(out->text, sizeof(out->text), "%s", session->farewell);
        out->warning = session->to_blame;
        return;
    }
    struct lkd_session *session = LKI_CONTAINER_OF(node, struct lkd_session, forget);
    out->session = session->number;
    lkd_session_free(core, session);
}

static void hand_out_segment(struct lkd_effect_node *node, struct lkd_effect *out)
{
    if (node->kind == LKD_EFFECT_MAKE_SEGMENT) {
        const struct lkd_segment *segment = LKI_CONTAINER_OF(node, struct lkd_segment, make);
        out->segment = segment->number;
        out->session = segment->offered_by;
        out->spec = segment->spec;
    } else if (node->kind == LKD_EFFECT_GROW_SEGMENT) {
        const struct lkd_segment *segment = LKI_CONTAINER_OF(node, struct lkd_segment, grow);
        out->segment = segment->number;
        out->spec = segment->spec;
        out->spec.data_bytes = segment->grow_bytes;
    } else {
        struct lkd_segment *segment = LKI_CONTAINER_OF(node, struct lkd_segment, drop);
        out->segment = segment->number;
        lkd_segment_free(segment);
    }
}

static void hand_out_wake(struct lkd_effect_node *node, struct lkd_effect *out)
{
    const struct lkd_attachment *attachment = LKI_CONTAINER_OF(node, struct lkd_attachment, wake);
    out->segment = attachment->segment->number;
    out->slot = attachment->slot;
}

/* The first of the list, which is not in it any more; NULL: it is empty. */
static struct lkd_effect_node *take_first(struct lki_list *effects)
{
    if (lki_list_is_empty(effects))
        return NULL;
    struct lkd_effect_node *node = LKI_LIST_ENTRY(effects->next, struct lkd_effect_node, link);
    lki_list_remove(&node->link);
    return node;
}

bool lkd_core_next_wake(struct lkd_core *core, struct lkd_effect *out)
{
    struct lkd_effect_node *node = take_first(&core->effects.wakes);
    if (!node)
        return false;
    out->kind = LKD_EFFECT_WAKE;
    hand_out_wake(node, out);
    return true;
}

bool lkd_core_next_effect(struct lkd_core *core, struct lkd_effect *out)
{
    lkd_effects_release(&core->effects);
    memset(out, 0, sizeof(*out));
    if (lkd_core_next_wake(core, out))
        return true;
    struct lkd_effect_node *node = take_first(&core->effects.queue);
    if (!node)
        node = take_first(&core->effects.partings);
    if (!node)
        return false;
    out->kind = node->kind;
    switch (node->kind) {
    case LKD_EFFECT_NONE:
    case LKD_EFFECT_WAKE:
        LKI_UNREACHABLE("no effect of this kind is in the queue");
        break;
    case LKD_EFFECT_SEND:
    case LKD_EFFECT_LOG:
        hand_out_sending(core, LKI_CONTAINER_OF(node, struct lkd_sending, node), out);
        break;
    case LKD_EFFECT_DISCONNECT:
    case LKD_EFFECT_FORGET_SESSION:
        hand_out_session(core, node, out);
        break;
    case LKD_EFFECT_MAKE_SEGMENT:
    case LKD_EFFECT_GROW_SEGMENT:
    case LKD_EFFECT_DROP_SEGMENT:
        hand_out_segment(node, out);
        break;
    case LKD_EFFECT_CHECK_PROCESS:
        out->process = LKI_CONTAINER_OF(node, struct lkd_process, check)->number;
        break;
    case LKD_EFFECT_SIGNAL_PROCESS:
        out->process = LKI_CONTAINER_OF(node, struct lkd_process, signal)->number;
        out->signal = LKI_CONTAINER_OF(node, struct lkd_process, signal)->signal_number;
        break;
    case LKD_EFFECT_LOOK_AT_PROCESS:
        out->process = LKI_CONTAINER_OF(node, struct lkd_process, look)->number;
        break;
    }
    return true;
}
