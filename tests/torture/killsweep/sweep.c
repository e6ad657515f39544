/* SPDX-License-Identifier: MIT */
#include "sweep.h"

#include <lockkeeper/lockkeeper.h>

#include "engine/repair.h"
#include "engine/scan.h"
#include "reader.h"
#include "tests/support/process.h"

/* What is found once the victim is dead, before anything is repaired. */
struct remains {
    uint32_t slot;
    bool owns;         /* its id stands in the word */
    bool acquired;     /* its call had returned and it held the lock */
    bool finished;     /* its call had returned */
    bool updates;      /* and it is for update */
    bool drains;       /* or on its way from there, and has not written either */
    uint64_t sequence; /* if it owns */
    bool died;         /* the next owners have to be told */
};

static struct lki_lock_hot *hot_of(const struct sweep *sweep)
{
    return &sweep->stage.area.hot[STAGE_LOCK];
}

/* --- Before --- */

static void probe_and_leave(struct sweep *sweep, uint32_t lock)
{
    enum lki_verdict verdict =
        lki_lock_try(&sweep->stage.prober, lock, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA);
    test_check(verdict == LKI_TAKEN_DIED, "the stage is not damaged: %d", (int)verdict);
    lki_lock_release(&sweep->stage.prober, lock);
}

static void set_word(struct sweep *sweep, enum scenario_word word)
{
    struct stage *stage = &sweep->stage;
    if (word == WORD_STALE)
        atomic_store(&hot_of(sweep)->word, LKI_READ | LKI_PARKED | LKI_FAIR);
    if (word == WORD_BIASED || word == WORD_BIASED_STALE)
        atomic_store(&hot_of(sweep)->word,
                     LKI_READ | LKI_BIASED |
                         (word == WORD_BIASED_STALE ? LKI_PARKED | LKI_FAIR : 0));
    if (word != WORD_DIED && word != WORD_BROKEN)
        return;
    struct lki_party dead;
    bool loses = stage->lose_wakes;
    uint32_t id = lki_attachment_open(&stage->area, STAGE_SLOT_DEAD, 1, 0);
    test_check(lki_party_init(&dead, &stage->area, id, stage_wake, stage), "no slot");
    test_check(lki_lock_try(&dead, STAGE_LOCK, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA) == LKI_TAKEN,
               "the stage is not clean");
    stage->lose_wakes = false;
    stage_repair(stage, id, STAGE_LOCKS, 0);
    stage->lose_wakes = loses;
    if (word == WORD_DIED)
        probe_and_leave(sweep, STAGE_LOCK);
}

static void set_stage(struct sweep *sweep, const struct scenario *scenario)
{
    struct stage *stage = &sweep->stage;
    stage->shared->patience_ns = scenario->patience_ns;
    stage->area.patience_ns = scenario->patience_ns;
    atomic_store(&stage->shared->stopped, 0);
    atomic_store(&stage->shared->dead, 0);
    atomic_store(&stage->shared->last, 0);
    set_word(sweep, scenario->word);
    uint64_t token = lki_lock_sequence(&stage->area, STAGE_LOCK);
    if (token < atomic_load(&stage->shared->token))
        stage_violation(stage, "token fell to %llu", (unsigned long long)token);
    atomic_store(&stage->shared->token, token);
    sweep->blamed = stage->area.cold[STAGE_LOCK].recovery_token;
    for (unsigned i = 0; i < STAGE_ACTORS; i++)
        atomic_store(&stage->shared->actors[i].state, STAGE_IDLE);
}

/* The judge's marks of the victim are made here: it may die anywhere. */
static void mark_inside(struct sweep *sweep, char mode)
{
    if (mode == 'S')
        atomic_store(&sweep->stage.shared->victim_reads, 1);
    stage_enter(&sweep->stage, victim_id(sweep->victim) & LKI_SLOT_MASK, mode);
}

