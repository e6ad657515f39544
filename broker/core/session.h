/* SPDX-License-Identifier: MIT */
/* Sessions: how they begin, leave, get lost and end. A session is freed when FORGET_SESSION is handed
 * out, its process with its last session. */
#pragma once

#include "broker/core/state.h"
#include "common/clock.h"

struct lkd_session *lkd_session_find(const struct lkd_core *core, uint64_t number);

/* Whether replies still reach it. */
bool lkd_session_is_connected(const struct lkd_session *session);

/* Its connection is to end: it broke the rules, or there is no memory to serve it. Takes effect at
 * the end of the event, so that it may be called from anywhere. The first reason counts. */
void lkd_session_break(struct lkd_core *core, struct lkd_session *session, const char *reason);

/* Sessions without a hello are no trouble while they are few; beyond LKI_SILENT_SESSIONS_MAX of one
 * uid the oldest are disconnected, those younger than LKD_SILENT_NS not. */
#define LKD_SILENT_NS (2 * LKI_NS_PER_S)

/* Its connection is to end for this reason, if it has one, at the end of the event. */
void lkd_session_part(struct lkd_core *core, struct lkd_session *session, const char *reason);

/* Disconnects the sessions that were broken in this event. */
void lkd_session_settle(struct lkd_core *core, uint64_t now_ns);

/* HELLO: the versions have to fit. False: refused, and the connection ends. */
bool lkd_session_greet(struct lkd_core *core, struct lkd_session *session,
                       const struct lki_message *message);

/* RESUME, with the number that it repeats: if it is this worker's, the session is heard, and answered,
 * again. */
void lkd_session_resume(struct lkd_core *core, struct lkd_session *session, uint32_t number);

/* This request is about to end a hold or an attachment. */
void lkd_session_note_ending(struct lkd_session *session, uint64_t request);

/* Whether this RELEASE or DETACH has done so before, under another worker: what it wants to end has
 * ended. Of several that were sent at once, one that was wrong may count as done too. */
bool lkd_session_has_ended(const struct lkd_session *session, uint64_t request);

/* A request with a new id is begun. */
void lkd_session_receive(struct lkd_session *session, uint64_t request);

/* Takes over what an earlier worker wrote in the record. NULL: no memory. */
struct lkd_session *lkd_session_adopt(struct lkd_core *core, struct lkd_session_record *record,
                                      const struct lkd_peer *peer);

/* The last step of that, when its attachments are back: tells it to repeat, or forgets it if
 * nothing of it is left. False: no memory. */
bool lkd_session_adopted(struct lkd_core *core, struct lkd_session *session);
/* It has sent its first request behind the hello: now the driver knows what it is called. */
void lkd_session_introduce(struct lkd_core *core, struct lkd_session *session);

/* GOODBYE: everything is cleaned up, then answered, then the connection is closed. */
void lkd_session_goodbye(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                         uint64_t now_ns);

/* One of its attachments has ended: the session may be done. */
void lkd_session_shrunk(struct lkd_core *core, struct lkd_session *session);

/* FORGET_SESSION was handed out. */
void lkd_session_free(struct lkd_core *core, struct lkd_session *session);
