/* SPDX-License-Identifier: MIT */
/* Giving out attachments and cleaning up after them. The broker only: it alone knows that a process
 * has ended. Borrowed view, no system call, no allocation. */
#pragma once

#include "engine/lock.h"

/* Why an attachment ends; the values of enum lk_recovery_cause. */
enum lki_cause {
    LKI_CAUSE_NONE = 0,
    LKI_CAUSE_EXITED = 1,
    LKI_CAUSE_CLOSED = 2,
    LKI_CAUSE_FORCED = 3, /* as EXITED, but the broker had it ended */
    LKI_CAUSE_FENCED = 4, /* the attachment lives on, without this hold */
};

/* What is known of the one that ended; goes into the recovery record of each lock it held. */
struct lki_death {
    int32_t pid;
    uint32_t uid;
    uint32_t cause; /* enum lki_cause */
    uint64_t when_ns;
    char command[32];
};

/* One repair, cut into slices. Restartable from the beginning at any time. */
struct lki_repair {
    const struct lki_area *area;
    uint32_t id;
    uint32_t next_lock;
    uint32_t freed;     /* locks that it owned */
    uint32_t damaged;   /* of these: with an odd sequence */
    bool facts_cleared; /* its wait and its cells */
    uint32_t drained;   /* 1 + the lock that it owned and had not written under yet; 0: none */
};

/* Makes slot live: writes flags and the id of its next generation. The slot is free: never given,
 * or repaired. Returns the id. 1 <= slot <= area->attachments_max. */
uint32_t lki_attachment_open(const struct lki_area *area, uint32_t slot, uint32_t generation,
                             uint32_t flags);

/* Starts the repair of a live id whose process can run no more instructions (or has detached). */
void lki_repair_begin(struct lki_repair *repair, const struct lki_area *area, uint32_t id);

/* Repairs at most locks_max locks. Returns true when all is done: then every waiter has been told
 * through `wake`, the attachment's id is 0, and the slot may be given again. */
bool lki_repair_step(struct lki_repair *repair, const struct lki_death *death, uint32_t locks_max,
                     lki_wake_fn wake, void *user);

/* Takes one exclusive hold that changes data (the sequence is odd) away from a live attachment, whose
 * other facts stay: what repair does to one word, and then wakes everybody as repair does at its
 * end. Only for holds whose unlock the broker executes itself: a native owner could still write its
 * sequence, and so destroy the evidence. False: the id does not own the word, or the sequence is
 * even; nothing was done. */
bool lki_repair_hold(const struct lki_area *area, uint32_t id, uint32_t lock,
                     const struct lki_death *death, lki_wake_fn wake, void *user);

/* One lock as it looks to a bystander, for listings and checks. */
struct lki_lock_state {
    uint32_t word;
    uint64_t sequence;
    uint32_t readers;      /* attachments with a cell for it */
    uint32_t waiters;      /* attachments that wait for it */
    uint32_t first_reader; /* id of one of them, 0: none */
};

/* Looks at one lock: O(attachments). A snapshot; it may be old when it returns. */
void lki_lock_look(const struct lki_area *area, uint32_t lock, struct lki_lock_state *out_state);
