/* SPDX-License-Identifier: MIT */
#include "client/brokered.h"

#include <errno.h>

#include "client/error.h"
#include "client/lock_text.h"
#include "common/clock.h"

uint64_t lki_brokered_deadline(uint64_t timeout_ns)
{
    return timeout_ns == 0 ? 0 : lki_time_add(lki_clock_now_ns(), timeout_ns);
}

/* What the answer to an ACQUIRE, or to an upgrade, says: the lock is held in this mode, or the refusal. */
static int take_grant(struct lk_lock *lock, enum lk_mode mode, const struct lki_message *reply,
                      const char *verb, const char *label)
{
    struct lk_session *session = lock->segment->session;
    if (reply->type != LKI_REPLY_GRANTED) {
        int r = lki_session_result(session, reply, "%s '%s'", verb, label);
        return r < 0 ? r : lki_session_fail(session, -EPROTO, "%s '%s'", verb, label);
    }
    lock->held_id = reply->as.granted.attachment;
    lock->held_mode = (uint32_t)mode;
    lock->held_one_way = reply->as.granted.one_way;
    lki_lock_set_view(lock);
    return reply->as.granted.status == LKI_STATUS_OWNER_DIED ? LK_ACQUIRED_OWNER_DIED : LK_ACQUIRED;
}

int lki_brokered_acquire(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns)
{
    struct lk_session *session = lock->segment->session;
    struct lki_message request = {
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {.segment = lock->segment->number,
                       .lock = lock->index,
                       .mode = (uint32_t)mode & ~(uint32_t)LK_TO_EXIT,
                       .to_exit = ((uint32_t)mode & LK_TO_EXIT) != 0,
                       .deadline_ns = lki_brokered_deadline(timeout_ns)},
    };
    char label[LKI_LABEL_BYTES];
    struct lki_record reply = {.fd_count = 0};
    /* The broker keeps the deadline: only its answer tells whether the lock is held. */
    int r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    lki_lock_label(lock, label, sizeof(label));
    if (r < 0)
        return lki_session_fail(session, r, "lock '%s'", label);
    r = take_grant(lock, mode, &reply.message, "lock", label);
    lki_record_deinit(&reply);
    return r;
}

static int end_hold(struct lk_lock *lock, int result)
{
    lock->held_id = 0; /* released, or the broker knows of no such hold */
    lki_lock_set_view(lock);
    return result;
}

/* Nobody waits for the broker, and nothing has to be sent again: it stays in the socket until it has had its
 * effect, whatever becomes of the worker, or of us. False: it was not sent. */
static bool release_one_way(struct lk_session *session, struct lki_message *request)
{
    request->as.hold_ref.one_way = true;
    bool sent = lki_transport_send(&session->transport, request, -1) == 0;
    request->as.hold_ref.one_way = false;
    return sent;
}

int lki_brokered_change(struct lk_lock *lock, enum lki_message_type type, uint64_t offset,
                        uint64_t length_bytes)
{
    struct lk_session *session = lock->segment->session;
    const char *verb = type == LKI_REQUEST_RELEASE   ? "unlock"
                       : type == LKI_REQUEST_DECLARE ? "declare a range under"
                                                     : "mark as consistent";
    struct lki_message request = {
        .type = type,
        .as.hold_ref = {.segment = lock->segment->number,
                        .lock = lock->index,
                        .attachment = lock->held_id,
                        .offset = offset,
                        .length_bytes = length_bytes,
                        .to_exit = type == LKI_REQUEST_MARK_CONSISTENT &&
                                   lock->segment->broker_minor >= LKI_PROTOCOL_MINOR_TO_EXIT &&
                                   lock->held_mode & LK_TO_EXIT},
    };
    /* Not sent: the call below finds out why. */
    if (type == LKI_REQUEST_RELEASE && lock->held_one_way && release_one_way(session, &request))
        return end_hold(lock, 0);
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    struct lki_record reply = {.fd_count = 0};
    int r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "%s '%s'", verb, label);
    r = lki_session_result(session, &reply.message, "%s '%s'", verb, label);
    lki_record_deinit(&reply);
    return type == LKI_REQUEST_RELEASE ? end_hold(lock, r) : r;
}

int lki_brokered_change_mode(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns)
{
    struct lk_session *session = lock->segment->session;
    const char *verb = mode == LK_EXCLUSIVE ? "upgrade" : "downgrade";
    struct lki_message request = {
        .type = LKI_REQUEST_CHANGE_MODE,
        .as.change_mode = {.segment = lock->segment->number,
                           .lock = lock->index,
                           .attachment = lock->held_id,
                           .mode = (uint32_t)mode,
                           .deadline_ns = lki_brokered_deadline(timeout_ns)},
    };
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    if (lock->held_id == 0)
        return lki_lock_fail_not_held(lock, verb, "");
    struct lki_record reply = {.fd_count = 0};
    int r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "%s '%s'", verb, label);
    if (mode == LK_EXCLUSIVE)
        r = take_grant(lock, mode, &reply.message, verb, label);
    else
        r = lki_session_result(session, &reply.message, "%s '%s'", verb, label);
    if (r == 0)
        lock->held_mode = (uint32_t)mode;
    lki_record_deinit(&reply);
    return r;
}
