/* SPDX-License-Identifier: MIT */
/* Runs the engine in every order of two or three parties, up to a bound of preemptions, time-outs
 * and deaths: at each step of each operation another party may go on, a sleep may end by time, or
 * the party may die and be repaired. Checked all the while: mutual exclusion, that nobody sleeps
 * for ever, that damage is told exactly when there is some, tokens, optimistic reads, and that
 * nothing is left behind. */
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "engine/fast.h"
#include "engine/repair.h"
#include "engine/wait.h"
#include "tests/stress/engine/scenario.h"
#include "tests/stress/engine/schedule.h"

#define LOCKS 2
#define PROBER_SLOT (PARTIES_MAX + 1)
#define DEADLINE_NS (50 * LKI_NS_PER_MS)
#define TOKEN_START (UINT64_C(7) << 32)

struct actor {
    int index; /* of the party, and of its fiber */
    struct lki_party party;
    const enum op_kind *ops;
    uint32_t inside[LOCKS]; /* 0 or a mode: what it believes to hold */
    enum lki_cause end;     /* how it ended */
};

static char area_memory[32 * 1024] __attribute__((aligned(4096)));
static struct lki_area area;
static struct actor actors[PARTIES_MAX];
static struct actor *repaired_by[SCHEDULE_ACTORS_MAX]; /* for whom this fiber is the broker */
static const struct scenario *scenario;
static uint64_t now_ns;
static bool damaged[LOCKS];
static uint64_t last_token[LOCKS];
static _Atomic uint64_t data[2]; /* what lock 0 protects: two halves that are always equal */
static struct {
    _Atomic uint32_t *where; /* NULL: nothing */
    uint32_t value;
} pending[PARTIES_MAX]; /* the store of an actor that the others do not see yet */
static struct {
    unsigned long taken, told_damaged, timed_out, deaths, valid_reads, refused_reads, busy;
    unsigned long fenceless, barriers, upgraded, kept;
} seen;

static void wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)brokered;
    if (slot >= 1 && slot <= PARTIES_MAX)
        schedule_wake((int)slot - 1);
}

static uint32_t word_of(uint32_t lock)
{
    return atomic_load_explicit(&area.hot[lock].word, memory_order_relaxed);
}

/* --- stores that are seen late --- */

static void flush(int actor)
{
    if (actor < 0 || actor >= PARTIES_MAX || !pending[actor].where)
        return;
    atomic_store_explicit(pending[actor].where, pending[actor].value, memory_order_seq_cst);
    pending[actor].where = NULL;
}

static bool keep_back(_Atomic uint32_t *where, uint32_t value)
{
    int actor = schedule_current();
    if (actor < 0 || actor >= PARTIES_MAX)
        return false;
    flush(actor); /* stores stay in their order */
    pending[actor].where = where;
    pending[actor].value = value;
    return true;
}

/* Kept back as long as possible: until the actor looks at its own cell, or fences, or is stopped for a
 * barrier. What would be seen earlier is what the scenarios without BIASED show. */
static void step(const char *name)
{
    if (strcmp(name, "take_fenceless_look") != 0 && strcmp(name, "leave_fenceless_look") != 0)
        flush(schedule_current());
    schedule_step(name);
}

static bool barrier(void *user)
{
    (void)user;
    seen.barriers++;
    for (int i = 0; i < PARTIES_MAX; i++)
        flush(i);
    return true;
}

/* --- what has to hold inside --- */

static bool exclude_each_other(uint32_t mode, uint32_t other)
{
    return mode == LKI_MODE_EXCLUSIVE || other == LKI_MODE_EXCLUSIVE ||
           (mode == LKI_MODE_UPDATE && other == LKI_MODE_UPDATE);
}

static void check_exclusion(const struct actor *self, uint32_t lock, uint32_t mode)
{
    for (int i = 0; i < PARTIES_MAX; i++) {
        uint32_t other = actors[i].inside[lock];
        if (&actors[i] != self && other != 0 && exclude_each_other(mode, other))
            schedule_fail("lock %u: actors %d and %d are both inside", lock, self->index, i);
    }
}

static void entered(struct actor *self, uint32_t lock, enum lki_mode mode, enum lki_hold hold,
                    enum lki_verdict verdict)
{
    uint64_t sequence = lki_lock_sequence(&area, lock);

