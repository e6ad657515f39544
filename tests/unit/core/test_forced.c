/* SPDX-License-Identifier: MIT */
/* Forced releases: who may, what becomes of the holder, and when the answer comes. */
#include "world.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/clock.h"

#define ALICE 1001u /* the broker is 1000's */
#define BOB 1002u
#define CAROL 1003u

TestSuite(forced, .init = world_setup, .fini = world_teardown, .timeout = 60);

static struct native holder;
static uint64_t holder_session, asker;

/* Process 11, of user BOB, holds lock 3 of ALICE's segment; process 9, of `uid`, asks. */
static void arrange(uint32_t holder_flags, uint32_t uid)
{
    uint64_t owner = connect_as(ALICE, 5);
    struct lki_message message = open_message("a", LK_CREATE | LK_KEEP);
    message.as.open.mode = 0666;
    send_message(owner, message);
    holder_session = connect_as(BOB, 11);
    struct lki_opened attached = opened(holder_session, "~1001/a", holder_flags);
    native_init(&holder, holder_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    asker = connect_as(uid, 9);
    forget_effects();
}

static uint64_t force(void)
{
    uint64_t id = request_force(asker, "~1001/a", 3, "it hangs");
    tick();
    return id;
}

static int last_signal(void)
{
    const struct recorded *effect = last_effect(LKD_EFFECT_SIGNAL_PROCESS);
    return effect ? effect->effect.signal : 0;
}

static uint64_t value_of(uint64_t session, uint64_t id)
{
    return reply(session, id)->effect.message.as.result.value;
}

Test(forced, the_holder_is_ended_and_the_answer_comes_when_the_lock_is_free)
{
    arrange(0, 0);
    uint64_t id = force();
    cr_assert(eq(int, last_signal(), SIGTERM));
    cr_expect(logged("asked for by pid 9 (worker), uid 0: it hangs"));
    cr_expect(logged("forced release: pid 11 (worker), uid 1002, holds lock 3"));
    signaled(11, SIGTERM, 0);
    pass(LKD_GRACE_NS);
    looked(11, LKD_PROCESS_RUNS);
    cr_assert(eq(int, last_signal(), SIGKILL));
    signaled(11, SIGKILL, 0);
    end_process(11);
    cr_assert(eq(ptr, (void *)reply(asker, id), NULL), "not before the repair");
    work();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    cr_expect(eq(u64, value_of(asker, id), 1));
    cr_expect(eq(u32, holder.area.cold[3].recovery_cause, LKI_CAUSE_FORCED));
    cr_expect(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
}

Test(forced, a_holder_that_lets_go_when_asked_lives)
{
    arrange(0, 0);
    uint64_t id = force();
    native_release(&holder, 3);
    pass(20 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    pass(10 * LKD_GRACE_NS);
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(forced, a_lock_that_nobody_holds_is_released)
{
    arrange(0, 0);
    native_release(&holder, 3);
    uint64_t id = force();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    cr_expect(eq(u64, value_of(asker, id), 0));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));
}

Test(forced, who_may)
{
    static const struct {
        const char *name;
        uint32_t uid;
        uint32_t flags; /* of the holder */
        bool may;
    } rows[] = {
        {"root", 0, 0, true},
        {"the broker's user", 1000, 0, true},
        {"the holder's user", BOB, 0, true},
        {"the segment's owner", ALICE, 0, false},
        {"the segment's owner, with consent", ALICE, LK_ACCEPT_KILL, true},
        {"somebody else", CAROL, 0, false},
        {"somebody else, with consent", CAROL, LK_ACCEPT_KILL, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        world_teardown();
        world_setup();
        arrange(rows[i].flags, rows[i].uid);
        uint64_t id = force();
        cr_expect(eq(int, last_signal(), rows[i].may ? SIGTERM : 0), "%s", rows[i].name);
        if (!rows[i].may)
            EXPECT_STATUS(asker, id, LKI_STATUS_DENIED);
    }
}

Test(forced, a_reason_is_obligatory_and_bounded)
{
    char reason[LKI_REASON_BYTES_MAX + 2];
    arrange(0, 0);
    EXPECT_STATUS(asker, request_force(asker, "~1001/a", 3, ""), LKI_STATUS_INVALID);
    memset(reason, 'x', sizeof(reason));
    reason[sizeof(reason) - 1] = 0;
    EXPECT_STATUS(asker, request_force(asker, "~1001/a", 3, reason), LKI_STATUS_INVALID);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 0));
    reason[sizeof(reason) - 2] = 0;
    request_force(asker, "~1001/a", 3, reason);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 1));
}

