/* SPDX-License-Identifier: MIT */
#include "client/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/brokered.h"
#include "client/deadlock.h"
#include "client/error.h"
#include "client/lock_text.h"
#include "client/names.h"
#include "client/options.h"
#include "client/wait.h"
#include "common/clock.h"
#include "common/compiler.h"
#include "engine/fast.h"

/* --- Handles --- */

/* In place of a party's cell where readers need a fence: never free, and of no lock. */
static const uint32_t no_cell = UINT32_MAX;

static_assert(offsetof(struct lk_inline_words, word) == offsetof(struct lki_lock_hot, word) &&
                  offsetof(struct lk_inline_words, sequence) ==
                      offsetof(struct lki_lock_hot, sequence),
              "programs were compiled with this: another layout needs another LK_INLINE_LAYOUT");

static_assert(LK_INLINE_BIASED == (LKI_READ | LKI_BIASED), "as above");

const struct lk_inline *lk_lock_inline(const struct lk_lock *lock, uint32_t layout)
{
    return lock && layout == LK_INLINE_LAYOUT ? lock->view : NULL;
}

/* The fast paths look at the first cell alone, and would let this lock be taken twice. */
static bool is_in_another_cell(const struct lk_lock *lock)
{
    return lock->party->cells_used != 0 && lki_party_cell(lock->party, lock->index) > 0;
}

void lki_lock_set_view(struct lk_lock *lock)
{
    const struct lk_segment *segment = lock->segment;
    struct lk_session *session = segment->session;
    bool readable = lock->count > 0 && segment->count > 0 && !segment->file && *session->alive;
    bool plain = readable && !segment->brokered && lock->held_id == 0 && lock->async.request == 0 &&
                 lki_list_is_empty(&session->pending) && !is_in_another_cell(lock);
    struct lki_lock_hot *hot = readable ? &segment->area.hot[lock->index] : NULL;
    void *cell = (void *)&no_cell;
    if (plain && segment->fenceless)
        cell = &segment->party.self->cells[0];
    *lock->view = (struct lk_inline){
        .words = plain ? hot : NULL,
        .read_words = hot,
        .cell = plain ? cell : NULL,
        .id = plain ? segment->party.id : 0,
        .cell_value = lock->index + 1,
    };
    lki_list_remove(&lock->of_open);
    if (plain)
        lki_list_append(&session->open_locks, &lock->of_open);
}

/* A shared hold may have come into another cell than the first, or have left it; and what shut the view may be
 * over. */
static void look_at_view(struct lk_lock *lock)
{
    if (lock->party->cells_used != 0 || !lock->view->words)
        lki_lock_set_view(lock);
}

int lki_lock_table_new(struct lk_segment *segment)
{
    free(segment->handles);
    segment->handles = calloc(segment->area.locks, sizeof(struct lk_lock *));
    if (!segment->handles)
        return -ENOMEM;
    for (struct lk_lock *lock = segment->all_handles; lock; lock = lock->next_handle)
        if (lock->index < segment->area.locks)
            segment->handles[lock->index] = lock;
    return 0;
}

static void end(struct lk_lock *lock)
{
    lock->count = 0;
    lock->held_id = 0;
    lki_async_end(lock->segment->session, &lock->async);
    lki_lock_set_view(lock);
}

void lki_lock_end_all(struct lk_segment *segment)
{
    for (struct lk_lock *lock = segment->all_handles; lock; lock = lock->next_handle)
        end(lock);
}

void lki_lock_free_all(struct lk_segment *segment)
{
    while (segment->all_handles) {
        struct lk_lock *lock = segment->all_handles;
        segment->all_handles = lock->next_handle;
        lki_list_remove(&lock->async.node);
        lki_list_remove(&lock->of_open);
        free(lock->name);
        free(lock);
    }
}

/* The handle of an index within the table, closed if it is new. NULL: no memory. */
static struct lk_lock *handle_of(struct lk_segment *segment, uint32_t index)
{
    struct lk_lock *lock = segment->handles[index];
    if (lock)
        return lock;
    lock = calloc(1, sizeof(*lock));
    struct lk_inline *view = lock ? lki_views_take(&segment->session->views) : NULL;
    if (!view) {
        free(lock);
        return NULL;
    }
    lock->view = view;
    lki_list_init(&lock->async.node);
    lki_list_init(&lock->of_open);
    lock->segment = segment;
    lock->party = &segment->party;
    lock->index = index;
    lock->next_handle = segment->all_handles;
    segment->all_handles = lock;
    segment->handles[index] = lock;
    return lock;
}

