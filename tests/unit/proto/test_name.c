/* SPDX-License-Identifier: MIT */
#include "proto/name.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(name, .timeout = 20);

static struct lki_bytes text(const char *string)
{
    return (struct lki_bytes){(const uint8_t *)string, strlen(string)};
}

/* `length_bytes` letters after a prefix. */
static struct lki_bytes long_text(const char *prefix, size_t length_bytes)
{
    static char buffer[512];
    const size_t prefix_bytes = strlen(prefix);

    memcpy(buffer, prefix, prefix_bytes);
    memset(buffer + prefix_bytes, 'n', length_bytes);
    return (struct lki_bytes){(const uint8_t *)buffer, prefix_bytes + length_bytes};
}

Test(name, accepts_whose_and_what)
{
    static const struct {
        const char *text;
        enum lki_name_kind kind;
        uint32_t id;
        const char *name;
    } rows[] = {
        {"build", LKI_NAME_OWN, 0, "build"},
        {"x", LKI_NAME_OWN, 0, "x"},
        {"a b.c~d@e", LKI_NAME_OWN, 0, "a b.c~d@e"},
        {"~0/x", LKI_NAME_USER, 0, "x"},
        {"~1000/build", LKI_NAME_USER, 1000, "build"},
        {"~4294967294/x", LKI_NAME_USER, 4294967294u, "x"},
        {"@27/gpu", LKI_NAME_GROUP, 27, "gpu"},
        {"12", LKI_NAME_OWN, 0, "12"},
        {"gr\xc3\xbc\xc3\x9f", LKI_NAME_OWN, 0, "gr\xc3\xbc\xc3\x9f"},
        {"\xe2\x82\xac", LKI_NAME_OWN, 0, "\xe2\x82\xac"},
        {"\xf4\x8f\xbf\xbf", LKI_NAME_OWN, 0, "\xf4\x8f\xbf\xbf"}, /* U+10FFFF */
        {"\xc2\xa0", LKI_NAME_OWN, 0, "\xc2\xa0"},                 /* just above the controls */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *reason = "";
        struct lki_name name;
        char back[LKI_NAME_TEXT_BYTES_MAX + 1];

        cr_assert(eq(int, lki_name_parse(text(rows[i].text), &name, &reason), 0), "%s: %s",
                  rows[i].text, reason);
        cr_expect(eq(int, name.kind, rows[i].kind), "%s", rows[i].text);
        cr_expect(eq(u32, name.id, rows[i].id), "%s", rows[i].text);
        cr_expect(eq(sz, name.bytes.length_bytes, strlen(rows[i].name)), "%s", rows[i].text);
        cr_expect(eq(int, memcmp(name.bytes.data, rows[i].name, name.bytes.length_bytes), 0), "%s",
                  rows[i].text);
        cr_expect(eq(sz, lki_name_format(&name, back), strlen(rows[i].text)), "%s", rows[i].text);
        cr_expect(eq(str, back, (char *)rows[i].text));
    }
}

