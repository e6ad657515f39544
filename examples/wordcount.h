/* SPDX-License-Identifier: MIT */
/* What the wordcount programs share: the layout of the table that they count into, and a way out.
 *
 *     wordcount_create   offers a text file as one segment and makes the table in another
 *     wordcount_worker   counts chunk after chunk of the text; start as many as you like
 *     wordcount_watch    looks on without a lock
 *
 * The table has one lock for the totals and one per chunk. Who holds a chunk's lock counts that
 * chunk. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <lockkeeper/lockkeeper.h>

#define TEXT_SEGMENT "wordcount.text"
#define TABLE_SEGMENT "wordcount.table"
#define TOTALS_LOCK 0
#define CHUNK_LOCK(i) ((uint32_t)(i) + 1)
#define LETTERS 27 /* a to z, and all else */

struct counts {
    uint64_t words;
    uint64_t by_first_letter[LETTERS];
};

/* Shared memory has fixed-width types and no pointers: every process maps it somewhere else. */
struct chunk {
    _Atomic uint64_t done; /* set last: then `counts` is whole */
    struct counts counts;
};

struct table {
    uint64_t text_bytes;
    uint64_t chunk_bytes;
    uint64_t chunks;
    uint64_t chunks_done;
    struct counts totals; /* of all chunks that are done; guarded by TOTALS_LOCK */
    struct chunk chunk[];
};

static inline void add_counts(struct counts *sum, const struct counts *more)
{
    for (int i = 0; i < LETTERS; i++)
        sum->by_first_letter[i] += more->by_first_letter[i];
    sum->words += more->words;
}

/* Ends the program if a call failed; hands its result on otherwise. */
static inline int check(int result)
{
    if (result >= 0)
        return result;
    fprintf(stderr, "%s\n", lk_last_error());
    exit(1);
}
