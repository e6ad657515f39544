/* SPDX-License-Identifier: MIT */
/* A segment inside the library: one attachment of one session, its control area mapped and checked,
 * its data descriptor, its windows and lock handles. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/session.h"
#include "engine/lock.h"

struct lk_segment {
    struct lki_list node; /* in the session's segments or closed_segments */
    struct lk_session *session;
    char *name;        /* as the user wrote it */
    unsigned count;    /* opens less closes; 0: closed, the memory stays for stale handles */
    uint32_t number;   /* the broker's number */
    uint32_t attached; /* id of our attachment */
    bool brokered;     /* locks go through the broker; the control area is mapped read-only */
    bool read_only;
    uint32_t broker_minor; /* of its protocol; 0: before 4 */
    bool file;
    uint32_t flags; /* LK_INHERIT and LK_GUARD of who opened it */
    int data_fd;    /* -1: no data */
    uint64_t data_bytes_max;
    void *area_base; /* NULL: not mapped */
    struct lki_area area;
    struct lki_party party;          /* native segments only */
    bool fenceless;                  /* its readers may rely on read bias: see client/bias.h */
    _Atomic uint32_t truncated_here; /* set by the guard's signal handler */
    struct lki_list windows;
    struct lk_lock **handles;    /* by index; NULL where none was opened */
    struct lk_lock *all_handles; /* every handle ever made, for freeing */
};

/* What an OPENED says becomes a handle: a further count of the one that has this attachment, or a
 * new one. Takes the descriptors that it keeps out of the record. Borrows the rest. No text.
 * Returns 0; -EPROTO (what came is not what it should be), -EMFILE, -ENOMEM, or what mmap(2) said:
 * then the attachment is the caller's to give back. */
int lki_segment_attach(struct lk_session *session, const char *name, uint32_t option_flags,
                       struct lki_record *opened, struct lk_segment **out);

/* 0; -EINVAL (NULL), -ESTALE (closed, or inherited by fork); with text "cannot VERB ...". */
int lki_segment_check(const struct lk_segment *segment, const char *verb);

/* As above, and -EIO with text when the file was truncated under a guarded map. */
int lki_segment_check_data(const struct lk_segment *segment, const char *verb);

/* Whether somebody found the file truncated. One or two loads; needs the area mapped. */
static inline bool lki_segment_truncated(const struct lk_segment *segment)
{
    /* relaxed: a flag that only ever rises; nothing is read on the strength of it */
    return atomic_load_explicit(&segment->area.header->truncated, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&segment->truncated_here, memory_order_relaxed) != 0;
}

/* Unmaps everything and closes the descriptor; all its handles are stale from here. */
void lki_segment_unmap_all(struct lk_segment *segment);

/* Frees the memory, after lki_segment_unmap_all(), which it calls if need be; leaves its list. In a
 * forked child it leaves the maps alone: they are not there, or meant to be inherited. */
struct lk_segment *lki_segment_free(struct lk_segment *segment);
