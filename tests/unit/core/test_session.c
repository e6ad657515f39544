/* SPDX-License-Identifier: MIT */
/* Sessions and attachments: greeting, leaving, being lost, dying; slots and generations. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"

TestSuite(session, .init = world_setup, .fini = world_teardown, .timeout = 60);

static const struct lkd_peer stranger = {.pid = 9, .uid = 1000, .process = 9, .command = "x"};

static void expect_gone(uint64_t session, const char *reason)
{
    const struct recorded *end = last_effect(LKD_EFFECT_DISCONNECT);
    cr_assert(ne(ptr, (void *)end, NULL), "still connected");
    cr_expect(eq(u64, end->effect.session, session));
    cr_expect(ne(ptr, strstr(end->effect.text, reason), NULL), "%s", end->effect.text);
    cr_expect(eq(u64, last_effect(LKD_EFFECT_FORGET_SESSION)->effect.session, session));
}

Test(session, begins_with_a_hello)
{
    uint64_t a = connect_peer(&stranger);
    request_open(a, "x", LK_CREATE);
    expect_gone(a, "hello");
    cr_expect(eq(sz, count_effects(LKD_EFFECT_MAKE_SEGMENT), 0));
}

Test(session, of_another_version_is_refused_in_words)
{
    uint64_t a = connect_peer(&stranger);
    struct lki_message hello = {
        .type = LKI_REQUEST_HELLO,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR + 1, .layout_major = LKI_LAYOUT_MAJOR}};
    uint64_t id = send_message(a, hello);
    EXPECT_STATUS(a, id, LKI_STATUS_VERSION);
    expect_gone(a, "version");
    uint64_t b = connect_peer(&stranger);
    hello.as.hello = (struct lki_hello){.protocol_major = LKI_PROTOCOL_MAJOR,
                                        .layout_major = LKI_LAYOUT_MAJOR + 1};
    EXPECT_STATUS(b, send_message(b, hello), LKI_STATUS_VERSION);
}

Test(session, minor_version_does_not_matter)
{
    uint64_t a = connect_peer(&stranger);
    struct lki_message hello = {.type = LKI_REQUEST_HELLO,
                                .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                                             .protocol_minor = 99,
                                             .layout_major = LKI_LAYOUT_MAJOR}};
    send_message(a, hello);
    opened(a, "x", LK_CREATE);
}

Test(session, that_breaks_the_rules_is_disconnected)
{
    static const struct {
        const char *row, *reason;
        enum lki_message_type type;
    } rows[] = {
        {"second hello", "hello", LKI_REQUEST_HELLO},
        {"a reply", "not a request", LKI_REPLY_GRANTED},
        {"nothing", "not a request", LKI_MESSAGE_NONE},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t a = connect_as(1000, 1);
        send_message(a, (struct lki_message){.type = rows[i].type});
        expect_gone(a, rows[i].reason);
    }
    uint64_t a = connect_as(1000, 1);
    world.last_id -= 1;
    request_open(a, "x", LK_CREATE);
    expect_gone(a, "rise");
}

Test(session, numbers_are_bounded_and_never_used_twice)
{
    world_teardown();
    world_setup_with(&(struct lkd_core_config){.broker_uid = 1000, .limits.max[LKD_SESSIONS] = 2});
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 1), c;
    int r = lkd_core_session_opened(world.core, &stranger, world.now_ns, &c);
    cr_expect(eq(int, r, -EDQUOT));
    lose(b);
    c = connect_peer(&stranger);
    cr_expect(ne(u64, c, b));
    cr_expect(ne(u64, c, a));
}

Test(session, without_attachments_is_forgotten_when_lost)
{
    uint64_t a = connect_as(1000, 1);
    lose(a);
    cr_expect(eq(u64, last_effect(LKD_EFFECT_FORGET_SESSION)->effect.session, a));
    lose(a);
    request_open(a, "x", LK_CREATE);
    end_process(1);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 1));
}

Test(session, is_attached_from_its_first_open_until_nothing_of_it_is_left)
{
    uint64_t a = connect_as(1000, 1);
    cr_expect(not(lkd_core_session_is_attached(world.core, a)));
    struct lki_opened at_a = opened(a, "x", LK_CREATE);
    cr_expect(lkd_core_session_is_attached(world.core, a));
    request_segment(a, LKI_REQUEST_DETACH, at_a.segment);
    work();
    cr_expect(not(lkd_core_session_is_attached(world.core, a)));

    opened(a, "x", LK_CREATE);
    lose(a); /* what it might hold stays */
    cr_expect(lkd_core_session_is_attached(world.core, a));
    end_process(1);
    work();
    cr_expect(not(lkd_core_session_is_attached(world.core, a)), "it is forgotten");
}

