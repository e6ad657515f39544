/* SPDX-License-Identifier: MIT */
#include "client/cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/cleanup.h"
#include "common/clock.h"

TestSuite(text, .timeout = 20);

Test(text, reads_sizes)
{
    static const struct {
        char *text;
        int result;
        uint64_t bytes;
    } rows[] = {
        {"0", 0, 0},
        {"512", 0, 512},
        {"1K", 0, 1024},
        {"64M", 0, UINT64_C(64) << 20},
        {"2g", 0, UINT64_C(2) << 30},
        {"3T", 0, UINT64_C(3) << 40},
        {"1KiB", 0, 1024},
        {"1kb", 0, 1024},
        {"18446744073709551615", 0, UINT64_MAX},
        {"16777215T", 0, UINT64_C(16777215) << 40},
        {"18446744073709551616", -ERANGE, 0},
        {"16777216T", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"K", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"1Kx", -EINVAL, 0},
        {"1B", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        uint64_t bytes = 0;
        cr_expect(eq(int, lki_text_parse_size(rows[i].text, &bytes), rows[i].result), "'%s'",
                  rows[i].text);
        cr_expect(eq(u64, bytes, rows[i].bytes), "'%s'", rows[i].text);
    }
}

Test(text, reads_counts_up_to_a_maximum)
{
    uint64_t count = 7;
    cr_assert(eq(int, lki_text_parse_count("255", 255, &count), 0));
    cr_assert(eq(u64, count, 255));
    cr_expect(eq(int, lki_text_parse_count("256", 255, &count), -ERANGE));
    cr_expect(eq(int, lki_text_parse_count("1K", 255, &count), -EINVAL));
    cr_expect(eq(int, lki_text_parse_count("-1", 255, &count), -EINVAL));
    cr_expect(eq(u64, count, 255), "written on success only");
}

Test(text, reads_seconds_as_flock_does)
{
    static const struct {
        char *text;
        int result;
        uint64_t ns;
    } rows[] = {
        {"0", 0, 0},
        {"-0", 0, 0},
        {"5", 0, 5 * LKI_NS_PER_S},
        {"0.5", 0, LKI_NS_PER_S / 2},
        {".25", 0, LKI_NS_PER_S / 4},
        {"5e-1", 0, LKI_NS_PER_S / 2},
        {"", -EINVAL, 0},
        {"x", -EINVAL, 0},
        {"1:00", -EINVAL, 0},
        {"nan", -EINVAL, 0},
        {"-1", -ERANGE, 0},
        {"inf", -ERANGE, 0},
        {"1e30", -ERANGE, 0},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        uint64_t ns = 0;
        cr_expect(eq(int, lki_text_parse_seconds(rows[i].text, &ns), rows[i].result), "'%s'",
                  rows[i].text);
        cr_expect(eq(u64, ns, rows[i].ns), "'%s'", rows[i].text);
    }
}

Test(text, writes_durations)
{
    static const struct {
        uint64_t ns;
        char *text;
    } rows[] = {
        {0, "0.0s"},
        {LKI_NS_PER_S - 1, "0.9s"},
        {59 * LKI_NS_PER_S + 999999999, "59.9s"},
        {60 * LKI_NS_PER_S, "1m00s"},
        {133 * LKI_NS_PER_S, "2m13s"},
        {3600 * LKI_NS_PER_S, "1h00m"},
        {3720 * LKI_NS_PER_S, "1h02m"},
        {86400 * LKI_NS_PER_S, "1d00h"},
        {UINT64_MAX, "213503d23h"},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++)
        cr_expect(eq(str, lki_text_duration(rows[i].ns).text, rows[i].text));
}

Test(text, writes_sizes_never_larger_than_they_are)
{
    static const struct {
        uint64_t bytes;
        char *text;
    } rows[] = {
        {0, "0"},
        {1023, "1023"},
        {1024, "1K"},
        {1536, "1.5K"},
        {2047, "1.9K"},
        {UINT64_C(64) << 20, "64M"},
        {(UINT64_C(1) << 30) - 1, "1023M"},
        {UINT64_C(64) << 40, "64T"},
        {UINT64_MAX, "15.9E"},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++)
        cr_expect(eq(str, lki_text_size(rows[i].bytes).text, rows[i].text));
}

Test(text, writes_and_splits_labels)
{
    static const struct {
        char *label, *segment, *lock_name;
        int64_t index;
        bool by_index;
    } rows[] = {
        {"backup", "backup", NULL, 0, true},
        {"backup#3", "backup", "3", 3, true},
        {"backup#orders", "backup", "orders", 0, false},
        {"backup#", "backup", "", 0, false},
        {"backup#3x", "backup", "3x", 0, false},
        {"backup#4294967295", "backup", "4294967295", 4294967295, true},
        {"backup#4294967296", "backup", "4294967296", -1, true},
        {"a#b#c", "a", "b#c", 0, false},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(rows); i++) {
        char label[64];
        const char *lock_name;
        int64_t index;
        strcpy(label, rows[i].label);
        bool by_index = lki_text_split_label(label, &lock_name, &index);
        cr_expect(eq(int, by_index, rows[i].by_index), "%s", rows[i].label);
        cr_expect(eq(str, label, rows[i].segment), "%s", rows[i].label);
        cr_expect(eq(i64, index, rows[i].index), "%s", rows[i].label);
        cr_expect(eq(int, lock_name != NULL, rows[i].lock_name != NULL), "%s", rows[i].label);
        if (lock_name && rows[i].lock_name)
            cr_expect(eq(str, (char *)lock_name, rows[i].lock_name));
    }
    LKI_CLEANUP(lki_free_p) char *plain = lki_text_lock_label("a", 0, "");
    LKI_CLEANUP(lki_free_p) char *number = lki_text_lock_label("a", 3, "");
    LKI_CLEANUP(lki_free_p) char *name = lki_text_lock_label("a", 3, "orders");
    cr_expect(eq(str, plain, "a"));
    cr_expect(eq(str, number, "a#3"));
    cr_expect(eq(str, name, "a#orders"));
}

Test(text, shows_no_command_line_of_nobody)
{
    LKI_CLEANUP(lki_free_p) char *line = lki_text_command_line(getpid());
    cr_expect(ne(ptr, line, NULL));
    cr_expect(eq(ptr, lki_text_command_line(-1), NULL));
}
