/* SPDX-License-Identifier: MIT */
/* What the driver makes for segments, memory, and what follows when it has: the answers to the
 * request that led to it and to those that waited meanwhile. GROW, PUBLISH and REMOVE. */
#pragma once

#include "broker/core/state.h"

void lkd_making_grow(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message);
void lkd_making_publish(struct lkd_core *core, struct lkd_attachment *main,
                        const struct lki_message *message);
void lkd_making_remove(struct lkd_core *core, struct lkd_session *session,
                       const struct lki_message *message);
