/* SPDX-License-Identifier: MIT */
/* A worker dies at every step of every line of some stories. Its successor has to make of each
 * story what it is without a death: the same answers, the same locks granted in the same order,
 * nothing left in the end. Then the successor dies too, at one step of its way for each, and a
 * third goes on; and so on with a fourth.
 *
 * LK_CRASHES=n in the environment tries n steps of the successor for each instead of one. LK_STORY,
 * LK_LINE, LK_STEP, LK_SECOND, LK_THIRD, LK_VARIANT: that death alone. */
#include "actors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARE LK_CREATE
#define STRICT (LK_CREATE | LK_STRICT)

enum { A, B, C, D, E, F };
enum { x, y, z };

struct story {
    const char *title;
    bool fifo;
    const struct line *lines;
};

/* A line says what counts for its verb. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* Three wait in the broker for a lock that it took for the first. */
static const struct line queue[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = LK_CREATE_NEW | LK_STRICT},
    {CONNECT, B},
    {OPEN, B, x, .flags = STRICT},
    {CONNECT, C},
    {OPEN, C, x, .flags = STRICT},
    {CONNECT, D},
    {OPEN, D, x, .flags = STRICT},
    {ACQUIRE, A, x, 1, X},
    {ACQUIRE, D, x, 1, X},
    {ACQUIRE, B, x, 1, X},
    {ACQUIRE, C, x, 1, X},
    {TRY, A, x, 2, X},
    {RELEASE, A, x, 1},
    {RELEASE, D, x, 1},
    {DECLARE, B, x, 1},
    {RELEASE, B, x, 1},
    {MARK, C, x, 1},
    {RELEASE, C, x, 1},
    {RELEASE, A, x, 2},
    {DETACH, C, x},
    {WORK},
    {GOODBYE, B},
    {WORK},
    {END},
};

/* Readers go in and out, and a writer drains them. */
static const struct line readers[] = {
    {CONNECT, A},          {OPEN, A, x, .flags = STRICT},
    {CONNECT, B},          {OPEN, B, x, .flags = STRICT},
    {CONNECT, C},          {OPEN, C, x, .flags = STRICT},
    {CONNECT, D},          {OPEN, D, x, .flags = LK_READ_ONLY},
    {ACQUIRE, A, x, 0, S}, {ACQUIRE, B, x, 0, S},
    {ACQUIRE, C, x, 0, X}, {ACQUIRE, D, x, 0, S},
    {RELEASE, A, x, 0},    {RELEASE, B, x, 0},
    {ACQUIRE, A, x, 0, S}, {RELEASE, C, x, 0},
    {PASS, .amount = 2},   {ACQUIRE, C, x, 0, X, .amount = 5},
    {PASS, .amount = 20},  {RELEASE, D, x, 0},
    {RELEASE, A, x, 0},    {TRY, B, x, 0, X},
    {RELEASE, B, x, 0},    {END},
};

/* Slots of their own for asynchronous acquires, beside native locking. */
static const struct line asynchronous[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = SHARE},
    {CONNECT, B},
    {OPEN, B, x, .flags = SHARE},
    {CONNECT, C},
    {OPEN, C, x, .flags = SHARE},
    {N_TRY, A, x, 0, X},
    {ASYNC, B, x, 0, X},
    {ASYNC, C, x, 0, X},
    {ASYNC, C, x, 1, X},
    {TO_EXIT, B, x, 2},
    {TO_EXIT, C, x, 2},
    {ASYNC, A, x, 1, S},
    {N_RELEASE, A, x, 0},
    {RELEASE, B, x, 0},
    {RELEASE, C, x, 1},
    {ASYNC, B, x, 0, X},
    {CANCEL, B, x, 0},
    {ASYNC, B, x, 0, S, .amount = 10},
    {PASS, .amount = 30},
    {RELEASE, C, x, 0},
    {RELEASE, A, x, 1},
    {END_PROCESS, B},
    {WORK},
    {RELEASE, C, x, 2},
    {GOODBYE, C},
    {WORK},
    {END},
};

