/* SPDX-License-Identifier: MIT */
#include "tests/history/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "common/assert.h"

#define OPEN_DEATHS_MAX 256 /* remembered per lock; older ones have long been told */

/* Somebody who was killed within a call and may have died inside. */
struct open_death {
    int32_t pid;
    uint64_t token; /* of the hold; 0: never known */
    uint64_t killed_ns;
};

/* What is known of a lock after all that was judged so far. */
struct lock_state {
    uint64_t token;   /* of the last exclusive hold */
    uint64_t owned;   /* of the last hold that is not shared */
    uint64_t highest; /* that anybody has seen, also readers */
    uint64_t value;   /* that the last writer wrote */
    bool damaged;     /* whoever comes next has to be told, of this one or a later one */
    int32_t damage_pid;
    uint64_t damage_token;
    uint64_t healed_token; /* of the last death that was told and then marked as mended */
    struct open_death open[OPEN_DEATHS_MAX];
    size_t opens; /* of all time */
};

struct pointers {
    const struct record **items;
    size_t count;
    size_t capacity;
};

struct history {
    struct history_limits limits;
    history_report_fn report;
    void *user;
    struct history_figures figures;
    size_t found; /* in this part */
    struct pointers deaths, stops;
    struct pointers holds[RECORD_LOCKS_MAX]; /* certain ones */
    struct pointers reads[RECORD_LOCKS_MAX];
    struct pointers others; /* unanswered and refused */
    struct lock_state locks[RECORD_LOCKS_MAX];
};

/* --- Small change --- */

static void push(struct pointers *list, const struct record *record)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        const struct record **items = realloc(list->items, list->capacity * sizeof(*items));
        LKI_ASSERT(items != NULL);
        list->items = items;
    }
    list->items[list->count++] = record;
}

static void __attribute__((format(printf, 4, 5)))
violation(struct history *history, enum history_rule rule, const struct record *record,
          const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    history->figures.violations[rule]++;
    history->found++;
    if (history->report)
        history->report(rule, record, text, history->user);
}

static bool has(const struct record *record, unsigned flag)
{
    return (record->flags & flag) != 0;
}

static bool is_exclusive(const struct record *record)
{
    return record->mode == LK_EXCLUSIVE;
}

static bool is_shared(const struct record *record)
{
    return record->mode == LK_SHARED;
}

static bool is_update(const struct record *record)
{
    return record->mode == LK_UPDATE;
}

static bool was_told(const struct record *record)
{
    return record->result == LK_ACQUIRED_OWNER_DIED;
}

/* What an exclusive holder leaves behind is whole: there was no damage, or it has said so. */
static bool is_clean(const struct record *record)
{
    return !was_told(record) || has(record, RECORD_MARKED);
}

static const struct record *death_of(const struct history *history, uint32_t life)
{
    const struct record *first = NULL;
    size_t low = 0, high = history->deaths.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct record *death = history->deaths.items[middle];
        if (death->life >= life)
            high = middle;
        else
            low = middle + 1;
    }
    /* Of two, a close and a kill in it, the first counts. */
    if (low < history->deaths.count && history->deaths.items[low]->life == life)
        first = history->deaths.items[low];
    return first;
}

static int by_life(const void *left, const void *right)
{
    const struct record *a = *(const struct record *const *)left;
    const struct record *b = *(const struct record *const *)right;
    if (a->life != b->life)
        return a->life < b->life ? -1 : 1;
    return (a->asked_ns > b->asked_ns) - (a->asked_ns < b->asked_ns);
}

static int by_answer(const void *left, const void *right)
{
    const struct record *a = *(const struct record *const *)left;
    const struct record *b = *(const struct record *const *)right;
    return (a->answered_ns > b->answered_ns) - (a->answered_ns < b->answered_ns);
}

static void sort(struct pointers *list, int (*order)(const void *, const void *))
{
    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), order);
}

/* Until when a hold is certain. */
static uint64_t end_of(const struct history *history, const struct record *hold)
{
    if (record_stage_of(hold) >= RECORD_LEAVING)
        return hold->leaving_ns;
    const struct record *death = death_of(history, hold->life);
    return death ? death->asked_ns : UINT64_MAX;
}

/* --- Waits: within their bounds --- */

