/* SPDX-License-Identifier: MIT */
#include "victim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <lockkeeper/inline.h>
#include <lockkeeper/lockkeeper.h>

#include "client/bias.h"
#include "client/lock.h"
#include "client/segment.h"
#include "client/wait.h"
#include "engine/repair.h"
#include "reader.h"
#include "tests/support/process.h"
#include "tracer.h"

#define EXPIRY_NS (3 * LKI_NS_PER_MS / 2)
#define EXPIRY_SLOW_NS (400 * LKI_NS_PER_MS)

struct victim {
    struct stage *stage;
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *locks[STAGE_LOCKS];
    uint32_t generation;
    uint32_t id;
    _Atomic int *result; /* in memory that outlives it */
};

struct victim *victim_new(struct stage *stage)
{
    struct victim *victim = calloc(1, sizeof(*victim));
    test_check(victim, "calloc");
    victim->stage = stage;
    victim->result = test_shared(sizeof(*victim->result));
    struct lki_record record = {
        .message = {.type = LKI_REPLY_OPENED,
                    .as.opened = {.segment = 1,
                                  .attachment = STAGE_SLOT_VICTIM_LOW | 1u << LKI_GENERATION_SHIFT,
                                  .area_bytes = stage->area.area_bytes}},
        .fds = {fcntl(stage->area_fd, F_DUPFD_CLOEXEC, 0)},
        .fd_count = 1,
    };
    test_check(lki_session_new(-1, "/nowhere", &victim->session) == 0, "session");
    test_check(lki_segment_attach(victim->session, "stage", 0, &record, &victim->segment) == 0,
               "attach");
    lki_record_deinit(&record);
    /* A client's child has no map of it; ours is to be that client. */
    test_check(madvise(victim->segment->area_base, stage->area.area_bytes, MADV_DOFORK) == 0,
               "madvise");
    for (uint32_t i = 0; i < STAGE_LOCKS; i++)
        test_check(lk_lock_at(victim->segment, i, &victim->locks[i]) == 0, "lock");
    return victim;
}

struct victim *victim_free(struct victim *victim)
{
    if (victim)
        lk_session_close(victim->session);
    free(victim);
    return NULL;
}

static void must(int result)
{
    if (result < 0)
        _exit(3);
}

static void read_once(struct lk_lock *lock)
{
    must(lk_lock_acquire(lock, LK_SHARED, 0));
    must(lk_lock_release(lock));
}

/* By reading another lock for so long that it biases that, which goes when the lock is written. */
static void join(const struct victim *victim)
{
    struct lk_lock *lock = victim->locks[STAGE_LOCK_S];
    lki_bias_reads = 1;
    read_once(lock);
    read_once(lock);
    lki_bias_reads = LKI_BIAS_READS_DEFAULT;
    if (!lock->view->cell)
        _exit(4);
    must(lk_lock_acquire(lock, LK_EXCLUSIVE, 0));
    must(lk_lock_release(lock));
}

static void do_before(const struct victim *victim, const struct scenario *scenario)
{
    struct lk_lock *lock = victim->locks[STAGE_LOCK];
    if (scenario->joined)
        join(victim);
    if (scenario->more_held) {
        must(lk_lock_acquire(victim->locks[STAGE_LOCK_X], LK_EXCLUSIVE, 0));
        must(lk_lock_acquire(victim->locks[STAGE_LOCK_S], LK_SHARED, 0));
    }
    switch (scenario->before) {
    case BEFORE_NOTHING:
        break;
    case BEFORE_X:
        must(lk_lock_acquire(lock, LK_EXCLUSIVE, 0));
        must(lk_lock_declare(lock, 1000, 1));
        break;
    case BEFORE_S:
        must(lk_lock_acquire(lock, LK_SHARED, 0));
        break;
    case BEFORE_EXIT:
        must(lk_lock_acquire(lock, LK_EXCLUSIVE_TO_EXIT, 0));
        break;
    case BEFORE_X_MARKED:
        must(lk_lock_acquire(lock, LK_EXCLUSIVE, 0));
        must(lk_lock_mark_consistent(lock));
        break;
    case BEFORE_READ:
        read_once(lock);
        lki_bias_reads = 1;
        break;
    case BEFORE_U:
        must(lk_lock_acquire(lock, LK_UPDATE, 0));
        break;
    }
}

static int take_and_upgrade(struct lk_lock *lock)
{
    int r = lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER);
    return r < 0 ? r : lk_lock_upgrade(lock, LK_WAIT_FOREVER);
}

