/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"

struct world world;

/* The linker puts these in the place of the allocator for all that is linked in (--wrap), so that
 * memory can run out inside the core, and there alone. */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static bool runs_out(void)
{
    if (!world.in_core || world.fail_one_in == 0)
        return false;
    return (uint32_t)rand_r(&world.seed) % world.fail_one_in == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return runs_out() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return runs_out() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return runs_out() ? NULL : __real_realloc(old, bytes);
}

void world_setup_with(const struct lkd_core_config *config)
{
    memset(&world, 0, sizeof(world));
    world.now_ns = 1000 * LKI_NS_PER_S;
    struct lkd_core_config own = *config;
    world.ledger_bytes = lkd_ledger_bytes(&own.limits);
    world.ledger = mmap(NULL, world.ledger_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(ne(ptr, world.ledger, MAP_FAILED));
    own.ledger = world.ledger;
    world.config = own;
    cr_assert(eq(int, lkd_core_new(&own, &world.core), 0));
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
    free(world.records);
    world.records = NULL;
    world.record_count = 0;
}

void world_teardown(void)
{
    world.core = lkd_core_free(world.core);
    forget_effects();
    munmap(world.ledger, world.ledger_bytes);
    for (size_t i = 0; i < sizeof(world.areas) / sizeof(world.areas[0]); i++)
        free(world.areas[i]);
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
    world.records = realloc(world.records, (world.record_count + 1) * sizeof(*world.records));
    cr_assert(ne(ptr, world.records, NULL));
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

/* Carries out what the core wants, as the real driver would between two events. */
static void drain(void)
{
    struct lkd_effect effect;

    lkd_core_check(world.core);
    while (lkd_core_next_effect(world.core, &effect)) {
        if (world.deaf && effect.message.type == LKI_REPLY_EVENT)
            lkd_core_events_lost(world.core, effect.session, effect.message.as.event.lost + 1);
        else
            record_effect(&effect);
        lkd_core_check(world.core);
        if (effect.kind == LKD_EFFECT_MAKE_SEGMENT)
            make(&effect);
        if (effect.kind == LKD_EFFECT_GROW_SEGMENT && !world.growing_waits)
            grown(effect.segment, world.grow_result);
        if (effect.kind == LKD_EFFECT_DROP_SEGMENT) {
            cr_assert(ne(ptr, world.areas[effect.segment], NULL), "dropped what was not made");
            free(world.areas[effect.segment]);
            world.areas[effect.segment] = NULL;
        }
    }
}

void made(uint32_t segment, int result)
{
    struct lkd_segment_made answer = {.result = result};
    if (result == 0) {
        uint64_t bytes = world.area_bytes[segment];
        answer.area_base = aligned_alloc(4096, bytes);
        cr_assert(ne(ptr, answer.area_base, NULL));
        memset(answer.area_base, 0, bytes);
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
    greet(session);
    return session;
}

uint64_t connect_as(uint32_t uid, uint64_t process)
{
    return connect_member(uid, process, 0);
}

uint64_t send_offer(uint64_t session, struct lki_message message, const struct lkd_offer *offer)
{
    message.id = ++world.last_id;
    world.in_core = true;
    lkd_core_message(world.core, session, &message, offer, world.now_ns);
    world.in_core = false;
    drain();
    return message.id;
}

uint64_t send_message(uint64_t session, struct lki_message message)
{
    return send_offer(session, message, NULL);
}

void lose(uint64_t session)
{
    world.in_core = true;
    lkd_core_session_lost(world.core, session, world.now_ns);
    world.in_core = false;
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

/* --- Requests --- */

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){.data = (const uint8_t *)text, .length_bytes = strlen(text)};
}

struct lki_message open_message(const char *name, uint32_t flags)
{
    return (struct lki_message){
        .type = LKI_REQUEST_OPEN,
        .as.open = {.name = bytes_of(name), .flags = flags},
    };
}

uint64_t request_open(uint64_t session, const char *name, uint32_t flags)
{
    return send_message(session, open_message(name, flags));
}

uint64_t request_segment(uint64_t session, enum lki_message_type type, uint32_t segment)
{
    return send_message(session, (struct lki_message){.type = type, .as.segment_ref = {segment}});
}

uint64_t request_remove(uint64_t session, const char *name)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_REMOVE, .as.remove = {bytes_of(name)}});
}

uint64_t request_grow(uint64_t session, uint32_t segment, uint64_t size_bytes)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_GROW, .as.grow = {segment, size_bytes}});
}

