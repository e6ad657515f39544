/* SPDX-License-Identifier: MIT */
#include "broker/io/hostile_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/assert.h"
#include "common/fd.h"

/* Closes the descriptors of one record; true if there may be more records. */
static bool discard_record(int socket_fd)
{
    char byte;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    union {
        char bytes[CMSG_SPACE(LKI_CHANNEL_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {
        .msg_iov = &io,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t length = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0)
        return errno == EINTR;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            (void)lki_close(fd);
        }
    }
    /* A zero-length record reads like the end; what lies behind it goes with the socket. */
    return length > 0;
}

/* --- Closing descriptors --- */

struct close_job {
    uv_work_t work;
    struct lkd_daemon *daemon;
    lkd_hostile_closed_fn closed;
    int socket_fd; /* -1: none */
    size_t count;
    int fds[];
};

static void close_all(uv_work_t *work)
{
    struct close_job *job = LKI_CONTAINER_OF(work, struct close_job, work);
    for (size_t i = 0; i < job->count; i++)
        (void)lki_close(job->fds[i]);
    if (job->socket_fd >= 0) {
        while (discard_record(job->socket_fd))
            continue;
        (void)lki_close(job->socket_fd);
    }
}

static void after_close_all(uv_work_t *work, int status)
{
    (void)status;
    struct close_job *job = LKI_CONTAINER_OF(work, struct close_job, work);
    struct lkd_daemon *daemon = job->daemon;
    lkd_hostile_closed_fn closed = job->closed;
    free(job);
    daemon->works--;
    if (closed != NULL)
        closed(daemon);
}

static void start_close(struct lkd_daemon *daemon, const int *fds, size_t count, int socket_fd,
                        lkd_hostile_closed_fn closed)
{
    struct close_job *job = malloc(sizeof(*job) + count * sizeof(int));
    if (job == NULL) {
        for (size_t i = 0; i < count; i++)
            (void)lki_close(fds[i]);
        (void)lki_close(socket_fd);
        if (closed != NULL)
            closed(daemon);
        return;
    }
    *job = (struct close_job){
        .daemon = daemon, .closed = closed, .socket_fd = socket_fd, .count = count};
    if (count > 0)
        memcpy(job->fds, fds, count * sizeof(int));
    daemon->works++;
    int r = uv_queue_work(&daemon->loop, &job->work, close_all, after_close_all);
    LKI_ASSERT(r == 0); /* fails without a work callback alone */
}

void lkd_hostile_close(struct lkd_daemon *daemon, const int *fds, size_t count)
{
    if (count > 0)
        start_close(daemon, fds, count, -1, NULL);
}

/* Whether nothing lies in a socket that has been shut down, so that nothing can block who closes it. A
 * record without bytes reads like the end; but with SO_PASSCRED each record comes with its sender's
 * credentials, for which there is no room here, and the end has none. */
static bool holds_nothing(int socket_fd)
{
    const int on = 1;
    char byte;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    return setsockopt(socket_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0 &&
           recvmsg(socket_fd, &message, MSG_PEEK | MSG_DONTWAIT) == 0 &&
           (message.msg_flags & MSG_CTRUNC) == 0;
}

void lkd_hostile_close_socket(struct lkd_daemon *daemon, int socket_fd,
                              lkd_hostile_closed_fn closed)
{
    /* From here on the peer cannot add to what is read away. */
    (void)shutdown(socket_fd, SHUT_RDWR);
    if (!holds_nothing(socket_fd)) {
        start_close(daemon, NULL, 0, socket_fd, closed);
        return;
    }
    /* As nearly always: a helper would cost two switches. */
    (void)lki_close(socket_fd);
    if (closed != NULL)
        closed(daemon);
}

/* --- Examining one --- */

struct examine_job {
    uv_work_t work;
    struct lkd_daemon *daemon;
    uint64_t session;
    int fd;
    struct lkd_offer offer;
    lkd_hostile_examined_fn examined;
    size_t record_bytes;
    uint8_t record[];
};

static void examine(uv_work_t *work)
{
    struct examine_job *job = LKI_CONTAINER_OF(work, struct examine_job, work);
    struct stat status;
    int flags = fcntl(job->fd, F_GETFL);
    job->offer.present = true;
    if (flags < 0 || (flags & O_PATH) || fstat(job->fd, &status) < 0)
        return;
    job->offer.device = (uint64_t)status.st_dev;
    job->offer.inode = (uint64_t)status.st_ino;
    job->offer.size_bytes = (uint64_t)status.st_size;
    job->offer.usable = S_ISREG(status.st_mode) && (flags & O_ACCMODE) == O_RDWR;
}

static void after_examine(uv_work_t *work, int status)
{
    (void)status;
    struct examine_job *job = LKI_CONTAINER_OF(work, struct examine_job, work);
    job->daemon->works--;
    job->examined(job->daemon, job->session, job->fd, &job->offer, job->record, job->record_bytes);
    free(job);
}

int lkd_hostile_examine(struct lkd_daemon *daemon, uint64_t session, int fd, const uint8_t *record,
                        size_t record_bytes, lkd_hostile_examined_fn examined)
{
    struct examine_job *job = malloc(sizeof(*job) + record_bytes);
    if (job == NULL) {
        (void)lki_close(fd);
        return -ENOMEM;
    }
    *job = (struct examine_job){.daemon = daemon,
                                .session = session,
                                .fd = fd,
                                .examined = examined,
                                .record_bytes = record_bytes};
    memcpy(job->record, record, record_bytes);
    daemon->works++;
    int r = uv_queue_work(&daemon->loop, &job->work, examine, after_examine);
    LKI_ASSERT(r == 0);
    return 0;
}
