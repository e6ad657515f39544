/* SPDX-License-Identifier: MIT */
/* Deadlocks: reads who waits for whom out of the control areas of all segments, native and brokered
 * alike, and chooses the wait that closed a cycle to be refused. docs/architecture.md says who asks
 * when. */
#pragma once

#include "broker/core/state.h"

#define LKD_REPORT_BYTES_MAX 2048u /* the words for the session that is refused */

/* Once, before anything else here. */
void lkd_deadlock_init(struct lkd_core *core);

/* DEADLOCK_CHECK of a session that is attached through `main`. */
void lkd_deadlock_request(struct lkd_core *core, struct lkd_attachment *main,
                          const struct lki_message *message, uint64_t now_ns);

/* Whether what this attachment waits for would never come. If not, attachment->doubt.number says whether
 * that is in doubt, and to be looked at again soon. If so, the wait is no edge for anybody
 * from now on, the cycle is in the log, and `out_report` tells of it; it is the caller's to see
 * that the wait is given up. */
bool lkd_deadlock_check(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns,
                        char out_report[LKD_REPORT_BYTES_MAX]);

/* RESULT DEADLOCK with the report. */
void lkd_deadlock_refuse(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                         const char *report);
