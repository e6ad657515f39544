/* SPDX-License-Identifier: MIT */
/* Where the views of a session's lock handles lie (struct lk_inline): in memory that a forked child finds
 * zeroed. So a view whose pointers are NULL is one through which nothing may be done, whatever the reason, and
 * the fast paths ask for nothing else. One thread. */
#pragma once

#include <stddef.h>

#include <lockkeeper/inline.h>

struct lki_view_block; /* a map full of them */

struct lki_views {
    struct lk_inline *next; /* the first that no handle has, of `left` */
    size_t left;
    struct lki_view_block *blocks;
};

/* The first ones are the caller's, who has them wiped as well; zeroed. More are mapped when they are needed. */
void lki_views_init(struct lki_views *views, struct lk_inline *first, size_t count);

/* A view of which all is 0, until deinit; NULL: no memory. */
struct lk_inline *lki_views_take(struct lki_views *views);

void lki_views_deinit(struct lki_views *views);
