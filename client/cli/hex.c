/* SPDX-License-Identifier: MIT */
#include "client/cli/hex.h"

#include <inttypes.h>
#include <string.h>

static void print_line(const struct lki_hex *hex, FILE *out)
{
    fprintf(out, "%08" PRIx64 " ", hex->offset);
    for (size_t i = 0; i < sizeof(hex->line); i++) {
        if (i == 8)
            fputc(' ', out);
        if (i < hex->used)
            fprintf(out, " %02x", hex->line[i]);
        else
            fputs("   ", out);
    }
    fputs("  |", out);
    for (size_t i = 0; i < hex->used; i++)
        fputc(hex->line[i] >= 0x20 && hex->line[i] < 0x7f ? hex->line[i] : '.', out);
    fputs("|\n", out);
}

static void flush_line(struct lki_hex *hex, FILE *out)
{
    bool whole = hex->used == sizeof(hex->line);
    if (whole && hex->has_last && memcmp(hex->line, hex->last, sizeof(hex->line)) == 0) {
        if (!hex->starred)
            fputs("*\n", out);
        hex->starred = true;
    } else {
        print_line(hex, out);
        hex->starred = false;
        memcpy(hex->last, hex->line, sizeof(hex->last));
        hex->has_last = whole;
    }
    hex->offset += hex->used;
    hex->used = 0;
}

void lki_hex_print(struct lki_hex *hex, const unsigned char *bytes, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++) {
        hex->line[hex->used++] = bytes[i];
        if (hex->used == sizeof(hex->line))
            flush_line(hex, out);
    }
}

void lki_hex_finish(struct lki_hex *hex, FILE *out)
{
    if (hex->used)
        flush_line(hex, out);
    fprintf(out, "%08" PRIx64 "\n", hex->offset);
}
