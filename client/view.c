/* SPDX-License-Identifier: MIT */
#include "client/view.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BLOCK_BYTES ((size_t)16 << 10) /* pages that nobody has got to are not touched */

struct lki_view_block {
    struct lki_view_block *next;
    void *base;
};

static_assert(sizeof(void *) != 8 || sizeof(struct lk_inline) == 32,
              "two to a cache line, and none in two of them");

void lki_views_init(struct lki_views *views, struct lk_inline *first, size_t count)
{
    *views = (struct lki_views){.next = first, .left = count};
}

static bool add_block(struct lki_views *views)
{
    struct lki_view_block *block = malloc(sizeof(*block));
    if (!block)
        return false;
    block->base =
        mmap(NULL, BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block->base == MAP_FAILED || madvise(block->base, BLOCK_BYTES, MADV_WIPEONFORK) < 0) {
        if (block->base != MAP_FAILED)
            (void)munmap(block->base, BLOCK_BYTES);
        free(block);
        return false;
    }
    block->next = views->blocks;
    views->blocks = block;
    views->next = block->base;
    views->left = BLOCK_BYTES / sizeof(struct lk_inline);
    return true;
}

struct lk_inline *lki_views_take(struct lki_views *views)
{
    if (views->left == 0 && !add_block(views))
        return NULL;
    views->left--;
    return views->next++;
}

void lki_views_deinit(struct lki_views *views)
{
    while (views->blocks) {
        struct lki_view_block *block = views->blocks;
        views->blocks = block->next;
        (void)munmap(block->base, BLOCK_BYTES);
        free(block);
    }
    views->left = 0;
}
