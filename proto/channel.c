/* SPDX-License-Identifier: MIT */
#include "proto/channel.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/compiler.h"
#include "common/fd.h"

static_assert(LKI_SOCKET_PATH_BYTES_MAX + 1 == sizeof(((struct sockaddr_un *)0)->sun_path),
              "the bound is that of the system");

/* More than any request that a client makes, a name and numbers. Not LKI_REQUEST_BYTES_MAX: each
 * page of a large buffer costs a new process a fault. */
#define REQUEST_BYTES 1024u

/* --- Sending --- */

/* A record on its way: what sendmsg(2) wants, with room for the descriptors. */
struct outgoing {
    struct iovec content;
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(LKI_RECORD_FDS_MAX * sizeof(int))];
};

static void prepare(struct outgoing *outgoing, struct msghdr *record, const uint8_t *bytes,
                    size_t size_bytes, const int *fds, size_t fd_count)
{
    outgoing->content = (struct iovec){.iov_base = (void *)bytes, .iov_len = size_bytes};
    *record = (struct msghdr){.msg_iov = &outgoing->content, .msg_iovlen = 1};
    if (fd_count == 0)
        return;
    memset(outgoing->control, 0, sizeof(outgoing->control));
    record->msg_control = outgoing->control;
    record->msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(record);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
}

int lki_channel_send_record(int socket_fd, const uint8_t *bytes, size_t size_bytes, const int *fds,
                            size_t fd_count, enum lki_channel_flags flags)
{
    struct outgoing outgoing;
    struct msghdr record;
    ssize_t sent;

    if (fd_count > LKI_RECORD_FDS_MAX || size_bytes == 0)
        return -EINVAL;
    prepare(&outgoing, &record, bytes, size_bytes, fds, fd_count);
    do {
        sent = sendmsg(socket_fd, &record,
                       MSG_NOSIGNAL | (flags & LKI_CHANNEL_NO_WAIT ? MSG_DONTWAIT : 0));
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0; /* a record goes as a whole or not at all */
    if (errno == EPERM && fd_count > 0)
        return -EACCES; /* the peer takes no descriptors from us (SO_PASSRIGHTS) */
    /* Which of these it is depends on what the peer left unread when it went. */
    return errno == EPIPE || errno == ENOTCONN ? -ECONNRESET : -errno;
}

/* Apart from send_large(): a client may run on a thread with a small stack. */
static LKI_NOINLINE int send_request(int socket_fd, const struct lki_message *message,
                                     const int *fds, size_t fd_count, enum lki_channel_flags flags)
{
    uint8_t buffer[REQUEST_BYTES];
    size_t size_bytes;

    int r = lki_message_encode(message, buffer, sizeof(buffer), &size_bytes);
    return r < 0 ? r : lki_channel_send_record(socket_fd, buffer, size_bytes, fds, fd_count, flags);
}

static LKI_NOINLINE int send_large(int socket_fd, const struct lki_message *message, const int *fds,
                                   size_t fd_count, enum lki_channel_flags flags)
{
    uint8_t buffer[LKI_REPLY_BYTES_MAX];
    size_t size_bytes;

    int r = lki_message_encode(message, buffer, sizeof(buffer), &size_bytes);
    return r < 0 ? r : lki_channel_send_record(socket_fd, buffer, size_bytes, fds, fd_count, flags);
}

int lki_channel_send(int socket_fd, const struct lki_message *message, const int *fds,
                     size_t fd_count, enum lki_channel_flags flags)
{
    if (lki_message_direction(message->type) == LKI_DIRECTION_REQUEST) {
        int r = send_request(socket_fd, message, fds, fd_count, flags);
        if (r != -EMSGSIZE)
            return r;
    }
    return send_large(socket_fd, message, fds, fd_count, flags);
}

int lki_channel_send_both(int socket_fd, const struct lki_message *first,
                          const struct lki_message *second, const int *fds, size_t fd_count,
                          enum lki_channel_flags flags)
{
    uint8_t buffers[2][REQUEST_BYTES];
    size_t size_bytes[2];
    struct outgoing outgoing[2];
    struct mmsghdr records[2];

    if (fd_count > LKI_RECORD_FDS_MAX)
        return -EINVAL;
    int r = lki_message_encode(first, buffers[0], sizeof(buffers[0]), &size_bytes[0]);
    if (r == 0)
        r = lki_message_encode(second, buffers[1], sizeof(buffers[1]), &size_bytes[1]);
    if (r < 0)
        return r;
    prepare(&outgoing[0], &records[0].msg_hdr, buffers[0], size_bytes[0], NULL, 0);
    prepare(&outgoing[1], &records[1].msg_hdr, buffers[1], size_bytes[1], fds, fd_count);
    int sent;
    do {
        sent = sendmmsg(socket_fd, records, 2,
                        MSG_NOSIGNAL | (flags & LKI_CHANNEL_NO_WAIT ? MSG_DONTWAIT : 0));
    } while (sent < 0 && errno == EINTR);
    if (sent == 2)
        return 2;
    /* What was refused is sent once more by itself: that tells why. */
    const int rest = sent == 1 ? 1 : 0;
    r = lki_channel_send_record(socket_fd, buffers[rest], size_bytes[rest], fds,
                                rest == 1 ? fd_count : 0, flags);
    if (rest == 1)
        return r < 0 ? 1 : 2;
    return r < 0 ? r : 1;
}

/* --- Receiving --- */

struct received {
    ssize_t size_bytes; /* or -errno */
    int flags;          /* MSG_TRUNC, MSG_CTRUNC */
    size_t fd_count;
    int fds[LKI_CHANNEL_FDS_MAX];
};

static void collect_fds(struct msghdr *record, struct received *received)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(record); header;
         header = CMSG_NXTHDR(record, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && received->fd_count < LKI_CHANNEL_FDS_MAX; i++)
            memcpy(&received->fds[received->fd_count++], CMSG_DATA(header) + i * sizeof(int),
                   sizeof(int));
    }
}

