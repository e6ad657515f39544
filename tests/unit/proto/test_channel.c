/* SPDX-License-Identifier: MIT */
#include "proto/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/fd.h"

static struct lki_arena arena;
static uint8_t buffer[LKI_REPLY_BYTES_MAX];
static int client = -1;
static int broker = -1;
static unsigned fds_before;

/* What the last receive() gave. */
static struct lki_message got;
static int got_fds[LKI_CHANNEL_FDS_MAX];
static size_t got_fd_count;
static const char *reason;

static const struct lki_message open_request = {
    .type = LKI_REQUEST_OPEN,
    .id = 9,
    .as.open = {.name = {(const uint8_t *)"jobs", 4}, .flags = 1}};

static unsigned count_open_fds(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");

    cr_assert(ne(ptr, directory, NULL));
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void setup(void)
{
    int pair[2];

    fds_before = count_open_fds();
    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0));
    client = pair[0];
    broker = pair[1];
    reason = "(none)";
    got_fd_count = 99;
}

static void teardown(void)
{
    client = lki_close(client);
    broker = lki_close(broker);
    cr_assert(eq(uint, count_open_fds(), fds_before), "descriptors leaked");
}

TestSuite(channel, .init = setup, .fini = teardown, .timeout = 30);

static int receive_with(enum lki_channel_flags flags)
{
    memset(&got, 0, sizeof(got));
    return lki_channel_receive(broker, &arena, buffer, LKI_DIRECTION_REQUEST, flags, &got, got_fds,
                               &got_fd_count, &reason);
}

static int receive(void)
{
    return receive_with(LKI_CHANNEL_NO_WAIT);
}

static int send_open(enum lki_channel_flags flags)
{
    return lki_channel_send(client, &open_request, NULL, 0, flags);
}

static void close_received(void)
{
    for (size_t i = 0; i < got_fd_count; i++)
        lki_close(got_fds[i]);
}

