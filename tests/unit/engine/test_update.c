/* SPDX-License-Identifier: MIT */
/* Update mode: one owner beside readers, who may become exclusive and come back. */
#include "tests/unit/engine/fixture.h"

#define MS LKI_NS_PER_MS

TestSuite(update, .init = setup, .fini = teardown, .timeout = 20);
TestSuite(update_fifo, .init = setup_fifo, .fini = teardown, .timeout = 20);

static int upgrade_try(enum who who)
{
    return (int)lki_lock_upgrade_try(party(who), lock, LKI_HOLD_DATA);
}

static int upgrade_until(enum who who, uint64_t deadline_ns)
{
    int begun = (int)lki_wait_begin_upgrade(wait_of(who), party(who), lock, LKI_HOLD_DATA, now_ns,
                                            deadline_ns);
    return begun == LKI_SLEEP ? look(who) : begun;
}

static int downgrade(enum who who, enum lki_mode mode)
{
    return (int)lki_lock_downgrade(party(who), lock, mode);
}

static int held_by(enum who who)
{
    return lki_lock_held_by(party(who), lock);
}

/* --- taking and releasing --- */

Test(update, it_excludes_its_like_and_writers_but_no_reader)
{
    take(ANNA, U);
    cr_expect(eq(int, held_by(ANNA), U));
    cr_expect(eq(int, try_lock(BERT, U), LKI_BUSY));
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(int, try_lock(BERT, S), LKI_TAKEN));
    cr_expect(eq(int, queue_up(CARL, S), LKI_TAKEN), "a waiting reader comes in as well");
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(eq(u32, word(), LKI_READ), "so that the next writer looks for them");
    cr_expect(eq(int, try_lock(DORA, X), LKI_BUSY));
    release(BERT);
    release(CARL);
    check_all_quiet();
}

Test(update, it_begins_beside_readers)
{
    take(BERT, S);
    take(ANNA, U);
    cr_expect(eq(u32, flags(), LKI_UPDATE | LKI_READ));
    cr_expect(eq(int, held_by(BERT), S));
    release(BERT);
    release(ANNA);
    check_all_quiet();
}

Test(update, it_does_not_nest)
{
    take(ANNA, U);
    cr_expect(eq(int, try_lock(ANNA, U), LKI_NESTED));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NESTED));
    cr_expect(eq(int, queue_up(ANNA, X), LKI_NESTED));
    take(BERT, S);
    cr_expect(eq(int, try_lock(BERT, U), LKI_NESTED));
}

Test(update, each_hold_has_a_token_of_its_own_and_the_sequence_stays_even)
{
    take(ANNA, U);
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2));
    cr_expect(eq(int, upgrade_try(ANNA), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 3));
    cr_expect(eq(int, downgrade(ANNA, U), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 4));
    release(ANNA);
    take(ANNA, U);
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 6));
}

Test(update, its_owner_may_not_declare_or_mark)
{
    take(ANNA, U);
    cr_expect(eq(int, (int)lki_lock_declare(party(ANNA), lock, 0, 8), LKI_NOT_HELD));
    cr_expect(
        eq(int, (int)lki_lock_mark_consistent(party(ANNA), lock, LKI_HOLD_DATA), LKI_NOT_HELD));
    cr_expect(
        eq(int, (int)lki_lock_mark_consistent(party(ANNA), lock, LKI_HOLD_TO_EXIT), LKI_NOT_HELD));
}

Test(update, an_ended_session_changes_nothing)
{
    take(ANNA, U);
    die(ANNA);
    uint32_t before = word();
    cr_expect(eq(int, upgrade_try(ANNA), LKI_STALE));
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_STALE));
    cr_expect(eq(int, downgrade(ANNA, S), LKI_STALE));
    cr_expect(eq(int, try_lock(ANNA, U), LKI_STALE));
    cr_expect(eq(u32, word(), before));
}

/* --- in the queue --- */

