/* SPDX-License-Identifier: MIT */
/* FORCE_RELEASE: a person ends whoever holds a lock. The answer comes when the lock has been handed
 * on, or it is certain that it will not be soon. */
#pragma once

#include "broker/core/state.h"

/* FORCE_RELEASE. The segment need not be open in this session. */
void lkd_forced_request(struct lkd_core *core, struct lkd_session *session,
                        const struct lki_message *message, uint64_t now_ns);

/* Something has become of a lease on this lock. */
void lkd_forced_settle(struct lkd_core *core, const struct lkd_segment *segment, uint32_t lock);

/* Nobody waits for the answers to this session any more; what was begun goes on. NULL: to nobody. */
void lkd_forced_drop_session(struct lkd_core *core, const struct lkd_session *session);
