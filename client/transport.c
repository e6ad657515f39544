/* SPDX-License-Identifier: MIT */
#include "client/transport.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "common/clock.h"
#include "common/fd.h"
#include "engine/layout.h"

void lki_transport_init(struct lki_transport *transport, int socket_fd, struct lki_inbox *inbox)
{
    *transport = (struct lki_transport){
        .socket_fd = socket_fd, .lost = socket_fd < 0, .last_id = LKI_HELLO_ID, .inbox = inbox};
}

void lki_transport_deinit(struct lki_transport *transport)
{
    transport->socket_fd = lki_close(transport->socket_fd);
    transport->lost = true;
}

static const struct lki_message hello = {
    .type = LKI_REQUEST_HELLO,
    .id = LKI_HELLO_ID,
    .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                 .protocol_minor = LKI_PROTOCOL_MINOR,
                 .layout_major = LKI_LAYOUT_MAJOR},
};

/* The hello goes with the first request: one flight, one wake of the broker. Nobody waits for its
 * answer: only a refusal has one. */
static int send_first(struct lki_transport *transport, struct lki_message *request, int fd,
                      enum lki_channel_flags flags)
{
    int r =
        lki_channel_send_both(transport->socket_fd, &hello, request, &fd, fd >= 0 ? 1 : 0, flags);
    if (r < 0)
        return r;
    transport->greeted = true;
    return r == 2 ? 0
                  : lki_channel_send(transport->socket_fd, request, &fd, fd >= 0 ? 1 : 0, flags);
}

int lki_transport_send(struct lki_transport *transport, struct lki_message *request, int fd)
{
    if (transport->lost)
        return -ECONNRESET;
    request->id = ++transport->last_id;
    if (!transport->greeted)
        return send_first(transport, request, fd, LKI_CHANNEL_WAIT);
    int r = lki_channel_send(transport->socket_fd, request, &fd, fd >= 0 ? 1 : 0, LKI_CHANNEL_WAIT);
    return r; /* lost is for receiving to find out: the reason may still lie in our buffer */
}

int lki_transport_repeat(struct lki_transport *transport, const struct lki_message *request, int fd)
{
    return transport->lost ? -ECONNRESET
                           : lki_channel_send(transport->socket_fd, request, &fd, fd >= 0 ? 1 : 0,
                                              LKI_CHANNEL_WAIT);
}

int lki_transport_resume(struct lki_transport *transport, uint32_t number)
{
    const struct lki_message resume = {.type = LKI_REQUEST_RESUME, .as.resume.number = number};
    int r = lki_transport_repeat(transport, &resume, -1);
    if (r == 0 && transport->greeted && !transport->heard)
        r = lki_transport_repeat(transport, &hello, -1);
    return r;
}

bool lki_transport_send_hint(struct lki_transport *transport, struct lki_message *request)
{
    if (transport->lost || !transport->greeted) /* a hint is about a segment that was opened */
        return false;
    request->id = ++transport->last_id;
    /* A full buffer means that the broker has enough to do and will look by its own timer; a broker
     * that is gone is found by the next call that needs it. */
    return lki_channel_send(transport->socket_fd, request, NULL, 0, LKI_CHANNEL_NO_WAIT) == 0;
}

/* Waits until the socket has something. Returns 0 or -EAGAIN: the time is over. */
static int wait_readable(int socket_fd, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = lki_clock_now_ns();
        uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
        const struct timespec left = {.tv_sec = (time_t)(left_ns / LKI_NS_PER_S),
                                      .tv_nsec = (long)(left_ns % LKI_NS_PER_S)};
        struct pollfd poll_fd = {.fd = socket_fd, .events = POLLIN};
        int ready = ppoll(&poll_fd, 1, &left, NULL);
        if (ready > 0)
            return 0; /* errors and the end too: receiving tells which */
        if (ready == 0)
            return -EAGAIN;
        if (errno != EINTR)
            return -errno;
    }
}

static int receive_once(struct lki_transport *transport, enum lki_channel_flags flags,
                        struct lki_record *out_record)
{
    const char *reason = "";
    lki_arena_reset(&transport->inbox->arena);
    return lki_channel_receive(transport->socket_fd, &transport->inbox->arena,
                               transport->inbox->buffer, LKI_DIRECTION_REPLY, flags,
                               &out_record->message, out_record->fds, &out_record->fd_count,
                               &reason);
}

/* Looks for a while, 50 us at most. Returns as receive_once(); -EAGAIN: nothing came. */
static int look(struct lki_transport *transport, struct lki_record *out_record)
{
    int r = -EAGAIN;
    if (lki_has_one_processor() || !lki_spin_begin(&transport->inbox->spin, lki_clock_now_ns()))
        return r;
    do
        r = receive_once(transport, LKI_CHANNEL_NO_WAIT, out_record);
    while (lki_spin_go_on(&transport->inbox->spin, lki_clock_now_ns(), r != -EAGAIN));
    lki_spin_end(&transport->inbox->spin, r != -EAGAIN);
    /* Without memory the record is still there: whoever waits for it finds some, or hears that there is none. */
    return r == -ENOBUFS ? -EAGAIN : r;
}

/* As receive_once(); -EAGAIN: the time is over. */
static int receive(struct lki_transport *transport, uint64_t deadline_ns,
                   struct lki_record *out_record)
{
    if (deadline_ns == 0)
        return receive_once(transport, LKI_CHANNEL_NO_WAIT, out_record);
    int r = look(transport, out_record);
    if (r != -EAGAIN)
        return r;
    if (deadline_ns == LKI_TIME_NEVER)
        return receive_once(transport, LKI_CHANNEL_WAIT, out_record);
    r = wait_readable(transport->socket_fd, deadline_ns);
    return r < 0 ? r : receive_once(transport, LKI_CHANNEL_NO_WAIT, out_record);
}

int lki_transport_receive(struct lki_transport *transport, uint64_t deadline_ns,
                          struct lki_record *out_record)
{
    out_record->fd_count = 0;
    if (transport->lost)
        return -ECONNRESET;
    int r = receive(transport, deadline_ns, out_record);
    if ((r > 0 || r == -EMFILE) && out_record->message.type != LKI_REPLY_RESUMED)
        transport->heard = true;
    if (r > 0)
        return 0;
    if (r == -EAGAIN)
        return -ETIMEDOUT;
    if (r == -EMFILE || r == -ENOMEM)
        return r;
    if (r == -ENOBUFS)
        return -ENOMEM;
    transport->lost = true;
    return r == -EPROTO || r == -EMSGSIZE ? -EPROTO : -ECONNRESET;
}

int lki_record_take_fd(struct lki_record *record, size_t i)
{
    return i < record->fd_count ? lki_steal_fd(&record->fds[i]) : -1;
}

void lki_record_deinit(struct lki_record *record)
{
    for (size_t i = 0; i < record->fd_count; i++)
        record->fds[i] = lki_close(record->fds[i]);
    record->fd_count = 0;
}
