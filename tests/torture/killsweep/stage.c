/* SPDX-License-Identifier: MIT */
#include "stage.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/repair.h"
#include "engine/scan.h"
#include "engine/wait.h"
#include "reader.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define STUCK_NS (20 * LKI_NS_PER_S)

/* --- Futexes --- */

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void futex_sleep(_Atomic uint32_t *word, uint32_t value, const struct timespec *limit)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, limit, NULL, 0);
}

void stage_wake(void *user, uint32_t slot, bool brokered)
{
    struct stage *stage = user;
    struct lki_attachment *attachment = lki_area_attachment(&stage->area, slot);
    (void)brokered;
    if (attachment && !stage->lose_wakes)
        futex_wake(&attachment->futex);
}

/* --- The judge --- */

void stage_violation(struct stage *stage, const char *format, ...)
{
    char text[400];
    va_list arguments;
    atomic_fetch_add(&stage->shared->violations, 1);
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "violation: %s\n", text);
}

static void enter_shared(struct stage *stage, uint32_t slot)
{
    struct stage_shared *shared = stage->shared;
    uint64_t last = atomic_load(&shared->token); /* first: one for update raises it beside us */
    uint64_t token = lki_lock_sequence(&stage->area, STAGE_LOCK);
    atomic_fetch_add(&shared->readers, 1);
    uint32_t writer = atomic_load(&shared->writer);
    if (writer != 0)
        stage_violation(stage, "double grant: slot %u reads while slot %u writes", slot, writer);
    if (token < last)
        stage_violation(stage, "token fell to %llu", (unsigned long long)token);
}

static void enter_update(struct stage *stage, uint32_t slot)
{
    struct stage_shared *shared = stage->shared;
    uint32_t other = atomic_exchange(&shared->updater, slot);
    uint32_t writer = atomic_load(&shared->writer);
    if (other != 0 || writer != 0)
        stage_violation(stage, "double grant: slot %u is for update beside slot %u, slot %u writes",
                        slot, other, writer);
}

static void enter_exclusive(struct stage *stage, uint32_t slot)
{
    struct stage_shared *shared = stage->shared;
    uint32_t other = atomic_exchange(&shared->writer, slot);
    uint32_t updater = atomic_load(&shared->updater);
    uint32_t readers = atomic_load(&shared->readers);
    if (other != 0 || updater != 0 || readers != 0)
        stage_violation(stage,
                        "double grant: slot %u writes while slot %u writes, slot %u is for update "
                        "and %u read",
                        slot, other, updater, readers);
}

void stage_enter(struct stage *stage, uint32_t slot, char mode)
{
    struct stage_shared *shared = stage->shared;
    if (mode == 'S') {
        enter_shared(stage, slot);
        return;
    }
    if (mode == 'U')
        enter_update(stage, slot);
    else
        enter_exclusive(stage, slot);
    uint64_t token = lki_lock_sequence(&stage->area, STAGE_LOCK);
    uint64_t before = atomic_exchange(&shared->token, token);
    if (token <= before)
        stage_violation(stage, "token does not rise: %llu after %llu", (unsigned long long)token,
                        (unsigned long long)before);
}

void stage_leave(struct stage *stage, uint32_t slot, char mode)
{
    struct stage_shared *shared = stage->shared;
    if (mode == 'S')
        atomic_fetch_sub(&shared->readers, 1);
    else if (atomic_exchange(mode == 'U' ? &shared->updater : &shared->writer, 0) != slot)
        stage_violation(stage, "double grant: somebody took the place of slot %u", slot);
}

/* --- Actors --- */

static void set_state(struct stage *stage, struct stage_actor *actor, enum stage_state state)
{
    atomic_store(&actor->state, state);
    atomic_fetch_add(&stage->shared->events, 1);
    futex_wake(&stage->shared->events);
}

