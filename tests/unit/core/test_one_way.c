/* SPDX-License-Identifier: MIT */
/* Releases that are not answered: which holds may be released so, what becomes of one in every state of its
 * session, and that nobody is told of it. */
#include "world.h"

#include <lockkeeper/lockkeeper.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define NEVER LKI_TIME_NEVER

TestSuite(one_way, .init = world_setup, .fini = world_teardown, .timeout = 60);

static uint64_t a, b;
static uint32_t segment;
static struct native facts;

static uint64_t connect_minor(uint64_t process, uint32_t minor)
{
    uint64_t session = connect_peer(&(struct lkd_peer){
        .pid = (int32_t)process, .uid = 1000, .gid = 1000, .process = process, .command = "c"});
    send_message(session, (struct lki_message){.type = LKI_REQUEST_HELLO,
                                               .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                                                            .protocol_minor = minor,
                                                            .layout_major = LKI_LAYOUT_MAJOR}});
    return session;
}

static void attach_two(uint32_t flags)
{
    a = connect_minor(1, LKI_PROTOCOL_MINOR_ONE_WAY);
    b = connect_minor(2, LKI_PROTOCOL_MINOR_ONE_WAY - 1);
    const struct lki_opened at = opened(a, "x", LK_CREATE | flags);
    segment = at.segment;
    native_init(&facts, a, &at);
    cr_assert(eq(u32, at.protocol_minor, LKI_PROTOCOL_MINOR));
    const struct lki_opened older = opened(b, "x", 0);
    cr_assert(eq(u32, older.protocol_minor, 0), "a field that it does not know");
}

static const struct lki_granted *granted(uint64_t session, uint64_t id)
{
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return &reply(session, id)->effect.message.as.granted;
}

static struct lki_message one_way(uint64_t id, uint32_t lock, uint32_t attachment)
{
    return (struct lki_message){
        .id = id,
        .type = LKI_REQUEST_RELEASE,
        .as.hold_ref = {
            .segment = segment, .lock = lock, .attachment = attachment, .one_way = true}};
}

/* Sends one; nobody answers it. Returns its id. */
static uint64_t release(uint64_t session, uint32_t lock, uint32_t attachment)
{
    uint64_t id = send_message(session, one_way(0, lock, attachment));
    cr_expect(eq(ptr, (void *)reply(session, id), NULL), "answered");
    return id;
}

static uint32_t word_of(uint32_t lock)
{
    return atomic_load(&facts.area.hot[lock].word);
}

/* --- Which holds --- */

Test(one_way, is_offered_to_who_knows_it)
{
    attach_two(LK_STRICT);
    cr_expect(granted(a, request_acquire(a, segment, 3, X, 0))->one_way);
    cr_expect(granted(a, request_acquire(a, segment, 4, S, 0))->one_way);
    cr_expect(not(granted(b, request_acquire(b, segment, 4, S, 0))->one_way), "an older client");
}

Test(one_way, is_offered_for_asynchronous_holds)
{
    attach_two(LK_STRICT);
    cr_expect(granted(a, request_async(a, segment, 3, X, 0))->one_way);
    cr_expect(not(granted(b, request_async(b, segment, 4, S, 0))->one_way), "an older client");
}

Test(one_way, is_not_offered_where_the_session_also_locks_by_itself)
{
    attach_two(0);
    cr_expect(not(granted(a, request_async(a, segment, 3, X, 0))->one_way),
              "its next acquire would find the lock taken");
}

Test(one_way, is_not_offered_where_a_hold_may_be_fenced_off)
{
    a = connect_minor(1, LKI_PROTOCOL_MINOR);
    struct lki_message open = open_message("x", LK_CREATE | LK_STRICT);
    open.as.open.lease_ns = 1000000;
    open.as.open.on_expiry = LK_EXPIRY_FENCE;
    segment = reply(a, send_message(a, open))->effect.message.as.opened.segment;
    cr_expect(not(granted(a, request_acquire(a, segment, 3, X, 0))->one_way));
}

Test(one_way, is_not_offered_over_damage)
{
    attach_two(LK_STRICT);
    request_acquire(b, segment, 3, X, 0);
    end_process(2);
    work();
    uint64_t id = request_acquire(a, segment, 3, X, 0);
    EXPECT_STATUS(a, id, LKI_STATUS_OWNER_DIED);
    cr_expect(not(reply(a, id)->effect.message.as.granted.one_way));
}

/* --- What it does --- */

Test(one_way, ends_the_hold_and_lets_the_next_one_in)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    uint64_t waits = request_acquire(b, segment, 3, X, NEVER);
    release(a, 3, place);
    EXPECT_STATUS(b, waits, LKI_STATUS_OK);
}

Test(one_way, ends_an_asynchronous_hold_too)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_async(a, segment, 3, X, 0))->attachment;
    release(a, 3, place);
    work();
    EXPECT_STATUS(b, request_acquire(b, segment, 3, X, 0), LKI_STATUS_OK);
}

