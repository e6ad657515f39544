/* SPDX-License-Identifier: MIT */
/* A segment from its making to its end, and the table of its slots. */
#pragma once

#include "broker/core/state.h"

/* What an OPEN asks a new segment to be; checked. */
struct lkd_segment_wish {
    struct lkd_name name;
    uint32_t name_bytes;
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;
    uint32_t flags;
    uint32_t locks;
    uint32_t attachments_max;
    uint64_t patience_ns; /* as in the area */
    uint64_t lease_ns;
    uint32_t on_expiry;
    uint64_t data_bytes;
    uint64_t data_bytes_max;
    bool file;
    uint64_t file_device;
    uint64_t file_inode;
    uint64_t offered_by;
};

/* What the driver would have to make for it. */
struct lkd_segment_spec lkd_segment_spec_of(const struct lkd_segment_wish *wish);

/* Enters a new segment, MAKING. NULL: no memory. The caller parks the request as its leader and
 * pushes the effect `make`. */
struct lkd_segment *lkd_segment_new(struct lkd_core *core, const struct lkd_segment_wish *wish);

/* Frees one that is ENDED. */
void lkd_segment_free(struct lkd_segment *segment);

/* The driver made it: lays the control area out. The state becomes UNPUBLISHED or PUBLISHED. */
void lkd_segment_format(struct lkd_core *core, struct lkd_segment *segment,
                        const struct lkd_segment_made *made);

void lkd_segment_publish(struct lkd_segment *segment);

/* It has grown. */
void lkd_segment_set_data_bytes(struct lkd_segment *segment, uint64_t data_bytes);

/* Takes over what an earlier worker wrote in the record; not charged to anybody yet. Returns 0 or
 * -ENOMEM. */
int lkd_segment_adopt(struct lkd_core *core, struct lkd_segment_record *record, void *area_base,
                      struct lkd_segment **out_segment);

/* The slot of this id is the attachment's still. False: no memory. */
bool lkd_segment_adopt_slot(struct lkd_segment *segment, struct lkd_attachment *attachment,
                            uint32_t id);

/* After the last of them: slots that an earlier worker was giving when it died, before it noted to whom. Who
 * had asked may never ask again. */
void lkd_segment_drop_unknown(const struct lkd_segment *segment);

/* Its memory is not looked at any more: workers failed over it. Its attachments end without repair,
 * new ones are refused; who has it mapped goes on. */
void lkd_segment_quarantine(struct lkd_segment *segment);

/* Ends it if nobody can use it any more. */
void lkd_segment_settle(struct lkd_core *core, struct lkd_segment *segment);

/* Ends it: it has no attachments. `was_made`: the driver has something to drop. */
void lkd_segment_end(struct lkd_core *core, struct lkd_segment *segment, bool was_made);

/* Takes the lowest free slot and gives it its next generation. 0: none is free (slots_taken ==
 * attachments_max) or no memory. */
uint32_t lkd_segment_take_slot(struct lkd_segment *segment, struct lkd_attachment *attachment);
void lkd_segment_free_slot(struct lkd_segment *segment, uint32_t slot);

/* The attachment that an id in shared memory names, or NULL. */
struct lkd_attachment *lkd_segment_attachment(const struct lkd_segment *segment, uint32_t id);

void lkd_segment_check(const struct lkd_core *core, const struct lkd_segment *segment);
