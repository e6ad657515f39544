/* SPDX-License-Identifier: MIT */
/* stopped_reader [--rounds N]
 *
 * A reader is stopped inside; a writer with a time limit of 1 ms has to give up in time, and other
 * readers go on meanwhile. Prints how long the writer's call took, how many reads there were, and
 * the longest that a reader waited. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/figures.h"
#include "tests/support/process.h"

#define NAME "stopped-reader"

struct shared {
    _Atomic uint32_t stop;
    _Atomic uint64_t reads;
    _Atomic uint64_t longest_ns;
};

struct stage {
    struct test_broker broker;
    struct shared *shared;
    int inside, reading, leave;
};

static int read_and_stay(void *arg)
{
    struct stage *stage = arg;
    struct test_client client;
    test_client_open(&client, stage->broker.socket_path, NAME, NULL);
    struct lk_lock *lock = test_lock(&client, 0);
    test_acquire(lock, LK_SHARED);
    test_event_post(stage->inside);
    test_event_wait(stage->leave);
    test_release(lock);
    test_client_close(&client);
    return 0;
}

static int read_on_and_on(void *arg)
{
    struct stage *stage = arg;
    struct shared *shared = stage->shared;
    struct test_client client;
    test_client_open(&client, stage->broker.socket_path, NAME, NULL);
    struct lk_lock *lock = test_lock(&client, 0);
    while (!atomic_load(&shared->stop)) {
        uint64_t start_ns = lki_clock_now_ns();
        test_acquire(lock, LK_SHARED);
        uint64_t took_ns = lki_clock_now_ns() - start_ns;
        if (took_ns > atomic_load(&shared->longest_ns))
            atomic_store(&shared->longest_ns, took_ns);
        test_release(lock);
        if (atomic_fetch_add(&shared->reads, 1) == 10)
            test_event_post(stage->reading);
        test_sleep_ns(50 * LKI_NS_PER_US);
    }
    test_client_close(&client);
    return 0;
}

int main(int argc, char **argv)
{
    size_t rounds = argc > 2 && strcmp(argv[1], "--rounds") == 0 ? strtoul(argv[2], NULL, 10) : 200;
    struct stage stage = {.shared = test_shared(sizeof(struct shared)),
                          .inside = test_event(),
                          .reading = test_event(),
                          .leave = test_event()};
    struct test_client client;
    struct test_figures figures;
    struct lk_segment_options options = test_options(0, 1);

    test_figures_init(&figures, rounds);
    test_broker_start(&stage.broker);
    test_client_open(&client, stage.broker.socket_path, NAME, &options);
    struct lk_lock *lock = test_lock(&client, 0);
    pid_t stopped = test_spawn(read_and_stay, &stage);
    test_event_wait(stage.inside);
    test_stop(stopped);
    pid_t other = test_spawn(read_on_and_on, &stage);
    test_event_wait(stage.reading);

    uint64_t reads_before = atomic_load(&stage.shared->reads);
    for (size_t i = 0; i < rounds; i++) {
        uint64_t start_ns = lki_clock_now_ns();
        int r = lk_lock_acquire(lock, LK_EXCLUSIVE, LKI_NS_PER_MS);
        test_figures_add(&figures, lki_clock_now_ns() - start_ns);
        test_check(r == -ETIMEDOUT, "the writer got %d past a stopped reader", r);
    }
    uint64_t reads = atomic_load(&stage.shared->reads) - reads_before;
    atomic_store(&stage.shared->stop, 1);
    test_reap_success(other);
    test_figures_print_ms(&figures, "X with 1 ms behind a stopped reader (limit 20)");
    printf("meanwhile %lu reads by others, the longest took %.3f ms\n", (unsigned long)reads,
           (double)atomic_load(&stage.shared->longest_ns) / 1e6);
    test_check(reads > 0, "no other reader got in meanwhile");
    test_check(test_figures_percentile(&figures, 50) < 20 * LKI_NS_PER_MS, "the writer is late");

    test_continue(stopped);
    test_event_post(stage.leave);
    test_check(test_acquire(lock, LK_EXCLUSIVE) == LK_ACQUIRED, "the reader did not die");
    test_release(lock);
    test_reap_success(stopped);
    test_client_close(&client);
    test_broker_stop(&stage.broker);
    test_figures_deinit(&figures);
    return 0;
}
