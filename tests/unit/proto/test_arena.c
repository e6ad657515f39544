/* SPDX-License-Identifier: MIT */
#include "proto/arena.h"

#include <stdint.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static struct lki_arena arena;

static void setup(void)
{
    memset(&arena, 0xa5, sizeof(arena)); /* the reset has to do */
    lki_arena_reset(&arena);
}

TestSuite(arena, .init = setup, .timeout = 20);

Test(arena, gives_all_that_it_has_and_not_one_byte_more)
{
    cr_assert(ne(ptr, lki_arena_take(&arena, LKI_ARENA_BYTES_MAX), NULL));
    cr_assert(not(arena.exhausted));
    cr_assert(eq(ptr, lki_arena_take(&arena, 1), NULL));
    cr_assert(arena.exhausted);
}

Test(arena, refuses_one_byte_more_than_its_size_at_once)
{
    cr_assert(eq(ptr, lki_arena_take(&arena, LKI_ARENA_BYTES_MAX + 1), NULL));
    cr_assert(arena.exhausted);
}

Test(arena, refuses_a_size_near_the_end_of_the_number_range)
{
    lki_arena_take(&arena, 1);
    cr_assert(eq(ptr, lki_arena_take(&arena, SIZE_MAX), NULL));
    cr_assert(arena.exhausted);
}

Test(arena, aligns_for_any_type_after_an_odd_size)
{
    lki_arena_take(&arena, 1);
    const uintptr_t second = (uintptr_t)lki_arena_take(&arena, 3);
    cr_expect(eq(sz, second % alignof(max_align_t), 0));
    cr_expect(ge(sz, second, (uintptr_t)arena.buffer + 1));
}

Test(arena, starts_again_after_a_reset)
{
    void *first = lki_arena_take(&arena, 100);
    lki_arena_take(&arena, LKI_ARENA_BYTES_MAX);
    cr_assert(arena.exhausted);

    lki_arena_reset(&arena);
    cr_expect(not(arena.exhausted));
    cr_expect(eq(ptr, lki_arena_take(&arena, 100), first));
}
