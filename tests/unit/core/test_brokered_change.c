/* SPDX-License-Identifier: MIT */
/* Holds that the broker has for a session change their mode: answered once in effect, whichever worker
 * answers. */
#include "world.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define U LKI_MODE_UPDATE
#define NEVER LKI_TIME_NEVER
#define LOCK 3u

TestSuite(brokered_change, .init = world_setup, .fini = world_teardown, .timeout = 60);

static uint64_t a, b;
static struct lki_opened at_a, at_b;
static struct native native_a, native_b;
static uint32_t segment;

static void attach_two(uint32_t flags)
{
    a = connect_as(1000, 1);
    b = connect_as(1000, 2);
    struct lki_message open = open_message("x", LK_CREATE | flags);
    open.as.open.locks = 40;
    at_a = reply(a, send_message(a, open))->effect.message.as.opened;
    at_b = opened(b, "x", 0);
    segment = at_a.segment;
    native_init(&native_a, a, &at_a);
    native_init(&native_b, b, &at_b);
}

static uint32_t place_of(uint64_t session, uint64_t id)
{
    cr_assert(eq(int, reply(session, id)->effect.message.type, LKI_REPLY_GRANTED), "%s",
              detail_of(session, id));
    return reply(session, id)->effect.message.as.granted.attachment;
}

static uint32_t held(uint64_t session, enum lki_mode mode)
{
    return place_of(session, request_acquire(session, segment, LOCK, mode, NEVER));
}

static struct lki_message change_message(uint32_t place, uint32_t mode, uint64_t deadline_ns)
{
    return (struct lki_message){.type = LKI_REQUEST_CHANGE_MODE,
                                .as.change_mode = {.segment = segment,
                                                   .lock = LOCK,
                                                   .attachment = place,
                                                   .mode = mode,
                                                   .deadline_ns = deadline_ns}};
}

static uint64_t change(uint64_t session, uint32_t place, uint32_t mode, uint64_t deadline_ns)
{
    return send_message(session, change_message(place, mode, deadline_ns));
}

static uint64_t release(uint64_t session, uint32_t place)
{
    return request_hold(session, LKI_REQUEST_RELEASE, segment, LOCK, place);
}

static uint32_t word(void)
{
    return atomic_load(&native_a.area.hot[LOCK].word);
}

static uint32_t mode_in_word(void)
{
    if ((word() & LKI_ID_MASK) == 0)
        return 0;
    return word() & LKI_UPDATE ? U : X;
}

static struct lki_attachment *facts_of(uint32_t id)
{
    return &native_a.area.attachments[id & LKI_SLOT_MASK];
}

static bool is_answered(uint64_t session, uint64_t id)
{
    return reply(session, id) != NULL;
}

/* --- One worker --- */

Test(brokered_change, up_and_down_again_beside_a_reader)
{
    attach_two(LK_STRICT);
    uint32_t one = held(a, U), two = held(b, S);
    EXPECT_STATUS(b, request_async(b, segment, LOCK, U, 0), LKI_STATUS_DEADLOCK);
    uint64_t busy = change(a, one, X, 0);
    EXPECT_STATUS(a, busy, LKI_STATUS_BUSY);
    cr_expect(ne(ptr, strstr(detail_of(a, busy), "still held for update"), NULL));
    cr_expect(ne(ptr, strstr(detail_of(a, busy), "held for update by pid 1"), NULL), "%s",
              detail_of(a, busy));
    uint64_t late = change(a, one, X, world.now_ns + LKI_NS_PER_MS);
    cr_expect(not(is_answered(a, late)));
    cr_expect(eq(u32, mode_in_word(), X), "nobody comes in");
    pass(2 * LKI_NS_PER_MS);
    EXPECT_STATUS(a, late, LKI_STATUS_TIMED_OUT);
    cr_expect(eq(u32, mode_in_word(), U));
    uint64_t id = change(a, one, X, NEVER);
    release(b, two);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u32, place_of(a, id), one));
    cr_expect(eq(u64, reply(a, id)->effect.message.as.granted.token,
                 lki_lock_sequence(&native_a.area, LOCK)));
    EXPECT_STATUS(a, change(a, one, U, 0), LKI_STATUS_OK);
    cr_expect(eq(u32, mode_in_word(), U));
    EXPECT_STATUS(a, change(a, one, X, 0), LKI_STATUS_OK);
    EXPECT_STATUS(a, change(a, one, S, 0), LKI_STATUS_OK);
    cr_expect(eq(u32, mode_in_word(), 0));
    EXPECT_STATUS(b, request_acquire(b, segment, LOCK, S, 0), LKI_STATUS_OK);
    EXPECT_STATUS(a, release(a, one), LKI_STATUS_OK);
}

