/* SPDX-License-Identifier: MIT */
/* OPEN: finds, creates and attaches. What a session asks for is checked here, once. */
#pragma once

#include "broker/core/parked.h"

void lkd_open_request(struct lkd_core *core, struct lkd_session *session,
                      const struct lki_message *message, const struct lkd_offer *offer,
                      uint64_t now_ns);

/* The segment was made for this request: attaches its creator. The caller frees the request. */
void lkd_open_created(struct lkd_core *core, struct lkd_segment *segment,
                      const struct lkd_parked *leader, uint64_t now_ns);
