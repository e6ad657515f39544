/* SPDX-License-Identifier: MIT */
/* Criterion exits with 0 after a leak in a test: only the report in the output tells. */
#include <stdlib.h>

#include <criterion/criterion.h>

Test(planted, a_leak)
{
    static void *volatile kept;
    kept = malloc(77);
    cr_assert(kept);
    kept = NULL;
}
