/* SPDX-License-Identifier: MIT */
#include "broker/io/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/io/hostile_fd.h"
#include "broker/io/link.h"
#include "broker/io/log.h"
#include "common/fd.h"

#define ACCEPTS_PER_TURN 16 /* then the sessions get theirs */
#define PAUSE_MS 100        /* when nothing can be accepted at all: look again then, do not spin */

static void on_listener(uv_poll_t *handle, int status, int events);

static int watch(struct lkd_daemon *daemon)
{
    return uv_poll_start(&daemon->listener, UV_READABLE, on_listener);
}

static void on_pause_over(uv_timer_t *timer)
{
    lkd_listener_resume(timer->data);
}

static void pause_accepting(struct lkd_daemon *daemon)
{
    (void)uv_poll_stop(&daemon->listener);
    (void)uv_timer_start(&daemon->listener_pause, on_pause_over, PAUSE_MS, 0);
}

static void take_spare(struct lkd_daemon *daemon)
{
    if (daemon->spare_fd < 0)
        daemon->spare_fd = fcntl(daemon->instance->listen_fd, F_DUPFD_CLOEXEC, 3);
}

void lkd_listener_resume(struct lkd_daemon *daemon)
{
    if (daemon->stopping)
        return;
    take_spare(daemon);
    (void)uv_timer_stop(&daemon->listener_pause);
    int r = watch(daemon);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot watch the listening socket: %s", uv_strerror(r));
        pause_accepting(daemon);
    }
}

/* Our table is full, and the connection that waits would wake us for ever. With the spare
 * descriptor it can be taken, told, and closed: the newest is refused, everybody else stays.
 * Closing is left to a helper, and until that is done nothing more is accepted. False: there was no
 * spare, or nothing to accept. */
static bool refuse_newest(struct lkd_daemon *daemon)
{
    if (daemon->spare_fd < 0)
        return false;
    daemon->spare_fd = lki_close(daemon->spare_fd);
    int fd = accept4(daemon->instance->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        take_spare(daemon);
        return false;
    }
    lkd_log_line(LKD_LOG_WARNING, "refused a connection: no descriptors left (RLIMIT_NOFILE)");
    (void)uv_poll_stop(&daemon->listener);
    lkd_link_refuse(daemon, fd, -EMFILE, LKD_NO_FILES_TEXT, lkd_listener_resume);
    return true;
}

static void on_listener(uv_poll_t *handle, int status, int events)
{
    struct lkd_daemon *daemon = handle->data;
    (void)status; /* accept4() tells */
    (void)events;
    if (daemon->stopping)
        return;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(daemon->instance->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_spare(daemon); /* if there was no room for it before */
            lkd_link_accept(daemon, fd);
            continue;
        }
        switch (errno) {
        case EAGAIN:
            return;
        case EINTR:
        case ECONNABORTED:
            continue;
        case EMFILE:
        case ENFILE:
            if (lkd_link_make_room(daemon) || !refuse_newest(daemon))
                pause_accepting(daemon);
            return;
        default:
            lkd_log_line(LKD_LOG_WARNING, "cannot accept a connection: %s", strerror(errno));
            pause_accepting(daemon);
            return;
        }
    }
}

int lkd_listener_start(struct lkd_daemon *daemon)
{
    int r = uv_poll_init(&daemon->loop, &daemon->listener, daemon->instance->listen_fd);
    if (r < 0)
        return r;
    daemon->listener.data = daemon;
    daemon->listener_open = true;
    lkd_peer_forbid_fds(daemon->instance->listen_fd); /* accepted sockets inherit it */
    take_spare(daemon);
    return watch(daemon);
}

void lkd_listener_close(struct lkd_daemon *daemon)
{
    daemon->spare_fd = lki_close(daemon->spare_fd);
    if (!daemon->listener_open)
        return;
    daemon->listener_open = false;
    uv_close((uv_handle_t *)&daemon->listener, NULL);
}
