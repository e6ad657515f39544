/* SPDX-License-Identifier: MIT */
#include "client/bias.h"

#include "client/lock.h"
#include "client/segment.h"
#include "client/session.h"
#include "common/barrier.h"
#include "common/clock.h"
#include "common/compiler.h"
#include "engine/lock.h"
#include "proto/status.h"

#define ANSWER_NS (1 * LKI_NS_PER_S) /* of a broker that is busy; then the caller tries again */

uint32_t lki_bias_reads = LKI_BIAS_READS_DEFAULT;

/* Makes this process one whose threads every barrier reaches, when a lock is first worth it: it may take the
 * kernel some time, which a program that only writes would spend for nothing. */
static bool join(struct lk_segment *segment)
{
    if (!segment->fenceless) {
        if (!lki_barrier_join())
            return false;
        segment->fenceless = true;
        for (struct lk_lock *lock = segment->all_handles; lock; lock = lock->next_handle)
            lki_lock_set_view(lock);
    }
    return true;
}

LKI_NOINLINE static void bias(struct lk_lock *lock)
{
    lock->reads.count = 0;
    if (lock->segment->area.bias && join(lock->segment))
        lki_lock_bias(lock->party, lock->index);
}

void lki_bias_count(struct lk_lock *lock)
{
    uint64_t sequence = lki_lock_sequence(&lock->segment->area, lock->index);
    if (sequence != lock->reads.sequence)
        lock->reads = (struct lki_reads){.sequence = sequence};
    else if (++lock->reads.count >= lki_bias_reads)
        bias(lock);
}

bool lki_barrier_native(void *user)
{
    struct lk_segment *segment = user;
    if (lki_barrier_make())
        return true;
    struct lki_message request = {.type = LKI_REQUEST_BARRIER};
    struct lki_record reply = {.fd_count = 0};
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), ANSWER_NS);
    if (lki_session_ask(segment->session, &request, deadline_ns, &reply) < 0)
        return false;
    bool made =
        reply.message.type == LKI_REPLY_RESULT && reply.message.as.result.status == LKI_STATUS_OK;
    lki_record_deinit(&reply);
    return made;
}
