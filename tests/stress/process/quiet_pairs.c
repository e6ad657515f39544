/* SPDX-License-Identifier: MIT */
/* quiet_pairs [--noisy]
 *
 * Locks and unlocks without contention between marks: calls of getppid(2), which nothing else here
 * makes. check_quiet.py runs it under strace and looks at what lies between the marks. --noisy
 * makes one call more, to see the check fail. */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define PAIRS 1000

static void mark(void)
{
    syscall(SYS_getppid);
}

static void pairs(struct lk_lock *lock, enum lk_mode mode)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        test_acquire(lock, mode);
        test_release(lock);
    }
}

int main(int argc, char **argv)
{
    struct test_broker broker;
    struct test_client client;
    struct lk_segment_options options = test_options(4096, 3);

    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, "quiet", &options);
    struct lk_lock *exclusive = test_lock(&client, 0);
    struct lk_lock *shared = test_lock(&client, 1);
    struct lk_lock *both = test_lock(&client, 2);

    mark();
    pairs(exclusive, LK_EXCLUSIVE);
    mark();
    pairs(shared, LK_SHARED);
    mark();
    for (unsigned i = 0; i < PAIRS / 10; i++) {
        pairs(both, LK_SHARED);
        pairs(both, LK_EXCLUSIVE);
    }
    if (argc > 1 && strcmp(argv[1], "--noisy") == 0)
        syscall(SYS_getuid);
    mark();
    for (unsigned i = 0; i < PAIRS; i++) {
        uint64_t version;
        test_check(lk_read_begin(exclusive, &version) == 0, "lk_read_begin");
        test_check(lk_read_valid(exclusive, version), "lk_read_valid");
    }
    mark();

    test_client_close(&client);
    test_broker_stop(&broker);
    return 0;
}
