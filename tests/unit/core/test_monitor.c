/* SPDX-License-Identifier: MIT */
/* Who is told what, and what becomes of those who do not listen. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define BROKER_UID 1000u

TestSuite(monitor, .init = world_setup, .fini = world_teardown, .timeout = 60);

static uint64_t watch(uint32_t uid, const char *name)
{
    uint64_t session = connect_as(uid, 900 + world.last_id);
    uint64_t id = request_monitor(session, name);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    forget_effects();
    return session;
}

static const struct lki_event *event_of(const struct recorded *record)
{
    return &record->effect.message.as.event;
}

/* The kinds that the session was told of since the last forget_effects(), as "1 10 14". */
static const char *kinds(uint64_t session)
{
    static char text[1024];
    size_t position = 0, used = 0;
    const struct recorded *record;
    text[0] = 0;
    while ((record = next_event(session, &position)))
        used += (size_t)snprintf(text + used, sizeof(text) - used, used ? " %u" : "%u",
                                 event_of(record)->kind);
    return text;
}

static const struct recorded *find_event(uint64_t session, enum lki_event_kind kind)
{
    size_t position = 0;
    const struct recorded *record;
    while ((record = next_event(session, &position)))
        if (event_of(record)->kind == kind)
            return record;
    cr_assert(false, "no event of kind %d; there are: %s", kind, kinds(session));
    return NULL;
}

static size_t count_events(uint64_t session)
{
    size_t position = 0, count = 0;
    while (next_event(session, &position))
        count++;
    return count;
}

Test(monitor, life_of_a_session_and_its_segment)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1);
    struct lki_message open = open_message("x", LK_CREATE | LK_UNPUBLISHED);
    open.as.open.size_bytes = 4096;
    open.as.open.size_max_bytes = 8192;
    uint64_t id = send_message(a, open);
    uint32_t segment = reply(a, id)->effect.message.as.opened.segment;
    request_segment(a, LKI_REQUEST_PUBLISH, segment);
    request_segment(a, LKI_REQUEST_PUBLISH, segment);
    request_grow(a, segment, 8192);
    request_remove(a, "x");
    request_goodbye(a);
    work();
    cr_expect(eq(str, (char *)kinds(monitor), "1 5 10 6 7 8 11 9 3"), "%s", kinds(monitor));

    const struct recorded *created = find_event(monitor, LKI_EVENT_SEGMENT_CREATED);
    cr_expect(eq(str, (char *)created->strings[0][0], "x"));
    cr_expect(eq(str, (char *)created->strings[0][2], "worker"));
    cr_expect(eq(int, event_of(created)->pid, 1));
    cr_expect(eq(u32, event_of(created)->uid, BROKER_UID));
    cr_expect(eq(u64, event_of(created)->session, a));
    cr_expect(eq(u64, event_of(created)->size_bytes, 4096));
    cr_expect(eq(u32, event_of(created)->segment, segment));
    cr_expect(eq(u64, event_of(created)->when_ns, world.now_ns));
    cr_expect(eq(u64, created->effect.message.id, 0));
    cr_expect(eq(u64, event_of(find_event(monitor, LKI_EVENT_SEGMENT_GROWN))->size_bytes, 8192));
    cr_expect(eq(str, (char *)find_event(monitor, LKI_EVENT_SESSION_ENDED)->detail, "goodbye"));
}

