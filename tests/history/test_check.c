/* SPDX-License-Identifier: MIT */
/* The judge is fed with histories that break one rule each, and with right ones that look odd. */
#include <errno.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/history/check_fixture.h"

TestSuite(history_check, .init = setup, .fini = teardown);

/* --- Right ones --- */

Test(history_check, turns_are_right)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_SHARED, 30, 60, 12);
    hold(3, LK_SHARED, 35, 50, 12);
    hold(1, LK_EXCLUSIVE, 70, 80, 13);
    read_at(75, 76, 11, 12)->flags = RECORD_WHOLE; /* not accepted */
    read_at(62, 90, 13, 14);
    read_at(62, 90, 11, 12);
    expect_nothing();
}

Test(history_check, the_next_one_may_be_in_before_the_release_returns)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11)->left_ns = 40;
    hold(2, LK_EXCLUSIVE, 25, 30, 13);
    expect_nothing();
}

Test(history_check, the_order_of_the_records_does_not_matter)
{
    struct record *late = hold(1, LK_EXCLUSIVE, 70, 80, 13);
    late->seen = 11;
    value = 0;
    hold(2, LK_EXCLUSIVE, 10, 20, 11);
    expect_nothing();
}

Test(history_check, a_death_inside_is_told_until_it_is_mended)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_HELD);
    die(1, 20);
    tell(hold(2, LK_SHARED, 30, 40, 11), 1001, 11);
    tell(hold(3, LK_EXCLUSIVE, 50, 60, 13), 1001, 11);
    tell_and_mend(hold(4, LK_EXCLUSIVE, 70, 80, 15), 1001, 11);
    hold(2, LK_EXCLUSIVE, 90, 95, 17);
    expect_nothing();
}

Test(history_check, a_death_may_be_told_in_the_next_part)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    expect_nothing();
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    expect_nothing();
}

Test(history_check, who_dies_in_the_acquire_may_have_held_it_or_not)
{
    die_asking(1, LK_EXCLUSIVE, 20);
    die_asking(2, LK_EXCLUSIVE, 20);
    tell_and_mend(hold(3, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    hold(4, LK_EXCLUSIVE, 50, 60, 15);
    expect_nothing();
}

Test(history_check, who_dies_in_the_release_may_have_left_or_not)
{
    for (uint32_t i = 0; i < 2; i++) {
        hold(1 + i, LK_EXCLUSIVE, 10 + 100 * i, 20 + 100 * i, 11 + 4 * i);
        record_reach(&records[count - 1], RECORD_LEAVING);
        die(1 + i, 30 + 100 * i);
        struct record *next = hold(3 + i, LK_EXCLUSIVE, 50 + 100 * i, 60 + 100 * i, 13 + 4 * i);
        if (i == 0)
            tell_and_mend(next, 1001, 11);
    }
    expect_nothing();
}

Test(history_check, time_in_which_the_waiter_was_stopped_does_not_count)
{
    refusal(-ETIMEDOUT, 10, 10 + SLACK + 50);
    struct record *stop = record(RECORD_STOP, 9, RECORD_LEFT);
    stop->asked_ns = 505;
    stop->answered_ns = 605;
    expect_nothing();
}

Test(history_check, refusals_that_were_asked_for_are_right)
{
    refusal(-EBUSY, 0, 1);
    refusal(-ETIMEDOUT, 20, 20);
    refusal(-ECANCELED, LK_WAIT_FOREVER, 20)->flags = RECORD_ASYNC | RECORD_GIVEN_UP;
    expect_nothing();
}

/* --- Wrong ones --- */

Test(history_check, two_exclusive_holds_at_a_time)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_EXCLUSIVE, 19, 30, 13);
    expect_only(HISTORY_OVERLAP);
}

Test(history_check, an_exclusive_hold_within_a_longer_one)
{
    hold(1, LK_EXCLUSIVE, 10, 90, 11);
    hold(2, LK_SHARED, 30, 40, 12)->seen = 11;
    expect_only(HISTORY_OVERLAP);
}

Test(history_check, an_exclusive_hold_while_a_reader_is_inside)
{
    hold(1, LK_SHARED, 10, 50, 10);
    hold(2, LK_SHARED, 11, 12, 10);
    hold(3, LK_EXCLUSIVE, 49, 60, 11);
    expect_only(HISTORY_OVERLAP);
}