Test(name, refuses_with_a_reason)
{
    static const struct {
        const char *text;
        const char *reason; /* a part of it */
    } rows[] = {
        {"", "empty"},
        {"~1000/", "empty"},
        {"a#b", "'#'"},
        {"a/b", "'/'"},
        {"/a", "'/'"},
        {"a/", "'/'"},
        {"~1000/a/b", "'/'"},
        {"~1000//a", "'/'"},
        {"a\nb", "control"},
        {"\x1b[31m", "control"},
        {"\x7f", "control"},
        {"\xc2\x80", "control"}, /* U+0080 */
        {"\xc2\x9f", "control"}, /* U+009F */
        {"\xff", "UTF-8"},
        {"\x80", "UTF-8"},             /* a continuation alone */
        {"\xc3", "UTF-8"},             /* cut off */
        {"\xc3(", "UTF-8"},            /* no continuation */
        {"\xc0\xaf", "UTF-8"},         /* '/' written too long */
        {"\xe0\x80\xaf", "UTF-8"},     /* and longer */
        {"\xf0\x80\x80\xaf", "UTF-8"}, /* and longer */
        {"\xed\xa0\x80", "UTF-8"},     /* a surrogate */
        {"\xf4\x90\x80\x80", "UTF-8"}, /* U+110000 */
        {"\xf8\x88\x80\x80\x80", "UTF-8"},
        {"~alice/x", "uid"},
        {"~/x", "uid"},
        {"~01/x", "uid"},
        {"~-1/x", "uid"},
        {"~+1/x", "uid"},
        {"~ 1/x", "uid"},
        {"~4294967295/x", "uid"}, /* no user */
        {"~4294967296/x", "uid"},
        {"~18446744073709551616/x", "uid"},
        {"@staff/x", "gid"},
        {"@4294967295/x", "gid"},
        {"~1000", "begins with"},
        {"@ml", "begins with"},
        {"~1000/~x", "begins with"},
        {"~1000/@x", "begins with"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *reason = "(none)";
        struct lki_name name;

        cr_expect(eq(int, lki_name_parse(text(rows[i].text), &name, &reason), -EINVAL), "row %zu",
                  i);
        cr_expect(ne(ptr, strstr(reason, rows[i].reason), NULL), "row %zu: %s", i, reason);
    }
}

Test(name, refuses_a_zero_byte)
{
    const struct lki_bytes zero = {(const uint8_t *)"a\0b", 3};
    struct lki_name name;
    cr_expect(eq(int, lki_name_parse(zero, &name, NULL), -EINVAL));
    cr_expect(eq(int, lki_lock_name_check(zero, NULL), -EINVAL));
}

Test(name, has_255_bytes_at_most_and_the_prefix_does_not_count)
{
    struct lki_name name;
    char back[LKI_NAME_TEXT_BYTES_MAX + 1];

    cr_expect(eq(int, lki_name_parse(long_text("", LKI_NAME_BYTES_MAX), &name, NULL), 0));
    cr_expect(eq(int, lki_name_parse(long_text("", LKI_NAME_BYTES_MAX + 1), &name, NULL), -EINVAL));
    const struct lki_bytes longest = long_text("~4294967294/", LKI_NAME_BYTES_MAX);
    cr_expect(eq(sz, longest.length_bytes, LKI_NAME_TEXT_BYTES_MAX));
    cr_assert(eq(int, lki_name_parse(longest, &name, NULL), 0));
    cr_expect(eq(sz, lki_name_format(&name, back), LKI_NAME_TEXT_BYTES_MAX));
    cr_expect(
        eq(int, lki_name_parse(long_text("@1/", LKI_NAME_BYTES_MAX + 1), &name, NULL), -EINVAL));
}

Test(name, leaves_the_output_alone_on_failure)
{
    struct lki_name name = {.kind = LKI_NAME_GROUP, .id = 7};
    lki_name_parse(text("~1/a/b"), &name, NULL);
    cr_expect(eq(int, name.kind, LKI_NAME_GROUP));
    cr_expect(eq(u32, name.id, 7));
}

Test(name, splits_what_a_user_wrote)
{
    struct lki_bytes who, name;

    cr_expect(eq(int, lki_name_split(text("~alice/jobs"), &who, &name), LKI_NAME_USER));
    cr_expect(eq(sz, who.length_bytes, 5));
    cr_expect(eq(int, memcmp(who.data, "alice", 5), 0));
    cr_expect(eq(sz, name.length_bytes, 4));
    cr_expect(eq(int, memcmp(name.data, "jobs", 4), 0));
    cr_expect(eq(int, lki_name_split(text("@ml/gpu"), &who, &name), LKI_NAME_GROUP));
    cr_expect(eq(int, lki_name_split(text("jobs"), &who, &name), LKI_NAME_OWN));
    cr_expect(eq(sz, who.length_bytes, 0));
    cr_expect(eq(sz, name.length_bytes, 4));
}

Test(name, of_a_lock_is_checked_like_the_rest)
{
    static const struct {
        const char *text;
        int result;
    } rows[] = {
        {"orders", 0},     {"12a", 0},          {"~x", 0},        {"@x", 0},
        {"-1", 0},         {"\xe2\x82\xac", 0}, {"", -EINVAL},    {"0", -EINVAL},
        {"12", -EINVAL},   {"a/b", -EINVAL},    {"a#b", -EINVAL}, {"a\tb", -EINVAL},
        {"\xc3", -EINVAL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *reason = NULL;
        cr_expect(eq(int, lki_lock_name_check(text(rows[i].text), &reason), rows[i].result),
                  "row %zu", i);
        cr_expect(eq(int, reason != NULL, rows[i].result != 0), "row %zu", i);
    }
    cr_expect(eq(int, lki_lock_name_check(long_text("", LKI_NAME_BYTES_MAX), NULL), 0));
    cr_expect(eq(int, lki_lock_name_check(long_text("", LKI_NAME_BYTES_MAX + 1), NULL), -EINVAL));
}
