/* SPDX-License-Identifier: MIT */
/* Taking a brokered hold away from a session that lives. Sound for the lock, since the broker alone
 * executes its unlock; the session may still write to the data, which its successor is told. */
#pragma once

#include "broker/core/state.h"

/* Takes `lock` away from a LIVE, brokered attachment that holds it. A main lives on; an extra ends
 * with the hold that it was made for, and is freed. */
void lkd_fence_off(struct lkd_core *core, struct lkd_attachment *holder, uint32_t lock,
                   uint64_t now_ns);

/* For a request about a hold that is not there. If it was taken away, refuses with STALE and
 * returns true; RELEASE is told once, as the end of the hold. */
bool lkd_fence_refuse(struct lkd_core *core, struct lkd_attachment *main, uint32_t attachment,
                      uint32_t lock, const struct lki_message *message);

/* The same attachment has taken the lock again. */
void lkd_fence_forget(struct lkd_attachment *main, uint32_t attachment, uint32_t lock);
