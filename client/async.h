/* SPDX-License-Identifier: MIT */
/* Asynchronous acquires: the broker waits, lk_session_dispatch() calls back. One per lock handle,
 * inside it, so that no answer needs memory. Also what lk_session_fd() gives. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

#include "common/list.h"
#include "proto/message.h"

struct lk_session;

struct lki_async {
    struct lki_list node; /* in the session's pending or answered; else alone */
    bool answered;
    uint64_t request; /* id of the ACQUIRE; 0: none under way */
    uint32_t mode;
    uint64_t deadline_ns;
    int result;
    lk_acquired_fn acquired;
    void *user;
};

/* A record that is not the reply of the synchronous call that received it. Anything that is not the
 * answer to a pending acquire is an answer that nobody waits for any more, and is dropped. */
void lki_async_answer(struct lk_session *session, const struct lki_message *message);

/* Sends every acquire that was not answered again, oldest first. Returns as lki_transport_send(). */
int lki_async_repeat(struct lk_session *session);

/* The lock's handle ends (its segment is closed): a pending acquire is answered with -ECANCELED. */
void lki_async_end(struct lk_session *session, struct lki_async *async);

/* The session ends: forgets everything, calls nobody, closes the descriptor. */
void lki_async_deinit(struct lk_session *session);