static void mark_outside(struct sweep *sweep, char mode)
{
    stage_leave(&sweep->stage, victim_id(sweep->victim) & LKI_SLOT_MASK, mode);
    if (mode == 'S')
        atomic_store(&sweep->stage.shared->victim_reads, 0);
}

static void mark_gone(struct sweep *sweep, uint32_t slot)
{
    struct stage_shared *shared = sweep->stage.shared;
    if (atomic_exchange(&shared->victim_reads, 0))
        atomic_fetch_sub(&shared->readers, 1);
    uint32_t updater = slot;
    (void)atomic_compare_exchange_strong(&shared->updater, &updater, 0);
    (void)atomic_compare_exchange_strong(&shared->writer, &slot, 0);
}

static void mark_before(struct sweep *sweep, const struct scenario *scenario)
{
    char mode = scenario->before == BEFORE_S ? 'S' : scenario->before == BEFORE_U ? 'U' : 'X';
    sweep->token = lki_lock_sequence(&sweep->stage.area, STAGE_LOCK);
    if (scenario->before == BEFORE_NOTHING || scenario->before == BEFORE_READ)
        return;
    mark_inside(sweep, mode);
    /* Others may come in during the call, beside what it becomes. */
    if (scenario_is_release(scenario) || scenario->call == CALL_DOWN_S ||
        scenario->call == CALL_DOWN_U)
        mark_outside(sweep, mode);
    if (scenario->call == CALL_DOWN_S)
        mark_inside(sweep, 'S');
    if (scenario->call == CALL_DOWN_U) /* its token is yet to come */
        atomic_store(&sweep->stage.shared->updater, victim_id(sweep->victim) & LKI_SLOT_MASK);
}

static void cast(struct sweep *sweep, const struct scenario *scenario)
{
    struct stage *stage = &sweep->stage;
    bool frozen = scenario->roles[0].frozen;
    /* Somebody has to hold the lock, for the frozen one to wait; the unlock reserves it for that. */
    if (frozen)
        test_check(lki_lock_try(&stage->prober, STAGE_LOCK, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA) ==
                       LKI_TAKEN,
                   "the stage is not free");
    for (unsigned i = 0; i < STAGE_ACTORS && scenario->roles[i].mode; i++) {
        stage_cast(stage, i, &scenario->roles[i]);
        if (frozen && i == 0) {
            atomic_fetch_or(&hot_of(sweep)->word, LKI_PARKED); /* it does not step by itself */
            lki_lock_release(&stage->prober, STAGE_LOCK);
        }
    }
}

/* --- The death --- */

static enum tracer_end run(struct sweep *sweep, pid_t pid, enum sweep_at at,
                           const struct path_point *point, struct path *path)
{
    static struct path_range text;
    if (text.begin == 0)
        text = tracer_own_text();
    switch (at) {
    case SWEEP_AT_START:
        return TRACER_REACHED;
    case SWEEP_AT_POINT:
    case SWEEP_PAST_POINT:
        return tracer_run_to(pid, point);
    case SWEEP_AT_POINT_STEPPED:
        sweep->stepped++;
        return tracer_step_to(pid, point);
    case SWEEP_IN_SLEEP:
        return tracer_run_to_sleep(pid);
    case SWEEP_RECORD:
        tracer_record(pid, &text, path);
        break;
    case SWEEP_AT_END:
        tracer_continue(pid);
        tracer_await_stop(pid);
        break;
    }
    return TRACER_FINISHED;
}

/* In between somebody waits for nobody, or runs: a little of the time of a random victim. */
static void dally(struct sweep *sweep)
{
    for (uint64_t i = test_random_below(&sweep->random, 3000); i > 0; i--)
        atomic_signal_fence(memory_order_seq_cst);
}

