/* SPDX-License-Identifier: MIT */
/* The fences of the engine. ThreadSanitizer knows no fences, so there a fence is a real
 * read-modify-write: as strong for the machine, and visible to nobody. It is one on a variable of
 * its own each time, since a shared one would order all threads by each other and hide the races
 * that the sanitizer looks for. */
#pragma once

#include <stdatomic.h>

/* order: memory_order_acquire, _release or _seq_cst; a constant. */
static inline void lki_fence(memory_order order)
{
#ifdef __SANITIZE_THREAD__
    _Atomic unsigned barrier = 0;
    (void)order;
    atomic_fetch_add_explicit(&barrier, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(order);
#endif
}
