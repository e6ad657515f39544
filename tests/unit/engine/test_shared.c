/* SPDX-License-Identifier: MIT */
#include "engine/scan.h"

#include "tests/unit/engine/fixture.h"

#define MS LKI_NS_PER_MS

TestSuite(shared, .init = setup, .fini = teardown, .timeout = 20);
TestSuite(shared_fifo, .init = setup_fifo, .fini = teardown, .timeout = 20);

static unsigned cells_used(enum who who)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LKI_SHARED_HOLDS_MAX; i++)
        count += atomic_load(&party(who)->self->cells[i]) != 0;
    return count;
}

/* --- entering and leaving --- */

Test(shared, many_readers_are_inside_together)
{
    for (enum who who = ANNA; who < PARTIES; who++)
        take(who, S);
    cr_expect(eq(u32, word(), LKI_READ));
    struct lki_lock_state state;
    lki_lock_look(&area, lock, &state);
    cr_expect(eq(u32, state.readers, PARTIES));
    for (enum who who = ANNA; who < PARTIES; who++)
        cr_expect(eq(int, release(who), LKI_RELEASED));
    check_all_quiet();
}

Test(shared, a_reader_refused_by_an_owner_leaves_no_cell)
{
    take(ANNA, X);
    cr_expect(eq(int, try_lock(BERT, S), LKI_BUSY));
    cr_expect(eq(u32, cells_used(BERT), 0));
    cr_expect(eq(u32, flags(), 0), "READ never stands beside an owner");
}

Test(shared, sixteen_holds_fit_and_the_seventeenth_is_refused)
{
    for (lock = 0; lock < 16; lock++)
        take(ANNA, S);
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NO_CELL));
    cr_expect(eq(int, queue_up(ANNA, S), LKI_NO_CELL));
    cr_expect(eq(u64, fact(ANNA), LKI_WAIT_NONE), "nothing was published");
    cr_expect(eq(u32, word(), 0), "nor written");
    take(ANNA, X); /* needs no cell */
    release(ANNA);

    lock = 7;
    release(ANNA);
    lock = 16;
    take(ANNA, S);
    lock = 3;
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NESTED), "also with all cells taken");
    for (lock = 0; lock < LOCKS; lock++)
        release(ANNA);
    cr_expect(eq(u32, cells_used(ANNA), 0));
    lock = 0;
    check_all_quiet();
}

Test(shared, the_first_reader_after_a_repair_opens_the_fast_way_again)
{
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    die(ANNA);
    cr_assert(eq(u32, word(), LKI_READ | LKI_PARKED | LKI_FAIR));
    take(BERT, S);
    cr_expect(eq(u32, word(), LKI_READ));
    cr_expect(lki_fast_take_shared(party(CARL), lock));
}

Test(shared, a_waiter_that_fills_its_cells_meanwhile_is_refused_and_passes_on)
{
    lock = 19;
    take(BERT, X);
    queue_up(ANNA, S);
    queue_up(CARL, X);
    for (lock = 0; lock < 16; lock++)
        take(ANNA, S);
    lock = 19;
    release(BERT);
    cr_assert(not(was_woken(CARL)));
    cr_expect(eq(int, look(ANNA), LKI_NO_CELL));
    cr_expect(eq(u64, fact(ANNA), LKI_WAIT_NONE));
    cr_expect(was_woken(CARL));
}

Test(shared, a_writer_sees_a_reader_in_any_of_its_cells)
{
    for (lock = 0; lock < 16; lock++)
        take(ANNA, S);
    for (lock = 0; lock < 16; lock++)
        cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY), "cell %u", lock);
    for (lock = 0; lock < 16; lock++)
        release(ANNA);
    check_all_quiet();
}

Test(shared, a_party_made_anew_finds_its_cells)
{
    take(ANNA, S);
    lock = 1;
    take(ANNA, S);
    struct lki_party again;
    cr_assert(lki_party_init(&again, &area, party(ANNA)->id, party(ANNA)->wake, NULL));
    cr_expect(eq(int, lki_lock_held_by(&again, 1), S));
    cr_expect(eq(int, lki_lock_release(&again, 0), LKI_RELEASED));
}

/* --- the queue --- */

Test(shared, a_reader_from_the_queue_wakes_the_next_reader)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, S);
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(not(was_woken(CARL)));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(shared, a_reader_from_the_queue_wakes_a_writer_just_the_same)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, X);
    release(ANNA);
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(was_woken(CARL), "it has to come and drain");
    cr_expect(eq(int, look(CARL), LKI_SLEEP));
    cr_expect(lki_wait_is(fact(CARL), LKI_WAIT_DRAINING, lock));
    release(BERT);
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(shared, a_reader_that_comes_out_of_the_queue_last_leaves_nothing)
{
    take(ANNA, X);
    queue_up(BERT, S);
    release(ANNA);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_READ));
    release(BERT);
    check_all_quiet();
}

Test(shared_fifo, a_reader_from_the_queue_leaves_the_reservation_to_the_writer_behind)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, X);
    release(ANNA);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_READ | LKI_FAIR | LKI_PARKED));
    cr_expect(eq(int, try_lock(DORA, S), LKI_BUSY), "or writers starve");
}

