/* SPDX-License-Identifier: MIT */
/* Locking through messages: for attachments that may not write the control area, and for holds that
 * the broker granted to an asynchronous wait. The results are those of the public calls, without
 * texts. */
#pragma once

#include <stdint.h>

#include "client/lock.h"

/* Waits for the lock. Returns LK_ACQUIRED, LK_ACQUIRED_OWNER_DIED, or a refusal, with the broker's
 * words as text. */
int lki_brokered_acquire(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns);

/* Sends RELEASE, MARK_CONSISTENT or DECLARE for the hold that the broker granted. Returns 0 or a
 * refusal with text; after RELEASE the hold is gone in every case but -ECONNRESET. */
int lki_brokered_change(struct lk_lock *lock, enum lki_message_type type, uint64_t offset,
                        uint64_t length_bytes);

/* The deadline of a request: 0 tries once, LK_WAIT_FOREVER never ends. */
uint64_t lki_brokered_deadline(uint64_t timeout_ns);

/* Makes a hold that the broker has for the session exclusive, as lk_lock_upgrade(), or weaker, as
 * lk_lock_downgrade(); timeout_ns is of the former. */
int lki_brokered_change_mode(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns);