Test(monitor, damage_is_told_lock_by_lock_and_a_plain_end_is_not)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native dead, reader;
    native_init(&dead, a, &at_a);
    native_init(&reader, b, &at_b);
    uint64_t id = request_lock_named(a, at_a.segment, "orders");
    EXPECT_STATUS(a, id, LKI_STATUS_OK); /* lock 1 */
    native_try(&dead, 1, X);
    native_try(&dead, 15, X);
    native_try(&dead, 3, S);
    native_try(&reader, 4, S);
    forget_effects();

    end_process(1);
    while (lkd_core_deadline_ns(world.core) == 0)
        tick_slice(3); /* the slices cut the walk */
    cr_expect(eq(str, (char *)kinds(monitor), "4 2 12 12 11 3"), "%s", kinds(monitor));
    const struct recorded *named = find_event(monitor, LKI_EVENT_LOCK_DAMAGED);
    cr_expect(eq(u32, event_of(named)->lock, 1));
    cr_expect(eq(str, (char *)named->strings[0][1], "orders"));
    cr_expect(eq(int, event_of(named)->pid, 1));
    cr_expect(eq(u32, event_of(named)->cause, 1));
    struct lki_lock_state state;
    lki_lock_look(&reader.area, 1, &state);
    cr_expect(eq(u64, event_of(named)->token, state.sequence));
    cr_expect(eq(u32, event_of(find_event(monitor, LKI_EVENT_DETACHED))->cause, 1));

    forget_effects();
    end_process(2);
    work();
    cr_expect(eq(str, (char *)kinds(monitor), "4 2 11 9 3"), "%s", kinds(monitor));
}

Test(monitor, wait_is_told_once_for_each_hold)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native holder, waiter;
    native_init(&holder, a, &at_a);
    native_init(&waiter, b, &at_b);
    native_try(&holder, 2, X);
    forget_effects();

    request_ask(b, at_b.segment, 2, at_a.attachment);
    request_ask(b, at_b.segment, 2, at_a.attachment);
    cr_expect(eq(str, (char *)kinds(monitor), "13"));
    const struct recorded *told = find_event(monitor, LKI_EVENT_LOCK_WAITED_FOR);
    cr_expect(eq(int, event_of(told)->pid, 1), "the holder");
    cr_expect(eq(u32, event_of(told)->lock, 2));
    cr_expect(eq(str, (char *)told->detail, "pid 2 (worker) waits for it"));
    native_release(&holder, 2);
    native_try(&holder, 2, X);
    request_ask(b, at_b.segment, 2, at_a.attachment);
    cr_expect(eq(str, (char *)kinds(monitor), "13 13"), "another hold");
    request_ask(b, at_b.segment, 3, at_a.attachment);
    cr_expect(eq(str, (char *)kinds(monitor), "13 13"), "nobody holds this one");
}

Test(monitor, drain_is_told_of_the_reader_that_is_in_the_way)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native reader, writer;
    native_init(&reader, a, &at_a);
    native_init(&writer, b, &at_b);
    native_try(&reader, 2, S);
    native_wait(&writer, 2, X);
    forget_effects();

    for (int i = 0; i < 3; i++) {
        world.now_ns += LKI_NS_PER_MS;
        request_ask(b, at_b.segment, 2, 0);
    }
    cr_expect(eq(str, (char *)kinds(monitor), "13"));
    const struct recorded *told = find_event(monitor, LKI_EVENT_LOCK_WAITED_FOR);
    cr_expect(eq(int, event_of(told)->pid, 1));
    cr_expect(eq(str, (char *)told->detail, "read; pid 2 (worker) waits for it"));
}

