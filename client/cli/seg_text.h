/* SPDX-License-Identifier: MIT */
/* A segment of a listing in words and as JSON. Pure. */
#pragma once

#include <stdbool.h>

#include "client/cli/json.h"
#include "client/cli/text.h"
#include "proto/message.h"

bool lki_seg_has_data(const struct lki_list_entry *segment);

/* "memory", "file" or "locks". */
const char *lki_seg_kind(const struct lki_list_entry *segment);

/* "kept,strict"; may be empty. */
struct lki_text lki_seg_flags(const struct lki_list_entry *segment);

/* New reference; NULL: no memory. */
json_t *lki_seg_json(const struct lki_listing_entry *entry);
