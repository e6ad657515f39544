/* SPDX-License-Identifier: MIT */
/* Holds that the broker has for a session: which one a request means, also when it is repeated to
 * another worker, and what becomes of it where clients write over the facts. */
#include "world.h"

#include <string.h>

#include "broker/core/session.h"
#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define NEVER LKI_TIME_NEVER

TestSuite(brokered_hold, .init = world_setup, .fini = world_teardown, .timeout = 60);

static uint64_t a, b;
static struct lki_opened at_a, at_b;
static struct native native_a, native_b;
static uint32_t segment;

static void attach_two(uint32_t flags)
{
    a = connect_as(1000, 1);
    b = connect_as(1000, 2);
    at_a = opened(a, "x", LK_CREATE | flags);
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

static struct lki_attachment *facts_of(uint32_t id)
{
    return &native_a.area.attachments[id & LKI_SLOT_MASK];
}

static struct lki_message hold_message(enum lki_message_type type, uint64_t id, uint32_t lock,
                                       uint32_t attachment)
{
    return (struct lki_message){.id = id,
                                .type = type,
                                .as.hold_ref = {.segment = segment,
                                                .lock = lock,
                                                .attachment = attachment,
                                                .offset = 8,
                                                .length_bytes = 16}};
}

/* --- Times --- */

Test(brokered_hold, has_a_time_if_it_is_the_last_one_granted)
{
    attach_two(LK_STRICT);
    request_acquire(a, segment, 3, X, 0);
    pass(LKI_NS_PER_S);
    request_acquire(a, segment, 4, X, 0);
    pass(2 * LKI_NS_PER_S);
    const struct recorded *holder = reply(b, request_holder(b, segment, 4));
    cr_expect(eq(u64, holder->effect.message.as.holder_is.held_ns, 2 * LKI_NS_PER_S));
    holder = reply(b, request_holder(b, segment, 3));
    cr_expect(eq(i32, holder->effect.message.as.holder_is.pid, 1));
    cr_expect(eq(u64, holder->effect.message.as.holder_is.held_ns, 0), "nobody remembers");
}

Test(brokered_hold, that_is_shared_has_a_time_if_it_is_the_last_one_granted)
{
    attach_two(LK_STRICT);
    request_acquire(a, segment, 3, S, 0);
    request_acquire(a, segment, 4, S, 0);
    pass(LKI_NS_PER_S);
    const struct recorded *holder = reply(b, request_holder(b, segment, 4));
    cr_expect(eq(u64, holder->effect.message.as.holder_is.held_ns, LKI_NS_PER_S));
    holder = reply(b, request_holder(b, segment, 3));
    cr_expect(eq(u32, holder->effect.message.as.holder_is.holders, 1));
    cr_expect(eq(u64, holder->effect.message.as.holder_is.held_ns, 0));
}

/* --- Waits beside it --- */

Test(brokered_hold, of_a_word_that_is_drained_still_is_a_wait)
{
    attach_two(LK_STRICT);
    EXPECT_STATUS(a, request_acquire(a, segment, 3, S, 0), LKI_STATUS_OK);
    uint64_t drains = request_acquire(b, segment, 3, X, NEVER);
    cr_assert(eq(u32, atomic_load(&native_b.area.hot[3].word) & LKI_ID_MASK, at_b.attachment));
    EXPECT_STATUS(b, request_async(b, segment, 3, X, NEVER), LKI_STATUS_PENDING);
    cr_expect(eq(ptr, (void *)reply(b, drains), NULL), "and goes on");
}

Test(brokered_hold, detaching_from_one_segment_cancels_no_wait_for_another)
{
    attach_two(LK_STRICT);
    struct lki_opened other = opened(b, "y", LK_CREATE | LK_STRICT);
    uint64_t held = request_acquire(a, segment, 3, X, 0);
    uint64_t waits = request_acquire(b, segment, 3, X, NEVER);
    uint64_t id = request_segment(b, LKI_REQUEST_DETACH, other.segment);
    work();
    EXPECT_STATUS(b, id, LKI_STATUS_OK);
    cr_assert(eq(ptr, (void *)reply(b, waits), NULL));
    request_hold(a, LKI_REQUEST_RELEASE, segment, 3, place_of(a, held));
    EXPECT_STATUS(b, waits, LKI_STATUS_OK);
}

/* --- Kinds --- */

Test(brokered_hold, is_marked_as_what_it_was_acquired_as)
{
    attach_two(LK_STRICT);
    struct lkd_session *session = lkd_session_find(world.core, a);
    session->knows_1_4 = true;
    for (uint32_t lock = 3; lock <= 4; lock++)
        request_acquire(b, segment, lock, X, 0);
    end_process(2);
    work();
    uint32_t place = place_of(a, request_acquire(a, segment, 3, X, NEVER));
    struct lki_message to_exit = {
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {
            .segment = segment, .lock = 4, .mode = X, .to_exit = true, .deadline_ns = NEVER}};
    EXPECT_STATUS(a, send_message(a, to_exit), LKI_STATUS_OWNER_DIED);
    for (uint32_t lock = 3; lock <= 4; lock++) {
        struct lki_message mark =
            hold_message(LKI_REQUEST_MARK_CONSISTENT, ++world.last_id, lock, place);
        mark.as.hold_ref.to_exit = lock == 4;
        send_again(a, &mark);
        EXPECT_STATUS(a, mark.id, LKI_STATUS_OK);
        cr_expect(eq(u64, lki_lock_sequence(&native_a.area, lock) & 1, lock == 3),
                  "odd while data may be written");
    }
}

/* --- Scribbles --- */

Test(brokered_hold, of_a_place_whose_id_was_written_over_is_stale)
{
    attach_two(LK_STRICT);
    uint64_t held = request_acquire(a, segment, 3, X, 0);
    uint32_t place = place_of(a, held);
    atomic_store(&facts_of(place)->id, 0);
    EXPECT_STATUS(a, request_acquire(a, segment, 4, X, NEVER), LKI_STATUS_STALE);
    EXPECT_STATUS(a, request_hold(a, LKI_REQUEST_RELEASE, segment, 3, place),
                  LKI_STATUS_NOT_HOLDER);
    cr_expect(eq(u32, atomic_load(&native_a.area.hot[3].word) & LKI_ID_MASK, place));
    end_process(1);
    work();
    EXPECT_STATUS(b, request_acquire(b, segment, 3, X, NEVER), LKI_STATUS_OWNER_DIED);
}

Test(brokered_hold, that_somebody_wrote_for_an_id_to_come_is_not_granted)
{
    attach_two(0);
    uint32_t next = UINT32_C(1) << LKI_GENERATION_SHIFT | 3; /* the first of the third slot */
    atomic_store(&native_a.area.hot[3].word, next);
    EXPECT_STATUS(a, request_async(a, segment, 3, X, NEVER), LKI_STATUS_DEADLOCK);
    cr_expect(eq(u32, atomic_load(&native_a.area.hot[3].word), next));
    request_ask(b, segment, 3, next);
    work();
    cr_expect(eq(int, native_try(&native_b, 3, X), LKI_TAKEN), "it was nobody's");
}

/* --- Repeated to another worker --- */

Test(brokered_hold, mark_that_is_repeated_leaves_the_damage_of_a_later_hold_alone)
{
    attach_two(LK_STRICT);
    uint32_t place = place_of(a, request_acquire(a, segment, 0, X, NEVER));
    uint64_t id = request_hold(a, LKI_REQUEST_MARK_CONSISTENT, segment, 0, place);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    request_hold(a, LKI_REQUEST_RELEASE, segment, 0, place);
    EXPECT_STATUS(b, request_acquire(b, segment, 0, X, NEVER), LKI_STATUS_OK);
    end_process(2);
    work();
    EXPECT_STATUS(a, request_acquire(a, segment, 0, X, NEVER), LKI_STATUS_OWNER_DIED);
    forget_effects();
    crash();
    take_over();
    resume(a);
    const struct lki_message message = hold_message(LKI_REQUEST_MARK_CONSISTENT, id, 0, place);
    send_again(a, &message);
    EXPECT_STATUS(a, id, LKI_STATUS_NOT_HOLDER);
    uint32_t word = atomic_load(&native_a.area.hot[0].word);
    cr_expect(ne(u32, word & LKI_DIED, 0), "nobody has repaired that");
}

Test(brokered_hold, declaration_that_is_repeated_says_nothing_of_a_later_hold)
{
    attach_two(LK_STRICT);
    uint32_t place = place_of(a, request_acquire(a, segment, 0, X, NEVER));
    uint64_t id = request_hold(a, LKI_REQUEST_DECLARE, segment, 0, place);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    request_hold(a, LKI_REQUEST_RELEASE, segment, 0, place);
    EXPECT_STATUS(a, request_acquire(a, segment, 0, X, NEVER), LKI_STATUS_OK);
    forget_effects();
    crash();
    take_over();
    resume(a);
    const struct lki_message message = hold_message(LKI_REQUEST_DECLARE, id, 0, place);
    send_again(a, &message);
    EXPECT_STATUS(a, id, LKI_STATUS_NOT_HOLDER);
    end_process(1);
    work();
    cr_expect(eq(u64, native_b.area.cold[0].recovery_dirty_length, 0));
}

static struct lki_message releasing;

static void release(void *user)
{
    (void)user;
    send_again(a, &releasing);
}

/* The place of an asynchronous hold ends with it. The worker dies on the way, and its successor has
 * many locks to look at before the place is gone. */
Test(brokered_hold, release_that_is_repeated_while_its_place_is_being_repaired_is_answered)
{
    uint32_t under_repair = 0;
    for (uint64_t step = 1;; step++) {
        a = connect_as(1000, 1);
        struct lki_message message = open_message("x", LK_CREATE);
        message.as.open.locks = 20000;
        message.as.open.attachments_max = 4;
        segment = reply(a, send_message(a, message))->effect.message.as.opened.segment;
        uint32_t place = place_of(a, request_async(a, segment, 3, X, NEVER));
        releasing = hold_message(LKI_REQUEST_RELEASE, ++world.last_id, 3, place);
        world.dies_at = world.steps + step;
        bool lives = survives(release, NULL);
        world.dies_at = 0;
        if (!lives) {
            take_over();
            under_repair += lkd_core_deadline_ns(world.core) == 0;
            resume(a);
            if (!reply(a, releasing.id))
                send_again(a, &releasing);
        }
        EXPECT_STATUS(a, releasing.id, LKI_STATUS_OK);
        work();
        EXPECT_STATUS(a, request_async(a, segment, 3, X, NEVER), LKI_STATUS_OK);
        world_teardown();
        world_setup();
        if (lives)
            break;
    }
    cr_expect(lt(u32, 0, under_repair));
}
