/* SPDX-License-Identifier: MIT */
#include "client/lock.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "area_fixture.h"
#include "common/clock.h"

static struct area_fixture fixture;
static struct lk_segment *ours, *theirs;
static struct lk_lock *lock, *their_lock;

static void setup(void)
{
    area_fixture_init(&fixture);
    ours = area_fixture_attach(&fixture, -1);
    theirs = area_fixture_attach(&fixture, -1);
    cr_assert(lk_lock_at(ours, 3, &lock) == 0);
    cr_assert(lk_lock_at(theirs, 3, &their_lock) == 0);
}

static void teardown(void)
{
    lk_session_close(ours->session);
    lk_session_close(theirs->session);
    area_fixture_deinit(&fixture);
}

#define LOCK_TEST(name) Test(lock, name, .init = setup, .fini = teardown)

static bool error_has(const char *words)
{
    return strstr(lk_last_error(), words) != NULL;
}

LOCK_TEST(token_rises_with_every_hold)
{
    uint64_t before = lk_lock_token(lock);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    uint64_t inside = lk_lock_token(lock);
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(gt(u64, inside, before));
    cr_assert(gt(u64, lk_lock_token(lock), inside));
}

LOCK_TEST(same_index_is_the_same_handle)
{
    struct lk_lock *again = NULL;
    cr_assert(eq(int, lk_lock_at(ours, 3, &again), 0));
    cr_assert(eq(ptr, again, lock));
    lk_lock_close(again);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED), "one count is left");
    cr_assert(eq(int, lk_lock_release(lock), 0));
}

LOCK_TEST(index_beyond_the_table_is_told_its_size)
{
    struct lk_lock *none = NULL;
    cr_assert(eq(int, lk_lock_at(ours, AREA_LOCKS, &none), -ERANGE));
    cr_assert(error_has("24 locks, 0 to 23"), "%s", lk_last_error());
    cr_assert(eq(ptr, none, NULL));
}

LOCK_TEST(held_lock_is_busy_for_others_and_named)
{
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -EBUSY));
    cr_assert(error_has("'build#3'"), "%s", lk_last_error());
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EBUSY));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
}

LOCK_TEST(timeout_is_kept_and_leaves_nothing_behind)
{
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    uint64_t start_ns = lki_clock_now_ns();
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 5 * LKI_NS_PER_MS), -ETIMEDOUT));
    cr_assert(ge(u64, lki_clock_now_ns() - start_ns, 5 * LKI_NS_PER_MS));
    cr_assert(error_has("'build#3'") && error_has("lockkeeper why build#3"), "%s", lk_last_error());
    cr_assert(eq(u64, ours->party.self->wait, LKI_WAIT_NONE));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
}

LOCK_TEST(locks_do_not_nest_in_any_mode)
{
    static const enum lk_mode modes[] = {LK_SHARED, LK_EXCLUSIVE};
    for (int held = 0; held < 2; held++)
        for (int wanted = 0; wanted < 2; wanted++) {
            cr_assert(eq(int, lk_lock_acquire(lock, modes[held], 0), LK_ACQUIRED));
            cr_expect(eq(int, lk_lock_acquire(lock, modes[wanted], LK_WAIT_FOREVER), -EDEADLK),
                      "%d in %d", wanted, held);
            cr_assert(eq(int, lk_lock_release(lock), 0), "still held once");
            cr_assert(eq(int, lk_lock_release(lock), -EPERM));
        }
}

LOCK_TEST(release_by_another_changes_nothing_and_is_loud)
{
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_release(lock), -EPERM));
    cr_assert(error_has("DOES NOT HOLD"), "%s", lk_last_error());
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), -EBUSY), "they hold it still");
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    cr_assert(eq(int, lk_lock_release(their_lock), -EPERM), "twice");
}

LOCK_TEST(seventeenth_shared_hold_is_refused)
{
    struct lk_lock *locks[LKI_SHARED_HOLDS_MAX + 1];
    for (uint32_t i = 0; i <= LKI_SHARED_HOLDS_MAX; i++)
        cr_assert(eq(int, lk_lock_at(ours, i, &locks[i]), 0));
    for (uint32_t i = 0; i < LKI_SHARED_HOLDS_MAX; i++)
        cr_assert(eq(int, lk_lock_acquire(locks[i], LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(locks[LKI_SHARED_HOLDS_MAX], LK_SHARED, 0), -ENOLCK));
    cr_assert(
        eq(int, lk_lock_acquire(locks[LKI_SHARED_HOLDS_MAX], LK_SHARED, LKI_NS_PER_MS), -ENOLCK));
    cr_assert(eq(int, lk_lock_release(locks[0]), 0));
    cr_assert(eq(int, lk_lock_acquire(locks[LKI_SHARED_HOLDS_MAX], LK_SHARED, 0), LK_ACQUIRED));
}

LOCK_TEST(readers_are_together_and_keep_a_writer_out)
{
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LKI_NS_PER_MS), -ETIMEDOUT));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
}