Test(history_check, a_grant_before_the_holder_was_killed)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 50);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 40, 60, 13), 1001, 11);
    expect_only(HISTORY_OVERLAP);
}

Test(history_check, a_token_that_is_given_twice)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_EXCLUSIVE, 30, 40, 11);
    expect_only(HISTORY_TOKEN);
}

Test(history_check, a_token_that_falls)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 13);
    hold(2, LK_EXCLUSIVE, 30, 40, 11);
    expect_only(HISTORY_TOKEN);
}

Test(history_check, a_token_that_falls_for_a_reader)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 13);
    hold(2, LK_SHARED, 30, 40, 12);
    expect_only(HISTORY_TOKEN);
}

Test(history_check, a_token_that_a_reader_had_seen)
{
    hold(1, LK_SHARED, 10, 20, 13);
    hold(2, LK_EXCLUSIVE, 30, 40, 13);
    expect_only(HISTORY_TOKEN);
}

Test(history_check, a_token_that_falls_from_part_to_part)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 13);
    expect_nothing();
    hold(2, LK_EXCLUSIVE, 30, 40, 11);
    expect_only(HISTORY_TOKEN);
}

Test(history_check, a_death_inside_that_nobody_is_told_of)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    hold(2, LK_EXCLUSIVE, 30, 40, 13);
    expect_only(HISTORY_NOT_TOLD);
}

Test(history_check, a_reader_that_is_not_told)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    hold(2, LK_SHARED, 30, 40, 12);
    expect_only(HISTORY_NOT_TOLD);
}

Test(history_check, damage_that_was_not_mended_and_is_not_told_again)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    tell(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    hold(3, LK_EXCLUSIVE, 50, 60, 15);
    expect_only(HISTORY_NOT_TOLD);
}

Test(history_check, a_death_that_was_none)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_a_reader)
{
    hold(1, LK_SHARED, 10, 20, 10);
    record_reach(&records[0], RECORD_HELD);
    die(1, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 11), 1001, 10);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_another_one)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    die(2, 20);
    tell_and_mend(hold(3, LK_EXCLUSIVE, 30, 40, 13), 1002, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_another_hold)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    tell_and_mend(hold(3, LK_EXCLUSIVE, 30, 40, 15), 1001, 13);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, a_death_that_is_still_to_come)
{
    die_asking(1, LK_EXCLUSIVE, 50);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_one_that_asked_as_a_reader)
{
    die_asking(1, LK_SHARED, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_another_one_than_asked)
{
    die_asking(1, LK_EXCLUSIVE, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1007, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, the_death_of_one_that_asked_with_a_token_of_before)
{
    hold(2, LK_EXCLUSIVE, 10, 15, 13);
    die_asking(1, LK_EXCLUSIVE, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 15), 1001, 11);
    expect_only(HISTORY_TOLD_WRONG);
}

Test(history_check, what_was_mended_is_told_again)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    tell_and_mend(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    tell_and_mend(hold(3, LK_EXCLUSIVE, 50, 60, 15), 1001, 11);
    expect_only(HISTORY_TOLD_AGAIN);
}

Test(history_check, data_of_an_earlier_writer)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_EXCLUSIVE, 30, 40, 13);
    hold(3, LK_EXCLUSIVE, 50, 60, 15)->seen = 11;
    expect_only(HISTORY_CANARY);
}

Test(history_check, torn_data)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_SHARED, 30, 40, 12)->flags = RECORD_WHOLE_LAST;
    expect_only(HISTORY_CANARY);
}

Test(history_check, data_that_changes_while_it_is_held)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(2, LK_SHARED, 30, 40, 12)->seen_last = 15;
    expect_only(HISTORY_CANARY);
}

Test(history_check, data_that_changes_under_its_writer)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11)->flags = RECORD_WHOLE;
    expect_only(HISTORY_CANARY);
}

Test(history_check, a_torn_read)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    read_at(30, 35, 11, 12)->flags = RECORD_ACCEPTED;
    expect_only(HISTORY_TORN);
}

Test(history_check, a_read_of_a_write_that_had_not_ended)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    read_at(12, 15, 11, 12);
    expect_only(HISTORY_TORN);
}

Test(history_check, a_read_of_a_value_that_nobody_wrote)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(1, LK_EXCLUSIVE, 30, 40, 15);
    read_at(25, 45, 13, 14);
    expect_only(HISTORY_TORN);
}

