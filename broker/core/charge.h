/* SPDX-License-Identifier: MIT */
/* What the core's objects cost their users: quota.h applied to sessions and segments. Whoever makes
 * something asks lkd_charge_fits() first and charges when it goes live; what ends is uncharged,
 * which never fails. */
#pragma once

#include "broker/core/state.h"

#define LKD_CHARGE_TEXT_BYTES 360u /* the longest reason */

/* Whether the session may have so much more. False: why says why not. */
bool lkd_charge_fits(struct lkd_core *core, const struct lkd_session *session,
                     enum lkd_resource resource, uint64_t amount, char why[LKD_CHARGE_TEXT_BYTES]);

void lkd_charge(struct lkd_core *core, struct lkd_session *session, enum lkd_resource resource,
                uint64_t amount);
void lkd_uncharge(struct lkd_core *core, struct lkd_session *session, enum lkd_resource resource,
                  uint64_t amount);

/* A new session. 0; -EDQUOT: core->refusal says why not; -ENOMEM. On success the account is charged
 * and lives as long as the session. */
int lkd_charge_admit(struct lkd_core *core, uint32_t uid, struct lkd_account **out_account);

/* The last thing that a session gives back. */
void lkd_charge_leave(struct lkd_core *core, struct lkd_session *session);

/* A segment of this size, with a resource's part of it: what creating it costs. */
uint64_t lkd_charge_of_segment(const struct lkd_segment_spec *spec, uint32_t locks,
                               enum lkd_resource resource);

/* A segment is charged to the session that asked for it, and to that session's uid, whoever owns
 * its name; to the uid alone once the session has ended. */
void lkd_charge_segment(struct lkd_core *core, struct lkd_session *session,
                        struct lkd_segment *segment);
void lkd_uncharge_segment(struct lkd_core *core, struct lkd_segment *segment);

/* The same for one that is taken over: what an earlier worker charged is charged again. */
void lkd_charge_adopted_segment(struct lkd_core *core, struct lkd_account *account,
                                uint64_t session, struct lkd_segment *segment);

/* Walks everything that was charged and compares. */
void lkd_charge_check(const struct lkd_core *core);
