/* SPDX-License-Identifier: MIT */
/* Starts a broker and ends it, as most tests do: nothing else. */
#include "tests/support/broker.h"

int main(void)
{
    struct test_broker broker;
    test_broker_start(&broker);
    test_broker_stop(&broker);
    return 0;
}
