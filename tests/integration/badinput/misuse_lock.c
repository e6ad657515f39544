/* SPDX-License-Identifier: MIT */
/* Locks: handles, names, modes, ownership, closing. */
#include "misuse.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* --- Handles and names --- */

static int at_null(struct scene *scene)
{
    struct lk_lock *lock = NULL;
    (void)scene;
    return lk_lock_at(NULL, 0, &lock);
}

static int at_no_place(struct scene *scene)
{
    return lk_lock_at(scene->segment, 0, NULL);
}

static int at_beyond(struct scene *scene)
{
    struct lk_lock *lock = NULL;
    NEED(lk_lock_at(scene->segment, UINT32_MAX, &lock) == -ERANGE && lock == NULL);
    return lk_lock_at(scene->segment, LOCKS, &lock);
}

static int named(struct lk_segment *segment, const char *name)
{
    struct lk_lock *lock = NULL;
    int r = lk_lock_named(segment, name, &lock);
    NEED(r == 0 || lock == NULL);
    lk_lock_close(lock);
    return r;
}

static int named_segment_null(struct scene *scene)
{
    (void)scene;
    return named(NULL, "orders");
}

static int named_null(struct scene *scene)
{
    return named(scene->segment, NULL);
}

static int named_no_place(struct scene *scene)
{
    return lk_lock_named(scene->segment, "orders", NULL);
}

static int named_empty(struct scene *scene)
{
    return named(scene->segment, "");
}

static int named_digits(struct scene *scene)
{
    return named(scene->segment, "17");
}

static int named_hash(struct scene *scene)
{
    return named(scene->segment, "a#b");
}

static int named_control(struct scene *scene)
{
    return named(scene->segment, "a\tb");
}

static int named_not_utf8(struct scene *scene)
{
    return named(scene->segment, "\xc0\xaf");
}

static int named_long(struct scene *scene)
{
    char name[257];
    memset(name, 'n', 256);
    name[256] = '\0';
    struct lk_segment *segment = misuse_segment(scene->session, "named", 0, LK_CREATE);
    NEED(named(segment, name + 1) == 0); /* 255 fit */
    int r = named(segment, name);
    lk_segment_close(segment);
    return r;
}

static int named_table_full(struct scene *scene)
{
    char name[16];
    struct lk_segment *segment = misuse_segment(scene->session, "named", 0, LK_CREATE);
    int r = 0;
    for (int i = 0; i < 16 && r == 0; i++) {
        (void)snprintf(name, sizeof(name), "lock-%d", i);
        r = named(segment, name);
    }
    NEED(named(segment, "lock-3") == 0); /* those that are there stay */
    NEED(named(segment, "one-more") == r);
    lk_segment_close(segment);
    return r;
}

static int named_read_only(struct scene *scene)
{
    struct lk_session *reader = misuse_session(scene);
    int r = named(misuse_segment(reader, "scene", 0, LK_READ_ONLY), "orders");
    lk_session_close(reader);
    return r;
}

/* --- Taking --- */

static int take_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_acquire(NULL, LK_EXCLUSIVE, 0);
}

static int take_mode(struct scene *scene)
{
    NEED(lk_lock_acquire(scene->locks[FREE], (enum lk_mode)0, 0) == -EINVAL);
    NEED(lk_lock_acquire(scene->locks[FREE], (enum lk_mode)(LK_SHARED | LK_TO_EXIT), 0) == -EINVAL);
    return lk_lock_acquire(scene->locks[FREE], (enum lk_mode)4, 0);
}

static int upgrade_null(struct scene *scene)
{
    (void)scene;
    NEED(lk_lock_downgrade(NULL, LK_SHARED) == -EINVAL);
    return lk_lock_upgrade(NULL, 0);
}

static int upgrade_not_held(struct scene *scene)
{
    return lk_lock_upgrade(scene->locks[READ], LK_WAIT_FOREVER);
}

/* Beside a reader; it stays held for update. */
static int upgrade_within(struct scene *scene, uint64_t timeout_ns)
{
    NEED(lk_lock_acquire(scene->their_locks[FREE], LK_SHARED, 0) == 0);
    NEED(lk_lock_acquire(scene->locks[FREE], LK_UPDATE, 0) == 0);
    int r = lk_lock_upgrade(scene->locks[FREE], timeout_ns);
    NEED(lk_lock_release(scene->locks[FREE]) == 0);
    NEED(lk_lock_release(scene->their_locks[FREE]) == 0);
    return r;
}

static int upgrade_busy(struct scene *scene)
{
    return upgrade_within(scene, 0);
}

static int upgrade_timed_out(struct scene *scene)
{
    return upgrade_within(scene, 1000000);
}

static int downgrade_mode(struct scene *scene)
{
    return lk_lock_downgrade(scene->locks[OURS], LK_EXCLUSIVE);
}

