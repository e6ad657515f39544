/* SPDX-License-Identifier: MIT */
/* Changing the mode of a hold: from update to exclusive, and back down. */
#include <errno.h>

#include "client/brokered.h"
#include "client/error.h"
#include "client/lock.h"
#include "client/lock_text.h"
#include "client/wait.h"

static bool is_brokered(const struct lk_lock *lock)
{
    return lock->held_id != 0 || lock->segment->brokered;
}

static int check(const struct lk_lock *lock, const char *verb)
{
    int r = lki_lock_check(lock, verb);
    if (r < 0 || !is_brokered(lock) ||
        lock->segment->broker_minor >= LKI_PROTOCOL_MINOR_CHANGE_MODE)
        return r;
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EOPNOTSUPP, "cannot %s '%s': the broker holds it, and is too old for that", verb,
             label);
    return lki_fail_hint(-EOPNOTSUPP, "restart it, or release the lock and take it anew");
}

static int fail_busy(const struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EBUSY, "cannot upgrade '%s' now: readers are inside; it is still held for update",
             label);
    return lki_fail_hint(-EBUSY, "give it time, or 'lockkeeper why %s' tells who they are", label);
}

static int fail_timed_out(const struct lk_lock *lock)
{
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-ETIMEDOUT, "cannot upgrade '%s': readers stayed inside; it is still held for update",
             label);
    return lki_fail_hint(-ETIMEDOUT, "wait longer, or see 'lockkeeper why %s'", label);
}

int lk_lock_upgrade(struct lk_lock *lock, uint64_t timeout_ns)
{
    int r = check(lock, "upgrade");
    if (r == 0)
        r = lki_segment_check_data(lock->segment, "upgrade");
    if (r < 0)
        return r;
    if (is_brokered(lock))
        return lki_brokered_change_mode(lock, LK_EXCLUSIVE, timeout_ns);
    enum lki_verdict verdict = lki_wait_upgrade(lock, timeout_ns);
    switch (verdict) {
    case LKI_TAKEN:
    case LKI_TAKEN_DIED:
        lock->held_to_exit = false; /* whatever it was before it came down to update mode */
        return lki_lock_result(lock, verdict);
    case LKI_BUSY:
        return timeout_ns == 0 ? fail_busy(lock) : -EDEADLK; /* has the broker's words */
    case LKI_TIMED_OUT:
        return fail_timed_out(lock);
    case LKI_NOT_HELD:
        return lki_lock_fail_not_held(lock, "upgrade", " for update");
    default:
        return lki_lock_result(lock, verdict);
    }
}

int lk_lock_downgrade(struct lk_lock *lock, enum lk_mode mode)
{
    int r = check(lock, "downgrade");
    if (r < 0)
        return r;
    if (mode != LK_UPDATE && mode != LK_SHARED)
        return lki_fail(-EINVAL, "cannot downgrade to mode 0x%x: it is LK_UPDATE or LK_SHARED",
                        (unsigned)mode);
    if (is_brokered(lock))
        return lki_brokered_change_mode(lock, mode, 0);
    enum lki_verdict verdict = lki_lock_downgrade(lock->party, lock->index, (enum lki_mode)mode);
    if (verdict == LKI_NOT_HELD)
        return lki_lock_fail_not_held(lock, "downgrade", " in a stronger mode");
    lki_lock_set_view(lock); /* a shared hold has a cell */
    return lki_lock_result(lock, verdict);
}
