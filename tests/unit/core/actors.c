/* SPDX-License-Identifier: MIT */
#include "actors.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define ASKED_MAX 64
#define ROOT_PROCESS 99u

struct asked {
    struct lki_message message;
    int name;
    bool one_way;
    bool answered;
    uint32_t outcome; /* index */
};

struct actor {
    uint64_t process;
    uint64_t session;
    bool connected;       /* it has a connection and does not know better */
    bool heard;           /* any reply: the hello has come */
    uint32_t resumes;     /* RESUMED that it has not answered */
    uint32_t resumed[16]; /* their numbers */
    struct asked asked[ASKED_MAX];
    uint32_t asked_count;
    struct lki_opened at[NAMES];
    bool open[NAMES];
    uint32_t held[NAMES][LOCKS];      /* attachment of a hold that it was told of; 0: none */
    uint32_t held_mode[NAMES][LOCKS]; /* 0: none */
    struct lki_party party[NAMES];
    bool has_party[NAMES];
    struct lki_wait wait;
    size_t wakes; /* that it had when it went to sleep */
};

static struct {
    struct actor actors[ACTORS];
    bool fifo;
    struct telling *telling;
    uint64_t last_token[NAMES][LOCKS];
    size_t records_heard;
    bool nudge_due;
    const struct deaths *deaths;
    struct toll toll;
    uint64_t died_at;        /* steps */
    const struct line *line; /* the one that is told */
    struct asked *asked;     /* what it asks */
    uint64_t until_ns;       /* PASS */
} stage;

static const char *const names[NAMES] = {"~1000/x", "~1000/y", "~1000/z"};
static const char *const lock_names[] = {"red", "green", "blue"};

static uint32_t note_outcome(enum verb verb, int who, int type, int status)
{
    cr_assert(lt(u32, stage.telling->outcome_count, OUTCOMES_MAX));
    uint32_t index = stage.telling->outcome_count++;
    stage.telling->outcomes[index] =
        (struct outcome){.verb = verb, .who = who, .type = type, .status = status};
    return index;
}

/* --- Holding --- */

static void take_hold(int who, int name, uint32_t lock, uint32_t mode, uint32_t attachment)
{
    for (int other = 0; other < ACTORS; other++) {
        uint32_t others = stage.actors[other].held_mode[name][lock];
        bool conflict = others && (others == X || mode == X);
        cr_assert(eq(int, conflict, 0), "%d and %d both hold lock %u of %s", who, other, lock,
                  names[name]);
    }
    stage.actors[who].held_mode[name][lock] = mode;
    stage.actors[who].held[name][lock] = attachment;
    if (mode == X && stage.telling->grant_count < OUTCOMES_MAX)
        stage.telling->grants[stage.telling->grant_count++] = (struct grant){who, name, lock};
}

static void drop_hold(struct actor *actor, int name, uint32_t lock)
{
    actor->held[name][lock] = 0;
    actor->held_mode[name][lock] = 0;
}

static void drop_holds(struct actor *actor, int name)
{
    for (uint32_t lock = 0; lock < LOCKS; lock++)
        drop_hold(actor, name, lock);
    actor->open[name] = false;
    actor->has_party[name] = false;
}

static void drop_all_holds(struct actor *actor)
{
    for (int name = 0; name < NAMES; name++)
        drop_holds(actor, name);
}

/* --- Hearing --- */

static void part(struct actor *actor)
{
    actor->connected = false;
    actor->resumes = 0;
    for (uint32_t i = 0; i < actor->asked_count; i++) {
        struct asked *asked = &actor->asked[i];
        if (asked->answered || asked->one_way)
            continue;
        asked->answered = true;
        stage.telling->outcomes[asked->outcome].type = -1;
    }
}

static void hear_granted(int who, const struct asked *asked, const struct lki_granted *granted)
{
    uint32_t lock = asked->message.as.acquire.lock;
    uint32_t mode = asked->message.as.acquire.mode;
    uint64_t *last = &stage.last_token[asked->name][lock];
    if (mode == X)
        cr_assert(lt(u64, *last, granted->token), "tokens have to rise");
    else
        cr_assert(le(u64, *last, granted->token));
    *last = granted->token;
    take_hold(who, asked->name, lock, mode, granted->attachment);
}

