/* SPDX-License-Identifier: MIT */
#include "engine/wait.h"

#include "tests/unit/engine/fixture.h"

#define MS LKI_NS_PER_MS
#define PATIENCE LKI_PATIENCE_DEFAULT_NS

TestSuite(wait, .init = setup, .fini = teardown, .timeout = 20);
TestSuite(wait_fifo, .init = setup_fifo, .fini = teardown, .timeout = 20);

static uint64_t nap_ns(enum who who)
{
    return last_sleep(who)->until_ns - now_ns;
}

/* --- publishing and sleeping --- */

Test(wait, a_waiter_publishes_what_it_waits_for_and_parks_the_word)
{
    lock = 3;
    take(ANNA, X);
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
    cr_expect(lki_wait_is(fact(BERT), LKI_WAIT_QUEUED, 3));
    cr_expect(eq(u32, lki_wait_mode(fact(BERT)), X));
    cr_expect(eq(u64, fact(BERT) & LKI_WAIT_IMPATIENT, 0));
    cr_expect(eq(u32, flags(), LKI_PARKED));
    cr_expect(eq(u32, last_sleep(BERT)->owner, party(ANNA)->id));
    cr_expect(eq(u64, last_sleep(BERT)->sequence, sequence()));
    cr_expect(eq(ptr, last_sleep(BERT)->futex, &party(BERT)->self->futex));
}

Test(wait, the_first_sleep_ends_at_the_patience_and_later_ones_are_long)
{
    take(ANNA, X);
    queue_up(BERT, X);
    cr_expect(eq(u64, nap_ns(BERT), PATIENCE), "shorter than 1 ms");
    cr_expect(not(last_sleep(BERT)->ask));
    now_ns += PATIENCE;
    look(BERT);
    cr_expect(eq(u64, nap_ns(BERT), 250 * MS), "impatient, but the oldest");
    cr_expect(last_sleep(BERT)->ask, "the owner may be dead");
}

Test(wait_fifo, the_first_sleep_is_1_ms_where_nobody_is_patient)
{
    take(ANNA, X);
    queue_up(BERT, X);
    cr_expect(eq(u64, nap_ns(BERT), 1 * MS));
    cr_expect(ne(u64, fact(BERT) & LKI_WAIT_IMPATIENT, 0));
}

Test(wait_fifo, who_is_not_next_sleeps_3_ms_at_first)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    queue_up(DORA, S);
    cr_expect(eq(u64, nap_ns(BERT), 1 * MS), "looks after the owner");
    cr_expect(eq(u64, nap_ns(CARL), 3 * MS));
    cr_expect(eq(u64, nap_ns(DORA), 3 * MS));
    now_ns += 3 * MS;
    look(CARL);
    cr_expect(eq(u64, nap_ns(CARL), 5 * MS));
}

Test(wait, a_long_patience_still_naps_1_ms_at_first)
{
    area.patience_ns = 10 * LKI_NS_PER_S;
    take(ANNA, X);
    queue_up(BERT, X);
    cr_expect(eq(u64, nap_ns(BERT), 1 * MS));
    now_ns += 1 * MS;
    look(BERT);
    cr_expect(eq(u64, nap_ns(BERT), 250 * MS));
    cr_expect(eq(u64, fact(BERT) & LKI_WAIT_IMPATIENT, 0));
}

Test(wait, an_impatient_waiter_naps_5_ms_for_each_one_before_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, S);
    queue_up(DORA, X);
    now_ns += PATIENCE;
    look(DORA);
    cr_expect(eq(u64, nap_ns(DORA), 10 * MS));
    look(CARL);
    cr_expect(eq(u64, nap_ns(CARL), 5 * MS));
}

Test(wait, a_waiter_naps_longer_while_the_same_hold_goes_on)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    now_ns += 100 * MS;
    look(CARL);
    cr_expect(eq(u64, nap_ns(CARL), 25 * MS), "a quarter of what was seen of this hold");
    now_ns += 10 * LKI_NS_PER_S;
    look(CARL);
    cr_expect(eq(u64, nap_ns(CARL), 250 * MS));
    release(ANNA);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    look(CARL);
    cr_expect(eq(u64, nap_ns(CARL), 250 * MS), "nobody is before it any more");
    queue_up(DORA, X);
    now_ns += PATIENCE;
    look(DORA);
    cr_expect(eq(u64, nap_ns(DORA), 5 * MS), "another hold");
}

