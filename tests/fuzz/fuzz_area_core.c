/* SPDX-License-Identifier: MIT */
/* The core while clients scribble over the control areas of some segments, between events and inside
 * them: it goes on, and the other segments' locks exclude. */
#include "play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const struct play_rules rules = {.scribbles = true, .workers_die = true};
    struct fuzz_input input = {data, size_bytes};
    play(&input, &rules);
    return 0;
}
