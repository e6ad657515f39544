/* SPDX-License-Identifier: MIT */
/* The core under sequences of events, with workers that die and memory that runs out: see play.h. */
#include "play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const struct play_rules rules = {.workers_die = true};
    struct fuzz_input input = {data, size_bytes};
    play(&input, &rules);
    return 0;
}
