/* SPDX-License-Identifier: MIT */
#include "tests/sim/program.h"

#include <errno.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/bias.h"
#include "client/lock.h"
#include "client/session.h"
#include "common/cleanup.h"
#include "tests/sim/oracle.h"
#include "tests/sim/stores.h"

#define HOLDS_MAX 4u
#define ATTACHMENTS 12u

/* --- The segments --- */

struct place_kind {
    const char *name;
    uint32_t flags;
    uint64_t patience_ns;
    uint64_t lease_ns;
    uint32_t on_expiry;
};

static const struct place_kind kinds[] = {
    {.name = "native"},
    {.name = "fifo", .patience_ns = LK_PATIENCE_FIFO},
    {.name = "strict", .flags = LK_STRICT},
    {.name = "kept", .flags = LK_KEEP},
    {.name = "leased",
     .flags = LK_ACCEPT_KILL,
     .lease_ns = 10 * LKI_NS_PER_MS,
     .on_expiry = LK_EXPIRY_KILL},
};

#define KINDS LKI_ARRAY_LENGTH(kinds)

struct thread;

struct place { /* a segment as this thread has it */
    struct lk_segment *segment;
    struct sim_area *area;
    struct lk_lock *locks[SIM_LOCKS_MAX];
};

struct hold {
    struct oracle_hold told;
    uint32_t kind;
    bool damaged; /* told so */
};

struct waiting { /* asynchronous */
    struct thread *thread;
    uint32_t kind;
    uint32_t lock;
    enum lk_mode mode;
    bool pending;
};

struct thread {
    struct sim_task *task;
    int index;
    struct lk_session *session;
    struct place places[KINDS];
    struct hold holds[HOLDS_MAX];
    uint32_t hold_count;
    struct waiting waitings[2];
    bool gives_up; /* told of a deadlock: lets go of all */
};

static void do_next(struct thread *thread, const char *what)
{
    thread->task->doing = what;
    sim_step(what);
    stores_show(thread->task); /* the library may look at its own cells without a step before */
}

static void expect(bool allowed, const struct thread *thread, int result)
{
    if (!allowed)
        sim_fail("task %d, %s: unexpected %d: %s", thread->index, thread->task->doing, result,
                 lk_last_error());
}

static void pass_time(uint64_t most_ns)
{
    uint64_t until_ns = sim.now_ns + sim_between(0, most_ns);
    while (sim.now_ns < until_ns)
        sim_block(until_ns);
}

/* --- Sessions and segments --- */

static void open_session(struct thread *thread)
{
    do_next(thread, "opens a session");
    lki_session_leaves_memory = false; /* to another process, here */
    int r = lk_session_open(NULL, NULL, &thread->session);
    expect(r == 0, thread, r);
}

static bool try_open(struct thread *thread, uint32_t kind, bool read_only)
{
    struct place *place = &thread->places[kind];
    const struct lk_segment_options options = {
        .size = sizeof(options),
        .locks = sim.plan.locks,
        .attachments_max = ATTACHMENTS,
        .flags = kinds[kind].flags | (read_only ? LK_READ_ONLY : LK_CREATE),
        .patience_ns = kinds[kind].patience_ns,
        .lease_ns = kinds[kind].lease_ns,
        .on_expiry = kinds[kind].on_expiry,
    };
    do_next(thread, "opens a segment");
    int r = lk_segment_open(thread->session, kinds[kind].name, &options, &place->segment);
    expect(r >= 0 || r == -EUSERS || (read_only && r == -ENOENT), thread, r);
    if (r < 0)
        return false;
    place->area = kernel_area_at(place->segment->area_base);
    for (uint32_t lock = 0; lock < sim.plan.locks; lock++) {
        r = lk_lock_at(place->segment, lock, &place->locks[lock]);
        expect(r == 0, thread, r);
    }
    return true;
}

static bool use_place(struct thread *thread, uint32_t kind)
{
    if (thread->places[kind].segment)
        return true;
    return try_open(thread, kind, kinds[kind].flags == 0 && sim_chance(150));
}

