/* SPDX-License-Identifier: MIT */
/* Acquires that the broker drives, in one queue with native clients. */
#include "world.h"

#include <string.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define NEVER LKI_TIME_NEVER
#define LOCK 3u

/* A strict segment's members and their attachments; or natives in a plain one. */
static uint64_t a, b, c;
static struct lki_opened at_a, at_b, at_c;
static struct native native_a, native_b, native_c;
static uint32_t segment;

static void attach_three(uint32_t flags)
{
    a = connect_as(1000, 1);
    b = connect_as(1000, 2);
    c = connect_as(1000, 3);
    at_a = opened(a, "x", LK_CREATE | flags);
    at_b = opened(b, "x", 0);
    at_c = opened(c, "x", 0);
    segment = at_a.segment;
    native_init(&native_a, a, &at_a);
    native_init(&native_b, b, &at_b);
    native_init(&native_c, c, &at_c);
}

static void setup_strict(void)
{
    world_setup();
    attach_three(LK_STRICT);
}

static void setup_plain(void)
{
    world_setup();
    attach_three(0);
}

static bool is_answered(uint64_t session, uint64_t id)
{
    return reply(session, id) != NULL;
}

static struct lki_granted granted(uint64_t session, uint64_t id)
{
    cr_assert(is_answered(session, id), "not granted");
    const struct recorded *answer = reply(session, id);
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_GRANTED), "%s", answer->detail);
    return answer->effect.message.as.granted;
}

static void expect_held_by(const struct lki_area *area, uint32_t id)
{
    struct lki_lock_state state;
    lki_lock_look(area, LOCK, &state);
    cr_expect(eq(u32, state.word & LKI_ID_MASK, id));
}

TestSuite(strict, .init = setup_strict, .fini = world_teardown, .timeout = 60);
TestSuite(asynchronous, .init = setup_plain, .fini = world_teardown, .timeout = 60);

Test(strict, free_lock_is_granted_at_once_with_its_token)
{
    uint64_t id = request_acquire(a, segment, LOCK, X, 0);
    struct lki_granted grant = granted(a, id);
    cr_expect(eq(int, grant.status, LKI_STATUS_OK));
    cr_expect(eq(u32, grant.attachment, at_a.attachment));
    cr_expect(eq(u64, grant.token, (UINT64_C(1000) << 32) + 1));
    expect_held_by(&native_a.area, at_a.attachment);
}

Test(strict, acquires_that_make_no_sense_are_refused)
{
    static const struct {
        const char *row;
        struct lki_acquire acquire;
        enum lki_status status;
    } rows[] = {
        {"beyond the table", {.lock = 16, .mode = X}, LKI_STATUS_OUT_OF_RANGE},
        {"no mode", {.lock = 1}, LKI_STATUS_INVALID},
        {"unknown mode", {.lock = 1, .mode = 4}, LKI_STATUS_INVALID},
        {"shared to exit", {.lock = 1, .mode = S, .to_exit = true}, LKI_STATUS_INVALID},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct lki_message message = {.type = LKI_REQUEST_ACQUIRE, .as.acquire = rows[i].acquire};
        message.as.acquire.segment = segment;
        uint64_t id = send_message(a, message);
        cr_expect(eq(int, status_of(a, id), rows[i].status), "%s", rows[i].row);
    }
}

Test(strict, try_of_a_held_lock_is_busy_and_names_the_holder)
{
    request_acquire(a, segment, LOCK, X, 0);
    uint64_t id = request_acquire(b, segment, LOCK, X, 0);
    EXPECT_STATUS(b, id, LKI_STATUS_BUSY);
    cr_expect(ne(ptr, strstr(detail_of(b, id), "pid 1 (worker)"), NULL), "%s", detail_of(b, id));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), NEVER));
}

