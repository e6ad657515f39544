/* SPDX-License-Identifier: MIT */
#include "client/session.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "common/fd.h"
#include "engine/layout.h"
#include "proto/channel.h"

static int broker_end; /* the test plays the broker */
static struct lk_session *session;
static struct lki_arena arena;
static uint8_t buffer[LKI_REQUEST_BYTES_MAX];

static void setup(void)
{
    int ends[2];
    cr_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    broker_end = ends[1];
    cr_assert(lki_session_new(ends[0], "/nowhere", &session) == 0);
}

static void teardown(void)
{
    broker_end = lki_close(broker_end); /* so that closing need not wait for an answer */
    session = lk_session_close(session);
}

static struct lki_message broker_receives(void)
{
    struct lki_message message = {.type = LKI_MESSAGE_NONE};
    int fds[LKI_RECORD_FDS_MAX];
    size_t fd_count;
    const char *reason = "";
    lki_arena_reset(&arena);
    cr_assert(eq(int,
                 lki_channel_receive(broker_end, &arena, buffer, LKI_DIRECTION_REQUEST,
                                     LKI_CHANNEL_NO_WAIT, &message, fds, &fd_count, &reason),
                 1),
              "%s", reason);
    return message;
}

static void broker_answers(uint64_t id, enum lki_status status, const char *detail)
{
    const struct lki_message reply = {
        .type = LKI_REPLY_RESULT,
        .id = id,
        .as.result = {.status = status, .detail = {(const uint8_t *)detail, strlen(detail)}},
    };
    cr_assert(eq(int, lki_channel_send(broker_end, &reply, NULL, 0, LKI_CHANNEL_WAIT), 0));
}

static int call(uint64_t timeout_ns, struct lki_record *reply)
{
    struct lki_message request = {.type = LKI_REQUEST_PUBLISH, .as.segment_ref = {.segment = 1}};
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), timeout_ns);
    return lki_session_call(session, &request, -1, deadline_ns, reply);
}

Test(transport, hello_is_the_first_record_and_the_request_comes_with_it, .init = setup,
     .fini = teardown)
{
    struct lki_record reply;
    struct pollfd look = {.fd = broker_end, .events = POLLIN};
    cr_assert(eq(int, poll(&look, 1, 0), 0), "a session alone says nothing");
    cr_assert(eq(int, call(LKI_NS_PER_MS, &reply), -ETIMEDOUT));
    struct lki_message hello = broker_receives();
    cr_assert(eq(int, hello.type, LKI_REQUEST_HELLO));
    cr_assert(eq(u64, hello.id, 1));
    cr_assert(eq(u32, hello.as.hello.layout_major, LKI_LAYOUT_MAJOR));
    struct lki_message request = broker_receives();
    cr_assert(eq(int, request.type, LKI_REQUEST_PUBLISH));
    cr_assert(eq(u64, request.id, 2));
}

Test(transport, ids_rise_and_replies_of_others_are_skipped, .init = setup, .fini = teardown)
{
    struct lki_record reply;
    broker_answers(77, LKI_STATUS_BUSY, "an answer that nobody waits for");
    broker_answers(2, LKI_STATUS_OK, "");
    cr_assert(eq(int, call(LKI_NS_PER_S, &reply), 0));
    cr_assert(eq(u64, reply.message.id, 2));

    broker_answers(3, LKI_STATUS_OK, "");
    cr_assert(eq(int, call(LKI_NS_PER_S, &reply), 0));
    cr_assert(eq(u64, reply.message.id, 3));
}

Test(transport, refused_hello_is_the_answer_to_every_call, .init = setup, .fini = teardown)
{
    struct lki_record reply;
    broker_answers(1, LKI_STATUS_VERSION, "another release");
    broker_end = lki_close(broker_end);
    cr_expect(eq(int, call(LKI_NS_PER_S, &reply), -EPROTONOSUPPORT));
    cr_expect(eq(int, call(LKI_NS_PER_S, &reply), -EPROTONOSUPPORT));
    cr_expect(eq(int, lki_session_fail(session, -EPROTONOSUPPORT, "open"), -EPROTONOSUPPORT));
    cr_expect(ne(ptr, strstr(lk_last_error(), "another release"), NULL));
}

Test(transport, no_answer_in_time_is_no_loss_of_the_connection, .init = setup, .fini = teardown)
{
    struct lki_record reply;
    cr_assert(eq(int, call(LKI_NS_PER_MS, &reply), -ETIMEDOUT));
    broker_answers(2, LKI_STATUS_OK, ""); /* too late: skipped */
    broker_answers(3, LKI_STATUS_EXISTS, "");
    cr_assert(eq(int, call(LKI_NS_PER_S, &reply), 0));
    cr_assert(eq(int, reply.message.as.result.status, LKI_STATUS_EXISTS));
}

Test(transport, broker_that_ends_is_connection_reset_for_good, .init = setup, .fini = teardown)
{
    struct lki_record reply;
    broker_end = lki_close(broker_end);
    cr_expect(eq(int, call(LKI_NS_PER_S, &reply), -ECONNRESET));
    cr_expect(eq(int, call(LKI_NS_PER_S, &reply), -ECONNRESET));
    cr_expect(eq(int, lk_session_dispatch(session), -ECONNRESET));
}

Test(transport, nonsense_from_the_broker_is_a_protocol_error, .init = setup, .fini = teardown)
{
    struct lki_record reply;
    cr_assert(eq(int, (int)send(broker_end, "\xff\xff\xff", 3, 0), 3));
    cr_assert(eq(int, call(LKI_NS_PER_S, &reply), -EPROTO));
    cr_assert(eq(int, call(LKI_NS_PER_S, &reply), -ECONNRESET));
}

Test(transport, hints_to_a_full_socket_are_forgotten, .init = setup, .fini = teardown)
{
    struct lki_message hint = {.type = LKI_REQUEST_NUDGE, .as.segment_ref = {.segment = 1}};
    struct lki_record reply;
    lki_transport_send_hint(&session->transport, &hint);
    cr_assert(eq(u64, session->transport.last_id, 1), "nothing before the hello");
    cr_assert(eq(int, call(LKI_NS_PER_MS, &reply), -ETIMEDOUT));
    for (int i = 0; i < 100000; i++) /* nobody reads: blocks here if it could block */
        lki_transport_send_hint(&session->transport, &hint);
    cr_assert(eq(u64, session->transport.last_id, 100002));
}