Test(brokered_change, a_native_reader_that_leaves_ends_the_wait)
{
    attach_two(0);
    uint32_t place = place_of(a, request_async(a, segment, LOCK, U, NEVER));
    cr_assert(eq(int, native_try(&native_b, LOCK, S), LKI_TAKEN));
    uint64_t id = change(a, place, X, NEVER);
    native_release(&native_b, LOCK);
    request_segment(b, LKI_REQUEST_NUDGE, segment);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    EXPECT_STATUS(a, release(a, place), LKI_STATUS_OK);
}

Test(brokered_change, what_is_not_so_is_refused)
{
    attach_two(LK_STRICT);
    EXPECT_STATUS(a, change(a, at_a.attachment, X, 0), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, change(a, at_a.attachment, S, 0), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, change(a, at_b.attachment, X, 0), LKI_STATUS_NOT_HOLDER);
    uint32_t reads = held(a, S);
    EXPECT_STATUS(a, change(a, reads, X, 0), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, change(a, reads, U, 0), LKI_STATUS_NOT_HOLDER);
    release(a, reads);
    uint32_t place = held(a, U);
    EXPECT_STATUS(a, change(a, place, U, 0), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, change(a, place, 0, 0), LKI_STATUS_INVALID);
    cr_expect(eq(u32, mode_in_word(), U));
    EXPECT_STATUS(a, request_acquire(a, segment, 1, 4, 0), LKI_STATUS_INVALID);
    struct lki_message beyond = change_message(place, X, 0);
    beyond.as.change_mode.lock = UINT32_MAX;
    EXPECT_STATUS(a, send_message(a, beyond), LKI_STATUS_OUT_OF_RANGE);
}

Test(brokered_change, to_shared_needs_a_cell)
{
    attach_two(LK_STRICT);
    uint32_t place = held(a, X);
    for (uint32_t lock = 4; lock < 4 + LKI_SHARED_HOLDS_MAX; lock++)
        EXPECT_STATUS(a, request_acquire(a, segment, lock, S, 0), LKI_STATUS_OK);
    EXPECT_STATUS(a, change(a, place, S, 0), LKI_STATUS_NO_CELL);
    cr_expect(eq(u32, mode_in_word(), X));
}

Test(brokered_change, is_of_any_lock_that_the_session_holds)
{
    attach_two(LK_STRICT);
    uint32_t place = held(a, U);
    EXPECT_STATUS(a, request_acquire(a, segment, 1, X, NEVER), LKI_STATUS_OK);
    uint32_t two = held(b, S);
    uint64_t id = change(a, place, X, NEVER);
    crash();
    take_over();
    resume(a);
    resume(b);
    struct lki_message again = change_message(place, X, NEVER);
    again.id = id;
    send_again(a, &again);
    cr_expect(not(is_answered(a, id)), "a reader is inside");
    release(b, two);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u32, mode_in_word(), X));
    cr_expect(eq(u32, atomic_load(&native_a.area.hot[1].word) & LKI_ID_MASK, place));
}

Test(brokered_change, is_refused_while_the_session_waits_for_another_lock)
{
    attach_two(LK_STRICT);
    uint32_t place = held(a, U);
    EXPECT_STATUS(b, request_acquire(b, segment, 1, X, NEVER), LKI_STATUS_OK);
    uint64_t waits = request_acquire(a, segment, 1, X, NEVER);
    EXPECT_STATUS(a, change(a, place, X, NEVER), LKI_STATUS_PENDING);
    EXPECT_STATUS(a, change(a, place, S, NEVER), LKI_STATUS_OK);
    cr_expect(not(is_answered(a, waits)));
}

Test(brokered_change, is_refused_while_an_upgrade_of_the_same_hold_waits)
{
    attach_two(LK_STRICT);
    uint32_t one = held(a, U), two = held(b, S);
    uint64_t waits = change(a, one, X, NEVER);
    EXPECT_STATUS(a, change(a, one, X, NEVER), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, change(a, one, S, 0), LKI_STATUS_NOT_HOLDER);
    cr_expect(not(is_answered(a, waits)));
    release(b, two);
    EXPECT_STATUS(a, waits, LKI_STATUS_OK);
}

