/* SPDX-License-Identifier: MIT */
/* Read bias: readers without fences, and the barrier that a taker makes for them. Real orders of stores and
 * loads are for tests/stress/engine; here everything is seen at once. */
#include "engine/step.h"

#include <string.h>

#include "engine/turn.h"
#include "tests/unit/engine/fixture.h"

#define MS LKI_NS_PER_MS
#define BIASED (LKI_READ | LKI_BIASED)

static unsigned barriers;
static bool barrier_works;
static const char *meet_at;
static void (*meet)(void);

static bool make_barrier(void *user)
{
    (void)user;
    barriers++;
    return barrier_works;
}

static void setup_bias(void)
{
    setup();
    area.bias = true;
    barriers = 0;
    barrier_works = true;
    for (enum who who = ANNA; who < PARTIES; who++)
        party(who)->barrier = make_barrier;
    take(ANNA, S);
    lki_lock_bias(party(ANNA), lock);
    release(ANNA);
    cr_assert(eq(u32, word(), BIASED));
}

static void hook(const char *name)
{
    if (!meet_at || strcmp(name, meet_at) != 0)
        return;
    meet_at = NULL;
    meet();
}

static void at_step(const char *name, void (*then)(void))
{
    meet_at = name;
    meet = then;
    lki_step_hook = hook;
}

static void finish(void)
{
    lki_step_hook = NULL;
    cr_expect(eq(ptr, (void *)meet_at, NULL), "nobody came to the step");
    teardown();
}

static uint32_t cell(enum who who)
{
    return atomic_load(&party(who)->self->cells[0]);
}

TestSuite(bias, .init = setup_bias, .fini = finish, .timeout = 20);

/* --- readers --- */

Test(bias, readers_come_and_go_without_changing_the_word)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_assert(lki_fast_take_fenceless(party(BERT), lock));
    cr_expect(eq(u32, cell(ANNA), lock + 1));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), lock), S));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NESTED));
    cr_expect(eq(u32, word(), BIASED));
    cr_assert(lki_fast_release_fenceless(party(ANNA), lock));
    cr_assert(lki_fast_release_fenceless(party(BERT), lock));
    cr_expect(eq(u32, cell(ANNA) | cell(BERT), 0));
    cr_expect(eq(u32, barriers, 0));
    check_all_quiet();
}

Test(bias, either_way_of_leaving_ends_either_way_of_coming)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_assert(lki_fast_release_shared(party(ANNA), lock));
    cr_assert(lki_fast_take_shared(party(ANNA), lock));
    cr_assert(lki_fast_release_fenceless(party(ANNA), lock));
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(not(lki_fast_release_fenceless(party(ANNA), lock)), "there is nothing any more");
    check_all_quiet();
}

static enum lki_fenceless enter(unsigned who)
{
    return lki_hot_take_fenceless(&area.hot[lock], &party(who)->self->cells[0], lock + 1);
}

Test(bias, is_not_relied_on_beside_anything_else)
{
    const uint32_t words[] = {LKI_READ, BIASED | LKI_DIED, BIASED | LKI_FAIR, BIASED | 0x20007u,
                              0,        LKI_PARKED,        LKI_BIASED};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        atomic_store(&area.hot[lock].word, words[i]);
        cr_expect(eq(int, enter(ANNA), LKI_FENCELESS_AGAIN), "%08x", words[i]);
        cr_expect(eq(u32, cell(ANNA), lock + 1), "%08x", words[i]);
        lki_cell_leave(party(ANNA), lock, 0);
    }
}

Test(bias, a_reader_of_a_lock_without_it_goes_on_with_a_fence)
{
    const uint32_t free_words[] = {LKI_READ, 0, LKI_PARKED, LKI_READ | LKI_PARKED};
    for (size_t i = 0; i < sizeof(free_words) / sizeof(free_words[0]); i++) {
        atomic_store(&area.hot[lock].word, free_words[i]);
        cr_expect(lki_fast_take_fenceless(party(ANNA), lock), "%08x", free_words[i]);
        cr_expect(eq(u32, cell(ANNA), lock + 1));
        cr_expect(eq(u32, word(), free_words[i] | LKI_READ), "a taker sees that it has to look");
        cr_expect(lki_fast_release_fenceless(party(ANNA), lock));
        cr_expect(eq(u32, cell(ANNA), 0));
    }
    const uint32_t barred_words[] = {LKI_READ | LKI_DIED, LKI_FAIR, 0x20007u, BIASED | 0x20007u};
    for (size_t i = 0; i < sizeof(barred_words) / sizeof(barred_words[0]); i++) {
        atomic_store(&area.hot[lock].word, barred_words[i]);
        cr_expect(not(lki_fast_take_fenceless(party(ANNA), lock)), "%08x", barred_words[i]);
        cr_expect(eq(u32, cell(ANNA), 0));
    }
}

