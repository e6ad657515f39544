/* SPDX-License-Identifier: MIT */
#include "client/names.h"

#include <errno.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static const char *resolved(const char *name)
{
    static char full[LKI_FULL_NAME_BYTES_MAX];
    return lki_name_resolve(name, full) == 0 ? full : "refused";
}

static int result_of(const char *name)
{
    char full[LKI_FULL_NAME_BYTES_MAX];
    return lki_name_resolve(name, full);
}

Test(names, own_name_stays_as_it_is)
{
    cr_assert(eq(str, (char *)resolved("build"), "build"));
    cr_assert(eq(str,
                 (char *)resolved("Gr\xc3\xb6\xc3\x9f"
                                  "e 1"),
                 "Gr\xc3\xb6\xc3\x9f"
                 "e 1"));
}

Test(names, user_and_group_become_numbers)
{
    cr_expect(eq(str, (char *)resolved("~root/build"), "~0/build"));
    cr_expect(eq(str, (char *)resolved("@root/build"), "@0/build"));
    cr_expect(eq(str, (char *)resolved("~1234/build"), "~1234/build"));
}

Test(names, unknown_owner_is_named_in_the_text)
{
    cr_assert(eq(int, result_of("~no-such-user-here/x"), -ENOENT));
    cr_assert(ne(ptr, strstr(lk_last_error(), "no-such-user-here"), NULL));
    cr_assert(eq(int, result_of("@no-such-group-here/x"), -ENOENT));
}

Test(names, what_is_not_allowed_is_refused)
{
    char longest[LKI_NAME_BYTES_MAX + 2];
    memset(longest, 'a', sizeof(longest));
    longest[LKI_NAME_BYTES_MAX] = '\0';
    cr_expect(eq(str, (char *)resolved(longest), longest));
    longest[LKI_NAME_BYTES_MAX] = 'a';
    longest[LKI_NAME_BYTES_MAX + 1] = '\0';
    cr_expect(eq(int, result_of(longest), -EINVAL), "one byte too long");

    static const char *const refused[] = {"",         "a#b",       "a/b",     "~/x",
                                          "~root/",   "~root",     "@1/",     "a\nb",
                                          "\xff\xfe", "~root/a/b", "~root/#", "~99999999999/x"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        cr_expect(eq(int, result_of(refused[i]), -EINVAL), "'%s'", refused[i]);
    cr_expect(eq(int, result_of(NULL), -EINVAL));
}

Test(names, longest_name_fits_behind_an_owner)
{
    char name[16 + LKI_NAME_BYTES_MAX + 1] = "~4294967294/";
    memset(name + 12, 'b', LKI_NAME_BYTES_MAX);
    name[12 + LKI_NAME_BYTES_MAX] = '\0';
    cr_assert(eq(str, (char *)resolved(name), name));
}
