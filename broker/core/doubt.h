/* SPDX-License-Identifier: MIT */
/* Doubts about rings. A release that nobody waits for (one-way) holds as soon as it was sent, but until it has
 * been read the control area says that the lock is held. So a ring that was found may be none. It is
 * believed when each of its sessions that may have released so had nothing unread at some time since the same
 * ring was seen first: whatever it released before that had been heard by then, and the hold is there still,
 * so it was when the ring was seen first. */
#pragma once

#include "broker/core/state.h"

/* A ring that the graph has just found for this attachment's wait. False: it is not sure yet, and
 * attachment->doubt.number is not 0; look again later. */
bool lkd_doubt_is_settled(struct lkd_core *core, struct lkd_attachment *attachment);

/* There is no ring: what was noted about one is over. */
void lkd_doubt_drop(struct lkd_attachment *attachment);

/* How long after a look in vain to look again: soon at first. Counts the looks of one wait. */
uint64_t lkd_doubt_pause_ns(struct lkd_attachment *attachment, uint64_t longest_ns);

/* A record of the session has been taken out of its socket. */
void lkd_doubt_note_record(struct lkd_core *core, struct lkd_session *session);

/* There are no more at present. */
void lkd_doubt_note_quiet(struct lkd_core *core, struct lkd_session *session);
