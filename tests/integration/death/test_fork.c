/* SPDX-License-Identifier: MIT */
/* fork inside a critical section: the lock belongs to the process that took it, the child has
 * nothing, and its life or death changes nothing. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "fork"

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock;
static int forked;
static pid_t *grandchild; /* shared */

static void setup(void)
{
    struct lk_segment_options options = test_options(4096, 2);
    grandchild = test_shared(sizeof(*grandchild));
    forked = test_event();
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

TestSuite(death_fork, .init = setup, .fini = teardown, .timeout = 60);

static int use_inherited_handles(void *arg)
{
    struct lk_segment *segment = NULL;
    void *address = NULL;
    uint64_t version;
    (void)arg;
    test_check(lk_lock_release(lock) == -ESTALE, "release");
    test_check(lk_lock_acquire(lock, LK_SHARED, 0) == -ESTALE, "acquire");
    test_check(lk_lock_mark_consistent(lock) == -ESTALE, "mark");
    test_check(lk_read_begin(lock, &version) == -ESTALE, "read");
    test_check(lk_segment_map(client.segment, 0, 0, &address) == -ESTALE, "map");
    test_check(lk_segment_open(client.session, NAME, NULL, &segment) == -ESTALE, "open");
    test_check(lk_session_dispatch(client.session) == -ESTALE, "dispatch");

    struct test_client own; /* its own session is another owner */
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    test_check(lk_lock_acquire(its, LK_EXCLUSIVE, 0) == -EBUSY, "the parent holds it");
    test_check(lk_lock_release(its) == -EPERM, "it is not the child's to release");
    test_client_close(&own);
    test_client_close(&client); /* the inherited one: nothing of the parent's goes with it */
    return 0;
}

Test(death_fork, child_has_no_part_in_the_parents_hold)
{
    test_acquire(lock, LK_EXCLUSIVE);
    uint64_t token = lk_lock_token(lock);
    client.data[0] = 1;

    test_reap_success(test_spawn(use_inherited_handles, NULL));

    client.data[0]++;
    cr_expect(eq(u64, lk_lock_token(lock), token), "still the same hold");
    cr_expect(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    test_release(lock);
}

static int die_at_once(void *arg)
{
    (void)arg;
    kill(getpid(), SIGKILL);
    return 1;
}

Test(death_fork, childs_death_is_not_the_parents)
{
    struct test_client other;
    test_client_open(&other, broker.socket_path, NAME, NULL);
    struct lk_lock *others = test_lock(&other, 0);
    test_acquire(lock, LK_EXCLUSIVE);

    test_reap(test_spawn(die_at_once, NULL));

    cr_expect(eq(int, lk_lock_acquire(others, LK_EXCLUSIVE, 50 * LKI_NS_PER_MS), -ETIMEDOUT));
    test_release(lock);
    cr_expect(eq(int, lk_lock_acquire(others, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    test_client_close(&other);
}

static int idle(void *arg)
{
    (void)arg;
    return test_stay();
}

/* Takes the lock, forks a child that keeps all descriptors, and stays. */
static int hold_and_fork(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    pid_t pid = fork(); /* not test_spawn(): this child outlives its parent */
    if (pid == 0)
        idle(NULL);
    *grandchild = pid;
    test_event_post(forked);
    return test_stay();
}

Test(death_fork, holder_is_dead_though_its_child_keeps_its_socket)
{
    pid_t holder = test_spawn(hold_and_fork, NULL);
    test_event_wait(forked);

    test_kill(holder);

    cr_expect(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, kill(*grandchild, SIGKILL), 0));
}

static int exec_true(void *arg)
{
    struct test_client own;
    (void)arg;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&own, 0), LK_EXCLUSIVE);
    test_acquire(test_lock(&own, 1), LK_EXCLUSIVE_TO_EXIT);
    test_event_post(forked);
    execl("/bin/sh", "sh", "-c", "read line", (char *)NULL);
    return 1;
}

Test(death_fork, exec_is_no_death_and_the_end_after_it_is)
{
    struct lk_lock *to_exit = test_lock(&client, 1);
    int line[2];
    cr_assert(eq(int, pipe(line), 0));
    int input = dup(STDIN_FILENO);
    dup2(line[0], STDIN_FILENO);
    pid_t pid = test_spawn(exec_true, NULL);
    dup2(input, STDIN_FILENO);
    test_event_wait(forked);

    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 300 * LKI_NS_PER_MS), -ETIMEDOUT));
    cr_expect(eq(int, lk_lock_acquire(to_exit, LK_EXCLUSIVE, 0), -EBUSY));
    cr_assert(eq(sz, (size_t)write(line[1], "\n", 1), 1));
    test_reap_success(pid);

    cr_expect(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED));
    cr_expect(eq(int, lk_lock_acquire(to_exit, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    close(line[0]);
    close(line[1]);
    close(input);
}
