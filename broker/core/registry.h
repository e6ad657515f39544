/* SPDX-License-Identifier: MIT */
/* The names of segments, and their numbers. A segment loses its name when it is removed and its
 * number when it ends; numbers rise and come round only after 2^24 segments. */
#pragma once

#include "broker/core/state.h"

#define LKD_SEGMENT_NUMBER_MAX 0xffffffu /* so that a listing's cursor has room for one */

/* Parses a name as the session wrote it and spells its owner out. 0, or -EINVAL with the reason. */
int lkd_registry_parse(const struct lkd_session *session, struct lki_bytes text,
                       struct lkd_name *out_name, uint32_t *out_name_bytes,
                       const char **out_reason);

struct lkd_segment *lkd_registry_find_name(const struct lkd_core *core, const struct lkd_name *name,
                                           uint32_t name_bytes);
struct lkd_segment *lkd_registry_find_number(const struct lkd_core *core, uint32_t number);

/* Gives the segment its number and enters it. False: no memory, nothing was entered. */
bool lkd_registry_add(struct lkd_core *core, struct lkd_segment *segment);

/* The same for one that has its number, and perhaps no name any more. */
bool lkd_registry_adopt(struct lkd_core *core, struct lkd_segment *segment, bool named);

/* The name is free from now on. Twice is once. */
void lkd_registry_remove_name(struct lkd_core *core, struct lkd_segment *segment);
void lkd_registry_remove(struct lkd_core *core, struct lkd_segment *segment);

/* The name as a session of `uid` may write it, zero-terminated; buffer of LKI_NAME_TEXT_BYTES_MAX
 * + 1 bytes. Returns its length. */
size_t lkd_name_show(const struct lkd_name *name, uint32_t name_bytes, uint32_t uid, char *buffer);
