/* SPDX-License-Identifier: MIT */
/* stop_at_once [ROUNDS]
 *
 * Brokers that are told to end as soon as their path answers, or a moment later: that is when the
 * keeper does not yet, or its worker does not yet listen for signals. Each ends with 0 all the same,
 * and leaves no socket: test_broker_stop() looks. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/broker.h"
#include "tests/support/process.h"

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 40;
    struct test_random random = {1};
    for (unsigned i = 0; i < rounds; i++) {
        struct test_broker broker;
        test_broker_start(&broker);
        test_sleep_ns(i % 2 == 0 ? 0 : test_random_below(&random, 10 * LKI_NS_PER_MS));
        test_broker_stop(&broker);
    }
    printf("stop_at_once: %u brokers told to end as soon as they answered; all did\n", rounds);
    return 0;
}