/* Asynchronous holds that are released one-way, beside waits of the same session that nobody has answered. */
static const struct line one_way[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = STRICT},
    {CONNECT, B},
    {OPEN, B, x, .flags = STRICT},
    {CONNECT, C},
    {OPEN, C, x, .flags = STRICT},
    {ASYNC, A, x, 0, X},
    {ASYNC, B, x, 1, X},
    {ASYNC, A, x, 1, X},
    {ASYNC, B, x, 2, S},
    {LET_GO, A, x, 0},
    {ASYNC, A, x, 0, X},
    {ACQUIRE, C, x, 0, X},
    {LET_GO, A, x, 0},
    {ASYNC, A, x, 0, S},
    {LET_GO, C, x, 0},
    {LET_GO, B, x, 1},
    {LET_GO, A, x, 0},
    {LET_GO, A, x, 1},
    {TRY, C, x, 1, X},
    {LET_GO, B, x, 2},
    {DETACH, B, x},
    {LET_GO, C, x, 1},
    {GOODBYE, A},
    {WORK},
    {END},
};

/* Native and brokered waiters in one queue. */
static const struct line mixed[] = {
    {CONNECT, A},         {OPEN, A, x, .flags = SHARE},
    {CONNECT, B},         {OPEN, B, x, .flags = SHARE},
    {CONNECT, C},         {OPEN, C, x, .flags = SHARE},
    {CONNECT, D},         {OPEN, D, x, .flags = SHARE},
    {ASYNC, A, x, 3, X},  {N_WAIT, B, x, 3, X},
    {ASYNC, C, x, 3, X},  {N_WAIT, D, x, 3, X},
    {RELEASE, A, x, 3},   {N_STEP, B, x, 3, X},
    {N_RELEASE, B, x, 3}, {RELEASE, C, x, 3},
    {N_STEP, D, x, 3, X}, {N_RELEASE, D, x, 3},
    {TRY, A, x, 3, X},    {ASYNC, A, x, 3, X},
    {RELEASE, A, x, 3},   {END},
};

/* Owners die, and close; repairs come in slices. */
static const struct line deaths_of_owners[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = SHARE},
    {CONNECT, B},
    {OPEN, B, x, .flags = SHARE},
    {CONNECT, C},
    {OPEN, C, x, .flags = SHARE},
    {CONNECT, D},
    {OPEN, D, x, .flags = SHARE},
    {N_TRY, A, x, 0, X},
    {ASYNC, A, x, 1, X},
    {DECLARE, A, x, 1},
    {N_TRY, A, x, 2, S},
    {ASYNC, B, x, 0, X},
    {ASYNC, C, x, 0, X},
    {ASYNC, C, x, 1, X},
    {ASYNC, B, x, 2, X},
    {END_PROCESS, A},
    {TICK, .amount = 1},
    {TICK, .amount = 1},
    {WORK},
    {MARK, B, x, 0},
    {RELEASE, B, x, 0},
    {RELEASE, C, x, 1},
    {TO_EXIT, D, x, 1},
    {MARK, D, x, 1},
    {DETACH, C, x},
    {WORK},
    {N_TRY, D, x, 0, X},
    {RELEASE, B, x, 2},
    {LOSE, D},
    {END_PROCESS, D},
    {WORK},
    {ASYNC, B, x, 1, X},
    {GOODBYE, B},
    {WORK},
    {END},
};

/* Connections end while they wait; what they hold stays. */
static const struct line losses[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = STRICT | LK_KEEP},
    {CONNECT, B},
    {OPEN, B, x, .flags = STRICT},
    {CONNECT, C},
    {OPEN, C, x, .flags = STRICT},
    {CONNECT, D},
    {OPEN, D, x, .flags = STRICT},
    {ACQUIRE, A, x, 0, X},
    {ACQUIRE, B, x, 0, X},
    {ASYNC, B, x, 0, X},
    {ASYNC, B, x, 1, X},
    {ACQUIRE, C, x, 0, S},
    {ACQUIRE, D, x, 0, X},
    {LOSE, B},
    {RELEASE, A, x, 0},
    {ASYNC, A, x, 0, X},
    {LOSE, C},
    {END_PROCESS, C},
    {WORK},
    {RELEASE, D, x, 0},
    {ASYNC, D, x, 1, X},
    {END_PROCESS, B},
    {WORK},
    {END},
};

