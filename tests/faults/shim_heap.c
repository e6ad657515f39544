/* SPDX-License-Identifier: MIT */
/* The allocator as the program sees it: each call may fail by plan, and blocks are counted. Below
 * is the C library's, by the names that it has for that purpose. */
#include <errno.h>
#include <stdlib.h>

#include "common/compiler.h"
#include "tests/faults/shim.h"

#define EXPORT __attribute__((visibility("default")))

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *block);

static void *counted(void *block)
{
    if (block != NULL)
        faults_count_blocks(1);
    return block;
}

static bool refused(const void *caller)
{
    int error = faults_ask(FAULTS_ALLOC, caller, true);
    if (error != 0)
        errno = error;
    return error != 0;
}

EXPORT void *malloc(size_t bytes)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__libc_malloc(bytes));
}

EXPORT void *calloc(size_t count, size_t bytes)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__libc_calloc(count, bytes));
}

EXPORT void *realloc(void *block, size_t bytes)
{
    if (block != NULL && bytes == 0) {
        free(block);
        return NULL;
    }
    if (refused(__builtin_return_address(0)))
        return NULL;
    void *moved = __libc_realloc(block, bytes);
    return block == NULL ? counted(moved) : moved;
}

EXPORT void *memalign(size_t alignment, size_t bytes);
EXPORT void *memalign(size_t alignment, size_t bytes)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__libc_memalign(alignment, bytes));
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__libc_memalign(alignment, bytes));
}

EXPORT int posix_memalign(void **out_block, size_t alignment, size_t bytes)
{
    void *block = refused(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, bytes);
    if (block == NULL)
        return ENOMEM;
    *out_block = counted(block);
    return 0;
}

EXPORT void free(void *block)
{
    if (block == NULL)
        return;
    faults_count_blocks(-1);
    __libc_free(block);
}