Test(bias, needs_the_first_cell_and_no_other_hold)
{
    lock = 3;
    take(ANNA, S);
    lock = 0;
    cr_expect(not(lki_fast_take_fenceless(party(ANNA), lock)), "the cell is taken");
    take(ANNA, S);
    lock = 3;
    release(ANNA);
    lock = 0;
    cr_expect(not(lki_fast_take_fenceless(party(ANNA), lock)), "it may be nested: it is");
    cr_expect(not(lki_fast_release_fenceless(party(ANNA), lock)), "in another cell");
    cr_expect(eq(int, release(ANNA), LKI_RELEASED));
    cr_expect(lki_fast_take_fenceless(party(ANNA), lock));
}

Test(bias, is_set_only_where_nothing_stands_in_the_way)
{
    const uint32_t words[] = {0, LKI_READ | LKI_DIED, LKI_READ | LKI_PARKED, LKI_READ | LKI_FAIR,
                              LKI_READ | 0x20007u};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        atomic_store(&area.hot[lock].word, words[i]);
        lki_lock_bias(party(ANNA), lock);
        cr_expect(eq(u32, word(), words[i]));
    }
    area.bias = false;
    atomic_store(&area.hot[lock].word, LKI_READ);
    lki_lock_bias(party(ANNA), lock);
    cr_expect(eq(u32, word(), LKI_READ), "the broker cannot make barriers");
}

static bool kept_back;

static bool keep_back(_Atomic uint32_t *where, uint32_t value)
{
    (void)where;
    (void)value;
    return kept_back;
}

Test(bias, a_store_can_be_kept_back_by_a_test)
{
    lki_store_hook = keep_back;
    kept_back = true;
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_expect(eq(u32, cell(ANNA), 0), "nobody sees it yet");
    atomic_store(&party(ANNA)->self->cells[0], lock + 1);
    cr_assert(lki_fast_release_fenceless(party(ANNA), lock));
    cr_expect(eq(u32, cell(ANNA), lock + 1));
    kept_back = false;
    cr_assert(lki_fast_release_fenceless(party(ANNA), lock));
    cr_expect(eq(u32, cell(ANNA), 0));
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_expect(eq(u32, cell(ANNA), lock + 1));
    lki_store_hook = NULL;
}

Test(bias, the_first_cell_is_the_last_one_free)
{
    cr_expect(not(lki_party_reads(party(ANNA))));
    for (lock = 0; lock < LKI_SHARED_HOLDS_MAX; lock++)
        take(ANNA, S);
    lock = 0;
    release(ANNA);
    cr_expect(eq(u32, cell(ANNA), 0));
    cr_expect(lki_party_reads(party(ANNA)));
    lock = LKI_SHARED_HOLDS_MAX;
    take(ANNA, S);
    cr_expect(eq(u32, cell(ANNA), lock + 1));
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NESTED));
    lock++;
    cr_expect(eq(int, try_lock(ANNA, S), LKI_NO_CELL));
    for (lock = 1; lock < LKI_SHARED_HOLDS_MAX; lock++)
        release(ANNA);
    cr_expect(lki_party_reads(party(ANNA)), "in the first cell alone");
}

/* --- takers --- */

Test(bias, a_try_makes_the_barrier_once_and_ends_the_bias)
{
    take(BERT, X);
    cr_expect(eq(u32, barriers, 1));
    cr_expect(eq(u32, word(), party(BERT)->id));
    release(BERT);
    cr_expect(eq(u32, word(), 0));
    take(BERT, X);
    cr_expect(eq(u32, barriers, 1), "there is no bias to end");
}

Test(bias, a_try_leaves_it_alone_while_somebody_reads)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(u32, word(), BIASED));
    cr_expect(eq(u32, barriers, 0));
}

