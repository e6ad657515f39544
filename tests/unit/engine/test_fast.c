/* SPDX-License-Identifier: MIT */
#include "engine/fast.h"

#include "tests/unit/engine/fixture.h"

TestSuite(fast, .init = setup, .fini = teardown, .timeout = 20);

static bool take_x(enum who who)
{
    return lki_fast_take_exclusive(party(who), lock, LKI_HOLD_DATA);
}

static bool take_s(enum who who)
{
    return lki_fast_take_shared(party(who), lock);
}

static void set_word(uint32_t value)
{
    atomic_store(&area.hot[lock].word, value);
}

Test(fast, exclusive_takes_a_free_word_and_makes_the_sequence_odd)
{
    cr_assert(take_x(ANNA));
    cr_expect(eq(u32, word(), party(ANNA)->id));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 1));
    cr_assert(lki_fast_release_exclusive(party(ANNA), lock));
    cr_expect(eq(u32, word(), 0));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2));
}

Test(fast, a_hold_to_exit_keeps_the_sequence_even)
{
    cr_assert(lki_fast_take_exclusive(party(ANNA), lock, LKI_HOLD_TO_EXIT));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2));
    cr_assert(lki_fast_release_exclusive(party(ANNA), lock));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2), "its release leaves it alone");
}

Test(fast, exclusive_leaves_any_word_that_is_not_zero_to_the_slow_path)
{
    const uint32_t words[] = {LKI_PARKED, LKI_DIED, LKI_FAIR, LKI_READ, 0x20007};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        set_word(words[i]);
        cr_expect(not(take_x(ANNA)), "word %08x", words[i]);
        cr_expect(eq(u32, word(), words[i]));
        cr_expect(eq(u64, sequence(), FIRST_SEQUENCE));
    }
}

Test(fast, a_release_of_a_lock_not_held_changes_nothing)
{
    cr_expect(not(lki_fast_release_exclusive(party(ANNA), lock)));
    take(BERT, X);
    cr_expect(not(lki_fast_release_exclusive(party(ANNA), lock)));
    cr_expect(eq(u32, word_id(), party(BERT)->id));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 1));
}

Test(fast, a_release_with_a_waiter_is_left_to_the_slow_path_untouched)
{
    take(ANNA, X);
    queue_up(BERT, X);
    cr_expect(not(lki_fast_release_exclusive(party(ANNA), lock)));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 1));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(was_woken(BERT));
}

Test(fast, shared_sets_read_once_and_then_only_its_cell)
{
    cr_assert(take_s(ANNA));
    cr_expect(eq(u32, word(), LKI_READ));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), lock + 1));
    cr_assert(take_s(BERT));
    cr_expect(eq(u32, word(), LKI_READ));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE), "readers leave the sequence alone");
}

Test(fast, shared_is_refused_by_an_owner_a_reservation_and_damage)
{
    const uint32_t words[] = {0x20007, LKI_FAIR | LKI_PARKED, LKI_DIED, LKI_READ | LKI_DIED,
                              LKI_READ | LKI_FAIR};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        set_word(words[i]);
        cr_expect(not(take_s(ANNA)), "word %08x", words[i]);
        cr_expect(eq(u32, word(), words[i]));
        cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0), "the cell is left");
        cr_expect(eq(u32, party(ANNA)->cells_used, 0));
    }
}

Test(fast, shared_passes_a_parked_word_that_nobody_reserved)
{
    set_word(LKI_PARKED);
    cr_assert(take_s(ANNA));
    cr_expect(eq(u32, word(), LKI_READ | LKI_PARKED));
}

Test(fast, shared_leaves_a_second_hold_to_the_slow_path)
{
    cr_assert(take_s(ANNA));
    lock = 1;
    cr_expect(not(take_s(ANNA)));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_TAKEN));
}

Test(fast, shared_refused_by_a_draining_owner_wakes_it)
{
    take(ANNA, S);
    queue_up(BERT, X); /* owns the word, waits for Anna */
    forget_wakes();
    cr_expect(not(take_s(CARL)));
    cr_expect(was_woken(BERT), "it may have seen the cell");
}

Test(fast, shared_is_released_when_it_is_all_that_is_held)
{
    cr_assert(take_s(ANNA));
    cr_assert(lki_fast_release_shared(party(ANNA), lock));
    cr_expect(eq(u32, party(ANNA)->cells_used, 0));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(not(lki_fast_release_shared(party(ANNA), lock)), "there is nothing any more");
}

Test(fast, shared_holds_of_several_locks_and_of_others_are_left_to_the_slow_path)
{
    cr_assert(take_s(ANNA));
    cr_expect(not(lki_fast_release_shared(party(ANNA), lock + 1)), "another lock");
    cr_expect(not(lki_fast_release_shared(party(BERT), lock)), "another's hold");
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock + 1, S, LKI_HOLD_DATA), LKI_TAKEN));
    cr_expect(not(lki_fast_release_shared(party(ANNA), lock)), "one of two");
    cr_expect(eq(u32, party(ANNA)->cells_used, 2));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
}

Test(fast, shared_wakes_the_owner_that_drains)
{
    cr_assert(take_s(ANNA));
    queue_up(BERT, X); /* takes the word, and waits for the reader */
    cr_assert(eq(u32, word_id(), party(BERT)->id));
    cr_assert(not(was_woken(BERT)));
    cr_assert(lki_fast_release_shared(party(ANNA), lock));
    cr_expect(was_woken(BERT));
}

Test(fast, shared_is_refused_to_the_exclusive_owner_itself)
{
    take(ANNA, X);
    forget_wakes();
    cr_expect(not(take_s(ANNA)));
    cr_expect(eq(u32, word(), party(ANNA)->id));
    cr_expect(eq(u32, party(ANNA)->cells_used, 0));
    cr_expect(not(was_woken(ANNA)), "nobody drains");
}
