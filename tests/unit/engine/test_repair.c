/* SPDX-License-Identifier: MIT */
#include "engine/repair.h"

#include <string.h>

#include "tests/unit/engine/fixture.h"

TestSuite(repair, .init = setup, .fini = teardown, .timeout = 20);
TestSuite(repair_fifo, .init = setup_fifo, .fini = teardown, .timeout = 20);

static const struct lki_death death = {
    .pid = 4711, .uid = 33, .cause = LKI_CAUSE_EXITED, .when_ns = 99, .command = "victim"};
static unsigned wakes[SLOTS + 1];

static void count_wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)brokered;
    wakes[slot]++;
}

/* --- what is left of a word --- */

Test(repair, an_owner_inside_leaves_a_free_word_that_says_so)
{
    take(ANNA, X);
    uint64_t inside = sequence();
    die(ANNA);
    cr_expect(eq(u32, word(), LKI_READ | LKI_PARKED | LKI_FAIR | LKI_DIED));
    cr_expect(eq(u64, sequence(), inside), "the evidence stays");
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED), "FAIR for nobody stops nobody");
}

Test(repair, an_owner_that_wrote_nothing_leaves_no_damage)
{
    take(ANNA, S);
    queue_up(BERT, X); /* owns the word, drains */
    cr_assert(eq(u32, word_id(), party(BERT)->id));
    die(BERT);
    cr_expect(eq(u32, word() & LKI_DIED, 0));
    cr_expect(eq(u32, word() & LKI_READ, LKI_READ), "it had cleared it, and Anna is inside");
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY));
    release(ANNA);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN));
    release(CARL);
    check_all_quiet();
}

Test(repair, a_hold_to_exit_ends_as_a_plain_release)
{
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    die(ANNA);
    cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN));
    release(BERT);
    check_all_quiet();
}

Test(repair, damage_stays_damage_when_the_next_owner_dies_too)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED));
    die(BERT);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED));
    cr_expect(eq(u64, sequence() & 1, 1));
}

Test(repair, a_death_after_marking_consistent_is_damage_again)
{
    take(ANNA, X);
    die(ANNA);
    try_lock(BERT, X);
    lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA);
    die(BERT);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED), "it was still inside");
}

Test(repair, a_hold_to_exit_that_marked_consistent_ends_as_a_plain_release)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, lki_lock_try(party(BERT), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN_DIED));
    cr_expect(eq(int, lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    die(BERT);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN));
    release(CARL);
    check_all_quiet();
}

Test(repair, a_hold_to_exit_that_did_not_mark_consistent_leaves_the_damage)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, lki_lock_try(party(BERT), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN_DIED));
    die(BERT);
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED));
}

Test(repair_fifo, the_word_is_reserved_for_who_waited)
{
    take(ANNA, X);
    queue_up(BERT, X);
    die(ANNA);
    cr_expect(eq(int, try_lock(CARL, X), LKI_BUSY));
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED));
}

Test(repair, the_read_bias_bit_stays)
{
    take(ANNA, X);
    atomic_fetch_or(&area.hot[lock].word, LKI_BIASED);
    die(ANNA);
    cr_expect(ne(u32, word() & LKI_BIASED, 0));
}

Test(repair, words_of_the_living_are_left_alone)
{
    take(ANNA, X);
    lock = 1;
    take(BERT, X);
    uint32_t before = word();
    die(ANNA);
    cr_expect(eq(u32, word(), before));
    cr_expect(eq(int, release(BERT), LKI_RELEASED));
}

/* --- whom it clears, whom it wakes --- */

Test(repair, the_dead_waits_for_nothing_and_reads_nothing)
{
    take(BERT, X);
    queue_up(ANNA, X);
    lock = 1;
    take(ANNA, S);
    struct lki_attachment *dead = party(ANNA)->self;
    die(ANNA);
    cr_expect(eq(u64, atomic_load(&dead->wait), LKI_WAIT_NONE));
    for (unsigned i = 0; i < LKI_SHARED_HOLDS_MAX; i++)
        cr_expect(eq(u32, atomic_load(&dead->cells[i]), 0));
    cr_expect(eq(u32, atomic_load(&dead->id), 0));
    cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN));
}

Test(repair, everybody_who_waits_or_drains_in_the_segment_is_woken)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, S);
    lock = 1;
    take(EMIL, S);
    queue_up(DORA, X); /* drains another lock */
    forget_wakes();
    die(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(was_woken(CARL));
    cr_expect(was_woken(DORA), "the dead one may have owed it a wake");
    cr_expect(not(was_woken(EMIL)));
    cr_expect(not(was_woken(ANNA)));
}

