/* SPDX-License-Identifier: MIT */
/* A session's place in a segment, and the extra places of its asynchronous acquires. The end of an
 * attachment is a repair; its slot is given again only after that. */
#pragma once

#include "broker/core/state.h"

/* The live main attachment of a session in the segment with this number, or NULL. */
struct lkd_attachment *lkd_attachment_find(const struct lkd_core *core,
                                           const struct lkd_session *session, uint32_t segment);

struct lkd_attachment_wish {
    bool read_only;
    bool brokered;
    bool creator;
    bool accepts_kill;
};

/* Attaches. There is none of this session yet, and a slot is free (slots_taken < attachments_max).
 * NULL: no memory. */
struct lkd_attachment *lkd_attachment_open(struct lkd_core *core, struct lkd_session *session,
                                           struct lkd_segment *segment,
                                           const struct lkd_attachment_wish *wish, uint64_t now_ns);

/* One more slot for `main`, brokered. NULL: as above. */
struct lkd_attachment *lkd_attachment_open_extra(struct lkd_core *core, struct lkd_attachment *main,
                                                 uint64_t now_ns);

/* Takes over what an earlier worker wrote in the record; mains before extras. One that was being
 * repaired is repaired from the beginning. NULL: no memory. */
struct lkd_attachment *lkd_attachment_adopt(struct lkd_core *core, struct lkd_session *session,
                                            struct lkd_segment *segment,
                                            struct lkd_attachment_record *record);

/* Begins the end of a live main and all its extras, or of one extra. Waits were answered or
 * dropped before. */
void lkd_attachment_end(struct lkd_core *core, struct lkd_attachment *attachment,
                        enum lki_cause cause, uint64_t now_ns);
void lkd_attachment_end_session(struct lkd_core *core, struct lkd_session *session,
                                enum lki_cause cause, uint64_t now_ns);

/* Ends an extra that holds nothing and waits for nothing, at once: only the broker ever wrote its
 * id, so there is nothing to look for. */
void lkd_attachment_close_extra(struct lkd_core *core, struct lkd_attachment *extra,
                                uint64_t now_ns);

/* Its repair is complete: gives the slot back and answers DETACH. May free it. */
void lkd_attachment_repaired(struct lkd_core *core, struct lkd_attachment *attachment);

/* What the engine calls when it wakes a slot; user is the segment. */
void lkd_attachment_wake(void *user, uint32_t slot, bool brokered);

/* DETACH */
void lkd_attachment_detach(struct lkd_core *core, struct lkd_attachment *attachment,
                           uint64_t request, uint64_t now_ns);

void lkd_attachment_free(struct lkd_core *core, struct lkd_attachment *attachment);