Test(monitor, deadlock_and_what_a_bystander_may_know_of_it)
{
    struct lki_message open = open_message("seen", LK_CREATE);
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    open.as.open.mode = 0644;
    uint64_t id = send_message(a, open);
    struct lki_opened seen_a = reply(a, id)->effect.message.as.opened;
    struct lki_opened seen_b = opened(b, "seen", 0);
    struct lki_opened hidden_a = opened(a, "hidden", LK_CREATE), hidden_b = opened(b, "hidden", 0);
    uint64_t all = watch(BROKER_UID, ""), stranger = watch(1001, "");
    struct native seen[2], hidden[2];
    native_init(&seen[0], a, &seen_a);
    native_init(&seen[1], b, &seen_b);
    native_init(&hidden[0], a, &hidden_a);
    native_init(&hidden[1], b, &hidden_b);
    native_try(&seen[1], 0, X);
    native_try(&hidden[0], 0, X);
    native_wait(&hidden[1], 0, X);
    native_wait(&seen[0], 0, X);
    send_message(a, (struct lki_message){.type = LKI_REQUEST_DEADLOCK_CHECK,
                                         .as.lock_ref = {seen_a.segment, 0}});

    const struct recorded *told = find_event(all, LKI_EVENT_DEADLOCK);
    cr_expect(eq(str, (char *)told->detail,
                 "2 sessions in a ring: it waits for 'seen', held by pid 2 (worker), which waits "
                 "for 'hidden', held by pid 1 (worker)"),
              "%s", told->detail);
    cr_expect(eq(int, event_of(told)->pid, 1));
    told = find_event(stranger, LKI_EVENT_DEADLOCK);
    cr_expect(eq(str, (char *)told->strings[0][0], "~1000/seen"));
    cr_expect(eq(str, (char *)told->detail,
                 "2 sessions in a ring: it waits for '~1000/seen', held by pid 2 (worker), which "
                 "waits for a lock that you may not see, held by a session that you may not see"),
              "%s", told->detail);
}

Test(monitor, who_sees_what)
{
    uint64_t root = watch(0, ""), broker = watch(BROKER_UID, ""), own = watch(1001, "");
    uint64_t member = connect_member(1002, 70, 27), stranger = watch(1003, "");
    request_monitor(member, "");
    forget_effects();

    uint64_t a = connect_as(1001, 1);
    opened(a, "secret", LK_CREATE);
    struct lki_message open = open_message("shared", LK_CREATE);
    open.as.open.mode = 0644;
    send_message(a, open);
    uint64_t in_group = connect_member(1004, 2, 27);
    opened(in_group, "@27/pool", LK_CREATE);

    cr_expect(eq(str, (char *)kinds(root), "1 5 10 5 10 1 5 10"));
    cr_expect(eq(str, (char *)kinds(broker), "1 5 10 5 10 1 5 10"));
    cr_expect(eq(str, (char *)kinds(own), "1 5 10 5 10"), "its own");
    cr_expect(eq(str, (char *)kinds(member), "5 10 5 10"), "what all may read, and its group's");
    cr_expect(eq(str, (char *)kinds(stranger), "5 10"), "what all may read");
    cr_expect(
        eq(str, (char *)find_event(stranger, LKI_EVENT_ATTACHED)->strings[0][0], "~1001/shared"));
}

Test(monitor, name_leaves_all_else_out)
{
    uint64_t monitor = watch(1001, "~1000/x"), wrong = connect_as(1001, 50);
    uint64_t a = connect_as(BROKER_UID, 1);
    struct lki_message open = open_message("x", LK_CREATE);
    open.as.open.mode = 0644;
    send_message(a, open);
    open.as.open.name.length_bytes = 1;
    open.as.open.name.data = (const uint8_t *)"y";
    send_message(a, open);
    cr_expect(eq(str, (char *)kinds(monitor), "5 10"));
    uint64_t id = request_monitor(wrong, "a/b");
    EXPECT_STATUS(wrong, id, LKI_STATUS_INVALID);
}

Test(monitor, dropped_and_refused_connections)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(1001, 1), silent;
    struct lkd_peer peer = {.pid = 5, .uid = 1002, .process = 5, .command = "rude"};
    forget_effects();
    request_list(a, LKI_LIST_BROKER, "", 0);
    drop(a, "it does not read its replies");
    cr_expect(eq(str, (char *)kinds(monitor), "1 16 3"));
    const struct recorded *told = find_event(monitor, LKI_EVENT_DROPPED);
    cr_expect(eq(str, (char *)told->detail, "it does not read its replies"));
    forget_effects();

    silent = connect_peer(&peer);
    lose(silent);
    cr_expect(eq(str, (char *)kinds(monitor), ""), "it never was a session");
    silent = connect_peer(&peer);
    request_open(silent, "x", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(monitor), "16"));
    cr_expect(eq(str, (char *)find_event(monitor, LKI_EVENT_DROPPED)->detail,
                 "its first record is no hello"));
}

