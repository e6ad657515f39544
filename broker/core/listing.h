/* SPDX-License-Identifier: MIT */
/* LIST: segments, locks with their holders and waiters, and the broker itself; in pages, and only
 * what the caller may see. A page may be empty and still not be the last: each does a bounded
 * amount of work. */
#pragma once

#include "broker/core/state.h"

void lkd_listing_request(struct lkd_core *core, struct lkd_session *session,
                         const struct lki_message *message, uint64_t now_ns);