static int downgrade_not_held(struct scene *scene)
{
    return lk_lock_downgrade(scene->locks[READ], LK_SHARED);
}

static int take_nested(struct scene *scene)
{
    NEED(lk_lock_acquire(scene->locks[OURS], LK_SHARED, LK_WAIT_FOREVER) == -EDEADLK);
    NEED(lk_lock_acquire(scene->locks[OURS], LK_EXCLUSIVE, 0) == -EDEADLK);
    return lk_lock_acquire(scene->locks[OURS], LK_EXCLUSIVE, LK_WAIT_FOREVER);
}

static int take_nested_shared(struct scene *scene)
{
    NEED(lk_lock_acquire(scene->locks[READ], LK_EXCLUSIVE, LK_WAIT_FOREVER) == -EDEADLK);
    return lk_lock_acquire(scene->locks[READ], LK_SHARED, 0);
}

static int take_busy(struct scene *scene)
{
    return lk_lock_acquire(scene->locks[THEIRS], LK_EXCLUSIVE, 0);
}

static int take_timed_out(struct scene *scene)
{
    return lk_lock_acquire(scene->locks[THEIRS], LK_SHARED, 2000000);
}

static int take_seventeenth(struct scene *scene)
{
    uint32_t last = FREE + 16; /* READ is one of ours already, DAMAGED is left out */
    for (uint32_t i = FREE; i < last; i++)
        if (i != DAMAGED)
            NEED(lk_lock_acquire(scene->locks[i], LK_SHARED, 0) == LK_ACQUIRED);
    int r = lk_lock_acquire(scene->locks[last], LK_SHARED, LK_WAIT_FOREVER);
    NEED(lk_lock_acquire(scene->locks[last], LK_EXCLUSIVE, 0) == LK_ACQUIRED); /* needs no cell */
    NEED(lk_lock_release(scene->locks[last]) == 0);
    for (uint32_t i = FREE; i < last; i++)
        if (i != DAMAGED)
            NEED(lk_lock_release(scene->locks[i]) == 0);
    return r;
}

/* Lets go as soon as somebody waits. The bystander's session is this thread's meanwhile. */
static void *release_when_awaited(void *user)
{
    struct scene *scene = user;
    struct lk_holder holder = {.size = sizeof(holder)};
    do
        NEED(lk_lock_holder(scene->their_locks[FREE], &holder) == 0);
    while (holder.waiters == 0);
    NEED(lk_lock_release(scene->their_locks[FREE]) == 0);
    return NULL;
}

/* A time-out whose end would be beyond the end of the numbers is for ever, not at once. */
static int take_time_overflow(struct scene *scene)
{
    pthread_t thread;
    NEED(lk_lock_acquire(scene->their_locks[FREE], LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    NEED(pthread_create(&thread, NULL, release_when_awaited, scene) == 0);
    int r = lk_lock_acquire(scene->locks[FREE], LK_EXCLUSIVE, UINT64_MAX - 1);
    NEED(pthread_join(thread, NULL) == 0);
    NEED(r == LK_ACQUIRED);
    NEED(lk_lock_release(scene->locks[FREE]) == 0);
    return lk_lock_release(scene->locks[FREE]); /* leaves a text that is known */
}

static int take_closed(struct scene *scene)
{
    struct lk_segment *segment = misuse_segment(scene->session, "plain", 0, LK_CREATE);
    struct lk_lock *lock = NULL, *again = NULL;
    uint64_t version = 0;
    NEED(lk_lock_at(segment, 5, &lock) == 0);
    NEED(lk_lock_at(segment, 5, &again) == 0 && again == lock);
    NEED(lk_lock_close(lock) == NULL); /* counted: the other handle is still open */
    NEED(lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED && lk_lock_release(lock) == 0);
    NEED(lk_lock_close(lock) == NULL);
    NEED(lk_lock_close(lock) == NULL); /* once more is nothing */
    NEED(lk_lock_close(NULL) == NULL);
    NEED(lk_lock_release(lock) == -ESTALE);
    NEED(lk_lock_token(lock) == 0);
    NEED(!lk_read_valid(lock, 0));
    NEED(lk_read_begin(lock, &version) == -ESTALE);
    NEED(lk_lock_cancel(lock) == -ESTALE);
    NEED(lk_lock_declare(lock, 0, 1) == -ESTALE);
    NEED(lk_lock_mark_consistent(lock) == -ESTALE);
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 0);
    lk_segment_close(segment);
    return r;
}

/* The segment first: its locks end with it, and closing them afterwards does no harm. */
static int take_segment_closed(struct scene *scene)
{
    struct lk_segment *segment = misuse_segment(scene->session, "plain", 0, LK_CREATE);
    struct lk_lock *lock = NULL;
    NEED(lk_lock_at(segment, 5, &lock) == 0);
    NEED(lk_segment_close(segment) == NULL);
    NEED(lk_lock_release(lock) == -ESTALE);
    int r = lk_lock_acquire(lock, LK_SHARED, 0);
    NEED(lk_lock_close(lock) == NULL);
    return r;
}

/* --- Asynchronously --- */

static void count_call(struct lk_lock *lock, int result, void *user)
{
    (void)lock;
    *(int *)user = result;
}

static int async_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_acquire_async(NULL, LK_EXCLUSIVE, 0, count_call, NULL);
}