static void hear_reply(int who, const struct lki_message *message, const char *text)
{
    struct actor *actor = &stage.actors[who];
    struct asked *asked = NULL;
    for (uint32_t i = 0; i < actor->asked_count; i++)
        if (actor->asked[i].message.id == message->id)
            asked = &actor->asked[i];
    cr_assert(ne(ptr, asked, NULL), "%d was told what it did not ask", who);
    cr_assert(not(asked->answered), "%d: a second answer, '%s'", who, text);
    asked->answered = true;
    actor->heard = true;
    struct outcome *outcome = &stage.telling->outcomes[asked->outcome];
    outcome->type = (int)message->type;
    switch ((int)message->type) {
    case LKI_REPLY_OPENED:
        outcome->created = message->as.opened.created;
        actor->at[asked->name] = message->as.opened;
        actor->open[asked->name] = true;
        break;
    case LKI_REPLY_GRANTED:
        outcome->status = (int)message->as.granted.status;
        hear_granted(who, asked, &message->as.granted);
        break;
    default:
        cr_assert(eq(int, message->type, LKI_REPLY_RESULT));
        outcome->status = (int)message->as.result.status;
        outcome->value = message->as.result.value;
        break;
    }
}

static int who_is(uint64_t session)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].connected && stage.actors[who].session == session)
            return who;
    return -1;
}

static void note_resumed(struct actor *actor, uint32_t number)
{
    cr_assert(lt(u32, actor->resumes, LKI_ARRAY_LENGTH(actor->resumed)));
    actor->resumed[actor->resumes++] = number;
}

/* All that came since the last time, whether or not the worker lives still. */
static void hear(void)
{
    for (; stage.records_heard < world.record_count; stage.records_heard++) {
        const struct recorded *record = &world.records[stage.records_heard];
        const struct lkd_effect *effect = &record->effect;
        int who = who_is(effect->session);
        if (who < 0)
            continue;
        if (effect->kind == LKD_EFFECT_DISCONNECT)
            part(&stage.actors[who]);
        if (effect->kind != LKD_EFFECT_SEND)
            continue;
        if (effect->message.type == LKI_REPLY_RESUMED)
            note_resumed(&stage.actors[who], effect->message.as.resumed.number);
        else
            hear_reply(who, &effect->message, record->detail);
    }
}

/* --- Asking --- */

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){.data = (const uint8_t *)text, .length_bytes = strlen(text)};
}

static struct lki_message acquire_of(const struct line *line, uint32_t segment)
{
    uint64_t never = line->amount ? world.now_ns + line->amount * LKI_NS_PER_MS : LKI_TIME_NEVER;
    return (struct lki_message){
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {.segment = segment,
                       .lock = line->lock,
                       .mode = line->verb == TO_EXIT ? X : line->mode,
                       .to_exit = line->verb == TO_EXIT,
                       .asynchronous = line->verb == ASYNC || line->verb == TO_EXIT,
                       .deadline_ns = line->verb == TRY ? 0 : never},
    };
}

static uint64_t acquire_to_cancel(const struct actor *actor, const struct line *line)
{
    for (uint32_t i = actor->asked_count; i-- > 0;) {
        const struct lki_message *message = &actor->asked[i].message;
        if (message->type == LKI_REQUEST_ACQUIRE && message->as.acquire.lock == line->lock)
            return message->id;
    }
    return 0;
}

static struct lki_message open_of(const struct line *line)
{
    struct lki_message message = open_message(names[line->name], line->flags);
    message.as.open.locks = LOCKS;
    message.as.open.attachments_max = 8;
    message.as.open.mode = 0666;
    message.as.open.size_bytes = line->flags & (LK_CREATE | LK_CREATE_NEW) ? 4096 : 0;
    message.as.open.size_max_bytes = message.as.open.size_bytes * 8;
    message.as.open.patience_ns = stage.fifo ? LK_PATIENCE_FIFO : 0;
    return message;
}

static struct lki_message hold_of(const struct actor *actor, const struct line *line,
                                  enum lki_message_type type, uint32_t segment)
{
    return (struct lki_message){.type = type,
                                .as.hold_ref = {.segment = segment,
                                                .lock = line->lock,
                                                .attachment = actor->held[line->name][line->lock],
                                                .offset = 8,
                                                .length_bytes = 16}};
}

