/* SPDX-License-Identifier: MIT */
/* Drives the engine's wait steps for a native attachment: spins a little, sleeps on the own futex,
 * asks the broker about the owner when a nap has passed, wakes others. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/lock.h"
#include "engine/lock.h"

/* Tries, and waits until the lock is taken or timeout_ns is over. LKI_TAKEN, _TAKEN_DIED; _BUSY
 * (timeout 0; otherwise the wait would never end, and the broker's words are the text), _TIMED_OUT,
 * _NESTED, _NO_CELL, _STALE: not held. */
enum lki_verdict lki_wait_native(struct lk_lock *lock, enum lki_mode mode, enum lki_hold hold,
                                 uint64_t timeout_ns);

/* The same for a hold for update that is to become exclusive. Also LKI_NOT_HELD. */
enum lki_verdict lki_wait_upgrade(struct lk_lock *lock, uint64_t timeout_ns);

/* The lki_wake_fn of native attachments; user is the struct lk_segment. Never blocks, never fails.
 */
void lki_wake_native(void *user, uint32_t slot, bool brokered);