Test(monitor, quota_refusal_tells_whose_and_which)
{
    world_teardown();
    world_setup_with(
        &(struct lkd_core_config){.broker_uid = BROKER_UID,
                                  .token_epoch_s = 1000,
                                  .hash_seed = 1,
                                  .limits = {.max = {[LKD_SEGMENTS] = 3, [LKD_SESSIONS] = 8}}});
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(1001, 1);
    request_open(a, "x", LK_CREATE);
    request_open(a, "y", LK_CREATE);
    const struct recorded *told = find_event(monitor, LKI_EVENT_QUOTA);
    cr_expect(eq(int, event_of(told)->pid, 1));
    cr_expect(ne(ptr, (void *)strstr(told->detail, "segments"), NULL), "%s", told->detail);
    forget_effects();
    world.scarce = true;
    for (uint64_t i = 10; i < 20; i++)
        connect_peer(&(struct lkd_peer){.pid = (int32_t)i, .uid = 1001, .process = i});
    told = find_event(monitor, LKI_EVENT_QUOTA);
    cr_expect(eq(u32, event_of(told)->uid, 1001));
    cr_expect(eq(int, event_of(told)->pid, 0));
}

Test(monitor, what_the_socket_does_not_take_is_counted_in_the_next)
{
    uint64_t monitor = watch(BROKER_UID, "");
    world.deaf = true;
    uint64_t a = connect_as(BROKER_UID, 1);
    opened(a, "x", LK_CREATE);
    request_remove(a, "x");
    world.deaf = false;
    uint64_t b = connect_as(BROKER_UID, 2);
    opened(b, "y", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(monitor), "1 5 10"));
    size_t position = 0;
    cr_expect(eq(u64, event_of(next_event(monitor, &position))->lost, 4));
    cr_expect(eq(u64, event_of(next_event(monitor, &position))->lost, 0));
}

Test(monitor, no_more_than_a_bounded_number_is_kept_for_one)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_message open = open_message("x", LK_CREATE);
    open.as.open.locks = LKI_MONITOR_EVENTS_MAX + 10;
    uint64_t id = send_message(a, open);
    struct lki_opened at = reply(a, id)->effect.message.as.opened;
    opened(b, "x", 0);
    struct native dead;
    native_init(&dead, a, &at);
    for (uint32_t lock = 0; lock < LKI_MONITOR_EVENTS_MAX + 10; lock++)
        native_try(&dead, lock, X);
    forget_effects();
    end_process(1);
    forget_effects();
    tick(); /* one call into the core: damage, the attachment's and the session's end */
    cr_expect(eq(sz, count_events(monitor), LKI_MONITOR_EVENTS_MAX));
    forget_effects();
    request_remove(b, "x");
    size_t position = 0;
    cr_expect(eq(u64, event_of(next_event(monitor, &position))->lost, 10 + 2));
}

Test(monitor, one_session_watches_once)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t id = request_monitor(monitor, "");
    EXPECT_STATUS(monitor, id, LKI_STATUS_PENDING);
    opened(connect_as(BROKER_UID, 1), "x", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(monitor), "1 5 10"));
}

Test(monitor, users_have_a_few_each_and_all_together_some_more)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < LKI_MONITORS_OF_UID_MAX; i++)
        last = watch(1001, "");
    uint64_t refused = connect_as(1001, 1);
    uint64_t id = request_monitor(refused, "");
    EXPECT_STATUS(refused, id, LKI_STATUS_QUOTA);
    for (uint32_t i = LKI_MONITORS_OF_UID_MAX; i < LKI_MONITORS_MAX; i++)
        watch(BROKER_UID, ""); /* the broker's own user has no share */
    uint64_t other = connect_as(0, 2);
    id = request_monitor(other, "");
    EXPECT_STATUS(other, id, LKI_STATUS_QUOTA);

    request_goodbye(last);
    id = request_monitor(refused, "");
    EXPECT_STATUS(refused, id, LKI_STATUS_OK);
}