static uint64_t stopped_ns(const struct history *history, uint32_t life, uint64_t from_ns,
                           uint64_t to_ns)
{
    uint64_t sum_ns = 0;
    for (size_t i = 0; i < history->stops.count; i++) {
        const struct record *stop = history->stops.items[i];
        uint64_t begin_ns = stop->asked_ns > from_ns ? stop->asked_ns : from_ns;
        uint64_t end_ns = stop->answered_ns < to_ns ? stop->answered_ns : to_ns;
        if (stop->life == life && begin_ns < end_ns)
            sum_ns += end_ns - begin_ns;
    }
    return sum_ns;
}

static void check_wait(struct history *history, const struct record *record, uint64_t until_ns)
{
    uint64_t waited_ns = until_ns > record->asked_ns ? until_ns - record->asked_ns : 0;
    bool timed = record->timeout_ns != LK_WAIT_FOREVER;
    if (waited_ns > history->figures.longest_wait_ns ||
        (timed && waited_ns > record->timeout_ns + history->figures.longest_overrun_ns))
        waited_ns -= stopped_ns(history, record->life, record->asked_ns, until_ns);
    if (waited_ns > history->figures.longest_wait_ns)
        history->figures.longest_wait_ns = waited_ns;
    if (waited_ns > history->limits.wait_ns)
        violation(history, HISTORY_LATE, record, "waited for %" PRIu64 " ms", waited_ns / 1000000);
    if (!timed || waited_ns <= record->timeout_ns)
        return;
    uint64_t overrun_ns = waited_ns - record->timeout_ns;
    if (overrun_ns > history->figures.longest_overrun_ns)
        history->figures.longest_overrun_ns = overrun_ns;
    if (overrun_ns > history->limits.slack_ns)
        violation(history, HISTORY_LATE, record, "%" PRIu64 " ms beyond its deadline",
                  overrun_ns / 1000000);
}

static void check_refusal(struct history *history, const struct record *record)
{
    bool cancelled = has(record, RECORD_GIVEN_UP);
    bool timed = record->timeout_ns != LK_WAIT_FOREVER;
    history->figures.refused++;
    history->figures.cancelled += cancelled;
    history->figures.timed_out += record->result == -ETIMEDOUT;
    if (has(record, RECORD_GRANTED))
        violation(history, HISTORY_RESULT, record, "cancel says that it is held, the callback %d",
                  record->result);
    if (record->result == -ETIMEDOUT && timed && record->timeout_ns > 0) {
        if (record->answered_ns - record->asked_ns < record->timeout_ns)
            violation(history, HISTORY_EARLY, record,
                      "timed out after %" PRIu64 " of %" PRIu64 " ns",
                      record->answered_ns - record->asked_ns, record->timeout_ns);
        return;
    }
    if ((record->result == -EBUSY && record->timeout_ns == 0) ||
        (record->result == -ECANCELED && cancelled))
        return;
    violation(history, HISTORY_RESULT, record, "acquire gives %d", record->result);
}

/* --- Deaths and what is told of them --- */

static void remember_open(struct history *history, const struct record *record)
{
    struct lock_state *lock = &history->locks[record->lock];
    const struct record *death = death_of(history, record->life);
    if (!death) {
        violation(history, HISTORY_UNENDED, record, "its caller lives, and it has not ended");
        return;
    }
    history->figures.deaths_open++;
    lock->open[lock->opens++ % OPEN_DEATHS_MAX] = (struct open_death){
        .pid = death->pid, .token = record->token, .killed_ns = death->asked_ns};
}

/* Whether this hold may have been told of somebody who was killed within a call. The token of the
 * last certain hold bounds the one that nobody wrote down. */
static bool is_told_of_open(const struct lock_state *lock, const struct record *hold)
{
    size_t count = lock->opens < OPEN_DEATHS_MAX ? lock->opens : OPEN_DEATHS_MAX;
    for (size_t i = 0; i < count; i++) {
        const struct open_death *open = &lock->open[i];
        bool token_fits =
            open->token ? open->token == hold->told_token : hold->told_token > lock->token;
        if (open->pid == hold->pid && token_fits && open->killed_ns < hold->answered_ns)
            return true;
    }
    return false;
}

