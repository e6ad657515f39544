/* SPDX-License-Identifier: MIT */
/* idle_broker [--sessions N] [--seconds N]
 *
 * Counts how often the broker wakes up while 100 sessions are connected, hold locks and do nothing:
 * the context switches of all tasks of its two processes. Every wake-up of a sleeping task is one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

/* Of both processes. */
static uint64_t count_switches(const struct test_broker *broker)
{
    return test_process_switches(broker->pid) + test_process_switches(test_broker_worker(broker));
}

/* What was asked before has been done, and the worker's watchdog, which looks once more up to 5 s
 * after the last turn, has found it asleep. */
static void await_quiet(const struct test_broker *broker)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    for (uint64_t last = 0, now; (now = count_switches(broker)) != last; last = now) {
        test_check(lki_clock_now_ns() < deadline_ns, "the broker does not come to rest");
        test_sleep_ns(5500 * LKI_NS_PER_MS);
    }
}

int main(int argc, char **argv)
{
    unsigned sessions = 100;
    unsigned seconds = 3;
    struct test_broker broker;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--sessions") == 0)
            sessions = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = (unsigned)atoi(argv[i + 1]);
    }
    struct lk_segment_options options = test_options(4096, sessions);
    struct test_client *clients = calloc(sessions, sizeof(*clients));
    test_check(clients != NULL, "memory");
    test_broker_start(&broker);
    for (unsigned i = 0; i < sessions; i++) {
        test_client_open(&clients[i], broker.socket_path, "idle", &options);
        test_acquire(test_lock(&clients[i], i), LK_EXCLUSIVE);
    }
    await_quiet(&broker);
    uint64_t before = count_switches(&broker);
    test_sleep_ns(seconds * LKI_NS_PER_S);
    uint64_t switches = count_switches(&broker) - before;
    printf("%u idle sessions: %lu wake-ups of the broker in %u s\n", sessions,
           (unsigned long)switches, seconds);
    fflush(stdout);
    for (unsigned i = 0; i < sessions; i++)
        test_client_close(&clients[i]);
    free(clients);
    test_broker_stop(&broker);
    return switches == 0 ? 0 : 1;
}
