/* SPDX-License-Identifier: MIT */
/* Readers that need no fence, and writers that make one for them, in several processes; also in one
 * that may make none. */
#include "fixture.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <lockkeeper/inline.h>

#include "client/bias.h"
#include "client/lock.h"

#define BIAS_TEST(name) Test(bias, name, .init = fixture_start, .fini = fixture_stop)
#define READS 100000u
#define WRITES 5000u

struct side {
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *lock;
    const struct lk_inline *fast;
    _Atomic uint64_t
        *words; /* two, equal but inside a write; the third says that the writer is done */
};

static struct side mine;

static int open_side(struct side *side)
{
    void *words = NULL;
    int r = lk_session_open(fixture.socket_path, NULL, &side->session);
    struct lk_segment_options options = {
        .size = sizeof(options), .flags = LK_CREATE, .size_bytes = 4096, .locks = 4};
    r = r < 0 ? r : lk_segment_open(side->session, "s", &options, &side->segment);
    r = r < 0 ? r : lk_lock_at(side->segment, 0, &side->lock);
    r = r < 0 ? r : lk_segment_map(side->segment, 0, 0, &words);
    side->words = words;
    side->fast = lk_lock_inline(side->lock, LK_INLINE_LAYOUT);
    return r < 0 ? r : 0;
}

static bool is_biased(const struct side *side)
{
    uint32_t word = atomic_load(&side->segment->area.hot[0].word);
    return (word & LKI_BIASED) && (word & LKI_ID_MASK) == 0;
}

static bool is_fenceless(const struct side *side)
{
    return side->fast->cell == (void *)&side->segment->party.self->cells[0];
}

static int read_once(struct side *side)
{
    int r = lk_lock_acquire(side->lock, LK_SHARED, LK_WAIT_FOREVER);
    return r < 0 ? r : lk_lock_release(side->lock);
}

/* Reads until that needs no fence any more. */
static int read_much(struct side *side)
{
    for (unsigned i = 0; i <= lki_bias_reads + 1; i++)
        if (read_once(side) < 0)
            return -1;
    return is_biased(side) && is_fenceless(side) ? 0 : -1;
}

BIAS_TEST(comes_after_a_run_of_reads_and_ends_with_a_writer)
{
    cr_assert(eq(int, open_side(&mine), 0));
    for (unsigned i = 0; i < lki_bias_reads; i++)
        cr_assert(eq(int, read_once(&mine), 0));
    cr_expect(not(is_biased(&mine)), "too early");
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_release(mine.lock), 0));
    for (unsigned i = 0; i < lki_bias_reads; i++)
        cr_assert(eq(int, read_once(&mine), 0));
    cr_expect(not(is_biased(&mine)), "a writer came between: it counts anew");
    cr_assert(eq(int, read_much(&mine), 0));
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_expect(not(is_biased(&mine)));
    cr_assert(eq(int, lk_lock_release(mine.lock), 0));
    lk_session_close(mine.session);
}