Test(wait, the_count_of_naps_stops_before_it_would_be_the_first_again)
{
    take(ANNA, X);
    queue_up(BERT, X);
    wait_of(BERT)->naps = UINT32_MAX; /* 34 years of them */
    for (int i = 0; i < 2; i++) {
        cr_assert(eq(int, look(BERT), LKI_SLEEP));
        cr_expect(last_sleep(BERT)->ask);
    }
}

Test(wait, no_sleep_goes_beyond_the_deadline)
{
    take(ANNA, X);
    wait_until(BERT, X, now_ns + 7);
    cr_expect(eq(u64, nap_ns(BERT), 7));
}

Test(wait, impatience_is_published_once_the_patience_has_passed)
{
    take(ANNA, X);
    queue_up(BERT, X);
    now_ns += PATIENCE - 1;
    look(BERT);
    cr_expect(eq(u64, fact(BERT) & LKI_WAIT_IMPATIENT, 0));
    now_ns += 1;
    look(BERT);
    cr_expect(ne(u64, fact(BERT) & LKI_WAIT_IMPATIENT, 0));
}

/* --- taking --- */

Test(wait, a_woken_waiter_takes_the_word_and_answers_for_those_behind)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, word(), party(BERT)->id | LKI_PARKED));
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 3));
    release(BERT);
    cr_expect(was_woken(CARL), "Anna did not wake it, Bert had to");
    cr_assert(eq(int, look(CARL), LKI_TAKEN));
    release(CARL);
    check_all_quiet();
}

Test(wait, a_free_word_is_taken_at_the_first_look)
{
    cr_expect(eq(int, queue_up(ANNA, X), LKI_TAKEN));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    check_all_quiet();
}

Test(wait, an_owner_that_died_is_told_to_who_comes_out_of_the_queue)
{
    take(ANNA, X);
    queue_up(BERT, X);
    die(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED));
    cr_expect(eq(u32, flags(), LKI_PARKED | LKI_DIED));
}

Test(wait, a_running_party_may_barge_past_patient_waiters)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    take(CARL, X);
    cr_expect(eq(int, look(BERT), LKI_SLEEP));
    cr_expect(eq(u32, flags(), LKI_PARKED), "it is parked again");
    release(CARL);
    cr_expect(was_woken(BERT));
}

/* --- fairness --- */

Test(wait_fifo, a_reserved_word_is_taken_by_the_oldest_alone)
{
    take(ANNA, X);
    queue_up(CARL, X);
    queue_up(BERT, X);
    release(ANNA);
    cr_assert(eq(u32, word(), LKI_FAIR | LKI_PARKED));
    cr_expect(eq(int, look(BERT), LKI_SLEEP));
    cr_expect(eq(u32, last_sleep(BERT)->owner, 0));
    cr_expect(eq(int, try_lock(DORA, X), LKI_BUSY));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    cr_expect(eq(u32, flags(), LKI_PARKED), "FAIR only stands on a free word");
    release(CARL);
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    release(BERT);
    check_all_quiet();
}

Test(wait_fifo, a_reader_passes_older_readers_but_no_older_writer)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, S);
    queue_up(DORA, X);
    queue_up(EMIL, S);
    release(ANNA);
    cr_expect(eq(int, look(EMIL), LKI_SLEEP), "a writer is before it");
    cr_expect(eq(int, look(CARL), LKI_TAKEN), "only a reader is before it");
}

Test(wait_fifo, who_finds_the_reserved_word_untouched_for_5_ms_steps_over)
{
    take(ANNA, X);
    queue_up(BERT, X); /* is stopped from here on */
    queue_up(CARL, X);
    queue_up(DORA, X);
    release(ANNA);
    cr_assert(eq(int, look(DORA), LKI_SLEEP));
    now_ns += 5 * MS - 1;
    cr_expect(eq(int, look(DORA), LKI_SLEEP), "not yet");
    cr_expect(eq(u32, futex(BERT) & LKI_LATE, 0));
    now_ns += 1;
    cr_expect(eq(int, look(DORA), LKI_TAKEN));
    cr_expect(eq(u32, futex(BERT) & LKI_LATE, LKI_LATE));
    cr_expect(eq(u32, futex(CARL) & LKI_LATE, LKI_LATE), "each of those before it");
    cr_expect(eq(u32, futex(DORA) & LKI_LATE, 0));
}