Test(strict, locks_do_not_nest)
{
    request_acquire(a, segment, LOCK, X, 0);
    EXPECT_STATUS(a, request_acquire(a, segment, LOCK, S, NEVER), LKI_STATUS_DEADLOCK);
    EXPECT_STATUS(a, request_async(a, segment, LOCK, X, NEVER), LKI_STATUS_DEADLOCK);
}

Test(strict, waiters_are_served_in_their_order)
{
    request_acquire(a, segment, LOCK, X, 0);
    uint64_t wait_b = request_acquire(b, segment, LOCK, X, NEVER);
    uint64_t wait_c = request_acquire(c, segment, LOCK, X, NEVER);
    pass(2 * LKI_NS_PER_MS);
    cr_expect(not(is_answered(b, wait_b)));

    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment),
                  LKI_STATUS_OK);
    struct lki_granted grant = granted(b, wait_b);
    cr_expect(eq(u64, grant.token, (UINT64_C(1000) << 32) + 3));
    cr_expect(not(is_answered(c, wait_c)));

    request_hold(b, LKI_REQUEST_RELEASE, segment, LOCK, at_b.attachment);
    granted(c, wait_c);
    request_hold(c, LKI_REQUEST_RELEASE, segment, LOCK, at_c.attachment);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), NEVER), "nobody waits: no timer");
}

Test(strict, wait_ends_at_its_deadline)
{
    request_acquire(a, segment, LOCK, X, 0);
    uint64_t deadline = world.now_ns + 5 * LKI_NS_PER_MS;
    uint64_t id = request_acquire(b, segment, LOCK, X, deadline);
    pass(5 * LKI_NS_PER_MS - 1);
    cr_expect(not(is_answered(b, id)));
    pass(1);
    EXPECT_STATUS(b, id, LKI_STATUS_TIMED_OUT);
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), NEVER));
    request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment);
    granted(b, request_acquire(b, segment, LOCK, X, 0));
}

Test(strict, deadline_that_has_passed_times_out_at_once)
{
    request_acquire(a, segment, LOCK, X, 0);
    EXPECT_STATUS(b, request_acquire(b, segment, LOCK, X, 1), LKI_STATUS_TIMED_OUT);
}

Test(strict, one_plain_wait_at_a_time)
{
    request_acquire(a, segment, LOCK, X, 0);
    request_acquire(a, segment, 5, X, 0);
    request_acquire(b, segment, LOCK, X, NEVER);
    EXPECT_STATUS(b, request_acquire(b, segment, 5, X, NEVER), LKI_STATUS_PENDING);
    EXPECT_STATUS(b, request_async(b, segment, LOCK, X, NEVER), LKI_STATUS_PENDING);
    cr_expect(not(is_answered(b, request_async(b, segment, 5, X, NEVER))));
}

Test(strict, writer_drains_readers_and_backs_out_in_time)
{
    granted(a, request_acquire(a, segment, LOCK, S, 0));
    granted(b, request_acquire(b, segment, LOCK, S, 0));
    uint64_t timed = request_acquire(c, segment, LOCK, X, world.now_ns + 20 * LKI_NS_PER_MS);
    pass(20 * LKI_NS_PER_MS);
    EXPECT_STATUS(c, timed, LKI_STATUS_TIMED_OUT);
    request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment);
    granted(a, request_acquire(a, segment, LOCK, S, 0));

    uint64_t writer = request_acquire(c, segment, LOCK, X, NEVER);
    request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment);
    cr_expect(not(is_answered(c, writer)));
    EXPECT_STATUS(c, request_hold(c, LKI_REQUEST_RELEASE, segment, LOCK, at_c.attachment),
                  LKI_STATUS_NOT_HOLDER);
    request_hold(b, LKI_REQUEST_RELEASE, segment, LOCK, at_b.attachment);
    granted(c, writer);
}

