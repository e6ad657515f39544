/* SPDX-License-Identifier: MIT */
#include "play.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "engine/step.h"
#include "proto/name.h"
#include "scribble.h"

#define EVENTS_MAX 300
#define STEPS_MAX 3000000u /* of one event: more is endless */
#define PAGE_BYTES 4096u
#define GUARDS_MAX 1024

struct play stage;

static void (*step_of_world)(const char *name);
static uint32_t scribble_in;     /* so many steps; 0: not */
static void *guards[GUARDS_MAX]; /* pages around areas */
static size_t guard_count;

/* --- Steps --- */

static void scribble_somewhere(void)
{
    struct lki_area area;
    uint32_t number = play_pick_segment();
    if (number >= PLAY_SEGMENTS || !stage.segments[number].hostile || !world.areas[number] ||
        world.area_bytes[number] != lki_area_bytes(PLAY_LOCKS, PLAY_ATTACHMENTS))
        return;
    lki_area_restore(world.areas[number], PLAY_LOCKS, PLAY_ATTACHMENTS, 0, &area);
    fuzz_scribble(stage.input, &area);
}

static void on_step(const char *name)
{
    FUZZ_CHECK(++stage.steps_of_event < STEPS_MAX, "an event does not end");
    if (scribble_in > 0 && --scribble_in == 0)
        scribble_somewhere();
    play_native_on_step();
    play_death_on_step();
    step_of_world(name);
}

/* --- The driver --- */

