/* SPDX-License-Identifier: MIT */
#include "client/options.h"

#include <stdint.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

struct old_options {
    size_t size;
    uint64_t first;
};

struct new_options {
    size_t size;
    uint64_t first;
    uint64_t second;
};

Test(options, none_given_means_all_zero)
{
    struct new_options own;
    memset(&own, 0xff, sizeof(own));
    cr_assert(eq(int, lki_options_read(NULL, sizeof(own), &own), 0));
    cr_assert(eq(u64, own.first, 0));
    cr_assert(eq(u64, own.second, 0));
}

Test(options, older_caller_leaves_the_rest_zero)
{
    const struct old_options given = {.size = sizeof(given), .first = 3};
    struct new_options own;
    cr_assert(eq(int, lki_options_read(&given, sizeof(own), &own), 0));
    cr_assert(eq(u64, own.first, 3));
    cr_assert(eq(u64, own.second, 0));
}

Test(options, newer_caller_is_refused_only_if_he_uses_what_is_new)
{
    struct new_options given = {.size = sizeof(given), .first = 3};
    struct old_options own;
    cr_assert(eq(int, lki_options_read(&given, sizeof(own), &own), 0));
    given.second = 1;
    cr_assert(eq(int, lki_options_read(&given, sizeof(own), &own), -EINVAL));
}

Test(options, missing_size_is_refused)
{
    const struct new_options given = {.first = 3};
    struct new_options own;
    cr_assert(eq(int, lki_options_read(&given, sizeof(own), &own), -EINVAL));
}

Test(options, result_is_written_as_far_as_the_caller_has_room)
{
    const struct new_options own = {.first = 3, .second = 4};
    struct {
        struct old_options options;
        uint64_t behind;
    } given = {.options = {.size = sizeof(struct old_options)}, .behind = 77};

    cr_assert(eq(int, lki_options_write(&given, &own, sizeof(own)), 0));
    cr_assert(eq(u64, given.options.first, 3));
    cr_assert(eq(u64, given.behind, 77));
    cr_assert(eq(sz, given.options.size, sizeof(struct old_options)));

    struct new_options unsized = {.first = 1};
    cr_assert(eq(int, lki_options_write(&unsized, &own, sizeof(own)), -EINVAL));
    cr_assert(eq(int, lki_options_write(NULL, &own, sizeof(own)), -EINVAL));
}