static uint32_t choose_kind(void)
{
    uint32_t kind = sim_below(KINDS);
    while (!(sim.plan.segments >> kind & 1))
        kind = (kind + 1) % (uint32_t)KINDS;
    return kind;
}

static void forget_holds_of(struct thread *thread, uint32_t kind)
{
    for (uint32_t i = thread->hold_count; i-- > 0;) {
        if (thread->holds[i].kind != kind)
            continue;
        oracle_releasing(&thread->holds[i].told);
        thread->holds[i] = thread->holds[--thread->hold_count];
    }
}

static struct lk_lock *lock_of(const struct thread *thread, const struct hold *hold)
{
    return thread->places[hold->kind].locks[hold->told.lock];
}

/* --- Holding --- */

static bool is_involved(const struct thread *thread, uint32_t kind, uint32_t lock)
{
    for (uint32_t i = 0; i < thread->hold_count; i++)
        if (thread->holds[i].kind == kind && thread->holds[i].told.lock == lock)
            return true;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(thread->waitings); i++)
        if (thread->waitings[i].pending && thread->waitings[i].kind == kind &&
            thread->waitings[i].lock == lock)
            return true;
    return false;
}

static void note_taken(struct thread *thread, uint32_t kind, uint32_t lock, enum lk_mode mode,
                       int result)
{
    const struct place *place = &thread->places[kind];
    struct hold *hold = &thread->holds[thread->hold_count++];
    *hold = (struct hold){.told = {.area = place->area,
                                   .lock = lock,
                                   .task = thread->index,
                                   .mode = (enum lki_mode)((uint32_t)mode & ~(uint32_t)LK_TO_EXIT),
                                   .to_exit = mode == LK_EXCLUSIVE_TO_EXIT,
                                   .token = lk_lock_token(place->locks[lock])},
                          .kind = kind,
                          .damaged = result == LK_ACQUIRED_OWNER_DIED};
    sim_note("holds %s#%u, mode %x, result %d, token %llx", kinds[kind].name, lock, (unsigned)mode,
             result, (unsigned long long)lk_lock_token(place->locks[lock]));
    oracle_taken(&hold->told, hold->damaged, lk_lock_token(place->locks[lock]));
    sim_seen.fenceless += mode == LK_SHARED && stores_took_fenceless(thread->task);
}

static enum lk_mode choose_mode(void)
{
    if (sim_chance(250))
        return LK_UPDATE;
    uint32_t chance = sim_below(100);
    if (chance < sim.plan.shared)
        return LK_SHARED;
    return sim_chance(850) ? LK_EXCLUSIVE : LK_EXCLUSIVE_TO_EXIT;
}

static uint64_t choose_timeout(void)
{
    uint32_t chance = sim_below(100);
    return chance < 12 ? 0 : chance < 45 ? sim_between(1, 20 * LKI_NS_PER_MS) : LK_WAIT_FOREVER;
}

static void acquire(struct thread *thread, uint32_t kind, uint32_t index, enum lk_mode mode)
{
    struct lk_lock *lock = thread->places[kind].locks[index];
    uint64_t timeout_ns = choose_timeout();
    uint64_t start_ns = sim.now_ns;
    do_next(thread, "acquires");
    lki_bias_reads = 1 + sim_below(sim.plan.bias_reads);
    sim_note("acquires %s#%u, mode %x", kinds[kind].name, index, (unsigned)mode);
    int r = lk_lock_acquire(lock, mode, timeout_ns);
    thread->task->doing = "has acquired";
    if (r >= 0) {
        note_taken(thread, kind, index, mode, r);
        return;
    }
    sim_note("cannot: %d", r);
    expect(r == -EDEADLK || r == (timeout_ns == 0 ? -EBUSY : -ETIMEDOUT), thread, r);
    if (r == -ETIMEDOUT && sim.now_ns - start_ns < timeout_ns)
        sim_fail("task %d is told that the time is over, too early", thread->index);
    sim_seen.timed_out += r == -ETIMEDOUT;
    sim_seen.busy += r == -EBUSY;
    thread->gives_up |= r == -EDEADLK;
}

/* The hold is not one that the broker has for the session. */
static bool is_native(const struct lk_lock *lock)
{
    return lock->held_id == 0 && !lock->segment->brokered;
}

