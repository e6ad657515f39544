/* SPDX-License-Identifier: MIT */
/* Threads as parties of one area, with real futexes: writers, readers, timed, trying and
 * optimistic ones on few locks, for a few seconds. Now and then one dies: it stops where it is,
 * inside or in the queue, and another thread repairs it as the broker does. Made for
 * ThreadSanitizer: what a lock protects is plain memory, so the sanitizer sees every hand-off that
 * does not order what it should. The optimistic data beside it is written and read by relaxed
 * atomics, as a seqlock demands.
 *
 *     engine_hammer [SECONDS [SEED]]
 *
 * At the end sums, tokens and the area itself have to be right. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/barrier.h"
#include "common/clock.h"
#include "engine/fast.h"
#include "engine/repair.h"
#include "engine/wait.h"

#define THREADS 5
#define LOCKS 3
#define CELLS 8
#define TOKEN_START (UINT64_C(3) << 32)

struct protected
{
    uint64_t sum[CELLS]; /* plain: each writer adds 1 to all */
    uint64_t last_token;
    _Atomic uint64_t mirror[CELLS]; /* the same, for optimistic readers */
};

struct worker {
    pthread_t thread;
    struct lki_party party;
    uint64_t random;
    uint64_t writes[LOCKS];
    uint64_t updates[LOCKS]; /* holds for update: each raises the sequence once more */
    uint64_t upgrades, kept, downgrades;
    uint64_t reads, fenceless, valid, void_reads, timed_out, busy, naps, deaths, told;
    uint32_t generation;
    bool dead; /* guarded by the morgue */
};

#define DEATH_IN UINT64_C(512) /* one of so many chances is taken */
#define BIAS_IN UINT64_C(4)    /* one of so many readers with a fence spares the next ones theirs */
#define UP_TRY UINT64_C(4)     /* one of so many upgrades does not wait */
#define DEAD LKI_STALE         /* of acquire(): the party died in its wait */

/* Where the dead wait for the broker. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool closed;
} morgue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

static struct lki_area area;
static struct protected guarded[LOCKS];
static struct worker workers[THREADS];
static _Atomic bool stopping;
static _Atomic unsigned failures;

static void fail(const char *what, uint32_t lock)
{
    fprintf(stderr, "FAILED: lock %u: %s\n", lock, what);
    atomic_fetch_add(&failures, 1);
}

/* --- driving the engine, as the client library does --- */

