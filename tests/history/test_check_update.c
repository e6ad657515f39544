/* SPDX-License-Identifier: MIT */
/* The same for holds for update: right histories first. */
#include <errno.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/history/check_fixture.h"

TestSuite(history_update, .init = setup, .fini = teardown);

Test(history_update, readers_come_and_go_beside_one_for_update)
{
    hold(1, LK_SHARED, 10, 30, 10);
    hold(2, LK_UPDATE, 20, 60, 12);
    hold(3, LK_SHARED, 40, 90, 12);
    hold(4, LK_UPDATE, 70, 80, 14);
    expect_nothing();
}

Test(history_update, a_reader_may_see_the_token_of_one_for_update_that_came_later)
{
    hold(1, LK_SHARED, 10, 30, 12); /* written down after the next one has come */
    hold(2, LK_UPDATE, 20, 60, 12);
    hold(3, LK_SHARED, 15, 25, 10);
    hold(4, LK_EXCLUSIVE, 70, 80, 13);
    expect_nothing();
}

/* From update to exclusive at 20, and down at 30 and 40. */
static struct record *change_modes(void)
{
    struct record *first = hold(1, LK_UPDATE, 10, 20, 12);
    hold(1, LK_EXCLUSIVE, 20, 30, 13)->from = LK_UPDATE;
    hold(1, LK_UPDATE, 30, 40, 14)->from = LK_EXCLUSIVE;
    hold(1, LK_SHARED, 40, 50, 14)->from = LK_UPDATE;
    return first;
}

Test(history_update, a_hold_changes_its_mode_without_a_gap)
{
    change_modes();
    hold(2, LK_SHARED, 32, 60, 14);
    hold(3, LK_UPDATE, 45, 70, 16);
    expect_nothing();
    cr_expect(eq(u64, history_figures(history)->upgrades, 1));
    cr_expect(eq(u64, history_figures(history)->downgrades, 2));
}

Test(history_update, an_upgrade_may_be_refused)
{
    hold(9, LK_UPDATE, 10, 900, 12);
    refusal(-EBUSY, 0, 1)->from = LK_UPDATE;
    refusal(-ETIMEDOUT, 20, 20)->from = LK_UPDATE;
    expect_nothing();
}

Test(history_update, the_death_of_one_for_update_is_none)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    record_reach(&records[0], RECORD_HELD);
    die(1, 20);
    hold(2, LK_EXCLUSIVE, 30, 40, 13);
    expect_nothing();
}

Test(history_update, who_dies_in_an_upgrade_may_have_been_exclusive_or_not)
{
    for (uint32_t i = 0; i < 2; i++) {
        hold(1 + i, LK_UPDATE, 10 + 100 * i, 20 + 100 * i, 12 + 4 * i);
        record_reach(&records[count - 1], RECORD_HELD);
        die_asking(1 + i, LK_EXCLUSIVE, 20 + 100 * i);
        struct record *next = hold(3 + i, LK_EXCLUSIVE, 50 + 100 * i, 60 + 100 * i, 15 + 4 * i);
        if (i == 0)
            tell_and_mend(next, 1001, 13);
    }
    expect_nothing();
}

Test(history_update, damage_stays_with_whoever_did_it_under_one_for_update)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    tell(hold(2, LK_UPDATE, 30, 40, 13), 1001, 11);
    record_reach(&records[count - 1], RECORD_HELD);
    die(2, 40);
    tell_and_mend(hold(3, LK_EXCLUSIVE, 50, 60, 15), 1001, 11);
    expect_nothing();
}

Test(history_update, two_for_update_at_a_time)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    hold(2, LK_UPDATE, 19, 30, 14);
    expect_only(HISTORY_OVERLAP);
}

Test(history_update, an_exclusive_hold_beside_one_for_update)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    hold(2, LK_EXCLUSIVE, 19, 30, 13);
    expect_only(HISTORY_OVERLAP);
}

Test(history_update, one_for_update_beside_an_exclusive_hold)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_UPDATE, 19, 30, 13);
    expect_only(HISTORY_OVERLAP);
}

Test(history_update, an_upgrade_while_a_reader_is_inside)
{
    hold(2, LK_SHARED, 5, 21, 10);
    change_modes();
    expect_only(HISTORY_OVERLAP);
}

Test(history_update, another_one_in_the_midst_of_a_change)
{
    static const struct {
        uint64_t from_ns, to_ns, token;
        enum lk_mode mode;
    } rows[] = {{35, 36, 15, LK_EXCLUSIVE}, {35, 36, 16, LK_UPDATE}, {25, 26, 13, LK_SHARED}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        teardown();
        setup();
        change_modes();
        history_add(history, records, count);
        struct record *other = hold(2, rows[i].mode, rows[i].from_ns, rows[i].to_ns, rows[i].token);
        history_add(history, other, 1);
        count = 0;
        history_check(history);
        cr_expect(gt(u64, history_figures(history)->violations[HISTORY_OVERLAP], 0), "row %zu", i);
    }
}

Test(history_update, an_exclusive_hold_beside_one_that_came_down_to_shared)
{
    change_modes();
    hold(2, LK_EXCLUSIVE, 45, 60, 15);
    expect_only(HISTORY_OVERLAP);
}

Test(history_update, a_token_for_update_that_is_given_twice)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    hold(2, LK_UPDATE, 30, 40, 12);
    expect_only(HISTORY_TOKEN);
}

Test(history_update, an_upgrade_that_keeps_its_token)
{
    hold(1, LK_UPDATE, 10, 20, 13);
    hold(1, LK_EXCLUSIVE, 20, 30, 13)->from = LK_UPDATE;
    expect_only(HISTORY_TOKEN);
}

Test(history_update, a_token_that_falls_for_one_for_update)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 13);
    hold(2, LK_UPDATE, 30, 40, 12);
    expect_only(HISTORY_TOKEN);
}

Test(history_update, one_for_update_that_is_not_told)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    hold(2, LK_UPDATE, 30, 40, 14);
    expect_only(HISTORY_NOT_TOLD);
}

Test(history_update, the_death_of_one_for_update_is_told)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    record_reach(&records[0], RECORD_HELD);
    die(1, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 12);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_update, data_that_changes_under_one_for_update)
{
    hold(1, LK_UPDATE, 10, 20, 12)->seen_last = 15;
    expect_only(HISTORY_CANARY);
}

Test(history_update, a_downgrade_that_fails)
{
    change_modes()[1].left_result = -EPERM;
    expect_only(HISTORY_RESULT);
}

Test(history_update, one_for_update_lives_and_has_not_left)
{
    hold(1, LK_UPDATE, 10, 20, 12);
    record_reach(&records[0], RECORD_HELD);
    expect_only(HISTORY_UNENDED);
}
