/* SPDX-License-Identifier: MIT */
/* broker_lost [--rounds N]
 *
 * Keeper and worker are killed together, again and again. Two processes go on locking what they have
 * mapped: still one at a time. The first client that needs a broker starts the next one, which
 * gives nobody a name that one of the two has, until both have ended; one process keeps a name over
 * all rounds. Every token is higher than all before.
 *
 * Exit 0: all of that was so. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define LOCKS_EACH 300u /* by each of the two, while there is no broker */

struct shared {
    _Atomic uint32_t inside;
    _Atomic uint32_t overlaps;
    _Atomic uint64_t token; /* the highest of the name that is looked at */
};

static struct test_broker broker;
static struct shared *shared;

struct holder {
    char name[32];
    int ready;
    int go; /* the broker is lost */
    int done;
    int end;
};

static void lock_once(struct lk_lock *lock)
{
    test_check(lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S) >= 0, "%s", lk_last_error());
    if (atomic_exchange(&shared->inside, (uint32_t)getpid()) != 0)
        atomic_fetch_add(&shared->overlaps, 1);
    uint64_t token = lk_lock_token(lock);
    uint64_t before = atomic_exchange(&shared->token, token);
    test_check(token > before, "a token went from %#lx to %#lx", (unsigned long)before,
               (unsigned long)token);
    atomic_store(&shared->inside, 0);
    test_check(lk_lock_release(lock) == 0, "%s", lk_last_error());
}

/* One of the two: locks, also when the broker is gone, and stays until it is told to end. */
static int hold(void *arg)
{
    struct holder *holder = arg;
    struct test_client client;
    struct lk_segment_options options = test_options(4096, 1);
    test_client_open(&client, broker.socket_path, holder->name, &options);
    struct lk_lock *lock = test_lock(&client, 0);
    test_event_post(holder->ready);
    while (!test_event_wait_for(holder->go, LKI_NS_PER_S)) /* over many rounds */
        continue;
    for (unsigned i = 0; i < LOCKS_EACH; i++)
        lock_once(lock);
    test_event_post(holder->done);
    test_event_wait(holder->end);
    test_leave_as_it_is();
    return 0; /* without a word: there is nobody to say goodbye to */
}

static struct holder holder_new(const char *name)
{
    struct holder holder = {
        .ready = test_event(), .go = test_event(), .done = test_event(), .end = test_event()};
    snprintf(holder.name, sizeof(holder.name), "%s", name);
    return holder;
}

static void holder_free(struct holder *holder)
{
    close(holder->ready);
    close(holder->go);
    close(holder->done);
    close(holder->end);
}

/* As any client does: starts a broker if none answers. */
static struct lk_session *open_session(void)
{
    struct lk_session *session = NULL;
    int r = lk_session_open(broker.socket_path, NULL, &session);
    test_check(r == 0, "%s", lk_last_error());
    return session;
}

static int open_name(struct lk_session *session, const char *name)
{
    struct lk_segment *segment = NULL;
    struct lk_segment_options options = test_options(4096, 1);
    int r = lk_segment_open(session, name, &options, &segment);
    if (r >= 0)
        lk_segment_close(segment);
    return r;
}

static void expect_refused(struct lk_session *session, const char *name)
{
    int r = open_name(session, name);
    test_check(r == -EBUSY,
               "'%s' is had by a living process of an earlier broker, and opening it "
               "gives %d: %s",
               name, r, lk_last_error());
    test_check(strstr(lk_last_error(), "pid ") != NULL, "the text names nobody: %s",
               lk_last_error());
}

/* The broker learns of an end by itself, a little later. */
static void await_free(struct lk_session *session, const char *name)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    int r;
    while ((r = open_name(session, name)) == -EBUSY && lki_clock_now_ns() < deadline_ns)
        test_sleep_ns(LKI_NS_PER_MS);
    test_check(r == LK_CREATED, "'%s' is not free after the end of all who had it: %d %s", name, r,
               lk_last_error());
}