static void check_told(struct history *history, const struct record *hold)
{
    struct lock_state *lock = &history->locks[hold->lock];
    if (!was_told(hold)) {
        if (lock->damaged)
            violation(history, HISTORY_NOT_TOLD, hold,
                      "not told of pid %d and token %#" PRIx64 ", or whoever came after",
                      lock->damage_pid, lock->damage_token);
        lock->damaged = false; /* once is enough */
        return;
    }
    history->figures.told++;
    bool of_known =
        lock->damaged && hold->told_token == lock->damage_token && hold->pid == lock->damage_pid;
    bool of_open = !of_known && is_told_of_open(lock, hold);
    history->figures.told_of_open += of_open;
    if (hold->told_token <= lock->healed_token)
        violation(history, HISTORY_TOLD_AGAIN, hold,
                  "told of token %#" PRIx64 ", mended at %#" PRIx64, hold->told_token,
                  lock->healed_token);
    else if (!of_known && !of_open)
        violation(history, HISTORY_TOLD_WRONG, hold,
                  "told of pid %d and token %#" PRIx64 ": no such death", hold->pid,
                  hold->told_token);
    lock->damaged = true; /* until an exclusive holder says otherwise */
    lock->damage_pid = hold->pid;
    lock->damage_token = hold->told_token;
}

/* --- Holds --- */

static void check_token(struct history *history, const struct record *hold)
{
    struct lock_state *lock = &history->locks[hold->lock];
    /* A reader may see the token of somebody who took the lock for update after it had come in. */
    bool rises = is_exclusive(hold) ? hold->token > lock->highest
                 : is_update(hold)  ? hold->token > lock->owned
                                    : hold->token >= lock->owned;
    if (!rises)
        violation(history, HISTORY_TOKEN, hold, "token %#" PRIx64 " after %#" PRIx64 "%s",
                  hold->token, is_exclusive(hold) ? lock->highest : lock->owned,
                  hold->token == lock->owned ? ": it is given twice" : "");
    if (!is_shared(hold) && hold->token > lock->owned)
        lock->owned = hold->token;
    if (hold->token > lock->highest)
        lock->highest = hold->token;
}

static void check_canary(struct history *history, const struct record *hold)
{
    const struct lock_state *lock = &history->locks[hold->lock];
    bool leaves = record_stage_of(hold) >= RECORD_LEAVING;
    if (!was_told(hold) && (!has(hold, RECORD_WHOLE) || hold->seen != lock->value))
        violation(history, HISTORY_CANARY, hold, "finds %#" PRIx64 "%s, %#" PRIx64 " was written",
                  hold->seen, has(hold, RECORD_WHOLE) ? "" : ", torn", lock->value);
    if (!leaves || (was_told(hold) && !is_exclusive(hold)))
        return;
    uint64_t expected = is_exclusive(hold) ? hold->token : lock->value;
    if (!has(hold, RECORD_WHOLE_LAST) || hold->seen_last != expected)
        violation(history, HISTORY_CANARY, hold, "leaves %#" PRIx64 "%s, %#" PRIx64 " was written",
                  hold->seen_last, has(hold, RECORD_WHOLE_LAST) ? "" : ", torn", expected);
}

/* What an exclusive hold leaves to the next one. */
static void leave_exclusive(struct history *history, const struct record *hold)
{
    struct lock_state *lock = &history->locks[hold->lock];
    enum record_stage stage = record_stage_of(hold);
    const struct record *death = death_of(history, hold->life);

    lock->token = hold->token;
    if (stage >= RECORD_WRITTEN)
        lock->value = hold->token;
    if (stage < RECORD_LEAVING) {
        if (!death) {
            violation(history, HISTORY_UNENDED, hold, "its holder lives, and has not left");
            return;
        }
        history->figures.deaths_inside++;
        lock->damaged = true;
        lock->damage_pid = death->pid;
        lock->damage_token = hold->token;
        return;
    }
    if (has(hold, RECORD_MARKED)) {
        lock->damaged = false;
        lock->healed_token = hold->told_token;
    }
    if (stage == RECORD_LEAVING)
        remember_open(history, hold);
}

