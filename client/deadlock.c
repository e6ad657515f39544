/* SPDX-License-Identifier: MIT */
#include "client/deadlock.h"

#include <errno.h>

#include "client/error.h"
#include "client/session.h"
#include "common/clock.h"

#define AGAIN_NS (200 * LKI_NS_PER_MS) /* with each long nap, which lasts 250 ms */

/* A broker that is stopped must not keep us from a lock that has become free meanwhile. */
#define ANSWER_NS (50 * LKI_NS_PER_MS)

/* Handles looked at before we rather ask: this many cost less than the question. */
#define HANDLES_MAX 256u

/* Whether somebody may wait for this session: it holds a lock in any mode, as far as a short look
 * tells. Nothing counts holds, since the fast paths would pay for it. */
static bool may_hold(const struct lk_session *session)
{
    unsigned looked = 0;
    /* It may have been granted: the answer lies unread in the socket while we wait here. */
    if (!lki_list_is_empty(&session->pending))
        return true;
    const struct lki_list *all = &session->segments;
    for (const struct lki_list *node = all->next; node != all; node = node->next) {
        const struct lk_segment *segment = LKI_LIST_ENTRY(node, struct lk_segment, node);
        if (!segment->brokered && lki_party_reads(&segment->party))
            return true;
        for (const struct lk_lock *lock = segment->all_handles; lock; lock = lock->next_handle) {
            if (lock->held_id != 0 || ++looked > HANDLES_MAX)
                return true;
            /* While it drains the word of a lock is ours, and holds nothing yet. */
            if (!segment->brokered && lock->index < segment->area.locks &&
                lki_lock_held_by(&segment->party, lock->index) != 0)
                return true;
        }
    }
    return false;
}

/* Asks about the wait for this lock, or, if there is none, about all that the broker drives. True:
 * the reply is there, and is to be taken back. */
static bool ask(const struct lk_lock *lock, uint64_t deadline_ns, struct lki_record *out_reply)
{
    struct lki_message request = {
        .type = LKI_REQUEST_DEADLOCK_CHECK,
        .as.lock_ref = {.segment = lock->segment->number, .lock = lock->index},
    };
    out_reply->fd_count = 0;
    return lki_session_ask(lock->segment->session, &request, deadline_ns, out_reply) == 0;
}

bool lki_deadlock_found(struct lki_deadlock_check *check, const struct lki_wait *wait)
{
    uint64_t now_ns = lki_clock_now_ns();
    if (check->phase == wait->phase && now_ns - check->asked_ns < AGAIN_NS)
        return false;
    check->phase = wait->phase;
    check->asked_ns = now_ns;
    struct lk_session *session = check->lock->segment->session;
    if (!may_hold(session))
        return false;
    uint64_t limit_ns = lki_time_add(now_ns, ANSWER_NS);
    struct lki_record reply;
    if (!ask(check->lock, limit_ns < wait->deadline_ns ? limit_ns : wait->deadline_ns, &reply))
        return false;
    bool found = reply.message.type == LKI_REPLY_RESULT &&
                 reply.message.as.result.status == LKI_STATUS_DEADLOCK;
    if (found) {
        char label[LKI_LABEL_BYTES];
        lki_lock_label(check->lock, label, sizeof(label));
        (void)lki_session_result(session, &reply.message, "lock '%s'", label);
    }
    lki_record_deinit(&reply);
    return found;
}

void lki_deadlock_taken(struct lk_lock *lock)
{
    struct lki_record reply;
    if (ask(lock, lki_time_add(lki_clock_now_ns(), ANSWER_NS), &reply))
        lki_record_deinit(&reply);
}
