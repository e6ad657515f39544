/* SPDX-License-Identifier: MIT */
/* What is no deadlock is never refused as one, and a broker that does not answer keeps nobody from
 * a lock. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define WORKERS 4
#define SEGMENTS 3
#define LOCKS 2
#define ROUNDS 9000 /* of each worker unless LK_ORDERED_ROUNDS says otherwise; three locks each */

static struct test_broker broker;
static int ready, go;
static unsigned rounds;
static _Atomic unsigned *contended; /* acquires that had to wait while something was held */

static void setup(void)
{
    const char *asked = getenv("LK_ORDERED_ROUNDS");
    rounds = asked ? (unsigned)strtoul(asked, NULL, 10) : ROUNDS;
    test_broker_start(&broker);
    ready = test_event();
    go = test_event();
    contended = test_shared(sizeof(*contended));
}

static void teardown(void)
{
    test_broker_stop(&broker);
}

TestSuite(none, .init = setup, .fini = teardown, .timeout = 3000);

static void open_all(struct lk_session *session, struct lk_lock *locks[SEGMENTS * LOCKS])
{
    for (unsigned i = 0; i < SEGMENTS; i++) {
        struct lk_segment_options options = test_options(0, LOCKS);
        struct lk_segment *segment = NULL;
        char name[16];
        snprintf(name, sizeof(name), "ordered-%u", i);
        if (i == SEGMENTS - 1)
            options.flags |= LK_STRICT;
        int r = lk_segment_open(session, name, &options, &segment);
        test_check(r >= 0, "%s", lk_last_error());
        for (unsigned j = 0; j < LOCKS; j++) {
            r = lk_lock_at(segment, j, &locks[i * LOCKS + j]);
            test_check(r == 0, "%s", lk_last_error());
        }
    }
}

/* Takes three of the locks at a time, always in the same order, in either mode. */
static int lock_in_order(void *arg)
{
    struct test_random random = {.state = *(const uint64_t *)arg};
    struct lk_session *session = test_session(broker.socket_path);
    struct lk_lock *locks[SEGMENTS * LOCKS];
    open_all(session, locks);
    test_event_post(ready);
    test_event_wait(go);
    for (unsigned round = 0; round < rounds; round++) {
        /* The strict segment, where each lock is two messages, in one round of eight. */
        unsigned last = round % 8 == 0 ? SEGMENTS * LOCKS : (SEGMENTS - 1) * LOCKS;
        unsigned skipped = (unsigned)test_random_below(&random, last);
        unsigned taken[3], count = 0;
        for (unsigned i = 0; i < last && count < 3; i++) {
            if (i == skipped)
                continue;
            enum lk_mode mode = test_random_below(&random, 3) == 0 ? LK_SHARED : LK_EXCLUSIVE;
            int r = lk_lock_acquire(locks[i], mode, 0);
            if (r == -EBUSY) {
                atomic_fetch_add(contended, count > 0);
                r = lk_lock_acquire(locks[i], mode, LK_WAIT_FOREVER);
            }
            test_check(r == LK_ACQUIRED, "lock %u in round %u: %d, %s", i, round, r,
                       lk_last_error());
            taken[count++] = i;
            if (test_random_below(&random, 4) == 0)
                sched_yield(); /* others run, and find what we hold */
        }
        while (count > 0)
            test_release(locks[taken[--count]]);
    }
    lk_session_close(session);
    return 0;
}

Test(none, ordered_locking_never_alarms)
{
    uint64_t seeds[WORKERS];
    pid_t pids[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        seeds[i] = 4711 + i;
        pids[i] = test_spawn(lock_in_order, &seeds[i]);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        test_event_wait(ready);
    for (unsigned i = 0; i < WORKERS; i++)
        test_event_post(go);
    for (unsigned i = 0; i < WORKERS; i++)
        test_reap_success(pids[i]);
    printf("%u of %u lockings waited while they held something\n", *contended,
           WORKERS * rounds * 3);
    cr_expect(gt(uint, *contended, 300), "there was no occasion for an alarm");
}

static int take_both(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, "pair", NULL);
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    test_event_post(ready);
    test_acquire(test_lock(&own, 1), LK_EXCLUSIVE);
    test_event_post(ready);
    return test_stay();
}

Test(none, waiter_that_holds_gets_its_lock_from_a_peer_while_the_broker_is_stopped)
{
    struct test_client client;
    struct lk_segment_options options = test_options(0, 2);
    test_client_open(&client, broker.socket_path, "pair", &options);
    struct lk_lock *second = test_lock(&client, 1);
    test_acquire(second, LK_EXCLUSIVE);
    pid_t waiter = test_spawn(take_both, NULL);
    test_event_wait(ready);
    pid_t worker = test_broker_worker(&broker);
    test_stop(worker);
    test_sleep_ns(20 * LKI_NS_PER_MS); /* it may ask or sleep: both have to end */
    test_release(second);
    bool got = test_event_wait_for(ready, 5 * LKI_NS_PER_S);
    test_continue(worker);
    cr_expect(got, "it waited for the broker");
    test_kill(waiter);
    test_client_close(&client);
}

/* As take_both(), but either of the two in the ring may be the one that is refused. */
static int take_both_or_be_refused(void *arg)
{
    struct test_client own;
    _Atomic int *result = arg;
    test_client_open(&own, broker.socket_path, "pair", NULL);
    struct lk_lock *first = test_lock(&own, 0), *second = test_lock(&own, 1);
    test_acquire(first, LK_EXCLUSIVE);
    test_event_post(ready);
    int r = lk_lock_acquire(second, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    atomic_store(result, r);
    if (r == LK_ACQUIRED)
        test_release(second);
    test_release(first);
    test_client_close(&own);
    return 0;
}

Test(none, waiters_of_a_holder_that_waits_for_nobody_are_not_refused)
{
    struct test_client client;
    struct lk_segment_options options = test_options(0, 2);
    _Atomic int *theirs = test_shared(sizeof(*theirs));
    test_client_open(&client, broker.socket_path, "pair", &options);
    struct lk_lock *first = test_lock(&client, 0), *second = test_lock(&client, 1);
    test_acquire(second, LK_EXCLUSIVE);
    pid_t waiter = test_spawn(take_both_or_be_refused, (void *)theirs);
    test_event_wait(ready);
    test_await_waiters(second, 1);
    /* A try closes no ring: it does not wait. */
    int r = lk_lock_acquire(first, LK_EXCLUSIVE, 0);
    cr_expect(eq(int, r, -EBUSY));
    /* A bounded wait closes one. Who asks last is refused: the other one may still be about to. */
    r = lk_lock_acquire(first, LK_EXCLUSIVE, 10 * LKI_NS_PER_S);
    cr_expect(r == -EDEADLK || r == LK_ACQUIRED, "%d, %s", r, lk_last_error());
    if (r == LK_ACQUIRED)
        test_release(first);
    test_release(second);
    test_reap_success(waiter);
    cr_expect(eq(int, *theirs, r == -EDEADLK ? LK_ACQUIRED : -EDEADLK), "not one victim");
    test_client_close(&client);
}
