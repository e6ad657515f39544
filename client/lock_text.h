/* SPDX-License-Identifier: MIT */
/* What people are told about a lock: its label, who holds it, why it was not taken. */
#pragma once

#include "client/lock.h"

/* The text for -EBUSY: names the lock. Asks nobody: a try has to stay cheap. Returns -EBUSY. */
int lki_lock_fail_busy(const struct lk_lock *lock);

/* -EDEADLK and -EALREADY of this session itself, with their texts. */
int lki_lock_fail_nested(const struct lk_lock *lock);
int lki_lock_fail_pending(const struct lk_lock *lock);

/* The text for -EPERM: it is not held; how: "", or in which mode. Returns -EPERM. */
int lki_lock_fail_not_held(const struct lk_lock *lock, const char *verb, const char *how);

/* The text for -ETIMEDOUT: names the holder, if the broker answers at once. Returns -ETIMEDOUT. */
int lki_lock_fail_timed_out(struct lk_lock *lock);
