/* SPDX-License-Identifier: MIT */
/* The judge is fed with histories that break one rule each, and with right ones that look odd. Times
 * are small numbers; a wait may take 1000, a deadline be missed by 100. */
#include "tests/history/check.h"

#include <errno.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <lockkeeper/lockkeeper.h>

#define LOCK 3
#define WAIT_MAX 1000
#define SLACK 100

static struct record records[32];
static size_t count;
static struct history *history;
static uint64_t value; /* that the last writer wrote */

static void setup(void)
{
    static const struct history_limits limits = {.wait_ns = WAIT_MAX, .slack_ns = SLACK};
    history = history_new(&limits, NULL, NULL);
    count = 0;
    value = 0;
}

static void teardown(void)
{
    history = history_free(history);
}

static struct record *record(enum record_kind kind, uint32_t life, enum record_stage stage)
{
    struct record *now = &records[count++];
    *now = (struct record){.kind = (uint8_t)kind, .life = life, .lock = LOCK};
    record_reach(now, stage);
    return now;
}

/* A hold as it should be: asked for 5 before its answer, released at once when asked for. */
static struct record *hold(uint32_t life, enum lk_mode mode, uint64_t from_ns, uint64_t to_ns,
                           uint64_t token)
{
    struct record *now = record(RECORD_LOCK, life, RECORD_LEFT);
    now->mode = (uint8_t)mode;
    now->timeout_ns = LK_WAIT_FOREVER;
    now->asked_ns = from_ns - 5;
    now->answered_ns = from_ns;
    now->leaving_ns = to_ns;
    now->left_ns = to_ns + 1;
    now->token = token;
    now->seen = value;
    now->flags = RECORD_WHOLE | RECORD_WHOLE_LAST;
    if (mode == LK_EXCLUSIVE)
        value = token;
    now->seen_last = value;
    return now;
}

static void tell(struct record *of_hold, int32_t pid, uint64_t token)
{
    of_hold->result = LK_ACQUIRED_OWNER_DIED;
    of_hold->pid = pid;
    of_hold->told_token = token;
}

static void tell_and_mend(struct record *of_hold, int32_t pid, uint64_t token)
{
    tell(of_hold, pid, token);
    of_hold->flags |= RECORD_MARKED;
}

/* Its pid is its life + 1000. */
static void die(uint32_t life, uint64_t at_ns)
{
    struct record *death = record(RECORD_DEATH, life, RECORD_LEFT);
    death->pid = (int32_t)life + 1000;
    death->asked_ns = at_ns;
    death->answered_ns = at_ns + 3;
}

static void die_asking(uint32_t life, enum lk_mode mode, uint64_t at_ns)
{
    struct record *asked = record(RECORD_LOCK, life, RECORD_ASKED);
    asked->mode = (uint8_t)mode;
    asked->asked_ns = 5;
    asked->timeout_ns = LK_WAIT_FOREVER;
    die(life, at_ns);
}

static struct record *read_at(uint64_t from_ns, uint64_t to_ns, uint64_t seen, uint64_t version)
{
    struct record *now = record(RECORD_READ, 9, RECORD_LEFT);
    now->asked_ns = from_ns;
    now->answered_ns = to_ns;
    now->seen = seen;
    now->token = version;
    now->flags = RECORD_WHOLE | RECORD_ACCEPTED;
    return now;
}

static struct record *refusal(int result, uint64_t timeout_ns, uint64_t waited_ns)
{
    struct record *now = record(RECORD_LOCK, 9, RECORD_REFUSED);
    now->mode = LK_EXCLUSIVE;
    now->result = result;
    now->timeout_ns = timeout_ns;
    now->asked_ns = 500;
    now->answered_ns = 500 + waited_ns;
    return now;
}

static size_t judge(void)
{
    history_add(history, records, count);
    count = 0;
    return history_check(history);
}

static void expect_nothing(void)
{
    size_t found = judge();
    for (int rule = 0; rule < HISTORY_RULES; rule++)
        cr_expect(eq(u64, history_figures(history)->violations[rule], 0), "%s",
                  history_rule_name((enum history_rule)rule));
    cr_assert(eq(sz, found, 0));
}

/* This rule is broken, and no other. */
static void expect_only(enum history_rule expected)
{
    size_t found = judge();
    for (int rule = 0; rule < HISTORY_RULES; rule++)
        if (rule != (int)expected)
            cr_expect(eq(u64, history_figures(history)->violations[rule], 0), "%s",
                      history_rule_name((enum history_rule)rule));
    cr_expect(eq(u64, history_figures(history)->violations[expected], 1), "%s",
              history_rule_name(expected));
    cr_assert(eq(sz, found, 1));
}

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
