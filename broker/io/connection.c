/* SPDX-License-Identifier: MIT */
#include "broker/io/connection_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/io/hostile_fd.h"
#include "broker/io/link.h"
#include "broker/io/log.h"
#include "broker/io/one_way.h"
#include "broker/io/proc.h"
#include "broker/io/unread.h"
#include "common/assert.h"
#include "common/clock.h"
#include "common/fd.h"

#define RECORDS_PER_TURN 16 /* then the others get theirs */

static void on_ready(uv_poll_t *handle, int status, int events);

/* --- Lifecycle --- */

static void on_closed(uv_handle_t *handle)
{
    struct lkd_connection *connection = handle->data;
    free(connection);
}

void lkd_connection_close(struct lkd_connection *connection)
{
    struct lkd_daemon *daemon = connection->daemon;
    if (connection->closing)
        return;
    connection->closing = true;
    lki_list_remove(&connection->node);
    LKI_ASSERT(daemon->connection_count > 0);
    daemon->connection_count--;
    lkd_link_cut(daemon, connection->peer.session);
    lkd_outgoing_deinit(connection);
    int offered = lki_steal_fd(&connection->offer_fd);
    if (offered >= 0)
        lkd_hostile_close(daemon, &offered, 1);
    if (connection->watches_reads)
        lkd_unread_forget(daemon, connection->fd);
    /* libuv must have let go of the descriptor before it is closed: uv_close() does so at once. */
    uv_close((uv_handle_t *)&connection->handle, on_closed);
    lkd_hostile_close_socket(daemon, lki_steal_fd(&connection->fd), NULL);
    lkd_daemon_note_use(daemon);
}

void lkd_connection_lose(struct lkd_connection *connection, const char *reason)
{
    uint64_t session = connection->peer.session;
    struct lkd_daemon *daemon = connection->daemon;
    uint32_t records_left = LKD_LAST_RECORDS_MAX;
    if (reason == NULL)
        lkd_connection_hear_last(connection, &records_left);
    /* A process that lives on without its connection has executed another program, as `lockkeeper
     * run` does to keep its locks: people know it by that name. The kernel closes the socket behind
     * the renaming, so the new name is there. */
    char command[32];
    lkd_proc_command(connection->peer.pid, command, sizeof(command));
    if (command[0] != '\0')
        lkd_core_session_renamed(daemon->core, session, command);
    if (reason != NULL)
        lkd_core_session_dropped(daemon->core, session, reason, lki_clock_now_ns());
    else
        lkd_core_session_lost(daemon->core, session, lki_clock_now_ns());
    /* Not before the ledger says so: a helper closes the descriptor, at once, and a successor would
     * look for it by its number, which may be something else's by then. */
    lkd_connection_close(connection);
}

void lkd_connection_hear_last(struct lkd_connection *connection, uint32_t *records_left)
{
    if (connection->may_release > 0)
        lkd_one_way_hear_last(connection->daemon, connection->peer.session, connection->fd,
                              records_left);
}

bool lkd_connection_may_have_released(const struct lkd_connection *connection)
{
    return connection->may_release > 0 && lkd_one_way_has_unread(connection->fd);
}

void lkd_connection_log(const struct lkd_connection *connection, enum lkd_log_level level,
                        const char *reason)
{
    lkd_log_line(level, "dropped pid %d (uid %u): %s", connection->peer.pid, connection->peer.uid,
                 reason);
}

void lkd_connection_drop(struct lkd_connection *connection, const char *reason)
{
    if (connection->closing)
        return;
    lkd_connection_log(connection, LKD_LOG_WARNING, reason);
    lkd_connection_lose(connection, reason);
}

static int update_read_watch(struct lkd_connection *connection)
{
    bool wanted = lkd_outgoing_is_held_back(connection);
    if (wanted == connection->watches_reads)
        return 0;
    connection->watches_reads = wanted;
    if (!wanted) {
        lkd_unread_forget(connection->daemon, connection->fd);
        return 0;
    }
    int r = lkd_unread_watch(connection->daemon, connection->fd, connection);
    if (r < 0)
        connection->watches_reads = false;
    return r;
}

/* Watches for what is wanted now. Writability, nearly always there, only while something is queued. */
static int update_watch(struct lkd_connection *connection)
{
    if (connection->closing)
        return 0;
    int r = update_read_watch(connection);
    if (r < 0)
        return r;
    int events =
        (connection->in_offer ? 0 : UV_READABLE) |
        (lkd_outgoing_is_queued(connection) && !connection->watches_reads ? UV_WRITABLE : 0);
    if (events == connection->events)
        return 0;
    connection->events = events;
    return events == 0 ? uv_poll_stop(&connection->handle)
                       : uv_poll_start(&connection->handle, events, on_ready);
}

