/* SPDX-License-Identifier: MIT */
/* Holders that are killed, or end otherwise while they hold. */
#include "fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"

#define DEATH_TEST(name) Test(death, name, .init = fixture_start, .fini = fixture_stop)

static struct lk_session *session;
static struct lk_segment *segment;
static struct lk_lock *lock;

static void open_all(void)
{
    session = open_session();
    segment = open_segment(session, "s", 4096, LK_CREATE);
    lock = open_lock(segment, 0);
}

enum ending {
    WAIT_TO_BE_KILLED,
    EXIT,
    EXEC,
    CLOSE_SESSION,
    CLOSE_SEGMENT,
};

struct plan {
    enum lk_mode mode;
    enum ending ending;
    size_t touched_bytes; /* memory that the kernel has to tear down */
};

static int hold_and_end(struct child *side, void *user)
{
    const struct plan *plan = user;
    static struct lk_session *own; /* not lost, but held to the end: no leak */
    struct lk_segment *own_segment = NULL;
    struct lk_lock *own_lock = NULL;
    CHILD_CHECK(lk_session_open(fixture.socket_path, NULL, &own) == 0);
    CHILD_CHECK(lk_segment_open(own, "s", NULL, &own_segment) == 0);
    CHILD_CHECK(lk_lock_at(own_segment, 0, &own_lock) == 0);
    if (plan->touched_bytes) {
        void *memory = mmap(NULL, plan->touched_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        CHILD_CHECK(memory != MAP_FAILED);
    }
    CHILD_CHECK(lk_lock_acquire(own_lock, plan->mode, 0) == LK_ACQUIRED);
    if (plan->mode == LK_EXCLUSIVE)
        CHILD_CHECK(lk_lock_declare(own_lock, 64, 8) == 0);
    child_tell(side);
    child_await(side);
    switch (plan->ending) {
    case WAIT_TO_BE_KILLED:
        child_await(side);
        break;
    case EXIT:
        return 0;
    case EXEC: {
        /* The new program lives on and must not hold; it ends when its input does. */
        (void)dup2(side->from_fd, 0);
        (void)execlp("cat", "cat", (char *)NULL);
        return 1;
    }
    case CLOSE_SESSION:
        lk_session_close(own);
        child_tell(side);
        child_await(side);
        return 0;
    case CLOSE_SEGMENT:
        lk_segment_close(own_segment);
        child_tell(side);
        child_await(side);
        lk_session_close(own);
        return 0;
    }
    return 1;
}

static struct child start_holder(const struct plan *plan)
{
    struct child child = child_start(hold_and_end, (void *)plan);
    child_await(&child);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EBUSY));
    return child;
}

static void expect_recovery(pid_t pid, uint32_t cause, uint64_t token)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0), "%s", lk_last_error());
    cr_expect(eq(i32, recovery.pid, pid));
    cr_expect(eq(u32, recovery.uid, geteuid()));
    cr_expect(eq(u32, recovery.cause, cause));
    cr_expect(eq(u64, recovery.token, token));
    cr_expect(eq(u32, recovery.declared, 1));
    cr_expect(eq(u64, recovery.dirty_offset, 64));
    cr_expect(eq(u64, recovery.dirty_length_bytes, 8));
    cr_expect(ne(str, recovery.command, ""));
}

/* Takes the lock after such an end; it has to be told, with the token risen, until it repairs. */
static void expect_owner_died(pid_t pid, uint32_t cause, uint64_t token)
{
    cr_assert(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED),
        "%s", lk_last_error());
    cr_expect(gt(u64, lk_lock_token(lock), token));
    expect_recovery(pid, cause, token);
    uint64_t version;
    cr_expect(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_read_begin(lock, &version), -EOWNERDEAD));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED_OWNER_DIED), "again");
    cr_expect(eq(int, lk_lock_mark_consistent(lock), 0));
    cr_expect(eq(int, lk_lock_release(lock), 0));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_release(lock), 0));
}

