/* SPDX-License-Identifier: MIT */
#include "broker/io/unread.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "broker/io/connection.h"
#include "broker/io/daemon.h"
#include "common/assert.h"
#include "common/fd.h"

#define EVENTS_PER_TURN 64 /* then the others get theirs */

/* The kernel counts an unread record with its own overhead, several hundred bytes. While it wakes
 * us for one that was received, one byte of that may be counted still, and nothing would wake us
 * again.
 */
#define RECORD_BYTES_MIN 256

bool lkd_unread_is_empty(int socket_fd)
{
    int unread_bytes = 0;
    return ioctl(socket_fd, SIOCOUTQ, &unread_bytes) == 0 && unread_bytes < RECORD_BYTES_MIN;
}

static void on_read(uv_poll_t *handle, int status, int events)
{
    struct lkd_daemon *daemon = handle->data;
    (void)status;
    (void)events;
    for (int i = 0; i < EVENTS_PER_TURN; i++) {
        struct epoll_event event;
        /* One by one: what is done about it may close the connection of the next. */
        if (epoll_wait(daemon->unread_fd, &event, 1, 0) != 1)
            break;
        lkd_connection_was_read(event.data.ptr);
    }
    lkd_daemon_settle(daemon);
}

int lkd_unread_open(struct lkd_daemon *daemon)
{
    daemon->unread_fd = epoll_create1(EPOLL_CLOEXEC);
    if (daemon->unread_fd < 0)
        return -errno;
    int r = uv_poll_init(&daemon->loop, &daemon->unread, daemon->unread_fd);
    if (r < 0)
        return r;
    daemon->unread_open = true;
    daemon->unread.data = daemon;
    return uv_poll_start(&daemon->unread, UV_READABLE, on_read);
}

void lkd_unread_close(struct lkd_daemon *daemon)
{
    if (daemon->unread_open)
        uv_close((uv_handle_t *)&daemon->unread, NULL);
    daemon->unread_open = false;
}

int lkd_unread_watch(struct lkd_daemon *daemon, int socket_fd, struct lkd_connection *connection)
{
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET, .data.ptr = connection};
    return epoll_ctl(daemon->unread_fd, EPOLL_CTL_ADD, socket_fd, &event) < 0 ? -errno : 0;
}

void lkd_unread_forget(struct lkd_daemon *daemon, int socket_fd)
{
    int r = epoll_ctl(daemon->unread_fd, EPOLL_CTL_DEL, socket_fd, NULL);
    LKI_ASSERT(r == 0); /* it is in there, and open */
}