uint64_t request_lock_named(uint64_t session, uint32_t segment, const char *name)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_LOCK_NAMED,
                                                      .as.lock_named = {segment, bytes_of(name)}});
}

static uint64_t acquire(uint64_t session, const struct lki_acquire *acquire)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_ACQUIRE, .as.acquire = *acquire});
}

uint64_t request_acquire(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                         uint64_t deadline_ns)
{
    return acquire(session,
                   &(struct lki_acquire){
                       .segment = segment, .lock = lock, .mode = mode, .deadline_ns = deadline_ns});
}

uint64_t request_async(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                       uint64_t deadline_ns)
{
    return acquire(session, &(struct lki_acquire){.segment = segment,
                                                  .lock = lock,
                                                  .mode = mode,
                                                  .asynchronous = true,
                                                  .deadline_ns = deadline_ns});
}

uint64_t request_hold(uint64_t session, enum lki_message_type type, uint32_t segment, uint32_t lock,
                      uint32_t attachment)
{
    return send_message(
        session, (struct lki_message){
                     .type = type,
                     .as.hold_ref = {.segment = segment, .lock = lock, .attachment = attachment}});
}

uint64_t request_cancel(uint64_t session, uint64_t request)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_CANCEL, .as.cancel = {request}});
}

uint64_t request_ask(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner)
{
    return request_complain(session, segment, lock, owner, 0);
}

uint64_t request_complain(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner,
                          uint64_t sequence)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_ASK,
                                                      .as.ask = {segment, lock, owner, sequence}});
}

uint64_t request_force(uint64_t session, const char *name, uint32_t lock, const char *reason)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_FORCE_RELEASE,
                                             .as.force_release = {.name = bytes_of(name),
                                                                  .lock = lock,
                                                                  .reason = bytes_of(reason)}});
}

uint64_t request_holder(uint64_t session, uint32_t segment, uint32_t lock)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_HOLDER, .as.lock_ref = {segment, lock}});
}

uint64_t request_list(uint64_t session, uint32_t what, const char *name, uint64_t cursor)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_LIST,
                                                      .as.list = {what, cursor, bytes_of(name)}});
}

uint64_t request_goodbye(uint64_t session)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_GOODBYE});
}

uint64_t request_monitor(uint64_t session, const char *name)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_MONITOR, .as.monitor = {bytes_of(name)}});
}

struct lki_opened opened(uint64_t session, const char *name, uint32_t flags)
{
    uint64_t id = request_open(session, name, flags);
    const struct recorded *answer = reply(session, id);
    cr_assert(ne(ptr, (void *)answer, NULL), "open is not answered");
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_OPENED), "%s", answer->detail);
    return answer->effect.message.as.opened;
}

/* --- What came of it --- */

const struct recorded *reply(uint64_t session, uint64_t id)
{
    const struct recorded *found = NULL;
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        if (effect->kind != LKD_EFFECT_SEND || effect->session != session ||
            effect->message.id != id)
            continue;
        cr_assert(eq(ptr, (void *)found, NULL), "answered twice");
        found = &world.records[i];
    }
    return found;
}

enum lki_status status_of(uint64_t session, uint64_t id)
{
    const struct recorded *answer = reply(session, id);
    cr_assert(ne(ptr, (void *)answer, NULL), "no answer yet");
    if (answer->effect.message.type == LKI_REPLY_GRANTED)
        return answer->effect.message.as.granted.status;
    if (answer->effect.message.type == LKI_REPLY_OPENED)
        return LKI_STATUS_OK;
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_RESULT));
    return answer->effect.message.as.result.status;
}

const char *detail_of(uint64_t session, uint64_t id)
{
    const struct recorded *answer = reply(session, id);
    return answer ? answer->detail : "no answer yet";
}

const struct recorded *next_event(uint64_t session, size_t *position)
{
    while (*position < world.record_count) {
        const struct recorded *record = &world.records[(*position)++];
        if (record->effect.kind == LKD_EFFECT_SEND && record->effect.session == session &&
            record->effect.message.type == LKI_REPLY_EVENT)
            return record;
    }
    return NULL;
}

size_t count_effects(enum lkd_effect_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++)
        count += world.records[i].effect.kind == kind;
    return count;
}

const struct recorded *last_effect(enum lkd_effect_kind kind)
{
    for (size_t i = world.record_count; i > 0; i--)
        if (world.records[i - 1].effect.kind == kind)
            return &world.records[i - 1];
    return NULL;
}

size_t count_wakes(uint32_t segment, uint32_t slot)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        count +=
            effect->kind == LKD_EFFECT_WAKE && effect->segment == segment && effect->slot == slot;
    }
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