static void kill_and_take(size_t touched_bytes)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE, .touched_bytes = touched_bytes};
    struct child child = start_holder(&plan);
    uint64_t token = lk_lock_token(lock);
    pid_t pid = child.pid;
    cr_assert(eq(int, kill(pid, SIGKILL), 0));
    uint64_t start_ns = lki_clock_now_ns();
    cr_assert(
        eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED_OWNER_DIED),
        "%s", lk_last_error());
    printf("SIGKILL of a holder of %zu MB to the waiter's grant: %.3f ms\n", touched_bytes >> 20,
           (double)(lki_clock_now_ns() - start_ns) / 1e6);
    cr_assert(eq(int, lk_lock_release(lock), 0));
    expect_owner_died(pid, LK_CAUSE_EXITED, token);
    child_kill(&child);
    lk_session_close(session);
}

DEATH_TEST(successor_of_a_killed_holder_is_told)
{
    kill_and_take(0);
}

DEATH_TEST(much_memory_of_the_killed_does_not_delay)
{
    kill_and_take((size_t)256 << 20);
}

DEATH_TEST(exit_while_holding_is_no_silent_release)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE, .ending = EXIT};
    struct child child = start_holder(&plan);
    uint64_t token = lk_lock_token(lock);
    child_tell(&child);
    pid_t pid = child.pid;
    child_join(&child);
    expect_owner_died(pid, LK_CAUSE_EXITED, token);
    lk_session_close(session);
}

DEATH_TEST(close_of_the_session_while_holding_is_no_silent_release)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE, .ending = CLOSE_SESSION};
    struct child child = start_holder(&plan);
    uint64_t token = lk_lock_token(lock);
    child_tell(&child);
    child_await(&child);
    expect_owner_died(child.pid, LK_CAUSE_CLOSED, token);
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

DEATH_TEST(close_of_the_segment_while_holding_is_no_silent_release)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE, .ending = CLOSE_SEGMENT};
    struct child child = start_holder(&plan);
    uint64_t token = lk_lock_token(lock);
    child_tell(&child);
    child_await(&child);
    expect_owner_died(child.pid, LK_CAUSE_CLOSED, token);
    child_tell(&child);
    child_join(&child);
    lk_session_close(session);
}

DEATH_TEST(exec_while_holding_is_no_death_and_ends_with_the_process)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE, .ending = EXEC};
    struct child child = start_holder(&plan);
    uint64_t token = lk_lock_token(lock);
    child_tell(&child);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 50 * LKI_NS_PER_MS), -ETIMEDOUT),
              "the process is still there");
    pid_t pid = child.pid;
    close(child.to_fd); /* the end of its input ends cat */
    child.to_fd = -1;
    child_join(&child);
    expect_owner_died(pid, LK_CAUSE_EXITED, token);
    lk_session_close(session);
}

DEATH_TEST(hold_to_exit_ends_as_a_plain_release)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE_TO_EXIT, .ending = EXEC};
    struct child child = start_holder(&plan);
    child_tell(&child);
    close(child.to_fd);
    child.to_fd = -1;
    child_join(&child);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED));
    lk_session_close(session);
}

DEATH_TEST(killed_reader_does_not_keep_a_writer_out)
{
    open_all();
    struct plan plan = {.mode = LK_SHARED};
    struct child child = start_holder(&plan);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_release(lock), 0));
    child_kill(&child);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S), LK_ACQUIRED), "%s",
              lk_last_error());
    lk_session_close(session);
}

DEATH_TEST(lock_that_its_holder_took_along_is_free_after_it_was_killed_asleep)
{
    open_all();
    struct plan plan = {.mode = LK_EXCLUSIVE};
    struct child child = start_holder(&plan);
    cr_assert(eq(int, kill(child.pid, SIGSTOP), 0)); /* stopped is not dead */
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 20 * LKI_NS_PER_MS), -ETIMEDOUT));
    uint64_t token = lk_lock_token(lock);
    pid_t pid = child.pid;
    child_kill(&child);
    expect_owner_died(pid, LK_CAUSE_EXITED, token);
    lk_session_close(session);
}
