/* SPDX-License-Identifier: MIT */
/* One connection as the client sees it: requests with rising ids out, replies in. Owns the socket. Knows nothing of segments and locks. One thread at
 * a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/spin.h"
#include "proto/arena.h"
#include "proto/channel.h"
#include "proto/message.h"

#define LKI_HELLO_ID 1 /* the first request of every connection */

/* Of the last record received. Large, and next to nothing of it is ever touched. All zero, or of a connection
 * before: what that has learned holds for the next one. */
struct lki_inbox {
    struct lki_spin spin; /* waiting for answers */
    struct lki_arena arena;
    uint8_t buffer[LKI_REPLY_BYTES_MAX];
};

struct lki_transport {
    int socket_fd; /* -1: none */
    bool lost;     /* the connection has ended or broke the rules; the socket stays until deinit */
    bool greeted;  /* the hello has been sent */
    bool heard;    /* something was answered */
    uint64_t last_id;
    struct lki_inbox *inbox; /* borrowed */
};

/* A message received, with its descriptors. What the message points to is valid until the next
 * receive. The descriptors belong to whoever has the record: taken one by one, the rest closed. */
struct lki_record {
    struct lki_message message;
    int fds[LKI_RECORD_FDS_MAX];
    size_t fd_count;
};

/* Consumes socket_fd, connected and blocking; -1 makes one that is lost from the beginning. */
void lki_transport_init(struct lki_transport *transport, int socket_fd, struct lki_inbox *inbox);
/* Closes the socket without a word. Twice is once. */
void lki_transport_deinit(struct lki_transport *transport);

/* Sends a request, after giving it the next id, the first one behind a hello; fd goes along unless
 * it is -1 (borrowed). Blocks while the socket's buffer is full. Returns 0; -ECONNRESET (also when
 * the connection was lost before), -EMSGSIZE, -EBADF, -ETOOMANYREFS, -ENOBUFS, -ENOMEM: nothing was
 * sent. */
int lki_transport_send(struct lki_transport *transport, struct lki_message *request, int fd);

/* Another worker of the broker goes on, and what was not answered has to be sent again, with its old
 * id: this says that it follows, and repeats the hello if nothing was ever answered. number: of that
 * worker, as RESUMED says. Returns 0 or as lki_transport_send(). */
int lki_transport_resume(struct lki_transport *transport, uint32_t number);

/* Sends a request again. Returns as lki_transport_send(). */
int lki_transport_repeat(struct lki_transport *transport, const struct lki_message *request,
                         int fd);

/* Sends a request if that is possible at once, and forgets it otherwise, which is what false means.
 * Never blocks, never fails: for paths that wake and release. */
bool lki_transport_send_hint(struct lki_transport *transport, struct lki_message *request);

/**
 * Receives one record.
 * @deadline_ns: when to give up; 0: do not wait; LKI_TIME_NEVER
 * Returns:      0
 * Errors:       -ETIMEDOUT; -ECONNRESET (ended), -EPROTO (broke the rules): lost from now on;
 * -EMFILE: the message is whole, but its descriptors found no place in our table; -ENOMEM
 */
int lki_transport_receive(struct lki_transport *transport, uint64_t deadline_ns,
                          struct lki_record *out_record);

/* Takes descriptor number i out of the record; -1 if there is none. */
int lki_record_take_fd(struct lki_record *record, size_t i);
/* Closes the descriptors that nobody took. */
void lki_record_deinit(struct lki_record *record);