Test(forced, what_there_is_not_is_refused)
{
    arrange(0, 0);
    EXPECT_STATUS(asker, request_force(asker, "~1001/b", 3, "x"), LKI_STATUS_NOT_FOUND);
    EXPECT_STATUS(asker, request_force(asker, "~1001/a", 16, "x"), LKI_STATUS_OUT_OF_RANGE);
    EXPECT_STATUS(asker, request_force(asker, "a/b", 3, "x"), LKI_STATUS_INVALID);
}

Test(forced, all_readers_are_ended_or_none)
{
    arrange(0, BOB);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_SHARED), LKI_TAKEN));
    uint64_t other = connect_as(CAROL, 12);
    struct lki_opened attached = opened(other, "~1001/a", 0);
    struct native second;
    native_init(&second, other, &attached);
    cr_assert(eq(int, native_try(&second, 3, LKI_MODE_SHARED), LKI_TAKEN));
    EXPECT_STATUS(asker, force(), LKI_STATUS_DENIED);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));

    asker = connect_as(0, 10);
    uint64_t id = force();
    pass(10 * LKI_NS_PER_MS);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 2));
    end_process(11);
    work();
    cr_expect(eq(ptr, (void *)reply(asker, id), NULL), "one is left");
    end_process(12);
    work();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    cr_expect(eq(u64, value_of(asker, id), 2));
}

Test(forced, who_is_stuck_is_told)
{
    arrange(0, 0);
    uint64_t id = force();
    pass(LKD_GRACE_NS);
    looked(11, LKD_PROCESS_UNINTERRUPTIBLE);
    pass(LKI_NS_PER_S);
    looked(11, LKD_PROCESS_UNINTERRUPTIBLE);
    EXPECT_STATUS(asker, id, LKI_STATUS_BUSY);
    cr_expect(ne(ptr, strstr(detail_of(asker, id), "stuck in the kernel"), NULL));
}

Test(forced, a_signal_that_is_not_permitted_is_told)
{
    arrange(0, 1000);
    uint64_t id = force();
    signaled(11, SIGTERM, -EPERM);
    EXPECT_STATUS(asker, id, LKI_STATUS_DENIED);
}

Test(forced, a_brokered_hold_is_fenced_where_leases_do_that)
{
    uint64_t owner = connect_as(ALICE, 5);
    struct lki_message message = open_message("a", LK_CREATE | LK_STRICT);
    message.as.open.lease_ns = 3600 * LKI_NS_PER_S;
    message.as.open.on_expiry = LK_EXPIRY_FENCE;
    struct lki_opened attached =
        reply(owner, send_message(owner, message))->effect.message.as.opened;
    uint64_t held = request_acquire(owner, attached.segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    uint32_t place = reply(owner, held)->effect.message.as.granted.attachment;
    asker = connect_as(ALICE, 9);
    uint64_t id = force();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 0));
    uint64_t late = request_hold(owner, LKI_REQUEST_RELEASE, attached.segment, 3, place);
    EXPECT_STATUS(owner, late, LKI_STATUS_STALE);
}

