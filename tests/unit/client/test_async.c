/* SPDX-License-Identifier: MIT */
#include "client/async.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "area_fixture.h"
#include "client/lock.h"
#include "client/wait.h"
#include "common/clock.h"
#include "common/fd.h"
#include "engine/repair.h"
#include "engine/wait.h"
#include "proto/channel.h"

static struct area_fixture fixture;
static struct lk_segment *segment;
static struct lk_session *session;
static struct lk_lock *lock, *second;
static int broker_end; /* the test plays the broker */

static int calls;
static int last_result;

static void on_acquired(struct lk_lock *which, int result, void *user)
{
    cr_expect(eq(ptr, user, &calls));
    cr_expect(ne(ptr, which, NULL));
    calls++;
    last_result = result;
}

static void setup(void)
{
    int ends[2];
    cr_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    broker_end = ends[1];
    area_fixture_init(&fixture);
    segment = area_fixture_attach(&fixture, ends[0]);
    session = segment->session;
    cr_assert(lk_lock_at(segment, 0, &lock) == 0);
    cr_assert(lk_lock_at(segment, 1, &second) == 0);
    cr_assert(lk_lock_acquire_async(lock, LK_EXCLUSIVE, 0, on_acquired, &calls) == 0);
}

static void teardown(void)
{
    broker_end = lki_close(broker_end);
    lk_session_close(session);
    area_fixture_deinit(&fixture);
}

#define ASYNC_TEST(name) Test(async, name, .init = setup, .fini = teardown)

#define ACQUIRE_ID 2 /* the hello was the first */

static void send_reply(const struct lki_message *reply)
{
    cr_assert(eq(int, lki_channel_send(broker_end, reply, NULL, 0, LKI_CHANNEL_WAIT), 0));
}

static void grant(uint64_t id)
{
    send_reply(&(struct lki_message){
        .type = LKI_REPLY_GRANTED,
        .id = id,
        .as.granted = {.status = LKI_STATUS_OK, .attachment = (1u << LKI_GENERATION_SHIFT) | 7}});
}

static void result(uint64_t id, enum lki_status status)
{
    send_reply(
        &(struct lki_message){.type = LKI_REPLY_RESULT, .id = id, .as.result = {.status = status}});
}

/* Receives what the client sent until such a message comes. */
static struct lki_message next_of_type(enum lki_message_type type)
{
    static struct lki_arena arena;
    static uint8_t buffer[LKI_REQUEST_BYTES_MAX];
    struct lki_message message = {.type = LKI_MESSAGE_NONE};
    while (message.type != type) {
        int fds[LKI_RECORD_FDS_MAX];
        size_t fd_count;
        const char *reason = "";
        lki_arena_reset(&arena);
        cr_assert(eq(int,
                     lki_channel_receive(broker_end, &arena, buffer, LKI_DIRECTION_REQUEST,
                                         LKI_CHANNEL_NO_WAIT, &message, fds, &fd_count, &reason),
                     1),
                  "no such message came");
    }
    return message;
}

static bool readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

ASYNC_TEST(callback_comes_from_dispatch_alone_and_once)
{
    cr_assert(eq(int, lk_session_dispatch(session), 0));
    grant(ACQUIRE_ID);
    cr_assert(eq(int, calls, 0));
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, LK_ACQUIRED));
    cr_assert(eq(int, lk_session_dispatch(session), 0));
    cr_assert(eq(int, calls, 1));
}

ASYNC_TEST(granted_lock_is_released_through_the_broker)
{
    grant(ACQUIRE_ID);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EDEADLK), "it is held");
    result(3, LKI_STATUS_OK);
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_release(lock), -EPERM));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "natively again");
    cr_assert(eq(int, lk_lock_release(lock), 0));
}

/* Acquires again, and is granted before it returns: the answer to its publishing comes behind. */
static void acquire_again(struct lk_lock *which, int r, void *user)
{
    on_acquired(which, r, user);
    uint64_t release_id = 3 * (uint64_t)calls - 1; /* 5, 8, ...; behind it the other two */
    result(release_id, LKI_STATUS_OK);
    grant(release_id + 1);
    result(release_id + 2, LKI_STATUS_OK);
    cr_assert(eq(int, lk_lock_release(which), 0));
    cr_assert(calls < 4, "dispatch does not return");
    cr_assert(eq(int, lk_lock_acquire_async(which, LK_EXCLUSIVE, 0, acquire_again, user), 0));
    cr_assert(eq(int, lk_segment_publish(segment), 0));
}

ASYNC_TEST(dispatch_calls_what_was_due_when_it_began)
{
    grant(ACQUIRE_ID);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    result(3, LKI_STATUS_OK);
    cr_assert(eq(int, lk_lock_release(lock), 0));
    calls = 1;
    cr_assert(eq(int, lk_lock_acquire_async(lock, LK_EXCLUSIVE, 0, acquire_again, &calls), 0));
    grant(4);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_expect(eq(int, calls, 2));
    cr_assert(eq(int, lk_session_dispatch(session), 1), "the next one");
    cr_expect(eq(int, calls, 3));
}

ASYNC_TEST(one_at_a_time_per_lock)
{
    cr_expect(eq(int, lk_lock_acquire_async(lock, LK_SHARED, 0, on_acquired, &calls), -EALREADY));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EALREADY));
    cr_expect(eq(int, lk_lock_acquire_async(second, LK_SHARED, 0, NULL, NULL), -EINVAL));
    cr_assert(eq(int, lk_lock_acquire(second, LK_SHARED, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire_async(second, LK_SHARED, 0, on_acquired, &calls), -EDEADLK));
}

