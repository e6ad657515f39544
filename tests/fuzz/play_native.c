/* SPDX-License-Identifier: MIT */
/* Native clients, which lock in shared memory over the engine; any of them may be killed at any step.
 * Each nudges the broker where its library would. */
#include "play.h"

#include <string.h>

#include "common/clock.h"
#include "engine/fast.h"

static bool nudge_due;
static struct play_member *nudging;
static uint32_t nudged_segment;
static bool in_native;
static uint32_t dies_in; /* steps; 0: it does not */
static jmp_buf death;

static void note_wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    nudge_due |= brokered;
}

bool play_barrier(void)
{
    return ++stage.barriers % 8 != 0;
}

static bool make_barrier(void *user)
{
    (void)user;
    return play_barrier();
}

void play_native_on_step(void)
{
    if (in_native && dies_in > 0 && --dies_in == 0)
        longjmp(death, 1);
}

void play_native_open(struct play_member *member, const struct lki_opened *opened)
{
    struct play_native *native = &member->natives[member->native_count % 2];
    for (int i = 0; i < 2; i++) /* an attachment has one party, however often it was opened */
        if (member->natives[i].is_live && member->natives[i].party.id == opened->attachment &&
            member->natives[i].segment == opened->segment)
            return;
    if (opened->segment >= PLAY_SEGMENTS || !world.areas[opened->segment])
        return;
    memset(native, 0, sizeof(*native));
    /* A client refuses what does not look like a control area. */
    if (lki_area_view(world.areas[opened->segment], opened->area_bytes, &native->area) < 0 ||
        !lki_party_init(&native->party, &native->area, opened->attachment, note_wake, NULL))
        return;
    native->party.barrier = make_barrier;
    native->segment = opened->segment;
    native->is_live = true;
    member->native_count++;
}

void play_native_forget(struct play_member *member, uint32_t segment)
{
    for (int i = 0; i < 2; i++)
        if (segment == 0 || member->natives[i].segment == segment)
            member->natives[i].is_live = false;
}

/* Beside the paths that both modes have: by bits which say for an exclusive hold what it is for. */
static void try_lock(struct lki_party *party, uint32_t lock, enum lki_mode mode, enum lki_hold hold,
                     uint32_t what)
{
    if (mode == LKI_MODE_SHARED && !(what & 2) && lki_fast_take_fenceless(party, lock))
        return;
    if (lki_lock_try(party, lock, mode, hold) == LKI_TAKEN && mode == LKI_MODE_SHARED &&
        !(what & 4))
        lki_lock_bias(party, lock);
}

static void change(struct play_native *native, uint32_t what, uint32_t lock, uint64_t deadline_ns)
{
    struct lki_sleep sleep;
    switch (what >> 1 & 3) {
    case 0:
        (void)lki_lock_upgrade_try(&native->party, lock, LKI_HOLD_DATA);
        break;
    case 1:
        if (lki_wait_begin_upgrade(&native->wait, &native->party, lock, LKI_HOLD_DATA, world.now_ns,
                                   deadline_ns) == LKI_SLEEP)
            (void)lki_wait_step(&native->wait, world.now_ns, &sleep);
        break;
    case 2:
        (void)lki_lock_downgrade(&native->party, lock, LKI_MODE_UPDATE);
        break;
    default:
        (void)lki_lock_downgrade(&native->party, lock, LKI_MODE_SHARED);
        break;
    }
}

