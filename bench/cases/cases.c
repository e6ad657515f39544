/* SPDX-License-Identifier: MIT */
#include "bench/bench.h"

const struct bench_case bench_cases[] = {
    {"floors", "the least that waking another process costs", bench_floors, 3, false},
    {"pairs", "lock and unlock, nobody else there", bench_pairs, 5, true},
    {"crowd", "the exclusive pair among 1,000 attachments", bench_crowd, 2, true},
    {"open", "open and map a segment, in a new process and again", bench_open, 4, true},
    {NULL, NULL, NULL, 0, false},
};