Test(repair, a_dead_waiter_that_had_been_woken_does_not_swallow_the_turn)
{
    take(ANNA, X);
    queue_up(BERT, X);
    queue_up(CARL, X);
    release(ANNA); /* the wake went to Bert */
    cr_assert(not(was_woken(CARL)));
    die(BERT);
    cr_expect(was_woken(CARL));
    cr_expect(eq(int, look(CARL), LKI_TAKEN));
}

Test(repair, a_session_that_closes_with_nothing_wakes_nobody)
{
    take(ANNA, X);
    queue_up(BERT, X);
    forget_wakes();
    close_session(CARL);
    cr_expect(not(was_woken(BERT)));
}

Test(repair, a_close_of_an_id_without_a_slot_wakes_everybody)
{
    struct lki_repair repair;
    struct lki_death closed = {.cause = LKI_CAUSE_CLOSED};
    take(ANNA, X);
    queue_up(BERT, X);
    memset(wakes, 0, sizeof(wakes));
    lki_repair_begin(&repair, &area,
                     7u << 16); /* slot 0: no attachment says that it owes nothing */
    cr_assert(lki_repair_step(&repair, &closed, LOCKS, count_wake, NULL));
    cr_expect(eq(u32, wakes[BERT + 1], 1));
}

Test(repair, a_session_that_closes_inside_hands_on_damage)
{
    take(ANNA, X);
    queue_up(BERT, X);
    forget_wakes();
    close_session(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED), "never a silent release");
}

/* --- the record --- */

Test(repair, the_record_says_who_how_and_which_hold)
{
    struct lki_repair repair;
    take(ANNA, X);
    uint64_t token = sequence();
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    cr_assert(lki_repair_step(&repair, &death, LOCKS, count_wake, NULL));
    const struct lki_lock_cold *cold = &area.cold[lock];
    cr_expect(eq(u32, atomic_load(&cold->recovery_cause), LKI_CAUSE_EXITED));
    cr_expect(eq(i32, cold->recovery_pid, 4711));
    cr_expect(eq(u32, cold->recovery_uid, 33));
    cr_expect(eq(u64, cold->recovery_token, token));
    cr_expect(eq(u64, cold->recovery_when_ns, 99));
    cr_expect(eq(u32, cold->recovery_declared, 0));
    cr_expect(eq(int, strcmp((const char *)cold->recovery_command, "victim"), 0));
    cr_expect(eq(u32, repair.freed, 1));
    cr_expect(eq(u32, repair.damaged, 1));
}

Test(repair, who_dies_in_a_drain_over_damage_does_not_take_the_blame)
{
    take(ANNA, X);
    die(ANNA);
    cr_assert(eq(int, try_lock(BERT, S), LKI_TAKEN_DIED));
    cr_assert(eq(int, queue_up(CARL, X), LKI_SLEEP)); /* drains, has written nothing */
    die(CARL);
    cr_expect(eq(i32, area.cold[lock].recovery_pid, 100 + ANNA));
    release(BERT);
    cr_assert(eq(int, try_lock(DORA, X), LKI_TAKEN_DIED));
    die(DORA);
    cr_expect(eq(i32, area.cold[lock].recovery_pid, 100 + DORA), "who was inside does");
}

Test(repair, a_plain_release_by_death_writes_no_record)
{
    lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT);
    die(ANNA);
    cr_expect(eq(u32, atomic_load(&area.cold[lock].recovery_cause), LKI_CAUSE_NONE));
}

Test(repair, a_declared_range_is_recorded)
{
    take(ANNA, X);
    lki_lock_declare(party(ANNA), lock, 4096, 128);
    die(ANNA);
    cr_expect(eq(u32, area.cold[lock].recovery_declared, 1));
    cr_expect(eq(u64, area.cold[lock].recovery_dirty_offset, 4096));
    cr_expect(eq(u64, area.cold[lock].recovery_dirty_length, 128));
}

Test(repair, a_declared_range_counts_for_its_own_hold_only)
{
    take(ANNA, X);
    lki_lock_declare(party(ANNA), lock, 4096, 128);
    release(ANNA);
    take(ANNA, X);
    die(ANNA);
    cr_expect(eq(u32, area.cold[lock].recovery_declared, 0), "this hold declared nothing");
}

/* --- slices --- */

