/* SPDX-License-Identifier: MIT */
/* Quotas as users meet them: each refusal says which limit, and does not touch the others; what
 * ends is given back; connections that never said anything make room. The world checks after every
 * event that accounts and objects agree. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/session.h"
#include "common/clock.h"

#define OWN 1000u /* the broker's */
#define GREEDY 1001u
#define OTHER 1002u

/* One resource is scarce; of the others there is enough. */
static void setup_with(enum lkd_resource scarce, uint64_t max)
{
    struct lkd_core_config config = {.broker_uid = OWN, .token_epoch_s = 1000};
    config.limits.max[scarce] = max;
    world_setup_with(&config);
}

TestSuite(fairness, .fini = world_teardown, .timeout = 60);

static int connect_silent(uint32_t uid, uint64_t process, uint64_t *out_session)
{
    struct lkd_peer peer = {.pid = (int32_t)process, .uid = uid, .gid = uid, .process = process};
    int r = lkd_core_session_opened(world.core, &peer, world.now_ns, out_session);
    lkd_core_check(world.core);
    return r;
}

static struct lki_message open_sized(const char *name, uint64_t size_bytes, uint64_t max_bytes,
                                     uint32_t locks)
{
    struct lki_message message = open_message(name, LK_CREATE);
    message.as.open.size_bytes = size_bytes;
    message.as.open.size_max_bytes = max_bytes;
    message.as.open.locks = locks;
    message.as.open.attachments_max = 8;
    message.as.open.mode = 0666;
    return message;
}

static uint64_t create_locks(uint64_t session, const char *name, uint32_t locks)
{
    return send_message(session, open_sized(name, 0, 0, locks));
}

/* It was refused, and the text has these words. */
static void expect_quota(uint64_t session, uint64_t id, const char *words)
{
    EXPECT_STATUS(session, id, LKI_STATUS_QUOTA);
    cr_expect(ne(ptr, strstr(detail_of(session, id), words), NULL), "'%s' is not in: %s", words,
              detail_of(session, id));
}

static uint32_t segment_of(uint64_t session, uint64_t id)
{
    const struct recorded *answer = reply(session, id);
    cr_assert(ne(ptr, (void *)answer, NULL));
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_OPENED), "%s", answer->detail);
    return answer->effect.message.as.opened.segment;
}

/* --- Each resource --- */

Test(fairness, sessions_of_one_user_leave_room_for_another)
{
    uint64_t session;
    setup_with(LKD_SESSIONS, 6);
    for (uint64_t process = 1; process <= 3; process++)
        connect_as(GREEDY, process);

    cr_expect(eq(int, connect_silent(GREEDY, 4, &session), -EDQUOT));
    const char *why = lkd_core_refusal(world.core);
    cr_expect(ne(ptr, strstr(why, "uid 1001 has 3 sessions and asks for 1 more"), NULL), "%s", why);

    uint64_t other = connect_as(OTHER, 5);
    opened(other, "x", LK_CREATE);
    cr_expect(eq(int, connect_silent(OTHER, 6, &session), -EDQUOT));
    connect_as(OWN, 7);
    connect_as(OWN, 8);
    cr_expect(eq(int, connect_silent(OWN, 9, &session), -EDQUOT));
    why = lkd_core_refusal(world.core);
    cr_expect(ne(ptr, strstr(why, "this broker has 6 sessions"), NULL), "%s", why);
}

Test(fairness, a_session_that_ends_makes_room)
{
    uint64_t session;
    setup_with(LKD_SESSIONS, 2);
    uint64_t first = connect_as(GREEDY, 1);
    cr_expect(eq(int, connect_silent(GREEDY, 2, &session), -EDQUOT));
    lose(first);
    cr_expect(eq(int, connect_silent(GREEDY, 2, &session), 0));
}

Test(fairness, a_lost_session_counts_while_its_process_lives)
{
    uint64_t session;
    setup_with(LKD_SESSIONS, 2);
    uint64_t first = connect_as(GREEDY, 1);
    opened(first, "x", LK_CREATE);
    lose(first);
    cr_expect(eq(int, connect_silent(GREEDY, 2, &session), -EDQUOT));
    end_process(1);
    work();
    cr_expect(eq(int, connect_silent(GREEDY, 2, &session), 0));
}

