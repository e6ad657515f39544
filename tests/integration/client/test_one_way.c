/* SPDX-License-Identifier: MIT */
/* Brokered releases that are not waited for: by processes that end at once, and which they are. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "client/lock.h"
#include "client/session.h"
#include "common/clock.h"
#include "tests/support/watch.h"

#define ONE_WAY_TEST(name) Test(one_way, name, .init = fixture_start, .fini = fixture_stop)
#define ROUNDS 400

static struct lk_session *session;
static struct lk_lock *lock;

static void open_strict(void)
{
    session = open_session();
    lock = open_lock(open_segment(session, "s", 4096, LK_CREATE | LK_STRICT), 0);
}

static uint64_t count_sent(const struct lk_session *of)
{
    return of->transport.last_id;
}

/* Whether the broker has answered the last request. */
static bool is_answered(void)
{
    uint8_t byte;
    struct lk_session *own = session;
    return recv(own->transport.socket_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

ONE_WAY_TEST(release_sends_one_record_and_gets_none)
{
    open_strict();
    for (int i = 0; i < 3; i++) {
        cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "%s",
                  lk_last_error());
        cr_expect(lock->held_one_way);
        uint64_t sent = count_sent(session);
        cr_expect(eq(int, lk_lock_release(lock), 0));
        cr_expect(eq(u64, count_sent(session), sent + 1));
        cr_expect(eq(int, lk_lock_release(lock), -EPERM), "known without the broker");
        cr_expect(eq(u64, count_sent(session), sent + 1));
    }
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_expect(eq(int, lk_lock_holder(lock, &holder), 0));
    cr_expect(eq(u32, holder.holders, 0), "what comes behind it comes after it");
    cr_expect(not(is_answered()));
    lk_session_close(session);
}

static pid_t worker_pid(void)
{
    char path[64], text[32] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", fixture.daemon, fixture.daemon);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(ge(int, fd, 0));
    cr_assert(gt(long, read(fd, text, sizeof(text) - 1), 0));
    close(fd);
    return (pid_t)atoi(text);
}

/* It may be spinning: from here on it reads nothing. */
static void stop_worker(void)
{
    pid_t pid = worker_pid();
    cr_assert(eq(int, kill(pid, SIGSTOP), 0));
    while (test_process_state(pid) != 'T')
        (void)sched_yield();
}

static void continue_worker(void)
{
    cr_assert(eq(int, kill(worker_pid(), SIGCONT), 0));
}

enum beside {
    NOTHING,
    A_NATIVE_SEGMENT,
    A_PENDING_ACQUIRE,
};

static void ignore_grant(struct lk_lock *of, int result, void *user)
{
    (void)of;
    (void)result;
    (void)user;
}

static int release_when_told(struct child *side, void *user)
{
    const enum beside *beside = user;
    struct lk_session *own = NULL;
    struct lk_segment *segment = NULL, *native = NULL;
    struct lk_lock *own_lock = NULL, *other = NULL;
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = 4096, .flags = LK_CREATE};
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &segment) == 0);
    CHILD_CHECK(lk_lock_at(segment, 0, &own_lock) == 0 && lk_lock_at(segment, 1, &other) == 0);
    if (*beside == A_NATIVE_SEGMENT)
        CHILD_CHECK(lk_segment_open(own, "native", &options, &native) >= 0);
    CHILD_CHECK(lk_lock_acquire(own_lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    if (*beside == A_PENDING_ACQUIRE)
        CHILD_CHECK(
            lk_lock_acquire_async(other, LK_EXCLUSIVE, LK_WAIT_FOREVER, ignore_grant, NULL) == 0);
    child_tell(side);
    child_await(side);
    CHILD_CHECK(lk_lock_release(own_lock) == 0);
    child_tell(side);
    child_await(side);
    lk_session_close(own);
    return 0;
}

static void check_waits_for_nobody(enum beside beside)
{
    open_strict();
    struct child child = child_start(release_when_told, &beside);
    child_await(&child);
    stop_worker();
    child_tell(&child);
    cr_expect(child_has_told(&child, 10000));
    continue_worker();
    child_await(&child);
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

ONE_WAY_TEST(release_does_not_wait_for_a_broker_that_is_stopped)
{
    check_waits_for_nobody(NOTHING);
}

ONE_WAY_TEST(nor_does_that_of_a_session_that_may_wait_in_shared_memory)
{
    check_waits_for_nobody(A_NATIVE_SEGMENT);
}

ONE_WAY_TEST(nor_does_that_of_a_session_that_waits_asynchronously)
{
    check_waits_for_nobody(A_PENDING_ACQUIRE);
}

/* --- Asynchronous holds --- */

struct outcome {
    bool called;
    int result;
};

static void note_outcome(struct lk_lock *of, int result, void *user)
{
    (void)of;
    *(struct outcome *)user = (struct outcome){.called = true, .result = result};
}

static void begin(struct lk_lock *of, struct outcome *outcome)
{
    *outcome = (struct outcome){.called = false};
    cr_assert(
        eq(int, lk_lock_acquire_async(of, LK_EXCLUSIVE, LK_WAIT_FOREVER, note_outcome, outcome), 0),
        "%s", lk_last_error());
}

static int await_outcome(struct lk_session *of, const struct outcome *outcome)
{
    struct pollfd polled = {.fd = lk_session_fd(of), .events = POLLIN};
    while (!outcome->called) {
        cr_assert(eq(int, poll(&polled, 1, 20000), 1), "not answered");
        cr_assert(ge(int, lk_session_dispatch(of), 0), "%s", lk_last_error());
    }
    return outcome->result;
}

ONE_WAY_TEST(asynchronous_holds_are_released_so)
{
    struct outcome outcome;
    open_strict();
    for (int i = 0; i < 3000; i++) { /* the generations of a slot come round */
        begin(lock, &outcome);
        cr_assert(eq(int, await_outcome(session, &outcome), LK_ACQUIRED));
        cr_assert(lock->held_one_way);
        uint64_t sent = count_sent(session);
        cr_expect(eq(int, lk_lock_release(lock), 0));
        cr_expect(eq(u64, count_sent(session), sent + 1));
    }
    struct lk_holder holder = {.size = sizeof(holder)};
    cr_expect(eq(int, lk_lock_holder(lock, &holder), 0));
    cr_expect(eq(u32, holder.holders, 0));
    cr_expect(not(is_answered()));
    lk_session_close(session);
}

ONE_WAY_TEST(asynchronous_holds_beside_native_locks_are_not)
{
    struct outcome outcome;
    session = open_session();
    lock = open_lock(open_segment(session, "native", 4096, LK_CREATE), 0);
    begin(lock, &outcome);
    cr_assert(eq(int, await_outcome(session, &outcome), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED),
              "free for its own session at once");
    cr_expect(eq(int, lk_lock_release(lock), 0));
    lk_session_close(session);
}

/* --- Rings --- */

/* This session releases lock 0 while it waits for lock 1. The broker hears the holder of lock 1, who wants lock 0,
 * first: that one has said something before. */
ONE_WAY_TEST(hold_whose_release_is_unread_closes_no_ring)
{
    struct outcome waits, earlier, wants;
    open_strict();
    struct lk_session *other = open_session();
    struct lk_segment *segment = open_segment(other, "s", 0, 0);
    struct lk_lock *held = open_lock(segment, 1);
    for (int i = 0; i < 20; i++) {
        cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), LK_ACQUIRED));
        cr_assert(eq(int, lk_lock_acquire(held, LK_EXCLUSIVE, LK_WAIT_FOREVER), LK_ACQUIRED));
        struct lk_lock *awaited = open_lock(lock->segment, 1);
        begin(awaited, &waits);
        struct lk_holder holder = {.size = sizeof(holder)};
        cr_assert(eq(int, lk_lock_holder(lock, &holder), 0)); /* the wait has been heard */
        stop_worker();
        begin(open_lock(segment, 2), &earlier);
        cr_assert(eq(int, lk_lock_release(lock), 0));
        begin(open_lock(segment, 0), &wants);
        continue_worker();
        cr_assert(eq(int, await_outcome(other, &wants), LK_ACQUIRED), "%s",
                  lk_strerror(wants.result));
        cr_assert(eq(int, await_outcome(other, &earlier), LK_ACQUIRED));
        cr_assert(eq(int, lk_lock_release(open_lock(segment, 0)), 0));
        cr_assert(eq(int, lk_lock_release(open_lock(segment, 2)), 0));
        cr_assert(eq(int, lk_lock_release(held), 0));
        cr_assert(eq(int, await_outcome(session, &waits), LK_ACQUIRED));
        cr_assert(eq(int, lk_lock_release(awaited), 0));
    }
    lk_session_close(other);
    lk_session_close(session);
}

