/* SPDX-License-Identifier: MIT */
#include "tests/sim/memory.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void __real_free(void *memory);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __wrap_free(void *memory);
char *__wrap_strdup(const char *text);

/* Open addressing; GONE marks an entry that was there. Addresses decide about places alone, never
 * about what happens. */
struct note {
    void *memory; /* NULL: empty */
    uint32_t owner;
};

static struct {
    struct note *notes;
    size_t capacity;
    size_t filled; /* GONE ones too */
    uint32_t owner;
} heap;

static char gone;
#define GONE ((void *)&gone)

static size_t place_of(const void *memory)
{
    return (uintptr_t)memory / 16 * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (heap.capacity - 1);
}

static void put(void *memory, uint32_t owner)
{
    size_t at = place_of(memory);
    while (heap.notes[at].memory)
        at = (at + 1) & (heap.capacity - 1);
    heap.notes[at] = (struct note){memory, owner};
    heap.filled++;
}

static void grow(void)
{
    struct note *old = heap.notes;
    size_t old_capacity = heap.capacity;
    size_t live = 0;
    for (size_t i = 0; i < old_capacity; i++)
        live += old[i].memory && old[i].memory != GONE;
    heap.capacity = 4096;
    while (heap.capacity < live * 4)
        heap.capacity *= 2;
    heap.notes = __real_calloc(heap.capacity, sizeof(*heap.notes));
    LKI_ASSERT(heap.notes);
    heap.filled = 0;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].memory && old[i].memory != GONE)
            put(old[i].memory, old[i].owner);
    __real_free(old);
}

static void *keep(void *memory, uint32_t owner)
{
    LKI_ASSERT(memory);
    if (owner == MEMORY_NOBODY)
        return memory;
    if (heap.filled * 2 >= heap.capacity)
        grow();
    put(memory, owner);
    return memory;
}

static void forget(const void *memory)
{
    if (!memory || heap.capacity == 0)
        return;
    for (size_t at = place_of(memory); heap.notes[at].memory; at = (at + 1) & (heap.capacity - 1)) {
        if (heap.notes[at].memory != memory)
            continue;
        heap.notes[at].memory = GONE;
        return;
    }
}

uint32_t memory_set_owner(uint32_t owner)
{
    uint32_t before = heap.owner;
    heap.owner = owner;
    return before;
}

void *memory_take(uint32_t owner, size_t bytes)
{
    return keep(__real_calloc(1, bytes), owner);
}

void memory_free_owned(uint32_t owner)
{
    for (size_t i = 0; i < heap.capacity; i++) {
        struct note *note = &heap.notes[i];
        if (!note->memory || note->memory == GONE || note->owner != owner)
            continue;
        __real_free(note->memory);
        note->memory = GONE;
    }
}

void memory_free_all(void)
{
    for (size_t i = 0; i < heap.capacity; i++)
        if (heap.notes[i].memory != GONE)
            __real_free(heap.notes[i].memory);
    __real_free(heap.notes);
    memset(&heap, 0, sizeof(heap));
}

void *__wrap_malloc(size_t bytes)
{
    return keep(__real_malloc(bytes), heap.owner);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return keep(__real_calloc(count, bytes), heap.owner);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    forget(old);
    return keep(__real_realloc(old, bytes), heap.owner);
}

void __wrap_free(void *memory)
{
    forget(memory);
    __real_free(memory);
}

char *__wrap_strdup(const char *text)
{
    return keep(__real_strdup(text), heap.owner);
}
