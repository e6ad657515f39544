/* SPDX-License-Identifier: MIT */
/* Requests that wait for the driver: for a segment being made or grown. Each is copied, belongs to
 * its session and to its segment, and is applied again when the driver has answered. */
#pragma once

#include "broker/core/state.h"

struct lkd_parked {
    struct lki_list of_segment;
    struct lki_list of_session;
    struct lkd_segment *segment;
    struct lkd_session *session;
    struct lki_message message;
    struct lkd_offer offer;
    bool repeating;
    char name[LKI_NAME_TEXT_BYTES_MAX + 1];
};

/* Parks a request. NULL: refused (too many, or no memory), and the session was told. */
struct lkd_parked *lkd_park(struct lkd_core *core, struct lkd_session *session,
                            struct lkd_segment *segment, const struct lki_message *message,
                            const struct lkd_offer *offer);

void lkd_parked_free(struct lkd_parked *parked);

/* Applies all requests of the list again, in order. It was taken from its segment before. */
void lkd_parked_resume(struct lkd_core *core, struct lki_list *list, uint64_t now_ns);

/* Moves what is parked at the segment to *out_list, except its leader. */
void lkd_parked_take(struct lkd_segment *segment, struct lki_list *out_list);

/* The session is lost: nobody waits for these answers. */
void lkd_parked_drop_session(struct lkd_core *core, struct lkd_session *session);

/* The session leaves: each is answered CANCELED. */
void lkd_parked_cancel_session(struct lkd_core *core, struct lkd_session *session);
