/* SPDX-License-Identifier: MIT */
/* Rings that may be none, since a release that nobody waits for may lie in a socket: when they are believed, and
 * that no ring is overlooked. */
#include "world.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define NEVER LKI_TIME_NEVER
#define PAUSE_NS LKI_NS_PER_MS
#define LONG_NS (250 * LKI_NS_PER_MS)
#define PASS_RECORDS 1024u

static uint64_t a, b;
static uint32_t segment;
static uint32_t held[2]; /* lock 0 by a and lock 1 by b: the attachments */
static uint64_t first;   /* the acquire of lock 1 by a */
static bool unread[8];   /* by session */
static unsigned asked;

static bool may_have_released(void *driver, uint64_t session)
{
    cr_assert(eq(ptr, driver, (void *)unread));
    asked++;
    return unread[session];
}

static uint64_t connect_one(uint64_t process)
{
    uint64_t session = connect_peer(&(struct lkd_peer){
        .pid = (int32_t)process, .uid = 1000, .gid = 1000, .process = process, .command = "c"});
    send_message(session, (struct lki_message){.type = LKI_REQUEST_HELLO,
                                               .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                                                            .protocol_minor = LKI_PROTOCOL_MINOR,
                                                            .layout_major = LKI_LAYOUT_MAJOR}});
    return session;
}

static void setup(void)
{
    const struct lkd_core_config config = {
        .broker_uid = 1000,
        .broker_pid = 42,
        .started_ns = 77,
        .token_epoch_s = 1000,
        .socket_path = "/run/user/1000/lockkeeper/broker.sock",
        .may_have_released = may_have_released,
        .driver = unread,
    };
    world_setup_with(&config);
    memset(unread, 0, sizeof(unread));
    asked = 0;
    a = connect_one(1);
    b = connect_one(2);
    cr_assert(lt(u64, b, (uint64_t)LKI_ARRAY_LENGTH(unread)));
}

static uint32_t take(uint64_t session, uint32_t lock)
{
    uint64_t id = request_async(session, segment, lock, X, 0);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    cr_assert(reply(session, id)->effect.message.as.granted.one_way);
    return reply(session, id)->effect.message.as.granted.attachment;
}

static uint64_t wait_for(uint64_t session, uint32_t lock)
{
    uint64_t id = request_async(session, segment, lock, X, NEVER);
    cr_assert(eq(ptr, (void *)reply(session, id), NULL), "%s", detail_of(session, id));
    return id;
}

/* Each holds one lock, and a waits for that of b. */
static void setup_half_a_ring(void)
{
    setup();
    segment = opened(a, "s", LK_CREATE | LK_STRICT).segment;
    (void)opened(b, "s", 0);
    held[0] = take(a, 0);
    held[1] = take(b, 1);
    first = wait_for(a, 1);
}

static void release(uint64_t session, uint32_t lock)
{
    send_message(session, (struct lki_message){.type = LKI_REQUEST_RELEASE,
                                               .as.hold_ref = {.segment = segment,
                                                               .lock = lock,
                                                               .attachment = held[lock],
                                                               .one_way = true}});
}

static void expect_unanswered(uint64_t session, uint64_t id)
{
    cr_expect(eq(ptr, (void *)reply(session, id), NULL), "%s", detail_of(session, id));
}

TestSuite(doubt, .init = setup_half_a_ring, .fini = world_teardown, .timeout = 60);

Test(doubt, ring_is_refused_at_once_where_nothing_is_unread)
{
    uint64_t wait = request_async(b, segment, 0, X, NEVER);
    EXPECT_STATUS(b, wait, LKI_STATUS_DEADLOCK);
    cr_expect(eq(uint, asked, 2u));
}

Test(doubt, hold_whose_release_is_unread_makes_no_ring)
{
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    pass(10 * PAUSE_NS);
    expect_unanswered(b, wait);
    release(a, 0);
    EXPECT_STATUS(b, wait, LKI_STATUS_OK);
}

Test(doubt, own_release_behind_the_acquire_makes_none_either)
{
    unread[b] = true;
    uint64_t wait = wait_for(b, 0);
    release(b, 1);
    unread[b] = false;
    pass(LONG_NS);
    expect_unanswered(b, wait);
    release(a, 0);
    EXPECT_STATUS(b, wait, LKI_STATUS_OK);
}

Test(doubt, ring_is_refused_soon_once_all_is_read)
{
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    unread[a] = false;
    expect_unanswered(b, wait);
    pass(PAUSE_NS);
    EXPECT_STATUS(b, wait, LKI_STATUS_DEADLOCK);
}

