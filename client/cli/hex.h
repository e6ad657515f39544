/* SPDX-License-Identifier: MIT */
/* Hexadecimal dump as of `hexdump -C`: offset, sixteen bytes, their text; equal lines as one '*'.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct lki_hex { /* start with the offset of the first byte and the rest zero */
    uint64_t offset;
    unsigned char line[16];
    unsigned char last[16];
    size_t used;
    bool has_last;
    bool starred;
};

void lki_hex_print(struct lki_hex *hex, const unsigned char *bytes, size_t count, FILE *out);

/* Prints what is left and the end offset. */
void lki_hex_finish(struct lki_hex *hex, FILE *out);
