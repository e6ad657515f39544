/* SPDX-License-Identifier: MIT */
#include "proto/arena.h"

void *lki_arena_take(struct lki_arena *arena, size_t size_bytes)
{
    const size_t alignment = alignof(max_align_t);
    const size_t left_bytes = sizeof(arena->buffer) - arena->used_bytes;

    /* used_bytes and the buffer's size are multiples of the alignment, so what is left is one too,
     * and rounding up a size that fits still fits. */
    if (size_bytes > left_bytes) {
        arena->exhausted = true;
        return NULL;
    }
    void *memory = arena->buffer + arena->used_bytes;
    arena->used_bytes += (size_bytes + alignment - 1) / alignment * alignment;
    return memory;
}