Test(doubt, what_comes_after_all_was_read_is_no_doubt)
{
    lkd_core_session_quiet(world.core, a); /* before there is any doubt */
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    lkd_core_session_quiet(world.core, 999);
    lkd_core_session_quiet(world.core, b);
    pass(PAUSE_NS);
    expect_unanswered(b, wait);
    lkd_core_session_quiet(world.core, a);
    pass(LONG_NS);
    EXPECT_STATUS(b, wait, LKI_STATUS_DEADLOCK);
}

Test(doubt, another_ring_is_another_doubt)
{
    (void)take(b, 2);
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    lkd_core_session_quiet(world.core, a);
    /* The wait of a for lock 1 was the first ring; now it waits for lock 2. */
    release(b, 1);
    wait_for(a, 2);
    pass(LONG_NS);
    expect_unanswered(b, wait);
    lkd_core_session_quiet(world.core, a);
    pass(LONG_NS);
    EXPECT_STATUS(b, wait, LKI_STATUS_DEADLOCK);
}

static void chatter(unsigned records)
{
    while (records-- > 0)
        request_segment(a, LKI_REQUEST_NUDGE, segment);
}

Test(doubt, session_that_is_never_quiet_is_heard_out)
{
    chatter(PASS_RECORDS / 2);
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    chatter(PASS_RECORDS);
    pass(LONG_NS);
    expect_unanswered(b, wait); /* the pass that ended had begun before the doubt */
    chatter(PASS_RECORDS);
    pass(LONG_NS);
    EXPECT_STATUS(b, wait, LKI_STATUS_DEADLOCK);
}

Test(doubt, is_over_with_its_ring)
{
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    request_cancel(a, first);
    pass(2 * PAUSE_NS);
    expect_unanswered(b, wait);
    cr_expect(gt(u64, lkd_core_deadline_ns(world.core), world.now_ns + 20 * PAUSE_NS));
}

Test(doubt, that_lasts_costs_few_looks)
{
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    pass(10 * LKI_NS_PER_S);
    expect_unanswered(b, wait);
    cr_expect(gt(uint, asked, 9u), "soon at first");
    cr_expect(lt(uint, asked, 250u), "both look every 200 ms, and ask about two");
}

static void repeat(uint64_t session, uint64_t id, uint32_t lock)
{
    const struct lki_message message = {.id = id,
                                        .type = LKI_REQUEST_ACQUIRE,
                                        .as.acquire = {.segment = segment,
                                                       .lock = lock,
                                                       .mode = X,
                                                       .asynchronous = true,
                                                       .deadline_ns = NEVER}};
    send_again(session, &message);
}

Test(doubt, successor_begins_anew)
{
    unread[a] = true;
    uint64_t wait = wait_for(b, 0);
    forget_effects();
    crash();
    take_over();
    resume(a);
    resume(b);
    repeat(a, first, 1);
    repeat(b, wait, 0);
    unread[a] = false;
    pass(LONG_NS);
    bool refuses_first = reply(a, first) != NULL;
    EXPECT_STATUS(refuses_first ? a : b, refuses_first ? first : wait, LKI_STATUS_DEADLOCK);
    expect_unanswered(refuses_first ? b : a, refuses_first ? wait : first);
}

/* --- Beside native locks --- */

static uint64_t request_check(uint64_t session, uint32_t number, uint32_t lock)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_DEADLOCK_CHECK,
                                                      .as.lock_ref = {number, lock}});
}

Test(doubt, native_waiter_is_refused_when_it_asks_again)
{
    static struct native of_a, of_b;
    struct lki_opened at = opened(a, "n", LK_CREATE);
    native_init(&of_a, a, &at);
    at = opened(b, "n", 0);
    native_init(&of_b, b, &at);
    native_try(&of_a, 5, X);
    native_wait(&of_b, 5, X);
    unread[a] = unread[b] = true;
    EXPECT_STATUS(b, request_check(b, at.segment, 5), LKI_STATUS_OK);
    lkd_core_session_quiet(world.core, b);
    EXPECT_STATUS(b, request_check(b, at.segment, 5), LKI_STATUS_DEADLOCK);
}

Test(doubt, native_holds_are_as_the_shared_memory_says)
{
    static struct native of_a, of_b;
    struct lki_opened at = opened(a, "n", LK_CREATE);
    native_init(&of_a, a, &at);
    at = opened(b, "n", 0);
    native_init(&of_b, b, &at);
    native_try(&of_a, 5, X);
    native_try(&of_b, 6, X);
    request_cancel(a, first);
    native_wait(&of_a, 6, X);
    native_wait(&of_b, 5, X);
    unread[a] = unread[b] = true;
    EXPECT_STATUS(b, request_check(b, at.segment, 5), LKI_STATUS_DEADLOCK);
    cr_expect(eq(uint, asked, 0u));
}