Test(repair, slices_free_as_many_locks_as_they_are_told)
{
    struct lki_repair repair;
    for (lock = 0; lock < 10; lock++)
        take(ANNA, X);
    memset(wakes, 0, sizeof(wakes));
    lock = 19;
    take(CARL, X);
    queue_up(BERT, X);
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    for (uint32_t done = 3; done < LOCKS; done += 3) {
        cr_assert(not(lki_repair_step(&repair, &death, 3, count_wake, NULL)));
        for (lock = 0; lock < 10; lock++)
            cr_assert(eq(u32, word_id() == 0, lock < done), "%u after %u", lock, done);
        cr_assert(eq(u32, wakes[BERT + 1], 0), "only at the end");
        cr_assert(ne(u32, atomic_load(&party(ANNA)->self->id), 0), "the slot is not free yet");
    }
    cr_assert(lki_repair_step(&repair, &death, 3, count_wake, NULL));
    cr_expect(eq(u32, wakes[BERT + 1], 1));
    cr_expect(eq(u32, repair.freed, 10));
    cr_expect(eq(u32, atomic_load(&party(ANNA)->self->id), 0));
}

Test(repair, a_repair_begun_anew_ends_alike)
{
    struct lki_repair repair;
    for (lock = 0; lock < 10; lock++)
        take(ANNA, X);
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    lki_repair_step(&repair, &death, 4, count_wake, NULL);
    lock = 2;
    cr_assert(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED)); /* in between */
    uint32_t taken = word();
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    while (!lki_repair_step(&repair, &death, 4, count_wake, NULL))
        ;
    cr_expect(eq(u32, word(), taken), "a living owner is not thrown out");
    for (lock = 0; lock < 10; lock++) {
        if (lock != 2)
            cr_expect(eq(int, try_lock(CARL, X), LKI_TAKEN_DIED));
    }
}

Test(repair, a_repair_begun_anew_wakes_whom_the_first_would_have_woken)
{
    struct lki_repair repair;
    struct lki_death closed = {.cause = LKI_CAUSE_CLOSED};
    take(ANNA, X);
    queue_up(BERT, X);
    memset(wakes, 0, sizeof(wakes));
    lki_repair_begin(&repair, &area, party(ANNA)->id);
    cr_assert(not(lki_repair_step(&repair, &closed, 1, count_wake, NULL))); /* frees the word */
    cr_assert(eq(u32, word_id(), 0));
    lki_repair_begin(&repair, &area, party(ANNA)->id); /* finds nothing any more */
    while (!lki_repair_step(&repair, &closed, 1, count_wake, NULL))
        ;
    cr_expect(eq(u32, wakes[BERT + 1], 1));
}

/* --- ids --- */

Test(repair, an_invented_id_is_freed_without_touching_anybodys_facts)
{
    const uint32_t invented[] = {
        0x3ff0000 | 0xffff,       /* no such slot */
        1023u << 16 | (BERT + 1), /* a slot of somebody else's generation */
        7u << 16,                 /* slot 0 */
    };
    for (size_t i = 0; i < sizeof(invented) / sizeof(invented[0]); i++) {
        struct lki_repair repair;
        lock = 0;
        take(BERT, S);
        lock = 1;
        atomic_store(&area.hot[1].word, invented[i]);
        memset(wakes, 0, sizeof(wakes));
        cr_assert(eq(int, queue_up(CARL, X), LKI_SLEEP));
        lki_repair_begin(&repair, &area, invented[i]);
        cr_assert(lki_repair_step(&repair, &death, LOCKS, count_wake, NULL));
        cr_expect(eq(u32, wakes[CARL + 1], 1), "id %08x", invented[i]);
        cr_expect(eq(int, look(CARL), LKI_TAKEN));
        release(CARL);
        lock = 0;
        cr_expect(eq(int, lki_lock_held_by(party(BERT), 0), S));
        cr_expect(eq(u32, atomic_load(&party(BERT)->self->id), party(BERT)->id));
        release(BERT);
    }
}

Test(repair, a_slot_is_given_again_in_the_next_generation_and_starts_clean)
{
    take(ANNA, X);
    uint32_t former = party(ANNA)->id;
    atomic_fetch_or(&party(ANNA)->self->futex, LKI_LATE);
    uint32_t wakes_before = futex(ANNA) & ~LKI_LATE;
    die(ANNA);
    reopen(ANNA, 2);
    cr_expect(ne(u32, party(ANNA)->id, former));
    cr_expect(eq(u32, party(ANNA)->id & LKI_SLOT_MASK, former & LKI_SLOT_MASK));
    cr_expect(eq(u32, futex(ANNA), wakes_before), "not LATE");
    cr_expect(eq(u32, party(ANNA)->cells_used, 0));
    cr_expect(eq(int, try_lock(ANNA, X), LKI_TAKEN_DIED), "by its former self");
}

