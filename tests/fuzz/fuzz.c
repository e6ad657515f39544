/* SPDX-License-Identifier: MIT */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* FUZZ_CHECK() always has one argument more than its words name: no attribute could check those. */
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

void (*fuzz_on_fail)(void);

void fuzz_fail(const char *file, int line, const char *expression, const char *format, ...)
{
    va_list arguments;
    if (fuzz_on_fail)
        fuzz_on_fail();
    fprintf(stderr, "fuzz: check failed: %s (%s:%d): ", expression, file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}
