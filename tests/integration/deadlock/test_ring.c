/* SPDX-License-Identifier: MIT */
/* Rings of processes over several segments: exactly one is refused, soon, and is told why; the
 * others get what they wait for. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define MEMBERS_MAX 16

/* Without the questions asked before sleeping, the one with the first long nap would come later. */
#define SOON_NS (200 * LKI_NS_PER_MS)
#define SOON_AFTER_RESTART_NS (2 * LKI_NS_PER_S) /* a sanitized one takes its time to begin */

enum kind {
    NATIVE,
    STRICT, /* the segment that it waits in is strict: the broker waits for it */
    ASYNC,
    KINDS,
};

struct ring { /* shared by the members of one */
    unsigned members;
    bool mixed_kinds;
    bool mixed_modes;
    _Atomic unsigned waiting;      /* about to wait, or waiting */
    _Atomic uint64_t last_wait_ns; /* when the last of them began to wait */
    _Atomic uint64_t refused_ns;
    _Atomic unsigned victims;
    _Atomic unsigned granted;
    char report[3000];
};

struct member {
    struct ring *ring;
    unsigned number;
};

static struct test_broker broker;
static struct ring *ring;
static struct member members[MEMBERS_MAX];
static int held, go;

static void setup(void)
{
    test_broker_start(&broker);
    held = test_event();
    go = test_event();
    ring = test_shared(sizeof(*ring));
}

static void teardown(void)
{
    test_broker_stop(&broker);
}

TestSuite(ring, .init = setup, .fini = teardown, .timeout = 100);

static enum kind kind_of(unsigned number)
{
    return ring->mixed_kinds ? (enum kind)(number % KINDS) : NATIVE;
}

static enum lk_mode held_mode(unsigned number)
{
    return ring->mixed_modes && number % 2 ? LK_SHARED : LK_EXCLUSIVE;
}

/* A segment per member, with its lock; strict if whoever waits there is to be brokered. */
static struct lk_lock *open_place(struct lk_session *session, unsigned number)
{
    unsigned waiter = (number + ring->members - 1) % ring->members;
    struct lk_segment_options options = test_options(0, 4);
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    char name[32];
    snprintf(name, sizeof(name), "place-%u", number);
    if (kind_of(waiter) == STRICT)
        options.flags |= LK_STRICT;
    int r = lk_segment_open(session, name, &options, &segment);
    test_check(r >= 0, "%s", lk_last_error());
    r = lk_lock_at(segment, number % 4, &lock);
    test_check(r == 0, "%s", lk_last_error());
    return lock;
}

static void note(struct lk_lock *lock, int result, void *user)
{
    (void)lock;
    *(int *)user = result;
}

static int acquire_async(struct lk_session *session, struct lk_lock *lock, enum lk_mode mode)
{
    int result = INT32_MIN;
    int r = lk_lock_acquire_async(lock, mode, LK_WAIT_FOREVER, note, &result);
    test_check(r == 0, "%s", lk_last_error());
    struct pollfd ready = {.fd = lk_session_fd(session), .events = POLLIN};
    while (result == INT32_MIN) {
        test_check(poll(&ready, 1, 30000) == 1, "no answer");
        r = lk_session_dispatch(session);
        test_check(r >= 0, "%s", lk_last_error());
    }
    return result;
}

static void raise_to(_Atomic uint64_t *value, uint64_t to)
{
    uint64_t seen = atomic_load(value);
    while (seen < to && !atomic_compare_exchange_weak(value, &seen, to))
        ;
}

static int wait_in_ring(void *arg)
{
    const struct member *self = arg;
    unsigned next = (self->number + 1) % ring->members;
    struct lk_session *session = test_session(broker.socket_path);
    struct lk_lock *own = open_place(session, self->number);
    struct lk_lock *wanted = open_place(session, next);
    enum lk_mode mode =
        held_mode(next) == LK_SHARED || self->number % 3 == 0 ? LK_EXCLUSIVE : LK_SHARED;

    test_acquire(own, held_mode(self->number));
    test_event_post(held);
    test_event_wait(go);
    raise_to(&ring->last_wait_ns, lki_clock_now_ns());
    atomic_fetch_add(&ring->waiting, 1);
    int r = kind_of(self->number) == ASYNC ? acquire_async(session, wanted, mode)
                                           : lk_lock_acquire(wanted, mode, LK_WAIT_FOREVER);
    if (r == -EDEADLK) {
        atomic_store(&ring->refused_ns, lki_clock_now_ns());
        atomic_fetch_add(&ring->victims, 1);
        snprintf(ring->report, sizeof(ring->report), "%s", lk_last_error());
    } else {
        test_check(r == LK_ACQUIRED, "%d, %s", r, lk_last_error());
        atomic_fetch_add(&ring->granted, 1);
        test_release(wanted);
    }
    test_release(own);
    lk_session_close(session);
    return 0;
}

