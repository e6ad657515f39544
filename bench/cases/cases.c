/* SPDX-License-Identifier: MIT */
#include "bench/bench.h"

const struct bench_case bench_cases[] = {
    {"floors", "the least that waking another process costs", bench_floors, 3, false},
    {"pairs", "lock and unlock, nobody else there", bench_pairs, 5, true},
    {"crowd", "the exclusive pair among 1,000 attachments", bench_crowd, 2, true},
    {"contended", "2 to 32 processes that all want one lock", bench_contended, 110, false},
    {"readers", "1 to 8 processes that read, and write now and then", bench_readers, 35, false},
    {"brokered", "pairs of locks that another process keeps", bench_brokered, 5, false},
    {"async", "asynchronous acquire, to the callback", bench_async, 2, false},
    {"open", "open and map a segment, in a new process and again", bench_open, 4, true},
    {NULL, NULL, NULL, 0, false},
};