    self->inside[lock] = mode;
    check_exclusion(self, lock, mode);
    seen.taken++;
    seen.told_damaged += verdict == LKI_TAKEN_DIED;
    if (damaged[lock] != (verdict == LKI_TAKEN_DIED))
        schedule_fail("lock %u is %sdamaged, actor %d was told otherwise", lock,
                      damaged[lock] ? "" : "not ", self->index);
    if (mode == LKI_MODE_SHARED) {
        if ((sequence & 1) != damaged[lock])
            schedule_fail("lock %u: parity is wrong under a reader", lock);
        return;
    }
    if (sequence <= last_token[lock])
        schedule_fail("lock %u: the token did not rise", lock);
    if ((sequence & 1) != ((mode == LKI_MODE_EXCLUSIVE && hold == LKI_HOLD_DATA) || damaged[lock]))
        schedule_fail("lock %u: parity is wrong inside", lock);
    last_token[lock] = sequence;
}

static void write_data(struct actor *self, uint32_t lock)
{
    uint64_t token = lki_lock_sequence(&area, lock);
    (void)self;
    if (lock != 0)
        return;
    /* relaxed: as a writer under a seqlock does */
    atomic_store_explicit(&data[0], token, memory_order_relaxed);
    schedule_step("(half written)");
    atomic_store_explicit(&data[1], token, memory_order_relaxed);
}

static void stay_inside(struct actor *self, uint32_t lock, enum lki_mode mode, enum lki_hold hold,
                        enum op_kind kind)
{
    schedule_step("(inside)");
    check_exclusion(self, lock, mode);
    if (mode == LKI_MODE_EXCLUSIVE && hold == LKI_HOLD_DATA)
        write_data(self, lock);
    if (mode == LKI_MODE_EXCLUSIVE && damaged[lock] && kind != OP_EXCLUSIVE_CARELESS) {
        if (lki_lock_mark_consistent(&self->party, lock, LKI_HOLD_DATA) != LKI_TAKEN)
            schedule_fail("the owner may not mark consistent");
        damaged[lock] = false;
    }
}

/* --- death --- */

static void run_repair(void *argument)
{
    struct actor *dead = argument;
    struct lki_death death = {.pid = 1, .cause = dead->end};
    struct lki_repair repair;

    memset(dead->inside, 0, sizeof(dead->inside));
    lki_repair_begin(&repair, &area, dead->party.id);
    while (!lki_repair_step(&repair, &death, 1, wake, NULL))
        schedule_step("(slice)");
}

/* This party does nothing any more. */
static void end_inside(struct actor *dead, enum lki_cause cause)
{
    dead->end = cause;
    for (uint32_t lock = 0; lock < LOCKS; lock++) {
        if ((word_of(lock) & LKI_ID_MASK) == dead->party.id)
            damaged[lock] = lki_lock_sequence(&area, lock) & 1;
    }
    for (unsigned i = 0; i < scenario->repairs; i++)
        repaired_by[schedule_spawn(run_repair, dead, 0, true)] = dead;
}

static void died(void *user, int index)
{
    (void)user;
    seen.deaths++;
    flush(index);
    if (repaired_by[index]) /* the broker: its successor begins anew */
        repaired_by[schedule_spawn(run_repair, repaired_by[index], 0, true)] = repaired_by[index];
    else
        end_inside(&actors[index], LKI_CAUSE_EXITED);
}

/* --- the operations --- */

/* Until the wait ends. */
static enum lki_verdict step_on(struct actor *self, struct lki_wait *wait, enum lki_verdict verdict)
{
    struct lki_sleep sleep;

    while (verdict == LKI_SLEEP) {
        verdict = lki_wait_step(wait, now_ns, &sleep);
        if (verdict != LKI_SLEEP)
            break;
        if (sleep.futex_value & LKI_LATE)
            schedule_fail("actor %d goes to sleep as LATE", self->index);
        schedule_step("(futex_wait)");
        /* futex(2) compares and sleeps in one */
        if (atomic_load_explicit(sleep.futex, memory_order_seq_cst) != sleep.futex_value)
            continue;
        if (schedule_sleep()) {
            uint64_t until_ns = scenario->naps > 0 ? sleep.until_ns : wait->deadline_ns;
            now_ns = until_ns > now_ns ? until_ns : now_ns;
        }
    }
    return verdict;
}

static enum lki_verdict wait_for(struct actor *self, uint32_t lock, enum lki_mode mode,
                                 enum lki_hold hold, uint64_t deadline_ns)
{
    struct lki_wait wait;
    return step_on(self, &wait,
                   lki_wait_begin(&wait, &self->party, lock, mode, hold, now_ns, deadline_ns));
}