ASYNC_TEST(answer_taken_by_another_call_keeps_the_descriptor_readable)
{
    int fd = lk_session_fd(session);
    cr_assert(ge(int, fd, 0));
    cr_assert(not(readable(fd)));
    grant(ACQUIRE_ID);
    cr_assert(readable(fd));
    result(3, LKI_STATUS_OK);
    cr_assert(eq(int, lk_segment_publish(segment), 0)); /* takes the grant from the socket */
    cr_assert(readable(fd));
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(not(readable(fd)));
}

ASYNC_TEST(cancel_is_cancelled_or_granted)
{
    result(3, LKI_STATUS_OK);
    cr_assert(eq(int, lk_lock_cancel(lock), 0));
    result(ACQUIRE_ID, LKI_STATUS_CANCELED);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, -ECANCELED));
    cr_assert(eq(int, lk_lock_cancel(lock), -ENOENT));

    cr_assert(eq(int, lk_lock_acquire_async(lock, LK_SHARED, 0, on_acquired, &calls), 0));
    grant(4);
    result(5, LKI_STATUS_NOT_FOUND);
    cr_assert(eq(int, lk_lock_cancel(lock), 1), "granted meanwhile");
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, LK_ACQUIRED));
}

ASYNC_TEST(lost_connection_answers_what_is_pending)
{
    broker_end = lki_close(broker_end);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, -ECONNRESET));
    cr_assert(eq(int, lk_session_dispatch(session), -ECONNRESET));
    cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 0), LK_ACQUIRED), "natively");
}

ASYNC_TEST(closing_the_segment_cancels)
{
    result(3, LKI_STATUS_OK);
    lk_segment_close(segment);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, -ECANCELED));
}

/* Its hold went with the segment: nobody may be told that he has it. */
ASYNC_TEST(closing_the_segment_cancels_what_was_granted_and_not_told)
{
    grant(ACQUIRE_ID);
    result(3, LKI_STATUS_OK);
    cr_assert(eq(int, lk_segment_publish(segment), 0)); /* takes the grant from the socket */
    result(4, LKI_STATUS_OK);
    lk_segment_close(segment);
    cr_assert(eq(int, lk_session_dispatch(session), 1));
    cr_assert(eq(int, last_result, -ECANCELED));
}

/* The wake of a brokered waiter goes through the broker. */
ASYNC_TEST(native_release_nudges_the_broker_for_its_waiter)
{
    uint32_t id = lki_attachment_open(&fixture.area, 8, 1, LKI_ATTACHMENT_BROKERED);
    struct lki_party waiter;
    cr_assert(lki_party_init(&waiter, &fixture.area, id, lki_wake_native, segment));
    cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    struct lki_wait wait;
    struct lki_sleep nap;
    enum lki_verdict verdict = lki_wait_begin(&wait, &waiter, 1, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA,
                                              lki_clock_now_ns(), LKI_TIME_NEVER);
    cr_assert(eq(int, verdict, LKI_SLEEP));
    cr_assert(eq(int, lki_wait_step(&wait, lki_clock_now_ns(), &nap), LKI_SLEEP));
    cr_assert(eq(int, lk_lock_release(second), 0));
    cr_assert(eq(int, next_of_type(LKI_REQUEST_NUDGE).as.segment_ref.segment, 5));
    lki_wait_give_up(&wait);
}

ASYNC_TEST(waiter_asks_about_the_owner_after_its_first_nap)
{
    result(ACQUIRE_ID, LKI_STATUS_BUSY);
    cr_assert(eq(int, lk_session_dispatch(session), 1)); /* with nothing pending it asks no more */
    uint32_t id = lki_attachment_open(&fixture.area, 8, 1, 0);
    struct lki_party owner;
    cr_assert(lki_party_init(&owner, &fixture.area, id, lki_wake_native, segment));
    cr_assert(eq(int, lki_lock_try(&owner, 1, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA), LKI_TAKEN));
    uint64_t sequence = lki_lock_sequence(&fixture.area, 1);
    cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 20000000), -ETIMEDOUT));
    struct lki_message message = next_of_type(LKI_REQUEST_ASK);
    cr_expect(eq(u32, message.as.ask.owner, id));
    cr_expect(eq(u32, message.as.ask.lock, 1));
    cr_expect(eq(u64, message.as.ask.sequence, sequence));
}

/* Its asynchronous acquire may be granted while it waits, and nothing else tells of that hold: two
 * such sessions would wait for each other for ever. */
ASYNC_TEST(waiter_with_an_acquire_pending_asks_whether_it_closes_a_ring)
{
    uint32_t id = lki_attachment_open(&fixture.area, 8, 1, 0);
    struct lki_party owner;
    cr_assert(lki_party_init(&owner, &fixture.area, id, lki_wake_native, segment));
    cr_assert(eq(int, lki_lock_try(&owner, 1, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA), LKI_TAKEN));
    cr_assert(eq(int, lk_lock_acquire(second, LK_EXCLUSIVE, 20000000), -ETIMEDOUT));
    cr_expect(eq(u32, next_of_type(LKI_REQUEST_DEADLOCK_CHECK).as.lock_ref.lock, 1));
}
