/* SPDX-License-Identifier: MIT */
/* What happens when somebody comes between two accesses: one other call is made at a named step of
 * the call under test. tests/stress/engine tries all orders; these name the ones that have bitten.
 */
#include "engine/step.h"

#include <string.h>

#include "engine/turn.h"
#include "tests/unit/engine/fixture.h"

#define MS LKI_NS_PER_MS

static const char *meet_at;
static unsigned meet_after;
static void (*meet)(void);
static bool met;

static void hook(const char *name)
{
    if (!meet_at || strcmp(name, meet_at) != 0 || meet_after-- > 0)
        return;
    meet_at = NULL; /* the other call has steps too */
    met = true;
    meet();
}

/* At the n-th step (from 1) of this name, once. */
static void at_step(const char *name, unsigned n, void (*then)(void))
{
    meet_at = name;
    meet_after = n - 1;
    meet = then;
    met = false;
    lki_step_hook = hook;
}

static void finish(void)
{
    lki_step_hook = NULL;
    cr_expect(met, "nobody came to the step");
    teardown();
}

static void scribble_own_id(void)
{
    atomic_store(&area.hot[lock].word, party(ANNA)->id);
}

static void scribble_no_id(void)
{
    atomic_store(&area.hot[lock].word, UINT32_C(1) << LKI_GENERATION_SHIFT | (SLOTS + 1));
}

TestSuite(races, .init = setup, .fini = finish, .timeout = 20);
TestSuite(races_fifo, .init = setup_fifo, .fini = finish, .timeout = 20);

static void bert_waits(void)
{
    cr_expect(eq(int, queue_up(BERT, X), LKI_SLEEP));
}

static void bert_gives_up(void)
{
    lki_wait_give_up(wait_of(BERT));
}

static void bert_reads(void)
{
    cr_expect(eq(int, try_lock(BERT, S), LKI_TAKEN));
}

static void nothing(void)
{
}

static void bert_reads_no_more(void)
{
    cr_expect(eq(int, release(BERT), LKI_RELEASED));
}

Test(races, a_waiter_that_comes_before_the_last_step_of_unlock_is_seen)
{
    take(ANNA, X);
    at_step("cas_word", 1, bert_waits);
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

Test(races, a_waiter_that_comes_after_the_scan_of_unlock_is_seen)
{
    take(ANNA, X);
    atomic_fetch_or(&area.hot[lock].word, LKI_PARKED);
    at_step("cas_word", 2, bert_waits); /* 1 clears PARKED, 2 frees the word */
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(was_woken(BERT));
}

static void bert_comes_and_goes(void)
{
    bert_waits();
    bert_gives_up();
    at_step("cas_word", 2, bert_waits); /* and waits anew after the second scan */
}

Test(races, unlock_clears_parked_again_before_it_scans_again)
{
    take(ANNA, X);
    atomic_fetch_or(&area.hot[lock].word, LKI_PARKED);
    at_step("cas_word", 2, bert_comes_and_goes);
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(was_woken(BERT), "PARKED of its first wait was stale");
}

Test(races, a_try_backs_out_when_a_reader_comes_after_its_look)
{
    take(CARL, S);
    release(CARL); /* READ stays */
    at_step("try_exclusive", 1, bert_reads);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_BUSY));
    cr_expect(eq(u32, word(), LKI_READ));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE));
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), S));
}

static void carl_waits_to_read(void)
{
    cr_expect(eq(int, queue_up(CARL, S), LKI_SLEEP));
}

static void bert_reads_then_carl_comes(void)
{
    bert_reads();
    at_step("load_word", 1, carl_waits_to_read);
}

Test(races, a_try_that_backs_out_wakes_the_reader_that_it_kept_out)
{
    take(DORA, S);
    release(DORA);
    at_step("try_exclusive", 1, bert_reads_then_carl_comes);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_BUSY));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(races, the_drain_looks_again_after_it_has_said_that_it_drains)
{
    take(BERT, S);
    at_step("remember_futex", 2, bert_reads_no_more); /* 1 in the queue, 2 in the drain */
    cr_expect(eq(int, queue_up(ANNA, X), LKI_TAKEN));
}

Test(races, a_reader_that_leaves_after_the_drainers_look_ends_its_sleep)
{
    take(BERT, S);
    cr_assert(eq(int, queue_up(ANNA, X), LKI_SLEEP));
    at_step("leave_owner_wait", 1, nothing); /* it looks at who drains now */
    bert_reads_no_more();
    cr_expect(ne(u32, futex(ANNA), last_sleep(ANNA)->futex_value));
}

static void drain_passes_to_carl(void)
{
    now_ns += 5 * MS;
    cr_expect(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(eq(int, queue_up(CARL, X), LKI_SLEEP));
    forget_wakes();
}

Test(races, a_reader_that_leaves_wakes_the_owner_after_and_not_before)
{
    take(ANNA, S);
    cr_assert(eq(int, wait_until(BERT, X, now_ns + 5 * MS), LKI_SLEEP));
    at_step("leave_cell", 1, drain_passes_to_carl);
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

static void bert_takes(void)
{
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN));
}

