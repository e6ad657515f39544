/* SPDX-License-Identifier: MIT */
/* Who holds a lock, and is the holder still alive: HOLDER, ASK, and the words in refusals. */
#pragma once

#include "broker/core/state.h"

#define LKD_HOLDER_TEXT_BYTES 128u

/* HOLDER and ASK of a session that is attached through `main`. */
void lkd_inquiry_holder(struct lkd_core *core, struct lkd_attachment *main,
                        const struct lki_message *message, uint64_t now_ns);
void lkd_inquiry_ask(struct lkd_core *core, struct lkd_attachment *main,
                     const struct lki_message *message, uint64_t now_ns);

/* Has the process behind `owner` checked, which stands in the word; owner 0: of the readers. An
 * owner that names nobody is repaired. `asker` waits, so the lease of the hold (owner, sequence)
 * begins to run, if it does not yet. */
void lkd_inquiry_about(struct lkd_core *core, struct lkd_attachment *asker, uint32_t lock,
                       uint32_t owner, uint64_t sequence, uint64_t now_ns);

/* "; held by pid 812 (make)", or an empty text; `out_text` has LKD_HOLDER_TEXT_BYTES. */
void lkd_inquiry_describe(const struct lkd_segment *segment, uint32_t lock, char *out_text);

/* The segment's name as the attachment's session may write it. */
void lkd_inquiry_name(const struct lkd_attachment *attachment, char *out_name);

/* One holder of the lock, or NULL; *out_mode is 0 when nobody holds it. */
struct lkd_attachment *lkd_inquiry_find_holder(const struct lkd_segment *segment,
                                               const struct lki_lock_state *state,
                                               uint32_t *out_mode);

/* The mode of whoever's id is in the word. */
uint32_t lkd_inquiry_owned_mode(uint32_t word);

/* How long this attachment has held the lock in this mode, or drained it; 0: not known. */
uint64_t lkd_inquiry_held_ns(const struct lkd_attachment *attachment, uint32_t lock, uint32_t mode,
                             uint64_t sequence, uint64_t now_ns);