static bool victim_is(const struct stage *stage, enum stage_when when)
{
    const struct stage_shared *shared = stage->shared;
    const struct lki_attachment *victim = lki_area_attachment(&stage->area, shared->victim_id);
    uint64_t fact = atomic_load(&victim->wait);
    uint32_t word = atomic_load(&stage->area.hot[STAGE_LOCK].word);
    bool drains = lki_wait_is(fact, LKI_WAIT_DRAINING, STAGE_LOCK);
    bool waits = drains || (lki_wait_is(fact, LKI_WAIT_QUEUED, STAGE_LOCK) && word & LKI_PARKED);
    switch (when) {
    case STAGE_AT_ONCE:
        return true;
    case STAGE_VICTIM_WAITS:
        return waits;
    case STAGE_VICTIM_SLEEPS:
        return waits && test_process_state((pid_t)atomic_load(&shared->victim_pid)) == 'S';
    case STAGE_VICTIM_STANDS:
        return victim_is(stage, STAGE_VICTIM_STOPS) || victim_is(stage, STAGE_VICTIM_SLEEPS);
    case STAGE_VICTIM_SEEN:
        return fact != LKI_WAIT_NONE || (word & LKI_ID_MASK) == shared->victim_id;
    case STAGE_VICTIM_STOPS:
        return atomic_load(&shared->stopped);
    case STAGE_VICTIM_DEAD:
        break;
    }
    return false;
}

/* Facts in shared memory make no event for a bystander: this looks at them all the time, as long as
 * a call of the victim lasts; and sleeps if all that it waits for is the end. */
static void await_victim(struct stage *stage, struct stage_actor *actor, enum stage_when when,
                         _Atomic uint32_t *end)
{
    while (!atomic_load(end) && !victim_is(stage, when)) {
        reader_serve(stage, actor);
        if (when == STAGE_VICTIM_DEAD && !reader_keeps(actor))
            futex_sleep(end, 0, NULL);
        else
            sched_yield();
    }
}

static void await_role(struct stage *stage, struct stage_actor *actor)
{
    struct stage_shared *shared = stage->shared;
    await_victim(stage, actor, actor->role.when, actor->role.stays ? &shared->last : &shared->dead);
}

static enum lki_mode mode_of(char letter)
{
    return letter == 'S' ? LKI_MODE_SHARED : letter == 'U' ? LKI_MODE_UPDATE : LKI_MODE_EXCLUSIVE;
}

static void be_inside(struct stage *stage, struct stage_actor *actor, enum lki_verdict verdict)
{
    actor->died = verdict == LKI_TAKEN_DIED;
    actor->token = lki_lock_sequence(&stage->area, STAGE_LOCK);
    stage_enter(stage, actor->id & LKI_SLOT_MASK, actor->role.mode);
}

static void go_out(struct stage *stage, struct stage_actor *actor, struct lki_party *party)
{
    stage_leave(stage, actor->id & LKI_SLOT_MASK, actor->role.mode);
    enum lki_verdict verdict = actor->role.fenceless ? reader_release(stage, actor, party)
                                                     : lki_lock_release(party, STAGE_LOCK);
    if (verdict != LKI_RELEASED)
        stage_violation(stage, "slot %u holds the lock no more", actor->id & LKI_SLOT_MASK);
}

static void hold(struct stage *stage, struct stage_actor *actor, struct lki_party *party)
{
    if (actor->role.late) {
        set_state(stage, actor, STAGE_HIDDEN);
        await_victim(stage, actor, STAGE_VICTIM_STOPS, &stage->shared->dead);
    }
    enum lki_verdict verdict =
        actor->role.fenceless
            ? reader_take(stage, actor, party)
            : lki_lock_try(party, STAGE_LOCK, mode_of(actor->role.mode), LKI_HOLD_DATA);
    if (verdict == LKI_BUSY && actor->role.late)
        return;
    test_check(verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED, "verdict %d", (int)verdict);
    be_inside(stage, actor, verdict);
    set_state(stage, actor, STAGE_HOLDING);
    await_role(stage, actor);
    go_out(stage, actor, party);
}