BIAS_TEST(inline_and_library_agree_about_shared_holds)
{
    cr_assert(eq(int, open_side(&mine), 0));
    cr_assert(eq(int, read_much(&mine), 0));
    cr_assert(eq(int, lk_inline_acquire(mine.fast, mine.lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_expect(eq(int, lk_inline_acquire(mine.fast, mine.lock, LK_SHARED, 0), -EDEADLK));
    cr_expect(eq(int, lk_lock_acquire(mine.lock, LK_EXCLUSIVE, 0), -EDEADLK));
    cr_assert(eq(int, lk_lock_release(mine.lock), 0));
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_inline_release(mine.fast, mine.lock), 0));
    cr_expect(eq(int, lk_inline_release(mine.fast, mine.lock), -EPERM));
    cr_expect(is_biased(&mine), "nobody has written");
    lk_session_close(mine.session);
}

static void spin(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        atomic_signal_fence(memory_order_seq_cst);
}

static int write_and_check(struct side *side)
{
    int r = lk_lock_acquire(side->lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    if (r != LK_ACQUIRED)
        return r < 0 ? r : -EOWNERDEAD;
    /* relaxed: the lock is what is tested */
    uint64_t next = atomic_load_explicit(&side->words[0], memory_order_relaxed) + 1;
    atomic_store_explicit(&side->words[0], next, memory_order_relaxed);
    spin(200);
    atomic_store_explicit(&side->words[1], next, memory_order_relaxed);
    return lk_lock_release(side->lock);
}

static int read_and_check(struct side *side, unsigned i)
{
    bool inlined = i & 1;
    int r = inlined ? lk_inline_acquire(side->fast, side->lock, LK_SHARED, LK_WAIT_FOREVER)
                    : lk_lock_acquire(side->lock, LK_SHARED, LK_WAIT_FOREVER);
    if (r != LK_ACQUIRED)
        return r < 0 ? r : -EOWNERDEAD;
    uint64_t first = atomic_load_explicit(&side->words[0], memory_order_relaxed);
    spin(100); /* long enough for a writer to come in, if it could */
    uint64_t second = atomic_load_explicit(&side->words[1], memory_order_relaxed);
    r = i & 2 ? lk_inline_release(side->fast, side->lock) : lk_lock_release(side->lock);
    return r < 0 ? r : (first == second ? 0 : -EILSEQ);
}

static int read_beside(struct child *self, void *user)
{
    struct side side;
    (void)user;
    lki_bias_reads = 20;
    CHILD_CHECK(open_side(&side) == 0);
    child_tell(self);
    unsigned biased = 0;
    for (unsigned i = 0; i < READS || atomic_load(&side.words[2]) == 0; i++) {
        CHILD_CHECK(read_and_check(&side, i) == 0);
        biased += is_biased(&side);
        spin(i * 37 %
             1500); /* outside for the most part: a writer that sees nobody does not wait */
    }
    CHILD_CHECK(biased > 0);
    lk_session_close(side.session);
    return 0;
}

BIAS_TEST(a_writer_is_alone_among_readers_without_fences)
{
    struct child readers[2];
    cr_assert(eq(int, open_side(&mine), 0));
    for (unsigned i = 0; i < 2; i++)
        readers[i] = child_start(read_beside, NULL);
    for (unsigned i = 0; i < 2; i++)
        child_await(&readers[i]);
    unsigned met = 0;
    for (unsigned writes = 0; writes < WRITES || met < WRITES / 10; writes++) {
        for (unsigned looks = 0; looks < 10000 && !is_biased(&mine); looks++)
            atomic_signal_fence(memory_order_seq_cst);
        met += is_biased(&mine);
        cr_assert(eq(int, write_and_check(&mine), 0));
        cr_assert(lt(uint, writes, 100 * WRITES), "the lock was biased %u times only", met);
    }
    atomic_store(&mine.words[2], 1);
    for (unsigned i = 0; i < 2; i++)
        child_join(&readers[i]);
    lk_session_close(mine.session);
}

/* A process that may not make the system call, as in a strict sandbox. */
static int forbid_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : -errno;
}

static int use_without_membarrier(struct child *self, void *user)
{
    struct side side;
    (void)user;
    CHILD_CHECK(forbid_membarrier() == 0);
    CHILD_CHECK(open_side(&side) == 0);
    child_await(self); /* the lock is biased now */
    CHILD_CHECK(is_biased(&side));
    CHILD_CHECK(lk_lock_acquire(side.lock, LK_EXCLUSIVE, 0) == LK_ACQUIRED);
    CHILD_CHECK(lk_lock_release(side.lock) == 0);
    CHILD_CHECK(!is_biased(&side));
    for (unsigned i = 0; i < 3 * lki_bias_reads; i++)
        CHILD_CHECK(read_once(&side) == 0);
    CHILD_CHECK(!is_biased(&side) && !is_fenceless(&side));
    child_tell(self);
    child_await(self); /* biased again, with a reader inside */
    CHILD_CHECK(lk_lock_acquire(side.lock, LK_EXCLUSIVE, 0) == -EBUSY);
    CHILD_CHECK(is_biased(&side));
    child_tell(self);
    CHILD_CHECK(lk_lock_acquire(side.lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == LK_ACQUIRED);
    CHILD_CHECK(lk_lock_release(side.lock) == 0);
    lk_session_close(side.session);
    return 0;
}

BIAS_TEST(a_process_without_the_system_call_has_the_broker_make_it)
{
    cr_assert(eq(int, open_side(&mine), 0));
    struct child child = child_start(use_without_membarrier, NULL);
    cr_assert(eq(int, read_much(&mine), 0));
    child_tell(&child);
    child_await(&child);
    cr_assert(eq(int, read_much(&mine), 0));
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_SHARED, 0), LK_ACQUIRED));
    child_tell(&child);
    child_await(&child);
    while (is_biased(&mine)) /* until it drains */
        (void)sched_yield();
    cr_assert(eq(int, lk_lock_release(mine.lock), 0));
    child_join(&child);
    lk_session_close(mine.session);
}

/* --- The last reader wakes a writer that drains --- */

