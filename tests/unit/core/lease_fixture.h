/* SPDX-License-Identifier: MIT */
/* Two sessions of a segment with a lease, one of which holds what the other waits for. */
#pragma once

#include "world.h"

#include "common/clock.h"

#define LEASE_NS (5 * LKI_NS_PER_S)
#define ALICE 1000u
#define BOB 1001u

extern struct native holder, waiter;
extern uint64_t holder_session, waiter_session;
extern struct lki_opened last_opened;
extern uint64_t held, queued; /* requests */

/* Opens "a" with this lease; the first one creates it. */
struct lki_opened open_leased(uint64_t session, uint32_t on_expiry, uint32_t flags);

/* Process 11 of user ALICE holds lock 3, process 2 of `uid` waits for it. */
void arrange(uint32_t on_expiry, uint32_t holder_flags, uint32_t uid);

/* The same through messages, in a strict segment; the waiter is BOB's. */
void arrange_strict(uint32_t on_expiry);

void complain(void);   /* the waiter, about the holder of now */
int last_signal(void); /* sent to process 11; 0: none */
struct lki_granted granted(uint64_t session, uint64_t id);