static int async_no_callback(struct scene *scene)
{
    return lk_lock_acquire_async(scene->locks[FREE], LK_EXCLUSIVE, 0, NULL, NULL);
}

static int async_mode(struct scene *scene)
{
    return lk_lock_acquire_async(scene->locks[FREE], (enum lk_mode)8, 0, count_call, NULL);
}

static int async_nested(struct scene *scene)
{
    return lk_lock_acquire_async(scene->locks[OURS], LK_SHARED, LK_WAIT_FOREVER, count_call, NULL);
}

/* While it waits for the bystander's lock, with a time-out beyond the end of the numbers. */
static int async_pending(struct scene *scene)
{
    int told = 1;
    struct lk_lock *lock = scene->locks[THEIRS];
    NEED(lk_lock_acquire_async(lock, LK_EXCLUSIVE, UINT64_MAX - 1, count_call, &told) == 0);
    NEED(lk_lock_acquire_async(lock, LK_SHARED, 0, count_call, &told) == -EALREADY);
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 0);
    (void)snprintf(scene->text, sizeof(scene->text), "%s", lk_last_error());
    NEED(lk_session_dispatch(scene->session) == 0); /* it waits, and did not end at once */
    NEED(lk_lock_cancel(lock) == 0);
    NEED(lk_session_dispatch(scene->session) == 1 && told == -ECANCELED);
    return r;
}

static int cancel_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_cancel(NULL);
}

static int cancel_nothing(struct scene *scene)
{
    return lk_lock_cancel(scene->locks[FREE]);
}

/* --- Holding --- */

static int release_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_release(NULL);
}

static int release_anothers(struct scene *scene)
{
    return lk_lock_release(scene->locks[THEIRS]);
}

static int release_free(struct scene *scene)
{
    return lk_lock_release(scene->locks[FREE]);
}

static int release_twice(struct scene *scene)
{
    NEED(lk_lock_acquire(scene->locks[FREE], LK_SHARED, 0) == LK_ACQUIRED);
    NEED(lk_lock_release(scene->locks[FREE]) == 0);
    NEED(lk_lock_release(scene->locks[FREE]) == -EPERM);
    NEED(lk_lock_acquire(scene->locks[FREE], LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    NEED(lk_lock_release(scene->locks[FREE]) == 0);
    return lk_lock_release(scene->locks[FREE]);
}

static int release_brokered(struct scene *scene)
{
    struct lk_session *reader = misuse_session(scene);
    struct lk_lock *lock = NULL;
    NEED(lk_lock_at(misuse_segment(reader, "scene", 0, LK_READ_ONLY), FREE, &lock) == 0);
    NEED(lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    NEED(lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER) == -EDEADLK);
    NEED(lk_lock_release(lock) == 0);
    int r = lk_lock_release(lock);
    lk_session_close(reader);
    return r;
}

static int mark_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_mark_consistent(NULL);
}

static int mark_not_held(struct scene *scene)
{
    NEED(lk_lock_mark_consistent(scene->locks[THEIRS]) == -EPERM);
    NEED(lk_lock_mark_consistent(scene->locks[DAMAGED]) == -EPERM);
    return lk_lock_mark_consistent(scene->locks[READ]);
}

static int declare_null(struct scene *scene)
{
    (void)scene;
    return lk_lock_declare(NULL, 0, 1);
}

static int declare_overflow(struct scene *scene)
{
    return lk_lock_declare(scene->locks[OURS], 1, UINT64_MAX);
}

static int declare_not_held(struct scene *scene)
{
    return lk_lock_declare(scene->locks[READ], 0, 1);
}

/* --- Asking --- */

static int recovery_null(struct scene *scene)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    (void)scene;
    return lk_lock_recovery(NULL, &recovery);
}

static int recovery_no_place(struct scene *scene)
{
    return lk_lock_recovery(scene->locks[DAMAGED], NULL);
}

static int recovery_size(struct scene *scene)
{
    struct lk_recovery recovery = {.size = 0};
    return lk_lock_recovery(scene->locks[DAMAGED], &recovery);
}

