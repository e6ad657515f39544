/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "engine/step.h"

#define SEGMENTS (sizeof(world.areas) / sizeof(world.areas[0]))

struct world world;

/* --- Steps --- */

static void take_step(void)
{
    if (++world.steps == world.dies_at)
        longjmp(world.death, 1);
}

/* A release build has no steps but those before effects. */
static void hook_steps(void (*hook)(const char *name))
{
#ifdef LKI_STEPS
    lki_step_hook = hook;
#else
    (void)hook;
#endif
}

/* Steps of native clients, which share the engine, are not the worker's. */
static void on_step(const char *name)
{
    (void)name;
    if (world.in_core)
        take_step();
}

bool survives(void (*event)(void *user), void *user)
{
    if (setjmp(world.death) == 0) {
        event(user);
        return true;
    }
    crash();
    return false;
}

/* --- Lifecycle --- */

static void area_free(uint32_t segment)
{
    if (world.areas[segment])
        munmap(world.areas[segment], world.area_bytes[segment]);
    world.areas[segment] = NULL;
}

void world_setup_with(const struct lkd_core_config *config)
{
    memset(&world, 0, sizeof(world));
    hook_steps(on_step);
    world.now_ns = 1000 * LKI_NS_PER_S;
    struct lkd_core_config own = *config;
    world.ledger_bytes = lkd_ledger_bytes(&own.limits);
    world.ledger = mmap(NULL, world.ledger_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(ne(ptr, world.ledger, MAP_FAILED));
    own.ledger = world.ledger;
    world.config = own;
    world.in_core = true;
    int r = lkd_core_new(&own, &world.core);
    world.in_core = false;
    cr_assert(eq(int, r, 0));
}

void world_setup(void)
{
    const struct lkd_core_config config = {
        .broker_uid = 1000,
        .broker_pid = 42,
        .started_ns = 77,
        .token_epoch_s = 1000,
        .hash_seed = 4711,
        .socket_path = "/run/user/1000/lockkeeper/broker.sock",
    };
    world_setup_with(&config);
}

void forget_effects(void)
{
    for (size_t i = 0; i < world.record_count; i++)
        free(world.records[i].strings);
    world.record_count = 0;
}

void world_teardown(void)
{
    world.core = lkd_core_free(world.core);
    world_free_all();
    forget_effects();
    free(world.records);
    munmap(world.ledger, world.ledger_bytes);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        area_free(i);
    hook_steps(NULL);
}

/* --- The driver --- */

static void copy_bytes(char *to, size_t to_bytes, struct lki_bytes from)
{
    size_t length = from.length_bytes < to_bytes ? from.length_bytes : to_bytes - 1;
    if (length > 0)
        memcpy(to, from.data, length);
    to[length] = 0;
}

static void copy_page(struct recorded *record)
{
    struct lki_list_page *page = &record->effect.message.as.list_page;
    record->strings = calloc(LKI_LIST_PAGE_ENTRIES_MAX, sizeof(*record->strings));
    cr_assert(le(sz, page->count, (size_t)LKI_LIST_PAGE_ENTRIES_MAX));
    for (size_t i = 0; i < page->count; i++) {
        record->entries[i] = page->entries[i];
        copy_bytes(record->strings[i][0], 300, page->entries[i].name);
        copy_bytes(record->strings[i][1], 300, page->entries[i].lock_name);
        copy_bytes(record->strings[i][2], 300, page->entries[i].command);
    }
    page->entries = NULL;
}

static void copy_event(struct recorded *record)
{
    const struct lki_event *event = &record->effect.message.as.event;
    record->strings = calloc(1, sizeof(*record->strings));
    copy_bytes(record->strings[0][0], 300, event->name);
    copy_bytes(record->strings[0][1], 300, event->lock_name);
    copy_bytes(record->strings[0][2], 300, event->command);
    copy_bytes(record->detail, sizeof(record->detail), event->text);
}

static void record_effect(const struct lkd_effect *effect)
{
    if (world.record_count == world.record_capacity) {
        /* In ever larger steps: under a sanitizer each copies all of them to another map. */
        world.record_capacity = world.record_capacity * 2 + 64;
        world.records = realloc(world.records, world.record_capacity * sizeof(*world.records));
        cr_assert(ne(ptr, world.records, NULL));
    }
    struct recorded *record = &world.records[world.record_count++];
    memset(record, 0, sizeof(*record));
    record->effect = *effect;
    if (effect->kind == LKD_EFFECT_LOG)
        strncpy(record->detail, effect->text, sizeof(record->detail) - 1);
    if (effect->kind != LKD_EFFECT_SEND)
        return;
    struct lki_message *message = &record->effect.message;
    if (message->type == LKI_REPLY_RESULT)
        copy_bytes(record->detail, sizeof(record->detail), message->as.result.detail);
    if (message->type == LKI_REPLY_HOLDER_IS)
        copy_bytes(record->detail, sizeof(record->detail), message->as.holder_is.command);
    if (message->type == LKI_REPLY_LIST_PAGE)
        copy_page(record);
    if (message->type == LKI_REPLY_EVENT)
        copy_event(record);
}

static void make(const struct lkd_effect *effect)
{
    cr_assert(lt(u32, effect->segment, 4096));
    cr_assert(eq(ptr, world.areas[effect->segment], NULL), "a number in use was given again");
    world.area_bytes[effect->segment] = effect->spec.area_bytes;
    if (!world.making_waits)
        made(effect->segment, world.make_result);
}

static void lose_events(const struct lkd_effect *effect)
{
    world.in_core = true;
    lkd_core_events_lost(world.core, effect->session, effect->message.as.event.lost + 1);
    world.in_core = false;
}

static void disconnect(uint64_t session)
{
    world.in_core = true;
    lkd_core_session_lost(world.core, session, world.now_ns);
    world.in_core = false;
}

/* Carries out what the core wants, as the real driver would between two events. */
static void drain(void)
{
    struct lkd_effect effect;

    lkd_core_check(world.core);
    while (lkd_core_next_effect(world.core, &effect)) {
        take_step(); /* handed out, and not carried out */
        if (world.deaf && effect.message.type == LKI_REPLY_EVENT)
            lose_events(&effect);
        else
            record_effect(&effect);
        lkd_core_check(world.core);
        if (effect.kind == LKD_EFFECT_DISCONNECT)
            disconnect(effect.session);
        if (effect.kind == LKD_EFFECT_MAKE_SEGMENT)
            make(&effect);
        if (effect.kind == LKD_EFFECT_GROW_SEGMENT && !world.growing_waits)
            grown(effect.segment, world.grow_result);
        if (effect.kind == LKD_EFFECT_DROP_SEGMENT) {
            cr_assert(ne(ptr, world.areas[effect.segment], NULL), "dropped what was not made");
            area_free(effect.segment);
        }
    }
}

void made(uint32_t segment, int result)
{
    struct lkd_segment_made answer = {.result = result};
    if (result == 0) {
        uint64_t bytes = world.area_bytes[segment];
        answer.area_base =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        cr_assert(ne(ptr, answer.area_base, MAP_FAILED));
        answer.area_fd = (int32_t)segment;
        answer.data_fd = LKD_NO_FD;
        answer.data_bytes = world.file_bytes;
        world.areas[segment] = answer.area_base;
    }
    world.in_core = true;
    lkd_core_segment_made(world.core, segment, &answer, world.now_ns);
    world.in_core = false;
    drain();
}

void grown(uint32_t segment, int result)
{
    world.in_core = true;
    lkd_core_segment_grown(world.core, segment, result, world.now_ns);
    world.in_core = false;
    drain();
}

/* --- Events --- */

uint64_t connect_peer(const struct lkd_peer *peer)
{
    uint64_t session = 0;
    world.in_core = true;
    int r = lkd_core_session_opened(world.core, peer, world.now_ns, &session);
    if (r == 0)
        lkd_core_session_fds(
            world.core, session,
            &(struct lkd_session_fds){.socket_fd = (int)session, .pidfd = (int)session});
    world.in_core = false;
    if (world.fail_one_in == 0 && !(world.scarce && r == -EDQUOT))
        cr_assert(eq(int, r, 0));
    drain();
    return r == 0 ? session : 0;
}

static void greet(uint64_t session)
{
    struct lki_message hello = {
        .type = LKI_REQUEST_HELLO,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR, .layout_major = LKI_LAYOUT_MAJOR},
    };
    uint64_t id = send_message(session, hello);
    cr_assert(eq(ptr, (void *)reply(session, id), NULL), "a hello is answered only when refused");
}

