/* SPDX-License-Identifier: MIT */
/* The names of a segment's locks. The broker keeps its own copy: the one in the control area is for
 * clients, and clients can write it. A name keeps its entry for the segment's life. New names get
 * the lowest entry without one, entry 0 excepted: that is the lock of whoever names none. */
#pragma once

#include "broker/core/state.h"

struct lkd_lock_name {
    uint32_t lock;
    uint32_t length_bytes;
    UT_hash_handle by_name;
    uint8_t bytes[];
};

/* LOCK_NAMED of a session that is attached through `main`. */
void lkd_lock_name_request(struct lkd_core *core, struct lkd_attachment *main,
                           const struct lki_message *message);

/* The lock of this name. False: none has it. */
bool lkd_lock_name_find(const struct lkd_core *core, const struct lkd_segment *segment,
                        struct lki_bytes text, uint32_t *out_lock);

/* The name of a lock, empty if it has none. Borrowed from the segment. */
struct lki_bytes lkd_lock_name_at(const struct lkd_segment *segment, uint32_t lock);

/* Takes over the names that an earlier worker wrote into the segment. What is no name any more is
 * without one from now on. False: no memory; the next client that asks for the name would be given
 * another lock than those who have asked before. */
bool lkd_lock_names_adopt(struct lkd_core *core, struct lkd_segment *segment);

void lkd_lock_names_deinit(struct lkd_segment *segment);
