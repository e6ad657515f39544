/* SPDX-License-Identifier: MIT */
/* Going on for an attachment whose driver died between any two steps: the broker's worker, that is,
 * for the attachments which it drives. What was reached stands in shared memory; the new driver
 * reads it there and goes on from the same place, with the same ticket. Borrowed view, no system
 * call, no allocation. */
#pragma once

#include "engine/wait.h"

/**
 * Takes an attempt at a lock over from a driver that died: in lki_lock_try(), in lki_wait_step(),
 * in lki_wait_give_up(), or before any of them. Nobody was told of a result yet.
 * @party:  made anew for the same live attachment
 * Returns: LKI_SLEEP: the wait goes on, now step it; LKI_TAKEN or LKI_TAKEN_DIED: held;
 *          LKI_NOT_HELD: the attempt has left nothing behind, begin it again.
 * Wakes that the dead driver owed to others are the caller's to send: lki_wake_waiters().
 */
enum lki_verdict lki_wait_resume(struct lki_wait *wait, struct lki_party *party, uint32_t lock,
                                 enum lki_mode mode, enum lki_hold hold, uint64_t now_ns,
                                 uint64_t deadline_ns);

/**
 * Takes a hold over from a driver that died, perhaps in the middle of its unlock, where PARKED is cleared
 * for a scan that was not made: without it the unlock that is begun anew would look for nobody, and
 * free the word for anybody, past a waiter whose turn it is. Sets it where the word is ours.
 */
void lki_lock_resume(struct lki_party *party, uint32_t lock);

/* Wakes every waiter and drainer of the area: a driver that died may have owed any of them a wake.
 */
void lki_wake_waiters(const struct lki_area *area, lki_wake_fn wake, void *user);

/* The same for lki_wait_begin_upgrade() of a hold for data. Also LKI_NOT_HELD: nothing is left of the hold. */
enum lki_verdict lki_wait_resume_upgrade(struct lki_wait *wait, struct lki_party *party,
                                         uint32_t lock, uint64_t now_ns, uint64_t deadline_ns);
