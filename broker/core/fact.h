/* SPDX-License-Identifier: MIT */
/* The broker's own accesses to a control area, beside the engine's. Whatever is read here may have
 * been scribbled by any client of the segment: each fact is copied once, and bounded before it is
 * used. Nothing here orders lock operations: these are facts for people, and those of the broker.
 */
#pragma once

#include "engine/layout.h"

/* Broker to clients. */
void lkd_fact_publish(const struct lki_area *area);
void lkd_fact_set_data_bytes(const struct lki_area *area, uint64_t data_bytes);

/* Copies the lock's name, at most LKI_NAME_BYTES_MAX bytes of whatever stands there. Returns its
 * length; 0: it has none. */
uint32_t lkd_fact_lock_name(const struct lki_area *area, uint32_t lock, uint8_t *out_name);
void lkd_fact_name_lock(const struct lki_area *area, uint32_t lock, const void *name,
                        uint32_t name_bytes);
void lkd_fact_restore_id(const struct lki_area *area, uint32_t slot, uint32_t id);
void lkd_fact_drop_id(const struct lki_area *area, uint32_t slot); /* of a slot that nobody has */
void lkd_fact_held_since(const struct lki_area *area, uint32_t slot, uint64_t now_ns);

/* Snapshots. lock < locks, 1 <= slot <= attachments_max. */
uint32_t lkd_fact_word(const struct lki_area *area, uint32_t lock);
uint64_t lkd_fact_wait(const struct lki_area *area, uint32_t slot);

/* The same, and whether the slot has a cell for the lock, for who compares two looks at many facts:
 * none of the second looks comes before the last of the first ones. */
uint32_t lkd_fact_look_word(const struct lki_area *area, uint32_t lock);
uint64_t lkd_fact_look_sequence(const struct lki_area *area, uint32_t lock);
uint64_t lkd_fact_look_wait(const struct lki_area *area, uint32_t slot);
bool lkd_fact_look_reads(const struct lki_area *area, uint32_t slot, uint32_t lock);

/* Whether the lock's last recovery was that of this owner at this time; then with its token. */
bool lkd_fact_recovered(const struct lki_area *area, uint32_t lock, int32_t pid, uint64_t when_ns,
                        uint64_t *out_token);
/* When the wait that the slot shows now began: tells its waits apart. */
uint64_t lkd_fact_waiting_since(const struct lki_area *area, uint32_t slot);

/* The lock in a hold cell, or UINT32_MAX when it is empty or out of bounds. */
uint32_t lkd_fact_cell(const struct lki_area *area, uint32_t slot, uint32_t cell);

/* How long ago the wait, or the hold to exit, began. 0 (not known) when the fact is absurd: later
 * than now, or before the attachment was opened. */
uint64_t lkd_fact_waiting_ns(const struct lki_area *area, uint32_t slot, uint64_t opened_ns,
                             uint64_t now_ns);
uint64_t lkd_fact_held_ns(const struct lki_area *area, uint32_t slot, uint64_t opened_ns,
                          uint64_t now_ns);