Test(session, lost_while_holding_holds_until_its_process_ends)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native holder, other;
    native_init(&holder, a, &at_a);
    native_init(&other, b, &at_b);
    cr_assert(eq(int, native_try(&holder, 0, LKI_MODE_EXCLUSIVE), LKI_TAKEN));

    lose(a);
    work();
    cr_expect(eq(int, native_try(&other, 0, LKI_MODE_EXCLUSIVE), LKI_BUSY));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 0));

    end_process(1);
    work();
    cr_expect(eq(int, native_try(&other, 0, LKI_MODE_EXCLUSIVE), LKI_TAKEN_DIED));
    cr_expect(eq(u32, other.area.cold[0].recovery_cause, LKI_CAUSE_EXITED));
    cr_expect(eq(i32, other.area.cold[0].recovery_pid, 1));
    cr_expect(eq(u64, last_effect(LKD_EFFECT_FORGET_SESSION)->effect.session, a));
    cr_expect(ne(ptr, strstr(last_effect(LKD_EFFECT_LOG)->detail, "pid 1"), NULL));
}

Test(session, end_of_a_process_ends_all_its_sessions)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 1), c = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    opened(b, "y", LK_CREATE);
    opened(c, "x", 0);
    end_process(1);
    end_process(1);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 2));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 2));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
    opened(c, "z", LK_CREATE);
}

Test(session, of_a_process_that_has_ended_is_turned_away)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    end_process(1);
    struct lkd_peer late = {.pid = 1, .uid = 1000, .process = 1, .command = "late"};
    uint64_t b = connect_peer(&late);
    expect_gone(b, "ended");
    request_segment(a, LKI_REQUEST_DETACH, at.segment); /* still in the socket: not heard */
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 2));
}

Test(session, goodbye_is_answered_when_all_is_clean)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native holder, other;
    native_init(&holder, a, &at_a);
    native_init(&other, b, &at_b);
    native_try(&holder, 0, LKI_MODE_EXCLUSIVE);
    native_wait(&other, 0, LKI_MODE_EXCLUSIVE);

    uint64_t bye = request_goodbye(a);
    cr_expect(eq(ptr, (void *)reply(a, bye), NULL));
    request_open(a, "y", LK_CREATE);
    work();

    EXPECT_STATUS(a, bye, LKI_STATUS_OK);
    expect_gone(a, "goodbye");
    cr_expect(eq(sz, count_wakes(at_b.segment, 2), 1));
    cr_expect(eq(int, native_step(&other), LKI_TAKEN_DIED), "a hold is never silently released");
    cr_expect(eq(u32, other.area.cold[0].recovery_cause, LKI_CAUSE_CLOSED));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_MAKE_SEGMENT), 1), "nothing after goodbye is heard");
}

Test(session, goodbye_interrupted_by_death_is_cleaned_up_once)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    uint64_t bye = request_goodbye(a);
    end_process(1);
    work();
    cr_expect(eq(ptr, (void *)reply(a, bye), NULL));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 1));
}

/* --- Attachments --- */

Test(session, lowest_free_slot_comes_first_and_generations_rise)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened first = opened(a, "x", LK_CREATE), second = opened(b, "x", 0);
    cr_expect(eq(u32, first.attachment, 1u << 16 | 1));
    cr_expect(eq(u32, second.attachment, 1u << 16 | 2));
    for (uint32_t i = 2; i <= 2 * LKI_GENERATION_MAX; i++) {
        request_segment(a, LKI_REQUEST_DETACH, first.segment);
        work();
        forget_effects();
        uint32_t generation = (i - 1) % LKI_GENERATION_MAX + 1;
        uint32_t id = opened(a, "x", 0).attachment;
        cr_assert(eq(u32, id, generation << 16 | 1), "never 0, also when it comes round");
    }
}

Test(session, slot_is_given_again_only_after_its_repair)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.locks = 100;
    send_message(a, create);
    opened(b, "x", 0);
    end_process(1);
    tick_slice(10);
    cr_expect(eq(u32, opened(c, "x", 0).attachment & LKI_SLOT_MASK, 3));
    work();
    uint64_t d = connect_as(1000, 4);
    cr_expect(eq(u32, opened(d, "x", 0).attachment, 2u << 16 | 1));
}

