/* SPDX-License-Identifier: MIT */
#include "common/printable.h"

/* Bytes of the UTF-8 character at p, 0 if there is none. */
static size_t character_bytes(const unsigned char *p)
{
    size_t bytes = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((p[i] & 0xc0) != 0x80) /* the end of the text, too */
            return 0;
    /* Longer than need be, a surrogate, or beyond U+10FFFF: readers of our texts may be strict. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    /* U+0080 to U+009F are control characters as well. */
    return bytes == 2 && p[0] == 0xc2 && p[1] < 0xa0 ? 0 : bytes;
}

size_t lki_printable_bytes(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    return *p < 0x20 || *p == 0x7f ? 0 : character_bytes(p);
}

char *lki_printable(char *text)
{
    char *p = text;
    while (*p) {
        size_t bytes = lki_printable_bytes(p);
        if (bytes == 0) {
            *p = '?';
            bytes = 1;
        }
        p += bytes;
    }
    return text;
}
