/* SPDX-License-Identifier: MIT */
/* Acquires that the broker drives: of brokered attachments, and asynchronous ones, each in a slot
 * of its own. The engine decides; here it is told when to look, and the session what came of it.
 * Every acquire is answered exactly once, unless its session is lost. */
#pragma once

#include "broker/core/state.h"

/* ACQUIRE, CANCEL, NUDGE. `main` is live. */
void lkd_wait_acquire(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message, uint64_t now_ns);
void lkd_wait_cancel(struct lkd_core *core, struct lkd_session *session,
                     const struct lki_message *message, uint64_t now_ns);
void lkd_wait_nudge(struct lkd_core *core, struct lkd_segment *segment);

/* The session has taken one more lock: its waits are to be looked at for a deadlock again. */
void lkd_wait_recheck_session(struct lkd_core *core, struct lkd_session *session);

/* The wait of this attachment is to be stepped soon. */
void lkd_wait_wake(struct lkd_core *core, struct lkd_attachment *attachment);

/* Makes the waits ready whose time has come. */
void lkd_wait_due(struct lkd_core *core, uint64_t now_ns);

/* Steps the waits that are ready, at most LKD_STEPS_MAX of them. */
void lkd_wait_settle(struct lkd_core *core, uint64_t now_ns);

/* Goes on with what an earlier worker did for this attachment. May free an extra. */
void lkd_wait_adopt(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns);

/* After the last step for a successor to know: the attempt at the lock has come to nothing, or its
 * hold has ended. */
void lkd_wait_note_over(struct lkd_attachment *place, uint32_t lock);

/* Whether a RELEASE of what it holds need not be answered, since the answer would say nothing. So it may have
 * been released without our knowing. */
bool lkd_wait_may_release_one_way(const struct lkd_attachment *attachment);

static inline bool lkd_is_extra(const struct lkd_attachment *attachment)
{
    return attachment->main != attachment;
}

/* While it drains the readers the word is the waiter's, but nothing is held yet. */
static inline bool lkd_waits_for(const struct lkd_attachment *place, uint32_t lock)
{
    return place->waiting && place->wait.lock == lock;
}

/* Gives up the wait of an attachment that ends; nobody is told. None: does nothing. */
void lkd_wait_drop(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns);

/* The session is lost: its waits are given up, and slots that only waited are given back. */
void lkd_wait_drop_session(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns);

/* DETACH and GOODBYE: the same, but each is answered CANCELED. */
void lkd_wait_cancel_session(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns);
void lkd_wait_cancel_attachment(struct lkd_core *core, struct lkd_attachment *main,
                                uint64_t now_ns);