Test(shared_fifo, a_reader_gives_up_and_the_turn_goes_on)
{
    take(ANNA, X);
    wait_until(BERT, S, now_ns + 5 * MS);
    queue_up(CARL, X);
    release(ANNA);
    cr_assert(not(was_woken(CARL)));
    lki_wait_give_up(wait_of(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(eq(u32, cells_used(BERT), 0));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

/* --- the drain --- */

Test(shared, a_writer_drains_the_readers_before_it_is_inside)
{
    take(ANNA, S);
    take(BERT, S);
    cr_assert(eq(int, queue_up(CARL, X), LKI_SLEEP));
    cr_expect(eq(u32, word(), party(CARL)->id | LKI_PARKED));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE), "not inside yet");
    cr_expect(lki_wait_is(fact(CARL), LKI_WAIT_DRAINING, lock));
    cr_expect(eq(u32, last_sleep(CARL)->owner, 0));
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_SLEEP), "one is left");
    release(BERT);
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 1));
    cr_expect(eq(u64, fact(CARL), LKI_WAIT_NONE));
}

Test(shared, no_reader_enters_during_a_drain)
{
    take(ANNA, S);
    queue_up(BERT, X);
    cr_expect(eq(int, try_lock(CARL, S), LKI_BUSY));
    cr_expect(eq(int, queue_up(CARL, S), LKI_SLEEP));
    release(ANNA);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    release(BERT);
    cr_expect(was_woken(CARL));
}

Test(shared, a_word_without_read_is_taken_without_a_drain)
{
    cr_assert(eq(int, queue_up(ANNA, X), LKI_TAKEN));
    release(ANNA);
    take(BERT, S);
    release(BERT);
    cr_expect(eq(int, queue_up(ANNA, X), LKI_TAKEN), "READ, but nobody is inside");
}

Test(shared, readers_of_other_locks_do_not_hold_up_a_drain)
{
    take(ANNA, S);
    release(ANNA);
    lock = 1;
    take(ANNA, S);
    lock = 0;
    cr_expect(eq(int, queue_up(BERT, X), LKI_TAKEN));
}

Test(shared, a_reader_that_leaves_wakes_the_owner_that_drains_now)
{
    take(ANNA, S);
    wait_until(BERT, X, now_ns + 5 * MS);
    now_ns += 5 * MS;
    cr_assert(eq(int, look(BERT), LKI_TIMED_OUT));
    queue_up(CARL, X);
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(not(was_woken(BERT)));
}

Test(shared, a_reader_that_leaves_wakes_no_owner_that_does_not_drain)
{
    take(ANNA, S);
    lock = 1;
    take(BERT, X);
    queue_up(ANNA, X);
    lock = 0;
    forget_wakes();
    release(ANNA);
    for (enum who who = ANNA; who < PARTIES; who++)
        cr_expect(not(was_woken(who)));
}

Test(shared, a_drain_obeys_its_deadline_and_leaves_the_readers_alone)
{
    take(ANNA, S);
    wait_until(BERT, X, now_ns + 5 * MS);
    cr_expect(le(u64, last_sleep(BERT)->until_ns, now_ns + 5 * MS));
    now_ns += 5 * MS;
    cr_expect(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(eq(u32, word(), LKI_READ), "there still are readers");
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE));
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE));
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY), "Anna reads");
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN));
}

Test(shared, a_drain_that_backs_out_wakes_every_reader_and_the_next_writer)
{
    take(ANNA, S);
    wait_until(BERT, X, now_ns + 5 * MS);
    queue_up(CARL, X);
    queue_up(DORA, S);
    queue_up(EMIL, S);
    forget_wakes();
    now_ns += 5 * MS;
    cr_assert(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(was_woken(CARL), "the oldest");
    cr_expect(was_woken(DORA));
    cr_expect(was_woken(EMIL));
    cr_expect(not(was_woken(BERT)));
}

Test(shared, a_drain_given_up_over_damage_keeps_it)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, S), LKI_TAKEN_DIED));
    uint64_t before = sequence();
    wait_until(CARL, X, now_ns + 5 * MS);
    now_ns += 5 * MS;
    cr_assert(eq(int, look(CARL), LKI_TIMED_OUT));
    cr_expect(eq(u64, sequence(), before));
    cr_expect(eq(u32, word(), LKI_READ | LKI_DIED));
}

Test(shared, a_drain_over_damage_tells_of_it)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, S), LKI_TAKEN_DIED));
    cr_assert(eq(int, queue_up(CARL, X), LKI_SLEEP));
    release(BERT);
    cr_expect(eq(int, look(CARL), LKI_TAKEN_DIED));
}

Test(shared, a_reader_without_an_id_still_holds_up_a_drain)
{
    take(ANNA, S);
    atomic_store(&party(ANNA)->self->id, 0); /* a scribble: the cell alone counts */
    cr_expect(eq(u32, lki_scan_reader(&area, lock, BERT + 1), ANNA + 1), "named by its slot");
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
}

Test(shared, a_reader_that_dies_ends_the_drain)
{
    take(ANNA, S);
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
    forget_wakes();
    die(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN), "a reader leaves no damage");
}