Test(history_check, a_read_of_data_that_was_not_mended)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    record_reach(&records[0], RECORD_WRITTEN);
    die(1, 20);
    tell(hold(2, LK_EXCLUSIVE, 30, 40, 13), 1001, 11);
    read_at(45, 46, 13, 14);
    expect_only(HISTORY_TORN);
}

Test(history_check, a_read_with_a_version_from_before)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    read_at(25, 26, 11, 10);
    expect_only(HISTORY_TORN);
}

Test(history_check, a_read_of_old_data)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11);
    hold(1, LK_EXCLUSIVE, 30, 40, 13);
    read_at(45, 46, 11, 12);
    expect_only(HISTORY_STALE);
}

Test(history_check, a_wait_without_end)
{
    hold(1, LK_EXCLUSIVE, 2 * WAIT_MAX, 2 * WAIT_MAX + 5, 11)->asked_ns = 1;
    expect_only(HISTORY_LATE);
}

Test(history_check, a_wait_beyond_its_deadline)
{
    refusal(-ETIMEDOUT, 10, 11 + SLACK);
    expect_only(HISTORY_LATE);
}

Test(history_check, a_grant_beyond_its_deadline)
{
    struct record *late = hold(1, LK_EXCLUSIVE, 500, 600, 11);
    late->asked_ns = 300;
    late->timeout_ns = 50;
    expect_only(HISTORY_LATE);
}

Test(history_check, a_wait_that_only_a_kill_ended)
{
    struct record *asked = record(RECORD_LOCK, 1, RECORD_ASKED);
    asked->mode = LK_SHARED;
    asked->asked_ns = 5;
    asked->timeout_ns = LK_WAIT_FOREVER;
    die(1, 2 * WAIT_MAX);
    expect_only(HISTORY_LATE);
}

Test(history_check, a_deadline_that_comes_too_soon)
{
    refusal(-ETIMEDOUT, 20, 19);
    expect_only(HISTORY_EARLY);
}

Test(history_check, results_that_cannot_be)
{
    static const struct {
        int result;
        uint64_t timeout_ns;
        uint8_t flags;
    } rows[] = {
        {-EBUSY, 10, 0},
        {-ETIMEDOUT, LK_WAIT_FOREVER, 0},
        {-ETIMEDOUT, 0, 0},
        {-EDEADLK, LK_WAIT_FOREVER, 0},
        {-ECONNRESET, LK_WAIT_FOREVER, 0},
        {-ECANCELED, LK_WAIT_FOREVER, RECORD_ASYNC},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        teardown();
        setup();
        refusal(rows[i].result, rows[i].timeout_ns, 15)->flags = rows[i].flags;
        expect_only(HISTORY_RESULT);
    }
}

Test(history_check, a_release_that_fails)
{
    hold(1, LK_SHARED, 10, 20, 10)->left_result = -EPERM;
    expect_only(HISTORY_RESULT);
}

Test(history_check, a_cancel_that_is_granted_all_the_same)
{
    hold(1, LK_EXCLUSIVE, 10, 20, 11)->flags |= RECORD_ASYNC | RECORD_GIVEN_UP;
    expect_only(HISTORY_RESULT);
}

Test(history_check, a_cancel_that_says_granted_and_is_not)
{
    refusal(-ETIMEDOUT, 20, 20)->flags = RECORD_ASYNC | RECORD_GRANTED;
    expect_only(HISTORY_RESULT);
}

Test(history_check, a_begin_that_fails_for_no_known_reason)
{
    struct record *read = read_at(10, 20, 0, 0);
    read->result = -ESTALE;
    read->flags = 0;
    expect_only(HISTORY_RESULT);
}

Test(history_check, somebody_lives_and_has_not_ended)
{
    static const enum record_stage stages[] = {RECORD_ASKED, RECORD_HELD, RECORD_LEAVING};
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        teardown();
        setup();
        hold(1, LK_EXCLUSIVE, 10, 20, 11);
        record_reach(&records[0], stages[i]);
        expect_only(HISTORY_UNENDED);
    }
}

Test(history_check, a_reader_lives_and_has_not_left)
{
    hold(1, LK_SHARED, 10, 20, 10);
    record_reach(&records[0], RECORD_HELD);
    expect_only(HISTORY_UNENDED);
}