Test(strict, shared_holds_of_a_session_are_bounded)
{
    uint64_t other = connect_as(1000, 9);
    struct lki_message create = open_message("many", LK_CREATE | LK_STRICT);
    create.as.open.locks = LKI_SHARED_HOLDS_MAX + 1;
    uint64_t id = send_message(other, create);
    uint32_t many = reply(other, id)->effect.message.as.opened.segment;
    for (uint32_t lock = 0; lock < LKI_SHARED_HOLDS_MAX; lock++)
        granted(other, request_acquire(other, many, lock, S, 0));
    EXPECT_STATUS(other, request_acquire(other, many, LKI_SHARED_HOLDS_MAX, S, 0),
                  LKI_STATUS_NO_CELL);
}

Test(strict, holds_are_checked_against_session_and_segment)
{
    granted(a, request_acquire(a, segment, LOCK, X, 0));
    static const enum lki_message_type types[] = {LKI_REQUEST_RELEASE, LKI_REQUEST_MARK_CONSISTENT,
                                                  LKI_REQUEST_DECLARE};
    for (size_t i = 0; i < 3; i++) {
        EXPECT_STATUS(b, request_hold(b, types[i], segment, LOCK, at_a.attachment),
                      LKI_STATUS_NOT_HOLDER);
        EXPECT_STATUS(b, request_hold(b, types[i], segment, LOCK, at_b.attachment),
                      LKI_STATUS_NOT_HOLDER);
        EXPECT_STATUS(b, request_hold(b, types[i], segment, LOCK, 0xffffffff),
                      LKI_STATUS_NOT_HOLDER);
        EXPECT_STATUS(a, request_hold(a, types[i], segment, 16, at_a.attachment),
                      LKI_STATUS_OUT_OF_RANGE);
    }
    expect_held_by(&native_a.area, at_a.attachment);
}

Test(strict, damage_is_told_declared_marked_and_gone)
{
    granted(a, request_acquire(a, segment, LOCK, X, 0));
    struct lki_message declare = {.type = LKI_REQUEST_DECLARE,
                                  .as.hold_ref = {segment, LOCK, at_a.attachment, 100, 50}};
    EXPECT_STATUS(a, send_message(a, declare), LKI_STATUS_OK);
    uint64_t wait = request_acquire(b, segment, LOCK, X, NEVER);
    end_process(1);
    work();
    cr_expect(eq(int, granted(b, wait).status, LKI_STATUS_OWNER_DIED));
    cr_expect(eq(u64, native_b.area.cold[LOCK].recovery_dirty_offset, 100));
    cr_expect(eq(u64, native_b.area.cold[LOCK].recovery_dirty_length, 50));
    EXPECT_STATUS(b, request_hold(b, LKI_REQUEST_MARK_CONSISTENT, segment, LOCK, at_b.attachment),
                  LKI_STATUS_OK);
    request_hold(b, LKI_REQUEST_RELEASE, segment, LOCK, at_b.attachment);
    cr_expect(eq(int, granted(c, request_acquire(c, segment, LOCK, X, 0)).status, LKI_STATUS_OK));
}

Test(strict, hold_to_exit_ends_as_a_plain_release)
{
    struct lki_message acquire = {
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {.segment = segment, .lock = LOCK, .mode = X, .to_exit = true}};
    granted(a, send_message(a, acquire));
    end_process(1);
    work();
    cr_expect(eq(int, granted(b, request_acquire(b, segment, LOCK, X, 0)).status, LKI_STATUS_OK));
}

/* Rows: who of holder, first and second waiter dies, in every combination; the living get the lock
 * one after the other, in order. */
Test(strict, deaths_in_every_position_lose_nobody)
{
    for (unsigned dead = 1; dead < 8; dead++) {
        world_teardown();
        setup_strict();
        uint64_t sessions[3] = {a, b, c}, ids[3];
        struct lki_opened ats[3] = {at_a, at_b, at_c};
        for (int i = 0; i < 3; i++)
            ids[i] = request_acquire(sessions[i], segment, LOCK, X, NEVER);
        for (int i = 0; i < 3; i++)
            if (dead >> i & 1)
                end_process(i + 1);
        work();
        for (int i = 0; i < 3; i++) {
            if (dead >> i & 1)
                continue;
            cr_assert(is_answered(sessions[i], ids[i]), "dead %#x: %d still waits", dead, i);
            granted(sessions[i], ids[i]);
            request_hold(sessions[i], LKI_REQUEST_RELEASE, segment, LOCK, ats[i].attachment);
        }
        work();
        cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), __builtin_popcount(dead)));
    }
}