Test(brokered_change, an_upgrade_that_would_wait_once_too_often_leaves_the_hold)
{
    struct lkd_core_config config = {.broker_uid = 7, .token_epoch_s = 1000};
    config.limits.max[LKD_WAITS] = 4; /* of these one for each session */
    world_teardown();
    world_setup_with(&config);
    attach_two(LK_STRICT);
    uint32_t one = held(a, U), two = held(b, S);
    EXPECT_STATUS(b, request_acquire(b, segment, 1, X, NEVER), LKI_STATUS_OK);
    uint64_t waits = request_async(a, segment, 1, X, NEVER);
    EXPECT_STATUS(a, change(a, one, X, NEVER), LKI_STATUS_QUOTA);
    cr_expect(eq(u32, mode_in_word(), U));
    cr_expect(not(is_answered(a, waits)));
    release(b, two);
    EXPECT_STATUS(a, change(a, one, X, NEVER), LKI_STATUS_OK);
}

static uint64_t held_ns(uint32_t lock)
{
    return reply(b, request_holder(b, segment, lock))->effect.message.as.holder_is.held_ns;
}

Test(brokered_change, how_long_it_is_held_for_update_is_known_of_the_last_grant)
{
    attach_two(LK_STRICT);
    held(a, U);
    world.now_ns += LKI_NS_PER_MS;
    cr_expect(eq(u64, held_ns(LOCK), LKI_NS_PER_MS));
    EXPECT_STATUS(a, request_acquire(a, segment, 1, U, NEVER), LKI_STATUS_OK);
    cr_expect(eq(u64, held_ns(LOCK), 0));
    cr_expect(eq(u64, held_ns(1), 0));
}

Test(brokered_change, damage_is_told_and_can_be_mended)
{
    attach_two(LK_STRICT);
    held(b, X);
    end_process(2);
    work();
    uint64_t id = request_acquire(a, segment, LOCK, U, NEVER);
    EXPECT_STATUS(a, id, LKI_STATUS_OWNER_DIED);
    uint32_t place = place_of(a, id);
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_MARK_CONSISTENT, segment, LOCK, place),
                  LKI_STATUS_NOT_HOLDER);
    uint64_t up = change(a, place, X, NEVER);
    EXPECT_STATUS(a, up, LKI_STATUS_OWNER_DIED);
    crash(); /* the answer was sent, but say that it was lost */
    forget_effects();
    take_over();
    resume(a);
    struct lki_message again = change_message(place, X, NEVER);
    again.id = up;
    send_again(a, &again);
    EXPECT_STATUS(a, up, LKI_STATUS_OWNER_DIED);
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_MARK_CONSISTENT, segment, LOCK, place),
                  LKI_STATUS_OK);
}

Test(brokered_change, a_hold_to_exit_that_comes_back_is_one_for_data)
{
    attach_two(LK_STRICT);
    struct lki_message message = {
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {
            .segment = segment, .lock = LOCK, .mode = X, .to_exit = true, .deadline_ns = NEVER}};
    uint32_t place = place_of(a, send_message(a, message));
    EXPECT_STATUS(a, change(a, place, U, 0), LKI_STATUS_OK);
    EXPECT_STATUS(a, change(a, place, X, 0), LKI_STATUS_OK);
    end_process(1);
    work();
    EXPECT_STATUS(b, request_acquire(b, segment, LOCK, X, NEVER), LKI_STATUS_OWNER_DIED);
}

Test(brokered_change, an_upgrade_without_end_is_refused_and_leaves_the_hold)
{
    attach_two(LK_STRICT);
    uint32_t place = held(a, U);
    EXPECT_STATUS(a, request_acquire(a, segment, 1, X, NEVER), LKI_STATUS_OK);
    held(b, S);
    uint64_t waits = request_async(b, segment, 1, X, NEVER);
    uint64_t id = change(a, place, X, NEVER);
    EXPECT_STATUS(a, id, LKI_STATUS_DEADLOCK);
    cr_expect(eq(u32, mode_in_word(), U));
    cr_expect(not(is_answered(b, waits)));
    EXPECT_STATUS(a, release(a, place), LKI_STATUS_OK);
}