static struct remains kill_it(struct sweep *sweep, const struct scenario *scenario, pid_t pid,
                              enum tracer_end end)
{
    struct remains remains = {.slot = victim_id(sweep->victim) & LKI_SLOT_MASK,
                              .finished = end == TRACER_FINISHED};
    int result = victim_result(sweep->victim);
    bool acquires = scenario_is_acquire(scenario) || scenario_is_upgrade(scenario);
    if (remains.finished && acquires && result >= 0) {
        remains.acquired = true;
        if (scenario_is_upgrade(scenario))
            mark_outside(sweep, 'U');
        mark_inside(sweep, scenario_mode(scenario));
        if ((result == LK_ACQUIRED_OWNER_DIED) != scenario_died_meanwhile(scenario))
            stage_violation(&sweep->stage, "owner-died: the victim was told %d", result);
    }
    tracer_kill(pid);
    uint32_t word = atomic_load(&hot_of(sweep)->word);
    remains.sequence = lki_lock_sequence(&sweep->stage.area, STAGE_LOCK);
    remains.owns = (word & LKI_ID_MASK) == victim_id(sweep->victim);
    remains.updates = remains.owns && word & LKI_UPDATE;
    remains.drains =
        remains.owns && scenario_is_upgrade(scenario) && remains.sequence == sweep->token;
    sweep->updates += remains.updates;
    remains.died = remains.owns ? remains.sequence & 1 : (word & LKI_DIED) != 0;
    sweep->biased += remains.owns && word & LKI_BIASED;
    return remains;
}

static void announce_death(struct sweep *sweep)
{
    stage_announce(&sweep->stage.shared->stopped);
    stage_announce(&sweep->stage.shared->dead);
}

/* It stands still, and others come and do what they can. */
static void let_come(struct sweep *sweep)
{
    stage_announce(&sweep->stage.shared->stopped);
    sweep->stuck = !stage_settle(&sweep->stage);
}

/* The victim lives, and keeps no reader out: whoever slept when it came or was exclusive has been woken. The
 * death would hide that, since the repair wakes everybody. */
static void check_sleepers(struct sweep *sweep, const struct scenario *scenario)
{
    struct stage *stage = &sweep->stage;
    if (!scenario->update || !stage_settle(stage))
        return;
    uint32_t word = atomic_load(&hot_of(sweep)->word);
    if (lki_word_excludes_readers(word) || word & LKI_FAIR)
        return;
    for (unsigned i = 0; i < STAGE_ACTORS && scenario->roles[i].mode; i++)
        if (scenario->roles[i].mode == 'S' &&
            atomic_load(&stage->shared->actors[i].state) == STAGE_WAITING)
            stage_violation(stage, "stuck: reader %u sleeps beside a word that is open: %#x", i,
                            word);
}

/* It goes on to the end of its call. If it holds nothing then, nobody needs its death to go on too. */
static void go_on(struct sweep *sweep, const struct scenario *scenario, pid_t pid)
{
    struct stage *stage = &sweep->stage;
    if (!tracer_finish(pid)) {
        stage_violation(stage, "stuck: the victim's call never ends");
        stage_show(stage);
        sweep->stuck = true;
        return;
    }
    sweep->past++;
    if (scenario_holds_at_end(scenario, victim_result(sweep->victim) >= 0))
        return;
    announce_death(sweep); /* as far as the others are concerned */
    stage_announce(&stage->shared->last);
    sweep->stuck = !stage_await_all(stage);
}

static void check_remains(struct sweep *sweep, const struct scenario *scenario, enum sweep_at at,
                          const struct remains *remains)
{
    struct stage *stage = &sweep->stage;
    struct stage_shared *shared = stage->shared;
    sweep->inside += remains->owns;
    sweep->damaged += remains->owns && remains->died;
    if (at == SWEEP_AT_START && remains->died != scenario_died_at_start(scenario))
        stage_violation(stage, "owner-died: the sequence is wrong before the call");
    if (remains->finished && remains->died != scenario_died_at_end(scenario, remains->acquired))
        stage_violation(stage, "owner-died: the sequence is wrong after the call");
    if (!remains->owns && remains->died != scenario_died_meanwhile(scenario))
        stage_violation(stage, "owner-died: the word says %d, and no owner has died",
                        remains->died);
    uint32_t readers = atomic_load(&shared->readers) - atomic_load(&shared->victim_reads);
    uint32_t writer = atomic_load(&shared->writer);
    uint32_t updater = atomic_load(&shared->updater);
    if (remains->owns && remains->died && !scenario_died_meanwhile(scenario) &&
        ((writer != 0 && writer != remains->slot) || readers != 0))
        stage_violation(stage, "double grant: slot %u writes and %u read beside the victim", writer,
                        readers);
    if (remains->owns && updater != 0 && updater != remains->slot)
        stage_violation(stage, "double grant: slot %u is for update beside the victim", updater);
}