static bool is_biased(void)
{
    return scenario->first_word & LKI_BIASED;
}

static bool take_shared_fast(struct actor *self, uint32_t lock)
{
    if (is_biased() && lki_fast_take_fenceless(&self->party, lock)) {
        seen.fenceless++;
        return true;
    }
    if (!lki_fast_take_shared(&self->party, lock))
        return false;
    if (is_biased())
        lki_lock_bias(&self->party, lock);
    return true;
}

static bool release_shared_fast(struct actor *self, uint32_t lock)
{
    return (is_biased() && lki_fast_release_fenceless(&self->party, lock)) ||
           lki_fast_release_shared(&self->party, lock);
}

/* As the client library does: the inline path, one try, then the queue. */
static bool acquire(struct actor *self, uint32_t lock, enum lki_mode mode, enum lki_hold hold,
                    enum op_kind kind)
{
    bool once = kind == OP_EXCLUSIVE_TRY || kind == OP_SHARED_TRY || kind == OP_UPDATE_TRY ||
                kind == OP_UPGRADE_TRY;
    bool timed = kind == OP_EXCLUSIVE_TIMED || kind == OP_SHARED_TIMED;
    enum lki_verdict verdict = LKI_TAKEN;

    bool fast = (mode == LKI_MODE_SHARED && take_shared_fast(self, lock)) ||
                (mode == LKI_MODE_EXCLUSIVE && lki_fast_take_exclusive(&self->party, lock, hold));
    if (!fast)
        verdict = lki_lock_try(&self->party, lock, mode, hold);
    if (verdict == LKI_BUSY && !once)
        verdict = wait_for(self, lock, mode, hold, timed ? DEADLINE_NS : LKI_TIME_NEVER);
    if (verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED) {
        entered(self, lock, mode, hold, verdict);
        return true;
    }
    if (verdict != (once ? LKI_BUSY : LKI_TIMED_OUT))
        schedule_fail("verdict %d", (int)verdict);
    *(once ? &seen.busy : &seen.timed_out) += 1;
    return false;
}

static void release(struct actor *self, uint32_t lock, enum lki_mode mode)
{
    self->inside[lock] = 0;
    if ((mode == LKI_MODE_EXCLUSIVE && lki_fast_release_exclusive(&self->party, lock)) ||
        (mode == LKI_MODE_SHARED && release_shared_fast(self, lock)))
        return;
    if (lki_lock_release(&self->party, lock) != LKI_RELEASED)
        schedule_fail("actor %d could not release", self->index);
}

static void use(struct actor *self, uint32_t lock, enum lki_mode mode, enum lki_hold hold,
                enum op_kind kind)
{
    if (!acquire(self, lock, mode, hold, kind))
        return;
    stay_inside(self, lock, mode, hold, kind);
    if (kind == OP_EXCLUSIVE_CLOSE) {
        end_inside(self, LKI_CAUSE_CLOSED);
        return;
    }
    if (kind == OP_EXCLUSIVE_BOTH)
        use(self, 1, mode, hold, OP_EXCLUSIVE);
    release(self, lock, mode);
}

static void downgrade(struct actor *self, enum lki_mode mode)
{
    self->inside[0] = mode; /* who comes in from now on need not wait for the return */
    if (lki_lock_downgrade(&self->party, 0, mode) != LKI_TAKEN)
        schedule_fail("actor %d could not downgrade", self->index);
    if ((lki_lock_sequence(&area, 0) & 1) != damaged[0])
        schedule_fail("parity is wrong after a downgrade");
    stay_inside(self, 0, mode, LKI_HOLD_DATA, OP_UPDATE);
}

/* From update to exclusive. False: readers are inside, or were for too long. */
static bool upgrade(struct actor *self, enum op_kind kind)
{
    struct lki_wait wait;
    enum lki_verdict verdict = lki_lock_upgrade_try(&self->party, 0, LKI_HOLD_DATA);

    if (verdict == LKI_BUSY && kind != OP_UPGRADE_TRY)
        verdict = step_on(self, &wait,
                          lki_wait_begin_upgrade(&wait, &self->party, 0, LKI_HOLD_DATA, now_ns,
                                                 kind == OP_UPGRADE_TIMED ? now_ns + DEADLINE_NS
                                                                          : LKI_TIME_NEVER));
    if (verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED) {
        entered(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, verdict);
        seen.upgraded++;
        return true;
    }
    if (verdict != (kind == OP_UPGRADE_TRY ? LKI_BUSY : LKI_TIMED_OUT) ||
        lki_lock_held_by(&self->party, 0) != LKI_MODE_UPDATE)
        schedule_fail("upgrade: verdict %d", (int)verdict);
    seen.kept++;
    return false;
}

