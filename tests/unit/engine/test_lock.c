/* SPDX-License-Identifier: MIT */
#include "engine/lock.h"

#include "tests/unit/engine/fixture.h"

TestSuite(lock, .init = setup, .fini = teardown, .timeout = 20);

static void set_word(uint32_t value)
{
    atomic_store(&area.hot[lock].word, value);
}

Test(lock, one_party_holds_it_and_another_is_busy)
{
    take(ANNA, X);
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(int, try_lock(BERT, S), LKI_BUSY));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    take(BERT, X);
    cr_expect(eq(int, release(BERT), LKI_RELEASED));
    check_all_quiet();
}

Test(lock, locks_of_one_area_are_independent)
{
    take(ANNA, X);
    lock = LOCKS - 1;
    take(BERT, X);
    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    lock = 0;
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
}

Test(lock, the_sequence_only_rises_and_tells_inside_from_outside)
{
    uint64_t last = sequence();
    for (int i = 0; i < 10; i++) {
        enum lki_hold hold = i % 3 == 0 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
        cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, hold), LKI_TAKEN));
        cr_expect(gt(u64, sequence(), last));
        cr_expect(eq(u64, sequence() & 1, hold == LKI_HOLD_DATA));
        last = sequence();
        release(ANNA);
        cr_expect(le(u64, last, sequence()));
        cr_expect(eq(u64, sequence() & 1, 0));
        last = sequence();
    }
}

Test(lock, each_exclusive_hold_has_a_token_of_its_own)
{
    take(ANNA, X);
    uint64_t first = sequence();
    release(ANNA);
    take(BERT, X);
    cr_expect(ne(u64, sequence(), first));
}

Test(lock, a_release_by_somebody_else_changes_nothing)
{
    take(ANNA, X);
    uint32_t before = word();
    uint64_t sequence_before = sequence();
    cr_expect(eq(int, release(BERT), LKI_NOT_HELD));
    cr_expect(eq(u32, word(), before));
    cr_expect(eq(u64, sequence(), sequence_before));
}

Test(lock, a_second_release_is_refused)
{
    take(ANNA, X);
    release(ANNA);
    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    take(ANNA, S);
    release(ANNA);
    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2));
}

Test(lock, nested_is_refused_in_all_four_combinations_of_modes)
{
    const enum lki_mode modes[] = {S, X};
    for (int outer = 0; outer < 2; outer++) {
        for (int inner = 0; inner < 2; inner++) {
            take(ANNA, modes[outer]);
            uint32_t before = word();
            cr_expect(eq(int, try_lock(ANNA, modes[inner]), LKI_NESTED), "%d in %d", inner, outer);
            cr_expect(eq(int, queue_up(ANNA, modes[inner]), LKI_NESTED), "%d in %d", inner, outer);
            cr_expect(eq(u32, word(), before));
            cr_expect(eq(u64, fact(ANNA), LKI_WAIT_NONE));
            cr_expect(eq(int, release(ANNA), LKI_RELEASED), "still held once");
            cr_expect(eq(int, release(ANNA), LKI_NOT_HELD), "and not twice");
        }
    }
}

Test(lock, a_nested_reader_is_told_so_beside_other_readers)
{
    take(BERT, S);
    take(ANNA, S);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_NESTED), "not BUSY for ever");
}

Test(lock, a_party_needs_a_slot_of_the_area)
{
    struct lki_party none;
    cr_expect(not(lki_party_init(&none, &area, 1u << 16, NULL, NULL)), "slot 0");
    cr_expect(not(lki_party_init(&none, &area, 1u << 16 | (SLOTS + 1), NULL, NULL)));
}

Test(lock, a_look_counts_readers_and_waiters)
{
    struct lki_lock_state state;
    take(ANNA, S);
    take(BERT, S);
    queue_up(CARL, X); /* drains */
    queue_up(DORA, X);
    queue_up(EMIL, S);
    lki_lock_look(&area, lock, &state);
    cr_expect(eq(u32, state.word, word()));
    cr_expect(eq(u64, state.sequence, sequence()));
    cr_expect(eq(u32, state.readers, 2));
    cr_expect(eq(u32, state.first_reader, party(ANNA)->id));
    cr_expect(eq(u32, state.waiters, 2));
}