static struct lki_message message_of(const struct actor *actor, const struct line *line)
{
    uint32_t segment = actor->at[line->name].segment;
    switch ((int)line->verb) {
    case OPEN:
        return open_of(line);
    case PUBLISH:
        return (struct lki_message){.type = LKI_REQUEST_PUBLISH, .as.segment_ref = {segment}};
    case DETACH:
        return (struct lki_message){.type = LKI_REQUEST_DETACH, .as.segment_ref = {segment}};
    case REMOVE:
        return (struct lki_message){.type = LKI_REQUEST_REMOVE,
                                    .as.remove = {bytes_of(names[line->name])}};
    case GROW:
        return (struct lki_message){.type = LKI_REQUEST_GROW, .as.grow = {segment, line->amount}};
    case LOCK_NAMED:
        return (struct lki_message){.type = LKI_REQUEST_LOCK_NAMED,
                                    .as.lock_named = {segment, bytes_of(lock_names[line->amount])}};
    case CANCEL:
        return (struct lki_message){.type = LKI_REQUEST_CANCEL,
                                    .as.cancel = {acquire_to_cancel(actor, line)}};
    case RELEASE:
        return hold_of(actor, line, LKI_REQUEST_RELEASE, segment);
    case MARK:
        return hold_of(actor, line, LKI_REQUEST_MARK_CONSISTENT, segment);
    case DECLARE:
        return hold_of(actor, line, LKI_REQUEST_DECLARE, segment);
    case GOODBYE:
        return (struct lki_message){.type = LKI_REQUEST_GOODBYE};
    case CONNECT:
        return (struct lki_message){
            .type = LKI_REQUEST_HELLO,
            .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR, .layout_major = LKI_LAYOUT_MAJOR}};
    default:
        return acquire_of(line, segment);
    }
}

static struct asked *ask(struct actor *actor, const struct lki_message *message,
                         const struct line *line)
{
    cr_assert(lt(u32, actor->asked_count, ASKED_MAX));
    struct asked *asked = &actor->asked[actor->asked_count++];
    *asked = (struct asked){.message = *message};
    asked->message.id = actor->asked_count;
    asked->one_way = message->type == LKI_REQUEST_HELLO || message->type == LKI_REQUEST_NUDGE;
    if (line) {
        asked->name = line->name;
        if (!asked->one_way)
            asked->outcome = note_outcome(line->verb, line->who, 0, 0);
    }
    return asked;
}

/* --- Native --- */

static void note_nudge(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    stage.nudge_due |= brokered;
}

static struct lki_party *party_of(struct actor *actor, int name)
{
    static struct lki_area areas[ACTORS][NAMES];
    struct lki_area *area = &areas[actor - stage.actors][name];
    const struct lki_opened *at = &actor->at[name];
    if (actor->has_party[name])
        return &actor->party[name];
    cr_assert(actor->open[name]);
    int r = lki_area_view(world.areas[at->segment], at->area_bytes, area);
    cr_assert(eq(int, r, 0));
    cr_assert(lki_party_init(&actor->party[name], area, at->attachment, note_nudge, NULL));
    actor->has_party[name] = true;
    return &actor->party[name];
}

static size_t wakes_of(const struct actor *actor, int name)
{
    return count_wakes(actor->at[name].segment, actor->at[name].attachment & LKI_SLOT_MASK);
}

static enum lki_verdict step_native(struct actor *actor, int name)
{
    struct lki_sleep sleep;
    actor->wakes = wakes_of(actor, name);
    return lki_wait_step(&actor->wait, world.now_ns, &sleep);
}

/* Where it sleeps still, whoever let it in has woken it: its own look after the nap must not be what
 * saves it. */
static enum lki_verdict step_awake(struct actor *actor, int name)
{
    if (actor->wait.phase == LKI_WAIT_PHASE_ENDED)
        return LKI_TAKEN; /* it got through at an earlier look */
    size_t before = actor->wakes;
    enum lki_verdict verdict = step_native(actor, name);
    if (verdict != LKI_SLEEP)
        cr_assert(lt(sz, before, actor->wakes), "it could go on, and nobody woke it");
    return verdict;
}

static enum lki_verdict act_native(struct actor *actor, const struct line *line)
{
    struct lki_party *party = party_of(actor, line->name);
    switch ((int)line->verb) {
    case N_TRY:
        return lki_lock_try(party, line->lock, (enum lki_mode)line->mode, LKI_HOLD_DATA);
    case N_WAIT:
        lki_wait_begin(&actor->wait, party, line->lock, (enum lki_mode)line->mode, LKI_HOLD_DATA,
                       world.now_ns, LKI_TIME_NEVER);
        return step_native(actor, line->name);
    case N_STEP:
        return step_awake(actor, line->name);
    default:
        drop_hold(actor, line->name, line->lock);
        return lki_lock_release(party, line->lock);
    }
}