Test(strict, waiter_whose_session_is_lost_passes_its_turn_on)
{
    request_acquire(a, segment, LOCK, X, 0);
    uint64_t wait_b = request_acquire(b, segment, LOCK, X, NEVER);
    uint64_t wait_c = request_acquire(c, segment, LOCK, X, NEVER);
    lose(b);
    request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment);
    granted(c, wait_c);
    cr_expect(not(is_answered(b, wait_b)));
}

Test(strict, detach_cancels_a_wait_and_hands_holds_on)
{
    granted(a, request_acquire(a, segment, 5, X, 0));
    granted(b, request_acquire(b, segment, LOCK, X, 0));
    uint64_t wait = request_acquire(a, segment, LOCK, X, NEVER);
    uint64_t other = request_acquire(c, segment, 5, X, NEVER);
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, segment);
    EXPECT_STATUS(a, wait, LKI_STATUS_CANCELED);
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(int, granted(c, other).status, LKI_STATUS_OWNER_DIED));
}

Test(strict, long_wait_has_its_owner_checked_once_per_millisecond)
{
    request_acquire(a, segment, LOCK, X, 0);
    request_acquire(a, segment, 5, X, 0);
    request_acquire(b, segment, LOCK, X, NEVER);
    request_acquire(c, segment, 5, X, NEVER);
    pass(LKI_NS_PER_MS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1));
    cr_expect(eq(u64, last_effect(LKD_EFFECT_CHECK_PROCESS)->effect.process, 1));
}

/* --- Asynchronous, beside native holders --- */

Test(asynchronous, plain_acquires_of_natives_are_refused)
{
    EXPECT_STATUS(a, request_acquire(a, segment, LOCK, X, NEVER), LKI_STATUS_INVALID);
}

Test(asynchronous, hold_has_a_slot_of_its_own_until_it_is_released)
{
    struct lki_granted grant = granted(a, request_async(a, segment, LOCK, X, NEVER));
    cr_expect(eq(u32, grant.attachment, 1u << 16 | 4));
    cr_expect(eq(u32, native_a.area.attachments[4].flags, LKI_ATTACHMENT_BROKERED));
    expect_held_by(&native_a.area, grant.attachment);
    EXPECT_STATUS(a, request_async(a, segment, LOCK, X, NEVER), LKI_STATUS_DEADLOCK);
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, grant.attachment),
                  LKI_STATUS_OK);
    cr_expect(eq(u32, native_a.area.attachments[4].id, 0));
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, grant.attachment),
                  LKI_STATUS_NOT_HOLDER);
    grant = granted(b, request_async(b, segment, LOCK, X, NEVER));
    cr_expect(eq(u32, grant.attachment, 2u << 16 | 4), "same slot, next generation");
}

Test(asynchronous, acquire_of_what_the_native_side_holds_is_a_deadlock)
{
    native_try(&native_a, LOCK, X);
    native_try(&native_a, 5, S);
    EXPECT_STATUS(a, request_async(a, segment, LOCK, X, NEVER), LKI_STATUS_DEADLOCK);
    EXPECT_STATUS(a, request_async(a, segment, 5, X, NEVER), LKI_STATUS_DEADLOCK);
}

Test(asynchronous, attempt_without_grant_gives_its_slot_back)
{
    native_try(&native_a, LOCK, X);
    EXPECT_STATUS(b, request_async(b, segment, LOCK, X, 0), LKI_STATUS_BUSY);
    cr_expect(eq(u32, native_a.area.attachments[4].id, 0));
    uint64_t timed = request_async(b, segment, LOCK, X, world.now_ns + LKI_NS_PER_MS);
    cr_expect(ne(u32, native_a.area.attachments[4].id, 0));
    pass(LKI_NS_PER_MS);
    EXPECT_STATUS(b, timed, LKI_STATUS_TIMED_OUT);
    cr_expect(eq(u32, native_a.area.attachments[4].id, 0));
}