Test(lock, held_by_tells_mode_and_party)
{
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), 0));
    take(ANNA, X);
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), X));
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), 0));
    lock = 1;
    take(BERT, S);
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), S));
}

Test(lock, a_try_keeps_parked_and_died_and_drops_the_rest)
{
    set_word(LKI_PARKED | LKI_DIED | LKI_READ | LKI_FAIR);
    atomic_store(&area.hot[lock].sequence, FIRST_SEQUENCE + 1);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_TAKEN_DIED));
    cr_expect(eq(u32, flags(), LKI_PARKED | LKI_DIED));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 3), "odd to odd");
}

Test(lock, a_try_is_refused_on_a_word_reserved_for_a_waiter)
{
    take(ANNA, X);
    queue_up(BERT, X);
    now_ns += LKI_PATIENCE_DEFAULT_NS;
    look(BERT); /* past its patience */
    release(ANNA);
    cr_assert(eq(u32, word(), LKI_FAIR | LKI_PARKED), "reserved");
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY));
    cr_expect(eq(int, try_lock(CARL, S), LKI_BUSY));
    cr_expect(not(lki_fast_take_exclusive(party(CARL), lock, LKI_HOLD_DATA)));
    cr_expect(not(lki_fast_take_shared(party(CARL), lock)));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

Test(lock, a_reservation_for_nobody_stops_nobody)
{
    set_word(LKI_FAIR | LKI_PARKED);
    take(ANNA, X);
    release(ANNA);
    cr_expect(eq(u32, word(), 0));
}

Test(lock, a_reader_may_try_where_only_readers_have_a_reservation)
{
    take(ANNA, X);
    queue_up(BERT, S);
    now_ns += LKI_PATIENCE_DEFAULT_NS;
    look(BERT);
    release(ANNA);
    cr_assert(eq(u32, word(), LKI_FAIR | LKI_PARKED));
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY));
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN), "readers do not exclude each other");
}

Test(lock, a_try_does_not_disturb_readers)
{
    take(ANNA, S);
    uint32_t before = word();
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(u32, word(), before));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE));
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN));
}

Test(lock, a_try_takes_a_word_from_which_the_readers_have_gone)
{
    take(ANNA, S);
    release(ANNA);
    cr_assert(eq(u32, word(), LKI_READ), "it stays behind");
    take(BERT, X);
    cr_expect(eq(u32, flags(), 0));
}

Test(lock, unlock_with_parked_and_nobody_waiting_leaves_nothing)
{
    take(ANNA, X);
    set_word(word() | LKI_PARKED);
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(eq(u32, word(), 0));
    check_all_quiet();
}

Test(lock, unlock_wakes_the_oldest_and_nobody_else)
{
    take(ANNA, X);
    queue_up(CARL, X);
    queue_up(BERT, X); /* lower slot, younger ticket */
    queue_up(DORA, X);
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(not(was_woken(BERT)));
    cr_expect(not(was_woken(DORA)));
    cr_expect(eq(u32, word(), 0), "all are patient: whoever runs may take it");
}

Test(lock, unlock_reserves_the_word_when_any_waiter_is_impatient)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    now_ns += LKI_PATIENCE_DEFAULT_NS;
    look(CARL); /* the younger one noticed first */
    release(ANNA);
    cr_expect(eq(u32, word(), LKI_FAIR | LKI_PARKED));
    cr_expect(was_woken(BERT), "the oldest all the same");
}

Test(lock, unlock_of_damaged_data_keeps_died_and_an_odd_sequence)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    uint64_t inside = sequence();
    release(BERT);
    cr_expect(eq(u64, sequence(), inside + 2));
    cr_expect(ne(u32, word() & LKI_DIED, 0));
}