Test(update, it_waits_for_its_like_and_answers_for_those_behind)
{
    take(ANNA, X);
    cr_expect(eq(int, queue_up(BERT, U), LKI_SLEEP));
    cr_expect(eq(u32, lki_wait_mode(fact(BERT)), U));
    cr_expect(eq(int, queue_up(CARL, S), LKI_SLEEP));
    cr_expect(eq(int, queue_up(DORA, U), LKI_SLEEP));
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(not(was_woken(CARL)), "one is woken");
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(was_woken(CARL), "it may come in");
    cr_expect(not(was_woken(DORA)));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    cr_expect(eq(int, look(DORA), LKI_SLEEP));
    cr_expect(eq(u32, flags(), LKI_UPDATE | LKI_READ | LKI_PARKED));
    release(BERT);
    cr_expect(was_woken(DORA));
    cr_expect(eq(int, look(DORA), LKI_TAKEN));
    release(CARL);
    release(DORA);
    check_all_quiet();
}

Test(update, whoever_parks_behind_one_that_barged_lets_the_readers_know)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, S);
    release(ANNA); /* wakes Bert, and leaves nothing in the word */
    take(DORA, U);
    forget_wakes();
    cr_expect(eq(int, look(BERT), LKI_SLEEP));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(update_fifo, it_waits_for_its_turn)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, U);
    release(ANNA);
    cr_expect(eq(u32, flags(), LKI_FAIR | LKI_PARKED));
    cr_expect(eq(int, try_lock(DORA, U), LKI_BUSY));
    cr_expect(eq(int, look(CARL), LKI_SLEEP), "Bert is before it");
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    release(BERT);
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    release(CARL);
    check_all_quiet();
}

Test(update_fifo, a_try_that_passes_slow_waiters_wakes_those_that_read)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, S);
    release(ANNA); /* FAIR and PARKED */
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
    atomic_fetch_or(&party(CARL)->self->futex, LKI_LATE);
    forget_wakes();
    take(DORA, U);
    cr_expect(was_woken(BERT));
    cr_expect(was_woken(CARL));
}

Test(update_fifo, readers_do_not_wait_for_one_in_the_queue)
{
    take(ANNA, X);
    queue_up(BERT, U);
    queue_up(CARL, S);
    release(ANNA);
    cr_expect(eq(int, look(CARL), LKI_TAKEN), "only writers keep a reader waiting");
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, flags() & LKI_READ, LKI_READ));
}

/* --- to exclusive --- */

Test(update, it_becomes_exclusive_at_once_where_nobody_reads)
{
    take(ANNA, U);
    cr_expect(eq(int, upgrade_try(ANNA), LKI_TAKEN));
    cr_expect(eq(int, held_by(ANNA), X));
    cr_expect(eq(u32, flags(), 0));
    cr_expect(eq(int, try_lock(BERT, S), LKI_BUSY));
    cr_expect(eq(int, upgrade_try(ANNA), LKI_NOT_HELD), "not for update any more");
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_NOT_HELD));
    release(ANNA);
    check_all_quiet();
}

Test(update, a_try_does_not_disturb_readers)
{
    take(ANNA, U);
    take(BERT, S);
    uint32_t before = word();
    cr_expect(eq(int, upgrade_try(ANNA), LKI_BUSY));
    cr_expect(eq(u32, word(), before));
    cr_expect(eq(int, held_by(ANNA), U));
    release(BERT);
    cr_expect(eq(int, upgrade_try(ANNA), LKI_TAKEN), "READ alone keeps nobody out");
}

Test(update, it_waits_for_readers_and_lets_no_more_in)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_SLEEP));
    cr_expect(lki_wait_is(fact(ANNA), LKI_WAIT_DRAINING, lock));
    cr_expect(eq(int, held_by(ANNA), X));
    cr_expect(eq(int, try_lock(CARL, S), LKI_BUSY));
    cr_expect(eq(int, queue_up(CARL, S), LKI_SLEEP));
    release(BERT);
    cr_expect(was_woken(ANNA));
    cr_expect(eq(int, look(ANNA), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 3));
    cr_expect(eq(u64, fact(ANNA), LKI_WAIT_NONE));
    forget_wakes();
    release(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(update, without_readers_there_is_nothing_to_wait_for)
{
    take(ANNA, U);
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_TAKEN));
    cr_expect(eq(int, held_by(ANNA), X));
}

