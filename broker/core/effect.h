/* SPDX-License-Identifier: MIT */
/* What the driver has to do, in order. Most effects belong to an object (wake this attachment, drop
 * this segment) and use a node embedded in it: queueing them needs no memory, so cleaning up cannot
 * fail, and queueing one twice is once. Replies and log lines carry data and are allocated; without
 * memory the session is dropped, a log line is lost. */
#pragma once

#include <stdarg.h>

#include "broker/core/core.h"
#include "common/list.h"

struct lkd_session;
struct lkd_segment;

struct lkd_effect_node {
    struct lki_list link;
    enum lkd_effect_kind kind;
};

struct lkd_effects {
    struct lki_list wakes; /* before all else: nothing else that is done matters to who is woken */
    struct lki_list queue;
    struct lki_list partings;    /* behind all else: nobody waits for the end of a connection */
    struct lkd_sending *current; /* the last one handed out: its memory is lent to the driver */
};

/* A reply being built; `extra` has the bytes asked for, zeroed. */
struct lkd_sending {
    struct lkd_effect_node node;
    uint64_t session;
    uint32_t segment;
    enum lkd_fds fds;
    bool warning;
    struct lki_message message;
    _Alignas(max_align_t) uint8_t extra[];
};

void lkd_effect_node_init(struct lkd_effect_node *node, enum lkd_effect_kind kind);
void lkd_effects_init(struct lkd_effects *effects);

/* Frees what is lent to the driver. Called at the start of every call into the core. */
void lkd_effects_release(struct lkd_effects *effects);

/* Queues an embedded node; one that is queued already keeps its place. */
void lkd_effect_push(struct lkd_core *core, struct lkd_effect_node *node);
void lkd_effect_cancel(struct lkd_effect_node *node);

/* A reply to `request` with room for extra bytes; to be filled in before the present event ends.
 * NULL: the session has no connection any more, or is still to ask again, or memory ran out, and
 * then it is dropped. */
struct lkd_sending *lkd_reply(struct lkd_core *core, struct lkd_session *session,
                              enum lki_message_type type, uint64_t request, size_t extra_bytes);

/* A message that nobody asked for, with id 0. NULL: as above, but nobody is dropped. */
struct lkd_sending *lkd_notice(struct lkd_core *core, struct lkd_session *session,
                               enum lki_message_type type, size_t extra_bytes);

/* RESULT without a text. */
void lkd_reply_result(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                      enum lki_status status, uint64_t value);

/* RESULT with a text for people: what, why, who, what next. */
void lkd_refuse(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                enum lki_status status, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

void lkd_log(struct lkd_core *core, bool warning, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