Test(races, a_reader_overtaken_by_a_writer_leaves_its_cell_again)
{
    at_step("cas_word", 1, bert_takes); /* the reader is about to set READ */
    cr_expect(eq(int, try_lock(ANNA, S), LKI_BUSY));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(eq(u32, word(), party(BERT)->id));
}

Test(races, a_reader_from_the_queue_overtaken_by_a_writer_sleeps_again)
{
    at_step("enter_cell", 1, bert_takes);
    cr_expect(eq(int, queue_up(ANNA, S), LKI_SLEEP));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(eq(u32, flags(), LKI_PARKED));
}

Test(races, two_readers_may_set_read_at_once)
{
    at_step("cas_word", 1, bert_reads);
    cr_expect(eq(int, try_lock(ANNA, S), LKI_TAKEN));
    cr_expect(eq(u32, word(), LKI_READ));
}

Test(races, a_taker_beaten_to_the_word_parks_and_sleeps)
{
    at_step("take_word", 1, bert_takes);
    cr_expect(eq(int, queue_up(ANNA, X), LKI_SLEEP));
    cr_expect(eq(u32, flags(), LKI_PARKED));
}

static void anna_releases(void)
{
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
}

Test(races, a_waiter_that_parks_too_late_looks_again_and_takes_the_word)
{
    take(ANNA, X);
    at_step("park", 1, anna_releases);
    cr_expect(eq(int, queue_up(BERT, X), LKI_TAKEN));
}

static void dora_takes(void)
{
    cr_expect(lki_fast_take_exclusive(party(DORA), lock, LKI_HOLD_DATA));
}

Test(races, giving_up_parks_a_word_that_was_taken_in_between)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA);
    at_step("load_word", 1, dora_takes);
    bert_gives_up();
    cr_expect(eq(u32, word(), party(DORA)->id | LKI_PARKED));
    release(DORA);
    cr_expect(was_woken(CARL));
}

static void somebody_else_waits_in_turn(void)
{
    /* A newer owner comes and goes, and reserves the word for Carl. */
    take(DORA, X);
    queue_up(CARL, X);
    release(DORA);
    cr_expect(eq(u32, word(), LKI_FAIR | LKI_PARKED));
}

Test(races_fifo, passing_on_to_nobody_does_not_wipe_a_newer_reservation)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    atomic_fetch_or(&area.hot[lock].word, LKI_READ); /* else the word comes back to this value */
    at_step("cas_word", 1, somebody_else_waits_in_turn);
    bert_gives_up();
    cr_expect(eq(u32, word(), LKI_FAIR | LKI_PARKED), "Carl's");
}

Test(races_fifo, passing_on_sees_whoever_came_before_it_loaded_the_word)
{
    take(ANNA, X);
    queue_up(BERT, X);
    release(ANNA);
    at_step("load_word", 1, somebody_else_waits_in_turn);
    bert_gives_up();
    cr_expect(eq(u32, word(), LKI_FAIR | LKI_PARKED), "Carl's");
}

static void bert_marked(void)
{
    atomic_fetch_or(&party(BERT)->self->futex, LKI_LATE);
}

Test(races, a_late_mark_set_while_its_waiter_looks_ends_the_sleep)
{
    take(ANNA, X);
    queue_up(BERT, X);
    at_step("look", 1, bert_marked);
    cr_expect(eq(int, look(BERT), LKI_SLEEP));
    cr_expect(eq(u32, last_sleep(BERT)->futex_value & LKI_LATE, 0));
    cr_expect(ne(u32, futex(BERT), last_sleep(BERT)->futex_value));
}

static void bert_parks(void)
{
    cr_expect(eq(int, queue_up(BERT, X), LKI_SLEEP));
}

Test(races, repair_tries_again_when_a_waiter_parks_in_between)
{
    take(ANNA, X);
    at_step("repair_word", 1, bert_parks);
    die(ANNA);
    cr_expect(eq(u32, word_id(), 0));
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED));
}

/* --- for update --- */

static int upgrade_try(enum who who)
{
    return (int)lki_lock_upgrade_try(party(who), lock, LKI_HOLD_DATA);
}

Test(races, a_try_for_update_beaten_by_one_who_reads_goes_on_beside_it)
{
    at_step("try_update", 1, bert_reads);
    cr_expect(eq(int, try_lock(ANNA, U), LKI_TAKEN));
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), S));
}

Test(races, an_upgrade_keeps_a_waiter_that_parks_in_between)
{
    take(ANNA, U);
    at_step("upgrade_try", 1, bert_waits);
    cr_expect(eq(int, upgrade_try(ANNA), LKI_TAKEN));
    cr_expect(eq(u32, word() & LKI_PARKED, LKI_PARKED));
    release(ANNA);
    cr_expect(was_woken(BERT));
}

Test(races, an_upgrade_draws_back_when_a_reader_comes_after_its_look)
{
    take(ANNA, U);
    take(CARL, S);
    release(CARL); /* READ stays */
    uint64_t before = sequence();
    at_step("upgrade_try", 1, bert_reads);
    cr_expect(eq(int, upgrade_try(ANNA), LKI_BUSY));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), U));
    cr_expect(eq(u64, sequence(), before), "it was not inside");
    cr_expect(eq(int, try_lock(DORA, S), LKI_TAKEN), "readers may join");
}

