/* SPDX-License-Identifier: MIT */
/* The memory that unpacking one record may take: a fixed buffer with a hard end, so that what a
 * peer sends cannot make this process grow. Given out from front to back, given back all at once by
 * a reset.
 *
 * Large: keep it in a session or in static memory, not on the stack. Pages that were never used
 * cost nothing. One thread at a time. */
#pragma once

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bounds.h"

struct lki_arena { /* all zero: empty */
    size_t used_bytes;
    bool exhausted; /* something was asked for since the reset that did not fit */
    alignas(max_align_t) uint8_t buffer[LKI_ARENA_BYTES_MAX];
};

/* Empties the arena: what points into it is void. Also makes uninitialised memory an arena. */
static inline void lki_arena_reset(struct lki_arena *arena)
{
    arena->used_bytes = 0;
    arena->exhausted = false;
}

/* size_bytes of memory aligned for any type, not zeroed, valid until the next reset. NULL when it
 * does not fit, which `exhausted` remembers. */
void *lki_arena_take(struct lki_arena *arena, size_t size_bytes);
