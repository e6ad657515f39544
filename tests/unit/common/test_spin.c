/* SPDX-License-Identifier: MIT */
#include "common/spin.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define LOOK_NS 500u /* what one takes where nobody interferes */

/* One wait for an answer that takes answer_ns, with a clock of its own. Returns how long it looked; 0: not at
 * all. */
static uint64_t wait_once(struct lki_spin *spin, uint64_t answer_ns)
{
    uint64_t now_ns = 1000;
    bool came;
    if (!lki_spin_begin(spin, now_ns))
        return 0;
    do {
        came = now_ns - 1000 >= answer_ns;
        now_ns += LOOK_NS;
    } while (lki_spin_go_on(spin, now_ns, came));
    lki_spin_end(spin, came);
    return now_ns - 1000;
}

static unsigned looks_of(struct lki_spin *spin, unsigned waits, uint64_t answer_ns)
{
    unsigned looked = 0;
    for (unsigned i = 0; i < waits; i++)
        looked += wait_once(spin, answer_ns) > 0;
    return looked;
}

Test(spin, answers_that_come_soon_are_looked_for_each_time)
{
    struct lki_spin spin = {0};
    cr_expect(eq(uint, looks_of(&spin, 1000, 8000), 999));
    cr_expect(lt(u64, spin.limit_ns, 20000), "twice what they needed");
    cr_expect(gt(u64, spin.limit_ns, 14000));
}

Test(spin, the_first_wait_does_not_look)
{
    struct lki_spin spin = {0};
    cr_expect(eq(u64, wait_once(&spin, 8000), 0));
    cr_expect(gt(u64, wait_once(&spin, 8000), 0));
}

Test(spin, looking_in_vain_becomes_rare)
{
    struct lki_spin spin = {0};
    cr_expect(le(uint, looks_of(&spin, 6500, 1000000), 6500 / 257 + 9));
    cr_expect(ge(uint, looks_of(&spin, 257, 1000000), 1), "but does not end");
}

Test(spin, nobody_looks_for_longer_than_a_sleep_and_a_wake_take)
{
    struct lki_spin spin = {0};
    for (unsigned i = 0; i < 1000; i++)
        cr_assert(le(u64, wait_once(&spin, 1000000), 50000 + LOOK_NS));
}

Test(spin, answers_that_come_soon_again_are_found)
{
    struct lki_spin spin = {0};
    looks_of(&spin, 1000, 8000);
    looks_of(&spin, 1000, 1000000);
    looks_of(&spin, 257, 8000);
    cr_expect(eq(uint, looks_of(&spin, 100, 8000), 100));
    wait_once(&spin, 1000000);
    cr_expect(eq(uint, looks_of(&spin, 100, 8000), 99), "one miss is one pause");
}

Test(spin, answers_that_became_slower_are_found)
{
    struct lki_spin spin = {0};
    looks_of(&spin, 1000, 1000);
    cr_assert(lt(u64, spin.limit_ns, 5000));
    looks_of(&spin, 257, 30000);
    cr_expect(eq(uint, looks_of(&spin, 100, 30000), 100));
}

/* A wait in which somebody else has the processor for 10 us, and the answer has come behind that. */
static bool wait_disturbed(struct lki_spin *spin)
{
    if (!lki_spin_begin(spin, 1000))
        return false;
    cr_assert(lki_spin_go_on(spin, 1500, false));
    cr_expect(not(lki_spin_go_on(spin, 11500, false)), "whoever else wants the processor gets it");
    lki_spin_end(spin, true);
    return true;
}

Test(spin, an_answer_from_the_same_processor_is_a_miss)
{
    struct lki_spin spin = {0};
    unsigned looked = 0;
    for (unsigned i = 0; i < 6500; i++)
        looked += wait_disturbed(&spin);
    cr_expect(le(uint, looked, 6500 / 257 + 9));
}

Test(spin, an_answer_that_was_there_tells_nothing)
{
    struct lki_spin spin = {0};
    looks_of(&spin, 2, 1000000);
    struct lki_spin before = spin;
    cr_expect(eq(u64, wait_once(&spin, 0), 0), "the pause after the miss");
    cr_expect(eq(u64, wait_once(&spin, 0), LOOK_NS));
    cr_expect(eq(u8, spin.misses, before.misses));
    cr_expect(eq(u64, spin.limit_ns, before.limit_ns));
}

/* As the worker does, for which a look that came takes as long as the request does. */
Test(spin, a_hit_needs_one_look_in_vain)
{
    struct lki_spin spin = {0};
    looks_of(&spin, 2, 1000000);
    cr_expect(not(lki_spin_begin(&spin, 1000)), "the pause after the miss");
    cr_assert(lki_spin_begin(&spin, 1000));
    cr_assert(lki_spin_go_on(&spin, 1500, false));
    lki_spin_end(&spin, true);
    cr_expect(eq(u8, spin.misses, 0));
}
