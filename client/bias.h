/* SPDX-License-Identifier: MIT */
/* When readers stop paying for fences. On a biased lock they come and go with plain stores, and the first
 * writer pays for a barrier in all of them. That is worth it after a run of reads; how long a run is
 * known to each process from its own: a writer in between shows in the sequence. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct lk_lock;

/* The reads of one lock by this process, with a fence each, since it last saw a writer. */
struct lki_reads {
    uint32_t count;
    uint64_t sequence;
};

/* Reads in a row after which the lock is biased. A barrier takes 1 to 10 us, the latter where it has to
 * interrupt a virtual processor; 10,000 reads with fences take 60 to 160 us. So a writer after each such run
 * costs at most a sixth of it; and with a writer every ten or thousand reads there is no such run. */
#define LKI_BIAS_READS_DEFAULT 10000u

/* For tests. Not to be changed while another thread uses the library. */
extern uint32_t lki_bias_reads;

/* After a shared acquire with a fence. */
void lki_bias_count(struct lk_lock *lock);

/* The lki_barrier_fn of native attachments; user is the struct lk_segment. A process that may not make
 * barriers asks the broker for one. */
bool lki_barrier_native(void *user);