Test(fairness, segments)
{
    setup_with(LKD_SEGMENTS, 8); /* 4 for a user alone, of which 2 for a connection */
    uint64_t a = connect_as(GREEDY, 1), b = connect_as(GREEDY, 2), c = connect_as(GREEDY, 3);
    uint64_t other = connect_as(OTHER, 4);
    opened(a, "1", LK_CREATE);
    opened(a, "2", LK_CREATE);
    expect_quota(a, request_open(a, "3", LK_CREATE), "this connection has 2 segments");
    opened(b, "3", LK_CREATE);
    opened(c, "4", LK_CREATE);
    expect_quota(b, request_open(b, "5", LK_CREATE), "uid 1001 has 4 segments");
    opened(other, "1", LK_CREATE);
    expect_quota(other, request_open(other, "2", LK_CREATE), "uid 1002 has 1 segments");
    opened(b, "1", 0); /* joining costs no segment */
}

Test(fairness, locks)
{
    setup_with(LKD_LOCKS, 400); /* 200, 100 */
    uint64_t a = connect_as(GREEDY, 1), other = connect_as(OTHER, 2);
    expect_quota(a, create_locks(a, "x", 101), "this connection has 0 locks and asks for 101 more");
    segment_of(a, create_locks(a, "x", 100));
    expect_quota(a, create_locks(a, "y", 1), "its part is 100");
    segment_of(other, create_locks(other, "x", 50));
}

Test(fairness, bytes_at_their_maximum_size_with_the_control_area)
{
    setup_with(LKD_BYTES, 4 << 20); /* 2 MiB, 1 MiB */
    uint64_t a = connect_as(GREEDY, 1), other = connect_as(OTHER, 2);
    uint64_t area = lki_area_bytes(16, 8);
    uint64_t part = 1 << 20;

    expect_quota(a, send_message(a, open_sized("x", 4096, part - area + 1, 16)), "bytes");
    uint32_t segment = segment_of(a, send_message(a, open_sized("x", 4096, part - area, 16)));
    EXPECT_STATUS(a, request_grow(a, segment, part - area), LKI_STATUS_OK);
    expect_quota(a, create_locks(a, "y", 1), "this connection has 1048576 bytes");
    segment_of(other, send_message(other, open_sized("x", 4096, 4096, 16)));
}

Test(fairness, data_of_a_file_costs_nothing)
{
    setup_with(LKD_BYTES, 1 << 20);
    uint64_t a = connect_as(OWN, 1);
    struct lkd_offer offer = {
        .present = true, .usable = true, .device = 7, .inode = 1, .size_bytes = 1 << 30};
    struct lki_message message = open_sized("x", 0, 0, 16);
    message.as.open.offered = true;
    world.file_bytes = 1 << 30;
    EXPECT_STATUS(a, send_offer(a, message, &offer), LKI_STATUS_OK);
}

Test(fairness, attachments)
{
    char name[8];
    setup_with(LKD_ATTACHMENTS, 16); /* 8, 4 */
    uint64_t own = connect_as(OWN, 1), a = connect_as(GREEDY, 2), other = connect_as(OTHER, 3);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "%d", i);
        segment_of(own, create_locks(own, name, 1));
    }
    segment_of(a, request_open(a, "~1000/0", 0)); /* 11 left: 5 for the user, 3 for it */
    segment_of(a, request_open(a, "~1000/1", 0));
    uint32_t last = segment_of(a, request_open(a, "~1000/2", 0));
    expect_quota(a, request_open(a, "~1000/3", 0), "this connection has 3 attachments");
    expect_quota(a, create_locks(a, "mine", 1), "this connection has 3 attachments");
    segment_of(a, request_open(a, "~1000/2", 0)); /* the same again */
    segment_of(other, request_open(other, "~1000/2", 0));
    request_segment(a, LKI_REQUEST_DETACH, last);
    work();
    lose(other);
    work();
    end_process(3);
    work();
    segment_of(a, request_open(a, "~1000/3", 0));
}

Test(fairness, asynchronous_acquires_take_attachments)
{
    setup_with(LKD_ATTACHMENTS, 12);
    uint64_t a = connect_as(GREEDY, 1);
    uint32_t segment = segment_of(a, create_locks(a, "x", 16)); /* 6 for the user, 3 for it */
    request_async(a, segment, 1, LKI_MODE_EXCLUSIVE, 0);
    request_async(a, segment, 2, LKI_MODE_EXCLUSIVE, 0);
    expect_quota(a, request_async(a, segment, 3, LKI_MODE_EXCLUSIVE, 0), "3 attachments");
}