static void mark(struct thread *thread, struct hold *hold)
{
    do_next(thread, "marks as consistent");
    int r = lk_lock_mark_consistent(lock_of(thread, hold));
    expect(r == 0, thread, r);
    oracle_marked(&hold->told);
    oracle_check_mark(&hold->told, lk_lock_token(lock_of(thread, hold)));
    hold->damaged = false;
}

static void write_data(struct thread *thread, const struct hold *hold)
{
    do_next(thread, "writes");
    if (sim_chance(100)) {
        int r = lk_lock_declare(lock_of(thread, hold), 8, 16);
        expect(r == 0, thread, r);
    }
    hold->told.area->locks[hold->told.lock].writes++;
}

static void release(struct thread *thread, uint32_t at)
{
    struct hold hold = thread->holds[at];
    do_next(thread, "releases");
    sim_note("releases %s#%u", kinds[hold.kind].name, hold.told.lock);
    thread->holds[at] = thread->holds[--thread->hold_count];
    oracle_releasing(&hold.told);
    int r = lk_lock_release(lock_of(thread, &hold));
    expect(r == 0, thread, r);
    oracle_released(&hold.told);
}

/* --- Other modes --- */

static void upgrade(struct thread *thread, struct hold *hold)
{
    struct lk_lock *lock = lock_of(thread, hold);
    uint64_t timeout_ns = choose_timeout();
    uint64_t start_ns = sim.now_ns;
    do_next(thread, "upgrades");
    sim_note("upgrades %s#%u", kinds[hold->kind].name, hold->told.lock);
    int r = lk_lock_upgrade(lock, timeout_ns);
    thread->task->doing = "has upgraded";
    if (r >= 0) {
        hold->damaged = r == LK_ACQUIRED_OWNER_DIED;
        oracle_upgraded(&hold->told, hold->damaged, lk_lock_token(lock));
        sim_seen.changes_by_broker += !is_native(lock);
        return;
    }
    sim_note("cannot upgrade: %d", r);
    expect(r == -EDEADLK || r == (timeout_ns == 0 ? -EBUSY : -ETIMEDOUT), thread, r);
    if (r == -ETIMEDOUT && sim.now_ns - start_ns < timeout_ns)
        sim_fail("task %d is told that the time is over, too early", thread->index);
    thread->gives_up |= r == -EDEADLK;
}

static void downgrade(struct thread *thread, struct hold *hold, enum lk_mode mode)
{
    struct lk_lock *lock = lock_of(thread, hold);
    do_next(thread, "downgrades");
    sim_note("downgrades %s#%u to mode %x", kinds[hold->kind].name, hold->told.lock,
             (unsigned)mode);
    oracle_downgrading(&hold->told, (enum lki_mode)mode);
    int r = lk_lock_downgrade(lock, mode);
    expect(r == 0, thread, r);
    oracle_downgraded(&hold->told, lk_lock_token(lock));
    sim_seen.changes_by_broker += !is_native(lock);
}

/* False: nothing was done. */
static bool change_mode(struct thread *thread, struct hold *hold)
{
    bool update = hold->told.mode == LKI_MODE_UPDATE;
    if (hold->told.mode == LKI_MODE_SHARED || !sim_chance(update ? 700 : 150))
        return false;
    if (update && sim_chance(850))
        upgrade(thread, hold);
    else
        downgrade(thread, hold, !update && sim_chance(500) ? LK_UPDATE : LK_SHARED);
    return true;
}

/* As those do for whom read bias is made. Nothing is called inside, so that nobody need see them yet. */
static void use_in_a_row(struct thread *thread, uint32_t kind, uint32_t index)
{
    uint32_t others = thread->hold_count;
    for (uint32_t rounds = 1 + sim_below(8); rounds > 0 && !thread->gives_up; rounds--) {
        thread->task->slow = sim_chance(sim.plan.slow_tasks);
        acquire(thread, kind, index, sim_chance(850) ? LK_SHARED : LK_EXCLUSIVE);
        if (thread->hold_count == others)
            break;
        sim_compute();
        release(thread, others);
        sim_compute();
    }
    thread->task->slow = false;
}

