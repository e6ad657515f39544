/* SPDX-License-Identifier: MIT */
/* A window: one mapping of a part of a segment's data, at any offset and length. Pages are rounded
 * to outside; the user's address points to the byte that was asked for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"

struct lk_segment;

struct lki_window {
    struct lki_list node; /* in segment->windows */
    void *address;        /* what the user has */
    void *base;           /* of the mapping */
    size_t bytes;
    bool guarded;
};

/* Leaves its list and frees; unmap false: leaves the mapping alone (in a forked child). */
void lki_window_free(struct lki_window *window, bool unmap);