Test(fairness, waits)
{
    setup_with(LKD_WAITS, 8); /* 4, 2 */
    struct native holder;
    uint64_t own = connect_as(OWN, 1), a = connect_as(GREEDY, 2), other = connect_as(OTHER, 3);
    struct lki_message create = open_sized("x", 0, 0, 16);
    uint64_t made_by = send_message(own, create);
    uint32_t segment = segment_of(own, made_by);
    const struct lki_opened at = reply(own, made_by)->effect.message.as.opened;
    native_init(&holder, own, &at);
    for (uint32_t lock = 0; lock < 4; lock++)
        native_try(&holder, lock, LKI_MODE_EXCLUSIVE);
    segment_of(a, request_open(a, "~1000/x", 0));
    segment_of(other, request_open(other, "~1000/x", 0));

    uint64_t first = request_async(a, segment, 0, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    request_async(a, segment, 1, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    expect_quota(a, request_async(a, segment, 2, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER),
                 "this connection has 2 waits");
    EXPECT_STATUS(a, request_async(a, segment, 2, LKI_MODE_EXCLUSIVE, 0), LKI_STATUS_BUSY);
    EXPECT_STATUS(a, request_async(a, segment, 5, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER),
                  LKI_STATUS_OK);

    uint64_t theirs = request_async(other, segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    cr_expect(eq(ptr, (void *)reply(other, theirs), NULL), "it waits");
    request_cancel(a, first);
    uint64_t again = request_async(a, segment, 2, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    expect_quota(a, again, "its part is 1"); /* of two users each has 2 at most now */
    lose(other);
    end_process(3);
    work();
    again = request_async(a, segment, 2, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    cr_expect(eq(ptr, (void *)reply(a, again), NULL), "it waits");
}

/* --- Who pays, and for how long --- */

Test(fairness, a_kept_segment_counts_after_its_session)
{
    setup_with(LKD_SEGMENTS, 2);
    uint64_t a = connect_as(GREEDY, 1);
    opened(a, "x", LK_CREATE | LK_KEEP);
    request_goodbye(a);
    work();
    uint64_t b = connect_as(GREEDY, 2);
    expect_quota(b, request_open(b, "y", LK_CREATE), "uid 1001 has 1 segments");
    EXPECT_STATUS(b, request_remove(b, "x"), LKI_STATUS_OK);
    opened(b, "y", LK_CREATE);
}

Test(fairness, what_could_not_be_made_costs_nothing)
{
    setup_with(LKD_SEGMENTS, 2);
    uint64_t a = connect_as(GREEDY, 1);
    world.make_result = -ENOSPC;
    for (int i = 0; i < 3; i++)
        EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_NO_SPACE);
    world.make_result = 0;
    opened(a, "x", LK_CREATE);
}

Test(fairness, what_is_being_made_counts_already)
{
    setup_with(LKD_SEGMENTS, 2);
    uint64_t a = connect_as(GREEDY, 1);
    world.making_waits = true;
    request_open(a, "x", LK_CREATE);
    expect_quota(a, request_open(a, "y", LK_CREATE), "uid 1001 has 1 segments");
    lose(a);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    world.making_waits = false;
    uint64_t b = connect_as(GREEDY, 2);
    opened(b, "y", LK_CREATE);
}

Test(fairness, whoever_creates_for_another_user_pays)
{
    setup_with(LKD_SEGMENTS, 4);
    uint64_t root = connect_as(0, 1), a = connect_as(GREEDY, 2);
    opened(root, "~1001/x", LK_CREATE);
    opened(root, "~1001/y", LK_CREATE);
    opened(a, "z", LK_CREATE); /* 2 left, of which 1 */
}

/* --- Without a hello --- */

static size_t disconnected(uint64_t session)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++)
        count += world.records[i].effect.kind == LKD_EFFECT_DISCONNECT &&
                 world.records[i].effect.session == session;
    return count;
}

static uint64_t silent[LKI_SILENT_SESSIONS_MAX + 8];

static void connect_many_silent(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        cr_assert(eq(int, connect_silent(GREEDY, 100 + i, &silent[i]), 0));
}

Test(fairness, silent_connections_stay_while_they_are_few)
{
    world_setup();
    connect_many_silent(LKI_SILENT_SESSIONS_MAX);
    world.now_ns += 3600 * LKI_NS_PER_S;
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER), "no timer runs for them");
}

