/* SPDX-License-Identifier: MIT */
/* The lines of a listing of locks: owners, readers, waiters and damage of one segment, taken from
 * its words, waits and cells. Every fact is copied once and bounded; the lines of a page are the
 * smallest keys from the cursor on, so nothing has to be remembered between pages. */
#pragma once

#include "broker/core/state.h"

/* A cursor: the segment's number, then the key of a line: lock (20 bits), class (2), rest (18). */
#define LKD_CURSOR_KEY_BITS 40u
#define LKD_CURSOR_KEY_MASK ((UINT64_C(1) << LKD_CURSOR_KEY_BITS) - 1)

#define LKD_PAGE_WORK_MAX 65536u /* words and slots that one page looks at, about */
#define LKD_ENTRY_TEXT_BYTES_MAX (LKI_NAME_TEXT_BYTES_MAX + LKI_NAME_BYTES_MAX + 32u)

struct lkd_page { /* one LIST_PAGE being filled */
    struct lkd_core *core;
    struct lkd_session *session;
    uint64_t now_ns;
    struct lki_list_page *list;
    struct lki_list_entry *entries;
    uint8_t *text;
    uint64_t work;
    bool graph; /* only locks that somebody waits for; of foreign segments no more than that */
};

bool lkd_page_begin(struct lkd_page *page, struct lkd_core *core, struct lkd_session *session,
                    uint64_t request, uint64_t now_ns);
size_t lkd_page_room(const struct lkd_page *page);
struct lki_list_entry *lkd_page_add(struct lkd_page *page);
struct lki_bytes lkd_page_copy(struct lkd_page *page, const void *data, size_t length_bytes);
struct lki_bytes lkd_page_name(struct lkd_page *page, const struct lkd_segment *segment);

/* Adds the segment's lines from `key` on. True: all of them; else next_cursor says where to go on.
 */
bool lkd_listing_locks(struct lkd_page *page, const struct lkd_segment *segment, uint64_t key);