static void use_update(struct actor *self, enum op_kind kind)
{
    enum lki_mode mode = LKI_MODE_UPDATE;

    if (!acquire(self, 0, mode, LKI_HOLD_DATA, kind))
        return;
    stay_inside(self, 0, mode, LKI_HOLD_DATA, kind);
    if (kind == OP_UPDATE_TO_SHARED) {
        mode = LKI_MODE_SHARED;
        downgrade(self, mode);
    } else if (kind != OP_UPDATE && kind != OP_UPDATE_TRY && upgrade(self, kind)) {
        stay_inside(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, kind);
        downgrade(self, mode);
    }
    release(self, 0, mode);
}

static void use_downgraded(struct actor *self, enum op_kind kind)
{
    if (!acquire(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, kind))
        return;
    stay_inside(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, kind);
    downgrade(self, LKI_MODE_SHARED);
    release(self, 0, LKI_MODE_SHARED);
}

static void read_optimistically(void)
{
    uint64_t version;
    uint64_t copy[2];

    if (lki_read_begin(&area, 0, &version) != LKI_READ_BEGUN) {
        seen.refused_reads++;
        return;
    }
    lki_read_copy(&copy[0], &data[0], sizeof(copy[0]));
    schedule_step("(half read)");
    lki_read_copy(&copy[1], &data[1], sizeof(copy[1]));
    if (!lki_read_valid(&area, 0, version))
        return;
    seen.valid_reads++;
    if (copy[0] != copy[1])
        schedule_fail("an optimistic read saw half a write");
}

static void run_op(struct actor *self, enum op_kind kind)
{
    switch (kind) {
    case OP_END:
        break;
    case OP_EXCLUSIVE:
    case OP_EXCLUSIVE_TIMED:
    case OP_EXCLUSIVE_TRY:
    case OP_EXCLUSIVE_BOTH:
    case OP_EXCLUSIVE_CARELESS:
    case OP_EXCLUSIVE_CLOSE:
        use(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, kind);
        break;
    case OP_EXCLUSIVE_OTHER:
        use(self, 1, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA, kind);
        break;
    case OP_EXCLUSIVE_TO_EXIT:
        use(self, 0, LKI_MODE_EXCLUSIVE, LKI_HOLD_TO_EXIT, kind);
        break;
    case OP_SHARED:
    case OP_SHARED_TIMED:
    case OP_SHARED_TRY:
        use(self, 0, LKI_MODE_SHARED, LKI_HOLD_DATA, kind);
        break;
    case OP_OPTIMISTIC:
        read_optimistically();
        break;
    case OP_UPDATE:
    case OP_UPDATE_TRY:
    case OP_UPGRADE:
    case OP_UPGRADE_TIMED:
    case OP_UPGRADE_TRY:
    case OP_UPDATE_TO_SHARED:
        use_update(self, kind);
        break;
    case OP_EXCLUSIVE_TO_SHARED:
        use_downgraded(self, kind);
        break;
    }
}

static void run_actor(void *argument)
{
    struct actor *self = argument;
    for (unsigned i = 0; i < OPS_MAX && self->ops[i] != OP_END; i++)
        run_op(self, self->ops[i]);
    flush(self->index);
}

/* --- one run --- */