Test(races, a_downgrade_keeps_a_waiter_that_parks_in_between)
{
    take(ANNA, X);
    at_step("cas_word", 1, bert_waits);
    cr_expect(eq(int, lki_lock_downgrade(party(ANNA), lock, U), LKI_TAKEN));
    cr_expect(eq(u32, word() & (LKI_PARKED | LKI_UPDATE), LKI_PARKED | LKI_UPDATE));
    release(ANNA);
    cr_expect(was_woken(BERT));
}

/* --- beaten by one access --- */

Test(races, a_try_beaten_to_the_word_is_busy)
{
    at_step("try_exclusive", 1, bert_takes);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_BUSY));
    cr_expect(eq(u32, word(), party(BERT)->id));
    cr_expect(eq(u64, sequence(), FIRST_SEQUENCE + 1), "raised by Bert alone");
}

Test(races, a_reader_on_the_fast_path_beaten_by_a_writer_leaves_its_cell_again)
{
    at_step("take_shared_read", 1, bert_takes);
    cr_expect(not(lki_fast_take_shared(party(ANNA), lock)));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->cells[0]), 0));
    cr_expect(eq(u32, party(ANNA)->cells_used, 0));
    cr_expect(eq(u32, word(), party(BERT)->id));
}

Test(races, marking_consistent_keeps_a_waiter_that_parks_in_between)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED));
    atomic_fetch_and(&area.hot[lock].word, ~LKI_PARKED); /* of the repair */
    at_step("mark_consistent", 1, bert_parks);
    cr_expect(eq(int, lki_lock_mark_consistent(party(CARL), lock, LKI_HOLD_DATA), LKI_TAKEN));
    cr_expect(eq(u32, word(), party(CARL)->id | LKI_PARKED));
    forget_wakes();
    release(CARL);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN), "whole again");
}

Test(races, a_read_that_meets_the_end_of_a_hold_is_refused_without_alarm)
{
    uint64_t version = 77;
    take(ANNA, X);
    at_step("read_word", 1, anna_releases); /* the sequence it has seen was odd */
    cr_expect(eq(int, (int)lki_read_begin(&area, lock, &version), LKI_READ_WRITER_INSIDE));
    cr_expect(eq(u64, version, 77));
}

static void dora_releases(void)
{
    cr_expect(eq(int, release(DORA), LKI_RELEASED));
}

static void dora_takes_and_soon_releases(void)
{
    dora_takes();
    at_step("park", 1, dora_releases); /* when PARKED is about to be set for her */
}

Test(races, giving_up_wakes_the_next_when_the_owner_leaves_before_it_is_told)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA);
    forget_wakes();
    at_step("load_word", 1, dora_takes_and_soon_releases);
    bert_gives_up();
    cr_expect(was_woken(CARL), "Dora found no PARKED and looked for nobody");
}

/* --- scribbles: what no client of the protocol writes is not made worse --- */

#define INVENTED_ID UINT32_C(0x3ff0007)

static void somebody_writes_an_id(void)
{
    atomic_store(&area.hot[lock].word, INVENTED_ID);
}

Test(races, unlock_does_not_free_a_word_that_is_not_its_own_any_more)
{
    take(ANNA, X);
    queue_up(BERT, X); /* PARKED: more than one CAS to come */
    at_step("cas_word", 1, somebody_writes_an_id);
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(eq(u32, word(), INVENTED_ID));
}

Test(races, repair_does_not_free_a_word_that_is_not_the_dead_ones_any_more)
{
    struct lki_death death = {.cause = LKI_CAUSE_EXITED};
    struct lki_repair repair;
    take(ANNA, X);
    at_step("repair_word", 1, somebody_writes_an_id);
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    cr_assert(lki_repair_step(&repair, &death, LOCKS, party(BERT)->wake, NULL), "it ends");
    cr_expect(eq(u32, word(), INVENTED_ID));
    cr_expect(eq(u32, repair.freed, 0));
}

/* Somebody writes the reader's own id into the word while it comes in. */
Test(races, reader_that_finds_itself_in_the_word_leaves_and_wakes_nobody)
{
    at_step("enter_cell", 1, scribble_own_id);
    cr_expect(eq(int, try_lock(ANNA, S), LKI_BUSY));
    cr_expect(not(was_woken(ANNA)));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), X), "the word says so");
    cr_expect(eq(int, lki_party_cell(party(ANNA), lock), -1), "no cell is left");
    atomic_store(&area.hot[lock].word, 0);
}

Test(races, reader_that_finds_nobodys_id_in_the_word_leaves_and_wakes_nobody)
{
    at_step("enter_cell", 1, scribble_no_id);
    cr_expect(eq(int, try_lock(ANNA, S), LKI_BUSY));
    cr_expect(eq(int, lki_party_cell(party(ANNA), lock), -1), "no cell is left");
    atomic_store(&area.hot[lock].word, 0);
}