static void wait_in_queue(struct stage *stage, struct stage_actor *actor, struct lki_party *party)
{
    struct lki_wait wait;
    struct lki_sleep nap;
    if (!actor->role.frozen && actor->role.when != STAGE_AT_ONCE) {
        set_state(stage, actor, STAGE_HIDDEN);
        await_role(stage, actor);
    }
    enum lki_mode mode = mode_of(actor->role.mode);
    enum lki_verdict verdict = lki_lock_try(party, STAGE_LOCK, mode, LKI_HOLD_DATA);
    if (verdict == LKI_BUSY)
        verdict = lki_wait_begin(&wait, party, STAGE_LOCK, mode, LKI_HOLD_DATA, lki_clock_now_ns(),
                                 LKI_TIME_NEVER);
    if (actor->role.frozen) {
        set_state(stage, actor, STAGE_WAITING);
        await_role(stage, actor);
    }
    while (verdict == LKI_SLEEP) {
        verdict = lki_wait_step(&wait, lki_clock_now_ns(), &nap);
        if (verdict != LKI_SLEEP)
            break;
        set_state(stage, actor, STAGE_WAITING);
        futex_sleep(nap.futex, nap.futex_value, NULL); /* not until nap.until_ns: see stage.h */
    }
    test_check(verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED, "verdict %d", (int)verdict);
    be_inside(stage, actor, verdict);
    go_out(stage, actor, party);
}

struct actor_start {
    struct stage *stage;
    unsigned index;
};

static int be_actor(void *arg)
{
    const struct actor_start *start = arg;
    struct stage *stage = start->stage;
    struct stage_actor *actor = &stage->shared->actors[start->index];
    struct lki_party party;
    test_check(lki_party_init(&party, &stage->area, actor->id, stage_wake, stage), "no slot");
    party.barrier = reader_barrier;
    for (uint32_t seen = 0;; seen++) {
        while (atomic_load(&actor->order) == seen)
            futex_sleep(&actor->order, seen, NULL);
        stage->area.patience_ns = stage->shared->patience_ns;
        if (actor->role.holds)
            hold(stage, actor, &party);
        else
            wait_in_queue(stage, actor, &party);
        set_state(stage, actor, STAGE_DONE);
    }
}

/* --- The driver's side --- */

static bool await_state(struct stage *stage, const struct stage_actor *actor, bool settled)
{
    static const struct timespec look_again = {.tv_nsec = 100000000};
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    for (;;) {
        uint32_t seen = atomic_load(&stage->shared->events);
        uint32_t state = atomic_load(&actor->state);
        if (settled ? state != STAGE_WORKING : state == STAGE_DONE || state == STAGE_IDLE)
            return true;
        if (lki_clock_now_ns() > deadline_ns)
            return false;
        futex_sleep(&stage->shared->events, seen, &look_again);
    }
}

void stage_cast(struct stage *stage, unsigned number, const struct stage_role *role)
{
    struct stage_actor *actor = &stage->shared->actors[number];
    actor->role = *role;
    actor->died = false;
    actor->token = 0;
    atomic_store(&actor->state, STAGE_WORKING);
    atomic_fetch_add(&actor->order, 1);
    futex_wake(&actor->order);
    test_check(await_state(stage, actor, true), "actor %u does not come", number);
}

void stage_announce(_Atomic uint32_t *what)
{
    atomic_store(what, 1);
    futex_wake(what);
}

static bool is_settled(const struct stage *stage, unsigned number)
{
    const struct stage_actor *actor = &stage->shared->actors[number];
    const struct stage_role *role = &actor->role;
    bool dead = atomic_load(&stage->shared->dead);
    switch (atomic_load(&actor->state)) {
    case STAGE_IDLE:
    case STAGE_DONE:
    case STAGE_HOLDING:
        return true;
    case STAGE_HIDDEN:
        return !dead && !role->late && role->when != STAGE_VICTIM_STOPS;
    case STAGE_WAITING:
        return test_process_state(stage->pids[number]) == 'S';
    default:
        return false;
    }
}

bool stage_settle(struct stage *stage)
{
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    uint32_t seen;
    bool settled;
    do {
        settled = true;
        seen = atomic_load(&stage->shared->events);
        for (unsigned i = 0; i < STAGE_ACTORS && settled; i++)
            settled = is_settled(stage, i);
        if (lki_clock_now_ns() > deadline_ns) {
            stage_violation(stage, "stuck: somebody neither sleeps nor ends");
            stage_show(stage);
            return false;
        }
        if (!settled)
            sched_yield();
    } while (!settled || seen != atomic_load(&stage->shared->events));
    return true;
}

