/* SPDX-License-Identifier: MIT */
#include "broker/core/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

unsigned lkd_hash(uint64_t seed, const void *key, size_t key_bytes)
{
    return (unsigned)XXH3_64bits_withSeed(key, key_bytes, seed);
}
