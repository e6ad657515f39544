/* SPDX-License-Identifier: MIT */
#include "client/async.h"

#include <errno.h>
#include <sys/epoll.h>

#include "client/brokered.h"
#include "client/error.h"
#include "client/lock.h"
#include "client/lock_text.h"
#include "client/session.h"
#include "common/clock.h"
#include "common/fd.h"

/* --- The descriptor --- */

/* It is readable while the socket is. An answer that a synchronous call took from the socket would
 * be missed by whoever polls: while there is one, we also wait for the socket to be writable, which
 * it is. */
static void update_event_fd(const struct lk_session *session)
{
    if (session->event_fd < 0)
        return;
    uint32_t events = EPOLLIN | (lki_list_is_empty(&session->answered) ? 0 : (uint32_t)EPOLLOUT);
    struct epoll_event event = {.events = events};
    (void)epoll_ctl(session->event_fd, EPOLL_CTL_MOD, session->transport.socket_fd, &event);
}

int lk_session_fd(struct lk_session *session)
{
    int r = lki_session_check(session, "give a descriptor");
    if (r < 0 || session->event_fd >= 0)
        return r < 0 ? r : session->event_fd;
    LKI_CLEANUP(lki_close_p) int fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (fd < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, session->transport.socket_fd, &event) < 0) {
        r = -errno;
        return lki_session_fail(session, r, "give a descriptor to poll");
    }
    session->event_fd = lki_steal_fd(&fd);
    update_event_fd(session);
    return session->event_fd;
}

/* --- Answers --- */

static struct lk_lock *lock_of(struct lki_async *async)
{
    return LKI_CONTAINER_OF(async, struct lk_lock, async);
}

static void shut_open_locks(struct lk_session *session)
{
    LKI_LIST_FOREACH_SAFE (node, &session->open_locks)
        lki_lock_set_view(LKI_LIST_ENTRY(node, struct lk_lock, of_open));
}

/* The wait is over; the callback is still to come. */
static void finish(struct lk_session *session, struct lki_async *async, int result)
{
    async->answered = true;
    async->result = result;
    lki_list_remove(&async->node);
    lki_list_append(&session->answered, &async->node);
    update_event_fd(session);
}

static void take_answer(struct lk_session *session, struct lki_async *async,
                        const struct lki_message *message)
{
    struct lk_lock *lock = lock_of(async);
    if (message->type == LKI_REPLY_GRANTED) {
        lock->held_id = message->as.granted.attachment;
        lock->held_mode = async->mode;
        lock->held_one_way = message->as.granted.one_way;
        bool died = message->as.granted.status == LKI_STATUS_OWNER_DIED;
        finish(session, async, died ? LK_ACQUIRED_OWNER_DIED : LK_ACQUIRED);
        return;
    }
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    int r = lki_session_result(session, message, "lock '%s'", label);
    finish(session, async, r < 0 ? r : -EPROTO);
}

void lki_async_answer(struct lk_session *session, const struct lki_message *message)
{
    LKI_LIST_FOREACH_SAFE (node, &session->pending) {
        struct lki_async *async = LKI_LIST_ENTRY(node, struct lki_async, node);
        if (async->request == message->id) {
            take_answer(session, async, message);
            return;
        }
    }
}

void lki_async_end(struct lk_session *session, struct lki_async *async)
{
    if (async->request == 0)
        return;
    if (!async->answered)
        finish(session, async, -ECANCELED);
    else if (async->result >= 0) /* granted, and handed on with the segment */
        async->result = -ECANCELED;
}

static void forget_all(struct lki_list *list)
{
    LKI_LIST_FOREACH_SAFE (node, list) {
        LKI_LIST_ENTRY(node, struct lki_async, node)->request = 0;
        lki_list_remove(node);
    }
}

void lki_async_deinit(struct lk_session *session)
{
    forget_all(&session->pending);
    forget_all(&session->answered);
    session->event_fd = lki_close(session->event_fd);
}

/* --- The request --- */

static struct lki_message request_for(const struct lk_lock *lock, uint32_t mode,
                                      uint64_t deadline_ns)
{
    return (struct lki_message){
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {.segment = lock->segment->number,
                       .lock = lock->index,
                       .mode = mode & ~(uint32_t)LK_TO_EXIT,
                       .to_exit = (mode & LK_TO_EXIT) != 0,
                       .asynchronous = true,
                       .deadline_ns = deadline_ns},
    };
}

int lki_async_repeat(struct lk_session *session)
{
    int r = 0;
    LKI_LIST_FOREACH_SAFE (node, &session->pending) {
        struct lki_async *async = LKI_LIST_ENTRY(node, struct lki_async, node);
        struct lki_message request = request_for(lock_of(async), async->mode, async->deadline_ns);
        request.id = async->request;
        if (r == 0)
            r = lki_transport_repeat(&session->transport, &request, -1);
    }
    return r;
}

