/* SPDX-License-Identifier: MIT */
/* CHANGE_MODE: a hold that the broker took for a session becomes exclusive, or weaker. Each is answered once
 * in effect, whichever worker answers: an upgrade is a stage of its own in the ledger, and what is done at
 * once is noted before. */
#pragma once

#include "broker/core/state.h"

/* `main` is live. */
void lkd_change_mode(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message, uint64_t now_ns);

/* The upgrade of this attachment has ended so. */
void lkd_change_answer(struct lkd_core *core, struct lkd_attachment *place,
                       enum lki_verdict verdict, uint64_t request);

/* It has come to nothing, or was given up: the hold is as it was. */
void lkd_change_note_over(struct lkd_attachment *place);

/* Goes on with the upgrade that an earlier worker had begun, of a hold that was adopted. */
void lkd_change_adopt(struct lkd_core *core, struct lkd_attachment *place, uint64_t now_ns);