Test(monitor, with_nobody_watching_nothing_is_made)
{
    uint64_t monitor = watch(BROKER_UID, "");
    lose(monitor);
    uint64_t a = connect_as(BROKER_UID, 1);
    opened(a, "x", LK_CREATE);
    end_process(1);
    work();
    for (size_t i = 0; i < world.record_count; i++)
        cr_expect(ne(int, world.records[i].effect.message.type, LKI_REPLY_EVENT));
}

Test(monitor, name_is_that_of_one_owner)
{
    uint64_t users = watch(BROKER_UID, "~77/xy"), groups = watch(BROKER_UID, "@77/xy");
    uint64_t a = connect_member(77, 1, 77);
    opened(a, "~77/xy", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(users), "5 10"));
    cr_expect(eq(str, (char *)kinds(groups), ""));
    opened(a, "@77/xy", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(users), "5 10"));
    cr_expect(eq(str, (char *)kinds(groups), "5 10"));
    opened(connect_as(78, 2), "~78/xy", LK_CREATE);
    opened(a, "xyz", LK_CREATE);
    cr_expect(eq(str, (char *)kinds(users), "5 10"));
    end_process(1); /* and what is about no segment */
    work();
    cr_expect(eq(str, (char *)kinds(users), "5 10 11 9"));
}

Test(monitor, waits_for_two_locks_of_one_holder_are_told_each)
{
    uint64_t monitor = watch(BROKER_UID, "");
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native holder, waiter;
    native_init(&holder, a, &at_a);
    native_init(&waiter, b, &at_b);
    forget_effects();
    for (uint32_t lock = 3; lock < 5; lock++) {
        native_try(&holder, lock, X);
        native_wait(&waiter, lock, X);
        request_ask(b, at_b.segment, lock, at_a.attachment);
        request_ask(b, at_b.segment, lock, at_a.attachment);
        cr_expect(eq(sz, count_events(monitor), lock - 2));
        cr_expect(eq(u32, event_of(find_event(monitor, LKI_EVENT_LOCK_WAITED_FOR))->lock, 3));
        lki_wait_give_up(&waiter.wait);
    }
}

Test(monitor, events_lost_by_who_watches_no_more_are_nobodys)
{
    uint64_t monitor = watch(BROKER_UID, ""), plain = connect_as(BROKER_UID, 1);
    lkd_core_events_lost(world.core, plain, 3);
    lkd_core_events_lost(world.core, plain + 100, 3);
    forget_effects();
    lkd_core_events_lost(world.core, monitor, 3);
    opened(plain, "x", LK_CREATE);
    size_t position = 0;
    cr_expect(eq(u64, event_of(next_event(monitor, &position))->lost, 3));
}

/* A pid may be that of somebody who died here before. */
Test(monitor, damage_of_an_earlier_process_of_that_pid_is_not_told_again)
{
    uint64_t a = connect_as(BROKER_UID, 1), b = connect_as(BROKER_UID, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    struct native client;
    native_init(&client, a, &at);
    native_try(&client, 3, X);
    end_process(1);
    work();
    uint64_t monitor = watch(BROKER_UID, "");
    pass(LKI_NS_PER_S);
    a = connect_as(BROKER_UID, 1);
    at = opened(a, "x", 0);
    native_init(&client, a, &at);
    native_try(&client, 4, X);
    forget_effects();
    end_process(1);
    work();
    cr_expect(eq(u32, event_of(find_event(monitor, LKI_EVENT_LOCK_DAMAGED))->lock, 4));
    cr_expect(eq(str, (char *)kinds(monitor), "4 2 12 11 3"));
}
