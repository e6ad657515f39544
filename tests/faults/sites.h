/* SPDX-License-Identifier: MIT */
/* Call sites in words. */
#pragma once

#include <stddef.h>

#include "tests/faults/control.h"

/* "receive_record (channel.c:167)", by addr2line(1); "libuv.so.1+0x1b2c3" where there is no debug
 * information. Slow the first time for each. */
void sites_name(const struct faults_site *site, char *out, size_t bytes);