/* Native and brokered waiters stand in one queue: B waits asynchronously, C natively behind it. */
Test(asynchronous, one_queue_with_native_waiters)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait_b = request_async(b, segment, LOCK, X, NEVER);
    native_wait(&native_c, LOCK, X);
    pass(2 * LKI_NS_PER_MS); /* both are past their patience: turns are kept */
    cr_assert(eq(int, native_step(&native_c), LKI_SLEEP));
    forget_effects();

    native_release(&native_a, LOCK); /* nudges */
    struct lki_granted grant = granted(b, wait_b);
    cr_expect(eq(int, native_step(&native_c), LKI_SLEEP));
    cr_expect(eq(sz, count_wakes(segment, 3), 0));

    request_hold(b, LKI_REQUEST_RELEASE, segment, LOCK, grant.attachment);
    cr_expect(eq(sz, count_wakes(segment, 3), 1), "the broker wakes natives by effect");
    cr_expect(eq(int, native_step(&native_c), LKI_TAKEN));
}

Test(asynchronous, lost_nudge_costs_a_nap_and_no_more)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait = request_async(b, segment, LOCK, X, NEVER);
    enum lki_verdict verdict = lki_lock_release(&native_a.party, LOCK); /* without the nudge */
    cr_assert(eq(int, verdict, LKI_RELEASED));
    cr_expect(not(is_answered(b, wait)));
    pass(250 * LKI_NS_PER_MS);
    granted(b, wait);
}

/* Rows: who dies of the native holder A, the asynchronous waiter B and the native waiter C. */
Test(asynchronous, deaths_in_every_position_lose_nobody)
{
    for (unsigned dead = 1; dead < 8; dead++) {
        world_teardown();
        setup_plain();
        native_try(&native_a, LOCK, X);
        uint64_t wait_b = request_async(b, segment, LOCK, X, NEVER);
        native_wait(&native_c, LOCK, X);
        for (int i = 0; i < 3; i++)
            if (dead >> i & 1)
                end_process(i + 1);
        work();
        bool alive_b = !(dead & 2), alive_c = !(dead & 4);
        if (!(dead & 1))
            native_release(&native_a, LOCK);
        if (alive_b) {
            struct lki_granted grant = granted(b, wait_b);
            cr_expect(eq(int, grant.status, dead & 1 ? LKI_STATUS_OWNER_DIED : LKI_STATUS_OK));
            request_hold(b, LKI_REQUEST_MARK_CONSISTENT, segment, LOCK, grant.attachment);
            request_hold(b, LKI_REQUEST_RELEASE, segment, LOCK, grant.attachment);
        }
        if (alive_c) {
            enum lki_verdict expected = dead & 1 && !alive_b ? LKI_TAKEN_DIED : LKI_TAKEN;
            cr_expect(eq(int, native_step(&native_c), expected), "dead %#x", dead);
        }
        if ((dead & 3) && alive_c)
            cr_expect(ge(sz, count_wakes(segment, 3), 1), "dead %#x", dead);
    }
}

Test(asynchronous, holder_dies_with_its_extra_slots)
{
    struct lki_granted grant = granted(a, request_async(a, segment, LOCK, X, NEVER));
    native_try(&native_a, 5, X);
    uint64_t waiting = request_async(b, segment, LOCK, X, NEVER);
    end_process(1);
    work();
    cr_expect(eq(int, granted(b, waiting).status, LKI_STATUS_OWNER_DIED));
    cr_expect(eq(int, native_try(&native_b, 5, X), LKI_TAKEN_DIED));
    cr_expect(eq(u32, native_b.area.attachments[grant.attachment & LKI_SLOT_MASK].id, 0));
}

