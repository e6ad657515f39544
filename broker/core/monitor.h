/* SPDX-License-Identifier: MIT */
/* Who is told what happens: sessions that sent MONITOR get an EVENT for what they may see. Nothing
 * waits for them and nothing is kept for them: an event that finds LKI_MONITOR_EVENTS_MAX of its
 * receiver still in the core, or a socket that takes no more, is lost and counted, and the next one
 * says how many were. With nobody watching an event costs one look at an empty list.
 *
 * What is done in shared memory without the broker is not seen here. */
#pragma once

#include "broker/core/state.h"

/* Writes what `viewer` may know of it, zero-terminated. */
typedef void (*lkd_news_text_fn)(const void *user, const struct lkd_session *viewer, char *out_text,
                                 size_t bytes);

/* What happened; all of it borrowed for the call. */
struct lkd_news {
    enum lki_event_kind kind;
    const struct lkd_session *session; /* whose doing or fate it is; NULL: that of `uid` */
    uint32_t uid;
    const struct lkd_segment *segment; /* NULL: it is about none */
    bool has_lock;
    uint32_t lock;
    uint64_t token;
    uint32_t cause;
    uint64_t size_bytes;
    const char *text;            /* NULL: none */
    lkd_news_text_fn write_text; /* instead of text, where that depends on who reads it */
    const void *user;
};

static inline bool lkd_monitor_is_watched(const struct lkd_core *core)
{
    return !lki_list_is_empty(&core->monitors);
}

/* Queues an event for everybody who may see it. Never fails: without memory it is lost. */
void lkd_monitor_tell(struct lkd_core *core, const struct lkd_news *news);

/* The usual ones in one line. */
void lkd_monitor_session(struct lkd_core *core, enum lki_event_kind kind,
                         const struct lkd_session *session, const char *text);
void lkd_monitor_segment(struct lkd_core *core, enum lki_event_kind kind,
                         const struct lkd_segment *segment, const struct lkd_session *session);
void lkd_monitor_attachment(struct lkd_core *core, enum lki_event_kind kind,
                            const struct lkd_attachment *attachment);

/* `asker` has waited for a nap. Told once for each hold: `holder` stands in the word and is alive;
 * when that is the asker itself it waits for readers. */
void lkd_monitor_waited(struct lkd_core *core, const struct lkd_attachment *asker,
                        struct lkd_attachment *holder, uint32_t lock);

/* The repair of this attachment has got from lock `first` to where it is now. */
void lkd_monitor_repaired(struct lkd_core *core, const struct lkd_attachment *attachment,
                          uint32_t first);

/* MONITOR. */
void lkd_monitor_request(struct lkd_core *core, struct lkd_session *session,
                         const struct lki_message *message);

/* It gets no more. Twice is once. */
void lkd_monitor_stop(struct lkd_session *session);

/* One of the session's events has left the core. */
void lkd_monitor_handed_out(struct lkd_core *core, uint64_t session);

void lkd_monitor_check(const struct lkd_core *core);
