/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "tests/unit/engine/fixture.h"

TestSuite(optimistic, .init = setup, .fini = teardown, .timeout = 20);

static int begin(uint64_t *out_version)
{
    return (int)lki_read_begin(&area, lock, out_version);
}

Test(optimistic, a_read_with_no_writer_is_valid)
{
    uint64_t version;
    cr_assert(eq(int, begin(&version), LKI_READ_BEGUN));
    cr_expect(lki_read_valid(&area, lock, version));
}

Test(optimistic, a_read_is_refused_while_a_writer_is_inside)
{
    uint64_t version = 77;
    take(ANNA, X);
    cr_expect(eq(int, begin(&version), LKI_READ_WRITER_INSIDE));
    cr_expect(eq(u64, version, 77), "written on success only");
}

Test(optimistic, a_read_is_void_when_a_writer_came_or_came_and_went)
{
    uint64_t version;
    cr_assert(eq(int, begin(&version), LKI_READ_BEGUN));
    take(ANNA, X);
    cr_expect(not(lki_read_valid(&area, lock, version)));
    release(ANNA);
    cr_expect(not(lki_read_valid(&area, lock, version)));
}

Test(optimistic, readers_do_not_disturb_it)
{
    uint64_t version;
    cr_assert(eq(int, begin(&version), LKI_READ_BEGUN));
    take(ANNA, S);
    release(ANNA);
    cr_expect(lki_read_valid(&area, lock, version));
}

Test(optimistic, a_read_goes_on_beside_a_hold_to_exit)
{
    uint64_t version;
    cr_assert(eq(int, lki_lock_try(party(ANNA), lock, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    cr_assert(eq(int, begin(&version), LKI_READ_BEGUN));
    cr_expect(lki_read_valid(&area, lock, version));
}

Test(optimistic, damage_is_told_apart_from_a_writer_and_never_accepted)
{
    uint64_t version;
    take(ANNA, X);
    die(ANNA);
    cr_expect(eq(int, begin(&version), LKI_READ_DAMAGED));
    try_lock(BERT, X);
    cr_expect(eq(int, begin(&version), LKI_READ_WRITER_INSIDE), "it may be repairing");
    release(BERT);
    cr_expect(eq(int, begin(&version), LKI_READ_DAMAGED), "it did not");
    try_lock(BERT, X);
    lki_lock_mark_consistent(party(BERT), lock, LKI_HOLD_DATA);
    cr_expect(eq(int, begin(&version), LKI_READ_WRITER_INSIDE));
    release(BERT);
    cr_expect(eq(int, begin(&version), LKI_READ_BEGUN));
}

Test(optimistic, a_drain_that_backs_out_does_not_void_a_read)
{
    uint64_t version;
    take(ANNA, S);
    cr_assert(eq(int, begin(&version), LKI_READ_BEGUN));
    wait_until(BERT, X, now_ns + 5);
    now_ns += 5;
    cr_assert(eq(int, look(BERT), LKI_TIMED_OUT));
    cr_expect(lki_read_valid(&area, lock, version));
}

Test(optimistic, the_copy_takes_any_offset_and_length_and_nothing_beside)
{
    _Alignas(8) unsigned char source[112];
    for (unsigned i = 0; i < sizeof(source); i++)
        source[i] = (unsigned char)(i + 1);
    for (size_t offset = 0; offset < 9; offset++) {
        for (size_t bytes = 0; bytes <= 100; bytes++) {
            unsigned char target[112];
            memset(target, 0xee, sizeof(target));
            lki_read_copy(target + 1, source + offset, bytes);
            cr_assert(eq(int, memcmp(target + 1, source + offset, bytes), 0), "%zu+%zu", offset,
                      bytes);
            cr_assert(eq(u8, target[0], 0xee));
            cr_assert(eq(u8, target[bytes + 1], 0xee), "%zu+%zu", offset, bytes);
        }
    }
}