static int open_lock(struct lk_segment *segment, uint32_t index, const char *name,
                     struct lk_lock **out)
{
    struct lk_lock *lock = handle_of(segment, index);
    if (lock && name && !lock->name)
        lock->name = strdup(name);
    if (!lock || (name && !lock->name))
        return lki_fail(-ENOMEM, "cannot open a lock of the segment '%s': no memory",
                        segment->name);
    lock->count++;
    lki_lock_set_view(lock);
    *out = lock;
    return 0;
}

int lk_lock_at(struct lk_segment *segment, uint32_t index, struct lk_lock **out)
{
    int r = lki_segment_check(segment, "open a lock");
    if (r < 0)
        return r;
    if (!out)
        return lki_fail(-EINVAL, "cannot open a lock of the segment '%s': no place for the result",
                        segment->name);
    if (index >= segment->area.locks)
        return lki_fail(-ERANGE,
                        "cannot open lock %u of the segment '%s': it has %u locks, 0 to %u", index,
                        segment->name, segment->area.locks, segment->area.locks - 1);
    return open_lock(segment, index, NULL, out);
}

int lk_lock_named(struct lk_segment *segment, const char *name, struct lk_lock **out)
{
    int r = lki_segment_check(segment, "open a lock");
    if (r < 0)
        return r;
    const char *reason = name ? "no place for the result" : "no name";
    struct lki_bytes bytes = {(const uint8_t *)name, name ? strlen(name) : 0};
    if (!name || !out || lki_lock_name_check(bytes, &reason) < 0)
        return lki_fail(-EINVAL, "cannot open the lock '%.300s' of the segment '%s': %s",
                        name ? name : "", segment->name, reason);
    struct lki_message request = {
        .type = LKI_REQUEST_LOCK_NAMED,
        .as.lock_named = {.segment = segment->number, .name = bytes},
    };
    struct lk_session *session = segment->session;
    struct lki_record reply = {.fd_count = 0};
    r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "open the lock '%s#%s'", segment->name, name);
    r = lki_session_result(session, &reply.message, "open the lock '%s#%s'", segment->name, name);
    uint64_t index = r < 0 ? 0 : reply.message.as.result.value;
    lki_record_deinit(&reply);
    if (r < 0)
        return r;
    if (index >= segment->area.locks)
        return lki_session_fail(session, -EPROTO, "open the lock '%s#%s'", segment->name, name);
    return open_lock(segment, (uint32_t)index, name, out);
}

struct lk_lock *lk_lock_close(struct lk_lock *lock)
{
    if (lock && lock->count > 0 && *lock->segment->session->alive) {
        lock->count--;
        lki_lock_set_view(lock);
    }
    return NULL;
}

int lki_lock_check(const struct lk_lock *lock, const char *verb)
{
    if (!lock)
        return lki_fail(-EINVAL, "cannot %s a lock that is NULL", verb);
    if (lock->count > 0)
        return lki_segment_check(lock->segment, verb);
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-ESTALE, "cannot %s '%s': the lock was closed", verb, label);
    return lki_fail_hint(-ESTALE, "open it again");
}

/* --- Taking --- */

int lki_lock_result(struct lk_lock *lock, enum lki_verdict verdict)
{
    char label[LKI_LABEL_BYTES];
    switch (verdict) {
    case LKI_TAKEN:
        return LK_ACQUIRED;
    case LKI_TAKEN_DIED:
        return LK_ACQUIRED_OWNER_DIED;
    case LKI_BUSY:
        return lki_lock_fail_busy(lock);
    case LKI_TIMED_OUT:
        return lki_lock_fail_timed_out(lock);
    case LKI_NESTED:
        return lki_lock_fail_nested(lock);
    case LKI_NO_CELL:
        lki_lock_label(lock, label, sizeof(label));
        lki_fail(-ENOLCK,
                 "cannot lock '%s' shared: this session holds %u locks of the segment shared",
                 label, LKI_SHARED_HOLDS_MAX);
        return lki_fail_hint(-ENOLCK, "release one, or open a second session");
    case LKI_STALE:
    case LKI_SLEEP:
    case LKI_RELEASED:
    case LKI_NOT_HELD:
        break;
    }
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-ESTALE, "cannot lock '%s': the broker has ended this attachment", label);
    return lki_fail_hint(-ESTALE, "close the segment and open it again");
}

