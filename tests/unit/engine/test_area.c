/* SPDX-License-Identifier: MIT */
#include "engine/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void *memory;
static struct lki_area formatted;
static struct lki_area viewed;

static int format(uint32_t locks, uint32_t attachments, uint64_t sequence)
{
    struct lki_area_config config = {
        .locks = locks,
        .attachments_max = attachments,
        .patience_ns = 12345,
        .data_bytes = 100,
        .data_bytes_max = 4096,
        .sequence_start = sequence,
        .state = LKI_SEGMENT_UNPUBLISHED,
    };
    return lki_area_format(memory, &config, &formatted);
}

/* A sound area of 3 locks and 5 attachments, to be spoilt. */
static void setup(void)
{
    size_t bytes = lki_area_bytes(3, 5);
    memory = aligned_alloc(4096, bytes);
    cr_assert(ne(ptr, memory, NULL));
    memset(memory, 0, bytes);
    cr_assert(eq(int, format(3, 5, 8), 0));
}

static void teardown(void)
{
    free(memory);
}

static int view(void)
{
    return lki_area_view(memory, formatted.area_bytes, &viewed);
}

TestSuite(area, .init = setup, .fini = teardown, .timeout = 20);

Test(area, a_view_finds_what_was_formatted)
{
    cr_assert(eq(int, view(), 0));
    cr_expect(eq(u32, viewed.locks, 3));
    cr_expect(eq(u32, viewed.attachments_max, 5));
    cr_expect(eq(u64, viewed.patience_ns, 12345));
    cr_expect(eq(u64, viewed.area_bytes, lki_area_bytes(3, 5)));
    cr_expect(eq(ptr, viewed.hot, formatted.hot));
    cr_expect(eq(ptr, viewed.attachments, formatted.attachments));
    cr_expect(eq(ptr, viewed.cold, formatted.cold));
    cr_expect(eq(u64, atomic_load(&viewed.header->data_bytes), 100));
    cr_expect(eq(u64, viewed.header->data_bytes_max, 4096));
}

Test(area, every_lock_starts_at_the_given_sequence)
{
    for (uint32_t i = 0; i < 3; i++)
        cr_expect(eq(u64, atomic_load(&formatted.hot[i].sequence), 8));
}

Test(area, the_arrays_lie_apart_and_inside)
{
    cr_assert(eq(int, view(), 0));
    char *base = memory;
    cr_expect(le(ptr, &viewed.hot[3], viewed.attachments));
    cr_expect(le(ptr, &viewed.attachments[6], viewed.cold), "slot 0 is not used");
    cr_expect(le(ptr, &viewed.cold[3], base + viewed.area_bytes));
    cr_expect(eq(u64, viewed.area_bytes % 4096, 0));
}

Test(area, format_refuses_counts_out_of_bounds_and_an_odd_sequence)
{
    cr_expect(eq(int, format(0, 5, 8), -EINVAL));
    cr_expect(eq(int, format(3, 0, 8), -EINVAL));
    cr_expect(eq(int, format(LKI_LOCKS_MAX + 1, 5, 8), -EINVAL));
    cr_expect(eq(int, format(3, LKI_ATTACHMENTS_MAX + 1, 8), -EINVAL));
    cr_expect(eq(int, format(3, 5, 9), -EINVAL));
}

Test(area, the_largest_counts_can_be_laid_out)
{
    free(memory);
    memory = aligned_alloc(4096, lki_area_bytes(LKI_LOCKS_MAX, LKI_ATTACHMENTS_MAX));
    cr_assert(ne(ptr, memory, NULL));
    memset(memory, 0, sizeof(struct lki_header));
    cr_assert(eq(int, format(LKI_LOCKS_MAX, LKI_ATTACHMENTS_MAX, 0), 0));
    cr_expect(eq(int, view(), 0));
}

Test(area, a_view_of_a_truncated_mapping_is_refused)
{
    cr_expect(eq(int, lki_area_view(memory, 0, &viewed), -EPROTO));
    cr_expect(eq(int, lki_area_view(memory, 4095, &viewed), -EPROTO));
    cr_expect(eq(int, lki_area_view(memory, formatted.area_bytes - 1, &viewed), -EPROTO));
}