static void futex_wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)brokered;
    syscall(SYS_futex, &area.attachments[slot].futex, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void futex_sleep(const struct lki_sleep *sleep)
{
    struct timespec until = {
        .tv_sec = (time_t)(sleep->until_ns / LKI_NS_PER_S),
        .tv_nsec = (long)(sleep->until_ns % LKI_NS_PER_S),
    };
    syscall(SYS_futex, sleep->futex, FUTEX_WAIT_BITSET, sleep->futex_value,
            sleep->until_ns == LKI_TIME_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static uint64_t next_random(struct worker *self)
{
    /* xorshift64 */
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return self->random;
}

static bool make_barrier(void *user)
{
    (void)user;
    return lki_barrier_make();
}

static bool acquire_shared(struct worker *self, uint32_t lock)
{
    if (area.bias && lki_fast_take_fenceless(&self->party, lock)) {
        self->fenceless++;
        return true;
    }
    if (!lki_fast_take_shared(&self->party, lock))
        return false;
    if (next_random(self) % BIAS_IN == 0)
        lki_lock_bias(&self->party, lock);
    return true;
}

static bool release_shared(struct worker *self, uint32_t lock)
{
    return (area.bias && lki_fast_release_fenceless(&self->party, lock)) ||
           lki_fast_release_shared(&self->party, lock);
}

static bool acquire_fast(struct worker *self, uint32_t lock, enum lki_mode mode)
{
    switch (mode) {
    case LKI_MODE_SHARED:
        return acquire_shared(self, lock);
    case LKI_MODE_EXCLUSIVE:
        return lki_fast_take_exclusive(&self->party, lock, LKI_HOLD_DATA);
    case LKI_MODE_UPDATE:
        break;
    }
    return false;
}

static enum lki_verdict go_on_waiting(struct worker *self, struct lki_wait *wait,
                                      enum lki_verdict verdict)
{
    struct lki_sleep sleep;
    while (verdict == LKI_SLEEP) {
        verdict = lki_wait_step(wait, lki_clock_now_ns(), &sleep);
        if (verdict == LKI_SLEEP) {
            self->naps++;
            futex_sleep(&sleep);
            if (next_random(self) % DEATH_IN == 0)
                return DEAD;
        }
    }
    return verdict;
}

static enum lki_verdict acquire(struct worker *self, uint32_t lock, enum lki_mode mode,
                                uint64_t timeout_ns)
{
    struct lki_wait wait;

    if (acquire_fast(self, lock, mode))
        return LKI_TAKEN;
    enum lki_verdict verdict = lki_lock_try(&self->party, lock, mode, LKI_HOLD_DATA);
    if (verdict != LKI_BUSY || timeout_ns == 0)
        return verdict;
    uint64_t now_ns = lki_clock_now_ns();
    verdict = lki_wait_begin(&wait, &self->party, lock, mode, LKI_HOLD_DATA, now_ns,
                             lki_time_add(now_ns, timeout_ns));
    return go_on_waiting(self, &wait, verdict);
}

static enum lki_verdict upgrade(struct worker *self, uint32_t lock)
{
    struct lki_wait wait;
    uint64_t random = next_random(self);

    enum lki_verdict verdict = lki_lock_upgrade_try(&self->party, lock, LKI_HOLD_DATA);
    if (verdict != LKI_BUSY || random % UP_TRY == 0)
        return verdict;
    uint64_t now_ns = lki_clock_now_ns();
    uint64_t deadline_ns = random >> 32 & 1 ? LKI_TIME_NEVER : now_ns + 20 * LKI_NS_PER_US;
    verdict = lki_wait_begin_upgrade(&wait, &self->party, lock, LKI_HOLD_DATA, now_ns, deadline_ns);
    return go_on_waiting(self, &wait, verdict);
}

static void release(struct worker *self, uint32_t lock, enum lki_mode mode)
{
    if ((mode == LKI_MODE_EXCLUSIVE && lki_fast_release_exclusive(&self->party, lock)) ||
        (mode == LKI_MODE_SHARED && release_shared(self, lock)))
        return;
    if (lki_lock_release(&self->party, lock) != LKI_RELEASED)
        fail("its holder could not release it", lock);
}

/* --- what is done inside --- */

static void write_inside(struct worker *self, uint32_t lock)
{
    struct protected *data = &guarded[lock];
    uint64_t token = lki_lock_sequence(&area, lock);

    if (token <= data->last_token || !(token & 1))
        fail("the token did not rise to an odd value", lock);
    data->last_token = token;
    for (unsigned i = 0; i < CELLS; i++) {
        data->sum[i]++;
        /* relaxed: ordered by the fence after the sequence became odd */
        atomic_store_explicit(&data->mirror[i], data->sum[i], memory_order_relaxed);
    }
    self->writes[lock]++;
}

/* The last writer died with half of the cells written. */
static void repair_data(struct worker *self, uint32_t lock)
{
    struct protected *data = &guarded[lock];

    for (unsigned i = 0; i < CELLS; i++) {
        data->sum[i] = data->sum[0];
        atomic_store_explicit(&data->mirror[i], data->sum[0], memory_order_relaxed);
    }
    if (lki_lock_mark_consistent(&self->party, lock, LKI_HOLD_DATA) != LKI_TAKEN)
        fail("its owner could not mark it consistent", lock);
}

static void die_writing(struct worker *self, uint32_t lock)
{
    struct protected *data = &guarded[lock];

    data->last_token = lki_lock_sequence(&area, lock);
    for (unsigned i = 0; i < CELLS / 2; i++) {
        data->sum[i]++;
        atomic_store_explicit(&data->mirror[i], data->sum[i], memory_order_relaxed);
    }
    self->writes[lock]++; /* the repair completes it */
}

static void read_inside(struct worker *self, uint32_t lock)
{
    const struct protected *data = &guarded[lock];

    for (unsigned i = 1; i < CELLS; i++) {
        if (data->sum[i] != data->sum[0])
            fail("a reader saw half a write", lock);
    }
    self->reads++;
}

static void read_outside(struct worker *self, uint32_t lock)
{
    uint64_t version;
    uint64_t copy[CELLS];

    if (lki_read_begin(&area, lock, &version) != LKI_READ_BEGUN)
        return;
    lki_read_copy(copy, &guarded[lock].mirror, sizeof(copy));
    if (!lki_read_valid(&area, lock, version)) {
        self->void_reads++;
        return;
    }
    self->valid++;
    for (unsigned i = 1; i < CELLS; i++) {
        if (copy[i] != copy[0])
            fail("an optimistic reader saw half a write", lock);
    }
}

/* --- death --- */

static void open_party(struct worker *self)
{
    uint32_t slot = (uint32_t)(self - workers) + 1;
    self->generation = self->generation % LKI_GENERATION_MAX + 1;
    uint32_t id = lki_attachment_open(&area, slot, self->generation, 0);
    LKI_ASSERT(lki_party_init(&self->party, &area, id, futex_wake, NULL));
    self->party.barrier = make_barrier;
}

/* Leaves everything as it is, and comes back as another session once the broker has repaired. */
static void die(struct worker *self)
{
    self->deaths++;
    pthread_mutex_lock(&morgue.mutex);
    self->dead = true;
    pthread_cond_broadcast(&morgue.changed);
    while (self->dead)
        pthread_cond_wait(&morgue.changed, &morgue.mutex);
    pthread_mutex_unlock(&morgue.mutex);
}

static struct worker *next_dead(void)
{
    for (unsigned i = 0; i < THREADS; i++) {
        if (workers[i].dead)
            return &workers[i];
    }
    return NULL;
}

static void *run_broker(void *unused)
{
    struct lki_death death = {.pid = 1, .cause = LKI_CAUSE_EXITED, .command = "hammer"};
    struct lki_repair repair;
    struct worker *dead;

    pthread_mutex_lock(&morgue.mutex);
    while ((dead = next_dead()) || !morgue.closed) {
        if (!dead) {
            pthread_cond_wait(&morgue.changed, &morgue.mutex);
            continue;
        }
        pthread_mutex_unlock(&morgue.mutex);
        lki_repair_begin(&repair, &area, dead->party.id);
        while (!lki_repair_step(&repair, &death, 1, futex_wake, NULL))
            sched_yield();
        open_party(dead);
        pthread_mutex_lock(&morgue.mutex);
        dead->dead = false;
        pthread_cond_broadcast(&morgue.changed);
    }
    pthread_mutex_unlock(&morgue.mutex);
    return unused;
}

/* --- the workers --- */

/* The mode that it has then; 0: it died. */
static int downgrade(struct worker *self, uint32_t lock, enum lki_mode mode)
{
    if (lki_lock_downgrade(&self->party, lock, mode) != LKI_TAKEN)
        fail("its holder could not downgrade it", lock);
    self->downgrades++;
    read_inside(self, lock); /* nobody has written in between */
    return (int)mode;
}

/* Of an owner for update: what it read is what it finds when it is exclusive. */
static int update(struct worker *self, uint32_t lock, bool died)
{
    uint64_t seen = guarded[lock].sum[0];

    if (!died)
        read_inside(self, lock);
    enum lki_verdict verdict = upgrade(self, lock);
    if (verdict == DEAD) {
        die(self);
        return 0;
    }
    if (verdict == LKI_BUSY || verdict == LKI_TIMED_OUT) {
        self->kept++;
        self->updates[lock] += died; /* its release raises an odd sequence */
        return !died && next_random(self) & 1 ? downgrade(self, lock, LKI_MODE_SHARED)
                                              : LKI_MODE_UPDATE;
    }
    if ((verdict == LKI_TAKEN_DIED) != died || (verdict != LKI_TAKEN && verdict != LKI_TAKEN_DIED))
        fail("an upgrade gave a verdict that cannot be", lock);
    if (guarded[lock].sum[0] != seen)
        fail("somebody has written beside an owner for update", lock);
    self->upgrades++;
    if (died)
        repair_data(self, lock);
    write_inside(self, lock);
    return LKI_MODE_EXCLUSIVE;
}

/* What is left of an exclusive hold, or of one for update that was one. */
static int come_down(struct worker *self, uint32_t lock, int mode)
{
    uint64_t random = next_random(self);
    if (mode == LKI_MODE_EXCLUSIVE && random % 8 == 0)
        mode = downgrade(self, lock, LKI_MODE_UPDATE);
    if (mode == LKI_MODE_EXCLUSIVE && random % 8 == 1)
        mode = downgrade(self, lock, LKI_MODE_SHARED);
    return mode;
}

static void hold(struct worker *self, uint32_t lock, enum lki_mode mode, uint64_t timeout_ns)
{
    enum lki_verdict verdict = acquire(self, lock, mode, timeout_ns);
    switch (verdict) {
    case LKI_TAKEN:
        break;
    case LKI_TAKEN_DIED:
        self->told++;
        if (mode == LKI_MODE_EXCLUSIVE)
            repair_data(self, lock);
        break;
    case DEAD:
        die(self);
        return;
    case LKI_TIMED_OUT:
        self->timed_out++;
        return;
    case LKI_BUSY:
        self->busy++;
        return;
    default:
        fail("a verdict that cannot be", lock);
        return;
    }
    self->updates[lock] += mode == LKI_MODE_UPDATE;
    if (next_random(self) % DEATH_IN == 0) {
        if (mode == LKI_MODE_EXCLUSIVE)
            die_writing(self, lock);
        die(self);
        return;
    }
    int held = (int)mode;
    if (mode == LKI_MODE_EXCLUSIVE)
        write_inside(self, lock);
    else if (mode == LKI_MODE_UPDATE)
        held = update(self, lock, verdict == LKI_TAKEN_DIED);
    else if (verdict == LKI_TAKEN)
        read_inside(self, lock);
    held = come_down(self, lock, held);
    if (next_random(self) % 64 == 0)
        sched_yield(); /* be caught inside now and then */
    if (held != 0)
        release(self, lock, (enum lki_mode)held);
}

static void *work(void *argument)
{
    struct worker *self = argument;

    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        uint64_t random = next_random(self);
        uint32_t lock = (uint32_t)(random >> 32) % LOCKS;
        switch (random >> 48 & 7) {
        case 0:
            hold(self, lock, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
            break;
        case 1:
            hold(self, lock, LKI_MODE_UPDATE,
                 random >> 52 & 3 ? LKI_TIME_NEVER : 20 * LKI_NS_PER_US);
            break;
        case 2:
        case 3:
            hold(self, lock, LKI_MODE_SHARED, LKI_TIME_NEVER);
            break;
        case 4:
            hold(self, lock, LKI_MODE_EXCLUSIVE, 20 * LKI_NS_PER_US);
            break;
        case 5:
            hold(self, lock, LKI_MODE_SHARED, 20 * LKI_NS_PER_US);
            break;
        case 6:
            hold(self, lock, random >> 52 & 1 ? LKI_MODE_EXCLUSIVE : LKI_MODE_SHARED, 0);
            break;
        case 7:
            read_outside(self, lock);
            break;
        }
    }
    return NULL;
}

static void check_lock(uint32_t lock)
{
    struct lki_lock_state state;
    uint64_t writes = 0, updates = 0;

    /* The last death may not have been mended. */
    if (lki_lock_try(&workers[0].party, lock, LKI_MODE_EXCLUSIVE, LKI_HOLD_DATA) == LKI_TAKEN_DIED)
        repair_data(&workers[0], lock);
    workers[0].writes[lock]++;
    for (unsigned i = 0; i < CELLS; i++)
        guarded[lock].sum[i]++;
    release(&workers[0], lock, LKI_MODE_EXCLUSIVE);
    lki_lock_look(&area, lock, &state);
    if (state.word != 0 || state.readers != 0 || state.waiters != 0)
        fail("something is left behind", lock);
    for (unsigned i = 0; i < THREADS; i++) {
        writes += workers[i].writes[lock];
        updates += workers[i].updates[lock];
    }
    for (unsigned i = 0; i < CELLS; i++) {
        if (guarded[lock].sum[i] != writes)
            fail("a write was lost", lock);
    }
    if (state.sequence != TOKEN_START + 2 * (writes + updates))
        fail("the sequence does not count the writes and the holds for update", lock);
}

static void run_round(uint64_t patience_ns, uint64_t for_ns, uint64_t seed)
{
    struct lki_area_config config = {
        .locks = LOCKS,
        .attachments_max = THREADS,
        .patience_ns = patience_ns,
        .sequence_start = TOKEN_START,
        .state = LKI_SEGMENT_PUBLISHED,
        .bias = lki_barrier_join(),
    };
    size_t bytes = lki_area_bytes(LOCKS, THREADS);
    void *memory = aligned_alloc(4096, bytes);
    LKI_ASSERT(memory);
    memset(memory, 0, bytes);
    LKI_ASSERT(lki_area_format(memory, &config, &area) == 0);
    memset(guarded, 0, sizeof(guarded));
    memset(workers, 0, sizeof(workers));
    atomic_store(&stopping, false);

    pthread_t broker;
    morgue.closed = false;
    LKI_ASSERT(pthread_create(&broker, NULL, run_broker, NULL) == 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        open_party(&workers[i]);
        workers[i].random = (seed + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        LKI_ASSERT(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    struct timespec pause = {
        .tv_sec = (time_t)(for_ns / LKI_NS_PER_S),
        .tv_nsec = (long)(for_ns % LKI_NS_PER_S),
    };
    while (nanosleep(&pause, &pause) < 0 && errno == EINTR)
        ;
    atomic_store(&stopping, true);
    struct worker total = {0};
    uint64_t writes = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        for (uint32_t lock = 0; lock < LOCKS; lock++)
            writes += workers[i].writes[lock];
        total.upgrades += workers[i].upgrades;
        total.kept += workers[i].kept;
        total.downgrades += workers[i].downgrades;
        total.reads += workers[i].reads;
        total.fenceless += workers[i].fenceless;
        total.valid += workers[i].valid;
        total.void_reads += workers[i].void_reads;
        total.timed_out += workers[i].timed_out;
        total.busy += workers[i].busy;
        total.naps += workers[i].naps;
        total.deaths += workers[i].deaths;
        total.told += workers[i].told;
    }
    pthread_mutex_lock(&morgue.mutex);
    morgue.closed = true;
    pthread_cond_broadcast(&morgue.changed);
    pthread_mutex_unlock(&morgue.mutex);
    pthread_join(broker, NULL);
    for (uint32_t lock = 0; lock < LOCKS; lock++)
        check_lock(lock);
    printf("patience %llu us: writes %llu, reads %llu (%llu without a fence), optimistic %llu "
           "valid %llu void, "
           "upgrades %llu (%llu not), downgrades %llu, timed out %llu, busy %llu, naps %llu, "
           "deaths %llu, told %llu\n",
           (unsigned long long)(patience_ns / LKI_NS_PER_US), (unsigned long long)writes,
           (unsigned long long)total.reads, (unsigned long long)total.fenceless,
           (unsigned long long)total.valid, (unsigned long long)total.void_reads,
           (unsigned long long)total.upgrades, (unsigned long long)total.kept,
           (unsigned long long)total.downgrades, (unsigned long long)total.timed_out,
           (unsigned long long)total.busy, (unsigned long long)total.naps,
           (unsigned long long)total.deaths, (unsigned long long)total.told);
    if ((area.bias && total.fenceless == 0) || writes == 0 || total.reads == 0 ||
        total.valid == 0 || total.naps == 0 || total.told == 0 || total.upgrades == 0 ||
        total.kept == 0 || total.downgrades == 0)
        fail("the round did not do what it is for", 0);
    free(memory);
}

int main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 4;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : lki_clock_now_ns();

    printf("seed %llu\n", (unsigned long long)seed);
    run_round(LKI_PATIENCE_DEFAULT_NS, seconds * LKI_NS_PER_S / 2, seed);
    run_round(LKI_PATIENCE_NONE, seconds * LKI_NS_PER_S / 2, seed + THREADS);
    return atomic_load(&failures) == 0 ? 0 : 1;
}