bool lki_lock_mode_is_valid(enum lk_mode mode)
{
    return mode == LK_SHARED || mode == LK_EXCLUSIVE || mode == LK_UPDATE ||
           mode == LK_EXCLUSIVE_TO_EXIT;
}

/* Whatever the fast path does not do. Apart, so that the fast path saves no registers for it. */
LKI_NOINLINE static int acquire_slow(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns)
{
    int r = lki_lock_check(lock, "lock");
    if (r == 0)
        r = lki_segment_check_data(lock->segment, "lock");
    if (r < 0)
        return r;
    if (!lki_lock_mode_is_valid(mode))
        return lki_fail(-EINVAL,
                        "cannot lock in mode 0x%x: it is LK_SHARED, LK_EXCLUSIVE, LK_UPDATE or "
                        "LK_EXCLUSIVE_TO_EXIT",
                        (unsigned)mode);
    if (lock->held_id != 0)
        return lki_lock_fail_nested(lock);
    if (lock->async.request != 0 && !lock->async.answered)
        return lki_lock_fail_pending(lock);
    if (lock->segment->brokered)
        return lki_brokered_acquire(lock, mode, timeout_ns);
    enum lki_mode engine_mode = (enum lki_mode)((uint32_t)mode & ~(uint32_t)LK_TO_EXIT);
    enum lki_hold hold = mode == LK_EXCLUSIVE_TO_EXIT ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA;
    enum lki_verdict verdict = lki_wait_native(lock, engine_mode, hold, timeout_ns);
    bool taken = verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED;
    if (taken)
        look_at_view(lock);
    if (taken) /* whoever finds damage comes this way, so it is right where it matters */
        lock->held_to_exit = hold == LKI_HOLD_TO_EXIT;
    /* relaxed: for people, in listings; nothing is decided by it */
    if (taken && hold == LKI_HOLD_TO_EXIT)
        atomic_store_explicit(&lock->party->self->held_since_ns, lki_clock_now_ns(),
                              memory_order_relaxed);
    if (taken && !lki_list_is_empty(&lock->segment->session->pending))
        lki_deadlock_taken(lock);
    if (verdict == LKI_BUSY && timeout_ns != 0)
        return -EDEADLK; /* has the broker's words */
    return lki_lock_result(lock, verdict);
}

LKI_NOINLINE static int acquire_fenced(struct lk_lock *lock, uint64_t timeout_ns)
{
    if (lki_fast_take_shared(lock->party, lock->index)) {
        lki_bias_count(lock);
        return LK_ACQUIRED;
    }
    return acquire_slow(lock, LK_SHARED, timeout_ns);
}

/* Goes on from a cell that is stored already, on a lock that is not biased. */
LKI_NOINLINE static int acquire_again(struct lk_lock *lock, uint64_t timeout_ns)
{
    if (lki_hot_take_shared(lock->party, lock->index)) {
        lki_bias_count(lock);
        return LK_ACQUIRED;
    }
    return acquire_slow(lock, LK_SHARED, timeout_ns);
}

/* Calls only at its ends, so that it saves no registers. */
static inline int acquire_shared(struct lk_lock *lock, uint64_t timeout_ns)
{
    const struct lk_inline *view = lock->view;
    switch (lki_hot_take_fenceless(view->words, view->cell, view->cell_value)) {
    case LKI_FENCELESS_DONE:
        return LK_ACQUIRED;
    case LKI_FENCELESS_AGAIN:
        return acquire_again(lock, timeout_ns);
    case LKI_FENCELESS_NOT:
        break;
    }
    return acquire_fenced(lock, timeout_ns);
}

