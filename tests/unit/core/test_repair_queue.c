/* SPDX-License-Identifier: MIT */
/* Repair in slices and in turns, and the questions that lead to it. */
#include "world.h"

#include <string.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED

TestSuite(repair_queue, .init = world_setup, .fini = world_teardown, .timeout = 60);

static struct lki_opened create(uint64_t session, const char *name, uint32_t locks)
{
    struct lki_message message = open_message(name, LK_CREATE);
    message.as.open.locks = locks;
    uint64_t id = send_message(session, message);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.opened;
}

static uint32_t count_died(const struct lki_area *area)
{
    uint32_t count = 0;
    for (uint32_t lock = 0; lock < area->locks; lock++)
        count += (area->hot[lock].word & LKI_DIED) != 0;
    return count;
}

/* One process dies with 5,000 locks in one segment and one in another: the small one is ready after
 * the second slice, whoever came first. */
Test(repair_queue, segments_take_turns)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened big = create(a, "big", 5000), small = create(a, "small", 1);
    struct lki_opened big_b = opened(b, "big", 0), small_b = opened(b, "small", 0);
    struct native in_big, in_small, other_big, other_small;
    native_init(&in_big, a, &big);
    native_init(&in_small, a, &small);
    native_init(&other_big, b, &big_b);
    native_init(&other_small, b, &small_b);
    for (uint32_t lock = 0; lock < 5000; lock++)
        native_try(&in_big, lock, X);
    native_try(&in_small, 0, X);

    end_process(1);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), 0), "repair goes on at once");
    tick_slice(100);
    cr_expect(eq(u32, count_died(&other_big.area), 100), "no more than the slice");
    cr_expect(eq(u32, count_died(&other_small.area), 0));
    tick_slice(100);
    cr_expect(eq(u32, count_died(&other_small.area), 1));
    cr_expect(lt(u32, count_died(&other_big.area), 201));
    work();
    cr_expect(eq(u32, count_died(&other_big.area), 5000));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(repair_queue, everybody_who_waits_is_woken_once)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened at_a = opened(a, "x", LK_CREATE);
    struct lki_opened at_b = opened(b, "x", 0), at_c = opened(c, "x", 0);
    struct native first, second, third;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    native_init(&third, c, &at_c);
    native_try(&first, 0, X);
    native_try(&first, 1, X);
    native_wait(&second, 0, X);
    native_wait(&third, 1, X);
    end_process(1);
    work();
    cr_expect(eq(sz, count_wakes(at_a.segment, 2), 1));
    cr_expect(eq(sz, count_wakes(at_a.segment, 3), 1));
}

/* Who waits natively, then who waits with the broker, then the connection that is closed: in the order in
 * which somebody waits for it. */
Test(repair_queue, the_dead_are_seen_off_after_those_who_wait)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct lki_opened at_c = opened(c, "x", 0);
    struct native first, second;
    struct lkd_effect effect;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    native_try(&first, 0, X);
    native_try(&first, 1, X);
    native_wait(&second, 0, X);
    request_async(c, at_c.segment, 1, X, LKI_TIME_NEVER);
    lkd_core_process_ended(world.core, 1, world.now_ns);
    lkd_core_tick(world.core, world.now_ns, 1000);

    cr_assert(lkd_core_next_wake(world.core, &effect));
    cr_expect(eq(int, effect.kind, LKD_EFFECT_WAKE));
    cr_expect(eq(u32, effect.slot, 2));
    cr_expect(not(lkd_core_next_wake(world.core, &effect)));
    size_t granted_at = 0, cut_at = 0;
    for (size_t at = 1; lkd_core_next_effect(world.core, &effect); at++) {
        if (effect.kind == LKD_EFFECT_SEND && effect.session == c)
            granted_at = at;
        if (effect.kind == LKD_EFFECT_DISCONNECT)
            cut_at = at;
    }
    cr_expect(gt(sz, granted_at, 0));
    cr_expect(gt(sz, cut_at, granted_at));
}

Test(repair_queue, segment_ends_after_several_have_died)
{
    uint64_t sessions[10];
    for (uint64_t i = 0; i < 10; i++) {
        sessions[i] = connect_as(1000, i + 1);
        opened(sessions[i], "x", LK_CREATE);
    }
    for (uint64_t i = 0; i < 10; i++)
        end_process(i + 1);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 10));
}

/* --- Asking --- */

Test(repair_queue, ask_about_an_owner_has_its_process_checked)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    struct native holder;
    native_init(&holder, a, &at_a);
    native_try(&holder, 0, X);

    request_ask(b, at_a.segment, 0, at_a.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1));
    cr_expect(eq(u64, last_effect(LKD_EFFECT_CHECK_PROCESS)->effect.process, 1));
    request_ask(b, at_a.segment, 0, at_a.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1), "once per millisecond");
    world.now_ns += LKI_NS_PER_MS;
    request_ask(b, at_a.segment, 0, at_a.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 2));
}

