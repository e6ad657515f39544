/* SPDX-License-Identifier: MIT */
/* Going on where a driver died, from each place in which it can have left an attempt. */
#include "engine/resume.h"

#include "engine/scan.h"

#include "tests/unit/engine/fixture.h"

TestSuite(resume, .init = setup, .fini = teardown, .timeout = 20);

/* A new driver takes the attempt of a party over: all that it knows is in shared memory. */
static int resume_as(enum who who, enum lki_mode mode, enum lki_hold hold)
{
    struct lki_party *self = party(who);
    cr_assert(lki_party_init(self, &area, self->id, self->wake, self->user));
    return (int)lki_wait_resume(wait_of(who), self, lock, mode, hold, now_ns, LKI_TIME_NEVER);
}

static int resume(enum who who, enum lki_mode mode)
{
    return resume_as(who, mode, LKI_HOLD_DATA);
}

static int resume_upgrade(enum who who)
{
    struct lki_party *self = party(who);
    cr_assert(lki_party_init(self, &area, self->id, self->wake, self->user));
    return (int)lki_wait_resume_upgrade(wait_of(who), self, lock, now_ns, LKI_TIME_NEVER);
}

/* What the step that fills a cell leaves of a reader whose driver died right after it. */
static void leave_a_cell(enum who who)
{
    atomic_store(&party(who)->self->cells[0], lock + 1);
}

Test(resume, an_attempt_that_left_nothing_is_begun_again)
{
    cr_expect(eq(int, resume(ANNA, X), LKI_NOT_HELD));
    cr_expect(eq(int, resume(ANNA, S), LKI_NOT_HELD));
    take(BERT, X);
    cr_expect(eq(int, resume(ANNA, X), LKI_NOT_HELD), "somebody else's word");
    cr_expect(eq(u32, word(), party(BERT)->id));
}

Test(resume, a_wait_goes_on_with_its_old_ticket)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, S);
    uint64_t of_bert = fact(BERT), of_carl = fact(CARL);
    cr_expect(eq(int, resume(BERT, X), LKI_SLEEP));
    cr_expect(eq(int, resume(CARL, S), LKI_SLEEP));
    cr_expect(eq(u64, fact(BERT), of_bert));
    cr_expect(eq(u64, fact(CARL), of_carl));
    release(ANNA);
    cr_expect(was_woken(BERT), "it was first");
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

Test(resume, a_hold_of_data_is_found_by_its_odd_sequence)
{
    take(ANNA, X);
    uint64_t token = sequence();
    cr_expect(eq(int, resume(ANNA, X), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), token), "the same hold");
}

Test(resume, a_taken_word_with_a_wait_still_published_is_a_hold)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    uint64_t before = fact(BERT);
    cr_assert(eq(int, look(BERT), LKI_TAKEN));
    atomic_store(&party(BERT)->self->wait, before);
    cr_expect(eq(int, resume(BERT, X), LKI_TAKEN));
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE), "it waits no more");
}

Test(resume, a_drain_goes_on_and_waits_for_the_readers)
{
    take(ANNA, S);
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
    cr_expect(eq(int, resume(BERT, X), LKI_SLEEP));
    cr_expect(eq(int, look(BERT), LKI_SLEEP), "Anna reads");
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

Test(resume, a_word_taken_over_damage_is_drained_once_more)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    cr_expect(eq(int, resume(BERT, X), LKI_SLEEP), "odd says nothing here");
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED));
}

Test(resume, a_hold_to_exit_is_drained_once_more_whatever_its_sequence_says)
{
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_expect(eq(int, resume_as(ANNA, X, LKI_HOLD_TO_EXIT), LKI_SLEEP));
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
    cr_expect(eq(u64, sequence() & 1, 0));

    atomic_fetch_add(&area.hot[lock].sequence, 1); /* a scribble */
    cr_expect(eq(int, resume_as(ANNA, X, LKI_HOLD_TO_EXIT), LKI_SLEEP));
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
}

Test(resume, a_reader_with_its_cell_filled_is_inside)
{
    take(ANNA, S);
    cr_expect(eq(int, resume(ANNA, S), LKI_TAKEN));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), S));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
}

Test(resume, a_reader_that_had_not_looked_at_the_word_opens_it)
{
    leave_a_cell(ANNA);
    cr_expect(eq(int, resume(ANNA, S), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_READ), "or no writer would look at its cell");
}

Test(resume, a_reader_that_is_inside_passes_the_turn_on)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, S);
    release(ANNA);
    forget_wakes();
    leave_a_cell(BERT);
    cr_expect(eq(int, resume(BERT, S), LKI_TAKEN));
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE));
    cr_expect(was_woken(CARL));
}

Test(resume, a_reader_with_an_owner_in_its_way_leaves_its_cell)
{
    take(BERT, X);
    leave_a_cell(ANNA);
    cr_expect(eq(int, resume(ANNA, S), LKI_NOT_HELD));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(eq(u32, word(), party(BERT)->id));
}