Test(wait_fifo, two_looks_count_only_if_word_and_sequence_did_not_change)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA);
    cr_assert(eq(int, look(CARL), LKI_SLEEP));
    now_ns += 3 * MS;
    /* somebody has held it since: another hold, the same word */
    atomic_fetch_add(&area.hot[lock].sequence, 2);
    cr_assert(eq(int, look(CARL), LKI_SLEEP));
    now_ns += 3 * MS;
    cr_expect(eq(int, look(CARL), LKI_SLEEP), "3 ms since it was seen so");
    now_ns += 2 * MS;
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(wait_fifo, a_waiter_before_a_reserved_word_sleeps_at_most_5_ms_for_each_before_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    queue_up(DORA, X);
    release(ANNA);
    look(DORA);
    cr_expect(le(u64, nap_ns(DORA), 10 * MS));
    look(CARL);
    cr_expect(le(u64, nap_ns(CARL), 5 * MS));
}

Test(wait_fifo, late_waiters_are_passed_over_by_scans_and_naps)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(not(was_woken(BERT)));
    cr_expect(eq(int, look(CARL), LKI_TAKEN), "at once");
    release(CARL);
    cr_expect(was_woken(BERT), "there is nobody else now");
}

Test(wait_fifo, a_queue_of_late_waiters_only_does_not_reserve)
{
    take(ANNA, X);
    queue_up(BERT, X);
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    release(ANNA);
    cr_expect(eq(u32, word(), 0));
    cr_expect(was_woken(BERT), "but it is woken: nobody else will");
    take(CARL, X);
}

Test(wait_fifo, of_late_waiters_the_oldest_is_woken_whatever_its_slot)
{
    take(ANNA, X);
    queue_up(CARL, X);
    queue_up(BERT, X);
    queue_up(DORA, X);
    for (enum who who = BERT; who <= DORA; who++)
        atomic_fetch_or(&party(who)->self->futex, LKI_LATE);
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(not(was_woken(BERT)));
    cr_expect(not(was_woken(DORA)));
}

Test(wait_fifo, who_steps_over_marks_nobody_behind_it)
{
    take(ANNA, X);
    queue_up(CARL, X);
    queue_up(DORA, X);
    queue_up(BERT, X); /* behind Dora, in a slot before hers */
    queue_up(EMIL, X);
    release(ANNA);
    cr_assert(eq(int, look(DORA), LKI_SLEEP));
    now_ns += 5 * MS;
    cr_assert(eq(int, look(DORA), LKI_TAKEN));
    cr_expect(eq(u32, futex(CARL) & LKI_LATE, LKI_LATE));
    cr_expect(eq(u32, futex(BERT) & LKI_LATE, 0));
    cr_expect(eq(u32, futex(EMIL) & LKI_LATE, 0));
}

Test(wait_fifo, a_try_ignores_a_reservation_that_only_late_waiters_hold)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    cr_assert(eq(int, try_lock(CARL, X), LKI_BUSY));
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN));
    cr_expect(eq(u32, flags(), LKI_PARKED), "it answers for the late one");
    release(CARL);
    cr_expect(was_woken(BERT));
}

Test(wait_fifo, a_waiter_that_runs_clears_its_own_late_and_counts_again)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    look(BERT);
    cr_expect(eq(u32, futex(BERT) & LKI_LATE, 0));
    cr_expect(eq(u32, last_sleep(BERT)->futex_value & LKI_LATE, 0));
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(BERT), "it is the oldest again");
    cr_expect(eq(int, look(CARL), LKI_SLEEP));
}

Test(wait_fifo, a_mark_that_comes_before_the_sleep_ends_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    uint32_t value = last_sleep(BERT)->futex_value;
    cr_expect(eq(u32, futex(BERT), value), "it would sleep");
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    cr_expect(ne(u32, futex(BERT), value), "it would not");
}

Test(wait, a_wake_that_comes_before_the_sleep_ends_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    uint32_t value = last_sleep(BERT)->futex_value;
    release(ANNA);
    cr_expect(eq(u32, futex(BERT), value + LKI_WAKE_STEP));
}

