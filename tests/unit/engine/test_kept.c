/* SPDX-License-Identifier: MIT */
/* What must not get lost between two accesses, or from one hold to the next. */
#include "engine/step.h"
#include "tests/unit/engine/fixture.h"

#include <string.h>

TestSuite(kept, .init = setup, .fini = teardown, .timeout = 20);

/* With the word of a repair PARKED goes with the first unlock; the mark has to outlive the others. */
Test(kept, damage_is_told_to_every_holder_until_it_is_repaired)
{
    take(ANNA, X);
    die(ANNA);
    for (int i = 0; i < 4; i++) {
        cr_expect(eq(int, try_lock(BERT, X), LKI_TAKEN_DIED), "holder %d", i);
        release(BERT);
    }
}

static int steps;

static void expect_no_declaration(const char *name)
{
    if (strncmp(name, "declare_", 8) != 0)
        return;
    steps++;
    cr_expect(ne(u64, atomic_load(&area.hot[lock].dirty_sequence), sequence()), "at %s", name);
}

Test(kept, a_declaration_is_none_before_the_whole_of_it_is_there)
{
    take(ANNA, X);
    cr_assert(eq(int, lki_lock_declare(party(ANNA), lock, 1, 2), LKI_TAKEN));
    steps = 0;
    atomic_store(&area.hot[lock].dirty_sequence, 0);
    lki_step_hook = expect_no_declaration;
    lki_lock_declare(party(ANNA), lock, 3, 4);
    lki_step_hook = NULL;
    cr_expect(eq(int, steps, 3));
    cr_expect(eq(u64, atomic_load(&area.hot[lock].dirty_sequence), sequence()));
    release(ANNA);
}

/* The record is whole before the word is free: the next holder reads it. */
static void expect_the_word_taken(const char *name)
{
    if (strncmp(name, "recovery", 8) != 0)
        return;
    steps++;
    cr_expect(eq(u32, word_id(), party(ANNA)->id), "at %s", name);
}

Test(kept, who_died_is_written_down_before_the_word_is_free)
{
    take(ANNA, X);
    steps = 0;
    lki_step_hook = expect_the_word_taken;
    die(ANNA);
    lki_step_hook = NULL;
    cr_expect(eq(int, steps, 3));
}

static void begin_to_drain(const char *name)
{
    if (strcmp(name, "leave_cell") != 0)
        return;
    lki_step_hook = NULL;
    cr_assert(eq(int, queue_up(BERT, X), LKI_SLEEP));
}

Test(kept, a_reader_that_leaves_wakes_who_begins_to_drain_just_then)
{
    take(ANNA, S);
    forget_wakes();
    lki_step_hook = begin_to_drain;
    release(ANNA);
    cr_expect(was_woken(BERT));
    cr_expect(eq(int, look(BERT), LKI_TAKEN));
    release(BERT);
    check_all_quiet();
}