/* The ring is open at one place when the broker's worker dies. */
static void restart_worker(unsigned waiting)
{
    while (atomic_load(&ring->waiting) < waiting)
        test_sleep_ns(LKI_NS_PER_MS / 10);
    test_sleep_ns(2 * LKI_NS_PER_MS); /* so that most of them sleep, and some only begin to */
    pid_t worker = test_broker_worker(&broker);
    test_check(kill(worker, SIGKILL) == 0, "cannot kill the worker");
    while (test_broker_worker(&broker) == worker)
        test_sleep_ns(LKI_NS_PER_MS / 10);
}

static void run_ring(unsigned count, bool mixed_kinds, bool mixed_modes, bool restart)
{
    pid_t pids[MEMBERS_MAX];
    memset(ring, 0, sizeof(*ring));
    ring->members = count;
    ring->mixed_kinds = mixed_kinds;
    ring->mixed_modes = mixed_modes;
    for (unsigned i = 0; i < count; i++) {
        members[i] = (struct member){ring, i};
        pids[i] = test_spawn(wait_in_ring, &members[i]);
    }
    for (unsigned i = 0; i < count; i++)
        test_event_wait(held);
    for (unsigned i = 0; i < count; i++) {
        if (restart && i == count - 1)
            restart_worker(count - 1);
        test_event_post(go);
    }
    for (unsigned i = 0; i < count; i++)
        test_reap_success(pids[i]);
    cr_expect(eq(uint, ring->victims, 1), "of %u", count);
    cr_expect(eq(uint, ring->granted, count - 1));
    uint64_t took_ns = ring->refused_ns - ring->last_wait_ns;
    cr_expect(lt(u64, took_ns, restart ? SOON_AFTER_RESTART_NS : SOON_NS), "of %u", count);
    printf("ring of %u%s%s%s: refused after %.1f ms\n", count, restart ? ", worker restarted" : "",
           mixed_kinds ? ", mixed kinds" : "", mixed_modes ? ", mixed modes" : "",
           (double)took_ns / LKI_NS_PER_MS);
}

static const unsigned sizes[] = {2, 3, 8, 16};

Test(ring, of_native_owners_has_one_victim)
{
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        run_ring(sizes[i], false, false, false);
}

Test(ring, of_readers_and_writers_has_one_victim)
{
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        run_ring(sizes[i], false, true, false);
}

Test(ring, of_native_brokered_and_asynchronous_waiters_has_one_victim)
{
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        run_ring(sizes[i], true, false, false);
        run_ring(sizes[i], true, true, false);
    }
}

Test(ring, whose_last_wait_comes_while_the_worker_is_replaced_has_one_victim)
{
    broker.restarts = true;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        run_ring(sizes[i], false, true, true);
        run_ring(sizes[i], true, true, true);
    }
}

static bool log_has(const char *words)
{
    FILE *log = fopen(broker.log_path, "r");
    test_check(log != NULL, "no log");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (!found && getline(&line, &room, log) >= 0)
        found = strstr(line, words) != NULL;
    free(line);
    fclose(log);
    return found;
}

Test(ring, is_reported_as_a_whole_to_its_victim_and_to_the_log)
{
    run_ring(16, false, false, false);
    cr_expect(ne(ptr, strstr(ring->report, "16 sessions in a ring: this session waits for"), NULL),
              "%s", ring->report);
    unsigned links = 0;
    for (const char *at = ring->report; (at = strstr(at, ", held by ")); at++)
        links++;
    cr_expect(eq(uint, links, 16), "%s", ring->report);
    cr_expect(ne(ptr,
                 strstr(ring->report,
                        "held by this session (EDEADLK); release what you hold, and try again"),
                 NULL),
              "%s", ring->report);
    cr_expect(log_has("deadlock of 16 sessions: pid "));
    cr_expect(log_has("/place-9#1', held by pid "));
}
