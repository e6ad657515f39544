/* SPDX-License-Identifier: MIT */
/* What --json prints of locks: numbers as numbers, times as whole nanoseconds, null for what is not
 * known. Everything here answers NULL where memory ran out; jansson passes that through. */
#pragma once

#include <jansson.h>

#include "client/cli/listing.h"

/* A number, or null for 0. New reference. */
json_t *lki_json_known(uint64_t value);

/* A token, or any number of 64 bits without sign. New reference. */
json_t *lki_json_number(uint64_t value);

/* Array with one object per lock: name, lock, state, mode, token, holders, waiters. New reference.
 */
json_t *lki_json_locks(const struct lki_listing *listing);

/* One lock as in that array. New reference. */
json_t *lki_json_lock(const struct lki_listing_lock *lock);

/* Prints the document and a newline to stdout, and drops the reference. Returns the exit code. */
int lki_cli_print_json(json_t *document);