static int do_call(struct lk_lock *lock, enum scenario_call call, uint64_t expiry_ns)
{
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    switch (call) {
    case CALL_INLINE_S:
        return lk_inline_acquire(fast, lock, LK_SHARED, LK_WAIT_FOREVER);
    case CALL_INLINE_RELEASE:
        return lk_inline_release(fast, lock);
    case CALL_X:
        return lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    case CALL_S:
        return lk_lock_acquire(lock, LK_SHARED, LK_WAIT_FOREVER);
    case CALL_EXIT:
        return lk_lock_acquire(lock, LK_EXCLUSIVE_TO_EXIT, LK_WAIT_FOREVER);
    case CALL_TRY_X:
        return lk_lock_acquire(lock, LK_EXCLUSIVE, 0);
    case CALL_TRY_S:
        return lk_lock_acquire(lock, LK_SHARED, 0);
    case CALL_TIMED_X:
        return lk_lock_acquire(lock, LK_EXCLUSIVE, expiry_ns);
    case CALL_TIMED_S:
        return lk_lock_acquire(lock, LK_SHARED, expiry_ns);
    case CALL_RELEASE:
        return lk_lock_release(lock);
    case CALL_MARK:
        return lk_lock_mark_consistent(lock);
    case CALL_DECLARE:
        return lk_lock_declare(lock, 100, 28);
    case CALL_CLOSE_HANDLE:
        (void)lk_lock_close(lock);
        return 0;
    case CALL_U:
        return lk_lock_acquire(lock, LK_UPDATE, LK_WAIT_FOREVER);
    case CALL_TRY_U:
        return lk_lock_acquire(lock, LK_UPDATE, 0);
    case CALL_TIMED_U:
        return lk_lock_acquire(lock, LK_UPDATE, expiry_ns);
    case CALL_U_UPGRADE:
        return take_and_upgrade(lock);
    case CALL_UPGRADE:
        return lk_lock_upgrade(lock, LK_WAIT_FOREVER);
    case CALL_TRY_UPGRADE:
        return lk_lock_upgrade(lock, 0);
    case CALL_TIMED_UPGRADE:
        return lk_lock_upgrade(lock, expiry_ns);
    case CALL_DOWN_U:
        return lk_lock_downgrade(lock, LK_UPDATE);
    case CALL_DOWN_S:
        return lk_lock_downgrade(lock, LK_SHARED);
    }
    return -1;
}

/* The library's own way, with what makes the crowd's stores seen. */
static struct stage *barrier_stage;
static bool barrier_refused;
static bool make_barrier(void *segment)
{
    return !barrier_refused && lki_barrier_native(segment) && reader_barrier(barrier_stage);
}

static _Noreturn void be_victim(struct victim *victim, const struct scenario *scenario,
                                uint64_t expiry_ns, pid_t parent)
{
    struct lk_segment *segment = victim->segment;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
    victim->session->alive[0] = 1; /* wiped by the fork: a client's child is not the client */
    victim->session->alive[1] = 1;
    if (!lki_party_init(&segment->party, &segment->area, victim->id, lki_wake_native, segment))
        _exit(1);
    barrier_stage = victim->stage;
    barrier_refused = scenario->cannot;
    segment->party.barrier = make_barrier;
    for (uint32_t i = 0; i < STAGE_LOCKS; i++)
        lki_lock_set_view(victim->locks[i]); /* handles remember the id of their attachment */
    do_before(victim, scenario);
    tracer_begin_here();
    int result = do_call(victim->locks[STAGE_LOCK], scenario->call, expiry_ns);
    atomic_store(victim->result, result);
    tracer_end_here();
    _exit(0);
}

pid_t victim_start(struct victim *victim, const struct scenario *scenario, bool slow)
{
    struct stage *stage = victim->stage;
    uint32_t slot = scenario->last_slot ? STAGE_SLOT_VICTIM_HIGH : STAGE_SLOT_VICTIM_LOW;
    victim->generation = victim->generation % LKI_GENERATION_MAX + 1;
    victim->id = lki_attachment_open(&stage->area, slot, victim->generation, 0);
    victim->segment->area.patience_ns = scenario->patience_ns;
    stage->shared->victim_id = victim->id;
    pid_t parent = getpid();
    pid_t pid = fork();
    test_check(pid >= 0, "fork");
    if (pid == 0)
        be_victim(victim, scenario, slow ? EXPIRY_SLOW_NS : EXPIRY_NS, parent);
    atomic_store(&stage->shared->victim_pid, (uint32_t)pid);
    tracer_await_stop(pid);
    return pid;
}

int victim_result(const struct victim *victim)
{
    return atomic_load(victim->result);
}

uint32_t victim_id(const struct victim *victim)
{
    return victim->id;
}