static bool is_native(const struct line *line)
{
    return line->verb >= N_TRY;
}

static void tell_native(const struct line *line)
{
    struct actor *actor = &stage.actors[line->who];
    enum lki_verdict verdict = act_native(actor, line);
    note_outcome(line->verb, line->who, 0, (int)verdict);
    bool taken = verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED;
    if (taken && line->verb != N_RELEASE && !actor->held_mode[line->name][line->lock])
        take_hold(line->who, line->name, line->lock, line->mode, actor->at[line->name].attachment);
}

/* --- The worker's part of a line --- */

static struct actor *actor_of_line(void)
{
    return &stage.actors[stage.line->who];
}

static void connect_actor(struct actor *actor)
{
    const struct lkd_peer peer = {
        .pid = (int32_t)actor->process, .uid = 1000, .gid = 1000, .process = actor->process};
    actor->session = connect_peer(&peer);
    actor->connected = true;
}

static void perform(void *user)
{
    (void)user;
    struct actor *actor = actor_of_line();
    switch ((int)stage.line->verb) {
    case CONNECT:
        if (!actor->connected)
            connect_actor(actor);
        break;
    case LOSE:
        lose(actor->session);
        return;
    case END_PROCESS:
        end_process(actor->process);
        return;
    case TICK:
        tick_slice((uint32_t)stage.line->amount);
        return;
    case WORK:
        work();
        return;
    case PASS:
        while (lkd_core_deadline_ns(world.core) <= stage.until_ns) {
            if (lkd_core_deadline_ns(world.core) > world.now_ns)
                world.now_ns = lkd_core_deadline_ns(world.core);
            tick();
        }
        world.now_ns = stage.until_ns;
        return;
    default:
        break;
    }
    if (actor->connected && stage.asked)
        send_again(actor->session, &stage.asked->message);
}

/* What a driver or a client does once more when the worker died over it. */
static bool is_repeated(enum verb verb)
{
    return verb == LOSE || verb == END_PROCESS || verb == TICK || verb == WORK || verb == PASS;
}

/* --- Recovery --- */

static bool is_left(uint64_t session)
{
    for (uint32_t i = 0; i < world.left_count; i++)
        if (world.left_sessions[i] == session)
            return true;
    return false;
}

/* Connections that the dead worker had given up. */
static void part_cut(void)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].connected && !is_left(stage.actors[who].session))
            part(&stage.actors[who]);
}

/* A session that was taken over and that nobody knows is the one that was being opened. */
static void find_opened(void)
{
    struct actor *actor = actor_of_line();
    if (stage.line->verb != CONNECT || actor->connected)
        return;
    for (uint32_t i = 0; i < world.left_count; i++) {
        bool known = false;
        for (int who = 0; who < ACTORS; who++)
            known |= stage.actors[who].session == world.left_sessions[i];
        if (known)
            continue;
        actor->session = world.left_sessions[i];
        actor->connected = true;
    }
}

static void do_take_over(void *user)
{
    (void)user;
    take_over();
}

static void repeat_all(struct actor *actor)
{
    for (uint32_t i = 0; i < actor->asked_count && actor->connected; i++) {
        const struct asked *asked = &actor->asked[i];
        bool hello = asked->message.type == LKI_REQUEST_HELLO && !actor->heard;
        if (hello || (!asked->one_way && !asked->answered)) {
            send_again(actor->session, &asked->message);
            hear();
        }
    }
}

static void do_resume(void *user)
{
    (void)user;
    struct actor *actor = actor_of_line();
    if (stage.deaths->stale && stage.asked && actor->connected)
        send_again(actor->session, &stage.asked->message);
    for (int who = 0; who < ACTORS; who++) {
        struct actor *resuming = &stage.actors[who];
        uint32_t count = resuming->resumes;
        resuming->resumes = 0;
        for (uint32_t i = 0; i < count && resuming->connected; i++) {
            resume_as(resuming->session, resuming->resumed[i]);
            repeat_all(resuming);
        }
    }
}

static bool lives(void (*event)(void *user))
{
    bool alive = survives(event, NULL);
    hear();
    if (alive)
        return true;
    if (stage.toll.count++ == 0)
        stage.died_at = world.steps;
    uint64_t next = stage.toll.count == 1   ? stage.deaths->second_step
                    : stage.toll.count == 2 ? stage.deaths->third_step
                                            : 0;
    world.dies_at = next ? world.steps + next : 0;
    return false;
}