Test(area, a_view_of_something_else_is_refused)
{
    atomic_fetch_xor(&formatted.header->magic, 1);
    cr_expect(eq(int, view(), -EPROTO));
    memset(memory, 0xa5, formatted.area_bytes);
    cr_expect(eq(int, view(), -EPROTO));
    memset(memory, 0, formatted.area_bytes);
    cr_expect(eq(int, view(), -EPROTO));
}

Test(area, another_major_version_is_refused_and_a_newer_minor_one_is_not)
{
    formatted.header->version_minor++;
    cr_expect(eq(int, view(), 0));
    formatted.header->version_major++;
    cr_expect(eq(int, view(), -EPROTO));
}

Test(area, counts_that_do_not_fit_are_refused)
{
    const struct {
        const char *name;
        uint32_t locks;
        uint32_t attachments;
    } rows[] = {
        {"no locks", 0, 5},
        {"no attachments", 3, 0},
        {"too many locks", LKI_LOCKS_MAX + 1, 5},
        {"too many attachments", 3, LKI_ATTACHMENTS_MAX + 1},
        {"more locks than the mapping holds", 3000, 5},
        {"more attachments than the mapping holds", 3, 3000},
        {"all ones", UINT32_MAX, UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        formatted.header->locks = rows[i].locks;
        formatted.header->attachments = rows[i].attachments;
        cr_expect(eq(int, view(), -EPROTO), "%s", rows[i].name);
    }
}

Test(area, an_offset_that_lies_is_refused)
{
    uint64_t *offsets[] = {&formatted.header->hot_offset, &formatted.header->attachment_offset,
                           &formatted.header->cold_offset};
    for (size_t i = 0; i < 3; i++) {
        *offsets[i] += 64;
        cr_expect(eq(int, view(), -EPROTO), "offset %zu", i);
        *offsets[i] -= 64;
    }
    cr_expect(eq(int, view(), 0));
}

Test(area, a_header_that_changes_later_does_not_move_the_bounds)
{
    cr_assert(eq(int, view(), 0));
    formatted.header->locks = UINT32_MAX;
    formatted.header->attachments = UINT32_MAX;
    atomic_store(&formatted.header->attachments_used, UINT32_MAX);
    cr_expect(eq(u32, viewed.locks, 3));
    cr_expect(eq(u32, lki_area_slots_used(&viewed), 5));
    cr_expect(eq(ptr, lki_area_attachment(&viewed, 6), NULL));
    cr_expect(eq(ptr, lki_area_attachment(&viewed, 0), NULL));
    cr_expect(eq(ptr, lki_area_attachment(&viewed, 5), &viewed.attachments[5]));
}

Test(area, format_writes_the_bytes_that_it_says_and_no_others)
{
    uint64_t written = lki_area_format_bytes(3, 5);
    const unsigned char *bytes = memory;
    cr_expect(eq(ptr, (void *)&bytes[written], &formatted.hot[3]), "up to the last sequence");
    for (uint64_t i = written; i < formatted.area_bytes; i++)
        cr_assert(eq(u8, bytes[i], 0), "byte %zu", (size_t)i);
}

Test(area, a_restored_view_is_the_formatted_one_whatever_the_header_says_now)
{
    memset(formatted.header, 0xa5, sizeof(*formatted.header));
    lki_area_restore(memory, 3, 5, 12345, &viewed);
    cr_expect(eq(ptr, viewed.header, formatted.header));
    cr_expect(eq(ptr, viewed.hot, formatted.hot));
    cr_expect(eq(ptr, viewed.attachments, formatted.attachments));
    cr_expect(eq(ptr, viewed.cold, formatted.cold));
    cr_expect(eq(u32, viewed.locks, 3));
    cr_expect(eq(u32, viewed.attachments_max, 5));
    cr_expect(eq(u64, viewed.patience_ns, 12345));
    cr_expect(eq(u64, viewed.area_bytes, formatted.area_bytes));
}
