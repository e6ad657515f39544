/* SPDX-License-Identifier: MIT */
#include "tests/hostile/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "engine/layout.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define PATIENCE_S 10

int hostile_connect(const char *socket_path)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    test_check(lki_socket_address(socket_path, &address, &length_bytes) == 0, "%s", socket_path);
    LKI_CLEANUP(lki_close_p) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        connect(fd, (struct sockaddr *)&address, length_bytes) < 0)
        return -errno;
    return lki_steal_fd(&fd);
}

int hostile_greet(const char *socket_path)
{
    struct lki_message hello = hostile_hello();
    int fd = hostile_connect(socket_path);
    test_check(fd >= 0, "cannot connect: %s", strerror(-fd));
    int r = hostile_send(fd, &hello);
    test_check(r == 0, "cannot say hello: %s", strerror(-r));
    return fd;
}

ssize_t hostile_send_bytes(int fd, const void *bytes, size_t size_bytes, const int *fds,
                           size_t count)
{
    struct iovec io = {.iov_base = (void *)bytes, .iov_len = size_bytes};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    union {
        char bytes[CMSG_SPACE(LKI_CHANNEL_FDS_MAX * sizeof(int))];
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
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

int hostile_send(int fd, const struct lki_message *request)
{
    return lki_channel_send(fd, request, NULL, 0, LKI_CHANNEL_WAIT);
}

int hostile_receive(int fd, struct hostile_reply *out_reply)
{
    static struct lki_arena arena;
    static uint8_t buffer[LKI_REPLY_BYTES_MAX];
    const char *reason = "";
    out_reply->fd_count = 0;
    return lki_channel_receive(fd, &arena, buffer, LKI_DIRECTION_REPLY, LKI_CHANNEL_WAIT,
                               &out_reply->message, out_reply->fds, &out_reply->fd_count, &reason);
}

void hostile_reply_close(struct hostile_reply *reply)
{
    for (size_t i = 0; i < reply->fd_count; i++)
        reply->fds[i] = lki_close(reply->fds[i]);
    reply->fd_count = 0;
}

int hostile_call(int fd, const struct lki_message *request, struct hostile_reply *out_reply)
{
    int r = hostile_send(fd, request);
    out_reply->fd_count = 0;
    if (r < 0)
        return r;
    for (;;) {
        r = hostile_receive(fd, out_reply);
        if (r != 1)
            return r == 0 ? -ECONNRESET : r;
        if (out_reply->message.id == request->id)
            break;
        if (out_reply->message.type == LKI_REPLY_RESUMED) { /* another worker goes on */
            const struct lki_message resume = {
                .type = LKI_REQUEST_RESUME,
                .as.resume.number = out_reply->message.as.resumed.number,
            };
            if (hostile_send(fd, &resume) < 0 || hostile_send(fd, request) < 0)
                return -ECONNRESET;
        }
        hostile_reply_close(out_reply);
    }
    return out_reply->message.type == LKI_REPLY_RESULT ? (int)out_reply->message.as.result.status
                                                       : (int)LKI_STATUS_OK;
}

bool hostile_is_dropped(int fd)
{
    static char record[LKI_REPLY_BYTES_MAX];
    ssize_t length;
    while ((length = recv(fd, record, sizeof(record), 0)) > 0)
        continue;
    return length == 0 || errno == ECONNRESET;
}

struct lki_message hostile_hello(void)
{
    return (struct lki_message){
        .type = LKI_REQUEST_HELLO,
        .id = 1,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                     .protocol_minor = LKI_PROTOCOL_MINOR,
                     .layout_major = LKI_LAYOUT_MAJOR},
    };
}

struct lki_message hostile_open(uint64_t id, const char *name, uint32_t flags, uint64_t size_bytes)
{
    return (struct lki_message){
        .type = LKI_REQUEST_OPEN,
        .id = id,
        .as.open = {.name = {.data = (const uint8_t *)name, .length_bytes = strlen(name)},
                    .flags = flags,
                    .size_bytes = size_bytes},
    };
}

struct lki_message hostile_list(uint64_t id, uint32_t what)
{
    return (struct lki_message){.type = LKI_REQUEST_LIST, .id = id, .as.list = {.what = what}};
}

struct lki_message hostile_acquire(uint64_t id, uint32_t segment, uint32_t lock,
                                   uint64_t deadline_ns)
{
    return (struct lki_message){
        .type = LKI_REQUEST_ACQUIRE,
        .id = id,
        .as.acquire = {.segment = segment,
                       .lock = lock,
                       .mode = LK_EXCLUSIVE,
                       .deadline_ns = deadline_ns},
    };
}

uint32_t hostile_open_segment(int fd, const struct lki_message *request)
{
    struct hostile_reply reply;
    int r = hostile_call(fd, request, &reply);
    test_check(r == (int)LKI_STATUS_OK && reply.message.type == LKI_REPLY_OPENED,
               "open is answered by %d: %.*s", r,
               r > 0 ? (int)reply.message.as.result.detail.length_bytes : 0,
               r > 0 ? (const char *)reply.message.as.result.detail.data : "");
    hostile_reply_close(&reply);
    return reply.message.as.opened.segment;
}