/* Until the line is told, by whichever worker. */
static void recover(void)
{
    for (;;) {
        if (!lives(do_take_over))
            continue;
        find_opened();
        part_cut();
        if (!lives(do_resume))
            continue;
        bool again = is_repeated(stage.line->verb) ||
                     (stage.line->verb == CONNECT && !actor_of_line()->connected);
        if (!again || lives(perform))
            break;
    }
    world.dies_at = 0;
    stage.toll.recovery_steps = world.steps - stage.died_at;
}

/* --- Telling --- */

/* What the actor itself does in a line: before the worker hears of it, and once. */
static void prepare(const struct line *line)
{
    struct actor *actor = &stage.actors[line->who];
    stage.line = line;
    stage.asked = NULL;
    stage.until_ns = world.now_ns + line->amount * LKI_NS_PER_MS;
    if (!is_repeated(line->verb)) {
        const struct lki_message message = message_of(actor, line);
        stage.asked = ask(actor, &message, line);
    }
    switch ((int)line->verb) {
    case RELEASE:
        drop_hold(actor, line->name, line->lock);
        break;
    case DETACH:
        drop_holds(actor, line->name);
        break;
    case GOODBYE:
        drop_all_holds(actor);
        break;
    case LOSE:
        part(actor);
        break;
    case END_PROCESS:
        for (int who = 0; who < ACTORS; who++) {
            if (stage.actors[who].process != actor->process)
                continue;
            part(&stage.actors[who]);
            drop_all_holds(&stage.actors[who]);
        }
        break;
    default:
        break;
    }
}

static void nudge(struct actor *actor, const struct line *line)
{
    const struct lki_message message = {.type = LKI_REQUEST_NUDGE,
                                        .as.segment_ref = {actor->at[line->name].segment}};
    if (!stage.nudge_due)
        return;
    stage.nudge_due = false;
    send_again(actor->session, &ask(actor, &message, NULL)->message);
    hear();
}

static const struct line *tell_line(const struct line *line, bool dies)
{
    const struct line *next = line + 1;
    if (is_native(line)) {
        tell_native(line);
        nudge(&stage.actors[line->who], line);
        return next;
    }
    prepare(line);
    uint64_t before = world.steps;
    world.dies_at = dies ? world.steps + stage.deaths->step : 0;
    if (!lives(perform)) {
        const struct line *first = next;
        while (stage.deaths->natives && is_native(next))
            tell_native(next++);
        recover();
        if (next > first)
            nudge(&stage.actors[first->who], first);
    } else if (dies) {
        stage.toll.line_steps = world.steps - before;
    }
    world.dies_at = 0;
    return next;
}

/* Everybody ends; nothing is left. */
static void finish(void)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].session) {
            part(&stage.actors[who]);
            end_process(stage.actors[who].process);
        }
    work();
    uint64_t root = connect_as(0, ROOT_PROCESS);
    for (int name = 0; name < NAMES; name++)
        request_remove(root, names[name]);
    request_goodbye(root);
    end_process(ROOT_PROCESS);
    work();
    for (uint32_t i = 0; i < LKI_ARRAY_LENGTH(world.areas); i++)
        cr_assert(eq(ptr, world.areas[i], NULL), "the memory of segment %u is left", i);
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
    crash();
    cr_assert(eq(u32, count_records(), 0), "records are left in the ledger");
}

void tell(const struct line *story, bool fifo, const struct deaths *deaths, struct telling *out,
          struct toll *out_toll)
{
    memset(&stage, 0, sizeof(stage));
    memset(out, 0, sizeof(*out));
    stage.fifo = fifo;
    stage.telling = out;
    stage.deaths = deaths;
    for (int who = 0; who < ACTORS; who++)
        stage.actors[who].process = (uint64_t)who + 1;
    world_setup();
    for (const struct line *line = story; line->verb != END;)
        line = tell_line(line, deaths->step && line == story + deaths->line);
    for (int who = 0; who < ACTORS; who++)
        for (uint32_t i = 0; i < stage.actors[who].asked_count; i++) {
            const struct asked *asked = &stage.actors[who].asked[i];
            if (!asked->one_way && stage.actors[who].connected && !asked->answered)
                out->outcomes[asked->outcome].type = 0; /* waits still */
        }
    finish();
    world_teardown();
    *out_toll = stage.toll;
}