int lk_lock_acquire(struct lk_lock *lock, enum lk_mode mode, uint64_t timeout_ns)
{
    if (LKI_LIKELY(lock && lock->view->words)) {
        /* Expected first, since it has no locked instruction behind which a jump would hide. */
        if (LKI_LIKELY(mode == LK_SHARED))
            return acquire_shared(lock, timeout_ns);
        if (mode == LK_EXCLUSIVE &&
            lki_hot_take_exclusive(lock->view->words, lock->view->id, LKI_HOLD_DATA))
            return LK_ACQUIRED;
    }
    return acquire_slow(lock, mode, timeout_ns);
}

/* --- Releasing --- */

/* Released; but who wrote into a file that had been cut has to learn of it. */
static int released(const struct lk_lock *lock)
{
    const struct lk_segment *segment = lock->segment;
    return segment->file ? lki_segment_check_data(segment, "trust what was written under the lock")
                         : 0;
}

LKI_NOINLINE static int release_slow(struct lk_lock *lock)
{
    int r = lki_lock_check(lock, "unlock");
    if (r < 0)
        return r;
    if (lock->held_id != 0) {
        r = lki_brokered_change(lock, LKI_REQUEST_RELEASE, 0, 0);
        return r < 0 ? r : released(lock);
    }
    if (lock->segment->brokered)
        return lki_lock_fail_not_held(lock, "unlock", "");
    switch (lki_lock_release(lock->party, lock->index)) {
    case LKI_RELEASED:
        look_at_view(lock);
        return released(lock);
    case LKI_STALE:
        return lki_lock_result(lock, LKI_STALE);
    default:
        return lki_lock_fail_not_held(lock, "unlock", "");
    }
}

LKI_NOINLINE static int release_fenced(struct lk_lock *lock)
{
    return lki_fast_release_shared(lock->party, lock->index) ? 0 : release_slow(lock);
}

LKI_NOINLINE static int release_again(struct lk_lock *lock)
{
    lki_cell_leave(lock->party, lock->index, 0);
    return 0;
}

int lk_lock_release(struct lk_lock *lock)
{
    if (LKI_UNLIKELY(!lock || !lock->view->words))
        return release_slow(lock);
    const struct lk_inline *view = lock->view;
    switch (lki_hot_leave_fenceless(view->words, view->cell, view->cell_value)) {
    case LKI_FENCELESS_DONE:
        return 0;
    case LKI_FENCELESS_AGAIN:
        return release_again(lock);
    case LKI_FENCELESS_NOT:
        break;
    }
    return lki_hot_release_exclusive(view->words, view->id) ? 0 : release_fenced(lock);
}

int lk_inline_acquire_again(struct lk_lock *lock, uint64_t timeout_ns)
{
    bool plain = lock && lock->view->words;
    return plain ? acquire_again(lock, timeout_ns) : acquire_slow(lock, LK_SHARED, timeout_ns);
}

void lk_inline_leave(struct lk_lock *lock)
{
    if (lki_lock_check(lock, "unlock") == 0 && !lock->segment->brokered)
        lki_cell_leave(lock->party, lock->index, 0);
}

/* --- While holding --- */

int lk_lock_mark_consistent(struct lk_lock *lock)
{
    int r = lki_lock_check(lock, "mark as consistent");
    if (r < 0)
        return r;
    if (lock->held_id != 0)
        return lki_brokered_change(lock, LKI_REQUEST_MARK_CONSISTENT, 0, 0);
    if (!lock->segment->brokered &&
        lki_lock_mark_consistent(lock->party, lock->index,
                                 lock->held_to_exit ? LKI_HOLD_TO_EXIT : LKI_HOLD_DATA) ==
            LKI_TAKEN)
        return 0;
    return lki_lock_fail_not_held(lock, "mark as consistent", " exclusively");
}

int lk_lock_declare(struct lk_lock *lock, uint64_t offset, uint64_t length_bytes)
{
    int r = lki_lock_check(lock, "declare a range under");
    if (r < 0)
        return r;
    if (length_bytes > UINT64_MAX - offset)
        return lki_fail(-EINVAL, "cannot declare %llu bytes at %llu: there is no such range",
                        (unsigned long long)length_bytes, (unsigned long long)offset);
    if (lock->held_id != 0)
        return lki_brokered_change(lock, LKI_REQUEST_DECLARE, offset, length_bytes);
    if (!lock->segment->brokered &&
        lki_lock_declare(lock->party, lock->index, offset, length_bytes) == LKI_TAKEN)
        return 0;
    return lki_lock_fail_not_held(lock, "declare a range under", " exclusively");
}

