/* SPDX-License-Identifier: MIT */
/* Names as people write them. The broker knows numbers only, so "~user/" and "@group/" are looked
 * up here, with the caller's view of the user database. The rules are in proto/name.h. */
#pragma once

#include "proto/name.h"

/* Room for a name as it goes over the wire, with its terminating zero. */
#define LKI_FULL_NAME_BYTES_MAX (LKI_NAME_TEXT_BYTES_MAX + 1)

/* Writes the name as the broker wants it: "~user/" as "~UID/", "@group/" as "@GID/", an own name as
 * it is. Returns 0; -EINVAL (a name that is not allowed), -ENOENT (no such user or group). Makes
 * the error text. Threads: any. */
int lki_name_resolve(const char *name, char out_full[LKI_FULL_NAME_BYTES_MAX]);
