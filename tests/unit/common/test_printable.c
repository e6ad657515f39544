/* SPDX-License-Identifier: MIT */
#include "common/printable.h"

#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/cleanup.h"

Test(printable, cleans_what_could_harm_a_terminal)
{
    static const struct {
        char *dirty, *clean;
    } rows[] = {
        {"plain", "plain"},
        {"a\x1b[2Jb\nc\td\x7f", "a?[2Jb?c?d?"},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x94\x92",
         "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x94\x92"},
        {"\xff\xfe", "??"},
        {"cut \xc3", "cut ?"},
        {"cut \xe2\x82", "cut ??"},
        {"c1 \xc2\x9b", "c1 ??"}, /* a control sequence introducer in one character */
        {"\x80", "?"},
        {"\xe0\x80\xaf", "???"},      /* a slash, longer than need be */
        {"\xed\xa0\x80", "???"},      /* a surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* beyond U+10FFFF */
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        char text[64];
        strcpy(text, rows[i].dirty);
        cr_expect(eq(str, lki_printable(text), rows[i].clean), "row %zu", i);
    }
}
