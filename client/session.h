/* SPDX-License-Identifier: MIT */
/* A session inside the library: its connection, what was opened through it, and whether it is still
 * the process that opened it. The calls of the public header that take a session and are about the
 * connection are in session.c; asynchronous ones in async.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

#include "client/transport.h"
#include "client/view.h"
#include "common/list.h"

struct lk_session {
    struct own_memory *own_memory; /* wiped by the kernel in a forked child */
    /* 1 while usable. In own_memory, so that one load tells a handle whether it was inherited. */
    uint32_t *alive;
    struct lki_views views; /* the first ones lie in own_memory too */
    /* struct lk_lock: those that the fast paths may take. None while an asynchronous acquire is pending, since
     * who waits for one lock and takes another may close a ring. */
    struct lki_list open_locks;
    struct lki_transport transport;
    bool may_reconnect;  /* nothing was answered yet, and lk_session_open() made the connection */
    uint32_t open_flags; /* LK_NO_AUTOSTART */
    int refused;         /* -errno of a refused hello, with refused_detail; 0: not refused */
    char refused_detail[160];
    char path[LKI_SOCKET_PATH_BYTES_MAX + 1]; /* for texts */
    /* struct lk_segment: attached, and closed. Closed ones keep their memory, and that of their
     * locks, until the session is closed, so that a stale handle answers -ESTALE. */
    struct lki_list segments;
    struct lki_list closed_segments;
    /* struct lki_async: sent, and answered with the callback still to come. */
    struct lki_list pending;
    struct lki_list answered;
    int event_fd; /* what lk_session_fd() gives; -1 until asked */
};

/* Whether a session that is closed leaves its memory for the next one: always, but where tests have several
 * processes in one. */
extern bool lki_session_leaves_memory;

/* A session over a connected socket, which is consumed (on failure too), and -1 for none. Says
 * hello. Returns 0, -ENOMEM, or what kept the hello from being sent. */
int lki_session_new(int socket_fd, const char *path, struct lk_session **out);

/* 0, -EINVAL (NULL) or -ESTALE (inherited by fork), with text: "cannot VERB: ...". */
int lki_session_check(const struct lk_session *session, const char *verb);

/**
 * Sends a request and receives until its reply is there; grants that arrive meanwhile are put aside
 * for lk_session_dispatch().
 * @fd:          goes along, borrowed; -1: none
 * @deadline_ns: give up then (the reply is ignored when it comes); LKI_TIME_NEVER
 * @out_reply:   on success and -EMFILE; lki_record_deinit() it. Valid until the next call
 * Returns:      0
 * Errors:       -ECONNRESET, -EPROTO, -EMFILE (the reply came, its descriptors did not),
 * -ETIMEDOUT, -ENOMEM, or the refusal of the hello. No text is made.
 */
int lki_session_call(struct lk_session *session, struct lki_message *request, int fd,
                     uint64_t deadline_ns, struct lki_record *out_reply);

/* The same for a question that can wait: if it cannot be sent at once it is not sent, and counts as
 * not answered (-ETIMEDOUT). Never begins a connection. */
int lki_session_ask(struct lk_session *session, struct lki_message *request, uint64_t deadline_ns,
                    struct lki_record *out_reply);

/* A record that is not the reply of a call: a refused hello, or for async.c. Returns the refusal,
 * or 0. */
int lki_session_unasked(struct lk_session *session, const struct lki_message *message);

/* For a call that failed: makes the text "cannot WHAT: why (ENAME); next step". WHAT is what was
 * tried. Returns result. */
int lki_session_fail(const struct lk_session *session, int result, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* The result that a reply carries: 0 or positive as it is; a refusal as -errno, with the text
 * "cannot WHAT: the broker's words". -EPROTO for a reply that is no RESULT. */
int lki_session_result(const struct lk_session *session, const struct lki_message *reply,
                       const char *format, ...) __attribute__((format(printf, 3, 4)));