Test(repair, the_count_of_slots_follows_the_highest_ever_given)
{
    cr_expect(eq(u32, lki_area_slots_used(&area), PARTIES));
    lki_attachment_open(&area, 7, 1, 0);
    cr_expect(eq(u32, lki_area_slots_used(&area), 7));
    die(BERT);
    reopen(BERT, 2);
    cr_expect(eq(u32, lki_area_slots_used(&area), 7));
}

static bool last_brokered;

static void note_brokered(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    last_brokered = brokered;
}

Test(repair, a_wake_says_whether_the_broker_drives_the_sleeper)
{
    struct lki_party releaser;
    die(BERT);
    uint32_t id = lki_attachment_open(&area, BERT + 1, 2, LKI_ATTACHMENT_BROKERED);
    lki_party_init(party(BERT), &area, id, count_wake, NULL);
    lki_party_init(&releaser, &area, party(ANNA)->id, note_brokered, NULL);
    cr_assert(eq(int, lki_lock_try(&releaser, lock, X, LKI_HOLD_DATA), LKI_TAKEN));
    queue_up(BERT, X);
    lki_lock_release(&releaser, lock);
    cr_expect(last_brokered);
}

/* --- one hold of a living owner --- */

Test(repair, a_hold_taken_away_looks_like_a_death_and_its_owner_lives_on)
{
    const uint32_t other = 5;
    memset(wakes, 0, sizeof(wakes));
    take(ANNA, X);
    uint64_t inside = sequence();
    cr_assert(eq(int, lki_lock_try(party(ANNA), other, X, LKI_HOLD_DATA), LKI_TAKEN));
    queue_up(BERT, X);

    cr_assert(lki_repair_hold(&area, party(ANNA)->id, lock, &death, count_wake, NULL));
    cr_expect(eq(u32, word(), LKI_READ | LKI_PARKED | LKI_FAIR | LKI_DIED));
    cr_expect(eq(u64, sequence(), inside), "the evidence stays");
    cr_expect(eq(uint, wakes[party(BERT)->id & LKI_SLOT_MASK], 1));
    cr_expect(eq(u32, area.cold[lock].recovery_cause, death.cause));
    cr_expect(eq(u64, area.cold[lock].recovery_token, inside));

    cr_expect(eq(int, release(ANNA), LKI_NOT_HELD));
    cr_expect(eq(int, lki_lock_held_by(party(ANNA), other), X), "it keeps the other one");
    cr_expect(eq(int, look(BERT), LKI_TAKEN_DIED));
    cr_expect(lt(u64, inside, sequence()), "the token rises");
    cr_expect(eq(int, lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA), LKI_TAKEN));
    release(BERT);
    cr_expect(eq(int, try_lock(ANNA, X), LKI_TAKEN), "as anybody else");
}

Test(repair, a_hold_that_is_not_there_is_not_taken_away)
{
    memset(wakes, 0, sizeof(wakes));
    take(ANNA, X);
    uint32_t before = word();
    cr_expect(not(lki_repair_hold(&area, party(BERT)->id, lock, &death, count_wake, NULL)));
    cr_expect(eq(u32, word(), before));
    release(ANNA);
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_expect(not(lki_repair_hold(&area, party(ANNA)->id, lock, &death, count_wake, NULL)),
              "nothing can be damaged");
    cr_expect(eq(u32, word_id(), party(ANNA)->id));
}

Test(repair, begun_anew_it_records_nothing_again)
{
    struct lki_death later = death;
    later.pid++;
    take(ANNA, X);
    uint32_t owned = word();
    cr_assert(lki_repair_hold(&area, party(ANNA)->id, lock, &death, count_wake, NULL));
    /* As a broker leaves it that ends between the record and the word. */
    atomic_store(&area.hot[lock].word, owned);
    cr_assert(lki_repair_hold(&area, party(ANNA)->id, lock, &later, count_wake, NULL));
    cr_expect(eq(u32, word() & LKI_DIED, LKI_DIED));
    cr_expect(eq(int, area.cold[lock].recovery_pid, death.pid));
}
