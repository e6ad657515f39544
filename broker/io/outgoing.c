/* SPDX-License-Identifier: MIT */
/* What is sent to a client, and what waits until it can be. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/io/connection_state.h"
#include "broker/io/unread.h"

/* Descriptors sent that the peer has not received yet count against our user's limit, and once it
 * is reached nobody gets any. So one record with descriptors is under way to a peer at a time; what
 * comes behind waits in our queue, where its descriptors fill our own table: so many are kept. */
#define FDS_UNREAD_MAX 64u

struct outgoing {
    struct lki_list node;
    struct lkd_segment_fds fds; /* owned */
    size_t size_bytes;
    uint8_t bytes[];
};

static void drop_outgoing(struct lkd_connection *connection, struct outgoing *outgoing)
{
    lki_list_remove(&outgoing->node);
    connection->outgoing_bytes -= outgoing->size_bytes;
    connection->fds_queued -= outgoing->fds.count;
    connection->daemon->fds_queued -= outgoing->fds.count;
    lkd_segment_fds_deinit(&outgoing->fds);
    free(outgoing);
}

void lkd_outgoing_deinit(struct lkd_connection *connection)
{
    LKI_LIST_FOREACH_SAFE (node, &connection->outgoing)
        drop_outgoing(connection, LKI_LIST_ENTRY(node, struct outgoing, node));
}

bool lkd_outgoing_is_queued(const struct lkd_connection *connection)
{
    return !lki_list_is_empty(&connection->outgoing);
}

bool lkd_outgoing_is_held_back(const struct lkd_connection *connection)
{
    const struct outgoing *first = LKI_LIST_ENTRY(connection->outgoing.next, struct outgoing, node);
    return lkd_outgoing_is_queued(connection) && first->fds.count > 0 &&
           connection->fds_under_way > 0;
}

/* What the peer has received is not under way any more. */
static void recount_fds(struct lkd_connection *connection)
{
    if (connection->fds_under_way > 0 && lkd_unread_is_empty(connection->fd))
        connection->fds_under_way = 0;
}

/* Our user has as many descriptors under way as it may: ends the connection that reads least. False
 * if there is none to blame. */
static bool drop_worst_reader(struct lkd_connection *other_than)
{
    struct lkd_connection *worst = NULL;
    LKI_LIST_FOREACH_SAFE (node, &other_than->daemon->connections) {
        struct lkd_connection *candidate = LKI_LIST_ENTRY(node, struct lkd_connection, node);
        if (candidate == other_than || candidate->fds_under_way == 0)
            continue;
        recount_fds(candidate);
        if (candidate->fds_under_way > (worst != NULL ? worst->fds_under_way : 0))
            worst = candidate;
    }
    if (worst == NULL)
        return false;
    lkd_connection_drop(worst, "it does not receive its descriptors, and others need theirs");
    return true;
}

static int send_now(struct lkd_connection *connection, const uint8_t *bytes, size_t size_bytes,
                    const struct lkd_segment_fds *fds)
{
    int r;
    do {
        r = lki_channel_send_record(connection->fd, bytes, size_bytes, fds->fds, fds->count,
                                    LKI_CHANNEL_NO_WAIT);
    } while (r == -ETOOMANYREFS && drop_worst_reader(connection));
    if (r == 0)
        connection->fds_under_way += fds->count;
    return r;
}

/* The queues of all together fill too much of our table: ends the one with the most descriptors. */
static void drop_longest_fd_queue(struct lkd_daemon *daemon)
{
    struct lkd_connection *longest = NULL;
    LKI_LIST_FOREACH_SAFE (node, &daemon->connections) {
        struct lkd_connection *candidate = LKI_LIST_ENTRY(node, struct lkd_connection, node);
        if (longest == NULL || candidate->fds_queued > longest->fds_queued)
            longest = candidate;
    }
    lkd_connection_drop(longest, "too many descriptors wait for clients, most of them for it");
}

/* A record cannot be sent. Whoever is only told that another worker goes on has asked for nothing that
 * could fail: want of memory is this worker's alone then, and the next one tries. */
static void fail_send(struct lkd_connection *connection, int result, const char *reason)
{
    if (connection->daemon->taking_over && (result == -ENOMEM || result == -ENOBUFS))
        connection->daemon->takeover_result = result;
    else
        lkd_connection_drop(connection, reason);
}

