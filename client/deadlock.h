/* SPDX-License-Identifier: MIT */
/* Asking the broker whether a native wait closes a ring of sessions that wait for each other. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/lock.h"
#include "engine/wait.h"

/* Of one wait; phase is LKI_WAIT_PHASE_ENDED at first. */
struct lki_deadlock_check {
    struct lk_lock *lock;
    enum lki_wait_phase phase; /* in which the broker was asked last, or nothing was held */
    uint64_t asked_ns;
};

/* To be called before each sleep of a wait that is published. Asks before the first one, when the
 * wait begins to drain, and again with each long nap; not while this session holds nothing, for
 * then nobody waits for it. True: the wait would never end; it has to be given up, and the text is
 * made. A broker that does not answer in time finds nothing. */
bool lki_deadlock_found(struct lki_deadlock_check *check, const struct lki_wait *wait);

/* A native lock was taken while an asynchronous acquire is pending: that one may have become part
 * of a ring, and is refused by the broker then. */
void lki_deadlock_taken(struct lk_lock *lock);