Test(session, full_table_is_refused_with_its_maximum)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.attachments_max = 2;
    EXPECT_STATUS(a, send_message(a, create), LKI_STATUS_OK);
    opened(b, "x", 0);
    uint64_t id = request_open(c, "x", 0);
    EXPECT_STATUS(c, id, LKI_STATUS_FULL);
    cr_expect(ne(ptr, strstr(detail_of(c, id), "all of its 2"), NULL), "%s", detail_of(c, id));
    end_process(1);
    EXPECT_STATUS(c, request_open(c, "x", 0), LKI_STATUS_FULL);
    work();
    opened(c, "x", 0);
}

Test(session, largest_table_of_attachments_fills_to_the_last_slot)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message create = open_message("x", LK_CREATE | LK_STRICT);
    create.as.open.attachments_max = 5;
    create.as.open.locks = 64;
    uint64_t id = send_message(a, create);
    uint32_t segment = reply(a, id)->effect.message.as.opened.segment;
    for (uint32_t lock = 0; lock < 4; lock++)
        EXPECT_STATUS(a, request_async(a, segment, lock, LKI_MODE_EXCLUSIVE, 0), LKI_STATUS_OK);
    uint64_t beyond = request_async(a, segment, 4, LKI_MODE_EXCLUSIVE, 0);
    EXPECT_STATUS(a, beyond, LKI_STATUS_FULL);
}

Test(session, detach_is_answered_after_the_repair)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, at.segment);
    cr_expect(eq(ptr, (void *)reply(a, id), NULL));
    EXPECT_STATUS(a, request_segment(a, LKI_REQUEST_DETACH, at.segment), LKI_STATUS_STALE);
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
}

Test(session, requests_about_a_segment_not_open_are_stale)
{
    static const enum lki_message_type types[] = {
        LKI_REQUEST_PUBLISH,    LKI_REQUEST_DETACH,          LKI_REQUEST_GROW,
        LKI_REQUEST_LOCK_NAMED, LKI_REQUEST_ACQUIRE,         LKI_REQUEST_RELEASE,
        LKI_REQUEST_DECLARE,    LKI_REQUEST_MARK_CONSISTENT, LKI_REQUEST_HOLDER,
    };
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct lki_message message = {.type = types[i]};
        message.as.segment_ref.segment = at.segment; /* the first field of them all */
        uint64_t id = send_message(b, message);
        cr_expect(eq(int, status_of(b, id), LKI_STATUS_STALE), "row %zu", i);
    }
    size_t sent = count_effects(LKD_EFFECT_SEND);
    request_ask(b, at.segment, 0, 0);
    request_segment(b, LKI_REQUEST_NUDGE, at.segment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SEND), sent), "one-way requests have no answer");
}

Test(session, idle_core_needs_no_timer)
{
    for (uint64_t process = 1; process <= 100; process++)
        opened(connect_as(1000, process), "x", LK_CREATE);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

/* --- What the driver tells --- */

static const char *command_of(uint64_t viewer, uint32_t segment)
{
    const struct recorded *answer = reply(viewer, request_holder(viewer, segment, 0));
    return answer->detail;
}

Test(session, has_the_command_that_its_process_has_now)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native native;
    native_init(&native, a, &at);
    native_try(&native, 0, LKI_MODE_EXCLUSIVE);
    cr_assert(eq(str, (char *)command_of(a, at.segment), "worker"));
    lkd_core_session_renamed(world.core, a, "make");
    cr_expect(eq(str, (char *)command_of(a, at.segment), "make"));
    lkd_core_session_renamed(world.core, a + 1, "nobody");
    lkd_core_session_renamed(world.core, a, "a command that is longer than thirty-one bytes");
    cr_expect(eq(str, (char *)command_of(a, at.segment), "a command that is longer than t"));
    crash();
    take_over();
    resume(a);
    cr_expect(eq(str, (char *)command_of(a, at.segment), "a command that is longer than t"),
              "another worker knows it too");
}

Test(session, that_is_not_known_is_not_dropped)
{
    uint64_t a = connect_as(1000, 1);
    drop(a + 1, "it is nobody");
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 0));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 0));
    drop(a, "it sends nonsense");
    drop(a, "once more");
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 1));
}