static int recovery_none(struct scene *scene)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    return lk_lock_recovery(scene->locks[FREE], &recovery);
}

static int holder_null(struct scene *scene)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    (void)scene;
    return lk_lock_holder(NULL, &holder);
}

static int holder_no_place(struct scene *scene)
{
    return lk_lock_holder(scene->locks[THEIRS], NULL);
}

static int holder_size(struct scene *scene)
{
    struct lk_holder holder = {.size = 0};
    return lk_lock_holder(scene->locks[THEIRS], &holder);
}

static int token_null(struct scene *scene)
{
    (void)scene;
    return (int)lk_lock_token(NULL);
}

static int read_null(struct scene *scene)
{
    uint64_t version = 0;
    (void)scene;
    NEED(!lk_read_valid(NULL, 0));
    return lk_read_begin(NULL, &version);
}

static int read_no_place(struct scene *scene)
{
    return lk_read_begin(scene->locks[FREE], NULL);
}

static int read_damaged(struct scene *scene)
{
    uint64_t version = 0;
    NEED(lk_read_begin(scene->locks[OURS], &version) == -EAGAIN); /* makes no text */
    return lk_read_begin(scene->locks[DAMAGED], &version);
}

const struct misuse misuse_of_locks[] = {
    {"lock-segment-null", at_null, -EINVAL},
    {"lock-no-place", at_no_place, -EINVAL},
    {"lock-beyond", at_beyond, -ERANGE},
    {"lock-name-segment-null", named_segment_null, -EINVAL},
    {"lock-name-null", named_null, -EINVAL},
    {"lock-name-no-place", named_no_place, -EINVAL},
    {"lock-name-empty", named_empty, -EINVAL},
    {"lock-name-digits", named_digits, -EINVAL},
    {"lock-name-hash", named_hash, -EINVAL},
    {"lock-name-control", named_control, -EINVAL},
    {"lock-name-not-utf8", named_not_utf8, -EINVAL},
    {"lock-name-long", named_long, -EINVAL},
    {"lock-name-table-full", named_table_full, -ENOSPC},
    {"lock-name-read-only", named_read_only, -EACCES},
    {"acquire-null", take_null, -EINVAL},
    {"acquire-mode", take_mode, -EINVAL},
    {"upgrade-null", upgrade_null, -EINVAL},
    {"upgrade-not-held", upgrade_not_held, -EPERM},
    {"upgrade-busy", upgrade_busy, -EBUSY},
    {"upgrade-timed-out", upgrade_timed_out, -ETIMEDOUT},
    {"downgrade-mode", downgrade_mode, -EINVAL},
    {"downgrade-not-held", downgrade_not_held, -EPERM},
    {"acquire-nested", take_nested, -EDEADLK},
    {"acquire-nested-shared", take_nested_shared, -EDEADLK},
    {"acquire-busy", take_busy, -EBUSY},
    {"acquire-timed-out", take_timed_out, -ETIMEDOUT},
    {"acquire-17th-shared", take_seventeenth, -ENOLCK},
    {"acquire-time-overflow", take_time_overflow, -EPERM},
    {"acquire-closed", take_closed, -ESTALE},
    {"acquire-segment-closed", take_segment_closed, -ESTALE},
    {"async-null", async_null, -EINVAL},
    {"async-no-callback", async_no_callback, -EINVAL},
    {"async-mode", async_mode, -EINVAL},
    {"async-nested", async_nested, -EDEADLK},
    {"async-pending", async_pending, -EALREADY},
    {"cancel-null", cancel_null, -EINVAL},
    {"cancel-nothing", cancel_nothing, -ENOENT},
    {"release-null", release_null, -EINVAL},
    {"release-anothers", release_anothers, -EPERM},
    {"release-free", release_free, -EPERM},
    {"release-twice", release_twice, -EPERM},
    {"release-brokered", release_brokered, -EPERM},
    {"mark-null", mark_null, -EINVAL},
    {"mark-not-held", mark_not_held, -EPERM},
    {"declare-null", declare_null, -EINVAL},
    {"declare-overflow", declare_overflow, -EINVAL},
    {"declare-not-held", declare_not_held, -EPERM},
    {"recovery-null", recovery_null, -EINVAL},
    {"recovery-no-place", recovery_no_place, -EINVAL},
    {"recovery-size", recovery_size, -EINVAL},
    {"recovery-none", recovery_none, -ENOENT},
    {"holder-null", holder_null, -EINVAL},
    {"holder-no-place", holder_no_place, -EINVAL},
    {"holder-size", holder_size, -EINVAL},
    {"token-null", token_null, 0},
    {"read-null", read_null, -EINVAL},
    {"read-no-place", read_no_place, -EINVAL},
    {"read-damaged", read_damaged, -EOWNERDEAD},
    {NULL, NULL, 0},
};