/* --- tickets --- */

Test(wait_fifo, tickets_wrap_around)
{
    atomic_store(&area.hot[lock].ticket, UINT32_MAX - 1);
    take(ANNA, X);
    queue_up(EMIL, X); /* 2^32 - 2 */
    queue_up(DORA, X); /* 2^32 - 1 */
    queue_up(CARL, X); /* 0 */
    queue_up(BERT, X); /* 1 */
    forget_wakes();
    const enum who order[] = {ANNA, EMIL, DORA, CARL, BERT};
    for (int i = 0; i < 4; i++) {
        release(order[i]);
        cr_assert(was_woken(order[i + 1]), "turn %d", i);
        for (int later = i + 2; later <= 4; later++)
            cr_assert(eq(int, look(order[later]), LKI_SLEEP), "turn %d", i);
        cr_assert(eq(int, look(order[i + 1]), LKI_TAKEN), "turn %d", i);
        forget_wakes();
    }
    release(BERT);
    check_all_quiet();
}

/* --- giving up: in each position the turn is passed on --- */

Test(wait, a_deadline_that_passed_ends_the_wait_and_leaves_nothing)
{
    take(ANNA, X);
    cr_assert(eq(int, wait_until(BERT, X, now_ns + 100), LKI_SLEEP));
    now_ns += 100;
    cr_expect(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    check_all_quiet();
}

Test(wait, a_deadline_of_now_still_takes_a_free_word)
{
    cr_expect(eq(int, wait_until(ANNA, X, now_ns), LKI_TAKEN));
}

Test(wait, giving_up_with_the_word_free_wakes_the_next)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA); /* Bert alone was woken */
    cr_assert(not(was_woken(CARL)));
    lki_wait_give_up(wait_of(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(wait, giving_up_with_the_word_owned_and_not_parked_parks_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA); /* Bert was woken, the word is 0 */
    take(DORA, X); /* and nobody has parked this one */
    cr_assert(eq(u32, flags(), 0));
    lki_wait_give_up(wait_of(BERT));
    cr_expect(eq(u32, flags(), LKI_PARKED));
    release(DORA);
    cr_expect(was_woken(CARL));
}

Test(wait, giving_up_with_the_word_owned_and_parked_leaves_it_to_the_owner)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    lki_wait_give_up(wait_of(BERT));
    cr_expect(not(was_woken(CARL)));
    release(ANNA);
    cr_expect(was_woken(CARL));
}

Test(wait_fifo, the_last_to_give_up_a_reserved_word_unreserves_it)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    cr_assert(eq(u32, word(), LKI_FAIR | LKI_PARKED));
    lki_wait_give_up(wait_of(BERT));
    cr_expect(eq(u32, word(), 0));
    cr_expect(lki_fast_take_exclusive(party(CARL), lock, LKI_HOLD_DATA));
}

Test(wait_fifo, giving_up_a_reserved_word_keeps_it_for_the_next)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA);
    lki_wait_give_up(wait_of(BERT));
    cr_expect(eq(u32, word(), LKI_FAIR | LKI_PARKED));
    cr_expect(was_woken(CARL));
}

Test(wait, giving_up_in_the_middle_of_the_queue_disturbs_nobody)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    queue_up(DORA, X);
    lki_wait_give_up(wait_of(CARL));
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    release(BERT);
    cr_expect(was_woken(DORA));
}

Test(wait, giving_up_twice_or_after_the_end_does_nothing)
{
    take(ANNA, X);
    queue_up(BERT, X);
    lki_wait_give_up(wait_of(BERT));
    uint32_t before = word();
    lki_wait_give_up(wait_of(BERT));
    cr_expect(eq(u32, word(), before));
    release(ANNA);
    queue_up(BERT, X);
    lki_wait_give_up(wait_of(BERT)); /* held: the wait has ended */
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), X));
}

Test(wait, waiters_of_other_locks_are_never_meant)
{
    take(ANNA, X);
    queue_up(BERT, X);
    lock = 1;
    take(CARL, X);
    queue_up(DORA, X);
    release(CARL);
    cr_expect(was_woken(DORA));
    cr_expect(not(was_woken(BERT)));
}