Test(brokered_change, a_cancelled_upgrade_leaves_the_hold_and_its_slot)
{
    attach_two(0);
    uint32_t place = place_of(a, request_async(a, segment, LOCK, U, NEVER));
    cr_assert(eq(int, native_try(&native_b, LOCK, S), LKI_TAKEN));
    uint64_t id = change(a, place, X, NEVER);
    EXPECT_STATUS(a, release(a, place), LKI_STATUS_NOT_HOLDER);
    EXPECT_STATUS(a, request_cancel(a, id), LKI_STATUS_OK);
    EXPECT_STATUS(a, id, LKI_STATUS_CANCELED);
    cr_expect(eq(u32, mode_in_word(), U));
    EXPECT_STATUS(a, release(a, place), LKI_STATUS_OK);
}

Test(brokered_change, a_session_that_ends_in_an_upgrade_leaves_no_damage)
{
    attach_two(LK_STRICT);
    uint32_t place = held(a, U);
    held(b, S);
    change(a, place, X, NEVER);
    end_process(1);
    work();
    cr_expect(eq(u32, word() & (LKI_ID_MASK | LKI_DIED), 0));
}

/* --- Another worker --- */

static void replace_worker(void)
{
    crash();
    take_over();
    resume(a);
}

Test(brokered_change, an_upgrade_goes_on_with_the_next_worker)
{
    attach_two(LK_STRICT);
    uint32_t one = held(a, U), two = held(b, S);
    uint64_t id = change(a, one, X, NEVER);
    replace_worker();
    resume(b);
    struct lki_message again = change_message(one, X, NEVER);
    again.id = id;
    send_again(a, &again);
    cr_expect(not(is_answered(a, id)));
    cr_expect(eq(u32, mode_in_word(), X));
    release(b, two);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
}

Test(brokered_change, an_asynchronous_hold_outlives_its_upgrade_and_the_worker)
{
    attach_two(0);
    uint32_t place = place_of(a, request_async(a, segment, LOCK, U, NEVER));
    cr_assert(eq(int, native_try(&native_b, LOCK, S), LKI_TAKEN));
    struct lki_message again = change_message(place, X, world.now_ns + LKI_NS_PER_MS);
    again.id = send_message(a, again);
    replace_worker();
    send_again(a, &again);
    cr_expect(eq(u32, mode_in_word(), X));
    pass(2 * LKI_NS_PER_MS);
    EXPECT_STATUS(a, again.id, LKI_STATUS_TIMED_OUT);
    cr_expect(eq(u32, mode_in_word(), U));
    replace_worker();
    EXPECT_STATUS(a, release(a, place), LKI_STATUS_OK);
}

Test(brokered_change, an_upgrade_whose_time_is_over_meanwhile_is_answered_once)
{
    attach_two(LK_STRICT);
    uint32_t one = held(a, U);
    held(b, S);
    uint64_t id = change(a, one, X, world.now_ns + LKI_NS_PER_MS);
    crash();
    world.now_ns += LKI_NS_PER_S;
    take_over();
    work();
    cr_expect(not(is_answered(a, id)), "it comes again");
    cr_expect(eq(u32, mode_in_word(), U));
    resume(a);
    struct lki_message again = change_message(one, X, world.now_ns - 1);
    again.id = id;
    send_again(a, &again);
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_TIMED_OUT);
}

/* What a scribble leaves of the hold of an upgrade that is adopted: nothing, or the cell of another. */
Test(brokered_change, an_upgrade_that_was_written_over_is_let_be)
{
    for (unsigned i = 0; i < 2; i++) {
        attach_two(0);
        uint32_t place = place_of(a, request_async(a, segment, LOCK, U, NEVER));
        cr_assert(eq(int, native_try(&native_b, LOCK, S), LKI_TAKEN));
        uint64_t id = change(a, place, X, NEVER);
        atomic_store(&native_a.area.hot[LOCK].word, 0);
        if (i > 0)
            atomic_store(&facts_of(place)->cells[2], LOCK + 1);
        replace_worker();
        struct lki_message again = change_message(place, X, NEVER);
        again.id = id;
        send_again(a, &again);
        EXPECT_STATUS(a, id, LKI_STATUS_NOT_HOLDER);
        world_teardown();
        world_setup();
    }
}

/* --- A worker that dies at each step --- */

static struct lki_message sent;

static void send_it(void *user)
{
    (void)user;
    send_again(a, &sent);
}

enum reader {
    NOBODY_READS,
    READER_STAYS,
    READER_LEAVES,
};

