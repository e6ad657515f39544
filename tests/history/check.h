/* SPDX-License-Identifier: MIT */
/* The judge of recorded histories. It knows nothing of lockkeeper but its promises, and nothing of
 * the run but its records: a pure function, but for what one part of a history leaves to be known
 * in the next. What a record leaves open, since its writer was killed within a call, counts as both:
 * it excuses, and is never held against anybody.
 *
 * A hold lasts at least from the answer to the acquire until the release is asked for; of one that
 * was killed inside, until just before the kill. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tests/history/record.h"

enum history_rule {
    HISTORY_OVERLAP,    /* an exclusive hold and another one at the same time, or two for update */
    HISTORY_TOKEN,      /* a token that does not rise, or is given twice */
    HISTORY_NOT_TOLD,   /* an owner died inside, or left damage, and the next holder is not told */
    HISTORY_TOLD_WRONG, /* told, and nobody died so */
    HISTORY_TOLD_AGAIN, /* told of what was marked consistent since */
    HISTORY_CANARY,     /* the data is not what the last writer wrote */
    HISTORY_TORN,       /* an accepted optimistic read has what nobody had finished */
    HISTORY_STALE,   /* an accepted optimistic read is older than a write that had ended before */
    HISTORY_LATE,    /* waited beyond the deadline, or the bound */
    HISTORY_EARLY,   /* timed out before the deadline */
    HISTORY_RESULT,  /* a result that the call may not have */
    HISTORY_UNENDED, /* somebody lives and has not left */
    HISTORY_RULES,
};

struct history_limits {
    uint64_t wait_ns;  /* no wait is longer */
    uint64_t slack_ns; /* a deadline may be missed by this, on a loaded machine */
};

/* What was judged: for the summary, and to tell a history in which nothing happened. */
struct history_figures {
    uint64_t exclusive, shared, update, upgrades, downgrades, fenceless, refused, timed_out,
        asynchronous, cancelled, reads_accepted, reads_refused;
    uint64_t deaths, deaths_inside, deaths_open; /* open: killed within a call; may have held */
    uint64_t told, told_of_open;
    uint64_t longest_wait_ns, longest_overrun_ns; /* without the time that the waiter was stopped */
    uint64_t violations[HISTORY_RULES];
};

typedef void (*history_report_fn)(enum history_rule rule, const struct record *record,
                                  const char *text, void *user);

struct history;

struct history *history_new(const struct history_limits *limits, history_report_fn report,
                            void *user);
struct history *history_free(struct history *history);

/* Borrows the records until history_check() returns. Their order does not matter. */
void history_add(struct history *history, const struct record *records, size_t count);

/* Judges what was added since the last time. Nobody may be within a call meanwhile. Returns: the
 * number of violations. */
size_t history_check(struct history *history);

const struct history_figures *history_figures(const struct history *history);
const char *history_rule_name(enum history_rule rule);