Test(update, out_of_time_it_is_held_for_update_and_readers_may_join_again)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, upgrade_until(ANNA, now_ns + 5 * MS), LKI_SLEEP));
    queue_up(CARL, S);
    forget_wakes();
    now_ns += 5 * MS;
    cr_expect(eq(int, look(ANNA), LKI_TIMED_OUT));
    cr_expect(eq(int, held_by(ANNA), U));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2), "nothing was written");
    cr_expect(eq(u64, fact(ANNA), LKI_WAIT_NONE));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    release(ANNA);
    cr_expect(eq(int, try_lock(DORA, X), LKI_BUSY), "they are found");
    release(BERT);
    release(CARL);
    take(DORA, X);
}

Test(update, drawing_back_wakes_nobody_where_nobody_sleeps)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_SLEEP));
    forget_wakes();
    lki_wait_give_up(wait_of(ANNA));
    cr_expect(eq(int, held_by(ANNA), U));
    cr_expect(not(was_woken(BERT)));
}

/* --- and back --- */

Test(update, an_exclusive_hold_becomes_one_for_update_and_lets_readers_in)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, X);
    queue_up(DORA, S);
    forget_wakes();
    cr_expect(eq(int, downgrade(ANNA, U), LKI_TAKEN));
    cr_expect(eq(int, held_by(ANNA), U));
    cr_expect(was_woken(BERT));
    cr_expect(was_woken(DORA));
    cr_expect(not(was_woken(CARL)));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(int, look(DORA), LKI_TAKEN), "a writer in the queue is no matter");
    cr_expect(eq(int, look(CARL), LKI_SLEEP));
    release(ANNA);
    cr_expect(was_woken(CARL));
}

Test(update, an_exclusive_hold_becomes_shared_and_all_readers_come_in)
{
    take(ANNA, X);
    queue_up(BERT, S);
    queue_up(CARL, S);
    forget_wakes();
    cr_expect(eq(int, downgrade(ANNA, S), LKI_TAKEN));
    cr_expect(eq(int, held_by(ANNA), S));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 2));
    cr_expect(was_woken(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
    cr_expect(eq(int, try_lock(DORA, X), LKI_BUSY));
    release(ANNA);
    release(BERT);
    release(CARL);
    take(DORA, X);
    release(DORA);
    check_all_quiet();
}

Test(update, a_downgrade_wakes_nobody_where_nobody_waits)
{
    take(ANNA, X);
    forget_wakes();
    cr_expect(eq(int, downgrade(ANNA, S), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_READ));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    take(ANNA, U);
    cr_expect(eq(int, downgrade(ANNA, S), LKI_TAKEN));
    cr_expect(eq(int, held_by(ANNA), S));
    cr_expect(eq(u32, word(), LKI_READ));
}

Test(update, nothing_is_downgraded_that_is_not_stronger)
{
    cr_expect(eq(int, downgrade(ANNA, S), LKI_NOT_HELD));
    take(ANNA, S);
    cr_expect(eq(int, downgrade(ANNA, S), LKI_NOT_HELD));
    cr_expect(eq(int, downgrade(ANNA, U), LKI_NOT_HELD));
    cr_expect(eq(int, upgrade_try(ANNA), LKI_NOT_HELD), "readers wait for each other otherwise");
    release(ANNA);
    take(ANNA, U);
    cr_expect(eq(int, downgrade(ANNA, U), LKI_NOT_HELD));
    cr_expect(eq(int, downgrade(ANNA, X), LKI_NOT_HELD));
    release(ANNA);
    take(ANNA, X);
    cr_expect(eq(int, downgrade(ANNA, X), LKI_NOT_HELD));
}

Test(update, a_downgrade_to_shared_needs_a_cell)
{
    for (lock = 1; lock <= LKI_SHARED_HOLDS_MAX; lock++)
        take(ANNA, S);
    lock = 0;
    take(ANNA, X);
    cr_expect(eq(int, downgrade(ANNA, S), LKI_NO_CELL));
    cr_expect(eq(int, held_by(ANNA), X));
    cr_expect(eq(int, downgrade(ANNA, U), LKI_TAKEN), "which needs none");
}

/* --- death --- */

Test(update, the_death_of_its_owner_is_a_plain_release)
{
    take(ANNA, U);
    take(BERT, S);
    queue_up(CARL, X);
    forget_wakes();
    die(ANNA);
    cr_expect(was_woken(CARL));
    cr_expect(eq(u32, flags() & LKI_DIED, 0));
    cr_expect(eq(int, look(CARL), LKI_SLEEP), "it drains");
    release(BERT);
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(update, death_on_the_way_to_exclusive_is_one_too)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, upgrade_until(ANNA, LKI_TIME_NEVER), LKI_SLEEP));
    die(ANNA);
    cr_expect(eq(u32, flags() & LKI_DIED, 0));
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY), "Bert is found");
}