uint64_t lk_lock_token(const struct lk_lock *lock)
{
    if (lki_lock_check(lock, "tell the token of") < 0)
        return 0;
    return lki_lock_sequence(&lock->segment->area, lock->index);
}

int lk_lock_recovery(struct lk_lock *lock, struct lk_recovery *out)
{
    int r = lki_lock_check(lock, "tell the recovery of");
    if (r < 0)
        return r;
    /* Copied once, and cut where the area's other writers could have scribbled. The broker writes
     * it before it frees the word, so whoever was told LK_ACQUIRED_OWNER_DIED sees the whole of it.
     */
    struct lki_lock_cold cold;
    lki_read_copy(&cold, &lock->segment->area.cold[lock->index], sizeof(cold));
    uint32_t cause = atomic_load_explicit(&cold.recovery_cause, memory_order_relaxed);
    if (cause == LK_CAUSE_NONE) {
        char label[LKI_LABEL_BYTES];
        lki_lock_label(lock, label, sizeof(label));
        return lki_fail(-ENOENT, "the lock '%s' has never been recovered", label);
    }
    struct lk_recovery recovery = {
        .pid = cold.recovery_pid,
        .uid = cold.recovery_uid,
        .cause = cause,
        .declared = cold.recovery_declared != 0,
        .token = cold.recovery_token,
        .when_ns = cold.recovery_when_ns,
        .dirty_offset = cold.recovery_dirty_offset,
        .dirty_length_bytes = cold.recovery_dirty_length,
    };
    memcpy(recovery.command, cold.recovery_command, sizeof(recovery.command) - 1);
    if (lki_options_write(out, &recovery, sizeof(recovery)) < 0)
        return lki_fail(-EINVAL,
                        "cannot tell the recovery: no place for it, or its size is not set");
    return 0;
}

/* --- Optimistic reads --- */

LKI_NOINLINE static int read_begin_slow(const struct lk_lock *lock, uint64_t *out_version)
{
    if (!lock || lock->count == 0 || !*lock->segment->session->alive)
        return lki_lock_check(lock, "read under");
    if (!out_version)
        return lki_fail(-EINVAL, "cannot begin a read: no place for the version");
    if (lock->segment->file) {
        int r = lki_segment_check_data(lock->segment, "read under");
        if (r < 0)
            return r;
    }
    switch (lki_read_begin(&lock->segment->area, lock->index, out_version)) {
    case LKI_READ_BEGUN:
        return 0;
    case LKI_READ_WRITER_INSIDE:
        return -EAGAIN; /* no text: this is a loop's condition */
    case LKI_READ_DAMAGED:
        break;
    }
    char label[LKI_LABEL_BYTES];
    lki_lock_label(lock, label, sizeof(label));
    lki_fail(-EOWNERDEAD, "cannot read under '%s': an owner died inside", label);
    return lki_fail_hint(-EOWNERDEAD, "take the lock, repair the data, lk_lock_mark_consistent()");
}

int lk_read_begin(const struct lk_lock *lock, uint64_t *out_version)
{
    const struct lki_lock_hot *hot = lock ? lock->view->read_words : NULL;
    if (hot && out_version) {
        uint64_t version = lki_hot_read_begin(hot);
        if (!(version & 1)) {
            *out_version = version;
            return 0;
        }
    }
    return read_begin_slow(lock, out_version);
}

LKI_NOINLINE static bool read_valid_slow(const struct lk_lock *lock, uint64_t version)
{
    return lock->count > 0 && *lock->segment->session->alive &&
           lki_read_valid(&lock->segment->area, lock->index, version);
}

bool lk_read_valid(const struct lk_lock *lock, uint64_t version)
{
    if (!lock)
        return false;
    const struct lki_lock_hot *hot = lock->view->read_words;
    return hot ? lki_hot_read_valid(hot, version) : read_valid_slow(lock, version);
}

void lk_read_copy(void *to, const void *from, size_t bytes)
{
    lki_read_copy(to, from, bytes);
}
