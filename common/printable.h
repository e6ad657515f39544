/* SPDX-License-Identifier: MIT */
/* Texts that are made of what others chose: names, commands. Pure. */
#pragma once

/* Makes text fit for a terminal and a log: control characters, also U+0080 to U+009F, and whatever
 * is not UTF-8 become '?'. Returns text. */
char *lki_printable(char *text);