/* --- After --- */

static void plant_before(struct sweep *sweep)
{
    sweep->stage.lose_wakes = sweep->planted == BREAK_WAKE;
    uint32_t word = atomic_load(&hot_of(sweep)->word);
    /* The owner lives, if it is one of the crowd; others come in beside it. */
    if (sweep->planted == BREAK_ALIVE && (word & LKI_ID_MASK) != 0)
        atomic_fetch_and(&hot_of(sweep)->word, ~LKI_ID_MASK);
    if (sweep->planted == BREAK_UPDATE && (word & LKI_ID_MASK) == victim_id(sweep->victim))
        atomic_fetch_and(&hot_of(sweep)->word, ~LKI_UPDATE);
}

static void plant_after(struct sweep *sweep, const struct remains *remains, uint32_t cell)
{
    struct lki_lock_hot *hot = hot_of(sweep);
    struct lki_attachment *victim =
        lki_area_attachment(&sweep->stage.area, victim_id(sweep->victim));
    sweep->stage.lose_wakes = false;
    if (sweep->planted == BREAK_DIED && remains->owns)
        atomic_fetch_and(&hot->word, ~LKI_DIED);
    if (sweep->planted == BREAK_TOLD && remains->owns)
        atomic_fetch_or(&hot->word, LKI_DIED);
    if (sweep->planted == BREAK_SLOT)
        atomic_store(&victim->id, victim_id(sweep->victim));
    if (sweep->planted == BREAK_TOKEN && remains->owns)
        atomic_fetch_sub(&hot->sequence, 4);
    if (sweep->planted == BREAK_CELL)
        atomic_store(&victim->cells[0], cell);
    if (sweep->planted == BREAK_BIAS && remains->owns)
        atomic_fetch_and(&hot->word, ~LKI_BIASED);
}

static void check_record(struct sweep *sweep, const struct remains *remains)
{
    struct stage *stage = &sweep->stage;
    const struct lki_lock_cold *cold = &stage->area.cold[STAGE_LOCK];
    if (!remains->owns || !remains->died)
        return;
    /* An owner for update wrote nothing. One that drains did not either, but the repair cannot tell. */
    bool ours = cold->recovery_token == remains->sequence;
    bool older = cold->recovery_token == sweep->blamed;
    if (remains->updates ? !older : !ours && !(remains->drains && older))
        stage_violation(stage, "record: the token is %llu, after %llu and %llu",
                        (unsigned long long)cold->recovery_token, (unsigned long long)sweep->blamed,
                        (unsigned long long)remains->sequence);
    bool first = cold->recovery_dirty_offset == 1000 && cold->recovery_dirty_length == 1;
    bool second = cold->recovery_dirty_offset == 100 && cold->recovery_dirty_length == 28;
    if (cold->recovery_declared && !first && !second)
        stage_violation(stage, "record: half of a declaration");
}

/* Whoever got the lock after the death is told what the sequence said; and before it, what it was. */
static void check_actors(struct sweep *sweep, const struct scenario *scenario,
                         const struct remains *remains)
{
    struct stage *stage = &sweep->stage;
    for (unsigned i = 0; i < STAGE_ACTORS && scenario->roles[i].mode; i++) {
        const struct stage_actor *actor = &stage->shared->actors[i];
        bool after = remains->owns && actor->token >= remains->sequence;
        bool expected = after ? remains->died : scenario_died_meanwhile(scenario);
        if (actor->died != expected)
            stage_violation(stage, "owner-died: actor %u was told %d instead of %d", i, actor->died,
                            expected);
    }
}