/* Process 11 holds lock 3 anew; its hold before that was overdue, and was reported. */
static void arrange_reported(void)
{
    uint64_t owner = connect_as(ALICE, 5);
    struct lki_message message = open_message("a", LK_CREATE);
    message.as.open.mode = 0666;
    message.as.open.lease_ns = LKI_NS_PER_S;
    message.as.open.on_expiry = LK_EXPIRY_REPORT;
    struct lki_opened attached =
        reply(owner, send_message(owner, message))->effect.message.as.opened;
    struct native waiter;
    native_init(&waiter, owner, &attached);
    holder_session = connect_as(BOB, 11);
    attached = opened(holder_session, "~1001/a", 0);
    native_init(&holder, holder_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    request_complain(owner, attached.segment, 3, holder.party.id,
                     lki_lock_sequence(&holder.area, 3));
    pass(LKI_NS_PER_S);
    cr_assert(logged("only reported"));
    lki_wait_give_up(&waiter.wait);
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    asker = connect_as(0, 9);
    forget_effects();
}

Test(forced, an_old_report_about_the_holder_does_not_count_as_its_end)
{
    arrange_reported();
    uint64_t id = force();
    cr_expect(eq(int, last_signal(), SIGTERM));
    cr_expect(eq(ptr, (void *)reply(asker, id), NULL), "it holds the lock still");
    end_process(11);
    work();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
}

Test(forced, an_old_report_and_no_memory_are_refused_once)
{
    for (unsigned seed = 1; seed <= 100; seed++) {
        arrange_reported();
        world.seed = seed;
        world.fail_one_in = 3;
        uint64_t id = request_force(asker, "~1001/a", 3, "it hangs");
        world.fail_one_in = 0;
        if (reply(asker, id)) /* there was memory to say so */
            EXPECT_STATUS(asker, id, LKI_STATUS_NOT_READY);
        world_teardown();
        world_setup();
    }
}

Test(forced, nobody_is_answered_who_has_left)
{
    arrange(0, 0);
    uint64_t id = force();
    lose(asker);
    end_process(11);
    work();
    cr_expect(eq(ptr, (void *)reply(asker, id), NULL));
}

Test(forced, one_more_than_the_maximum_is_refused)
{
    arrange(0, 0);
    for (uint32_t i = 0; i < LKI_FORCED_MAX; i++)
        request_force(asker, "~1001/a", 3, "it hangs");
    uint64_t id = request_force(asker, "~1001/a", 3, "it hangs");
    EXPECT_STATUS(asker, id, LKI_STATUS_NOT_READY);
    tick();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 1), "the holder is asked once");
}

/* --- Which lock --- */

static uint64_t force_named(const char *name, const char *lock_name)
{
    uint64_t id = send_message(
        asker,
        (struct lki_message){.type = LKI_REQUEST_FORCE_RELEASE,
                             .as.force_release = {
                                 .name = {(const uint8_t *)name, strlen(name)},
                                 .lock_name = {(const uint8_t *)lock_name, strlen(lock_name)},
                                 .reason = {(const uint8_t *)"it hangs", 8},
                             }});
    tick();
    return id;
}

Test(forced, a_lock_has_a_name_too)
{
    arrange(0, 0);
    for (int i = 0; i < 3; i++) { /* entries 1, 2, 3 */
        char name[] = {(char)('a' + i), 0};
        request_lock_named(holder_session, holder.segment, name);
    }
    EXPECT_STATUS(asker, force_named("~1001/a", "d"), LKI_STATUS_NOT_FOUND);
    char too_long[LKI_NAME_BYTES_MAX + 100] = {0};
    memset(too_long, 'x', sizeof(too_long) - 1);
    EXPECT_STATUS(asker, force_named("~1001/a", too_long), LKI_STATUS_NOT_FOUND);
    EXPECT_STATUS(asker, force_named("~1001/a", "b"), LKI_STATUS_OK);
    cr_expect(eq(int, last_signal(), 0), "nobody holds that one");
    force_named("~1001/a", "c");
    cr_expect(eq(int, last_signal(), SIGTERM));
}

Test(forced, what_one_may_not_see_one_may_not_end)
{
    uint64_t owner = connect_as(ALICE, 5);
    opened(owner, "private", LK_CREATE);
    asker = connect_as(CAROL, 9);
    uint64_t id = force_named("~1001/private", "");
    EXPECT_STATUS(asker, id, LKI_STATUS_DENIED);
    cr_expect(ne(ptr, strstr(detail_of(asker, id), "mode 0600 belongs to uid 1001"), NULL), "%s",
              detail_of(asker, id));
    cr_expect(not(logged("asked for by")));
}

