/* SPDX-License-Identifier: MIT */
#include "client/cli/hex.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(hex, .timeout = 20);

/* What is printed of bytes that come in pieces of this size. */
static char *dump(uint64_t offset, const void *bytes, size_t count, size_t piece)
{
    static char text[4096];
    struct lki_hex hex = {.offset = offset};
    FILE *out = fmemopen(text, sizeof(text), "w");
    cr_assert(ne(ptr, out, NULL));
    for (size_t done = 0; done < count; done += piece)
        lki_hex_print(&hex, (const unsigned char *)bytes + done,
                      count - done < piece ? count - done : piece, out);
    lki_hex_finish(&hex, out);
    fputc('\0', out);
    fclose(out);
    return text;
}

Test(hex, prints_nothing_but_the_offset_of_no_bytes)
{
    cr_assert(eq(str, dump(16, "", 0, 1), "00000010\n"));
}

Test(hex, fills_a_short_line_up)
{
    cr_assert(eq(str, dump(0, "AB\n", 3, 3),
                 "00000000  41 42 0a                                          |AB.|\n"
                 "00000003\n"));
}

Test(hex, prints_equal_lines_once_however_the_bytes_come)
{
    char bytes[83];
    memset(bytes, 'x', sizeof(bytes));
    bytes[16] = 'y';
    static char expected[] =
        "100000000  78 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  |xxxxxxxxxxxxxxxx|\n"
        "100000010  79 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  |yxxxxxxxxxxxxxxx|\n"
        "100000020  78 78 78 78 78 78 78 78  78 78 78 78 78 78 78 78  |xxxxxxxxxxxxxxxx|\n"
        "*\n"
        "100000050  78 78 78                                          |xxx|\n"
        "100000053\n";
    static const size_t pieces[] = {1, 7, 16, 83};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        cr_expect(eq(str, dump(UINT64_C(1) << 32, bytes, sizeof(bytes), pieces[i]), expected),
                  "pieces of %zu", pieces[i]);
}
