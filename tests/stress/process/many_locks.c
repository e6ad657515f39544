/* SPDX-License-Identifier: MIT */
/* many_locks [--locks N]
 *
 * One process takes 100,000 locks and is killed. How long until a second process has got every one
 * of them, and been told of the death at each; and how long, meanwhile, the broker keeps a client
 * of another segment waiting, which asks it one thing after the other. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/figures.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

struct stage {
    struct test_broker broker;
    uint32_t locks;
    int held, asking;
    struct shared {
        _Atomic uint32_t stop;
        _Atomic uint32_t count;
        _Atomic uint64_t longest_ns;
    } * shared;
};

static int hold_all(void *arg)
{
    struct stage *stage = arg;
    struct test_client client;
    struct lk_segment_options options = test_options(0, stage->locks);

    test_client_open(&client, stage->broker.socket_path, "many", &options);
    for (uint32_t index = 0; index < stage->locks; index++)
        test_check(test_acquire(test_lock(&client, index), LK_EXCLUSIVE) == LK_ACQUIRED, "taken");
    test_event_post(stage->held);
    return test_stay();
}

static int ask_on_and_on(void *arg)
{
    struct stage *stage = arg;
    struct shared *shared = stage->shared;
    struct test_client client;
    struct lk_segment_options options = test_options(4096, 4);

    test_client_open(&client, stage->broker.socket_path, "other", &options);
    struct lk_lock *lock = test_lock(&client, 0);
    while (!atomic_load(&shared->stop)) {
        struct lk_holder holder = {.size = sizeof(holder)};
        uint64_t start_ns = lki_clock_now_ns();
        test_check(lk_lock_holder(lock, &holder) == 0, "lk_lock_holder: %s", lk_last_error());
        uint64_t took_ns = lki_clock_now_ns() - start_ns;
        if (took_ns > atomic_load(&shared->longest_ns))
            atomic_store(&shared->longest_ns, took_ns);
        if (atomic_fetch_add(&shared->count, 1) == 100)
            test_event_post(stage->asking);
    }
    test_client_close(&client);
    return 0;
}

int main(int argc, char **argv)
{
    struct stage stage = {
        .locks = argc > 2 && strcmp(argv[1], "--locks") == 0 ? (uint32_t)atoi(argv[2]) : 100000,
        .held = test_event(),
        .asking = test_event(),
        .shared = test_shared(sizeof(struct shared)),
    };
    struct test_client client;
    struct lk_segment_options options = test_options(0, stage.locks);

    test_broker_start(&stage.broker);
    pid_t holder = test_spawn(hold_all, &stage);
    test_event_wait(stage.held);
    test_client_open(&client, stage.broker.socket_path, "many", &options);
    struct lk_lock **locks = calloc(stage.locks, sizeof(*locks));
    test_check(locks != NULL, "memory");
    for (uint32_t index = 0; index < stage.locks; index++)
        locks[index] = test_lock(&client, index);
    pid_t other = test_spawn(ask_on_and_on, &stage);
    test_event_wait(stage.asking);
    atomic_store(&stage.shared->longest_ns, 0);
    uint32_t asked_before = atomic_load(&stage.shared->count);

    uint64_t killed_ns = lki_clock_now_ns();
    test_check(kill(holder, SIGKILL) == 0, "kill");
    for (uint32_t index = 0; index < stage.locks; index++) {
        int r = lk_lock_acquire(locks[index], LK_EXCLUSIVE, 20 * LKI_NS_PER_S);
        test_check(r == LK_ACQUIRED_OWNER_DIED, "lock %u gives %d: %s", index, r, lk_last_error());
    }
    uint64_t took_ns = lki_clock_now_ns() - killed_ns;
    atomic_store(&stage.shared->stop, 1);
    uint64_t longest_ns = atomic_load(&stage.shared->longest_ns);
    test_reap(holder);
    test_reap_success(other);
    printf("%u locks of one dead process: all taken over %.0f ms after the kill (limit 1000); the "
           "other segment's client waited at most %.1f ms (limit 50), %u questions; load %.2f\n",
           stage.locks, (double)took_ns / 1e6, (double)longest_ns / 1e6,
           atomic_load(&stage.shared->count) - asked_before, test_load_average());

    for (uint32_t index = 0; index < stage.locks; index++) {
        test_check(lk_lock_mark_consistent(locks[index]) == 0, "mark");
        test_release(locks[index]);
    }
    free(locks);
    test_client_close(&client);
    test_broker_stop(&stage.broker);
    return 0;
}
