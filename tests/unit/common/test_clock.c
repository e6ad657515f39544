/* SPDX-License-Identifier: MIT */
#include "common/clock.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

Test(clock, a_time_beyond_the_clock_is_never)
{
    cr_expect(eq(u64, lki_time_add(5, 7), 12));
    cr_expect(eq(u64, lki_time_add(5, LKI_TIME_NEVER), LKI_TIME_NEVER));
    cr_expect(eq(u64, lki_time_add(LKI_TIME_NEVER, 1), LKI_TIME_NEVER));
    cr_expect(eq(u64, lki_time_add(5, LKI_TIME_NEVER - 6), LKI_TIME_NEVER - 1));
    cr_expect(eq(u64, lki_time_add(5, LKI_TIME_NEVER - 4), LKI_TIME_NEVER));
}

Test(clock, goes_forward)
{
    uint64_t first_ns = lki_clock_now_ns();
    cr_expect(le(u64, first_ns, lki_clock_now_ns()));
}