static void *map_guarded(uint64_t bytes)
{
    uint8_t *base =
        mmap(NULL, bytes + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FUZZ_CHECK((void *)base != MAP_FAILED && guard_count + 2 <= GUARDS_MAX);
    guards[guard_count++] = base;
    guards[guard_count++] = base + PAGE_BYTES + bytes;
    FUZZ_CHECK(mprotect(base + PAGE_BYTES, bytes, PROT_READ | PROT_WRITE) == 0);
    return base + PAGE_BYTES;
}

static uint32_t answered;
static int answer_result;

static void answer_make(void)
{
    struct lkd_segment_made made = {.result = answer_result};
    if (answer_result == 0) {
        made.area_base = map_guarded(world.area_bytes[answered]);
        made.area_fd = (int32_t)answered;
        made.data_fd = LKD_NO_FD;
        made.data_bytes = world.file_bytes;
        made.file_device = world.file_bytes != 0;
        made.file_inode = world.file_bytes;
        world.areas[answered] = made.area_base;
    }
    world.in_core = true;
    lkd_core_segment_made(world.core, answered, &made, world.now_ns);
    world.in_core = false;
    looked(0, LKD_PROCESS_RUNS); /* nobody: the effects are carried out */
}

static void answer_grow(void)
{
    grown(answered, answer_result);
}

static void answer(uint32_t *waiting, size_t *count, size_t at, void (*how)(void))
{
    answered = waiting[at];
    waiting[at] = waiting[--*count];
    play_guarded(how);
}

static void answer_all(void)
{
    answer_result = 0;
    while (!stage.over && (stage.make_count > 0 || stage.grow_count > 0)) {
        if (stage.make_count > 0)
            answer(stage.to_make, &stage.make_count, 0, answer_make);
        else
            answer(stage.to_grow, &stage.grow_count, 0, answer_grow);
    }
}

static void answer_one(void)
{
    answer_result = fuzz_below(stage.input, 3) == 1 ? -ENOMEM : 0;
    if (fuzz_byte(stage.input) & 1 && stage.make_count > 0)
        answer(stage.to_make, &stage.make_count, fuzz_below(stage.input, 64) % stage.make_count,
               answer_make);
    else if (stage.grow_count > 0)
        answer(stage.to_grow, &stage.grow_count, fuzz_below(stage.input, 64) % stage.grow_count,
               answer_grow);
}

/* --- Learning --- */

struct play_member *play_member_of(uint64_t session)
{
    for (int i = 0; i < PLAY_MEMBERS && session; i++)
        if (stage.members[i].session == session)
            return &stage.members[i];
    return NULL;
}

uint32_t play_pick_segment(void)
{
    return stage.known[fuzz_below(stage.input, 8)];
}

static void learn_opened(struct play_member *member, const struct lki_message *message)
{
    const struct lki_opened *opened = &message->as.opened;
    uint32_t name = stage.opening[message->id % 64];
    stage.known[stage.known_count++ % 8] = opened->segment;
    if (opened->segment < PLAY_SEGMENTS && opened->created)
        stage.segments[opened->segment].hostile = stage.rules->scribbles && name < 2;
    if (member && !opened->brokered)
        play_native_open(member, opened);
}

/* Which lock the answer is about, if that is known. */
static bool asked_of(const struct play_member *member, uint64_t request, uint32_t *out_segment,
                     uint32_t *out_lock)
{
    if (!member || member->last.id != request)
        return false;
    bool acquires = member->last.type == LKI_REQUEST_ACQUIRE;
    if (!acquires && member->last.type != LKI_REQUEST_CHANGE_MODE)
        return false;
    *out_segment = acquires ? member->last.as.acquire.segment : member->last.as.change_mode.segment;
    *out_lock = acquires ? member->last.as.acquire.lock : member->last.as.change_mode.lock;
    return true;
}

static void learn_granted(const struct play_member *member, const struct lki_message *message)
{
    const struct lki_granted *granted = &message->as.granted;
    uint32_t at = stage.hold_count++ % 8;
    uint32_t number, lock;
    stage.holds[at].attachment = granted->attachment;
    stage.holds[at].session = member ? member->session : 0;
    if (!asked_of(member, message->id, &number, &lock))
        return;
    stage.holds[at].segment = number;
    stage.holds[at].lock = lock;
    if (number >= PLAY_SEGMENTS || lock >= PLAY_LOCKS)
        return;
    struct play_segment *segment = &stage.segments[number];
    uint64_t *last = &segment->last_token[lock];
    if (!segment->hostile && !stage.repeated && !stage.flipped)
        FUZZ_CHECK(granted->token >= *last, "tokens have to rise");
    *last = granted->token;
}

static void learn_sent(const struct lkd_effect *effect)
{
    struct play_member *member = play_member_of(effect->session);
    if (effect->message.type == LKI_REPLY_OPENED)
        learn_opened(member, &effect->message);
    if (effect->message.type == LKI_REPLY_GRANTED)
        learn_granted(member, &effect->message);
}

void play_learn(void)
{
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        struct play_member *member = play_member_of(effect->session);
        if (effect->kind == LKD_EFFECT_SEND)
            learn_sent(effect);
        if (effect->kind == LKD_EFFECT_DISCONNECT && member)
            member->session = 0;
        if (effect->kind == LKD_EFFECT_MAKE_SEGMENT) {
            FUZZ_CHECK(stage.make_count < 64);
            stage.to_make[stage.make_count++] = effect->segment;
        }
        if (effect->kind == LKD_EFFECT_GROW_SEGMENT) {
            FUZZ_CHECK(stage.grow_count < 64);
            stage.to_grow[stage.grow_count++] = effect->segment;
        }
    }
    forget_effects();
}

static void call_event(void *user)
{
    void (*const *event)(void) = user;
    (*event)();
    struct lkd_name_change change;
    while (lkd_core_next_name_change(world.core, &change))
        FUZZ_CHECK(!change.present || change.name_bytes <= LKI_NAME_BYTES_MAX);
}

void play_guarded(void (*event)(void))
{
    if (stage.over || !world.core)
        return;
    stage.steps_of_event = 0;
    play_death_begin();
    bool alive = survives(call_event, (void *)&event);
    play_learn();
    if (!alive && !stage.over) {
        stage.steps_of_event = 0;
        play_next_worker();
        play_learn();
    }
    if (!stage.over && !stage.flipped)
        play_check_exclusion();
}

/* --- Events --- */

static uint32_t chosen, amount;

static void do_tick(void)
{
    tick_slice(amount);
}

static void do_pass(void)
{
    pass(amount * (LKI_NS_PER_MS / 4));
}

static void do_lose(void)
{
    lose(stage.members[chosen].session);
}

static void do_drop(void)
{
    drop(stage.members[chosen].session, "at random");
}