Test(forced, an_owner_that_is_nobody_is_freed)
{
    arrange(0, 0);
    native_release(&holder, 3);
    atomic_store(&holder.area.hot[3].word, UINT32_C(77) << LKI_GENERATION_SHIFT | 1);
    EXPECT_STATUS(asker, force(), LKI_STATUS_OK);
    work();
    cr_expect(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
}

Test(forced, who_has_drained_the_last_reader_and_does_not_know_it_yet_holds_nothing)
{
    arrange(0, 0);
    native_release(&holder, 3);
    uint64_t other = connect_as(BOB, 12);
    struct native reader;
    struct lki_opened attached = opened(other, "~1001/a", 0);
    native_init(&reader, other, &attached);
    cr_assert(eq(int, native_try(&reader, 3, LKI_MODE_SHARED), LKI_TAKEN));
    native_wait(&holder, 3, LKI_MODE_EXCLUSIVE);
    native_release(&reader, 3);
    EXPECT_STATUS(asker, force(), LKI_STATUS_OK);
    work();
    cr_expect(eq(int, last_signal(), 0));
    cr_expect(eq(int, native_step(&holder), LKI_TAKEN), "the word is left to it");
}

/* --- Several at once --- */

Test(forced, each_is_answered_when_its_own_lock_is_free)
{
    arrange(0, 0);
    cr_assert(eq(int, native_try(&holder, 4, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    struct lki_message message = open_message("leased", LK_CREATE);
    message.as.open.lease_ns = 3600 * LKI_NS_PER_S;
    struct lki_opened attached =
        reply(holder_session, send_message(holder_session, message))->effect.message.as.opened;
    uint64_t waits = connect_as(BOB, 13);
    struct lki_opened at_waiter = opened(waits, "leased", 0);
    struct native in_leased, waiter;
    native_init(&in_leased, holder_session, &attached);
    native_init(&waiter, waits, &at_waiter);
    cr_assert(eq(int, native_try(&in_leased, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    cr_assert(eq(int, native_try(&in_leased, 5, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 5, LKI_MODE_EXCLUSIVE); /* a lease of its own, by no force */
    request_complain(waits, at_waiter.segment, 5, attached.attachment,
                     lki_lock_sequence(&waiter.area, 5));

    uint64_t third = force();
    uint64_t fourth = request_force(asker, "~1001/a", 4, "it hangs");
    uint64_t other = request_force(asker, "~1002/leased", 3, "it hangs");
    tick();
    native_release(&holder, 4);
    pass(10 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, fourth, LKI_STATUS_OK);
    cr_expect(eq(ptr, (void *)reply(asker, third), NULL));
    cr_expect(eq(ptr, (void *)reply(asker, other), NULL));
    native_release(&in_leased, 3);
    pass(10 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, other, LKI_STATUS_OK);
    cr_expect(eq(ptr, (void *)reply(asker, third), NULL));
    native_release(&holder, 3);
    pass(10 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, third, LKI_STATUS_OK);
}

Test(forced, twice_asks_the_holder_once_and_answers_both)
{
    arrange(0, 0);
    uint64_t first = force();
    uint64_t second = force();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 1));
    native_release(&holder, 3);
    pass(10 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, first, LKI_STATUS_OK);
    EXPECT_STATUS(asker, second, LKI_STATUS_OK);
}

/* Both readers have ended; the repair of the second takes longer than the grace. */
Test(forced, is_answered_when_the_last_of_several_readers_is_cleaned_up)
{
    uint64_t sessions[2];
    struct native readers[2];
    opened(connect_as(ALICE, 5), "keeps", LK_CREATE);
    for (uint64_t i = 0; i < 2; i++) {
        sessions[i] = connect_as(ALICE, 11 + i);
        struct lki_opened attached = opened(sessions[i], "a", LK_CREATE);
        native_init(&readers[i], sessions[i], &attached);
        cr_assert(eq(int, native_try(&readers[i], 3, LKI_MODE_SHARED), LKI_TAKEN));
    }
    asker = connect_as(0, 9);
    uint64_t id = force();
    pass(5 * LKI_NS_PER_MS);
    cr_assert(eq(sz, count_effects(LKD_EFFECT_SIGNAL_PROCESS), 2));
    end_process(11);
    end_process(12);
    world.now_ns += LKD_GRACE_NS;
    uint32_t before = count_records();
    while (lkd_core_deadline_ns(world.core) == 0) {
        bool both = count_records() < before - 2; /* an attachment and a session each */
        cr_assert(reply(asker, id) == NULL || both, "one reader is left");
        tick_slice(1);
    }
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
    cr_expect(eq(u64, value_of(asker, id), 2));
}

/* --- Beside leases --- */

/* BOB holds lock 3 of ALICE's segment, which has this policy. */
static void arrange_leased(uint32_t flags, uint32_t on_expiry)
{
    uint64_t owner = connect_as(ALICE, 5);
    struct lki_message message = open_message("a", LK_CREATE | flags);
    message.as.open.mode = 0666;
    message.as.open.lease_ns = LKI_NS_PER_S;
    message.as.open.on_expiry = on_expiry;
    EXPECT_STATUS(owner, send_message(owner, message), LKI_STATUS_OK);
    holder_session = connect_as(BOB, 11);
    struct lki_opened attached = opened(holder_session, "~1001/a", 0);
    native_init(&holder, holder_session, &attached);
}

Test(forced, the_owner_of_a_segment_may_fence_without_consent)
{
    arrange_leased(LK_STRICT, LK_EXPIRY_FENCE);
    EXPECT_STATUS(holder_session,
                  request_acquire(holder_session, holder.segment, 3, LKI_MODE_EXCLUSIVE, 0),
                  LKI_STATUS_OK);
    asker = connect_as(ALICE, 9);
    EXPECT_STATUS(asker, force(), LKI_STATUS_OK);
    cr_expect(logged("FENCED"));
    cr_expect(eq(int, last_signal(), 0));
}

Test(forced, a_native_holder_is_ended_where_leases_only_fence)
{
    arrange_leased(0, LK_EXPIRY_FENCE);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    asker = connect_as(0, 9);
    force();
    cr_expect(eq(int, last_signal(), SIGTERM));
}

static void report_holder(void)
{
    uint64_t session = connect_as(ALICE, 6);
    struct native waiter;
    struct lki_opened attached = opened(session, "a", 0);
    native_init(&waiter, session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    request_complain(session, attached.segment, 3, holder.party.id,
                     lki_lock_sequence(&holder.area, 3));
    pass(LKI_NS_PER_S);
    cr_assert(logged("only reported"));
    lki_wait_give_up(&waiter.wait);
    asker = connect_as(0, 9);
}

Test(forced, a_hold_that_was_reported_is_ended_all_the_same)
{
    arrange_leased(0, LK_EXPIRY_REPORT);
    report_holder();
    uint64_t id = force();
    cr_expect(eq(int, last_signal(), SIGTERM));
    cr_expect(logged("forced release: pid 11 (worker), uid 1002, holds lock 3 for 1.000 s"));
    end_process(11);
    work();
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
}

Test(forced, a_report_about_a_hold_in_another_mode_does_not_count)
{
    arrange_leased(0, LK_EXPIRY_REPORT);
    report_holder();
    native_release(&holder, 3);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_SHARED), LKI_TAKEN));
    uint64_t id = force();
    pass(10 * LKI_NS_PER_MS);
    cr_expect(eq(int, last_signal(), SIGTERM));
    cr_expect(logged("holds lock 3 shared for 0.0"));
    native_release(&holder, 3);
    pass(20 * LKI_NS_PER_MS);
    EXPECT_STATUS(asker, id, LKI_STATUS_OK);
}
