/* SPDX-License-Identifier: MIT */
/* The engine on a hostile control area: somebody writes anything anywhere, between the calls and at
 * any step inside them, while parties lock, wait and release and the broker repairs, resumes and
 * looks. No call runs on for ever, none touches memory outside of the area (which lies between the
 * sanitizer's red zones, beside another that may not change), and none tells its driver to wake or to
 * sleep on what is not there. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "engine/fast.h"
#include "engine/layout.h"
#include "engine/repair.h"
#include "engine/resume.h"
#include "engine/step.h"
#include "engine/wait.h"
#include "fuzz.h"
#include "scribble.h"

#define LOCKS 5u
#define SLOTS 5u
#define CALLS_MAX 400
#define STEPS_MAX 100000u /* of one call */

static struct {
    struct fuzz_input *input;
    void *base;
    void *neighbour, *neighbour_was;
    struct lki_area area;
    struct lki_party parties[SLOTS + 1]; /* by slot; 0 is not used */
    struct lki_wait waits[SLOTS + 1];
    struct lki_repair repair;
    bool repairing;
    uint64_t now_ns;
    uint64_t steps;
    uint32_t scribble_in; /* steps; 0: not */
    uint32_t barriers;
} field;

static void on_step(const char *name)
{
    (void)name;
    FUZZ_CHECK(++field.steps < STEPS_MAX, "a call does not end");
    if (field.scribble_in > 0 && --field.scribble_in == 0) {
        fuzz_scribble(field.input, &field.area);
        field.scribble_in = fuzz_below(field.input, 16);
    }
}

static void on_wake(void *user, uint32_t slot, bool brokered)
{
    (void)brokered;
    FUZZ_CHECK(user == &field && slot >= 1 && slot <= SLOTS, "slot %u is woken", slot);
}

/* Of four one cannot be made. */
static bool on_barrier(void *user)
{
    FUZZ_CHECK(user == &field);
    return ++field.barriers % 4 != 0;
}

static void init_party(uint32_t slot, uint32_t id)
{
    struct lki_party *party = &field.parties[slot];
    FUZZ_CHECK(lki_party_init(party, &field.area, id, on_wake, &field));
    party->barrier = on_barrier;
}

static void check_sleep(const struct lki_sleep *sleep, const struct lki_party *party)
{
    FUZZ_CHECK(sleep->futex == &party->self->futex, "it sleeps on somebody else's futex");
    FUZZ_CHECK(sleep->until_ns >= field.now_ns, "its sleep ends before it begins");
    FUZZ_CHECK((sleep->owner & ~LKI_ID_MASK) == 0);
}

static void step_wait(struct lki_wait *wait, enum lki_verdict verdict)
{
    struct lki_sleep sleep;
    if (verdict == LKI_SLEEP && lki_wait_step(wait, field.now_ns, &sleep) == LKI_SLEEP)
        check_sleep(&sleep, wait->party);
}

static void take_shared_fast(struct lki_party *party, uint8_t how, uint32_t lock)
{
    if (!(how & 2) && lki_fast_take_fenceless(party, lock))
        return;
    if (lki_fast_take_shared(party, lock) && !(how & 4))
        lki_lock_bias(party, lock);
}

static void take(struct lki_party *party, struct lki_wait *wait, uint8_t how, uint32_t lock,
                 bool update)
{
    enum lki_mode mode = update ? LKI_MODE_UPDATE : how & 1 ? LKI_MODE_EXCLUSIVE : LKI_MODE_SHARED;
    enum lki_hold hold = how & 2 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    uint64_t deadline_ns = how & 4 ? field.now_ns + (how >> 4) * LKI_NS_PER_MS : LKI_TIME_NEVER;
    if (wait->phase != LKI_WAIT_PHASE_ENDED)
        step_wait(wait, LKI_SLEEP);
    else if (how & 8 && mode == LKI_MODE_EXCLUSIVE)
        (void)lki_fast_take_exclusive(party, lock, hold);
    else if (how & 8 && mode == LKI_MODE_SHARED)
        take_shared_fast(party, how, lock);
    else if (lki_lock_try(party, lock, mode, hold) == LKI_BUSY)
        step_wait(wait, lki_wait_begin(wait, party, lock, mode, hold, field.now_ns, deadline_ns));
}

static void change(struct lki_party *party, struct lki_wait *wait, uint8_t how, uint32_t lock)
{
    enum lki_hold hold = how & 8 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    uint64_t deadline_ns = how & 4 ? field.now_ns + (how >> 4) * LKI_NS_PER_MS : LKI_TIME_NEVER;
    if (wait->phase != LKI_WAIT_PHASE_ENDED)
        return;
    switch (how & 3) {
    case 0:
        (void)lki_lock_upgrade_try(party, lock, hold);
        break;
    case 1:
        step_wait(wait, lki_wait_begin_upgrade(wait, party, lock, hold, field.now_ns, deadline_ns));
        break;
    case 2:
        (void)lki_lock_downgrade(party, lock, LKI_MODE_UPDATE);
        break;
    default:
        (void)lki_lock_downgrade(party, lock, LKI_MODE_SHARED);
        break;
    }
}

/* What the broker does for a driver that died: a fresh party, and on from what stands there. */
static void resume(uint32_t slot, uint8_t how, uint32_t lock)
{
    struct lki_party *party = &field.parties[slot];
    struct lki_wait *wait = &field.waits[slot];
    init_party(slot, party->id);
    *wait = (struct lki_wait){.phase = LKI_WAIT_PHASE_ENDED};
    step_wait(wait,
              lki_wait_resume(wait, party, lock, how & 1 ? LKI_MODE_EXCLUSIVE : LKI_MODE_SHARED,
                              how & 2 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA, field.now_ns,
                              how & 4 ? field.now_ns : LKI_TIME_NEVER));
    if (how & 8)
        lki_wake_waiters(&field.area, on_wake, &field);
}

