/* SPDX-License-Identifier: MIT */
/* Names of segments and locks: what is allowed, and whose a segment's name is.
 *
 *     NAME         the caller's own
 *     ~UID/NAME    of the user with that number
 *     @GID/NAME    of the group with that number
 *
 * On the wire the numbers are decimal; the client resolves "~alice/" and "@staff/" before it sends.
 * NAME is 1 to LKI_NAME_BYTES_MAX bytes of UTF-8 without control characters, '#' and '/', and does
 * not begin with '~' or '@'. One name has one spelling. Pure functions. */
#pragma once

#include <stdint.h>

#include "proto/message.h"

enum lki_name_kind {
    LKI_NAME_OWN,
    LKI_NAME_USER,
    LKI_NAME_GROUP,
};

struct lki_name {
    enum lki_name_kind kind;
    uint32_t id;            /* uid or gid; 0 for LKI_NAME_OWN */
    struct lki_bytes bytes; /* NAME without the prefix; borrows the text that was parsed */
};

/* "~4294967294/" and the name. */
#define LKI_NAME_TEXT_BYTES_MAX (12u + LKI_NAME_BYTES_MAX)

/**
 * Splits "~WHO/NAME" and "@WHO/NAME" without looking at what WHO and NAME are: for clients, whose
 * users write login names. *out_who is empty for an own name.
 */
enum lki_name_kind lki_name_split(struct lki_bytes text, struct lki_bytes *out_who,
                                  struct lki_bytes *out_name);

/**
 * Parses a segment's name as it is on the wire.
 * @out_reason: on failure why, in words without a final stop; static. May be NULL
 * Errors:      -EINVAL
 */
int lki_name_parse(struct lki_bytes text, struct lki_name *out, const char **out_reason);

/* Writes the name as it is on the wire into `buffer` of LKI_NAME_TEXT_BYTES_MAX + 1 bytes and
 * terminates it with a zero. The name is one that lki_name_parse() would accept. Returns its length
 * in bytes. */
size_t lki_name_format(const struct lki_name *name, char *buffer);

/* Checks a lock's name: as NAME above, but '~' and '@' may begin it, and it is not all digits,
 * which would be an index. Errors: -EINVAL; *out_reason as above. */
int lki_lock_name_check(struct lki_bytes text, const char **out_reason);