uint64_t connect_member(uint32_t uid, uint64_t process, uint32_t group)
{
    struct lkd_peer peer = {
        .pid = (int32_t)process,
        .uid = uid,
        .gid = uid,
        .groups = &group,
        .group_count = group != 0,
        .process = process,
        .command = "worker",
    };
    uint64_t session = connect_peer(&peer);
    if (session < SEGMENTS)
        world.group_of[session] = group;
    greet(session);
    return session;
}

uint64_t connect_as(uint32_t uid, uint64_t process)
{
    return connect_member(uid, process, 0);
}

static void deliver(uint64_t session, const struct lki_message *message,
                    const struct lkd_offer *offer)
{
    world.in_core = true;
    lkd_core_message(world.core, session, message, offer, world.now_ns);
    world.in_core = false;
    drain();
}

uint64_t send_offer(uint64_t session, struct lki_message message, const struct lkd_offer *offer)
{
    message.id = ++world.last_id;
    deliver(session, &message, offer);
    return message.id;
}

void send_again(uint64_t session, const struct lki_message *message)
{
    deliver(session, message, NULL);
}

uint64_t send_message(uint64_t session, struct lki_message message)
{
    return send_offer(session, message, NULL);
}

void lose(uint64_t session)
{
    disconnect(session);
    drain();
}