Test(one_way, is_silent_where_it_is_wrong)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    release(a, 4, place);
    release(a, 1000, place);
    release(a, 3, place + 1);
    segment++;
    release(a, 3, place);
    segment--;
    cr_expect(eq(u32, word_of(3) & LKI_ID_MASK, place));
    cr_expect(not(was_disconnected(a)));
}

Test(one_way, leaves_other_answers_alone)
{
    attach_two(LK_STRICT);
    granted(b, request_acquire(b, segment, 4, X, 0));
    uint32_t held = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    uint64_t waits = request_acquire(a, segment, 4, X, NEVER);
    release(a, 3, held);
    cr_assert(eq(ptr, (void *)reply(a, waits), NULL));
    end_process(2);
    work();
    EXPECT_STATUS(a, waits, LKI_STATUS_OWNER_DIED);
}

Test(one_way, counts_in_release_alone)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    struct lki_message message = one_way(0, 3, place);
    message.type = LKI_REQUEST_DECLARE;
    EXPECT_STATUS(a, send_message(a, message), LKI_STATUS_OK);
}

/* By a driver that knows of nothing unread. */
Test(one_way, hold_in_a_ring_is_in_the_way)
{
    attach_two(LK_STRICT);
    granted(a, request_acquire(a, segment, 3, X, 0));
    granted(b, request_acquire(b, segment, 4, X, 0));
    request_acquire(a, segment, 4, X, NEVER);
    EXPECT_STATUS(b, request_acquire(b, segment, 3, X, NEVER), LKI_STATUS_DEADLOCK);
}

/* --- Under another worker --- */

static void replace_worker(void)
{
    forget_effects();
    crash();
    take_over();
}

Test(one_way, is_heard_before_resume)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    replace_worker();
    release(a, 3, place);
    cr_expect(eq(u32, word_of(3) & LKI_ID_MASK, 0), "its client may never say RESUME");
    resume(b);
    EXPECT_STATUS(b, request_acquire(b, segment, 3, X, 0), LKI_STATUS_OK);
}

Test(one_way, that_is_heard_twice_is_one)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_acquire(a, segment, 3, X, 0))->attachment;
    uint64_t id = release(a, 3, place);
    uint64_t again = request_acquire(a, segment, 3, X, 0);
    granted(a, again);
    replace_worker();
    const struct lki_message message = one_way(id, 3, place);
    send_again(a, &message);
    cr_expect(eq(u32, word_of(3) & LKI_ID_MASK, place), "that is another hold");
    cr_expect(eq(ptr, (void *)reply(a, id), NULL));
}

/* An asynchronous hold ends with its slot, which the next acquire may get. */
Test(one_way, that_ended_its_slot_is_nothing_the_second_time)
{
    attach_two(LK_STRICT);
    uint32_t place = granted(a, request_async(a, segment, 3, X, 0))->attachment;
    uint64_t waits = request_async(a, segment, 4, X, 0);
    uint32_t other = granted(a, waits)->attachment;
    uint64_t id = release(a, 3, place);
    uint32_t next = granted(a, request_async(a, segment, 3, X, 0))->attachment;
    cr_expect(ne(u32, next, place), "the slot is the same, its generation is not");
    cr_expect(eq(u32, next & LKI_SLOT_MASK, place & LKI_SLOT_MASK));
    replace_worker();
    const struct lki_message message = one_way(id, 3, place);
    send_again(a, &message);
    cr_expect(eq(u32, word_of(3) & LKI_ID_MASK, next));
    cr_expect(eq(u32, word_of(4) & LKI_ID_MASK, other));
    cr_expect(eq(ptr, (void *)reply(a, id), NULL));
}

/* Even if the generations of the slot came round meanwhile: the hold is younger than the release. */
Test(one_way, does_not_end_a_younger_hold_with_the_same_number)
{
    attach_two(LK_STRICT);
    uint64_t early = send_message(a, one_way(0, 5, 0)); /* an id that is lower */
    uint32_t place = granted(a, request_async(a, segment, 3, X, 0))->attachment;
    replace_worker();
    const struct lki_message message = one_way(early, 3, place);
    send_again(a, &message);
    cr_expect(eq(u32, word_of(3) & LKI_ID_MASK, place));
}

Test(one_way, is_known_to_who_goes_on)
{
    attach_two(LK_STRICT);
    uint64_t id = request_acquire(a, segment, 3, X, 0);
    granted(a, id);
    replace_worker();
    resume(a);
    resume(b);
    const struct lki_message repeated = {.id = id,
                                         .type = LKI_REQUEST_ACQUIRE,
                                         .as.acquire = {.segment = segment, .lock = 3, .mode = X}};
    send_again(a, &repeated);
    cr_expect(granted(a, id)->one_way);
    cr_expect(not(granted(b, request_acquire(b, segment, 4, X, 0))->one_way));
}
