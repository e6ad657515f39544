/* SPDX-License-Identifier: MIT */
#include "bench/bench.h"

const struct bench_case bench_cases[] = {
    {"floors", "the least that waking another process costs", bench_floors, 3, false},
    {"pairs", "lock and unlock, nobody else there", bench_pairs, 5, true},
    {"crowd", "the exclusive pair among 1,000 attachments", bench_crowd, 2, true},
    {"waiters", "releases for which others wait, among up to 1,000 attachments", bench_waiters, 20,
     false},
    {"contended", "2 to 32 processes that all want one lock", bench_contended, 200, false},
    {"readers", "1 to 8 processes that read, and write now and then", bench_readers, 35, false},
    {"mixed", "reads with writes in between, with read bias and without", bench_mixed, 30, false},
    {"bias", "the first writer after readers that need no fence", bench_bias, 2, false},
    {"optimistic", "reading 64 bytes and 4 KiB without a lock", bench_optimistic, 8, false},
    {"brokered", "pairs of locks that another process keeps", bench_brokered, 5, false},
    {"async", "asynchronous acquire, to the callback", bench_async, 2, false},
    {"throughput", "what a broker gets done for 16 sessions", bench_throughput, 3, false},
    {"open", "open and map a segment, in a new process and again", bench_open, 4, true},
    {"recovery", "after the end of a holder of 1 MB, 256 MB, 2 GB", bench_recovery, 60, false},
    {"idle", "a broker with 1,000 and 10,000 sessions, and 10,000 segments", bench_idle, 12, false},
    {"repair", "of 1, 1,000 and 100,000 locks of one dead process", bench_repair, 5, false},
    {NULL, NULL, NULL, 0, false},
};
