/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <stdlib.h>
#include <string.h>

/* --- The core's memory ---
 *
 * The linker puts these in the place of the allocator for all that is linked in (--wrap), so that
 * memory can run out inside the core, and there alone; and so that all that a worker has can be
 * freed when it dies. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __wrap_free(void *memory);

/* What the core has allocated: open addressing, GONE marks an entry that was there. */
static struct {
    void **entries;
    size_t capacity;
    size_t filled; /* GONE ones too */
} heap;

static char gone;
#define GONE ((void *)&gone)

static size_t place_of(const void *memory)
{
    return (uintptr_t)memory / 16 * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (heap.capacity - 1);
}

static void heap_put(void *memory)
{
    size_t at = place_of(memory);
    while (heap.entries[at])
        at = (at + 1) & (heap.capacity - 1);
    heap.entries[at] = memory;
    heap.filled++;
}

static void heap_grow(void)
{
    void **old = heap.entries;
    size_t old_capacity = heap.capacity;
    size_t live = 0;
    for (size_t i = 0; i < old_capacity; i++)
        live += old[i] && old[i] != GONE;
    heap.capacity = 1024;
    while (heap.capacity < live * 4)
        heap.capacity *= 2;
    heap.entries = __real_calloc(heap.capacity, sizeof(*heap.entries));
    cr_assert(ne(ptr, (void *)heap.entries, NULL));
    heap.filled = 0;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i] && old[i] != GONE)
            heap_put(old[i]);
    __real_free((void *)old);
}

static void *keep(void *memory)
{
    if (!memory || !world.in_core)
        return memory;
    if (heap.filled * 2 >= heap.capacity)
        heap_grow();
    heap_put(memory);
    return memory;
}

static void forget(const void *memory)
{
    if (!memory || heap.capacity == 0)
        return;
    for (size_t at = place_of(memory); heap.entries[at]; at = (at + 1) & (heap.capacity - 1)) {
        if (heap.entries[at] != memory)
            continue;
        heap.entries[at] = GONE;
        return;
    }
}

size_t world_count_memory(void)
{
    size_t count = 0;
    for (size_t i = 0; i < heap.capacity; i++)
        count += heap.entries[i] && heap.entries[i] != GONE;
    return count;
}

void world_free_all(void)
{
    for (size_t i = 0; i < heap.capacity; i++)
        if (heap.entries[i] != GONE)
            __real_free(heap.entries[i]);
    __real_free((void *)heap.entries);
    memset(&heap, 0, sizeof(heap));
}

static bool runs_out(void)
{
    if (!world.in_core)
        return false;
    if (world.fails_at > 0)
        return --world.fails_at == 0;
    if (world.fail_one_in == 0)
        return false;
    return (uint32_t)rand_r(&world.seed) % world.fail_one_in == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return runs_out() ? NULL : keep(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return runs_out() ? NULL : keep(__real_calloc(count, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (runs_out())
        return NULL;
    forget(old);
    return keep(__real_realloc(old, bytes));
}

void __wrap_free(void *memory)
{
    forget(memory);
    __real_free(memory);
}