LOCK_TEST(update_mode_is_one_beside_readers)
{
    cr_assert(eq(int, lk_lock_acquire(lock, LK_UPDATE, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_UPDATE, 0), -EBUSY));
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_upgrade(their_lock, 0), -EPERM), "a reader");
    cr_expect(error_has("DOES NOT HOLD IT for update"), "%s", lk_last_error());
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), -EBUSY));
    cr_expect(eq(int, lk_lock_downgrade(their_lock, LK_SHARED), -EPERM));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    cr_expect(eq(int, lk_lock_upgrade(lock, LK_WAIT_FOREVER), LK_ACQUIRED));
    cr_expect(eq(int, lk_lock_upgrade(lock, 0), -EPERM), "not for update any more");
    cr_expect(eq(int, lk_lock_acquire(their_lock, LK_SHARED, 0), -EBUSY));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_EXCLUSIVE), -EINVAL));
    cr_expect(eq(int, lk_lock_downgrade(lock, LK_SHARED), 0));
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_release(lock), 0));
}

LOCK_TEST(wrong_arguments_are_refused)
{
    cr_expect(eq(int, lk_lock_acquire(NULL, LK_SHARED, 0), -EINVAL));
    cr_expect(eq(int, lk_lock_acquire(lock, (enum lk_mode)0, 0), -EINVAL));
    cr_expect(eq(int, lk_lock_acquire(lock, (enum lk_mode)4, 0), -EINVAL));
    cr_expect(eq(int, lk_lock_acquire(lock, (enum lk_mode)(LK_SHARED | LK_TO_EXIT), 0), -EINVAL));
    cr_expect(eq(int, lk_lock_release(NULL), -EINVAL));
    cr_expect(eq(int, lk_lock_upgrade(NULL, 0), -EINVAL));
    cr_expect(eq(int, lk_lock_downgrade(NULL, LK_SHARED), -EINVAL));
    cr_expect(eq(int, lk_lock_at(NULL, 0, &lock), -EINVAL));
    cr_expect(eq(int, lk_lock_at(ours, 0, NULL), -EINVAL));
    cr_expect(eq(int, lk_lock_declare(lock, UINT64_MAX, 2), -EINVAL));
    cr_expect(eq(int, lk_lock_named(ours, "123", &lock), -EINVAL), "all digits is an index");
}

LOCK_TEST(handles_answer_stale_after_close)
{
    cr_assert(eq(ptr, lk_lock_close(lock), NULL));
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -ESTALE));
    cr_expect(eq(int, lk_lock_release(lock), -ESTALE));
    cr_expect(eq(u64, lk_lock_token(lock), 0));
    uint64_t version;
    cr_expect(eq(int, lk_read_begin(lock, &version), -ESTALE));

    struct lk_lock *again = NULL;
    cr_assert(eq(int, lk_lock_at(ours, 3, &again), 0));
    cr_assert(eq(int, lk_lock_acquire(again, LK_EXCLUSIVE, 0), LK_ACQUIRED));
}

LOCK_TEST(locks_of_a_closed_segment_are_stale)
{
    lk_segment_close(ours);
    cr_expect(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), -ESTALE));
    cr_expect(eq(int, lk_lock_release(lock), -ESTALE));
    struct lk_lock *none = NULL;
    cr_expect(eq(int, lk_lock_at(ours, 3, &none), -ESTALE));
    lk_segment_close(ours); /* twice is once */
}

LOCK_TEST(forked_child_is_stale_and_leaves_the_parent_alone)
{
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    pid_t child = fork();
    if (child == 0) {
        bool stale = lk_lock_release(lock) == -ESTALE &&
                     lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == -ESTALE &&
                     strstr(lk_last_error(), "fork()") != NULL;
        lk_session_close(ours->session);
        _exit(stale ? 0 : 1);
    }
    int status = 0;
    cr_assert(eq(int, waitpid(child, &status, 0), child));
    cr_assert(eq(int, status, 0));
    cr_assert(eq(int, lk_lock_release(lock), 0), "held still");
}