static void use_hold(struct thread *thread)
{
    struct hold *hold = &thread->holds[sim_below(thread->hold_count)];
    if (change_mode(thread, hold))
        return;
    bool exclusive = hold->told.mode == LKI_MODE_EXCLUSIVE;
    if (exclusive && hold->damaged && sim_chance(700))
        mark(thread, hold);
    else if (exclusive && !hold->told.to_exit)
        write_data(thread, hold);
    else
        pass_time(LKI_NS_PER_MS);
}

/* --- Without holding --- */

static void read_optimistically(struct thread *thread, uint32_t kind, uint32_t index)
{
    const struct lk_lock *lock = thread->places[kind].locks[index];
    const struct sim_lock *known = &thread->places[kind].area->locks[index];
    uint64_t version;
    do_next(thread, "reads");
    if (lk_read_begin(lock, &version) < 0)
        return;
    uint64_t writes = known->writes;
    do_next(thread, "reads on");
    pass_time(50 * LKI_NS_PER_US);
    bool valid = lk_read_valid(lock, version);
    if (valid && known->writes != writes)
        sim_fail("task %d: a read is called valid, and somebody wrote meanwhile", thread->index);
    sim_seen.reads_valid += valid;
}

static void ask_holder(struct thread *thread, uint32_t kind, uint32_t index)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    do_next(thread, "asks who holds");
    int r = lk_lock_holder(thread->places[kind].locks[index], &holder);
    expect(r == 0, thread, r);
}

/* --- Asynchronous --- */

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct waiting *waiting = user;
    struct thread *thread = waiting->thread;
    (void)lock;
    waiting->pending = false;
    if (result >= 0) {
        sim_seen.async_taken++;
        note_taken(thread, waiting->kind, waiting->lock, waiting->mode, result);
        return;
    }
    sim_seen.async_canceled += result == -ECANCELED;
    expect(result == -ECANCELED || result == -ETIMEDOUT || result == -EDEADLK || result == -EBUSY ||
               result == -EUSERS,
           thread, result);
    thread->gives_up |= result == -EDEADLK;
}

static bool is_waiting(const struct thread *thread)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(thread->waitings); i++)
        if (thread->waitings[i].pending)
            return true;
    return false;
}

static uint32_t count_pending(const struct thread *thread)
{
    uint32_t count = 0;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(thread->waitings); i++)
        count += thread->waitings[i].pending;
    return count;
}

static void acquire_async(struct thread *thread, uint32_t kind, uint32_t index)
{
    struct waiting *waiting = thread->waitings;
    while (waiting->pending)
        waiting++;
    *waiting = (struct waiting){
        .thread = thread, .kind = kind, .lock = index, .mode = choose_mode(), .pending = true};
    do_next(thread, "acquires asynchronously");
    sim_note("acquires %s#%u asynchronously, mode %x", kinds[kind].name, index,
             (unsigned)waiting->mode);
    int r = lk_lock_acquire_async(thread->places[kind].locks[index], waiting->mode,
                                  choose_timeout(), on_acquired, waiting);
    expect(r == 0, thread, r);
}

static void dispatch(struct thread *thread, uint64_t wait_ns)
{
    do_next(thread, "dispatches");
    /* What lk_session_fd() would be readable for: the socket, or what another call has received. */
    if (lki_list_is_empty(&thread->session->answered))
        kernel_await_reply(thread->session->transport.socket_fd, lki_time_add(sim.now_ns, wait_ns));
    int r = lk_session_dispatch(thread->session);
    expect(r >= 0, thread, r);
}

static void cancel(struct thread *thread)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(thread->waitings); i++) {
        struct waiting *waiting = &thread->waitings[i];
        if (!waiting->pending)
            continue;
        do_next(thread, "cancels");
        int r = lk_lock_cancel(thread->places[waiting->kind].locks[waiting->lock]);
        expect(r >= 0, thread, r);
        dispatch(thread, 0);
        if (waiting->pending)
            sim_fail("task %d: what was cancelled is pending", thread->index);
        return;
    }
}

/* --- Leaving --- */