/* --- The public calls --- */

static int check_acquire(struct lk_lock *lock, enum lk_mode mode, lk_acquired_fn acquired)
{
    int r = lki_lock_check(lock, "lock");
    if (r == 0)
        r = lki_segment_check_data(lock->segment, "lock");
    if (r < 0)
        return r;
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    if (!acquired || !lki_lock_mode_is_valid(mode))
        return lki_fail(-EINVAL, "cannot lock '%s': %s", label,
                        acquired ? "unknown mode" : "no callback");
    if (lock->async.request != 0)
        return lki_lock_fail_pending(lock);
    bool held = lock->held_id != 0 ||
                (!lock->segment->brokered && lki_lock_held_by(lock->party, lock->index) != 0);
    return held ? lki_lock_fail_nested(lock) : 0;
}

int lk_lock_acquire_async(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns,
                          lk_acquired_fn acquired, void *user)
{
    int r = check_acquire(lock, mode, acquired);
    if (r < 0)
        return r;
    struct lk_session *session = lock->segment->session;
    uint64_t deadline_ns = lki_brokered_deadline(timeout_ns);
    struct lki_message request = request_for(lock, (uint32_t)mode, deadline_ns);
    r = session->refused ? session->refused : lki_transport_send(&session->transport, &request, -1);
    if (r < 0) {
        char label[LKI_LABEL_BYTES];
        lki_lock_label(lock, label, sizeof(label));
        return lki_session_fail(session, r, "lock '%s'", label);
    }
    struct lki_async *async = &lock->async;
    async->request = request.id;
    async->answered = false;
    async->mode = (uint32_t)mode;
    async->deadline_ns = deadline_ns;
    async->acquired = acquired;
    async->user = user;
    lki_list_append(&session->pending, &async->node);
    shut_open_locks(session);
    lki_lock_set_view(lock);
    return 0;
}

int lk_lock_cancel(struct lk_lock *lock)
{
    int r = lki_lock_check(lock, "cancel");
    if (r < 0)
        return r;
    struct lki_async *async = &lock->async;
    struct lk_session *session = lock->segment->session;
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    if (async->request == 0)
        return lki_fail(-ENOENT, "cannot cancel '%s': no asynchronous acquire is pending", label);
    if (!async->answered) {
        struct lki_message request = {.type = LKI_REQUEST_CANCEL,
                                      .as.cancel = {.request = async->request}};
        struct lki_record reply = {.fd_count = 0};
        r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
        if (r < 0)
            return lki_session_fail(session, r, "cancel '%s'", label);
        lki_record_deinit(&reply);
    }
    /* Answered meanwhile, or with the cancel: that answer came before or comes after this reply. */
    return async->answered && async->result >= 0 ? 1 : 0;
}

/* Calls what is due by now. The callback may do anything but close the session: what it acquires
 * anew may be answered before it returns, and has to wait for the next dispatch, or this one would
 * not end. */
static int call_back(struct lk_session *session)
{
    int calls = 0;
    int due = 0;
    LKI_LIST_FOREACH_SAFE (node, &session->answered)
        due++;
    while (calls < due && !lki_list_is_empty(&session->answered)) {
        struct lki_async *async = LKI_LIST_ENTRY(session->answered.next, struct lki_async, node);
        struct lk_lock *lock = lock_of(async);
        lki_list_remove(&async->node);
        async->request = 0;
        lki_lock_set_view(lock);
        calls++;
        async->acquired(lock, async->result, async->user);
    }
    update_event_fd(session);
    return calls;
}

int lk_session_dispatch(struct lk_session *session)
{
    int r = lki_session_check(session, "dispatch");
    if (r < 0)
        return r;
    struct lki_record record;
    do {
        r = lki_transport_receive(&session->transport, 0, &record);
        if (r == 0 || r == -EMFILE) {
            lki_session_unasked(session, &record.message);
            lki_record_deinit(&record);
        }
    } while (r == 0 || r == -EMFILE);
    /* The connection is gone: nobody will answer what is pending. Not when memory is short: what is
     * still to be received may be a grant, and then the broker holds the lock for us. */
    if (session->transport.lost)
        LKI_LIST_FOREACH_SAFE (node, &session->pending)
            finish(session, LKI_LIST_ENTRY(node, struct lki_async, node), r);
    int calls = call_back(session);
    if (calls > 0 || r == -ETIMEDOUT)
        return calls;
    return lki_session_fail(session, session->refused ? session->refused : r, "dispatch");
}
