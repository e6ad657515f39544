/* SPDX-License-Identifier: MIT */
/* Reading a few bytes that another process may be writing: without a lock, which lockkeeper offers for
 * each of its locks, and under one. Each read is checked: all its words are of the same write. */
#include <stdlib.h>
#include <string.h>

#include <lockkeeper/inline.h>

#include "bench/bench.h"
#include "common/clock.h"
#include "engine/fence.h"

#define BYTES_MAX 4096u
#define NAME "bench-optimistic"
#define PAUSE_NS 2000u /* of the writer, between two writes */
#define SAMPLE_NS (20 * LKI_NS_PER_MS)
#define READS_AT_ONCE 256u

/* What is read, and a bare sequence beside it: the floor. The latter is written by the bench's own few
 * lines, which know nothing of death. */
struct page {
    _Atomic uint64_t sequence;
    _Alignas(128) _Atomic uint64_t words[BYTES_MAX / 8];
};

struct stage {
    struct bench *bench;
    size_t bytes;
    struct page *page; /* of everybody but lockkeeper's optimistic reader */
    struct bench_gate *gate;
    /* The reader's. */
    const struct bench_peer *peer;
    void *handle;
    struct lk_lock *lock;
    const void *data;
};

static void *map_own(struct stage *stage, struct lk_session **out_session)
{
    void *data;
    struct lk_segment *segment;
    *out_session = bench_connect(stage->bench);
    segment = bench_segment(*out_session, NAME, 0);
    if (lk_segment_map(segment, 0, 0, &data) < 0)
        bench_fail("%s", lk_last_error());
    stage->lock = bench_lock(segment);
    return data;
}

static void write_words(_Atomic uint64_t *words, size_t bytes, uint64_t value)
{
    for (size_t i = 0; i < bytes / 8; i++)
        atomic_store_explicit(&words[i], value, memory_order_relaxed);
}

static void write_by_sequence(struct page *page, size_t bytes, uint64_t value)
{
    uint64_t sequence = atomic_load_explicit(&page->sequence, memory_order_relaxed);
    atomic_store_explicit(&page->sequence, sequence + 1, memory_order_relaxed);
    lki_fence(memory_order_release);
    write_words(page->words, bytes, value);
    atomic_store_explicit(&page->sequence, sequence + 2, memory_order_release);
}

enum way { BY_SEQUENCE, OPTIMISTIC, INLINE, BY_LOCK };

