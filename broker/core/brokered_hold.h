/* SPDX-License-Identifier: MIT */
/* What a client does with a lock that the broker took for it. */
#pragma once

#include "broker/core/state.h"

/* RELEASE, MARK_CONSISTENT, DECLARE. `main` is live. */
void lkd_hold_release(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message, uint64_t now_ns);
void lkd_hold_mark_consistent(struct lkd_core *core, struct lkd_attachment *main,
                              const struct lki_message *message);
void lkd_hold_declare(struct lkd_core *core, struct lkd_attachment *main,
                      const struct lki_message *message);
