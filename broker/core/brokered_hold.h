/* SPDX-License-Identifier: MIT */
/* What a client does with a lock that the broker took for it. */
#pragma once

#include "broker/core/state.h"

/* The place that a request names: of this session and segment, driven by the broker, and live.
 * NULL: refused. */
struct lkd_attachment *lkd_hold_place(struct lkd_core *core, struct lkd_attachment *main,
                                      const struct lki_message *message, uint32_t lock,
                                      uint32_t attachment);

/* Whether the hold that a request speaks of is the one that is there. One that is repeated to a successor may
 * have had its effect before a later acquire, which was sent behind it, was granted. */
bool lkd_hold_is_meant(const struct lkd_attachment *place, uint32_t lock, uint64_t request);

/* OK, or the refusal of a request about a hold that is not there. */
void lkd_hold_answer(struct lkd_core *core, struct lkd_attachment *place,
                     const struct lki_message *message, uint32_t lock, bool held);

/* RELEASE, MARK_CONSISTENT, DECLARE. `main` is live. */
void lkd_hold_release(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message, uint64_t now_ns);
void lkd_hold_mark_consistent(struct lkd_core *core, struct lkd_attachment *main,
                              const struct lki_message *message);
void lkd_hold_declare(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message);