Test(asynchronous, lost_session_keeps_its_holds_and_loses_its_waits)
{
    struct lki_granted hold = granted(a, request_async(a, segment, LOCK, X, NEVER));
    native_try(&native_c, 5, X);
    uint64_t given_up = request_async(a, segment, 5, X, NEVER);
    const struct lki_attachment *slots = native_c.area.attachments;
    cr_assert(ne(u32, slots[5].id, 0));
    lose(a);
    work();
    cr_expect(not(is_answered(a, given_up)));
    cr_expect(eq(u32, slots[5].id, 0), "the slot that only waited is given back at once");
    cr_expect(eq(u32, slots[4].id, hold.attachment));
    EXPECT_STATUS(b, request_async(b, segment, LOCK, X, 0), LKI_STATUS_BUSY);
    end_process(1);
    work();
    granted(b, request_async(b, segment, LOCK, X, 0));
}

Test(asynchronous, detach_waits_for_all_extra_slots)
{
    granted(a, request_async(a, segment, LOCK, X, NEVER));
    native_try(&native_b, 5, X);
    uint64_t wait = request_async(a, segment, 5, X, NEVER);
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, segment);
    EXPECT_STATUS(a, wait, LKI_STATUS_CANCELED);
    tick_slice(16); /* the main one is repaired, the extra is not */
    cr_expect(not(is_answered(a, id)));
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(int, native_try(&native_b, LOCK, X), LKI_TAKEN_DIED));
}

Test(asynchronous, cancel_is_answered_once_and_so_is_the_acquire)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait = request_async(b, segment, LOCK, X, NEVER);
    uint64_t first = request_cancel(b, wait);
    EXPECT_STATUS(b, first, LKI_STATUS_OK);
    EXPECT_STATUS(b, wait, LKI_STATUS_CANCELED);
    EXPECT_STATUS(b, request_cancel(b, wait), LKI_STATUS_NOT_FOUND);
    cr_expect(eq(u32, native_a.area.attachments[4].id, 0));
    native_release(&native_a, LOCK);
    cr_expect(eq(int, native_try(&native_c, LOCK, X), LKI_TAKEN), "nothing is left behind");
}

Test(asynchronous, cancel_of_a_granted_acquire_is_not_found)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait = request_async(b, segment, LOCK, X, NEVER);
    native_release(&native_a, LOCK);
    granted(b, wait);
    EXPECT_STATUS(b, request_cancel(b, wait), LKI_STATUS_NOT_FOUND);
    EXPECT_STATUS(c, request_cancel(c, wait), LKI_STATUS_NOT_FOUND);
}

Test(asynchronous, cancel_by_another_session_is_not_found)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait = request_async(b, segment, LOCK, X, NEVER);
    EXPECT_STATUS(c, request_cancel(c, wait), LKI_STATUS_NOT_FOUND);
    cr_expect(not(is_answered(b, wait)));
}

Test(asynchronous, second_wait_for_the_same_lock_is_pending)
{
    native_try(&native_a, LOCK, X);
    uint64_t first = request_async(b, segment, LOCK, X, NEVER);
    EXPECT_STATUS(b, request_async(b, segment, LOCK, S, NEVER), LKI_STATUS_PENDING);
    cr_expect(not(is_answered(b, first)));
}

Test(asynchronous, goodbye_cancels_all_waits)
{
    native_try(&native_a, LOCK, X);
    native_try(&native_a, 5, X);
    uint64_t first = request_async(b, segment, LOCK, X, NEVER);
    uint64_t second = request_async(b, segment, 5, S, NEVER);
    uint64_t bye = request_goodbye(b);
    EXPECT_STATUS(b, first, LKI_STATUS_CANCELED);
    EXPECT_STATUS(b, second, LKI_STATUS_CANCELED);
    work();
    EXPECT_STATUS(b, bye, LKI_STATUS_OK);
}