static void perform(struct play_native *native, uint32_t what, uint32_t lock, bool update)
{
    struct lki_sleep sleep;
    uint64_t version;
    uint8_t copy[16];
    enum lki_mode mode = update ? LKI_MODE_UPDATE : what & 1 ? LKI_MODE_EXCLUSIVE : LKI_MODE_SHARED;
    uint64_t deadline_ns = what & 64 ? LKI_TIME_NEVER : world.now_ns + LKI_NS_PER_MS;
    enum lki_hold hold = (what & 6) == 6 ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    bool waits = native->wait.phase != LKI_WAIT_PHASE_ENDED;
    switch (what >> 3 & 7) {
    case 0:
    case 1:
        if (waits)
            break;
        try_lock(&native->party, lock, mode, hold, what);
        if (update && what & 1)
            change(native, what, lock, deadline_ns);
        break;
    case 2:
    case 3:
        if (!waits && lki_lock_held_by(&native->party, lock) == 0 &&
            lki_wait_begin(&native->wait, &native->party, lock, mode, hold, world.now_ns,
                           deadline_ns) == LKI_SLEEP)
            (void)lki_wait_step(&native->wait, world.now_ns, &sleep);
        break;
    case 4:
        if (waits)
            (void)lki_wait_step(&native->wait, world.now_ns, &sleep);
        break;
    case 5:
        if (waits)
            lki_wait_give_up(&native->wait);
        else
            change(native, what, lock, deadline_ns);
        break;
    case 6:
        if (what & 1 || !lki_fast_release_fenceless(&native->party, lock))
            (void)lki_lock_release(&native->party, lock);
        break;
    default:
        (void)lki_lock_mark_consistent(&native->party, lock, hold);
        (void)lki_lock_declare(&native->party, lock, what, 8);
        if (lki_read_begin(&native->area, lock, &version) == LKI_READ_BEGUN) {
            lki_read_copy(copy, native->area.cold[lock].name, sizeof(copy));
            (void)lki_read_valid(&native->area, lock, version);
        }
        break;
    }
}

static void do_nudge(void)
{
    request_segment(nudging->session, LKI_REQUEST_NUDGE, nudged_segment);
}

static void kill_process_of(const struct play_member *member)
{
    for (int i = 0; i < PLAY_PROCESSES; i++)
        if (stage.processes[i] == member->process)
            stage.killed[i] = true;
    for (int i = 0; i < PLAY_MEMBERS; i++)
        if (stage.members[i].process == member->process)
            play_native_forget(&stage.members[i], 0);
}

void play_native_act(struct play_member *member)
{
    static struct play_native *native;
    uint32_t what = fuzz_byte(stage.input), how = fuzz_byte(stage.input);
    native = &member->natives[what >> 7];
    if (!native->is_live || native->segment >= PLAY_SEGMENTS || !world.areas[native->segment])
        return;
    nudge_due = false;
    stage.steps_of_event = 0;
    dies_in = how >= 240 ? 1 + fuzz_below(stage.input, 40) : 0;
    in_native = true;
    if (setjmp(death) == 0)
        perform(native, what, how % PLAY_LOCKS, how / PLAY_LOCKS % 4 == 3);
    else
        kill_process_of(member);
    in_native = false;
    if (!nudge_due || !native->is_live)
        return;
    nudging = member;
    nudged_segment = native->segment;
    play_guarded(do_nudge);
}

/* Somebody was killed, and its repair is not done. */
static bool is_untidy(void)
{
    for (int i = 0; i < PLAY_PROCESSES; i++)
        if (stage.killed[i])
            return true;
    return lkd_core_deadline_ns(world.core) <= world.now_ns;
}

/* Between events nobody is between two accesses, but for the killed: who has the word and does not
 * drain is alone inside. */
void play_check_exclusion(void)
{
    if (is_untidy())
        return;
    for (uint32_t number = 1; number < PLAY_SEGMENTS; number++) {
        struct lki_area area;
        if (stage.segments[number].hostile || !world.areas[number] ||
            world.area_bytes[number] != lki_area_bytes(PLAY_LOCKS, PLAY_ATTACHMENTS))
            continue;
        lki_area_restore(world.areas[number], PLAY_LOCKS, PLAY_ATTACHMENTS, 0, &area);
        for (uint32_t lock = 0; lock < PLAY_LOCKS; lock++) {
            struct lki_lock_state state;
            lki_lock_look(&area, lock, &state);
            FUZZ_CHECK(!(state.word & LKI_UPDATE) || state.word & LKI_ID_MASK,
                       "lock %u of segment %u is for update, and free", lock, number);
            FUZZ_CHECK(!(state.word & LKI_UPDATE) || state.word & LKI_DIED || !(state.sequence & 1),
                       "lock %u of segment %u is for update, and its data is torn", lock, number);
            const struct lki_attachment *owner =
                lki_area_attachment(&area, state.word & LKI_ID_MASK);
            if (!owner || !(state.sequence & 1) || state.word & LKI_DIED ||
                lki_wait_is(owner->wait, LKI_WAIT_DRAINING, lock))
                continue;
            FUZZ_CHECK(state.readers == 0, "lock %u of segment %u: a writer inside, and %u readers",
                       lock, number, state.readers);
        }
    }
}