bool stage_await_all(struct stage *stage)
{
    for (unsigned i = 0; i < STAGE_ACTORS; i++) {
        if (await_state(stage, &stage->shared->actors[i], false))
            continue;
        stage_violation(stage, "stuck: actor %u never ends", i);
        stage_show(stage);
        return false;
    }
    return true;
}

void stage_repair(struct stage *stage, uint32_t id, uint32_t slice, uint32_t restart_after)
{
    const struct lki_death death = {.pid = (int32_t)atomic_load(&stage->shared->victim_pid),
                                    .cause = LKI_CAUSE_EXITED,
                                    .when_ns = lki_clock_now_ns(),
                                    .command = "victim"};
    struct lki_repair repair;
    lki_repair_begin(&repair, &stage->area, id);
    for (uint32_t steps = 1; !lki_repair_step(&repair, &death, slice, stage_wake, stage); steps++)
        if (steps == restart_after)
            lki_repair_begin(&repair, &stage->area, id); /* as after the death of a worker */
}

void stage_show(const struct stage *stage)
{
    const struct stage_shared *shared = stage->shared;
    struct lki_lock_state state;
    lki_lock_look(&stage->area, STAGE_LOCK, &state);
    fprintf(stderr,
            "word %#x sequence %llu; victim %#x; inside: writer %u, for update %u, readers %u\n",
            state.word, (unsigned long long)state.sequence, shared->victim_id,
            atomic_load(&shared->writer), atomic_load(&shared->updater),
            atomic_load(&shared->readers));
    for (uint32_t slot = 1; slot <= STAGE_SLOTS; slot++) {
        const struct lki_attachment *at = &stage->area.attachments[slot];
        fprintf(stderr, "slot %u: id %#x wait %#llx futex %#x reads %d", slot, atomic_load(&at->id),
                (unsigned long long)atomic_load(&at->wait), atomic_load(&at->futex),
                lki_attachment_reads(at, STAGE_LOCK));
        if (slot >= STAGE_SLOT_ACTOR && slot < STAGE_SLOT_ACTOR + STAGE_ACTORS)
            fprintf(stderr, " state %u",
                    atomic_load(&shared->actors[slot - STAGE_SLOT_ACTOR].state));
        fputc('\n', stderr);
    }
}

static void make_area(struct stage *stage)
{
    const struct lki_area_config config = {
        .locks = STAGE_LOCKS,
        .attachments_max = STAGE_SLOTS,
        .patience_ns = LKI_PATIENCE_DEFAULT_NS,
        .sequence_start = UINT64_C(7) << 32,
        .state = LKI_SEGMENT_PUBLISHED,
        .bias = true,
    };
    uint64_t bytes = lki_area_bytes(config.locks, config.attachments_max);
    stage->area_fd = memfd_create("killsweep", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    test_check(stage->area_fd >= 0 && ftruncate(stage->area_fd, (off_t)bytes) == 0 &&
                   fcntl(stage->area_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0,
               "memfd");
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, stage->area_fd, 0);
    test_check(base != MAP_FAILED, "mmap");
    test_check(lki_area_format(base, &config, &stage->area) == 0, "format");
}

void stage_init(struct stage *stage)
{
    stage->shared = test_shared(sizeof(*stage->shared));
    make_area(stage);
    stage->shared->patience_ns = LKI_PATIENCE_DEFAULT_NS;
    uint32_t id = lki_attachment_open(&stage->area, STAGE_SLOT_PROBER, 1, 0);
    test_check(lki_party_init(&stage->prober, &stage->area, id, stage_wake, stage), "no slot");
    stage->prober.barrier = reader_barrier;
    for (unsigned i = 0; i < STAGE_ACTORS; i++) {
        static struct actor_start start;
        stage->shared->actors[i].id = lki_attachment_open(&stage->area, STAGE_SLOT_ACTOR + i, 1, 0);
        start = (struct actor_start){.stage = stage, .index = i};
        stage->pids[i] = test_spawn(be_actor, &start);
    }
}

void stage_deinit(struct stage *stage)
{
    for (unsigned i = 0; i < STAGE_ACTORS; i++)
        test_kill(stage->pids[i]);
    (void)munmap(stage->area.header, stage->area.area_bytes);
    (void)close(stage->area_fd);
}
