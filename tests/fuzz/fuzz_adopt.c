/* SPDX-License-Identifier: MIT */
/* The core taking over from a worker that died with its last stores half done, and from a ledger in
 * which bits have turned: the first must lose nothing, the second may be refused. */
#include "play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const struct play_rules rules = {.workers_die = true, .flips = true};
    struct fuzz_input input = {data, size_bytes};
    play(&input, &rules);
    return 0;
}