void drop(uint64_t session, const char *reason)
{
    world.in_core = true;
    lkd_core_session_dropped(world.core, session, reason, world.now_ns);
    world.in_core = false;
    drain();
}

void end_process(uint64_t process)
{
    world.in_core = true;
    lkd_core_process_ended(world.core, process, world.now_ns);
    world.in_core = false;
    drain();
}

void signaled(uint64_t process, int signal, int result)
{
    world.in_core = true;
    lkd_core_process_signaled(world.core, process, signal, result, world.now_ns);
    world.in_core = false;
    drain();
}

void looked(uint64_t process, enum lkd_process_state state)
{
    world.in_core = true;
    lkd_core_process_looked(world.core, process, state, world.now_ns);
    world.in_core = false;
    drain();
}

void tick_slice(uint32_t locks)
{
    world.in_core = true;
    lkd_core_tick(world.core, world.now_ns, locks);
    world.in_core = false;
    drain();
}

void tick(void)
{
    tick_slice(1u << 16);
}

void work(void)
{
    for (int i = 0; lkd_core_deadline_ns(world.core) <= world.now_ns; i++) {
        cr_assert(lt(int, i, 100000), "the work does not end");
        tick();
    }
}

void pass(uint64_t ns)
{
    uint64_t until = world.now_ns + ns;
    uint64_t next;
    while ((next = lkd_core_deadline_ns(world.core)) <= until) {
        if (next > world.now_ns)
            world.now_ns = next;
        tick();
    }
    world.now_ns = until;
}

/* --- The worker's death --- */

void crash(void)
{
    world.in_core = false;
    world.dies_at = 0;
    world.core = NULL;
    world_free_all();
}

static int adopt_segments(void)
{
    struct lkd_left_segment left;
    bool is_left[SEGMENTS] = {false};
    for (uint32_t cursor = 0; lkd_core_next_left_segment(world.core, &cursor, &left);) {
        cr_assert(ne(ptr, world.areas[left.number], NULL));
        cr_assert(eq(u64, left.area_bytes, world.area_bytes[left.number]));
        is_left[left.number] = true;
        int r = lkd_core_adopt_segment(world.core, &left, world.areas[left.number]);
        if (r < 0)
            return r;
    }
    for (uint32_t i = 0; i < SEGMENTS; i++)
        if (!is_left[i])
            area_free(i);
    return 0;
}

static int adopt_sessions(void)
{
    struct lkd_left_session left;
    for (uint32_t cursor = 0; lkd_core_next_left_session(world.core, &cursor, &left);) {
        uint64_t number = (uint64_t)left.pidfd;
        uint32_t group = number < SEGMENTS ? world.group_of[number] : 0;
        const struct lkd_peer peer = {.pid = left.pid,
                                      .uid = left.uid,
                                      .gid = left.gid,
                                      .groups = &group,
                                      .group_count = group != 0,
                                      .process = (uint64_t)left.pid};
        uint64_t session = 0;
        int r = lkd_core_adopt_session(world.core, &left, &peer, &session);
        if (r < 0)
            return r;
        cr_assert(eq(u64, session, number), "a session's number has changed");
        world.left_sessions[world.left_count++] = number;
    }
    return 0;
}