Test(update, death_as_exclusive_is_damage)
{
    take(ANNA, U);
    cr_expect(eq(int, upgrade_try(ANNA), LKI_TAKEN));
    die(ANNA);
    cr_expect(eq(u32, flags() & LKI_DIED, LKI_DIED));
    cr_expect(eq(int, try_lock(BERT, U), LKI_TAKEN_DIED));
}

Test(update, damage_stays_with_whoever_did_it)
{
    take(ANNA, X);
    die(ANNA);
    uint64_t token = area.cold[lock].recovery_token;
    cr_expect(eq(int, try_lock(BERT, U), LKI_TAKEN_DIED));
    cr_expect(eq(u64, sequence() & 1, 1));
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN_DIED));
    die(BERT);
    cr_expect(eq(u32, flags() & LKI_DIED, LKI_DIED));
    cr_expect(eq(u64, area.cold[lock].recovery_token, token), "Bert wrote nothing");
    cr_expect(eq(int, area.cold[lock].recovery_pid, 100 + (int)ANNA));
    release(CARL);
    cr_expect(eq(int, queue_up(DORA, U), LKI_TAKEN_DIED));
    cr_expect(eq(int, upgrade_try(DORA), LKI_TAKEN_DIED));
    cr_expect(eq(int, (int)lki_lock_mark_consistent(party(DORA), lock, LKI_HOLD_DATA), LKI_TAKEN));
    cr_expect(eq(int, downgrade(DORA, U), LKI_TAKEN));
    cr_expect(eq(u64, sequence() & 1, 0));
    release(DORA);
    check_all_quiet();
}

Test(update, death_on_the_way_up_over_older_damage_is_not_recorded_over_it)
{
    take(ANNA, X);
    die(ANNA);
    uint64_t token = area.cold[lock].recovery_token;
    cr_expect(eq(int, try_lock(BERT, U), LKI_TAKEN_DIED));
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN_DIED));
    cr_expect(eq(int, upgrade_until(BERT, LKI_TIME_NEVER), LKI_SLEEP));
    die(BERT);
    cr_expect(eq(u64, area.cold[lock].recovery_token, token));
    cr_expect(eq(int, queue_up(DORA, X), LKI_SLEEP), "Carl is inside");
    die(DORA);
    cr_expect(eq(u64, area.cold[lock].recovery_token, token));
    cr_expect(eq(u32, flags() & LKI_DIED, LKI_DIED));
}

Test(update, an_unmended_hold_stays_damaged_as_it_is_downgraded)
{
    take(ANNA, X);
    die(ANNA);
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    cr_expect(eq(int, downgrade(BERT, U), LKI_TAKEN));
    cr_expect(eq(u64, sequence() & 1, 1));
    cr_expect(eq(int, try_lock(CARL, S), LKI_TAKEN_DIED));
    cr_expect(eq(int, downgrade(BERT, S), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_DIED | LKI_READ));
}

Test(update, an_upgrade_to_exit_stays_even)
{
    cr_assert(eq(int, (int)lki_lock_try(party(ANNA), lock, U, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_expect(eq(int, (int)lki_lock_upgrade_try(party(ANNA), lock, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 4));
    die(ANNA);
    take(BERT, X);
}

Test(update, a_scribbled_word_is_not_touched)
{
    take(ANNA, U);
    take(BERT, S);
    cr_expect(eq(int, upgrade_until(ANNA, now_ns + MS), LKI_SLEEP));
    atomic_store(&area.hot[lock].word, party(BERT)->id);
    now_ns += MS;
    cr_expect(eq(int, (int)lki_wait_step(wait_of(ANNA), now_ns, last_sleep(ANNA)), LKI_TIMED_OUT));
    cr_expect(eq(u32, word(), party(BERT)->id));
}
