/* SPDX-License-Identifier: MIT */
/* The guard against truncation: a handler for SIGBUS that, for an address inside a guarded map,
 * puts a page of zeros over the hole and marks the segment as truncated; for any other address it
 * does what was installed before. Installed with the first guarded range, taken away with the last.
 * Process-wide. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LKI_GUARD_RANGES_MAX 256 /* guarded windows of one process */

struct lki_guard_range {
    void *base;
    size_t bytes;
    bool writable;
    _Atomic uint32_t *mark_here;      /* set to 1 on a fault */
    _Atomic uint32_t *mark_everybody; /* too, in the control area; NULL: not writable for us */
};

/* Registers a range; the marks stay valid until its removal. Threads: any.
 * Returns 0, or -ENOSPC (LKI_GUARD_RANGES_MAX), or what sigaction(2) said. */
int lki_guard_add(const struct lki_guard_range *range);

/* Forgets the range that begins at base, before it is unmapped. */
void lki_guard_remove(const void *base);