/* Of the way that is measured, so that the writers of the others do not count. */
static int write_on_and_on(struct stage *stage, enum way way)
{
    struct lk_session *session = NULL;
    _Atomic uint64_t *words = stage->page->words;
    if (way == OPTIMISTIC || way == INLINE)
        words = map_own(stage, &session);
    else if (way == BY_LOCK)
        stage->handle = stage->peer->join(stage->bench);
    bench_gate_enter(stage->gate);
    for (uint64_t value = 1; !atomic_load_explicit(&stage->gate->stop, memory_order_relaxed);
         value++) {
        uint64_t pause_until_ns = lki_clock_now_ns() + PAUSE_NS;
        int r = 0;
        if (way == BY_SEQUENCE) {
            write_by_sequence(stage->page, stage->bytes, value);
        } else if (way == OPTIMISTIC || way == INLINE) {
            r = lk_lock_acquire(stage->lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
            write_words(words, stage->bytes, value);
            r |= lk_lock_release(stage->lock);
        } else {
            r = stage->peer->take(stage->handle, BENCH_EXCLUSIVE);
            write_words(words, stage->bytes, value);
            r |= stage->peer->drop(stage->handle, BENCH_EXCLUSIVE);
        }
        if (r != 0)
            return 1;
        while (lki_clock_now_ns() < pause_until_ns)
            ;
    }
    lk_session_close(session);
    return 0;
}

struct writer {
    struct stage *stage;
    enum way way;
};

static int be_writer(void *arg)
{
    struct writer *writer = arg;
    return write_on_and_on(writer->stage, writer->way);
}

static void copy_words(uint64_t *to, const _Atomic uint64_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes / 8; i++)
        to[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

static void read_by_sequence(const struct page *page, uint64_t *copy, size_t bytes)
{
    for (;;) {
        uint64_t before = atomic_load_explicit(&page->sequence, memory_order_acquire);
        if (before % 2)
            continue;
        copy_words(copy, page->words, bytes);
        lki_fence(memory_order_acquire);
        if (atomic_load_explicit(&page->sequence, memory_order_relaxed) == before)
            return;
    }
}

static void read_optimistically(const struct stage *stage, uint64_t *copy)
{
    uint64_t version;
    do {
        while (lk_read_begin(stage->lock, &version) < 0)
            ;
        lk_read_copy(copy, stage->data, stage->bytes);
    } while (!lk_read_valid(stage->lock, version));
}

static void read_inline(const struct lk_inline *fast, const struct stage *stage, uint64_t *copy)
{
    uint64_t version;
    do {
        while (lk_inline_read_begin(fast, stage->lock, &version) < 0)
            ;
        lk_inline_read_copy(copy, stage->data, stage->bytes);
    } while (!lk_inline_read_valid(fast, stage->lock, version));
}

static void read_under_lock(const struct stage *stage, uint64_t *copy)
{
    if (stage->peer->take(stage->handle, BENCH_SHARED) < 0)
        bench_fail("%s: cannot read", stage->peer->name);
    copy_words(copy, stage->page->words, stage->bytes);
    stage->peer->drop(stage->handle, BENCH_SHARED);
}

/* Reads in a loop of its own for each way, so that none pays for the choice. True: one was torn. */
#define READS(READ)                                                                                \
    do {                                                                                           \
        for (unsigned i = 0; i < READS_AT_ONCE; i++) {                                             \
            READ;                                                                                  \
            torn |= copy[0] ^ copy[last];                                                          \
        }                                                                                          \
        return torn != 0;                                                                          \
    } while (0)

static bool read_some(const struct stage *stage, enum way way)
{
    static uint64_t copy[BYTES_MAX / 8];
    size_t last = stage->bytes / 8 - 1;
    uint64_t torn = 0;
    const struct lk_inline *fast =
        way == INLINE ? lk_lock_inline(stage->lock, LK_INLINE_LAYOUT) : NULL;
    switch (way) {
    case BY_SEQUENCE:
        READS(read_by_sequence(stage->page, copy, stage->bytes));
    case OPTIMISTIC:
        READS(read_optimistically(stage, copy));
    case INLINE:
        READS(read_inline(fast, stage, copy));
    case BY_LOCK:
        READS(read_under_lock(stage, copy));
    }
    return true;
}

static double read_for(const struct stage *stage, enum way way, uint64_t sample_ns)
{
    uint64_t reads = 0, start_ns = lki_clock_now_ns(), now_ns;
    do {
        if (read_some(stage, way))
            bench_fail("a read was of two writes");
        reads += READS_AT_ONCE;
        now_ns = lki_clock_now_ns();
    } while (now_ns - start_ns < sample_ns);
    return (double)(now_ns - start_ns) / (double)reads;
}

static double one_sample(struct stage *stage, enum way way, const struct bench_peer *peer,
                         bool busy)
{
    struct bench *bench = stage->bench;
    struct lk_session *session = NULL;
    uint64_t sample_ns = bench->cell_ns < SAMPLE_NS ? bench->cell_ns : SAMPLE_NS;
    pid_t pid = 0;

    memset(stage->page, 0, sizeof(*stage->page));
    memset(stage->gate, 0, sizeof(*stage->gate));
    stage->peer = peer;
    if (way == OPTIMISTIC || way == INLINE) {
        void *data = map_own(stage, &session);
        memset(data, 0, BYTES_MAX);
        stage->data = data;
    } else if (way == BY_LOCK) {
        bench_peer_make(bench, peer);
        stage->handle = peer->join(bench);
    }
    if (busy) {
        struct stage writers = *stage;
        struct writer writer = {.stage = &writers, .way = way};
        pid = bench_spawn(be_writer, &writer);
        bench_gate_await(stage->gate, 1);
        bench_set(&stage->gate->go, 1);
    }
    double ns = read_for(stage, way, sample_ns);
    if (busy) {
        atomic_store_explicit(&stage->gate->stop, 1, memory_order_relaxed);
        bench_reap(pid);
    }
    lk_session_close(session);
    if (way == BY_LOCK) {
        if (peer->leave)
            peer->leave(stage->handle);
        bench_peer_unmake(bench, peer);
    }
    return ns;
}

static bool takes_part(const struct bench_peer *peer)
{
    return peer == &bench_peer_lockkeeper || peer == &bench_peer_rwlock ||
           peer == &bench_peer_robust || (peer->shares && !peer->ours && !peer->remote);
}

static void measure_size(struct bench *bench, struct bench_report *report, struct stage *stage,
                         bool busy, unsigned part)
{
    unsigned rounds = bench_rounds(bench, 9);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "read of %zu bytes, %s", stage->bytes,
                        busy ? "a writer every 2 us" : "no writer");
    int floor = bench_series_add(group, "bare sequence");
    int ours = bench_series_add(group, "lockkeeper, optimistic");
    int inlined = bench_series_add(group, "lockkeeper, inline");
    for (size_t i = 0; i < bench->peer_count; i++)
        if (takes_part(bench->peers[i]))
            bench_series_add(group, bench->peers[i]->name);
    bench_series_compare(group, ours, floor, 0, 0);
    bench_series_compare(group, inlined, floor, 0, 0);
    if (stage->bytes == 64 && !busy)
        group->series[inlined].bound = 5;
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, part * rounds + round, 4 * rounds, group->name);
        bench_sample(group, floor, one_sample(stage, BY_SEQUENCE, NULL, busy));
        bench_sample(group, ours, one_sample(stage, OPTIMISTIC, NULL, busy));
        bench_sample(group, inlined, one_sample(stage, INLINE, NULL, busy));
        for (size_t i = 0; i < bench->peer_count; i++)
            if (takes_part(bench->peers[i]))
                bench_sample(group, bench_series_find(group, bench->peers[i]->name),
                             one_sample(stage, BY_LOCK, bench->peers[i], busy));
    }
}

void bench_optimistic(struct bench *bench, struct bench_report *report)
{
    struct stage stage = {.bench = bench,
                          .page = bench_share(sizeof(struct page)),
                          .gate = bench_share(sizeof(struct bench_gate))};
    for (unsigned part = 0; part < 4; part++) {
        stage.bytes = part < 2 ? 64 : BYTES_MAX;
        measure_size(bench, report, &stage, part % 2, part);
    }
    bench_unshare(stage.page, sizeof(struct page));
    bench_unshare(stage.gate, sizeof(struct bench_gate));
}