Test(lock, died_is_told_until_the_data_is_marked_consistent)
{
    take(ANNA, X);
    die(ANNA);
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    release(BERT);
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN_DIED), "a reader is told as well");
    cr_expect(eq(int, try_lock(DORA, S), LKI_TAKEN_DIED), "and the next");
    cr_expect(eq(int, lki_lock_mark_consistent(party(CARL), lock, LKI_HOLD_DATA), LKI_NOT_HELD),
              "a reader cannot have repaired anything");
    release(CARL);
    release(DORA);
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    cr_expect(eq(int, lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA), LKI_TAKEN));
    release(BERT);
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN));
    release(CARL);
    check_all_quiet();
}

Test(lock, only_the_exclusive_owner_marks_consistent)
{
    cr_expect(eq(int, lki_lock_mark_consistent(party(ANNA), lock, LKI_HOLD_DATA), LKI_NOT_HELD));
    take(BERT, X);
    cr_expect(eq(int, lki_lock_mark_consistent(party(ANNA), lock, LKI_HOLD_DATA), LKI_NOT_HELD));
    cr_expect(eq(int, lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA), LKI_TAKEN),
              "no harm");
}

Test(lock, who_would_exit_marks_only_its_own_hold_consistent)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    uint64_t inside = sequence();
    cr_expect(eq(int, lki_lock_mark_consistent(party(CARL), lock, LKI_HOLD_TO_EXIT), LKI_NOT_HELD));
    cr_expect(eq(u64, sequence(), inside), "Bert's");
    cr_expect(eq(u32, flags() & LKI_DIED, LKI_DIED));
}

Test(lock, marking_whole_data_consistent_changes_nothing)
{
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    uint64_t inside = sequence();
    uint32_t before = word();
    cr_expect(eq(int, lki_lock_mark_consistent(party(ANNA), lock, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), inside));
    cr_expect(eq(u32, word(), before));
}

Test(lock, marking_consistent_keeps_parked)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    queue_up(CARL, X);
    lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA);
    cr_expect(eq(u32, flags(), LKI_PARKED));
    release(BERT);
    cr_expect(was_woken(CARL));
}

Test(lock, a_hold_to_exit_on_damaged_data_keeps_the_damage)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, lki_lock_try(party(BERT), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN_DIED));
    cr_expect(eq(u64, sequence() & 1, 1));
    release(BERT);
    cr_expect(eq(u64, sequence() & 1, 1));
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED));
}

Test(lock, only_the_exclusive_owner_declares)
{
    cr_expect(eq(int, lki_lock_declare(party(ANNA), lock, 1, 2), LKI_NOT_HELD));
    take(ANNA, S);
    cr_expect(eq(int, lki_lock_declare(party(ANNA), lock, 1, 2), LKI_NOT_HELD));
    release(ANNA);
    take(ANNA, X);
    cr_expect(eq(int, lki_lock_declare(party(ANNA), lock, 1, 2), LKI_TAKEN));
    cr_expect(eq(u64, atomic_load(&area.hot[lock].dirty_sequence), sequence()));
}

Test(lock, a_party_that_has_ended_is_stale_and_changes_nothing)
{
    take(ANNA, X);
    die(ANNA);
    uint32_t before = word();
    cr_expect(eq(int, try_lock(ANNA, X), LKI_STALE));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_STALE));
    cr_expect(eq(int, queue_up(ANNA, X), LKI_STALE));
    cr_expect(eq(int, release(ANNA), LKI_STALE));
    cr_expect(eq(u32, word(), before));
}

Test(lock, a_foreign_id_that_nobody_has_is_busy_and_not_taken_over)
{
    set_word(0x3ff0000 | 0xffff);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_BUSY));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_BUSY));
    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    cr_expect(eq(u32, word(), 0x3ff0000 | 0xffff));
}

Test(lock, the_slots_of_another_generation_do_not_own)
{
    take(ANNA, X);
    uint32_t old = word_id();
    die(ANNA);
    reopen(ANNA, 2);
    set_word(old); /* a scribble: the id of the former one */
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), 0));
    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    cr_expect(eq(int, try_lock(ANNA, X), LKI_BUSY));
}
