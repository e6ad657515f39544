/* SPDX-License-Identifier: MIT */
/* Random events in random order, with every invariant checked after each. In the end all processes
 * die, and nothing may be left. With LK_SEED=n in the environment that seed alone is run. */
#include "world.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define LOCKS 6u
#define SESSIONS 12
#define PROCESSES 5u
#define NAMES 4u
#define STEPS 4000

TestSuite(random, .init = world_setup, .fini = world_teardown, .timeout = 300);

static unsigned seed;

static uint32_t below(uint32_t count)
{
    return (uint32_t)rand_r(&seed) % count;
}

struct member {
    uint64_t session; /* 0: none */
    uint64_t process;
    uint64_t acquires[4]; /* ids of some requests, to cancel */
};

static struct member members[SESSIONS];
static uint64_t process_numbers[PROCESSES];
static uint64_t last_process;
static uint32_t segments[64]; /* numbers seen */
static size_t segment_count;
static uint32_t holds[64][3]; /* segment, lock, attachment of grants seen */
static size_t hold_count;

/* Looks through what came since the last look. */
static void learn(void)
{
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        if (effect->kind == LKD_EFFECT_DISCONNECT) {
            for (int k = 0; k < SESSIONS; k++)
                if (members[k].session == effect->session)
                    members[k].session = 0;
        }
        if (effect->kind != LKD_EFFECT_SEND)
            continue;
        if (effect->message.type == LKI_REPLY_OPENED)
            segments[segment_count++ % 64] = effect->message.as.opened.segment;
        if (effect->message.type == LKI_REPLY_GRANTED)
            holds[hold_count++ % 64][2] = effect->message.as.granted.attachment;
    }
    forget_effects();
}

static void connect_one(struct member *member)
{
    uint32_t which = below(PROCESSES);
    struct lkd_peer peer = {.uid = 1000 + below(2), .gid = 1000, .command = "random"};
    peer.process = process_numbers[which];
    peer.pid = (int32_t)peer.process;
    member->process = peer.process;
    member->session = connect_peer(&peer);
    if (member->session)
        send_message(member->session, (struct lki_message){
                                          .type = LKI_REQUEST_HELLO,
                                          .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                                                       .layout_major = LKI_LAYOUT_MAJOR},
                                      });
}

static void open_one(uint64_t session)
{
    static const char *const names[NAMES] = {"x", "~1000/y", "~1001/y", "z"};
    static const uint32_t flags[] = {
        LK_CREATE,
        0,
        LK_CREATE | LK_KEEP,
        LK_CREATE | LK_STRICT,
        LK_CREATE | LK_UNPUBLISHED,
        LK_READ_ONLY,
        LK_CREATE_NEW | LK_UNPUBLISHED | LK_KEEP,
    };
    uint32_t which = below(NAMES);
    struct lki_message message =
        open_message(names[which], flags[below(7)] | (below(2) ? LK_ACCEPT_KILL : 0));
    if (which > 0) { /* one name for each policy, and one without a lease */
        message.as.open.lease_ns = 5 * LKI_NS_PER_MS;
        message.as.open.on_expiry = which - 1;
    }
    message.as.open.locks = LOCKS;
    message.as.open.attachments_max = 8;
    message.as.open.mode = 0666;
    message.as.open.size_bytes = below(2) * 4096;
    message.as.open.size_max_bytes = message.as.open.size_bytes * 4;
    send_message(session, message);
}

static void lock_something(struct member *member, uint32_t segment)
{
    uint64_t deadline = below(3) ? LKI_TIME_NEVER : world.now_ns + below(3) * LKI_NS_PER_MS;
    uint32_t mode = 1 + below(2);
    uint32_t lock = below(LOCKS);
    uint64_t id = below(2) ? request_async(member->session, segment, lock, mode, deadline)
                           : request_acquire(member->session, segment, lock, mode, deadline);
    member->acquires[below(4)] = id;
    holds[hold_count % 64][0] = segment;
    holds[hold_count % 64][1] = lock;
}

static void use_hold(uint64_t session)
{
    static const enum lki_message_type types[] = {LKI_REQUEST_RELEASE, LKI_REQUEST_RELEASE,
                                                  LKI_REQUEST_MARK_CONSISTENT, LKI_REQUEST_DECLARE};
    const uint32_t *hold = holds[below(64)];
    request_hold(session, types[below(4)], hold[0], hold[1], hold[2]);
}

