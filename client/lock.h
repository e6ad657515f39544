/* SPDX-License-Identifier: MIT */
/* A lock handle: one per segment and index, counted. Its memory stays until the session is closed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockkeeper/inline.h>
#include <lockkeeper/lockkeeper.h>

#include "client/async.h"
#include "client/bias.h"
#include "client/segment.h"

struct lk_lock {
    /* What the fast paths load, also those that are compiled into programs; set by lki_lock_set_view() alone.
     * All of it is 0 while they may not, and in a forked child.
     *     words       the struct lki_lock_hot, while this lock may be taken and released natively without
     *                 another look: not closed, brokered, of a file that could be truncated, held or waited for
     *                 asynchronously, nor while its session waits for any lock asynchronously
     *     read_words  the same for optimistic reads, which need neither write access nor the broker: not
     *                 closed, nor of a file
     *     id          of the party, with `words`
     *     cell        with `words`: the party's first cell, if the process takes part in barriers; else one that
     *                 is never free */
    struct lk_inline *view;
    uint32_t index;
    struct lki_party *party;
    struct lki_reads reads; /* that it has seen without a writer between them */
    uint32_t spins;         /* how long a native wait spins at first, learned from the last ones */
    struct lk_segment *segment;
    unsigned count;   /* 0: closed */
    uint32_t held_id; /* the attachment of a hold that the broker granted; 0: none */
    uint32_t held_mode;
    bool held_one_way; /* its release need not be waited for */
    bool held_to_exit; /* the last native hold that did not take the fast path was to exit */
    char *name;        /* as given to lk_lock_named(), else NULL */
    struct lki_async async;
    struct lk_lock *next_handle; /* in segment->all_handles */
    struct lki_list of_open;     /* in session->open_locks, while the view has words */
};

/* Makes the handle table of a segment just mapped; old handles with an index in it come back to
 * their places, still closed. Returns 0 or -ENOMEM. */
int lki_lock_table_new(struct lk_segment *segment);

/* Closes every handle: from here they answer -ESTALE. */
void lki_lock_end_all(struct lk_segment *segment);

/* Frees every handle. */
void lki_lock_free_all(struct lk_segment *segment);

/* To be called after anything that the view depends on has changed. */
void lki_lock_set_view(struct lk_lock *lock);

/* 0; -EINVAL (NULL), -ESTALE (closed, its segment closed, or inherited by fork), with text. */
int lki_lock_check(const struct lk_lock *lock, const char *verb);

bool lki_lock_mode_is_valid(enum lk_mode mode);

/* What a verdict of the engine is for the caller, with its text. */
int lki_lock_result(struct lk_lock *lock, enum lki_verdict verdict);

/* How people call it: SEGMENT, SEGMENT#3, SEGMENT#orders. Cut to fit. */
void lki_lock_label(const struct lk_lock *lock, char *out_label, size_t bytes);
#define LKI_LABEL_BYTES 320

/* Who holds it, in words, asked of the broker with a time limit: "held by train.py[4711] (uid 1000)
 * for 2m13s". False when it did not answer in time, or nobody holds it. */
bool lki_lock_holder_words(struct lk_lock *lock, uint64_t deadline_ns, char *out_words,
                           size_t bytes);