static void check_result(struct history *history, const struct record *hold)
{
    history->figures.asynchronous += has(hold, RECORD_ASYNC);
    history->figures.fenceless += has(hold, RECORD_FENCELESS);
    history->figures.exclusive += is_exclusive(hold);
    history->figures.update += is_update(hold);
    history->figures.shared += is_shared(hold);
    if (hold->from != 0 && is_exclusive(hold))
        history->figures.upgrades++;
    else if (hold->from != 0)
        history->figures.downgrades++;
    if (record_stage_of(hold) == RECORD_LEFT && hold->left_result != 0)
        violation(history, HISTORY_RESULT, hold, "release gives %d", hold->left_result);
    if (has(hold, RECORD_GIVEN_UP))
        violation(history, HISTORY_RESULT, hold, "cancel says 0, and it is held");
}

/* Holds in the order in which they were answered. If they exclude each other as they should, that is
 * the order in which they held it. */
static void check_holds(struct history *history, uint32_t index)
{
    const struct pointers *holds = &history->holds[index];
    uint64_t exclusive_until_ns = 0, owned_until_ns = 0, any_until_ns = 0;
    for (size_t i = 0; i < holds->count; i++) {
        const struct record *hold = holds->items[i];
        uint64_t until_ns = end_of(history, hold);
        uint64_t before_ns = is_exclusive(hold) ? any_until_ns
                             : is_update(hold)  ? owned_until_ns
                                                : exclusive_until_ns;
        if (hold->answered_ns < before_ns)
            violation(history, HISTORY_OVERLAP, hold,
                      "it holds while another one does, for %" PRIu64 " ns",
                      (before_ns < until_ns ? before_ns : until_ns) - hold->answered_ns);
        if (until_ns > any_until_ns)
            any_until_ns = until_ns;
        if (!is_shared(hold) && until_ns > owned_until_ns)
            owned_until_ns = until_ns;
        if (is_exclusive(hold) && until_ns > exclusive_until_ns)
            exclusive_until_ns = until_ns;
        check_result(history, hold);
        check_wait(history, hold, hold->answered_ns);
        check_told(history, hold);
        check_token(history, hold);
        check_canary(history, hold);
        if (is_exclusive(hold))
            leave_exclusive(history, hold);
        else if (record_stage_of(hold) < RECORD_LEFT && !death_of(history, hold->life))
            violation(history, HISTORY_UNENDED, hold, "its holder lives, and has not left");
    }
}

/* --- Optimistic reads --- */

/* How many of the exclusive holds (by answer) had asked for their release by then. */
static size_t count_leaving(const struct pointers *writers, uint64_t at_ns)
{
    size_t low = 0, high = writers->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct record *writer = writers->items[middle];
        bool left = record_stage_of(writer) >= RECORD_LEAVING && writer->leaving_ns <= at_ns;
        /* One that died inside was over before its successor was answered. */
        if (record_stage_of(writer) < RECORD_LEAVING)
            left = writer->answered_ns <= at_ns;
        if (left)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void check_read(struct history *history, const struct pointers *writers,
                       uint64_t value_before, const struct record *read)
{
    if (!has(read, RECORD_ACCEPTED)) {
        history->figures.reads_refused++;
        if (read->result != 0 && read->result != -EAGAIN && read->result != -EOWNERDEAD)
            violation(history, HISTORY_RESULT, read, "lk_read_begin gives %d", read->result);
        return;
    }
    history->figures.reads_accepted++;
    if (!has(read, RECORD_WHOLE)) {
        violation(history, HISTORY_TORN, read, "an accepted read is torn");
        return;
    }
    uint64_t oldest = value_before;
    for (size_t i = count_leaving(writers, read->asked_ns); i-- > 0;) {
        const struct record *writer = writers->items[i];
        if (record_stage_of(writer) == RECORD_LEFT && writer->left_ns <= read->asked_ns) {
            oldest = writer->token;
            break;
        }
    }
    if (read->seen < oldest) {
        violation(history, HISTORY_STALE, read,
                  "accepts %#" PRIx64 ", %#" PRIx64 " had been written before it began", read->seen,
                  oldest);
        return;
    }
    bool written = read->seen == value_before;
    for (size_t i = count_leaving(writers, read->answered_ns); i-- > 0 && !written;) {
        const struct record *writer = writers->items[i];
        if (writer->token < read->seen)
            break;
        written = writer->token == read->seen && is_clean(writer) &&
                  record_stage_of(writer) >= RECORD_LEAVING;
    }
    if (!written || read->seen >= read->token)
        violation(history, HISTORY_TORN, read,
                  "accepts %#" PRIx64 " at version %#" PRIx64 ", which nobody had finished",
                  read->seen, read->token);
}

static void check_reads(struct history *history, uint32_t index, uint64_t value_before)
{
    struct pointers writers = {0};
    for (size_t i = 0; i < history->holds[index].count; i++)
        if (is_exclusive(history->holds[index].items[i]))
            push(&writers, history->holds[index].items[i]);
    for (size_t i = 0; i < history->reads[index].count; i++)
        check_read(history, &writers, value_before, history->reads[index].items[i]);
    free(writers.items);
}

/* --- All of it --- */

static void check_others(struct history *history)
{
    for (size_t i = 0; i < history->others.count; i++) {
        const struct record *record = history->others.items[i];
        if (record_stage_of(record) == RECORD_REFUSED) {
            check_wait(history, record, record->answered_ns);
            check_refusal(history, record);
            continue;
        }
        const struct record *death = death_of(history, record->life);
        if (death)
            check_wait(history, record, death->asked_ns);
        if (!death || is_exclusive(record)) /* who dies in another mode leaves no damage */
            remember_open(history, record);
    }
}

void history_add(struct history *history, const struct record *records, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct record *record = &records[i];
        LKI_ASSERT(record->lock < RECORD_LOCKS_MAX);
        if (record->kind == RECORD_DEATH)
            push(&history->deaths, record);
        else if (record->kind == RECORD_STOP)
            push(&history->stops, record);
        else if (record->kind == RECORD_READ && record_stage_of(record) == RECORD_LEFT)
            push(&history->reads[record->lock], record);
        else if (record->kind == RECORD_LOCK)
            push(record_stage_of(record) >= RECORD_HELD ? &history->holds[record->lock]
                                                        : &history->others,
                 record);
    }
}