static void anna_reads(void)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
}

static void bert_drains(void)
{
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
}

Test(bias, a_try_backs_out_when_its_barrier_shows_a_reader)
{
    at_step("try_exclusive", anna_reads);
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(u32, barriers, 1));
    cr_expect(eq(u32, word(), LKI_READ), "without the bias, which has been ended");
}

Test(bias, a_wait_drains_and_the_last_reader_wakes_it)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    bert_drains();
    cr_expect(eq(u32, barriers, 1));
    cr_expect(eq(u32, word(), party(BERT)->id | LKI_PARKED));
    forget_wakes();
    cr_expect(lki_fast_release_fenceless(party(ANNA), lock));
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, barriers, 1));
}

Test(bias, a_reader_that_leaves_beside_a_taker_looks_again)
{
    cr_assert(lki_fast_take_fenceless(party(ANNA), lock));
    at_step("leave_fenceless_cell", bert_drains);
    cr_expect(lki_fast_release_fenceless(party(ANNA), lock));
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

Test(bias, a_reader_that_comes_beside_a_taker_leaves_again)
{
    at_step("take_fenceless_look", bert_drains); /* finds the cell of one who is not inside */
    cr_expect(not(lki_fast_take_fenceless(party(ANNA), lock)));
    cr_expect(eq(u32, cell(ANNA), 0));
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
}

/* --- takers that can make no barrier --- */

Test(bias, without_a_barrier_a_try_takes_nothing_and_leaves_the_bias)
{
    barrier_works = false;
    cr_expect(eq(int, try_lock(BERT, X), LKI_BUSY));
    cr_expect(eq(u32, word(), BIASED), "or the next taker would make none");
    party(CARL)->barrier = NULL;
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY));
    cr_expect(eq(u32, word(), BIASED));
    barrier_works = true;
    take(BERT, X);
}

Test(bias, without_a_barrier_an_upgrade_is_not_tried_and_leaves_the_bias)
{
    take(BERT, U);
    barrier_works = false;
    cr_expect(eq(int, lki_lock_upgrade_try(party(BERT), lock, LKI_HOLD_DATA), LKI_BUSY));
    cr_expect(eq(u32, word() & LKI_BIASED, LKI_BIASED));
    cr_expect(eq(int, lki_lock_held_by(party(BERT), lock), U));
    barrier_works = true;
    cr_expect(eq(int, lki_lock_upgrade_try(party(BERT), lock, LKI_HOLD_DATA), LKI_TAKEN));
    cr_expect(eq(u32, word() & LKI_BIASED, 0));
}

Test(bias, without_a_barrier_a_wait_tries_it_again_soon)
{
    barrier_works = false;
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
    cr_expect(eq(u32, word(), party(BERT)->id | LKI_PARKED | LKI_BIASED));
    for (int i = 0; i < 3; i++) {
        cr_expect(le(u64, last_sleep(BERT)->until_ns, now_ns + MS));
        now_ns += MS;
        cr_assert(eq(int, look(BERT), LKI_SLEEP));
    }
    barrier_works = true;
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    cr_expect(eq(u32, word(), party(BERT)->id | LKI_PARKED));
}

Test(bias, without_a_barrier_a_wait_that_ends_leaves_the_bias)
{
    barrier_works = false;
    cr_assert(eq(int, wait_until(BERT, X, now_ns + 5 * MS), LKI_SLEEP));
    now_ns += 5 * MS;
    cr_expect(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(eq(u32, word(), BIASED));
    check_all_quiet();
}

/* --- death --- */

static void bert_dies(void)
{
    die(BERT);
}

Test(bias, outlives_a_taker_that_died_before_its_barrier)
{
    barrier_works = false;
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
    die(BERT);
    cr_expect(eq(u32, word(), BIASED | LKI_PARKED | LKI_FAIR));
    barrier_works = true;
    take(CARL, X);
    cr_expect(eq(u32, barriers, 2), "the second one");
}

Test(bias, a_dead_reader_is_in_nobodys_way)
{
    cr_assert(lki_fast_take_fenceless(party(BERT), lock));
    bert_dies();
    take(CARL, X);
    cr_expect(eq(u32, cell(BERT), 0));
}
