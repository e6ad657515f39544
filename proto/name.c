/* SPDX-License-Identifier: MIT */
#include "proto/name.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The largest uid and gid; one more is the system's "none". */
#define ID_MAX (UINT32_MAX - 1)

/* Reads one code point of UTF-8. Returns its length, or 0 if that is none: cut off, a surrogate,
 * beyond U+10FFFF, or longer than need be (which would give one name two spellings). */
static size_t read_code_point(const uint8_t *bytes, size_t left_bytes, uint32_t *out)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t first = bytes[0];
    size_t length_bytes;
    uint32_t value;

    if (first < 0x80) {
        *out = first;
        return 1;
    }
    if (first < 0xc0 || first > 0xf7)
        return 0;
    length_bytes = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length_bytes > left_bytes)
        return 0;
    value = first & (0x7fu >> length_bytes);
    for (size_t i = 1; i < length_bytes; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes[i] & 0x3f);
    }
    if (value < smallest[length_bytes] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *out = value;
    return length_bytes;
}

static bool is_control(uint32_t code_point)
{
    return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
}

/* What names of segments and of locks have in common. NULL, or why not. */
static const char *check_bytes(struct lki_bytes name)
{
    size_t at = 0;

    if (name.length_bytes == 0)
        return "the name is empty";
    if (name.length_bytes > LKI_NAME_BYTES_MAX)
        return "the name is longer than 255 bytes";
    while (at < name.length_bytes) {
        uint32_t code_point;
        const size_t length_bytes =
            read_code_point(name.data + at, name.length_bytes - at, &code_point);
        if (length_bytes == 0)
            return "the name is not valid UTF-8";
        if (is_control(code_point))
            return "the name has a control character";
        if (code_point == '#')
            return "the name has a '#', which separates a lock from its segment";
        if (code_point == '/')
            return "the name has a '/' that does not end a '~user' or '@group' prefix";
        at += length_bytes;
    }
    return NULL;
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* A decimal number in its only spelling: no sign, no leading zero. */
static bool parse_id(struct lki_bytes text, uint32_t *out)
{
    uint64_t value = 0;

    if (text.length_bytes == 0 || text.length_bytes > 10 ||
        (text.data[0] == '0' && text.length_bytes > 1))
        return false;
    for (size_t i = 0; i < text.length_bytes; i++) {
        if (!is_digit(text.data[i]))
            return false;
        value = value * 10 + (text.data[i] - '0');
    }
    if (value > ID_MAX)
        return false;
    *out = (uint32_t)value;
    return true;
}

static int refuse(const char *reason, const char **out_reason)
{
    if (out_reason)
        *out_reason = reason;
    return -EINVAL;
}

enum lki_name_kind lki_name_split(struct lki_bytes text, struct lki_bytes *out_who,
                                  struct lki_bytes *out_name)
{
    *out_who = (struct lki_bytes){text.data, 0};
    *out_name = text;
    if (text.length_bytes == 0 || (text.data[0] != '~' && text.data[0] != '@'))
        return LKI_NAME_OWN;
    for (size_t i = 1; i < text.length_bytes; i++) {
        if (text.data[i] == '/') {
            *out_who = (struct lki_bytes){text.data + 1, i - 1};
            *out_name = (struct lki_bytes){text.data + i + 1, text.length_bytes - i - 1};
            return text.data[0] == '~' ? LKI_NAME_USER : LKI_NAME_GROUP;
        }
    }
    return LKI_NAME_OWN;
}

int lki_name_parse(struct lki_bytes text, struct lki_name *out, const char **out_reason)
{
    struct lki_name name = {0};
    struct lki_bytes who;

    name.kind = lki_name_split(text, &who, &name.bytes);
    if (name.kind == LKI_NAME_USER && !parse_id(who, &name.id))
        return refuse("the user before '/' is not a decimal uid", out_reason);
    if (name.kind == LKI_NAME_GROUP && !parse_id(who, &name.id))
        return refuse("the group before '/' is not a decimal gid", out_reason);
    const char *reason = check_bytes(name.bytes);
    if (reason)
        return refuse(reason, out_reason);
    if (name.bytes.data[0] == '~' || name.bytes.data[0] == '@')
        return refuse("a name that begins with '~' or '@' needs '/' after the user or group",
                      out_reason);
    *out = name;
    return 0;
}

size_t lki_name_format(const struct lki_name *name, char *buffer)
{
    const int length = (int)name->bytes.length_bytes;
    const char *bytes = (const char *)name->bytes.data;
    const size_t capacity_bytes = LKI_NAME_TEXT_BYTES_MAX + 1;
    int written = 0;

    switch (name->kind) {
    case LKI_NAME_OWN:
        written = snprintf(buffer, capacity_bytes, "%.*s", length, bytes);
        break;
    case LKI_NAME_USER:
        written = snprintf(buffer, capacity_bytes, "~%u/%.*s", name->id, length, bytes);
        break;
    case LKI_NAME_GROUP:
        written = snprintf(buffer, capacity_bytes, "@%u/%.*s", name->id, length, bytes);
        break;
    }
    return (size_t)written;
}

int lki_lock_name_check(struct lki_bytes text, const char **out_reason)
{
    const char *reason = check_bytes(text);
    if (reason)
        return refuse(reason, out_reason);
    for (size_t i = 0; i < text.length_bytes; i++) {
        if (!is_digit(text.data[i]))
            return 0;
    }
    return refuse("the name of a lock is all digits, which would be an index", out_reason);
}