static void release_all(struct thread *thread)
{
    while (thread->hold_count > 0)
        release(thread, thread->hold_count - 1);
    thread->gives_up = false;
}

static void close_place(struct thread *thread, uint32_t kind)
{
    struct place *place = &thread->places[kind];
    do_next(thread, "closes a segment");
    sim_note("closes %s", kinds[kind].name);
    forget_holds_of(thread, kind);
    place->segment = lk_segment_close(place->segment);
    memset(place, 0, sizeof(*place));
    dispatch(thread, 0); /* what was pending is cancelled */
}

static void close_session(struct thread *thread)
{
    do_next(thread, "closes its session");
    for (uint32_t kind = 0; kind < KINDS; kind++)
        forget_holds_of(thread, kind);
    memset(thread->places, 0, sizeof(thread->places));
    memset(thread->waitings, 0, sizeof(thread->waitings));
    thread->session = lk_session_close(thread->session);
}

/* Lets go of all, and waits for what it has asked for. */
static void come_to_rest(struct thread *thread)
{
    release_all(thread);
    while (is_waiting(thread)) {
        dispatch(thread, LKI_TIME_NEVER);
        release_all(thread);
    }
    thread->task->doing = "rests";
    thread->task->at_rest = true;
    while (sim.phase <= SIM_CALMING)
        sim_block(LKI_TIME_NEVER);
    thread->task->at_rest = false;
}

/* --- The program --- */

static void lock_something(struct thread *thread, uint32_t kind, uint32_t index)
{
    uint32_t room = HOLDS_MAX - thread->hold_count - count_pending(thread);
    if (is_involved(thread, kind, index) || room == 0)
        return;
    if (count_pending(thread) < LKI_ARRAY_LENGTH(thread->waitings) && sim_chance(200))
        acquire_async(thread, kind, index);
    else if (sim_chance(sim.plan.in_a_row))
        use_in_a_row(thread, kind, index);
    else
        acquire(thread, kind, index, choose_mode());
}

static void act(struct thread *thread)
{
    uint32_t kind = choose_kind();
    uint32_t index = sim_below(sim.plan.locks);
    uint32_t what = sim_below(100);
    do_next(thread, "thinks");
    pass_time(20 * LKI_NS_PER_US);
    if (what < 45 || thread->hold_count == 0) {
        if (use_place(thread, kind))
            lock_something(thread, kind, index);
    } else if (what < 65) {
        release(thread, sim_below(thread->hold_count));
    } else if (what < 80) {
        use_hold(thread);
    } else if (what < 86) {
        pass_time(3 * LKI_NS_PER_MS);
    } else if (what < 90) {
        if (thread->places[kind].segment)
            read_optimistically(thread, kind, index);
    } else if (what < 92) {
        if (thread->places[kind].segment)
            ask_holder(thread, kind, index);
    } else if (what < 96) {
        if (is_waiting(thread))
            sim_chance(300) ? cancel(thread) : dispatch(thread, sim_between(0, 2 * LKI_NS_PER_MS));
    } else if (what < 97) {
        if (thread->places[kind].segment)
            close_place(thread, kind);
    } else if (what < 98) {
        close_session(thread);
        open_session(thread);
    } else {
        release_all(thread);
    }
    if (thread->gives_up)
        release_all(thread);
}

void program_main(void *user)
{
    struct thread thread = {.task = user};
    thread.index = (int)(thread.task - sim.tasks);
    open_session(&thread);
    while (sim.phase == SIM_FAULTS)
        act(&thread);
    come_to_rest(&thread);
    if (sim_chance(500))
        close_session(&thread);
}

void program_janitor(void *user)
{
    struct thread thread = {.task = user};
    thread.index = (int)(thread.task - sim.tasks);
    open_session(&thread);
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        do_next(&thread, "removes a segment");
        int r = lk_segment_remove(thread.session, kinds[kind].name);
        expect(r == 0 || r == -ENOENT, &thread, r);
        if (r == 0 && !(kinds[kind].flags & LK_KEEP))
            sim_fail("everybody has left, and the name '%s' is there", kinds[kind].name);
    }
    close_session(&thread);
}
