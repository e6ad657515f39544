/* SPDX-License-Identifier: MIT */
/* Whether to look again for a while before sleeping in the kernel. Being put to sleep and woken takes longer
 * than most answers, above all where processors are virtual. But who looks in vain, or while others want the
 * processor, takes it from somebody: so the time for looking drifts to twice what the last hits needed, and
 * after each miss looking pauses, for 1, 2, 4, up to 256 waits.
 *
 *     if (lki_spin_begin(&spin, now)) {
 *         do
 *             came = look();
 *         while (lki_spin_go_on(&spin, now, came));
 *         lki_spin_end(&spin, came);
 *     }
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* All zero: nothing learned; the first wait does not look. One thread at a time. */
struct lki_spin {
    uint64_t limit_ns; /* 0: nothing learned */
    uint64_t began_ns; /* of the last wait */
    uint64_t seen_ns;
    uint32_t vain;    /* looks */
    bool disturbed;   /* somebody else ran on this processor meanwhile */
    uint8_t misses;   /* in a row, at most 8 */
    uint16_t pausing; /* so many waits are left that do not look */
};

/* Whether this process may use one processor alone, as it was when first asked: nobody could answer while it
 * looks. From any thread. */
bool lki_has_one_processor(void);

/* Before a wait: whether to look first. now_ns: of one clock, here and below. */
bool lki_spin_begin(struct lki_spin *spin, uint64_t now_ns);
/* Right behind each look: whether to look again. One that took long tells that others want the processor; after one
 * that came and took long for what it did about that, this is not called. */
bool lki_spin_go_on(struct lki_spin *spin, uint64_t now_ns, bool came);
/* At the end: whether what was waited for came. */
void lki_spin_end(struct lki_spin *spin, bool came);