/* --- Processes that release and end --- */

enum ending {
    EXITS,
    KILLS_ITSELF,
    EXITS_WITH_A_CHILD_THAT_STAYS,
    ENDINGS,
};

static void leave_a_child(void)
{
    if (fork() == 0) { /* has the socket, and says nothing */
        prctl(PR_SET_PDEATHSIG, 0);
        /* Outlives its parent, whose end is what counts; nobody could tell it when to go. */
        usleep(100 * 1000);
        _exit(0);
    }
}

static void release_and_end(enum ending ending)
{
    struct lk_session *own = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *own_lock = NULL;
    const struct lk_segment_options options = {.size = sizeof(options)};
    if (lk_session_open(fixture.socket_path, NULL, &own) < 0 ||
        lk_segment_open(own, "s", &options, &segment) < 0 || lk_lock_at(segment, 0, &own_lock) < 0)
        _exit(2);
    if (ending == EXITS_WITH_A_CHILD_THAT_STAYS)
        leave_a_child();
    int r = lk_lock_acquire(own_lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    if (r < 0)
        _exit(3);
    if (lk_lock_release(own_lock) < 0)
        _exit(4);
    if (ending == KILLS_ITSELF)
        kill(getpid(), SIGKILL);
    _exit(r == LK_ACQUIRED ? 0 : 5);
}

static void check_endings(enum ending ending, int rounds)
{
    open_strict();
    for (int i = 0; i < rounds; i++) {
        pid_t pid = fork();
        cr_assert(ge(int, pid, 0));
        if (pid == 0)
            release_and_end(ending);
        /* Waits with it for the lock, so that its end is looked at early as well. */
        int r = lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
        cr_assert(eq(int, r, LK_ACQUIRED), "round %d", i);
        cr_assert(eq(int, lk_lock_release(lock), 0));
        int status;
        cr_assert(eq(int, waitpid(pid, &status, 0), pid));
        cr_assert(ending == KILLS_ITSELF ? WIFSIGNALED(status) : status == 0, "round %d: %x", i,
                  (unsigned)status);
        r = lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
        cr_assert(eq(int, r, LK_ACQUIRED), "round %d: left by a death, after its end", i);
        cr_assert(eq(int, lk_lock_release(lock), 0));
    }
    lk_session_close(session);
}

ONE_WAY_TEST(process_that_releases_and_exits_leaves_no_death)
{
    check_endings(EXITS, ROUNDS);
}

ONE_WAY_TEST(process_that_releases_and_is_killed_leaves_no_death)
{
    check_endings(KILLS_ITSELF, ROUNDS);
}

ONE_WAY_TEST(process_whose_child_keeps_the_socket_leaves_no_death)
{
    check_endings(EXITS_WITH_A_CHILD_THAT_STAYS, ROUNDS / 10);
}

/* Holds the lock, stops, and when it goes on releases and ends: with a broker that is stopped meanwhile. */
typedef void (*prepare_fn)(struct lk_session *own, const struct lk_lock *own_lock);

static void hold_and_end(prepare_fn before_holding, prepare_fn before_release)
{
    struct lk_session *own = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *own_lock = NULL;
    const struct lk_segment_options options = {.size = sizeof(options)};
    if (lk_session_open(fixture.socket_path, NULL, &own) < 0 ||
        lk_segment_open(own, "s", &options, &segment) < 0 || lk_lock_at(segment, 0, &own_lock) < 0)
        _exit(2);
    if (before_holding)
        before_holding(own, own_lock);
    if (lk_lock_acquire(own_lock, LK_EXCLUSIVE, 0) != LK_ACQUIRED)
        _exit(3);
    (void)raise(SIGSTOP);
    if (before_release)
        before_release(own, own_lock);
    _exit(lk_lock_release(own_lock) < 0 ? 4 : 0);
}

static void check_unread(prepare_fn before_holding, prepare_fn before_release,
                         struct lk_session *speaks_first)
{
    int status;
    pid_t pid = fork();
    cr_assert(ge(int, pid, 0));
    if (pid == 0)
        hold_and_end(before_holding, before_release);
    cr_assert(eq(int, waitpid(pid, &status, WUNTRACED), pid));
    bool stopped = WIFSTOPPED(status);
    cr_assert(stopped, "%x", (unsigned)status);
    stop_worker();
    if (speaks_first) {
        char name[32];
        int length = snprintf(name, sizeof(name), "~%u/new", getuid());
        struct lki_message open = {.type = LKI_REQUEST_OPEN,
                                   .as.open = {.name = {(const uint8_t *)name, (size_t)length},
                                               .flags = LK_CREATE,
                                               .locks = 1}};
        cr_assert(eq(int, lki_transport_send(&speaks_first->transport, &open, -1), 0));
    }
    cr_assert(eq(int, kill(pid, SIGCONT), 0));
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    continue_worker();
    cr_expect(eq(int, status, 0));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), LK_ACQUIRED),
              "a release was not read");
    cr_expect(eq(int, lk_lock_release(lock), 0));
}

