/* SPDX-License-Identifier: MIT */
/* Structures of the public API that begin with their own size: callers may have been compiled
 * against an older or a newer header. Pure. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Copies the caller's options into ours of own_bytes, zero where the caller's end. given NULL: all
 * zero. Returns 0; -EINVAL: size missing, or the caller asks for something that this version does
 * not know. */
static inline int lki_options_read(const void *given, size_t own_bytes, void *out_own)
{
    memset(out_own, 0, own_bytes);
    if (!given)
        return 0;
    size_t given_bytes;
    memcpy(&given_bytes, given, sizeof(given_bytes));
    if (given_bytes < sizeof(size_t) || given_bytes > 4096)
        return -EINVAL;
    for (size_t i = own_bytes; i < given_bytes; i++)
        if (((const unsigned char *)given)[i] != 0)
            return -EINVAL;
    memcpy(out_own, given, given_bytes < own_bytes ? given_bytes : own_bytes);
    return 0;
}

/* Fills the caller's structure from ours, as far as it goes; what it has beyond becomes zero.
 * Returns 0, or -EINVAL when its size is missing. */
static inline int lki_options_write(void *given, const void *own, size_t own_bytes)
{
    if (!given)
        return -EINVAL;
    size_t given_bytes;
    memcpy(&given_bytes, given, sizeof(given_bytes));
    if (given_bytes < sizeof(size_t) || given_bytes > 4096)
        return -EINVAL;
    size_t common_bytes = given_bytes < own_bytes ? given_bytes : own_bytes;
    memset(given, 0, given_bytes);
    memcpy(given, own, common_bytes);
    memcpy(given, &given_bytes, sizeof(given_bytes));
    return 0;
}
