/* SPDX-License-Identifier: MIT */
#include "common/assert.h"

#include <stdio.h>
#include <stdlib.h>

void lki_assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "lockkeeper: assertion failed: %s (%s:%d)\n", expression, file, line);
    abort();
}