static void scribble(uint32_t segment)
{
    struct lki_header *header = world.areas[segment];
    struct lki_area area;
    if (!header || lki_area_view(header, world.area_bytes[segment], &area) < 0)
        return;
    struct lki_attachment *victim = &area.attachments[1 + below(area.attachments_max)];
    switch (below(5)) {
    case 0:
        area.hot[below(area.locks)].word = (uint32_t)rand_r(&seed);
        break;
    case 1:
        victim->wait = (uint64_t)rand_r(&seed) << 33 | (uint64_t)rand_r(&seed);
        break;
    case 2:
        victim->cells[below(LKI_SHARED_HOLDS_MAX)] = (uint32_t)rand_r(&seed);
        break;
    case 3:
        victim->id = (uint32_t)rand_r(&seed);
        break;
    case 4:
        header->attachments_used = (uint32_t)rand_r(&seed);
        break;
    }
}

static void message_one(struct member *member, bool scribbles)
{
    uint64_t session = member->session;
    uint32_t segment = segments[below(64)];
    switch (below(21)) {
    case 0:
    case 1:
    case 2:
        open_one(session);
        break;
    case 3:
        request_segment(session, LKI_REQUEST_DETACH, segment);
        break;
    case 4:
        request_segment(session, LKI_REQUEST_PUBLISH, segment);
        break;
    case 5:
        request_remove(session, below(2) ? "x" : "~1000/y");
        break;
    case 6:
        request_grow(session, segment, below(5) * 4096);
        break;
    case 7:
        request_lock_named(session, segment, below(2) ? "one" : "two");
        break;
    case 8:
    case 9:
    case 10:
    case 11:
        lock_something(member, segment);
        break;
    case 12:
        request_cancel(session, member->acquires[below(4)]);
        break;
    case 13:
    case 14:
        use_hold(session);
        break;
    case 15:
        request_ask(session, segment, below(LOCKS),
                    below(2) ? holds[below(64)][2] : below(1 << 20));
        break;
    case 16:
        request_segment(session, LKI_REQUEST_NUDGE, segment);
        if (below(8) == 0)
            request_monitor(session, below(2) ? "" : "x");
        break;
    case 17:
        request_holder(session, segment, below(LOCKS));
        send_message(session, (struct lki_message){.type = LKI_REQUEST_DEADLOCK_CHECK,
                                                   .as.lock_ref = {segment, below(LOCKS)}});
        request_list(session, 1 + below(4), "", (uint64_t)rand_r(&seed) << 20);
        break;
    case 18:
        if (below(4) == 0)
            request_goodbye(session);
        break;
    case 20:
        request_force(session, below(2) ? "x" : "~1000/y", below(LOCKS), "at random");
        break;
    case 19:
        if (scribbles)
            scribble(segment);
        break;
    }
}

/* Answers one of the segments that the driver was asked to make or grow and has not. */
static void answer_driver(uint32_t *pending, size_t *count, void (*answer)(uint32_t, int))
{
    if (*count == 0)
        return;
    size_t at = below((uint32_t)*count);
    uint32_t segment = pending[at];
    pending[at] = pending[--*count];
    answer(segment, below(4) ? 0 : -12 /* ENOMEM */);
}

static uint32_t to_make[4096], to_grow[4096];
static size_t make_count, grow_count;

static void note_driver(void)
{
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        if (effect->kind == LKD_EFFECT_MAKE_SEGMENT && world.making_waits)
            to_make[make_count++] = effect->segment;
        if (effect->kind == LKD_EFFECT_GROW_SEGMENT && world.growing_waits)
            to_grow[grow_count++] = effect->segment;
    }
}

static void step(bool scribbles)
{
    struct member *member = &members[below(SESSIONS)];
    uint32_t what = below(100);
    if (what < 70) {
        if (member->session)
            message_one(member, scribbles);
        else
            connect_one(member);
    } else if (what < 80) {
        tick_slice(1 + below(8));
    } else if (what < 88) {
        world.now_ns += below(20) * LKI_NS_PER_MS;
        tick();
    } else if (what < 89) {
        looked(process_numbers[below(PROCESSES)], (enum lkd_process_state)below(4));
    } else if (what < 90) {
        signaled(process_numbers[below(PROCESSES)], below(2) ? SIGTERM : SIGKILL,
                 below(2) ? 0 : -EPERM);
    } else if (what < 92) {
        answer_driver(to_make, &make_count, made);
    } else if (what < 95) {
        answer_driver(to_grow, &grow_count, grown);
    } else if (what < 98) {
        if (member->session)
            lose(member->session);
        member->session = 0;
    } else {
        uint32_t which = below(PROCESSES);
        end_process(process_numbers[which]);
        process_numbers[which] = ++last_process;
    }
    note_driver();
    learn();
}

