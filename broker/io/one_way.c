/* SPDX-License-Identifier: MIT */
#include "broker/io/one_way.h"

#include <errno.h>
#include <sys/socket.h>

#include "broker/io/hostile_fd.h"
#include "common/clock.h"

static const struct lkd_offer no_offer;

/* 1: *out is the next record, which stays where it is. */
static int peek(struct lkd_daemon *daemon, int socket_fd, struct lki_message *out)
{
    int none[LKI_RECORD_FDS_MAX];
    size_t none_count;
    const char *reason = "";
    return lki_channel_receive(socket_fd, &daemon->arena, daemon->record, LKI_DIRECTION_REQUEST,
                               LKI_CHANNEL_NO_WAIT | LKI_CHANNEL_PEEK, out, none, &none_count,
                               &reason);
}

static void hear(struct lkd_daemon *daemon, uint64_t session, int socket_fd,
                 const struct lki_message *message)
{
    daemon->records++;
    (void)lkd_core_message(daemon->core, session, message, &no_offer, lki_clock_now_ns());
    /* Before the effects, which may close the socket, or read from it. */
    lki_channel_skip(socket_fd);
}

static bool is_one_way(const struct lki_message *message)
{
    return message->type == LKI_REQUEST_RELEASE && message->as.hold_ref.one_way;
}

enum lkd_one_way lkd_one_way_hear(struct lkd_daemon *daemon, uint64_t session, int socket_fd)
{
    struct lki_message message;
    int r = peek(daemon, socket_fd, &message);
    if (r == -EAGAIN) {
        lkd_core_session_quiet(daemon->core, session);
        return LKD_ONE_WAY_NOTHING;
    }
    if (r != 1 || !is_one_way(&message))
        return LKD_ONE_WAY_OTHER;
    hear(daemon, session, socket_fd, &message);
    lkd_daemon_settle(daemon);
    return LKD_ONE_WAY_HEARD;
}

bool lkd_one_way_has_unread(int socket_fd)
{
    uint8_t byte;
    return recv(socket_fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

/* Takes the next record out of the socket, whatever it is. False: there is none. */
static bool drop_record(struct lkd_daemon *daemon, int socket_fd)
{
    struct lki_message message;
    int fds[LKI_CHANNEL_FDS_MAX];
    size_t fd_count;
    const char *reason = "";
    int r = lki_channel_receive(socket_fd, &daemon->arena, daemon->record, LKI_DIRECTION_REQUEST,
                                LKI_CHANNEL_NO_WAIT | LKI_CHANNEL_KEEP_FDS, &message, fds,
                                &fd_count, &reason);
    if (fd_count > 0)
        lkd_hostile_close(daemon, fds, fd_count);
    return r == 1 || r == -EMFILE;
}

void lkd_one_way_hear_last(struct lkd_daemon *daemon, uint64_t session, int socket_fd,
                           uint32_t *records_left)
{
    struct lki_message message;
    for (; *records_left > 0; --*records_left) {
        if (peek(daemon, socket_fd, &message) == 1 && is_one_way(&message))
            hear(daemon, session, socket_fd, &message);
        else if (!drop_record(daemon, socket_fd))
            break;
    }
}