/* More than the broker reads in one turn, so that it learns of the end first. */
static void say_much(struct lk_session *own, const struct lk_lock *own_lock)
{
    struct lki_message nudge = {.type = LKI_REQUEST_NUDGE,
                                .as.segment_ref = {own_lock->segment->number}};
    for (int i = 0; i < 100; i++)
        (void)lki_transport_send_hint(&own->transport, &nudge);
}

ONE_WAY_TEST(process_whose_end_is_seen_before_its_release_leaves_no_death)
{
    open_strict();
    check_unread(NULL, say_much, NULL);
    lk_session_close(session);
}

static void watch(struct lk_session *own, const struct lk_lock *own_lock)
{
    struct lki_message monitor = {.type = LKI_REQUEST_MONITOR};
    struct lki_record reply = {.fd_count = 0};
    (void)own_lock;
    if (lki_session_call(own, &monitor, -1, LKI_TIME_NEVER, &reply) < 0)
        _exit(5);
    lki_record_deinit(&reply);
}

/* It is sent an event that it cannot receive any more, which ends its connection. */
ONE_WAY_TEST(process_whose_connection_ends_by_a_send_leaves_no_death)
{
    open_strict();
    struct lk_session *other = open_session();
    open_segment(other, "s", 0, 0);
    check_unread(watch, NULL, other);
    lk_session_close(other);
    lk_session_close(session);
}