/* From this mode to that one, with the worker dying at each step in turn. */
static void die_at_each_step(enum lki_mode from, enum lki_mode to, enum reader reader)
{
    bool reader_leaves = reader == READER_LEAVES;
    unsigned deaths = 0;
    for (uint64_t step = 1;; step++) {
        attach_two(LK_STRICT);
        uint32_t one = held(a, from), two = reader != NOBODY_READS ? held(b, S) : 0;
        sent = change_message(one, to, reader_leaves ? NEVER : 0);
        sent.id = ++world.last_id;
        world.dies_at = world.steps + step;
        bool lives = survives(send_it, NULL);
        world.dies_at = 0;
        if (!lives) {
            deaths++;
            take_over();
            resume(a);
            resume(b);
            if (!is_answered(a, sent.id))
                send_again(a, &sent);
        }
        if (reader_leaves)
            release(b, two);
        work();
        if (to == X && reader == READER_STAYS) {
            enum lki_status status = status_of(a, sent.id);
            cr_assert(status == LKI_STATUS_BUSY || status == LKI_STATUS_TIMED_OUT, "step %lu: %d",
                      (unsigned long)step, (int)status);
            cr_assert(eq(u32, mode_in_word(), U));
        } else {
            EXPECT_STATUS(a, sent.id, LKI_STATUS_OK);
            cr_assert(eq(u32, mode_in_word(), to == S ? 0 : to), "step %lu", (unsigned long)step);
        }
        cr_assert(eq(u64, atomic_load(&facts_of(one)->wait), LKI_WAIT_NONE));
        EXPECT_STATUS(a, release(a, one), LKI_STATUS_OK);
        cr_assert(eq(u32, word() & (LKI_ID_MASK | LKI_DIED), 0));
        for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
            cr_assert(eq(u32, atomic_load(&facts_of(one)->cells[cell]), 0));
        world_teardown();
        world_setup();
        if (lives)
            break;
    }
    cr_expect(gt(u32, deaths, 5));
}

Test(brokered_change, has_its_effect_once_wherever_the_worker_dies)
{
    die_at_each_step(U, X, NOBODY_READS);
    die_at_each_step(U, X, READER_STAYS);
    die_at_each_step(U, X, READER_LEAVES);
    die_at_each_step(U, S, READER_STAYS);
    die_at_each_step(X, U, NOBODY_READS);
    die_at_each_step(X, S, NOBODY_READS);
}

Test(brokered_change, what_is_not_weaker_is_refused_wherever_the_worker_dies)
{
    static const enum lki_mode modes[] = {U, S};
    for (unsigned i = 0; i < LKI_ARRAY_LENGTH(modes); i++) {
        bool lives = false;
        for (uint64_t step = 1; !lives; step++) {
            attach_two(LK_STRICT);
            sent = change_message(held(a, modes[i]), modes[i], 0);
            sent.id = ++world.last_id;
            world.dies_at = world.steps + step;
            lives = survives(send_it, NULL);
            world.dies_at = 0;
            if (!lives) {
                take_over();
                resume(a);
                if (!is_answered(a, sent.id))
                    send_again(a, &sent);
            }
            EXPECT_STATUS(a, sent.id, LKI_STATUS_NOT_HOLDER);
            world_teardown();
            world_setup();
        }
    }
}

Test(brokered_change, an_acquire_for_update_has_its_effect_once_too)
{
    for (uint64_t step = 1;; step++) {
        attach_two(LK_STRICT);
        held(b, S);
        sent = (struct lki_message){
            .type = LKI_REQUEST_ACQUIRE,
            .id = ++world.last_id,
            .as.acquire = {.segment = segment, .lock = LOCK, .mode = U, .deadline_ns = NEVER}};
        world.dies_at = world.steps + step;
        bool lives = survives(send_it, NULL);
        world.dies_at = 0;
        if (!lives) {
            take_over();
            resume(a);
            if (!is_answered(a, sent.id))
                send_again(a, &sent);
        }
        work();
        EXPECT_STATUS(a, sent.id, LKI_STATUS_OK);
        cr_assert(eq(u32, mode_in_word(), U));
        EXPECT_STATUS(a, release(a, place_of(a, sent.id)), LKI_STATUS_OK);
        cr_assert(eq(u32, word() & LKI_READ, LKI_READ));
        world_teardown();
        world_setup();
        if (lives)
            break;
    }
}