static void do_end(void)
{
    end_process(stage.processes[chosen]);
}

static void do_signaled(void)
{
    static const int results[] = {0, -ESRCH, -EPERM};
    signaled(stage.processes[chosen], amount & 1 ? SIGTERM : SIGKILL, results[amount / 2 % 3]);
}

static void do_looked(void)
{
    looked(stage.processes[chosen], (enum lkd_process_state)(amount % 4));
}

static void do_side_events(void)
{
    uint64_t session = stage.members[chosen].session;
    world.in_core = true;
    switch (amount % 4) {
    case 0:
        lkd_core_session_renamed(world.core, session, "another");
        break;
    case 1:
        lkd_core_events_lost(world.core, session, amount);
        break;
    case 2:
        (void)lkd_core_shed_silent(world.core, amount / 4 % 4, world.now_ns);
        break;
    default:
        lkd_core_process_ended(world.core, amount, world.now_ns + 1);
        break;
    }
    world.in_core = false;
    looked(0, LKD_PROCESS_RUNS);
}

static void end_chosen(void)
{
    for (int i = 0; i < PLAY_MEMBERS; i++)
        if (stage.members[i].process == stage.processes[chosen]) {
            play_native_forget(&stage.members[i], 0);
            stage.members[i].session = 0;
        }
    play_guarded(do_end);
    stage.processes[chosen] = ++stage.last_process;
    stage.killed[chosen] = false;
}

static bool is_killed(const struct play_member *member)
{
    for (int i = 0; i < PLAY_PROCESSES; i++)
        if (stage.processes[i] == member->process)
            return stage.killed[i];
    return true;
}

static void act(struct play_member *member)
{
    if (is_killed(member) && member->session)
        return;
    if (!member->session)
        play_connect(member);
    else if (fuzz_below(stage.input, 3) == 0)
        play_native_act(member);
    else
        play_message(member);
}

static void crash_now(void)
{
    if (!stage.rules->workers_die && !stage.rules->flips)
        return;
    crash();
    play_learn();
    play_next_worker();
    play_learn();
}

static void prepare_death(void)
{
    if (stage.rules->scribbles)
        scribble_in = 1 + fuzz_below(stage.input, 64);
    if (stage.rules->workers_die && fuzz_below(stage.input, 2))
        play_arm_worker();
}

static void step(void)
{
    struct fuzz_input *input = stage.input;
    uint32_t what = fuzz_byte(input);
    amount = fuzz_byte(input);
    chosen = amount % PLAY_MEMBERS;
    if (what < 20 && stage.rules->scribbles) {
        scribble_somewhere();
        return;
    }
    if (what < 150) {
        act(&stage.members[chosen]);
        return;
    }
    if (what < 165) {
        amount = 1 + amount % 8;
        play_guarded(do_tick);
    } else if (what < 180) {
        play_guarded(do_pass);
    } else if (what < 186) {
        play_guarded(amount & 64 ? do_drop : do_lose);
        stage.members[chosen].session = 0;
    } else if (what < 196) {
        chosen = amount % PLAY_PROCESSES;
        end_chosen();
    } else if (what < 206) {
        chosen = amount % PLAY_PROCESSES;
        amount = fuzz_byte(input);
        play_guarded(what & 1 ? do_looked : do_signaled);
    } else if (what < 212) {
        amount = fuzz_byte(input);
        play_guarded(do_side_events);
    } else if (what < 222) {
        answer_one();
    } else if (what < 224) {
        stage.answers_at_once = amount & 1;
        world.deaf = amount & 2;
    } else if (what < 240) {
        prepare_death();
    } else if (what < 246) {
        crash_now();
    } else if (stage.rules->scribbles) {
        scribble_somewhere();
    }
}

/* --- Begin and end --- */