static int adopt_all(bool faulty)
{
    int r = lkd_core_new(&world.config, &world.core);
    if (r < 0)
        return r;
    cr_assert(lkd_core_is_successor(world.core));
    lkd_core_blame(world.core, faulty);
    world.left_count = 0;
    r = adopt_segments();
    if (r == 0)
        r = adopt_sessions();
    return r == 0 ? lkd_core_adopt(world.core, world.now_ns) : r;
}

int attempt_take_over(bool faulty)
{
    world.in_core = true;
    int r = adopt_all(faulty);
    world.in_core = false;
    if (r == 0)
        drain();
    else
        crash();
    return r;
}

static void take_over_after(bool faulty)
{
    int r = attempt_take_over(faulty);
    cr_assert(eq(int, r, 0));
}

void take_over(void)
{
    take_over_after(false);
}

void take_over_faulty(void)
{
    take_over_after(true);
}

void resume_as(uint64_t session, uint32_t number)
{
    const struct lki_message message = {.type = LKI_REQUEST_RESUME, .as.resume.number = number};
    send_again(session, &message);
}

void resume(uint64_t session)
{
    const struct lkd_ledger_header *header = world.ledger;
    uint32_t number = atomic_load(&header->restarts);
    resume_as(session, number);
}

uint64_t resumed_count(uint64_t session)
{
    uint64_t count = 0;
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        count += effect->kind == LKD_EFFECT_SEND && effect->session == session &&
                 effect->message.type == LKI_REPLY_RESUMED;
    }
    return count;
}

#define COUNT_USED(records, used)                                                                  \
    for (uint32_t i = 0; i < (used); i++)                                                          \
    count += lkd_record_state(&(records)[i].state) != LKD_RECORD_FREE

uint32_t count_records(void)
{
    struct lkd_ledger ledger;
    uint32_t count = 0;
    int r = lkd_ledger_view(&ledger, world.ledger, &world.config.limits);
    cr_assert(eq(int, r, 1));
    COUNT_USED(ledger.sessions, ledger.header->sessions_used);
    COUNT_USED(ledger.segments, ledger.header->segments_used);
    COUNT_USED(ledger.attachments, ledger.header->attachments_used);
    return count;
}

/* --- A native client --- */

static bool nudge_needed;

static void wake_from_native(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    nudge_needed |= brokered;
}

/* What a client library does after its own step woke a brokered waiter. */
static void nudge_if_needed(struct native *native)
{
    if (!nudge_needed)
        return;
    nudge_needed = false;
    request_segment(native->session, LKI_REQUEST_NUDGE, native->segment);
}

void native_init(struct native *native, uint64_t session, const struct lki_opened *attached)
{
    memset(native, 0, sizeof(*native));
    native->session = session;
    native->segment = attached->segment;
    int r = lki_area_view(world.areas[attached->segment], attached->area_bytes, &native->area);
    cr_assert(eq(int, r, 0));
    cr_assert(lki_party_init(&native->party, &native->area, attached->attachment, wake_from_native,
                             NULL));
}

enum lki_verdict native_try(struct native *native, uint32_t lock, enum lki_mode mode)
{
    enum lki_verdict verdict = lki_lock_try(&native->party, lock, mode, LKI_HOLD_DATA);
    nudge_if_needed(native);
    return verdict;
}

void native_wait(struct native *native, uint32_t lock, enum lki_mode mode)
{
    enum lki_verdict verdict = lki_wait_begin(&native->wait, &native->party, lock, mode,
                                              LKI_HOLD_DATA, world.now_ns, LKI_TIME_NEVER);
    cr_assert(eq(int, verdict, LKI_SLEEP));
    cr_assert(eq(int, native_step(native), LKI_SLEEP));
}

enum lki_verdict native_step(struct native *native)
{
    struct lki_sleep sleep;
    enum lki_verdict verdict = lki_wait_step(&native->wait, world.now_ns, &sleep);
    nudge_if_needed(native);
    return verdict;
}

void native_release(struct native *native, uint32_t lock)
{
    enum lki_verdict verdict = lki_lock_release(&native->party, lock);
    cr_assert(eq(int, verdict, LKI_RELEASED));
    nudge_if_needed(native);
}