Test(asynchronous, hold_of_the_native_side_is_not_released_by_message)
{
    native_try(&native_a, LOCK, X);
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_RELEASE, segment, LOCK, at_a.attachment),
                  LKI_STATUS_INVALID);
    expect_held_by(&native_a.area, at_a.attachment);
}

Test(asynchronous, waits_of_a_session_are_bounded)
{
    uint64_t d = connect_as(1000, 9);
    struct lki_message create = open_message("many", LK_CREATE);
    create.as.open.locks = LKI_ASYNC_WAITS_MAX + 1;
    uint64_t id = send_message(d, create);
    struct lki_opened at = reply(d, id)->effect.message.as.opened;
    struct native holder;
    struct lki_opened at_holder = opened(a, "many", 0);
    native_init(&holder, a, &at_holder);
    for (uint32_t lock = 0; lock <= LKI_ASYNC_WAITS_MAX; lock++)
        native_try(&holder, lock, X);
    uint64_t first = 0;
    for (uint32_t lock = 0; lock < LKI_ASYNC_WAITS_MAX; lock++) {
        id = request_async(d, at.segment, lock, X, NEVER);
        first = first ? first : id;
        cr_assert(not(is_answered(d, id)));
    }
    EXPECT_STATUS(d, request_async(d, at.segment, LKI_ASYNC_WAITS_MAX, X, NEVER),
                  LKI_STATUS_NOT_READY);
    request_cancel(d, first);
    cr_expect(not(is_answered(d, request_async(d, at.segment, LKI_ASYNC_WAITS_MAX, X, NEVER))));
}

/* More waits than one event may step: the rest is stepped by the ticks that follow at once. */
Test(asynchronous, nudge_of_many_waits_is_done_in_portions)
{
    uint64_t sessions[5], ids[5 * 30];
    struct lki_message create = open_message("many", LK_CREATE);
    create.as.open.locks = 200;
    uint64_t id = send_message(a, create);
    struct lki_opened at = reply(a, id)->effect.message.as.opened;
    struct native holder;
    native_init(&holder, a, &at);
    for (int i = 0; i < 5; i++) {
        sessions[i] = connect_as(1000, 50 + i);
        opened(sessions[i], "many", 0);
    }
    for (uint32_t lock = 0; lock < 150; lock++) {
        native_try(&holder, lock, X);
        ids[lock] = request_async(sessions[lock / 30], at.segment, lock, X, NEVER);
    }
    for (uint32_t lock = 0; lock < 150; lock++)
        lki_lock_release(&holder.party, lock);
    request_segment(a, LKI_REQUEST_NUDGE, at.segment);
    size_t now_granted = 0;
    for (uint32_t lock = 0; lock < 150; lock++)
        now_granted += is_answered(sessions[lock / 30], ids[lock]);
    cr_expect(eq(sz, now_granted, 64));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), 0));
    work();
    for (uint32_t lock = 0; lock < 150; lock++)
        granted(sessions[lock / 30], ids[lock]);
}

/* The area is written by clients: none of this may hurt the broker. */
Test(asynchronous, scribbles_over_facts_are_survived)
{
    native_try(&native_a, LOCK, X);
    uint64_t wait = request_async(b, segment, LOCK, X, NEVER);
    struct lki_attachment *extra = &native_a.area.attachments[4];
    extra->wait = UINT64_MAX;
    extra->flags = 0;
    extra->cells[3] = UINT32_MAX;
    native_a.area.header->attachments_used = UINT32_MAX;
    native_a.area.header->locks = UINT32_MAX;
    pass(300 * LKI_NS_PER_MS);
    extra->id = 12345;
    pass(300 * LKI_NS_PER_MS);
    native_release(&native_a, LOCK);
    request_segment(a, LKI_REQUEST_NUDGE, segment);
    pass(300 * LKI_NS_PER_MS);
    (void)wait;
    end_process(1);
    end_process(2);
    end_process(3);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_FORGET_SESSION), 3));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}