static void begin(void)
{
    struct fuzz_input *input = stage.input;
    uint8_t how = fuzz_byte(input);
    bool scarce = how & 1;
    const struct lkd_core_config config = {
        .broker_uid = 1000,
        .broker_pid = 42,
        .token_epoch_s = 1000,
        .hash_seed = 4711,
        .socket_path = "/run/user/1000/lockkeeper/broker.sock",
        .limits.max = {[LKD_SESSIONS] = scarce ? 6 : 24,
                       [LKD_SEGMENTS] = scarce ? 3 : 12,
                       [LKD_BYTES] = scarce ? 150000 : 1 << 22,
                       [LKD_LOCKS] = scarce ? 11 : 64,
                       [LKD_ATTACHMENTS] = scarce ? 17 : 80,
                       [LKD_WAITS] = scarce ? 4 : 20},
        .barrier = play_barrier,
    };
    world_setup_with(&config);
    step_of_world = lki_step_hook;
    lki_step_hook = on_step;
    world.scarce = true;
    world.making_waits = world.growing_waits = true;
    world.seed = how;
    world.fail_one_in = how & 2 ? 3 + how / 16 : 0;
    stage.answers_at_once = true;
    for (uint32_t i = 0; i < PLAY_PROCESSES; i++)
        stage.processes[i] = ++stage.last_process;
    if (how & 4) { /* somebody has a name since the broker before */
        const struct lkd_name_change name = {.present = true,
                                             .process = stage.processes[how / 16 % PLAY_PROCESSES],
                                             .name_kind = LKI_NAME_USER,
                                             .name_id = 1000,
                                             .name_bytes = 1,
                                             .name = (const uint8_t *)(how & 8 ? "x" : "z")};
        world.in_core = true;
        (void)lkd_core_reserve_name(world.core, &name, 5);
        world.in_core = false;
    }
}

/* Everybody ends, what is kept is removed: then nothing may be left. */
static void end_all(void)
{
    for (uint64_t process = 1; process <= stage.last_process; process++)
        end_process(process);
    work();
    uint64_t root = connect_as(0, stage.last_process + 1);
    static const char *const names[] = {"~1000/x", "~1001/x", "~0/x",    "~1000/y", "~1000/z",
                                        "~1001/z", "~0/z",    "~1000/w", "@100/g"};
    FUZZ_CHECK(root != 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        request_remove(root, names[i]);
    const struct recorded *page = reply(root, request_list(root, LKI_LIST_BROKER, "", 0));
    FUZZ_CHECK(page && page->entries[0].waiters == 1, "sessions are left");
    FUZZ_CHECK(page->entries[0].attachments == 0, "segments are left");
    request_goodbye(root);
    end_process(stage.last_process + 1);
    work();
}

static void finish(void)
{
    world.fail_one_in = 0;
    world.dies_at = 0;
    scribble_in = 0;
    answer_all();
    if (stage.over || stage.flipped)
        return;
    stage.steps_of_event = 0;
    end_all();
    play_learn();
    FUZZ_CHECK(stage.make_count == 0 && stage.grow_count == 0);
    FUZZ_CHECK(lkd_core_deadline_ns(world.core) == LKI_TIME_NEVER, "it has work for ever");
    for (size_t i = 0; i < sizeof(world.areas) / sizeof(world.areas[0]); i++)
        FUZZ_CHECK(world.areas[i] == NULL, "memory of segment %zu is left", i);
    FUZZ_CHECK(count_records() == 0, "records are left in the ledger");
    world.in_core = true;
    world.core = lkd_core_free(world.core);
    world.in_core = false;
    FUZZ_CHECK(world_count_memory() == 0, "%zu pieces of memory are left", world_count_memory());
}

static void refuse_if_flipped(void)
{
    if (stage.flipped)
        play_refused();
}

void play(struct fuzz_input *input, const struct play_rules *rules)
{
    memset(&stage, 0, sizeof(stage));
    stage.input = input;
    stage.rules = rules;
    scribble_in = 0;
    begin();
    play_death_setup();
    fuzz_on_fail = refuse_if_flipped;
    for (int i = 0; i < EVENTS_MAX && input->left > 0 && !stage.over; i++) {
        step();
        if (stage.answers_at_once)
            answer_all();
    }
    if (!stage.over && !stage.flipped)
        finish();
    fuzz_on_fail = NULL;
    if (stage.flipped && world.core)
        crash(); /* nobody can free what is made of such a ledger */
    world_teardown();
    while (guard_count > 0)
        (void)munmap(guards[--guard_count], PAGE_BYTES);
}