static void set_up(void *user)
{
    struct lki_area_config config = {
        .locks = LOCKS,
        .attachments_max = PROBER_SLOT,
        .patience_ns = scenario->patience_ns,
        .sequence_start = TOKEN_START,
        .state = LKI_SEGMENT_PUBLISHED,
        .bias = is_biased(),
    };
    (void)user;
    LKI_ASSERT(lki_area_bytes(LOCKS, PROBER_SLOT) <= sizeof(area_memory));
    memset(area_memory, 0, sizeof(area_memory));
    LKI_ASSERT(lki_area_format(area_memory, &config, &area) == 0);
    atomic_store_explicit(&area.hot[0].word, scenario->first_word, memory_order_relaxed);
    atomic_store_explicit(&data[0], 0, memory_order_relaxed);
    atomic_store_explicit(&data[1], 0, memory_order_relaxed);
    now_ns = 0;
    for (uint32_t lock = 0; lock < LOCKS; lock++) {
        damaged[lock] = false;
        last_token[lock] = TOKEN_START;
    }
    memset(pending, 0, sizeof(pending));
    memset(actors, 0, sizeof(actors));
    memset(repaired_by, 0, sizeof(repaired_by));
    for (int i = 0; i < PARTIES_MAX && scenario->ops[i][0] != OP_END; i++) {
        uint32_t id = lki_attachment_open(&area, (uint32_t)i + 1, 1, 0);
        bool timed = scenario->ops[i][0] == OP_EXCLUSIVE_TIMED ||
                     scenario->ops[i][0] == OP_SHARED_TIMED ||
                     scenario->ops[i][0] == OP_UPGRADE_TIMED;
        bool is_last = i + 1 == PARTIES_MAX || scenario->ops[i + 1][0] == OP_END;
        actors[i].index = i;
        actors[i].ops = scenario->ops[i];
        LKI_ASSERT(lki_party_init(&actors[i].party, &area, id, wake, NULL));
        actors[i].party.barrier = barrier;
        schedule_spawn(run_actor, &actors[i], scenario->naps > 0 ? scenario->naps : timed,
                       !is_last);
    }
}

static void finished(void *user)
{
    struct lki_party prober;
    (void)user;

    for (uint32_t slot = 1; slot <= PARTIES_MAX; slot++) {
        if (atomic_load(&area.attachments[slot].wait) != LKI_WAIT_NONE)
            schedule_fail("slot %u still waits", slot);
        for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++) {
            if (atomic_load(&area.attachments[slot].cells[cell]) != 0)
                schedule_fail("slot %u still has a cell", slot);
        }
    }
    uint32_t id = lki_attachment_open(&area, PROBER_SLOT, 1, 0);
    LKI_ASSERT(lki_party_init(&prober, &area, id, wake, NULL));
    prober.barrier = barrier;
    for (uint32_t lock = 0; lock < LOCKS; lock++) {
        if ((word_of(lock) & LKI_ID_MASK) != 0)
            schedule_fail("lock %u is still held: word %08x", lock, word_of(lock));
        if ((lki_lock_sequence(&area, lock) & 1) != damaged[lock])
            schedule_fail("lock %u: parity is wrong at the end", lock);
        enum lki_verdict verdict = lki_lock_try(&prober, lock, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA);
        if (verdict != (damaged[lock] ? LKI_TAKEN_DIED : LKI_TAKEN))
            schedule_fail("lock %u: trying it at the end gives %d, word %08x", lock, (int)verdict,
                          word_of(lock));
        lki_lock_release(&prober, lock);
        if (word_of(lock) != (damaged[lock] ? LKI_DIED : 0))
            schedule_fail("lock %u: word %08x is left behind", lock, word_of(lock));
    }
}

int main(int argc, char **argv)
{
    unsigned long total = 0;
    unsigned deeper = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    lki_step_hook = step;
    lki_store_hook = keep_back;
    for (size_t i = 0; i < scenario_count; i++) {
        scenario = &scenarios[i];
        struct schedule_plan plan = {
            .preemptions = scenario->preemptions + deeper,
            .deaths = scenario->deaths,
            .setup = set_up,
            .died = died,
            .finished = finished,
        };
        uint64_t begun_ns = lki_clock_now_ns();
        printf("%-40s", scenario->name);
        unsigned long runs = schedule_explore(&plan);
        printf("%9lu schedules %6.2f s\n", runs,
               (double)(lki_clock_now_ns() - begun_ns) / (double)LKI_NS_PER_S);
        total += runs;
    }
    printf(
        "%lu schedules; taken %lu, told of damage %lu, timed out %lu, busy %lu, deaths %lu, "
        "optimistic reads valid %lu, refused %lu; without a fence %lu, barriers %lu; upgraded %lu, "
        "not %lu\n",
        total, seen.taken, seen.told_damaged, seen.timed_out, seen.busy, seen.deaths,
        seen.valid_reads, seen.refused_reads, seen.fenceless, seen.barriers, seen.upgraded,
        seen.kept);
    /* A harness that never gets to these checks nothing. */
    return seen.told_damaged > 0 && seen.timed_out > 0 && seen.busy > 0 && seen.deaths > 0 &&
                   seen.valid_reads > 0 && seen.refused_reads > 0 && seen.fenceless > 0 &&
                   seen.barriers > 0 && seen.upgraded > 0 && seen.kept > 0
               ? 0
               : 1;
}
