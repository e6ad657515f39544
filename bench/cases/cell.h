/* SPDX-License-Identifier: MIT */
/* One measurement under contention: so many processes that hammer at one lock for a while, without a
 * pause in between. What the lock protects is checked. */
#pragma once

#include "bench/bench.h"

#define CELL_PROCESSES_MAX 32u

struct cell_result {
    double pairs_per_s;
    double handoffs_per_s;          /* the owner was another one than before */
    double least_share, most_share; /* of a fair one, which is 1 */
    double worst_wait_ns;           /* between two turns of the same process */
    struct bench_histogram waits;
};

/* Every write_every-th pair of each process is exclusive, the others are shared. 1: all exclusive; 0:
 * none. Fails if two were inside that exclude each other. */
void cell_run(struct bench *bench, const struct bench_peer *peer, unsigned processes,
              unsigned write_every, struct cell_result *out);
