/* SPDX-License-Identifier: MIT */
/* What the files brokered_*.c share: a wait of the broker's from its first step to its answer. */
#pragma once

#include "broker/core/state.h"

/* Whether the broker may remember one more wait of its user. False: refused. */
bool lkd_wait_may_begin(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                        uint32_t lock);

/* The attachment's wait, begun in the engine, is one that is stepped and answered as this request. */
void lkd_wait_begin(struct lkd_attachment *attachment, uint64_t request);
void lkd_wait_step(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns);

/* Held, which the ledger learns before the client is told. */
void lkd_wait_grant(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                    uint32_t lock, enum lki_status status, bool to_exit, uint64_t now_ns);

/* The two answers alone. The refusal adds who holds the lock. */
void lkd_wait_say_granted(struct lkd_core *core, struct lkd_attachment *attachment,
                          uint64_t request, uint32_t lock, enum lki_status status);
void lkd_wait_refuse(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t request,
                     uint32_t lock, enum lki_status status, const char *why);

/* Gives the slot of an asynchronous acquire back, unless it holds something. */
void lkd_wait_retire(struct lkd_core *core, struct lkd_attachment *attachment, uint64_t now_ns);

/* Whether this place holds the lock, in any mode, as the shared facts say. */
bool lkd_wait_holds(const struct lkd_attachment *place, uint32_t lock);
