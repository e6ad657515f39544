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

/* --- Sending ---------------------------------------------------------------------------------- */

int lki_channel_send_record(int socket_fd, const uint8_t *bytes, size_t size_bytes, const int *fds,
                            size_t fd_count, enum lki_channel_flags flags)
{
    union {
        struct cmsghdr alignment;
        uint8_t bytes[CMSG_SPACE(LKI_RECORD_FDS_MAX * sizeof(int))];
    } control;
    struct iovec content = {.iov_base = (void *)bytes, .iov_len = size_bytes};
    struct msghdr record = {.msg_iov = &content, .msg_iovlen = 1};
    ssize_t sent;

    if (fd_count > LKI_RECORD_FDS_MAX || size_bytes == 0)
        return -EINVAL;
    if (fd_count > 0) {
        memset(&control, 0, sizeof(control));
        record.msg_control = &control;
        record.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&record);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
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

/* One function per direction: a client may run on a thread with a small stack. */
static LKI_NOINLINE int send_request(int socket_fd, const struct lki_message *message,
                                     const int *fds, size_t fd_count, enum lki_channel_flags flags)
{
    uint8_t buffer[LKI_REQUEST_BYTES_MAX];
    size_t size_bytes;

    int r = lki_message_encode(message, buffer, sizeof(buffer), &size_bytes);
    return r < 0 ? r : lki_channel_send_record(socket_fd, buffer, size_bytes, fds, fd_count, flags);
}

static LKI_NOINLINE int send_reply(int socket_fd, const struct lki_message *message, const int *fds,
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
    if (lki_message_direction(message->type) == LKI_DIRECTION_REQUEST)
        return send_request(socket_fd, message, fds, fd_count, flags);
    return send_reply(socket_fd, message, fds, fd_count, flags);
}

/* --- Receiving -------------------------------------------------------------------------------- */

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
        record = (struct msghdr){.msg_iov = &content,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        out->size_bytes =
            recvmsg(socket_fd, &record,
                    MSG_CMSG_CLOEXEC | (flags & LKI_CHANNEL_NO_WAIT ? MSG_DONTWAIT : 0));
        /* ECONNRESET: the peer went and left something unread. That is told once, before the
         * records that it sent last; the reason why it went may be among them. */
    } while (out->size_bytes < 0 && (errno == EINTR || errno == ECONNRESET));
    out->fd_count = 0;
    if (out->size_bytes < 0) {
        out->size_bytes = -errno;
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

/* --- Addresses -------------------------------------------------------------------------------- */

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