/* Segments come and go. */
static const struct line segments[] = {
    {CONNECT, A},
    {OPEN, A, x, .flags = LK_CREATE_NEW | LK_KEEP},
    {CONNECT, B},
    {OPEN, B, x, .flags = LK_CREATE_NEW},
    {OPEN, B, x},
    {GROW, A, x, .amount = 8192},
    {GROW, B, x, .amount = 16384},
    {LOCK_NAMED, A, x, .amount = 0},
    {LOCK_NAMED, B, x, .amount = 1},
    {LOCK_NAMED, B, x, .amount = 0},
    {OPEN, A, y, .flags = LK_CREATE_NEW | LK_UNPUBLISHED},
    {OPEN, B, y},
    {PUBLISH, A, y},
    {OPEN, B, y},
    {REMOVE, A, x},
    {CONNECT, C},
    {OPEN, C, x},
    {OPEN, C, x, .flags = LK_CREATE_NEW},
    {REMOVE, A, z},
    {DETACH, A, x},
    {WORK},
    {DETACH, B, x},
    {WORK},
    {OPEN, A, x},
    {REMOVE, C, x},
    {OPEN, C, z, .flags = LK_CREATE_NEW | LK_UNPUBLISHED},
    {DETACH, C, z},
    {WORK},
    {OPEN, B, z, .flags = LK_CREATE},
    {LOSE, B},
    {GOODBYE, A},
    {WORK},
    {END_PROCESS, B},
    {WORK},
    {END},
};

/* Where it is not first in, first out, a waiter that is awake may pass an older one, and a takeover
 * wakes all: those two stories have one end only where the order is strict. */
static const struct story stories[] = {
    {"queue, fifo", true, queue},
    {"readers", false, readers},
    {"readers, fifo", true, readers},
    {"asynchronous", false, asynchronous},
    {"asynchronous, fifo", true, asynchronous},
    {"mixed, fifo", true, mixed},
    {"deaths of owners", false, deaths_of_owners},
    {"losses", false, losses},
    {"losses, fifo", true, losses},
    {"segments", false, segments},
    {"one-way", false, one_way},
};

/* --- Comparing --- */

static void expect_same(const struct telling *told, const struct telling *expected,
                        const char *where)
{
    cr_assert(eq(u32, told->outcome_count, expected->outcome_count), "%s", where);
    for (uint32_t i = 0; i < told->outcome_count; i++) {
        const struct outcome *is = &told->outcomes[i];
        const struct outcome *be = &expected->outcomes[i];
        if (is->verb == GOODBYE && be->verb == GOODBYE)
            continue; /* its answer may be lost with the connection, which says the same */
        cr_assert(is->type == be->type && is->status == be->status && is->created == be->created &&
                      is->value == be->value,
                  "%s: outcome %u (verb %d of %d): type %d status %d created %d value %llu, not "
                  "type %d status %d created %d value %llu",
                  where, i, (int)is->verb, is->who, is->type, is->status, is->created,
                  (unsigned long long)is->value, be->type, be->status, be->created,
                  (unsigned long long)be->value);
    }
    cr_assert(eq(u32, told->grant_count, expected->grant_count), "%s", where);
    for (uint32_t i = 0; i < told->grant_count; i++)
        cr_assert(eq(int, memcmp(&told->grants[i], &expected->grants[i], sizeof(struct grant)), 0),
                  "%s: grant %u goes to %d, not %d", where, i, told->grants[i].who,
                  expected->grants[i].who);
}

/* --- Dying --- */