static void repair(uint32_t slot, uint8_t how)
{
    const struct lki_death death = {.pid = 7,
                                    .uid = 1000,
                                    .cause = how & 3 ? LKI_CAUSE_EXITED : LKI_CAUSE_CLOSED,
                                    .when_ns = 9};
    if (!field.repairing)
        lki_repair_begin(&field.repair, &field.area, field.parties[slot].id);
    field.repairing = !lki_repair_step(&field.repair, &death, 1 + how % LOCKS, on_wake, &field);
    if (field.repairing)
        return;
    slot = field.repair.id & LKI_SLOT_MASK;
    uint32_t generation = (field.repair.id >> LKI_GENERATION_SHIFT) % LKI_GENERATION_MAX + 1;
    uint32_t id =
        lki_attachment_open(&field.area, slot, generation, how & 4 ? LKI_ATTACHMENT_BROKERED : 0);
    init_party(slot, id);
    field.waits[slot] = (struct lki_wait){.phase = LKI_WAIT_PHASE_ENDED};
}

static void look(uint32_t lock)
{
    struct lki_lock_state state;
    struct lki_area seen;
    uint64_t version;
    lki_lock_look(&field.area, lock, &state);
    FUZZ_CHECK(state.readers <= SLOTS && state.waiters <= SLOTS);
    if (lki_read_begin(&field.area, lock, &version) == LKI_READ_BEGUN)
        (void)lki_read_valid(&field.area, lock, version);
    /* Somebody attaches now: what the header says lies within the mapping, or is refused. */
    if (lki_area_view(field.base, field.area.area_bytes, &seen) == 0) {
        FUZZ_CHECK(lki_area_bytes(seen.locks, seen.attachments_max) <= field.area.area_bytes);
        FUZZ_CHECK((uint8_t *)&seen.cold[seen.locks] <=
                   (uint8_t *)field.base + field.area.area_bytes);
        FUZZ_CHECK(lki_area_slots_used(&seen) <= seen.attachments_max);
    }
}

static void call(void)
{
    struct fuzz_input *input = field.input;
    uint8_t what = fuzz_byte(input), how = fuzz_byte(input), where = fuzz_byte(input);
    uint32_t slot = 1 + where % SLOTS, lock = where / SLOTS % LOCKS;
    struct lki_party *party = &field.parties[slot];
    struct lki_wait *wait = &field.waits[slot];
    bool update = where / SLOTS / LOCKS % 2;
    field.steps = 0;
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        take(party, wait, how, lock, update);
        break;
    case 4:
        update ? change(party, wait, how, lock) : lki_wait_give_up(wait);
        break;
    case 5:
        if ((!(how & 1) || !lki_fast_release_exclusive(party, lock)) &&
            (how & 2 || !lki_fast_release_fenceless(party, lock)))
            (void)lki_lock_release(party, lock);
        break;
    case 6:
        (void)lki_lock_mark_consistent(party, lock, how & 1 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA);
        (void)lki_lock_declare(party, lock, how, how);
        break;
    case 7:
        resume(slot, how, lock);
        break;
    case 8:
        repair(slot, how);
        break;
    case 9:
        (void)lki_repair_hold(&field.area, party->id, lock,
                              &(struct lki_death){.cause = LKI_CAUSE_FENCED}, on_wake, &field);
        break;
    case 10:
        look(lock);
        break;
    case 11:
        field.now_ns += how * (LKI_NS_PER_MS / 2);
        break;
    case 12:
    case 13:
        field.scribble_in = how % 40;
        break;
    default:
        fuzz_scribble(input, &field.area);
        break;
    }
    FUZZ_CHECK((party->cells_used >> LKI_SHARED_HOLDS_MAX) == 0);
}

static void *new_area(struct lki_area *area)
{
    const struct lki_area_config config = {.locks = LOCKS,
                                           .attachments_max = SLOTS,
                                           .patience_ns = LKI_PATIENCE_DEFAULT_NS,
                                           .sequence_start = UINT64_C(7) << 32,
                                           .state = LKI_SEGMENT_PUBLISHED,
                                           .bias = true};
    uint64_t bytes = lki_area_bytes(LOCKS, SLOTS);
    void *base = aligned_alloc(4096, bytes);
    FUZZ_CHECK(base != NULL);
    memset(base, 0, bytes);
    FUZZ_CHECK(lki_area_format(base, &config, area) == 0);
    return base;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct fuzz_input input = {data, size_bytes};
    struct lki_area other;
    memset(&field, 0, sizeof(field));
    field.input = &input;
    field.now_ns = 1000 * LKI_NS_PER_S;
    field.base = new_area(&field.area);
    field.neighbour = new_area(&other);
    field.neighbour_was = new_area(&other);
    lki_step_hook = on_step;
    for (uint32_t slot = 1; slot <= SLOTS; slot++) {
        uint32_t id =
            lki_attachment_open(&field.area, slot, 1, slot == SLOTS ? LKI_ATTACHMENT_BROKERED : 0);
        init_party(slot, id);
    }
    for (int i = 0; i < CALLS_MAX && input.left > 0; i++)
        call();
    lki_step_hook = NULL;
    FUZZ_CHECK(memcmp(field.neighbour, field.neighbour_was, other.area_bytes) == 0);
    free(field.base);
    free(field.neighbour);
    free(field.neighbour_was);
    return 0;
}
