/* SPDX-License-Identifier: MIT */
/* pairs CASE COUNT
 *
 * Does one uncontended thing COUNT times, through the library and against a real broker. check.py has
 * its instructions counted. */
#include <stdlib.h>
#include <string.h>

#include "client/bias.h"
#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/inline.h>

static void exclusive(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == LK_ACQUIRED, "acquire");
        test_check(lk_lock_release(lock) == 0, "release");
    }
}

static void shared(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER) == LK_ACQUIRED, "acquire");
        test_check(lk_lock_release(lock) == 0, "release");
    }
}

static void optimistic(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        uint64_t version;
        test_check(lk_read_begin(lock, &version) == 0, "read_begin");
        test_check(lk_read_valid(lock, version), "read_valid");
    }
}

static void update(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER) == LK_ACQUIRED, "acquire");
        test_check(lk_lock_release(lock) == 0, "release");
    }
}

static void upgrade(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER) == LK_ACQUIRED, "acquire");
        test_check(lk_lock_upgrade(lock, LK_WAIT_FOREVER) == LK_ACQUIRED, "upgrade");
        test_check(lk_lock_release(lock) == 0, "release");
    }
}

static void exclusive_inline(struct lk_lock *lock, unsigned long count)
{
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_inline_acquire(fast, lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == LK_ACQUIRED,
                   "acquire");
        test_check(lk_inline_release(fast, lock) == 0, "release");
    }
}

static void shared_inline(struct lk_lock *lock, unsigned long count)
{
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    for (unsigned long i = 0; i < count; i++) {
        test_check(lk_inline_acquire(fast, lock, LK_SHARED, LK_WAIT_FOREVER) == LK_ACQUIRED,
                   "acquire");
        test_check(lk_inline_release(fast, lock) == 0, "release");
    }
}

static void optimistic_inline(struct lk_lock *lock, unsigned long count)
{
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    for (unsigned long i = 0; i < count; i++) {
        uint64_t version;
        test_check(lk_inline_read_begin(fast, lock, &version) == 0, "read_begin");
        test_check(lk_inline_read_valid(fast, lock, version), "read_valid");
    }
}

/* What is not told apart by cost: an exclusive pair after a shared one looks for readers. */
static void alternating(struct lk_lock *lock, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        shared(lock, 1);
        exclusive(lock, 1);
    }
}

static const struct {
    const char *name;
    void (*run)(struct lk_lock *lock, unsigned long count);
} cases[] = {
    {"exclusive", exclusive},
    {"shared", shared},
    {"optimistic", optimistic},
    {"alternating", alternating},
    {"update", update},
    {"upgrade", upgrade},
    {"exclusive_inline", exclusive_inline},
    {"shared_inline", shared_inline},
    {"optimistic_inline", optimistic_inline},
};

int main(int argc, char **argv)
{
    test_check(argc == 3, "usage: pairs CASE COUNT");
    unsigned chosen = 0;
    while (chosen < sizeof(cases) / sizeof(cases[0]) && strcmp(cases[chosen].name, argv[1]) != 0)
        chosen++;
    test_check(chosen < sizeof(cases) / sizeof(cases[0]), "no such case");

    lki_bias_reads = 10; /* what comes later is what is counted */
    struct test_broker broker;
    struct test_client client;
    struct lk_segment_options options = test_options(4096, 1);
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, "counted", &options);
    cases[chosen].run(test_lock(&client, 0), strtoul(argv[2], NULL, 10));
    test_client_close(&client);
    test_broker_stop(&broker);
    return 0;
}