static void check_slot(struct sweep *sweep)
{
    struct stage *stage = &sweep->stage;
    const struct lki_attachment *victim =
        lki_area_attachment(&stage->area, victim_id(sweep->victim));
    bool empty = atomic_load(&victim->id) == 0 && atomic_load(&victim->wait) == 0;
    for (unsigned i = 0; i < LKI_SHARED_HOLDS_MAX; i++)
        empty = empty && atomic_load(&victim->cells[i]) == 0;
    if (!empty)
        stage_violation(stage, "slot: id %#x does not come back", victim_id(sweep->victim));
}

/* Somebody reads, so that a try must not succeed. */
static void probe_beside(struct sweep *sweep)
{
    struct stage *stage = &sweep->stage;
    if (lki_lock_try(&stage->prober, STAGE_LOCK, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA) == LKI_BUSY)
        return;
    stage_enter(stage, STAGE_SLOT_PROBER, 'X'); /* which says so */
    stage_leave(stage, STAGE_SLOT_PROBER, 'X');
    lki_lock_release(&stage->prober, STAGE_LOCK);
}

/* The repair is over, and those who stay have not gone yet. */
static void go_last(struct sweep *sweep, const struct scenario *scenario)
{
    struct stage *stage = &sweep->stage;
    if (scenario->bias && !stage_settle(stage)) {
        sweep->stuck = true;
        return;
    }
    /* A try that fails wakes others: not always. */
    if (scenario->bias && atomic_load(&stage->shared->readers) != 0 &&
        test_random_next(&sweep->random) & 1)
        probe_beside(sweep);
    stage_announce(&stage->shared->last);
}

/* Everybody has gone, so that a try has to succeed at once. */
static void probe(struct sweep *sweep, uint32_t lock, bool died)
{
    struct lki_party *prober = &sweep->stage.prober;
    struct stage *stage = &sweep->stage;
    enum lki_verdict verdict = lki_lock_try(prober, lock, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA);
    if (verdict != LKI_TAKEN && verdict != LKI_TAKEN_DIED) {
        stage_violation(stage, "stuck: the prober's try of lock %u gives %d", lock, (int)verdict);
        stage_show(stage);
        sweep->stuck = true;
        return;
    }
    if ((verdict == LKI_TAKEN_DIED) != died)
        stage_violation(stage, "owner-died: the prober was told %d instead of %d",
                        verdict == LKI_TAKEN_DIED, died);
    if (lock == STAGE_LOCK) {
        stage_enter(stage, STAGE_SLOT_PROBER, 'X');
        stage_leave(stage, STAGE_SLOT_PROBER, 'X');
    }
    lki_lock_mark_consistent(prober, lock, LKI_HOLD_DATA);
    lki_lock_release(prober, lock);
    if (lki_lock_try(prober, lock, LKI_MODE_SHARED, LKI_HOLD_DATA) != LKI_TAKEN ||
        lki_lock_release(prober, lock) != LKI_RELEASED ||
        lki_lock_try(prober, lock, LKI_MODE_UPDATE, LKI_HOLD_DATA) != LKI_TAKEN ||
        lki_lock_upgrade_try(prober, lock, LKI_HOLD_DATA) != LKI_TAKEN ||
        lki_lock_release(prober, lock) != LKI_RELEASED)
        stage_violation(stage, "stuck: the lock %u does not work any more", lock);
    uint32_t word = atomic_load(&stage->area.hot[lock].word);
    if (word != 0 || lki_lock_sequence(&stage->area, lock) & 1)
        stage_violation(stage, "word: %#x is left of lock %u", word, lock);
}