LOCK_TEST(successor_of_a_dead_owner_is_told_until_it_repairs)
{
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    uint64_t their_token = lk_lock_token(their_lock);
    cr_assert(eq(int, lk_lock_declare(their_lock, 4096, 100), 0));
    area_fixture_repair(&fixture, theirs);

    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED_OWNER_DIED));
    cr_assert(gt(u64, lk_lock_token(lock), their_token));
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), 0));
    cr_expect(eq(i32, recovery.pid, 4711));
    cr_expect(eq(u32, recovery.uid, 1000));
    cr_expect(eq(u32, recovery.cause, LK_CAUSE_EXITED));
    cr_expect(eq(u64, recovery.token, their_token));
    cr_expect(eq(u32, recovery.declared, 1));
    cr_expect(eq(u64, recovery.dirty_offset, 4096));
    cr_expect(eq(u64, recovery.dirty_length_bytes, 100));
    cr_expect(eq(str, recovery.command, "train.py"));

    uint64_t version;
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_read_begin(lock, &version), -EOWNERDEAD));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_SHARED, 0), LK_ACQUIRED_OWNER_DIED), "again");
    cr_assert(eq(int, lk_lock_mark_consistent(lock), -EPERM), "a reader repairs nothing");
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED_OWNER_DIED));
    cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
    cr_assert(eq(int, lk_lock_release(lock), 0));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
}

LOCK_TEST(death_of_a_hold_to_exit_is_a_plain_release)
{
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE_TO_EXIT, 0), LK_ACQUIRED));
    area_fixture_repair(&fixture, theirs);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
}

LOCK_TEST(lock_that_never_was_recovered_has_nothing_to_tell)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    cr_assert(eq(int, lk_lock_recovery(lock, &recovery), -ENOENT));
}

LOCK_TEST(optimistic_read_notices_a_writer)
{
    uint64_t version = 0;
    cr_assert(eq(int, lk_read_begin(lock, &version), 0));
    cr_assert(lk_read_valid(lock, version));

    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(not(lk_read_valid(lock, version)));
    cr_assert(eq(int, lk_read_begin(lock, &version), -EAGAIN));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
    cr_assert(eq(int, lk_read_begin(lock, &version), 0));
    cr_assert(lk_read_valid(lock, version));
}

LOCK_TEST(copies_of_any_alignment_are_whole)
{
    unsigned char from[64], to[64];
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (unsigned char)(i + 1);
    for (size_t offset = 0; offset < 9; offset++)
        for (size_t bytes = 0; bytes < 30; bytes++) {
            memset(to, 0, sizeof(to));
            lk_read_copy(to + 8 - offset / 2, from + offset, bytes);
            cr_expect(memcmp(to + 8 - offset / 2, from + offset, bytes) == 0, "%zu %zu", offset,
                      bytes);
            cr_expect(eq(u8, to[8 - offset / 2 + bytes], 0), "not beyond");
        }
}

/* A second thread waits with its own session; the main thread hands over. */
static void *wait_exclusive(void *unused)
{
    (void)unused;
    static int result;
    result = lk_lock_acquire(their_lock, LK_EXCLUSIVE, 20 * LKI_NS_PER_S);
    return &result;
}

LOCK_TEST(release_wakes_the_one_who_sleeps)
{
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    pthread_t thread;
    cr_assert(eq(int, pthread_create(&thread, NULL, wait_exclusive, NULL), 0));
    while (!(fixture.area.hot[3].word & LKI_PARKED)) /* it is in the queue, and about to sleep */
        sched_yield();
    uint64_t start_ns = lki_clock_now_ns();
    cr_assert(eq(int, lk_lock_release(lock), 0));
    void *result = NULL;
    pthread_join(thread, &result);
    cr_assert(eq(int, *(int *)result, LK_ACQUIRED));
    cr_assert(lt(u64, lki_clock_now_ns() - start_ns, 10 * LKI_NS_PER_S));
    cr_assert(eq(int, lk_lock_release(their_lock), 0));
}

LOCK_TEST(attachment_that_the_broker_ended_is_stale)
{
    area_fixture_repair(&fixture, ours);
    cr_assert(eq(int, lk_lock_release(lock), -ESTALE));
    cr_assert(eq(int, lk_lock_acquire(their_lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LKI_NS_PER_MS), -ESTALE));
}