void lkd_connection_watch_or_drop(struct lkd_connection *connection)
{
    int r = update_watch(connection);
    if (r < 0)
        lkd_connection_drop(connection, uv_strerror(r));
}

int lkd_connection_open(struct lkd_daemon *daemon, int socket_fd,
                        const struct lkd_connection_peer *peer,
                        struct lkd_connection **out_connection)
{
    struct lkd_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    connection->daemon = daemon;
    connection->peer = *peer;
    connection->fd = socket_fd;
    connection->offer_fd = -1;
    lki_list_init(&connection->node);
    lki_list_init(&connection->outgoing);
    int r = uv_poll_init(&daemon->loop, &connection->handle, socket_fd);
    if (r < 0) {
        free(connection); /* no handle yet */
        return r;
    }
    connection->handle.data = connection;
    lki_list_append(&daemon->connections, &connection->node);
    daemon->connection_count++;
    lkd_daemon_note_use(daemon);
    *out_connection = connection;
    return 0;
}

/* --- Receiving --- */

void lkd_connection_end_offer(struct lkd_connection *connection)
{
    connection->in_offer = false;
    int offered = lki_steal_fd(&connection->offer_fd);
    if (offered >= 0)
        lkd_hostile_close(connection->daemon, &offered, 1);
    lkd_connection_watch_or_drop(connection);
}

/* The connection may be closed afterwards. False: it was not heard. What a record causes is carried out
 * before the next one is heard: should this worker die, its peer repeats what was not answered, and a
 * successor can tell a request that had its effect from a new one only if it was the last. */
static bool deliver(struct lkd_connection *connection, const struct lki_message *message,
                    const struct lkd_offer *offer)
{
    struct lkd_daemon *daemon = connection->daemon;
    daemon->records++;
    bool heard = lkd_core_message(daemon->core, connection->peer.session, message, offer,
                                  lki_clock_now_ns());
    lkd_daemon_settle(daemon);
    return heard;
}

static void on_examined(struct lkd_daemon *daemon, uint64_t session, int fd,
                        const struct lkd_offer *offer, const uint8_t *record, size_t record_bytes)
{
    struct lkd_connection *connection = lkd_link_connection(daemon, session);
    if (connection == NULL) { /* it did not wait for the answer */
        lkd_hostile_close(daemon, &fd, 1);
        return;
    }
    struct lki_message message;
    const char *reason;
    connection->offer_fd = fd;
    int r = lki_message_decode(&daemon->arena, record, record_bytes, LKI_DIRECTION_REQUEST,
                               &message, &reason);
    LKI_ASSERT(r == 0); /* it was encoded here from a message that had been decoded */
    bool heard = deliver(connection, &message, offer);
    /* No answer will come that would end the offer: it was sent to a worker that has died since, and
     * the RESUME behind it has to be read. */
    connection = lkd_link_connection(daemon, session);
    if (!heard && connection != NULL && !connection->closing && connection->in_offer)
        lkd_connection_end_offer(connection);
}

static void examine_offer(struct lkd_connection *connection, const struct lki_message *message,
                          int fd)
{
    struct lkd_daemon *daemon = connection->daemon;
    size_t size_bytes;
    int r = lki_message_encode(message, daemon->record, LKI_REQUEST_BYTES_MAX, &size_bytes);
    if (r < 0) {
        lkd_hostile_close(daemon, &fd, 1);
        lkd_connection_drop(connection, "a request with a file is too long");
        return;
    }
    /* What comes behind has to wait: requests are answered in their order. */
    connection->in_offer = true;
    connection->offer_request = message->id;
    r = lkd_hostile_examine(daemon, connection->peer.session, fd, daemon->record, size_bytes,
                            on_examined);
    if (r < 0)
        lkd_connection_drop(connection, "no memory to look at its file");
    else
        lkd_connection_watch_or_drop(connection);
}