/* Sends any bytes with `fd_count` duplicates of standard error. */
static void send_raw(const void *bytes, size_t size_bytes, size_t fd_count)
{
    union {
        struct cmsghdr alignment;
        uint8_t bytes[CMSG_SPACE(LKI_CHANNEL_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec content = {.iov_base = (void *)bytes, .iov_len = size_bytes};
    struct msghdr record = {.msg_iov = &content, .msg_iovlen = 1};

    if (fd_count > 0) {
        record.msg_control = &control;
        record.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&record);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (size_t i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(header) + i * sizeof(int), &(int){STDERR_FILENO}, sizeof(int));
    }
    cr_assert(eq(long, sendmsg(client, &record, 0), (long)size_bytes));
}

/* A good record, with more descriptors than lki_channel_send() would send. */
static void send_open_raw(size_t fd_count)
{
    uint8_t bytes[256];
    size_t size_bytes = 0;

    cr_assert(eq(int, lki_message_encode(&open_request, bytes, sizeof(bytes), &size_bytes), 0));
    send_raw(bytes, size_bytes, fd_count);
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

Test(channel, carries_a_message)
{
    cr_assert(eq(int, send_open(LKI_CHANNEL_WAIT), 0));
    cr_assert(eq(int, receive(), 1), "%s", reason);
    cr_expect(eq(int, got.type, LKI_REQUEST_OPEN));
    cr_expect(eq(u64, got.id, 9));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, keeps_the_borders_of_records)
{
    send_open(LKI_CHANNEL_WAIT);
    send_open(LKI_CHANNEL_WAIT);
    cr_expect(eq(int, receive(), 1));
    cr_expect(eq(int, receive(), 1));
    cr_expect(eq(int, receive(), -EAGAIN));
}

Test(channel, carries_four_descriptors_in_order_and_close_on_exec)
{
    int fds[LKI_RECORD_FDS_MAX];
    struct stat sent, received;

    for (unsigned i = 0; i < LKI_RECORD_FDS_MAX; i++) {
        fds[i] = memfd_create("channel", MFD_CLOEXEC);
        cr_assert(ge(int, fds[i], 0));
    }
    cr_assert(eq(int, lki_channel_send(client, &open_request, fds, LKI_RECORD_FDS_MAX, 0), 0));
    cr_assert(eq(int, receive(), 1), "%s", reason);
    cr_assert(eq(sz, got_fd_count, LKI_RECORD_FDS_MAX));
    for (unsigned i = 0; i < LKI_RECORD_FDS_MAX; i++) {
        fstat(fds[i], &sent);
        cr_assert(eq(int, fstat(got_fds[i], &received), 0));
        cr_expect(eq(u64, received.st_ino, sent.st_ino));
        cr_expect(eq(int, fcntl(got_fds[i], F_GETFD), FD_CLOEXEC));
        lki_close(fds[i]);
    }
    close_received();
}

Test(channel, sends_four_descriptors_at_most)
{
    const int fds[LKI_RECORD_FDS_MAX + 1] = {2, 2, 2, 2, 2};

    cr_expect(
        eq(int, lki_channel_send(client, &open_request, fds, LKI_RECORD_FDS_MAX + 1, 0), -EINVAL));
    cr_expect(eq(int, receive(), -EAGAIN), "nothing was sent");
}

Test(channel, sends_no_empty_record)
{
    cr_expect(eq(int, lki_channel_send_record(client, buffer, 0, NULL, 0, 0), -EINVAL));
}

Test(channel, does_not_send_a_message_that_cannot_be_encoded)
{
    const struct lki_message none = {.type = LKI_MESSAGE_NONE};

    cr_expect(eq(int, lki_channel_send(client, &none, NULL, 0, 0), -EINVAL));
    cr_expect(eq(int, receive(), -EAGAIN));
}

Test(channel, says_that_nothing_is_there)
{
    cr_expect(eq(int, receive(), -EAGAIN));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, says_that_the_socket_is_full_and_loses_nothing)
{
    unsigned sent = 0, received = 0;
    int r;

    while ((r = send_open(LKI_CHANNEL_NO_WAIT)) == 0)
        sent++;
    cr_expect(eq(int, r, -EAGAIN));
    while (receive() == 1)
        received++;
    cr_expect(eq(uint, received, sent));
    cr_expect(eq(int, send_open(LKI_CHANNEL_NO_WAIT), 0));
}

Test(channel, ends_when_the_peer_closes)
{
    send_open(LKI_CHANNEL_WAIT);
    client = lki_close(client);
    cr_expect(eq(int, receive(), 1));
    cr_expect(eq(int, receive(), 0));
    cr_expect(eq(int, receive(), 0));
}

Test(channel, ends_when_the_peer_shuts_its_side_down)
{
    shutdown(client, SHUT_WR);
    cr_expect(eq(int, receive(), 0));
}

Test(channel, delivers_the_last_words_of_a_peer_that_left_something_unread)
{
    /* The kernel tells of the unread record by ECONNRESET, before it gives out what is queued. */
    cr_assert(eq(int, lki_channel_send(broker, &open_request, NULL, 0, 0), 0));
    send_open(LKI_CHANNEL_WAIT);
    client = lki_close(client);
    cr_expect(eq(int, receive(), 1), "%s", reason);
    cr_expect(eq(int, receive(), 0));
}

#define PEEK (LKI_CHANNEL_NO_WAIT | LKI_CHANNEL_PEEK)

Test(channel, shows_a_record_and_takes_it_out_later)
{
    cr_expect(eq(int, receive_with(PEEK), -EAGAIN));
    send_open(LKI_CHANNEL_WAIT);
    send_raw("nonsense", 8, 0);
    for (unsigned i = 0; i < 2; i++) {
        cr_expect(eq(int, receive_with(PEEK), 1), "%s", reason);
        cr_expect(eq(u64, got.id, 9));
    }
    lki_channel_skip(broker);
    cr_expect(eq(int, receive_with(PEEK), -EPROTO));
    cr_expect(eq(int, receive(), -EPROTO));
    lki_channel_skip(broker); /* of nothing */
    cr_expect(eq(int, receive(), -EAGAIN));
}

Test(channel, shows_no_descriptors)
{
    const int fds[2] = {STDERR_FILENO, STDERR_FILENO};
    cr_assert(eq(int, lki_channel_send(client, &open_request, fds, 2, 0), 0));
    cr_expect(eq(int, receive_with(PEEK), -EMFILE));
    cr_expect(eq(sz, got_fd_count, 0));
    cr_expect(eq(int, receive(), 1), "they are there still");
    cr_expect(eq(sz, got_fd_count, 2));
    close_received();
}

Test(channel, takes_out_what_it_was_shown_of_a_peer_that_left_something_unread)
{
    send_open(LKI_CHANNEL_WAIT);
    cr_expect(eq(int, receive_with(PEEK), 1));
    cr_assert(eq(int, lki_channel_send(broker, &open_request, NULL, 0, 0), 0));
    client = lki_close(client); /* ECONNRESET comes between */
    lki_channel_skip(broker);
    cr_expect(eq(int, receive(), 0));
}

Test(channel, tells_an_empty_record_from_the_end)
{
    send_raw("", 0, 0);
    cr_expect(eq(int, receive(), -EPROTO));
    cr_expect(eq(str, (char *)reason, "an empty record"));
}

Test(channel, refuses_an_empty_record_with_descriptors_even_before_the_end)
{
    send_raw("", 0, 2);
    client = lki_close(client);
    cr_expect(eq(int, receive(), -EPROTO));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, a_gone_peer_is_an_error_and_no_signal)
{
    signal(SIGPIPE, SIG_DFL); /* the runner may have been started with it ignored */
    client = lki_close(client);
    cr_expect(eq(int, lki_channel_send(broker, &open_request, NULL, 0, 0), -ECONNRESET));
}

Test(channel, a_gone_peer_with_unread_records_is_the_same_error)
{
    lki_channel_send(broker, &open_request, NULL, 0, 0);
    client = lki_close(client);
    cr_expect(eq(int, lki_channel_send(broker, &open_request, NULL, 0, 0), -ECONNRESET));
    cr_expect(eq(int, lki_channel_send(broker, &open_request, NULL, 0, 0), -ECONNRESET));
}

Test(channel, refuses_a_record_that_does_not_fit_and_closes_its_descriptors)
{
    static uint8_t bytes[LKI_REQUEST_BYTES_MAX + 1];

    send_raw(bytes, sizeof(bytes), 3);
    cr_expect(eq(int, receive(), -EMSGSIZE));
    cr_expect(eq(str, (char *)reason, "a record longer than allowed"));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, takes_a_record_of_the_greatest_size)
{
    static uint8_t text[LKI_REQUEST_BYTES_MAX];
    struct lki_message message = {
        .type = LKI_REQUEST_REMOVE,
        .as.remove.name = {text, LKI_REQUEST_BYTES_MAX - 7 /* two tags, two lengths */}};

    cr_assert(eq(int, lki_channel_send(client, &message, NULL, 0, 0), 0));
    cr_assert(eq(int, receive(), 1), "%s", reason);
    cr_expect(eq(sz, got.as.remove.name.length_bytes, LKI_REQUEST_BYTES_MAX - 7));
}

Test(channel, refuses_what_cannot_be_read_and_closes_its_descriptors)
{
    send_raw("\xff\xff", 2, 2);
    cr_expect(eq(int, receive(), -EPROTO));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, refuses_five_descriptors_and_closes_them)
{
    send_open_raw(LKI_RECORD_FDS_MAX + 1);
    cr_expect(eq(int, receive(), -EPROTO));
    cr_expect(eq(str, (char *)reason, "too many descriptors in a record"));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, refuses_as_many_descriptors_as_the_kernel_carries_and_closes_them)
{
    send_open_raw(LKI_CHANNEL_FDS_MAX);
    cr_expect(eq(int, receive(), -EPROTO));
    cr_expect(eq(sz, got_fd_count, 0));
}

Test(channel, hands_the_descriptors_of_a_refused_record_over_if_asked)
{
    send_open_raw(LKI_CHANNEL_FDS_MAX);
    cr_expect(eq(int, receive_with(LKI_CHANNEL_NO_WAIT | LKI_CHANNEL_KEEP_FDS), -EPROTO));
    cr_assert(eq(sz, got_fd_count, LKI_CHANNEL_FDS_MAX));
    for (size_t i = 0; i < got_fd_count; i++)
        cr_assert(is_open(got_fds[i]));
    close_received();
}

/* Leaves room for `room` more descriptors; gives back the limit that was. */
static struct rlimit fill_descriptor_table(unsigned room)
{
    struct rlimit before, limit;

    getrlimit(RLIMIT_NOFILE, &before);
    const int next_free = dup(STDERR_FILENO);
    lki_close(next_free);
    limit = before;
    limit.rlim_cur = (rlim_t)next_free + room;
    for (int fd = next_free; fd < next_free + (int)room; fd++)
        cr_assert(not(is_open(fd)), "the free numbers have to be in a row");
    cr_assert(eq(int, setrlimit(RLIMIT_NOFILE, &limit), 0));
    return before;
}

Test(channel, tells_a_full_descriptor_table_and_keeps_the_message)
{
    const int fds[2] = {STDERR_FILENO, STDERR_FILENO};

    for (unsigned room = 0; room < 2; room++) {
        cr_assert(eq(int, lki_channel_send(client, &open_request, fds, 2, 0), 0));
        const struct rlimit before = fill_descriptor_table(room);
        const int r = receive();
        setrlimit(RLIMIT_NOFILE, &before);

        cr_expect(eq(int, r, -EMFILE), "room %u", room);
        cr_expect(eq(sz, got_fd_count, 0), "room %u", room);
        cr_expect(eq(u64, got.id, 9), "room %u", room);
        cr_expect(ne(ptr, strstr(reason, "descriptor table"), NULL), "%s", reason);
    }
    /* The connection goes on. */
    cr_assert(eq(int, lki_channel_send(client, &open_request, fds, 2, 0), 0));
    cr_assert(eq(int, receive(), 1));
    cr_expect(eq(sz, got_fd_count, 2));
    close_received();
}

static void send_from_signal_handler(int signal)
{
    static uint8_t bytes[] = {0xaa, 0x07, 0x00}; /* goodbye, without an id */

    (void)signal;
    (void)!send(client, bytes, sizeof(bytes), 0);
}

Test(channel, waits_on_after_a_signal)
{
    struct sigaction action = {.sa_handler = send_from_signal_handler}; /* no SA_RESTART */
    const struct itimerval soon = {.it_value.tv_usec = 2000};

    cr_assert(eq(int, sigaction(SIGALRM, &action, NULL), 0));
    cr_assert(eq(int, setitimer(ITIMER_REAL, &soon, NULL), 0));
    cr_assert(eq(int, receive_with(LKI_CHANNEL_WAIT), 1), "%s", reason);
    cr_expect(eq(int, got.type, LKI_REQUEST_GOODBYE));
}

static volatile sig_atomic_t ticks;

static void read_from_signal_handler(int signal)
{
    uint8_t bytes[64];

    (void)signal;
    if (++ticks >= 3)
        while (recv(broker, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
            continue;
}

Test(channel, sends_on_after_a_signal)
{
    struct sigaction action = {.sa_handler = read_from_signal_handler}; /* no SA_RESTART */
    const struct itimerval often = {{.tv_usec = 1000}, {.tv_usec = 1000}}, off = {{0}, {0}};

    while (lki_channel_send(client, &open_request, NULL, 0, LKI_CHANNEL_NO_WAIT) == 0)
        continue; /* until the buffer is full */
    cr_assert(eq(int, sigaction(SIGALRM, &action, NULL), 0));
    cr_assert(eq(int, setitimer(ITIMER_REAL, &often, NULL), 0));
    int r = lki_channel_send(client, &open_request, NULL, 0, LKI_CHANNEL_WAIT);
    cr_assert(eq(int, setitimer(ITIMER_REAL, &off, NULL), 0));
    cr_expect(eq(int, r, 0));
    cr_expect(ge(int, ticks, 3));
}

Test(channel, a_path_of_107_bytes_is_an_address_and_one_more_is_refused)
{
    char path[LKI_SOCKET_PATH_BYTES_MAX + 2];
    struct sockaddr_un address;
    socklen_t length_bytes = 0;

    memset(path, 'p', sizeof(path));
    path[LKI_SOCKET_PATH_BYTES_MAX] = '\0';
    cr_assert(eq(int, lki_socket_address(path, &address, &length_bytes), 0));
    cr_expect(eq(int, address.sun_family, AF_UNIX));
    cr_expect(eq(str, address.sun_path, path));
    cr_expect(eq(uint, length_bytes, sizeof(address)));
    path[LKI_SOCKET_PATH_BYTES_MAX] = 'p';
    path[LKI_SOCKET_PATH_BYTES_MAX + 1] = '\0';
    cr_expect(eq(int, lki_socket_address(path, &address, &length_bytes), -ENAMETOOLONG));
}

Test(channel, no_path_is_no_address)
{
    struct sockaddr_un address;
    socklen_t length_bytes;

    cr_expect(eq(int, lki_socket_address("", &address, &length_bytes), -EINVAL));
    cr_expect(eq(int, lki_socket_address(NULL, &address, &length_bytes), -EINVAL));
}