static uint64_t points;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void die(const struct story *story, const struct deaths *deaths,
                const struct telling *expected, struct toll *out_toll)
{
    static struct telling told;
    static char where[200];
    snprintf(where, sizeof(where),
             "LK_STORY='%s' LK_LINE=%u LK_STEP=%llu LK_SECOND=%llu "
             "LK_THIRD=%llu LK_VARIANT=%d",
             story->title, deaths->line, (unsigned long long)deaths->step,
             (unsigned long long)deaths->second_step, (unsigned long long)deaths->third_step,
             deaths->stale + 2 * deaths->natives);
    if (getenv("LK_TRACE"))
        fprintf(stderr, "%s\n", where);
    tell(story->lines, story->fifo, deaths, &told, out_toll);
    expect_same(&told, expected, where);
    points += out_toll->count;
}

/* Mixes two numbers into one that looks random. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t both = (a * UINT64_C(0x9e3779b97f4a7c15)) ^ (b * UINT64_C(0xc2b2ae3d27d4eb4f));
    return both ^ both >> 29;
}

/* Whoever locks natively while there is no worker goes before a request about a lock that the dead
 * one had not carried out: that is another story. */
static bool is_about_locks(enum verb verb)
{
    return (verb >= ACQUIRE && verb <= RELEASE) || verb == END_PROCESS || verb == DETACH ||
           verb == GOODBYE || verb == LOSE || verb == TICK || verb == WORK || verb == PASS;
}

static void die_in_line(const struct story *story, uint32_t line, const struct telling *expected)
{
    uint64_t seconds = number_of("LK_CRASHES", 1);
    for (uint64_t step = 1;; step++) {
        struct deaths deaths = {.line = line,
                                .step = step,
                                .stale = step % 2,
                                .natives =
                                    step % 4 > 1 && !is_about_locks(story->lines[line].verb)};
        struct toll toll;
        die(story, &deaths, expected, &toll);
        if (toll.count == 0)
            return; /* the line has fewer steps */
        uint64_t steps = toll.recovery_steps;
        for (uint64_t i = 0; i < seconds && steps > 0; i++) {
            deaths.second_step = 1 + mix(step, line * 1000 + i) % steps;
            deaths.third_step = i % 2 ? 1 + mix(step, line * 7000 + i) % steps : 0;
            die(story, &deaths, expected, &toll);
        }
    }
}

static void run_story(const struct story *story)
{
    static struct telling expected;
    const struct deaths none = {.step = 0};
    struct toll toll;
    const char *only = getenv("LK_STORY");
    if (only && strcmp(only, story->title) != 0)
        return;
    tell(story->lines, story->fifo, &none, &expected, &toll);
    if (getenv("LK_STEP")) {
        uint64_t variant = number_of("LK_VARIANT", 0);
        const struct deaths deaths = {.line = (uint32_t)number_of("LK_LINE", 0),
                                      .step = number_of("LK_STEP", 0),
                                      .second_step = number_of("LK_SECOND", 0),
                                      .third_step = number_of("LK_THIRD", 0),
                                      .stale = variant & 1,
                                      .natives = variant & 2};
        die(story, &deaths, &expected, &toll);
        return;
    }
    points = 0;
    for (uint32_t line = 0; story->lines[line].verb != END; line++)
        if (story->lines[line].verb < N_TRY)
            die_in_line(story, line, &expected);
    fprintf(stderr, "%s: %llu deaths\n", story->title, (unsigned long long)points);
}

TestSuite(takeover_steps, .timeout = 600);

#define STORY(number, test)                                                                        \
    Test(takeover_steps, test)                                                                     \
    {                                                                                              \
        run_story(&stories[number]);                                                               \
    }

STORY(0, a_queue_first_in_first_out)
STORY(1, readers)
STORY(2, readers_first_in_first_out)
STORY(3, asynchronous_acquires)
STORY(4, asynchronous_acquires_first_in_first_out)
STORY(5, native_and_brokered_waiters_first_in_first_out)
STORY(6, owners_die)
STORY(7, connections_end)
STORY(8, connections_end_first_in_first_out)
STORY(9, segments_come_and_go)
STORY(10, one_way_releases_of_asynchronous_holds)
