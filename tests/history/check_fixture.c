/* SPDX-License-Identifier: MIT */
#include "tests/history/check_fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

struct record records[32];
size_t count;
struct history *history;
uint64_t value; /* that the last writer wrote */

void setup(void)
{
    static const struct history_limits limits = {.wait_ns = WAIT_MAX, .slack_ns = SLACK};
    history = history_new(&limits, NULL, NULL);
    count = 0;
    value = 0;
}

void teardown(void)
{
    history = history_free(history);
}

struct record *record(enum record_kind kind, uint32_t life, enum record_stage stage)
{
    struct record *now = &records[count++];
    *now = (struct record){.kind = (uint8_t)kind, .life = life, .lock = LOCK};
    record_reach(now, stage);
    return now;
}

/* A hold as it should be: asked for 5 before its answer, released at once when asked for. */
struct record *hold(uint32_t life, enum lk_mode mode, uint64_t from_ns, uint64_t to_ns,
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

void tell(struct record *of_hold, int32_t pid, uint64_t token)
{
    of_hold->result = LK_ACQUIRED_OWNER_DIED;
    of_hold->pid = pid;
    of_hold->told_token = token;
}

void tell_and_mend(struct record *of_hold, int32_t pid, uint64_t token)
{
    tell(of_hold, pid, token);
    of_hold->flags |= RECORD_MARKED;
}

/* Its pid is its life + 1000. */
void die(uint32_t life, uint64_t at_ns)
{
    struct record *death = record(RECORD_DEATH, life, RECORD_LEFT);
    death->pid = (int32_t)life + 1000;
    death->asked_ns = at_ns;
    death->answered_ns = at_ns + 3;
}

void die_asking(uint32_t life, enum lk_mode mode, uint64_t at_ns)
{
    struct record *asked = record(RECORD_LOCK, life, RECORD_ASKED);
    asked->mode = (uint8_t)mode;
    asked->asked_ns = 5;
    asked->timeout_ns = LK_WAIT_FOREVER;
    die(life, at_ns);
}

struct record *read_at(uint64_t from_ns, uint64_t to_ns, uint64_t seen, uint64_t version)
{
    struct record *now = record(RECORD_READ, 9, RECORD_LEFT);
    now->asked_ns = from_ns;
    now->answered_ns = to_ns;
    now->seen = seen;
    now->token = version;
    now->flags = RECORD_WHOLE | RECORD_ACCEPTED;
    return now;
}

struct record *refusal(int result, uint64_t timeout_ns, uint64_t waited_ns)
{
    struct record *now = record(RECORD_LOCK, 9, RECORD_REFUSED);
    now->mode = LK_EXCLUSIVE;
    now->result = result;
    now->timeout_ns = timeout_ns;
    now->asked_ns = 500;
    now->answered_ns = 500 + waited_ns;
    return now;
}

size_t judge(void)
{
    history_add(history, records, count);
    count = 0;
    return history_check(history);
}

void expect_nothing(void)
{
    size_t found = judge();
    for (int rule = 0; rule < HISTORY_RULES; rule++)
        cr_expect(eq(u64, history_figures(history)->violations[rule], 0), "%s",
                  history_rule_name((enum history_rule)rule));
    cr_assert(eq(sz, found, 0));
}

/* This rule is broken, and no other. */
void expect_only(enum history_rule expected)
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