size_t history_check(struct history *history)
{
    history->found = 0;
    sort(&history->deaths, by_life);
    for (size_t i = 0; i < history->deaths.count; i++)
        history->figures.deaths +=
            i == 0 || history->deaths.items[i]->life != history->deaths.items[i - 1]->life;
    /* First, since what is told later may be of these. */
    check_others(history);
    for (uint32_t index = 0; index < RECORD_LOCKS_MAX; index++) {
        uint64_t value_before = history->locks[index].value;
        sort(&history->holds[index], by_answer);
        check_holds(history, index);
        check_reads(history, index, value_before);
        history->holds[index].count = 0;
        history->reads[index].count = 0;
    }
    history->deaths.count = 0;
    history->stops.count = 0;
    history->others.count = 0;
    return history->found;
}

struct history *history_new(const struct history_limits *limits, history_report_fn report,
                            void *user)
{
    struct history *history = calloc(1, sizeof(*history));
    LKI_ASSERT(history != NULL);
    history->limits = *limits;
    history->report = report;
    history->user = user;
    return history;
}

struct history *history_free(struct history *history)
{
    if (!history)
        return NULL;
    for (uint32_t index = 0; index < RECORD_LOCKS_MAX; index++) {
        free(history->holds[index].items);
        free(history->reads[index].items);
    }
    free(history->deaths.items);
    free(history->stops.items);
    free(history->others.items);
    free(history);
    return NULL;
}

const struct history_figures *history_figures(const struct history *history)
{
    return &history->figures;
}

const char *history_rule_name(enum history_rule rule)
{
    static const char *const names[HISTORY_RULES] = {
        [HISTORY_OVERLAP] = "overlap",
        [HISTORY_TOKEN] = "token",
        [HISTORY_NOT_TOLD] = "not told",
        [HISTORY_TOLD_WRONG] = "told wrongly",
        [HISTORY_TOLD_AGAIN] = "told again",
        [HISTORY_CANARY] = "canary",
        [HISTORY_TORN] = "torn",
        [HISTORY_STALE] = "stale",
        [HISTORY_LATE] = "late",
        [HISTORY_EARLY] = "early",
        [HISTORY_RESULT] = "result",
        [HISTORY_UNENDED] = "unended",
    };
    return rule < HISTORY_RULES ? names[rule] : "?";
}
