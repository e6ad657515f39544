/* SPDX-License-Identifier: MIT */
/* What lk_last_error() says: one text per thread, made where a call fails. A text says what was
 * tried, on what, why not; the name of the code follows in brackets, and then what to do about it.
 */
#pragma once

#include <stdarg.h>

/* Makes the text "<format> (ENAME)" and returns result, which is negative. Keeps errno. */
int lki_fail(int result, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Appends "; <format>" to the text just made: the next step. Returns result, for a tail call. */
int lki_fail_hint(int result, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* "EBUSY" for -EBUSY; "unknown code" where there is no name. Static storage. */
const char *lki_error_name(int result);