static void check_token_rises(struct lk_session *session, const char *name)
{
    struct test_client client = {.session = session};
    struct lk_segment_options options = test_options(4096, 1);
    test_check(lk_segment_open(session, name, &options, &client.segment) >= 0, "%s",
               lk_last_error());
    lock_once(test_lock(&client, 0));
    lk_segment_close(client.segment);
}

/* Its pid is in the lock file: the test did not start this one. */
static pid_t keeper_of_successor(void)
{
    char path[96];
    int pid = 0;
    snprintf(path, sizeof(path), "%s.lock", broker.socket_path);
    FILE *file = fopen(path, "re");
    test_check(file && fscanf(file, "%d", &pid) == 1, "no pid in %s", path);
    fclose(file);
    return pid;
}

static void kill_both(pid_t keeper, bool child)
{
    struct test_broker now = broker;
    now.pid = keeper;
    pid_t worker = test_broker_worker(&now);
    kill(keeper, SIGKILL);
    kill(worker, SIGKILL);
    if (child)
        waitpid(keeper, NULL, 0);
    /* Not until they are reaped: that is for whoever inherits them. */
    for (char state; (state = test_process_state(worker)) != 0 && state != 'Z';)
        test_sleep_ns(LKI_NS_PER_MS);
    for (char state; (state = test_process_state(keeper)) != 0 && state != 'Z';)
        test_sleep_ns(LKI_NS_PER_MS);
}

static void run_round(unsigned round, pid_t *keeper, const char *lasting)
{
    char name[32];
    snprintf(name, sizeof(name), "round-%u", round);
    atomic_store(&shared->token, 0);
    struct holder first = holder_new(name), second = holder_new(name);
    pid_t pids[2] = {test_spawn(hold, &first), test_spawn(hold, &second)};
    test_event_wait(first.ready);
    test_event_wait(second.ready);
    kill_both(*keeper, round == 0);
    test_event_post(first.go);
    test_event_post(second.go);
    struct lk_session *session = open_session(); /* starts the next one, while they lock */
    expect_refused(session, name);
    *keeper = keeper_of_successor(); /* it has answered: the file is its own */
    expect_refused(session, lasting);
    test_check(open_name(session, "another") == LK_CREATED, "%s", lk_last_error());
    test_event_wait(first.done);
    test_event_wait(second.done);
    test_event_post(first.end);
    test_reap_success(pids[0]);
    expect_refused(session, name);
    test_event_post(second.end);
    test_reap_success(pids[1]);
    await_free(session, name);
    check_token_rises(session, name);
    lk_session_close(session);
    holder_free(&first);
    holder_free(&second);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 2 && strcmp(argv[1], "--rounds") == 0 ? (unsigned)atoi(argv[2]) : 5;
    shared = test_shared(sizeof(*shared));
    setenv("LOCKKEEPERD", LK_DAEMON, 1);
    test_broker_start(&broker);
    struct holder lasting = holder_new("lasting");
    pid_t laster = test_spawn(hold, &lasting);
    test_event_wait(lasting.ready);
    pid_t keeper = broker.pid;
    for (unsigned round = 0; round < rounds; round++)
        run_round(round, &keeper, "lasting");
    atomic_store(&shared->token, 0);
    test_event_post(lasting.go);
    test_event_wait(lasting.done);
    test_event_post(lasting.end);
    test_reap_success(laster);
    printf("%u rounds: %u locks without a broker, %u overlaps; names refused while their processes "
           "lived, free afterwards; tokens rose\n",
           rounds, 2 * rounds * LOCKS_EACH, atomic_load(&shared->overlaps));
    kill(keeper, SIGTERM);
    for (char state; (state = test_process_state(keeper)) != 0 && state != 'Z';)
        test_sleep_ns(LKI_NS_PER_MS);
    test_broker_forget(&broker);
    return atomic_load(&shared->overlaps) == 0 ? 0 : 1;
}