Test(fairness, one_more_ends_the_oldest_silent_one)
{
    uint64_t last;
    world_setup();
    connect_many_silent(LKI_SILENT_SESSIONS_MAX);
    world.now_ns += LKD_SILENT_NS;
    cr_assert(eq(int, connect_silent(GREEDY, 999, &last), 0));
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 1));
    cr_expect(eq(sz, disconnected(silent[0]), 1));
}

Test(fairness, young_silent_ones_may_be_many)
{
    uint64_t last;
    world_setup();
    connect_many_silent(LKI_SILENT_SESSIONS_MAX + 8);
    world.now_ns += LKD_SILENT_NS - 1;
    cr_assert(eq(int, connect_silent(GREEDY, 999, &last), 0));
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 0));
    world.now_ns += 1;
    cr_assert(eq(int, connect_silent(GREEDY, 998, &last), 0));
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 10), "all beyond the bound");
}

Test(fairness, who_said_hello_is_not_silent)
{
    uint64_t last;
    world_setup();
    uint64_t polite = connect_as(GREEDY, 1);
    connect_many_silent(LKI_SILENT_SESSIONS_MAX);
    world.now_ns += 3600 * LKI_NS_PER_S;
    cr_assert(eq(int, connect_silent(OTHER, 999, &last), 0));
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DISCONNECT), 0), "another user counts apart");
    cr_assert(eq(int, connect_silent(GREEDY, 998, &last), 0));
    tick();
    cr_expect(eq(sz, disconnected(silent[0]), 1));
    cr_expect(eq(sz, disconnected(polite), 0));
}

Test(fairness, a_silent_one_makes_room_when_sessions_have_run_out)
{
    uint64_t first, second;
    setup_with(LKD_SESSIONS, 2);
    cr_assert(eq(int, connect_silent(GREEDY, 1, &first), 0));
    cr_expect(eq(int, connect_silent(GREEDY, 2, &second), -EDQUOT), "it is too young");
    world.now_ns += LKD_SILENT_NS;
    cr_expect(eq(int, connect_silent(GREEDY, 2, &second), 0));
    tick();
    cr_expect(eq(sz, disconnected(first), 1));
    cr_expect(eq(int, connect_silent(GREEDY, 3, &first), -EDQUOT));
}

Test(fairness, shedding_takes_from_whoever_has_most)
{
    uint64_t lone;
    world_setup();
    cr_assert(eq(int, connect_silent(OTHER, 1, &lone), 0));
    connect_many_silent(3);
    cr_expect(eq(u32, lkd_core_shed_silent(world.core, 2, world.now_ns), 0), "they are too young");
    world.now_ns += LKD_SILENT_NS;
    cr_expect(eq(u32, lkd_core_shed_silent(world.core, 2, world.now_ns), 2));
    tick();
    cr_expect(eq(sz, disconnected(silent[0]) + disconnected(silent[1]), 2));
    cr_expect(eq(sz, disconnected(lone), 0));
}

Test(fairness, who_has_said_hello_is_not_shed)
{
    uint64_t session;
    world_setup();
    connect_as(GREEDY, 1);
    world.now_ns += LKD_SILENT_NS;
    cr_expect(eq(u32, lkd_core_shed_silent(world.core, 2, world.now_ns), 0), "nobody is silent");
    cr_assert(eq(int, connect_silent(OTHER, 2, &session), 0));
    world.now_ns += LKD_SILENT_NS;
    cr_expect(eq(u32, lkd_core_shed_silent(world.core, 2, world.now_ns), 1));
    tick();
    cr_expect(eq(sz, disconnected(session), 1));
}

Test(fairness, shedding_takes_from_whoever_has_most_in_any_order)
{
    uint64_t lone;
    world_setup();
    connect_many_silent(3);
    cr_assert(eq(int, connect_silent(OTHER, 1, &lone), 0));
    world.now_ns += LKD_SILENT_NS;
    cr_expect(eq(u32, lkd_core_shed_silent(world.core, 1, world.now_ns), 1));
    tick();
    cr_expect(eq(sz, disconnected(silent[0]), 1));
    cr_expect(eq(sz, disconnected(lone), 0));
}
