/* SPDX-License-Identifier: MIT */
/* lockkeeper, as its three kinds of segments: with patience, strictly first in, first out, and held
 * by the broker for members that do not trust each other. */
#include <stdio.h>
#include <stdlib.h>

#include <lockkeeper/inline.h>

#include "bench/bench.h"

struct handle {
    struct lk_session *session;
    struct lk_lock *lock;
};

static void *join(const struct bench *bench, const char *kind, uint64_t patience_ns, uint32_t flags)
{
    char name[64];
    struct lk_segment_options options = {.size = sizeof(options),
                                         .size_bytes = 4096,
                                         .patience_ns = patience_ns,
                                         .flags = LK_CREATE | flags};
    struct handle *handle = calloc(1, sizeof(*handle));
    struct lk_segment *segment;
    if (!handle)
        bench_fail("no memory");
    /* Another one each time: nothing of the last measurement is left in it. */
    snprintf(name, sizeof(name), "bench-%s-%u", kind, bench->makes);
    handle->session = bench_connect(bench);
    if (lk_segment_open(handle->session, name, &options, &segment) < 0)
        bench_fail("%s", lk_last_error());
    handle->lock = bench_lock(segment);
    return handle;
}

static void *join_patient(const struct bench *bench)
{
    return join(bench, "patient", 0, 0);
}

static void *join_fifo(const struct bench *bench)
{
    return join(bench, "fifo", LK_PATIENCE_FIFO, 0);
}

static void *join_brokered(const struct bench *bench)
{
    return join(bench, "brokered", 0, LK_STRICT);
}

static void leave(void *arg)
{
    struct handle *handle = arg;
    lk_session_close(handle->session);
    free(handle);
}

static int pairs(void *arg, enum bench_mode mode, unsigned count)
{
    struct lk_lock *lock = ((struct handle *)arg)->lock;
    if (mode == BENCH_SHARED)
        BENCH_PAIRS(count, lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER),
                    lk_lock_release(lock));
    if (mode == BENCH_UPDATE)
        BENCH_PAIRS(count, lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER),
                    lk_lock_release(lock));
    if (mode == BENCH_UPGRADE)
        BENCH_PAIRS(count,
                    lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER) |
                        lk_lock_upgrade(lock, LK_WAIT_FOREVER),
                    lk_lock_release(lock));
    BENCH_PAIRS(count, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), lk_lock_release(lock));
}

static int take(void *arg, enum bench_mode mode)
{
    struct lk_lock *lock = ((struct handle *)arg)->lock;
    int r = lk_lock_acquire(lock, mode == BENCH_SHARED ? LK_SHARED : LK_EXCLUSIVE, LK_WAIT_FOREVER);
    if (r == LK_ACQUIRED_OWNER_DIED && mode == BENCH_EXCLUSIVE)
        lk_lock_mark_consistent(lock);
    return r;
}

static int drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return lk_lock_release(((struct handle *)arg)->lock);
}

const struct bench_peer bench_peer_lockkeeper = {
    .name = "lockkeeper",
    .what = "a lock in shared memory, as segments are by default",
    .always = true,
    .ours = true,
    .shares = true,
    .recovers = true,
    .join = join_patient,
    .leave = leave,
    .pairs = pairs,
    .take = take,
    .drop = drop,
};

static int pairs_inline(void *arg, enum bench_mode mode, unsigned count)
{
    struct lk_lock *lock = ((struct handle *)arg)->lock;
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    if (mode == BENCH_SHARED)
        BENCH_PAIRS(count, lk_inline_acquire(fast, lock, LK_SHARED, LK_WAIT_FOREVER),
                    lk_inline_release(fast, lock));
    BENCH_PAIRS(count, lk_inline_acquire(fast, lock, LK_EXCLUSIVE, LK_WAIT_FOREVER),
                lk_inline_release(fast, lock));
}

/* Not among those to choose from: it is the same lock, and differs where nobody is in the way. */
const struct bench_peer bench_peer_lockkeeper_inline = {
    .name = "lockkeeper, inline",
    .what = "the same with the functions of lockkeeper/inline.h",
    .always = true,
    .ours = true,
    .shares = true,
    .join = join_patient,
    .leave = leave,
    .pairs = pairs_inline,
};

/* Called as a pair is, past the procedure linkage table. */
extern LK_API_HOT __typeof__(lk_lock_inline) lk_lock_inline;

/* No lock: what the calls alone take, of a function that refuses a layout which nobody has. */
static int empty_calls(void *arg, enum bench_mode mode, unsigned count)
{
    struct lk_lock *lock = ((struct handle *)arg)->lock;
    (void)mode;
    BENCH_PAIRS(count, lk_lock_inline(lock, 0) != NULL, lk_lock_inline(lock, 0) != NULL);
}

const struct bench_peer bench_peer_empty_calls = {
    .name = "two empty calls",
    .what = "floor: two calls into the shared library that do nothing",
    .always = true,
    .join = join_patient,
    .leave = leave,
    .pairs = empty_calls,
};

const struct bench_peer bench_peer_lockkeeper_fifo = {
    .name = "lockkeeper-fifo",
    .what = "the same, strictly first in, first out (LK_PATIENCE_FIFO)",
    .always = true,
    .ours = true,
    .shares = true,
    .recovers = true,
    .join = join_fifo,
    .leave = leave,
    .pairs = pairs,
    .take = take,
    .drop = drop,
};

const struct bench_peer bench_peer_lockkeeper_brokered = {
    .name = "lockkeeper-brokered",
    .what = "held by the broker, among members who do not trust each other (LK_STRICT)",
    .always = true,
    .ours = true,
    .shares = true,
    .recovers = true,
    .remote = true,
    .join = join_brokered,
    .leave = leave,
    .pairs = pairs,
    .take = take,
    .drop = drop,
};