static int write_once(struct child *self, void *user)
{
    struct side side;
    (void)user;
    CHILD_CHECK(open_side(&side) == 0);
    child_await(self); /* somebody reads without a fence now */
    CHILD_CHECK(lk_lock_acquire(side.lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) == LK_ACQUIRED);
    CHILD_CHECK(lk_lock_release(side.lock) == 0);
    lk_session_close(side.session);
    return 0;
}

static struct lki_attachment *await_drainer(void)
{
    const struct lki_area *area = &mine.segment->area;
    for (uint32_t slot = 1;; slot = slot % area->attachments_max + 1) {
        struct lki_attachment *attachment = &area->attachments[slot];
        if ((atomic_load(&attachment->wait) & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING)
            return attachment;
    }
}

/* The writer would look again by itself, a quarter of a second later: so it is the wake that is looked for. */
static void expect_wake(bool is_inline)
{
    cr_assert(eq(int, open_side(&mine), 0));
    struct child child = child_start(write_once, NULL);
    cr_assert(eq(int, read_much(&mine), 0));
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_SHARED, 0), LK_ACQUIRED));
    child_tell(&child);
    struct lki_attachment *writer = await_drainer();
    uint32_t wakes = atomic_load(&writer->futex) / LKI_WAKE_STEP;
    int r = is_inline ? lk_inline_release(mine.fast, mine.lock) : lk_lock_release(mine.lock);
    cr_expect(eq(int, r, 0));
    cr_expect(ne(u32, atomic_load(&writer->futex) / LKI_WAKE_STEP, wakes));
    child_join(&child);
    lk_session_close(mine.session);
}

BIAS_TEST(the_last_reader_wakes_the_writer)
{
    expect_wake(false);
}

BIAS_TEST(so_does_one_with_the_path_compiled_in)
{
    expect_wake(true);
}

/* --- Two locks of a segment --- */

/* Lock 0 is held shared in the second cell, and the first one is free: whoever looks at the first alone would
 * take the lock twice. */
static void expect_no_second_hold(struct lk_lock *other)
{
    cr_assert(eq(int, lk_lock_release(other), 0));
    cr_expect(eq(int, lk_lock_acquire(mine.lock, LK_SHARED, 0), -EDEADLK));
    cr_expect(eq(int, lk_inline_acquire(mine.fast, mine.lock, LK_SHARED, 0), -EDEADLK));
    cr_assert(eq(int, lk_inline_release(mine.fast, mine.lock), 0));
    cr_expect(ne(ptr, mine.fast->words, NULL), "it may be taken by the fast paths again");
    cr_expect(eq(int, lk_lock_release(mine.lock), -EPERM));
    cr_assert(eq(int, read_much(&mine), 0), "in the first cell, and without a fence again");
}

BIAS_TEST(a_lock_in_another_cell_is_not_taken_twice)
{
    struct lk_lock *other;
    cr_assert(eq(int, open_side(&mine), 0));
    cr_assert(eq(int, read_much(&mine), 0));
    cr_assert(eq(int, lk_lock_at(mine.segment, 1, &other), 0));
    cr_assert(eq(int, lk_lock_acquire(other, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_SHARED, 0), LK_ACQUIRED));
    expect_no_second_hold(other);

    cr_assert(eq(int, lk_lock_acquire(mine.lock, LK_EXCLUSIVE, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_acquire(other, LK_SHARED, 0), LK_ACQUIRED));
    cr_assert(eq(int, lk_lock_downgrade(mine.lock, LK_SHARED), 0));
    expect_no_second_hold(other);
    lk_session_close(mine.session);
}

static int join_and_read(struct child *self, void *user)
{
    struct side side;
    (void)self;
    (void)user;
    CHILD_CHECK(lk_inline_acquire(mine.fast, mine.lock, LK_SHARED, 0) == -ESTALE);
    CHILD_CHECK(lk_inline_release(mine.fast, mine.lock) == -ESTALE);
    CHILD_CHECK(open_side(&side) == 0);
    CHILD_CHECK(!is_fenceless(&side)); /* it has to join by itself */
    CHILD_CHECK(read_much(&side) == 0);
    lk_session_close(side.session);
    return 0;
}

BIAS_TEST(a_forked_child_joins_by_itself)
{
    cr_assert(eq(int, open_side(&mine), 0));
    cr_assert(eq(int, read_much(&mine), 0));
    struct child child = child_start(join_and_read, NULL);
    child_join(&child);
    cr_assert(eq(int, read_once(&mine), 0));
    lk_session_close(mine.session);
}