/* Everybody dies; what is kept is removed; nothing is left. */
static void finish(void)
{
    world.fail_one_in = 0;
    world.making_waits = world.growing_waits = false; /* what one answer asks for is answered too */
    while (make_count > 0)
        made(to_make[--make_count], 0);
    while (grow_count > 0)
        grown(to_grow[--grow_count], 0);
    for (uint64_t process = 1; process <= last_process; process++)
        end_process(process);
    work();
    uint64_t root = connect_as(0, last_process + 1);
    static const char *const names[] = {"~1000/x", "~1001/x", "~1000/y",
                                        "~1001/y", "~1000/z", "~1001/z"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        request_remove(root, names[i]);
    const struct recorded *page = reply(root, request_list(root, LKI_LIST_BROKER, "", 0));
    cr_expect(eq(u32, page->entries[0].waiters, 1), "seed %u: sessions are left", world.seed);
    cr_expect(eq(u32, page->entries[0].attachments, 0), "seed %u: segments are left", world.seed);
    for (size_t i = 0; i < sizeof(world.areas) / sizeof(world.areas[0]); i++)
        cr_assert(eq(ptr, world.areas[i], NULL), "memory of segment %zu is left", i);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

static void run(unsigned with_seed, uint32_t fail_one_in, bool scribbles)
{
    fprintf(stderr, "seed %u\n", with_seed);
    seed = with_seed;
    memset(members, 0, sizeof(members));
    memset(holds, 0, sizeof(holds));
    make_count = grow_count = segment_count = hold_count = 0;
    last_process = 0;
    for (uint32_t i = 0; i < PROCESSES; i++)
        process_numbers[i] = ++last_process;
    world.seed = with_seed;
    world.fail_one_in = fail_one_in;
    for (int i = 0; i < STEPS; i++) {
        if (i % 500 == 0)
            world.making_waits = world.growing_waits = below(2);
        step(scribbles);
    }
    finish();
}

/* So little of everything that each limit is met now and then. */
static void scarce_setup(void)
{
    static const struct lkd_core_config config = {
        .broker_uid = 1000,
        .token_epoch_s = 1000,
        .hash_seed = 4711,
        .limits.max = {[LKD_SESSIONS] = 14,
                       [LKD_SEGMENTS] = 4,
                       [LKD_BYTES] = 200000,
                       [LKD_LOCKS] = 30,
                       [LKD_ATTACHMENTS] = 24,
                       [LKD_WAITS] = 6},
    };
    world_setup_with(&config);
    world.scarce = true;
}

static void run_scarce(unsigned with_seed, uint32_t fail_one_in)
{
    world_teardown();
    scarce_setup();
    run(with_seed, fail_one_in, false);
}

static void run_seeds(unsigned first, uint32_t fail_one_in, bool scribbles)
{
    const char *only = getenv("LK_SEED");
    unsigned count = only ? 1 : 6;
    if (only)
        first = (unsigned)strtoul(only, NULL, 10);
    for (unsigned i = 0; i < count; i++) {
        if (i > 0) {
            world_teardown();
            world_setup();
        }
        run(first + i, fail_one_in, scribbles);
    }
}

Test(random, events_keep_every_invariant)
{
    run_seeds(100, 0, false);
}

Test(random, events_keep_every_invariant_while_memory_runs_out)
{
    run_seeds(200, 5, false);
}

Test(random, events_keep_every_invariant_while_clients_scribble)
{
    run_seeds(300, 0, true);
}

Test(random, events_keep_every_invariant_while_quotas_are_scarce)
{
    const char *only = getenv("LK_SEED");
    if (only) {
        run_scarce((unsigned)strtoul(only, NULL, 10), 0);
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        run_scarce(400 + i, i % 2 ? 5 : 0);
}