/* Keeps a record until the socket takes it. Takes over fds. */
static void enqueue(struct lkd_connection *connection, const uint8_t *bytes, size_t size_bytes,
                    struct lkd_segment_fds *fds)
{
    if (connection->outgoing_bytes + size_bytes > LKI_SEND_QUEUE_BYTES_MAX) {
        lkd_connection_drop(connection, "it does not read its replies");
        return;
    }
    if (connection->fds_under_way + connection->fds_queued + fds->count > FDS_UNREAD_MAX) {
        lkd_connection_drop(connection, "it does not receive the descriptors that it asked for");
        return;
    }
    struct outgoing *outgoing = malloc(sizeof(*outgoing) + size_bytes);
    if (outgoing == NULL) {
        fail_send(connection, -ENOMEM, "no memory to queue a reply");
        return;
    }
    int r = lkd_segment_fds_own(fds);
    if (r < 0) {
        free(outgoing);
        lkd_connection_drop(connection, "no descriptors left to queue a reply");
        return;
    }
    outgoing->fds = *fds;
    *fds = (struct lkd_segment_fds){.count = 0};
    outgoing->size_bytes = size_bytes;
    memcpy(outgoing->bytes, bytes, size_bytes);
    lki_list_append(&connection->outgoing, &outgoing->node);
    connection->outgoing_bytes += size_bytes;
    connection->fds_queued += outgoing->fds.count;
    connection->daemon->fds_queued += outgoing->fds.count;
    if (connection->daemon->fds_queued > connection->daemon->fds_queued_max)
        drop_longest_fd_queue(connection->daemon);
    lkd_connection_watch_or_drop(connection);
}

static void send_record(struct lkd_connection *connection, const uint8_t *bytes, size_t size_bytes,
                        struct lkd_segment_fds *fds)
{
    if (fds->count > 0)
        recount_fds(connection);
    bool waits =
        lkd_outgoing_is_queued(connection) || (fds->count > 0 && connection->fds_under_way > 0);
    int r = waits ? -EAGAIN : send_now(connection, bytes, size_bytes, fds);
    if (r == -EAGAIN)
        enqueue(connection, bytes, size_bytes, fds);
    else if (r == -ECONNRESET)
        lkd_connection_lose(connection, NULL); /* it ended meanwhile: nothing worth a line */
    else if (r < 0)
        fail_send(connection, r, strerror(-r));
}

void lkd_connection_send(struct lkd_connection *connection, const struct lki_message *message,
                         struct lkd_segment_fds *fds)
{
    if (connection->closing)
        return;
    uint8_t *buffer = connection->daemon->record;
    size_t size_bytes;
    int r = lki_message_encode(message, buffer, sizeof(connection->daemon->record), &size_bytes);
    if (r < 0) {
        lkd_connection_drop(connection, "a reply to it cannot be encoded");
        return;
    }
    if (message->type == LKI_REPLY_GRANTED && message->as.granted.one_way)
        connection->may_release++;
    send_record(connection, buffer, size_bytes, fds);
    if (!connection->closing && connection->in_offer && message->id == connection->offer_request)
        lkd_connection_end_offer(connection);
}

bool lkd_connection_send_event(struct lkd_connection *connection, const struct lki_message *message)
{
    static const struct lkd_segment_fds none;
    uint8_t *buffer = connection->daemon->record;
    size_t size_bytes;
    if (connection->closing)
        return true;
    if (lkd_outgoing_is_queued(connection)) /* the peer's answers first; nothing overtakes them */
        return false;
    if (lki_message_encode(message, buffer, sizeof(connection->daemon->record), &size_bytes) < 0)
        return false;
    int r = send_now(connection, buffer, size_bytes, &none);
    if (r == 0)
        return true;
    if (r == -ECONNRESET)
        lkd_connection_lose(connection, NULL);
    return r == -ECONNRESET;
}

void lkd_outgoing_flush(struct lkd_connection *connection)
{
    recount_fds(connection);
    while (!connection->closing && lkd_outgoing_is_queued(connection) &&
           !lkd_outgoing_is_held_back(connection)) {
        struct outgoing *first = LKI_LIST_ENTRY(connection->outgoing.next, struct outgoing, node);
        int r = send_now(connection, first->bytes, first->size_bytes, &first->fds);
        if (r == -EAGAIN)
            break;
        if (r < 0) {
            lkd_connection_lose(connection, NULL);
            return;
        }
        drop_outgoing(connection, first);
    }
    lkd_connection_watch_or_drop(connection);
}

void lkd_connection_was_read(struct lkd_connection *connection)
{
    lkd_outgoing_flush(connection);
}
