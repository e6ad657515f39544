/* SPDX-License-Identifier: MIT */
/* Records and descriptors over a SOCK_SEQPACKET socket: one record is one message with the
 * descriptors that belong to it. Owns nothing: sockets, buffers and arenas are the caller's.
 * Thread-safe as the system calls are; a buffer and an arena serve one thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "proto/codec.h"

enum lki_channel_flags {
    LKI_CHANNEL_WAIT = 0,
    LKI_CHANNEL_NO_WAIT = 1 << 0,  /* -EAGAIN instead of blocking */
    LKI_CHANNEL_KEEP_FDS = 1 << 1, /* receive: those of refused records are handed over too */
    /* receive: the record stays where it is. One with descriptors is -EMFILE then, and gives out none. */
    LKI_CHANNEL_PEEK = 1 << 2,
};

/* The most descriptors that the kernel delivers with one record (its SCM_MAX_FD). */
#define LKI_CHANNEL_FDS_MAX 253u

/**
 * Sends a message.
 * @fds:    borrowed: the peer gets duplicates. May be NULL when fd_count is 0
 * Returns: 0
 * Errors:  -EAGAIN (would block); -ECONNRESET (the peer is gone); -EACCES (the peer takes no
 *          descriptors); -EMSGSIZE and -EINVAL (as of
 *          lki_message_encode(), or more than LKI_RECORD_FDS_MAX descriptors); -ETOOMANYREFS (our
 *          user has too many descriptors under way); any other errno of sendmsg(2). Nothing was
 *          sent.
 * Signals: no SIGPIPE. Interruptions are handled inside.
 */
int lki_channel_send(int socket_fd, const struct lki_message *message, const int *fds,
                     size_t fd_count, enum lki_channel_flags flags);

/**
 * Sends two requests in one flight, so that the peer is woken once; the descriptors go with the
 * second.
 * Returns: how many were sent, 1 or 2; after 1, lki_channel_send() of the second tells why.
 * Errors:  as of lki_channel_send(): nothing was sent.
 */
int lki_channel_send_both(int socket_fd, const struct lki_message *first,
                          const struct lki_message *second, const int *fds, size_t fd_count,
                          enum lki_channel_flags flags);

/* The same for a record that lki_message_encode() made earlier: for replies that had to wait. */
int lki_channel_send_record(int socket_fd, const uint8_t *bytes, size_t size_bytes, const int *fds,
                            size_t fd_count, enum lki_channel_flags flags);

/**
 * Receives one message.
 *
 * The descriptors that come along are close-on-exec and the caller's to close. Closing one from a
 * peer that is not trusted can block for seconds (a lingering TCP socket, for instance); so can
 * fstat() on it, and so can closing a socket with such descriptors unread. An event loop leaves all
 * that to a helper thread and passes LKI_CHANNEL_KEEP_FDS: then it is handed the descriptors of
 * refused records too, which are otherwise closed here.
 *
 * @arena:        reset first; *out points into it
 * @buffer:       lki_record_bytes_max(direction) bytes, used during the call only
 * @out_fds:      room for LKI_RECORD_FDS_MAX; with LKI_CHANNEL_KEEP_FDS for LKI_CHANNEL_FDS_MAX
 * @out_fd_count: always written; not 0 on failure only with LKI_CHANNEL_KEEP_FDS
 * @out_reason:   why, in words without a final stop; static. Written for the errors named here
 * Returns:       1: *out has a message; 0: the connection has ended
 * Errors:        -EPROTO, -EMSGSIZE: the peer broke the protocol, drop it
 *                -EMFILE: descriptors were lost, since our own table is full. *out has the message,
 *                so that its receiver can say what failed
 *                -EAGAIN: nothing there, with LKI_CHANNEL_NO_WAIT
 *                -ENOMEM: the record is lost; -ENOBUFS: it is still there
 *                any other errno of recvmsg(2)
 */
int lki_channel_receive(int socket_fd, struct lki_arena *arena, uint8_t *buffer,
                        enum lki_direction direction, enum lki_channel_flags flags,
                        struct lki_message *out, int *out_fds, size_t *out_fd_count,
                        const char **out_reason);

/* Takes out the record that a LKI_CHANNEL_PEEK has seen. */
void lki_channel_skip(int socket_fd);

/**
 * The address of a socket path.
 * Errors: -EINVAL (NULL or empty), -ENAMETOOLONG (longer than LKI_SOCKET_PATH_BYTES_MAX: never cut)
 */
int lki_socket_address(const char *path, struct sockaddr_un *out_address,
                       socklen_t *out_length_bytes);