Test(repair_queue, ask_about_readers_has_all_of_them_checked)
{
    uint64_t sessions[4];
    struct lki_opened at[4];
    struct native natives[4];
    for (uint64_t i = 0; i < 4; i++) {
        sessions[i] = connect_as(1000, i + 1);
        at[i] = opened(sessions[i], "x", LK_CREATE);
        native_init(&natives[i], sessions[i], &at[i]);
    }
    native_try(&natives[0], 2, S);
    native_try(&natives[1], 2, S);
    native_try(&natives[2], 1, S);
    request_ask(sessions[3], at[3].segment, 2, 0);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 2));
    world.now_ns += LKI_NS_PER_MS / 2;
    request_ask(sessions[3], at[3].segment, 1, 0);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 2), "an asker may not walk so often");
    world.now_ns += LKI_NS_PER_MS;
    request_ask(sessions[3], at[3].segment, 1, 0);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 3));
}

Test(repair_queue, ask_about_what_is_over_does_nothing)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    request_ask(a, at.segment, 0, at.attachment);
    request_ask(a, at.segment, 0, 0x00770077);
    request_ask(a, at.segment, UINT32_MAX, at.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 0));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

/* Rows: ids that stand in a word and name nobody. */
Test(repair_queue, owner_that_is_nobody_is_repaired)
{
    static const uint32_t ids[] = {
        5u << 16 | 1,        /* a live slot, another generation: its own facts are left alone */
        1u << 16 | 2,        /* a slot never given */
        1u << 16 | 0,        /* no slot */
        1023u << 16 | 65535, /* beyond the table */
    };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        uint64_t a = connect_as(1000, 10 + i);
        struct lki_opened at = opened(a, "x", LK_CREATE);
        struct native client;
        native_init(&client, a, &at);
        native_try(&client, 7, S);
        client.area.hot[3].word = ids[i];
        cr_assert(eq(int, native_try(&client, 3, X), LKI_BUSY));
        request_ask(a, at.segment, 3, ids[i]);
        request_ask(a, at.segment, 3, ids[i]);
        cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 0));
        work();
        cr_expect(eq(int, native_try(&client, 3, X), LKI_TAKEN), "row %zu", i);
        cr_expect(eq(int, lki_lock_held_by(&client.party, 7), LKI_MODE_SHARED));
        end_process(10 + i);
        work();
    }
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 4));
}

Test(repair_queue, owner_under_repair_is_not_checked)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    struct native holder;
    native_init(&holder, a, &at);
    native_try(&holder, 0, X);
    end_process(1);
    request_ask(b, at.segment, 0, at.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 0));
}

/* Rows: what a reader wrote over its own id before it died. */
Test(repair_queue, reader_that_wrote_over_its_id_leaves_no_cell_behind)
{
    static const uint32_t ids[] = {0, UINT32_MAX, 1u << 16 | 2, 2u << 16 | 1};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        uint64_t a = connect_as(1000, 10 + 2 * i), b = connect_as(1000, 11 + 2 * i);
        struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
        struct native reader, writer;
        native_init(&reader, a, &at_a);
        native_init(&writer, b, &at_b);
        native_try(&reader, 0, S);
        reader.party.self->id = ids[i];
        native_wait(&writer, 0, X);
        end_process(10 + 2 * i);
        work();
        cr_expect(eq(int, native_step(&writer), LKI_TAKEN), "row %zu", i);
        uint64_t c = connect_as(1000, 100 + i);
        cr_expect(eq(u32, opened(c, "x", 0).attachment, 2u << 16 | 1), "row %zu", i);
        end_process(11 + 2 * i);
        end_process(100 + i);
        work();
    }
}

Test(repair_queue, owner_that_is_nobody_is_repaired_in_portions)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native client;
    native_init(&client, a, &at);
    atomic_store(&client.area.hot[0].word, 5u << 16 | 1);
    atomic_store(&client.area.hot[9].word, 5u << 16 | 1);
    request_ask(a, at.segment, 0, 5u << 16 | 1);
    for (uint32_t ticks = 0; ticks < 5; ticks++)
        tick_slice(0); /* one lock at least */
    cr_expect(eq(int, native_try(&client, 0, X), LKI_TAKEN));
    cr_expect(eq(int, native_try(&client, 9, X), LKI_BUSY));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), 0));
    work();
    cr_expect(eq(int, native_try(&client, 9, X), LKI_TAKEN));
    cr_expect(eq(sz, count_logged("2 locks had an owner 0x50001 that nobody is"), 1));
}

Test(repair_queue, a_segment_that_everybody_has_left_ends_after_its_last_repair)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native client;
    native_init(&client, a, &at);
    end_process(1); /* its repair is first in line */
    while (count_records() > 0) {
        atomic_store(&client.area.hot[9].word, 5u << 16 | 1);
        tick_slice(1);
        cr_assert(eq(u64, lkd_core_deadline_ns(world.core) == 0, count_records() > 0));
    }
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}

/* The id of nobody is asked about while the segment has a user; that one is gone before the repair. */
Test(repair_queue, a_segment_is_not_dropped_before_what_nobody_owns_is_repaired)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct native client;
    native_init(&client, a, &at);
    opened(b, "other", LK_CREATE);
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, at.segment);
    atomic_store(&client.area.hot[9].word, 5u << 16 | 1);
    cr_assert(eq(ptr, (void *)reply(a, id), NULL));
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}
