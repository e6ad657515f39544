/* SPDX-License-Identifier: MIT */
/* Texts that are made of what others chose: names, commands. Pure. */
#pragma once

#include <stddef.h>

/* How many bytes the character at text has; 0 if it is not fit for a terminal and a log: a control
 * character, also U+0080 to U+009F, or not UTF-8. Text is zero-terminated and not empty. */
size_t lki_printable_bytes(const char *text);

/* Makes text fit for a terminal and a log: what is not becomes '?', byte by byte. Returns text. */
char *lki_printable(char *text);
