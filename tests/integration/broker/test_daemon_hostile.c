/* SPDX-License-Identifier: MIT */
/* What breaks the rules ends the connection that did it, with a line in the log that says who and
 * why; everybody else is served, and no descriptor stays behind. */
#include "daemon_fixture.h"

#include <poll.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"

static int bystander;
static size_t fds_before;

static void setup(void)
{
    fixture_open();
    start_daemon(NULL);
    bystander = connect_raw();
    expect_works(bystander, "bystander");
    fds_before = count_fds_at_rest();
}

/* The bystander is still connected, and nothing was left behind. */
static void teardown(void)
{
    struct reply reply;
    struct lki_message request = open_request(3, "bystander", 4096);
    cr_expect(eq(int, send_request(bystander, &request, NULL, 0), 0));
    cr_expect(eq(int, receive_reply(bystander, &reply), 1));
    for (size_t i = 0; i < reply.fd_count; i++)
        close(reply.fds[i]);
    expect_fds(fds_before);
    expect_serves();
    close(bystander);
    fixture_close();
}

TestSuite(daemon_hostile, .init = setup, .fini = teardown, .timeout = 60);

static void expect_dropped_with(int fd, const char *reason)
{
    char line[256];
    expect_dropped(fd);
    snprintf(line, sizeof(line), "warning: dropped pid %d (uid %u): %s", getpid(), getuid(),
             reason);
    expect_log(line);
}

