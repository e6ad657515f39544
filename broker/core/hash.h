/* SPDX-License-Identifier: MIT */
/* uthash as the broker uses it: memory may run out without ending the process, and every key goes
 * through a seeded hash, since peers choose the names. Use the ..._BYHASHVALUE forms with
 * lkd_hash(); after an addition look at element->HANDLE.tbl: NULL means that memory ran out. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
/* Not declared anywhere: the forms of uthash that bring no hash of their own do not compile. */
#define HASH_FUNCTION(key, key_bytes, value) lkd_hash_needs_a_seed(key, key_bytes, value)
#include <uthash.h>

/* XXH3 with a seed. Pure. */
unsigned lkd_hash(uint64_t seed, const void *key, size_t key_bytes);