static void receive_message(struct lkd_connection *connection, const struct lki_message *message,
                            const int *fds, size_t fd_count)
{
    struct lkd_daemon *daemon = connection->daemon;
    static const struct lkd_offer none;
    if (fd_count == 0) {
        (void)deliver(connection, message, &none);
        return;
    }
    bool expected = fd_count == 1 && message->type == LKI_REQUEST_OPEN && message->as.open.offered;
    if (expected && connection->peer.may_offer) {
        examine_offer(connection, message, fds[0]);
        return;
    }
    lkd_hostile_close(daemon, fds, fd_count);
    if (expected)
        (void)deliver(connection, message, &(struct lkd_offer){.present = true});
    else
        lkd_connection_drop(connection, "descriptors with a message that takes none");
}

/* The message is here, but its descriptors found no room in our table. The client can try again. */
static void refuse_for_fds(struct lkd_connection *connection, const struct lki_message *message)
{
    static const char why[] = LKD_NO_FILES_TEXT;
    struct lki_message reply = {
        .type = LKI_REPLY_RESULT,
        .id = message->id,
        .as.result = {.status = lki_status_from_result(-EMFILE),
                      .detail = {.data = (const uint8_t *)why, .length_bytes = sizeof(why) - 1}},
    };
    lkd_connection_send(connection, &reply, &(struct lkd_segment_fds){.count = 0});
}

/* Receives one record. False: nothing more for now. */
static bool receive_one(struct lkd_connection *connection)
{
    struct lkd_daemon *daemon = connection->daemon;
    struct lki_message message;
    int fds[LKI_CHANNEL_FDS_MAX];
    size_t fd_count;
    const char *reason = "";
    if (connection->may_release > 0) {
        enum lkd_one_way next = lkd_one_way_hear(daemon, connection->peer.session, connection->fd);
        connection->may_release -= next == LKD_ONE_WAY_HEARD;
        if (next != LKD_ONE_WAY_OTHER)
            return next == LKD_ONE_WAY_HEARD;
    }
    int r = lki_channel_receive(connection->fd, &daemon->arena, daemon->record,
                                LKI_DIRECTION_REQUEST, LKI_CHANNEL_NO_WAIT | LKI_CHANNEL_KEEP_FDS,
                                &message, fds, &fd_count, &reason);
    if (r == 1) {
        uint64_t session = connection->peer.session;
        bool first = connection->records < 2 && ++connection->records == 2;
        if (first)
            lkd_link_introduce(daemon, session);
        receive_message(connection, &message, fds, fd_count);
        if (first)
            lkd_link_watch(daemon, session);
        return true;
    }
    if (fd_count > 0)
        lkd_hostile_close(daemon, fds, fd_count);
    switch (r) {
    case -EAGAIN:
        return false;
    case 0:
        /* Most often the process is exiting, and its pidfd says so after this: then somebody may wait for
         * what it held, and what there is to do about the connection comes after that. */
        lkd_link_look(daemon, connection->peer.session);
        if (!connection->closing)
            lkd_connection_lose(connection, NULL);
        return false;
    case -EMFILE:
        refuse_for_fds(connection, &message);
        return true;
    case -EPROTO:
    case -EMSGSIZE:
        lkd_connection_drop(connection, reason);
        return false;
    default:
        lkd_connection_drop(connection, strerror(-r));
        return false;
    }
}

static void on_ready(uv_poll_t *handle, int status, int events)
{
    struct lkd_connection *connection = handle->data;
    struct lkd_daemon *daemon = connection->daemon;
    if (connection->closing)
        return;
    if (status < 0) {
        /* libuv stopped the watch and says EBADF for all; receiving tells the real error. */
        connection->events = 0;
        events = UV_READABLE;
    }
    if (events & UV_WRITABLE)
        lkd_outgoing_flush(connection);
    if (events & UV_READABLE) {
        for (int i = 0; i < RECORDS_PER_TURN && !connection->closing && !connection->in_offer; i++)
            if (!receive_one(connection))
                break;
    }
    if (!connection->closing)
        lkd_connection_watch_or_drop(connection);
    lkd_daemon_settle(daemon);
}

void lkd_connection_start(struct lkd_connection *connection)
{
    on_ready(&connection->handle, 0, UV_READABLE);
}

void lkd_connection_resume(struct lkd_connection *connection)
{
    connection->records = 2;                  /* its process is known */
    connection->may_release = UINT32_MAX / 2; /* nobody counts what the worker before has granted */
    lkd_connection_watch_or_drop(connection);
}

struct lkd_connection *lkd_connection_of(struct lki_list *node)
{
    return LKI_LIST_ENTRY(node, struct lkd_connection, node);
}

int lkd_connection_take_offer(struct lkd_connection *connection)
{
    return lki_steal_fd(&connection->offer_fd);
}