/* A record of these bytes, with count descriptors. */
static ssize_t send_bytes(int fd, const void *bytes, size_t size_bytes, const int *fds,
                          size_t count)
{
    struct iovec io = {.iov_base = (void *)bytes, .iov_len = size_bytes};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    union {
        char bytes[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control;
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

Test(daemon_hostile, record_of_zero_bytes)
{
    int fd = connect_raw();
    cr_assert(eq(int, (int)send_bytes(fd, "", 0, NULL, 0), 0));
    expect_dropped_with(fd, "an empty record");
}

Test(daemon_hostile, record_that_is_too_long)
{
    static char bytes[LKI_REQUEST_BYTES_MAX + 1];
    int fd = connect_raw();
    cr_assert(eq(int, (int)send_bytes(fd, bytes, sizeof(bytes), NULL, 0), (int)sizeof(bytes)));
    expect_dropped_with(fd, "a record longer than allowed");
}

Test(daemon_hostile, garbage)
{
    int fd = connect_raw();
    cr_assert(eq(int, (int)send_bytes(fd, "\xff\xff\xff\xff\xff", 5, NULL, 0), 5));
    expect_dropped_with(fd, "malformed tag");
}

Test(daemon_hostile, message_that_does_not_exist)
{
    int fd = connect_raw();
    send_hello(fd);
    static const uint8_t unknown[] = {0x08, 0x02, 0xa2, 0x38, 0x00}; /* id 2, field 900 */
    cr_assert(eq(int, (int)send_bytes(fd, unknown, sizeof(unknown), NULL, 0), 5));
    expect_dropped_with(fd, "unknown field");
}

Test(daemon_hostile, message_that_only_a_broker_sends)
{
    int fd = connect_raw();
    send_hello(fd);
    struct lki_message reply = {.type = LKI_REPLY_RESULT, .id = 2};
    cr_assert(eq(int, send_request(fd, &reply, NULL, 0), 0));
    expect_dropped_with(fd, "a reply from a client");
}

Test(daemon_hostile, request_before_the_hello)
{
    int fd = connect_raw();
    struct lki_message request = open_request(1, "early", 4096);
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    expect_dropped_with(fd, "its first record is no hello");
}

Test(daemon_hostile, five_descriptors)
{
    int fd = connect_raw();
    int fds[] = {0, 1, 2, 0, 1};
    send_hello(fd);
    struct lki_message list = {
        .type = LKI_REQUEST_LIST, .id = 2, .as.list = {.what = LKI_LIST_BROKER}};
    struct reply reply;
    cr_assert(eq(int, send_request(fd, &list, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "accepted");
    cr_assert(gt(int, (int)send_bytes(fd, "\x08\x01", 2, fds, 5), 0));
    expect_dropped_with(fd, "too many descriptors in a record");
}

Test(daemon_hostile, descriptor_with_a_message_that_takes_none)
{
    int fd = connect_raw();
    int given = 0;
    struct lki_message request = open_request(2, "plain", 4096);
    send_hello(fd);
    cr_assert(eq(int, send_request(fd, &request, &given, 1), 0));
    expect_dropped_with(fd, "descriptors with a message that takes none");
}

Test(daemon_hostile, thousand_connections_that_end_at_once)
{
    for (int i = 0; i < 1000; i++)
        close(connect_raw());
}

/* A TCP socket over loopback whose close() waits for its peer, which never reads: sending such a
 * one costs nothing, closing it 3 s. */
static int lingering_socket(int *out_peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length_bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, bind(listener, (struct sockaddr *)&address, length_bytes), 0));
    cr_assert(eq(int, listen(listener, 1), 0));
    cr_assert(eq(int, getsockname(listener, (struct sockaddr *)&address, &length_bytes), 0));
    cr_assert(eq(int, connect(fd, (struct sockaddr *)&address, length_bytes), 0));
    *out_peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(ge(int, *out_peer, 0));
    close(listener);

    static char data[64 * 1024];
    while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
        continue;
    struct linger linger = {.l_onoff = 1, .l_linger = 3};
    cr_assert(eq(int, setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0));
    return fd;
}

Test(daemon_hostile, descriptor_that_blocks_whoever_closes_it)
{
    int peer;
    int lingering = lingering_socket(&peer);
    int fd = connect_raw();
    struct lki_message request = open_request(2, "lingers", 4096);
    request.as.open.offered = true;
    send_hello(fd);
    /* The broker is the last one to close it. */
    cr_assert(eq(int, send_request(fd, &request, &lingering, 1), 0));
    shutdown(lingering, SHUT_RD);
    close(lingering);

    struct reply reply;
    cr_assert(eq(int, receive_reply(fd, &reply), 1));
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_BAD_FD));

    /* Having answered it closes the descriptor. Meanwhile the TCP peer must not read and not go
     * away. */
    uint64_t before_ns = lki_clock_now_ns();
    expect_serves();
    uint64_t took_ns = lki_clock_now_ns() - before_ns;
    cr_expect(lt(u64, took_ns, LKI_NS_PER_S), "another client waited");
    close(fd);
    close(peer);
}

/* What the broker does not read any more is closed with the socket: behind a record that ends the
 * connection, and here also behind one without bytes, which reads like the end. */
Test(daemon_hostile, descriptor_behind_the_end_that_blocks_whoever_closes_it)
{
    int peer;
    int lingering = lingering_socket(&peer);
    int fd = connect_raw();
    struct reply reply;
    struct lki_message list = {
        .type = LKI_REQUEST_LIST, .id = 2, .as.list = {.what = LKI_LIST_BROKER}};
    send_hello(fd);
    cr_assert(eq(int, send_request(fd, &list, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "accepted: it may send descriptors now");

    pid_t worker = worker_pid();
    cr_assert(eq(int, kill(worker, SIGSTOP), 0));
    cr_assert(eq(int, (int)send_bytes(fd, "\xff\xff\xff\xff\xff", 5, NULL, 0), 5));
    cr_assert(eq(int, (int)send_bytes(fd, "", 0, NULL, 0), 0));
    cr_assert(eq(int, (int)send_bytes(fd, "", 0, &lingering, 1), 0));
    shutdown(lingering, SHUT_RD);
    close(lingering);
    cr_assert(eq(int, kill(worker, SIGCONT), 0));

    expect_dropped_with(fd, "malformed tag");
    uint64_t before_ns = lki_clock_now_ns();
    expect_serves();
    uint64_t took_ns = lki_clock_now_ns() - before_ns;
    cr_expect(lt(u64, took_ns, LKI_NS_PER_S), "another client waited");
    close(peer);
}

Test(daemon_hostile, one_that_never_reads_its_replies)
{
    int fd = connect_raw();
    send_hello(fd);
    struct lki_message request = {.type = LKI_REQUEST_LIST, .as.list = {.what = LKI_LIST_BROKER}};
    for (uint64_t id = 2;; id++) {
        request.id = id;
        int r = lki_channel_send(fd, &request, NULL, 0, LKI_CHANNEL_NO_WAIT);
        if (r == -EAGAIN)
            continue;
        if (r < 0)
            break;
        cr_assert(lt(u64, id, UINT64_C(1000000)), "never dropped");
    }
    expect_dropped_with(fd, "it does not read its replies");
}

Test(daemon_hostile, one_that_never_receives_its_descriptors)
{
    int fd = connect_raw();
    send_hello(fd);
    for (uint64_t id = 2; id < 200; id++) {
        struct lki_message request = open_request(id, "bystander", 4096);
        if (send_request(fd, &request, NULL, 0) < 0)
            break;
    }
    /* Not a byte is received before it is dropped: that would be receiving. */
    struct pollfd hung_up = {.fd = fd};
    cr_assert(eq(int, poll(&hung_up, 1, 10000), 1));
    expect_dropped_with(fd, "it does not receive the descriptors that it asked for");
}