static void receive_record(int socket_fd, uint8_t *buffer, size_t capacity_bytes,
                           enum lki_channel_flags flags, struct received *out)
{
    union {
        struct cmsghdr alignment;
        uint8_t bytes[CMSG_SPACE(LKI_CHANNEL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec content = {.iov_base = buffer, .iov_len = capacity_bytes};
    struct msghdr record;

    do {
        record = (struct msghdr){.msg_iov = &content, .msg_iovlen = 1};
        if (!(flags & LKI_CHANNEL_PEEK)) {
            record.msg_control = &control;
            record.msg_controllen = sizeof(control);
        }
        out->size_bytes = recvmsg(socket_fd, &record,
                                  MSG_CMSG_CLOEXEC | (flags & LKI_CHANNEL_PEEK ? MSG_PEEK : 0) |
                                      (flags & LKI_CHANNEL_NO_WAIT ? MSG_DONTWAIT : 0));
        /* ECONNRESET: the peer went and left something unread. That is told once, before the
         * records that it sent last; the reason why it went may be among them. */
    } while (out->size_bytes < 0 && (errno == EINTR || errno == ECONNRESET));
    out->fd_count = 0;
    if (out->size_bytes < 0) {
        /* ENOMEM is said where a record was taken out and there was no memory for its message. */
        out->size_bytes = errno == ENOMEM ? -ENOBUFS : -errno;
        return;
    }
    out->flags = record.msg_flags;
    collect_fds(&record, out);
}

/* recvmsg() answers 0 to an empty record and to the end alike. */
static bool is_at_end(int socket_fd)
{
    struct pollfd state = {.fd = socket_fd, .events = POLLRDHUP};

    return poll(&state, 1, 0) > 0;
}

/* The message in what was received: 1, 0 at the end of the connection, or an error. */
static int judge(int socket_fd, const struct received *received, struct lki_arena *arena,
                 const uint8_t *buffer, enum lki_direction direction, struct lki_message *out,
                 const char **out_reason)
{
    if (received->size_bytes < 0)
        return (int)received->size_bytes;
    if (received->size_bytes == 0) {
        if (received->fd_count == 0 && is_at_end(socket_fd))
            return 0;
        *out_reason = "an empty record";
        return -EPROTO;
    }
    if (received->flags & MSG_TRUNC) {
        *out_reason = "a record longer than allowed";
        return -EMSGSIZE;
    }
    if (received->fd_count > LKI_RECORD_FDS_MAX) {
        *out_reason = "too many descriptors in a record";
        return -EPROTO;
    }
    int r =
        lki_message_decode(arena, buffer, (size_t)received->size_bytes, direction, out, out_reason);
    if (r < 0)
        return r;
    if (received->flags & MSG_CTRUNC) { /* there was room for all that the kernel can send */
        *out_reason = "descriptors were lost, our descriptor table is full";
        return -EMFILE;
    }
    return 1;
}

int lki_channel_receive(int socket_fd, struct lki_arena *arena, uint8_t *buffer,
                        enum lki_direction direction, enum lki_channel_flags flags,
                        struct lki_message *out, int *out_fds, size_t *out_fd_count,
                        const char **out_reason)
{
    struct received received;

    receive_record(socket_fd, buffer, lki_record_bytes_max(direction), flags, &received);
    const int r = judge(socket_fd, &received, arena, buffer, direction, out, out_reason);
    if (r == 1 || (flags & LKI_CHANNEL_KEEP_FDS)) {
        memcpy(out_fds, received.fds, received.fd_count * sizeof(int));
        *out_fd_count = received.fd_count;
        return r;
    }
    for (size_t i = 0; i < received.fd_count; i++)
        lki_close(received.fds[i]);
    *out_fd_count = 0;
    return r;
}

void lki_channel_skip(int socket_fd)
{
    struct msghdr nothing = {.msg_iovlen = 0};
    ssize_t skipped;

    do
        skipped = recvmsg(socket_fd, &nothing, MSG_DONTWAIT);
    while (skipped < 0 && (errno == EINTR || errno == ECONNRESET)); /* as in receive_record() */
}

/* --- Addresses --- */

int lki_socket_address(const char *path, struct sockaddr_un *out_address,
                       socklen_t *out_length_bytes)
{
    if (!path || path[0] == '\0')
        return -EINVAL;
    const size_t path_bytes = strlen(path);
    if (path_bytes > LKI_SOCKET_PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    memset(out_address, 0, sizeof(*out_address));
    out_address->sun_family = AF_UNIX;
    memcpy(out_address->sun_path, path, path_bytes + 1);
    *out_length_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes + 1);
    return 0;
}