Test(resume, a_reader_from_the_queue_with_an_owner_in_its_way_waits_on)
{
    take(BERT, X);
    queue_up(ANNA, S);
    uint64_t before = fact(ANNA);
    leave_a_cell(ANNA);
    cr_expect(eq(int, resume(ANNA, S), LKI_SLEEP));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(eq(u64, fact(ANNA), before));
    release(BERT);
    cr_expect(was_woken(ANNA));
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
}

Test(resume, a_published_wait_that_is_not_this_attempt_is_withdrawn)
{
    take(ANNA, X);
    queue_up(BERT, S);
    cr_expect(eq(int, resume(BERT, X), LKI_NOT_HELD), "of another mode: a scribble");
    cr_expect(eq(u64, fact(BERT), LKI_WAIT_NONE));

    queue_up(CARL, X);
    lock = 1;
    cr_expect(eq(int, resume(CARL, X), LKI_NOT_HELD), "for another lock");
    cr_expect(eq(u64, fact(CARL), LKI_WAIT_NONE));
}

/* What an unlock leaves whose driver died between clearing PARKED and its look for waiters. */
static void leave_an_unlock(void)
{
    atomic_fetch_and(&area.hot[lock].word, ~LKI_PARKED);
}

Test(resume, an_unlock_that_is_begun_anew_keeps_the_turn_of_an_impatient_waiter)
{
    take(ANNA, X);
    queue_up(BERT, X);
    now_ns += LKI_NS_PER_S; /* past every patience */
    look(BERT);
    leave_an_unlock();
    lki_lock_resume(party(ANNA), lock);
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(u32, word() & LKI_FAIR, LKI_FAIR), "else anybody may pass Bert");
}

Test(resume, a_back_out_that_is_begun_anew_keeps_the_turn_of_an_impatient_waiter)
{
    take(ANNA, S);
    queue_up(BERT, X);
    queue_up(CARL, X);
    now_ns += LKI_NS_PER_S; /* past every patience */
    look(CARL);
    leave_an_unlock();
    cr_assert(eq(int, resume(BERT, X), LKI_SLEEP), "Bert drains");
    lki_wait_give_up(wait_of(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(eq(u32, word() & LKI_FAIR, LKI_FAIR), "else anybody may pass Carl");
}

/* --- For update --- */

Test(resume, a_hold_for_update_has_its_sequence_raised_once_more)
{
    take(ANNA, U);
    take(BERT, S);
    uint64_t token = sequence();
    cr_expect(eq(int, resume(ANNA, U), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), token + 2), "nobody was told of the other");
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), U));
}

Test(resume, an_upgrade_that_was_not_begun_begins)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, resume_upgrade(ANNA), LKI_SLEEP));
    cr_expect(eq(int, look(ANNA), LKI_SLEEP), "Bert reads");
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), X));
    release(BERT);
    cr_expect(was_woken(ANNA));
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
}

Test(resume, an_upgrade_that_waits_for_readers_waits_on)
{
    take(ANNA, U);
    take(BERT, S);
    (void)lki_wait_begin_upgrade(wait_of(ANNA), party(ANNA), lock, LKI_HOLD_DATA, now_ns,
                                 LKI_TIME_NEVER);
    cr_assert(eq(int, look(ANNA), LKI_SLEEP));
    cr_expect(eq(int, resume_upgrade(ANNA), LKI_SLEEP));
    cr_expect(eq(int, look(ANNA), LKI_SLEEP), "Bert reads");
    release(BERT);
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
    cr_expect(eq(u64, sequence() & 1, 1));
}

Test(resume, an_upgrade_that_has_been_is_known_by_the_odd_sequence)
{
    take(ANNA, U);
    cr_assert(eq(int, lki_lock_upgrade_try(party(ANNA), lock, LKI_HOLD_DATA), LKI_TAKEN));
    uint64_t token = sequence();
    cr_expect(eq(int, resume_upgrade(ANNA), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), token));
}

Test(resume, an_upgrade_of_no_hold_is_none)
{
    take(BERT, U);
    uint32_t before = word();
    cr_expect(eq(int, resume_upgrade(ANNA), LKI_NOT_HELD));
    cr_expect(eq(u32, word(), before));
}

Test(resume, a_downgrade_that_filled_its_cell_is_begun_anew_and_fills_no_other)
{
    take(ANNA, X);
    leave_a_cell(ANNA);
    cr_expect(eq(int, lki_lock_downgrade(party(ANNA), lock, S), LKI_TAKEN));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[1]), 0));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), S));
    release(ANNA);
    take(BERT, X);
}

Test(resume, a_hold_that_is_not_there_is_left_alone)
{
    take(BERT, X);
    uint32_t before = word();
    lki_lock_resume(party(ANNA), lock);
    cr_expect(eq(u32, word(), before));
}

Test(resume, waking_the_waiters_means_all_of_them_and_nobody_else)
{
    take(ANNA, X);
    queue_up(BERT, X);
    lock = 1;
    take(DORA, S);
    cr_assert(eq(int, queue_up(CARL, X), LKI_SLEEP)); /* drains */
    forget_wakes();
    lki_wake_waiters(&area, party(ANNA)->wake, NULL);
    cr_expect(was_woken(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(not(was_woken(ANNA)));
    cr_expect(not(was_woken(DORA)));
}