/* A reader that is not seen yet keeps the prober out. */
static void probe_bias(struct sweep *sweep)
{
    static const struct stage_role reads = {.mode = 'S',
                                            .holds = true,
                                            .fenceless = true,
                                            .unseen = true,
                                            .stays = true,
                                            .when = STAGE_VICTIM_DEAD};
    struct stage *stage = &sweep->stage;
    struct lki_party *prober = &stage->prober;
    atomic_store(&stage->shared->last, 0);
    (void)lki_lock_try(prober, STAGE_LOCK, LKI_MODE_SHARED, LKI_HOLD_DATA);
    lki_lock_bias(prober, STAGE_LOCK);
    lki_lock_release(prober, STAGE_LOCK);
    stage_cast(stage, 0, &reads);
    if (!reader_keeps(&stage->shared->actors[0]))
        stage_violation(stage, "bias: a reader needs a fence again");
    probe_beside(sweep);
    stage_announce(&stage->shared->last);
    sweep->stuck = sweep->stuck || !stage_await_all(stage);
    if (!sweep->stuck)
        probe(sweep, STAGE_LOCK, false);
}

static void repair(struct sweep *sweep, const struct remains *remains)
{
    uint64_t choice = test_random_next(&sweep->random);
    bool early = choice & 1; /* holders go while it is repaired, or afterwards */
    uint32_t slice = choice & 2 ? 1 : STAGE_LOCKS;
    uint32_t restart_after = (uint32_t)(choice >> 2) % 4;
    const struct lki_attachment *victim =
        lki_area_attachment(&sweep->stage.area, victim_id(sweep->victim));
    uint32_t cell = atomic_load(&victim->cells[0]);
    plant_before(sweep);
    if (early)
        announce_death(sweep);
    stage_repair(&sweep->stage, victim_id(sweep->victim), slice, restart_after);
    check_record(sweep, remains);
    plant_after(sweep, remains, cell);
    announce_death(sweep);
}

void sweep_kill(struct sweep *sweep, const struct scenario *scenario, enum sweep_at at,
                const struct path_point *point, struct path *path)
{
    set_stage(sweep, scenario);
    bool slow = at == SWEEP_RECORD || at == SWEEP_AT_POINT_STEPPED;
    pid_t pid = victim_start(sweep->victim, scenario, slow);
    mark_before(sweep, scenario);
    cast(sweep, scenario);
    enum tracer_end end = run(sweep, pid, at, point, path);
    if (at == SWEEP_IN_SLEEP && end == TRACER_REACHED)
        dally(sweep);
    bool stands = scenario->bias && at == SWEEP_AT_POINT && test_random_next(&sweep->random) & 1;
    if (end == TRACER_REACHED && (stands || at == SWEEP_PAST_POINT))
        let_come(sweep);
    if (end == TRACER_REACHED && at == SWEEP_PAST_POINT && !sweep->stuck) {
        go_on(sweep, scenario, pid);
        check_sleepers(sweep, scenario);
        end = TRACER_FINISHED;
    }
    if (at == SWEEP_AT_END && !scenario->bias)
        check_sleepers(sweep, scenario);
    struct remains remains = kill_it(sweep, scenario, pid, end);
    if (at != SWEEP_RECORD) {
        bool meant = end == TRACER_REACHED || at == SWEEP_AT_END || at == SWEEP_PAST_POINT;
        sweep->reached += meant;
        sweep->ended += !meant;
        sweep->in_sleep += at == SWEEP_IN_SLEEP && meant;
    }
    check_remains(sweep, scenario, at, &remains);
    mark_gone(sweep, remains.slot);
    if (sweep->stuck)
        return;
    repair(sweep, &remains);
    go_last(sweep, scenario);
    sweep->stuck = sweep->stuck || !stage_await_all(&sweep->stage);
    if (sweep->stuck)
        return;
    check_actors(sweep, scenario, &remains);
    check_slot(sweep);
    probe(sweep, STAGE_LOCK, remains.died);
    if (!sweep->stuck && scenario->bias)
        probe_bias(sweep);
    if (!sweep->stuck && scenario->more_held) {
        probe(sweep, STAGE_LOCK_X, true);
        probe(sweep, STAGE_LOCK_S, false);
    }
}
