/* SPDX-License-Identifier: MIT */
/* random_kills [--kills N] [SEED...]
 *
 * Six workers share three locks in all ways, and are killed at random: from outside at any moment,
 * and, where the step hook is compiled in, by themselves between any two accesses to shared memory.
 * Every 50 kills nobody is killed until every worker has done 20 more operations, so that one that
 * is stuck shows. 2,000 kills for each of the seeds 1, 2 and 3 if nothing else is asked. Even seeds
 * run with strict first in, first out.
 *
 * Exit 0: no violation, nobody stuck. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "engine/step.h"
#include "tests/stress/process/oracle.h"
#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define KILLS_PER_ROUND 50
#define CALM_OPERATIONS 20
#define STUCK_NS (10 * LKI_NS_PER_S)
#define NAME "kills"

struct run {
    struct oracle *oracle;
    struct test_broker broker;
    struct test_random random;
    uint64_t seed;
    uint64_t patience_ns;
    uint32_t lives;
    uint32_t kills;
    uint32_t own_kills; /* of them: by the step hook */
    uint64_t longest_calm_ns;
    pid_t pids[ORACLE_WORKERS];
};

struct worker {
    struct oracle_self self;
    struct run *run;
    struct test_random random;
    struct test_client client;
    struct lk_lock *locks[ORACLE_LOCKS];
};

/* Kept: now and then all six are dead at once, and an ephemeral segment would end with them, and
 * with it what the judge still knows. */
static struct lk_segment_options segment_options(const struct run *run)
{
    struct lk_segment_options options =
        test_options(ORACLE_LOCKS * sizeof(struct oracle_canary), ORACLE_LOCKS);
    options.patience_ns = run->patience_ns;
    options.flags |= LK_KEEP;
    return options;
}

/* --- The worker --- */

#ifdef LKI_STEPS
static struct oracle_self *hook_self;
static uint32_t steps_left;

static void die_at_step(const char *name)
{
    (void)name;
    if (steps_left == 0 || --steps_left != 0)
        return;
    atomic_store(&hook_self->oracle->lives[hook_self->life].doomed, 1);
    kill(getpid(), SIGKILL);
}

static void arm_step_hook(struct worker *worker)
{
    if (test_random_below(&worker->random, 2) == 0)
        return; /* this one is left to be killed from outside */
    hook_self = &worker->self;
    steps_left = 1 + (uint32_t)test_random_below(&worker->random, 2000);
    lki_step_hook = die_at_step;
}
#else
static void arm_step_hook(struct worker *worker)
{
    (void)worker;
}
#endif

static void be_at(struct worker *worker, enum oracle_place place)
{
    atomic_store(&worker->self.oracle->workers[worker->self.worker].place, place);
}

static struct oracle_canary *canary_of(struct worker *worker, uint32_t index)
{
    return (struct oracle_canary *)(void *)worker->client.data + index;
}

/* LK_ACQUIRED, LK_ACQUIRED_OWNER_DIED, or negative: not held, by a reason that is allowed. */
static int acquire(struct worker *worker, uint32_t index, enum lk_mode mode)
{
    static const uint64_t timeouts_ns[] = {
        LK_WAIT_FOREVER,   LK_WAIT_FOREVER, LK_WAIT_FOREVER,    0,
        LKI_NS_PER_MS / 5, LKI_NS_PER_MS,   20 * LKI_NS_PER_MS, 100 * LKI_NS_PER_MS};
    uint64_t timeout_ns = timeouts_ns[test_random_below(&worker->random, 8)];
    struct oracle_worker *facts = &worker->self.oracle->workers[worker->self.worker];

    be_at(worker, mode == LK_SHARED ? ORACLE_ACQUIRING_SHARED : ORACLE_ACQUIRING_EXCLUSIVE);
    uint64_t start_ns = lki_clock_now_ns();
    int r = lk_lock_acquire(worker->locks[index], mode, timeout_ns);
    uint64_t waited_ns = lki_clock_now_ns() - start_ns;
    if (waited_ns > atomic_load(&facts->longest_wait_ns))
        atomic_store(&facts->longest_wait_ns, waited_ns);
    if (r == LK_ACQUIRED || r == LK_ACQUIRED_OWNER_DIED)
        return r;
    atomic_fetch_add(&worker->self.oracle->gave_up, 1);
    bool allowed = (timeout_ns == 0 && r == -EBUSY) ||
                   (timeout_ns != 0 && timeout_ns != LK_WAIT_FOREVER && r == -ETIMEDOUT);
    if (!allowed)
        oracle_violation(worker->self.oracle, "lock %u: acquire gives %d: %s", index, r,
                         lk_last_error());
    be_at(worker, ORACLE_BETWEEN);
    return r < 0 ? r : -EPROTO;
}

static void release(struct worker *worker, uint32_t index)
{
    be_at(worker, ORACLE_RELEASING);
    int r = lk_lock_release(worker->locks[index]);
    if (r != 0)
        oracle_violation(worker->self.oracle, "lock %u: release gives %d: %s", index, r,
                         lk_last_error());
    be_at(worker, ORACLE_BETWEEN);
}

static void stay(struct worker *worker)
{
    uint64_t what = test_random_below(&worker->random, 16);
    if (what == 0)
        test_sleep_ns(test_random_below(&worker->random, LKI_NS_PER_MS));
    for (uint64_t i = 0; i < what * 20; i++)
        atomic_signal_fence(memory_order_seq_cst);
}

static void visit(struct worker *worker, uint32_t index, unsigned depth);

/* Locks are nested in rising order only: there is no deadlock to be found. */
static void visit_another(struct worker *worker, uint32_t index, unsigned depth)
{
    if (depth == 0 && index + 1 < ORACLE_LOCKS && test_random_below(&worker->random, 5) == 0)
        visit(worker, index + 1, 1);
}

static void visit_exclusive(struct worker *worker, uint32_t index, unsigned depth)
{
    struct lk_lock *lock = worker->locks[index];
    struct oracle_canary *canary = canary_of(worker, index);
    int result = acquire(worker, index, LK_EXCLUSIVE);
    bool healed = false;

    if (result < 0)
        return;
    be_at(worker, ORACLE_INSIDE_EXCLUSIVE);
    if (test_random_below(&worker->random, 2) == 0)
        lk_lock_declare(lock, index * sizeof(*canary), sizeof(*canary));
    oracle_enter_exclusive(&worker->self, index, lock, result, canary);
    stay(worker);
    visit_another(worker, index, depth);
    be_at(worker, ORACLE_INSIDE_EXCLUSIVE);
    if (result == LK_ACQUIRED_OWNER_DIED && test_random_below(&worker->random, 4) != 0) {
        oracle_heal(&worker->self, index, lock);
        healed = lk_lock_mark_consistent(lock) == 0;
        if (!healed)
            oracle_violation(worker->self.oracle, "lock %u: cannot mark it consistent", index);
    }
    oracle_leave_exclusive(&worker->self, index, result, healed, canary);
    release(worker, index);
}

static void visit_shared(struct worker *worker, uint32_t index, unsigned depth)
{
    struct lk_lock *lock = worker->locks[index];
    struct oracle_canary *canary = canary_of(worker, index);
    int result = acquire(worker, index, LK_SHARED);

    if (result < 0)
        return;
    be_at(worker, ORACLE_INSIDE_SHARED);
    oracle_enter_shared(&worker->self, index, lock, result, canary);
    stay(worker);
    visit_another(worker, index, depth);
    be_at(worker, ORACLE_INSIDE_SHARED);
    oracle_leave_shared(&worker->self, index, lock, result, canary);
    release(worker, index);
}

static void visit(struct worker *worker, uint32_t index, unsigned depth)
{
    uint64_t what = test_random_below(&worker->random, 8);
    if (what < 4)
        visit_exclusive(worker, index, depth);
    else if (what < 7)
        visit_shared(worker, index, depth);
    else
        oracle_read(&worker->self, index, worker->locks[index], canary_of(worker, index));
}

static int work(void *arg)
{
    struct worker *worker = arg;
    struct oracle *oracle = worker->self.oracle;
    struct lk_segment_options options = segment_options(worker->run);

    /* The parent does too, but somebody may be told of this death before it gets to that. */
    atomic_store(&oracle->lives[worker->self.life].pid, getpid());
    test_client_open(&worker->client, worker->run->broker.socket_path, NAME, &options);
    for (uint32_t index = 0; index < ORACLE_LOCKS; index++)
        worker->locks[index] = test_lock(&worker->client, index);
    arm_step_hook(worker);
    be_at(worker, ORACLE_BETWEEN);
    while (!atomic_load(&oracle->stop)) {
        visit(worker, (uint32_t)test_random_below(&worker->random, ORACLE_LOCKS), 0);
        atomic_fetch_add(&oracle->workers[worker->self.worker].progress, 1);
    }
    test_client_close(&worker->client);
    return 0;
}

/* --- The killer --- */

static void start_worker(struct run *run, uint32_t index)
{
    uint32_t life = ++run->lives;
    test_check(life < ORACLE_LIVES_MAX, "too many lives");
    struct worker worker = {
        .self = {.oracle = run->oracle, .worker = index, .life = life},
        .run = run,
        .random = {test_random_next(&run->random)},
    };
    atomic_store(&run->oracle->workers[index].life, life);
    atomic_store(&run->oracle->workers[index].place, ORACLE_OPENING);
    run->pids[index] = test_spawn(work, &worker);
    atomic_store(&run->oracle->lives[life].pid, run->pids[index]);
}

/* A worker has ended: killed as it was to be, or the run has failed. */
static void bury(struct run *run, uint32_t index, int status, bool by_us)
{
    uint32_t life = atomic_load(&run->oracle->workers[index].life);
    test_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
                   atomic_load(&run->oracle->lives[life].doomed),
               "seed %lu: a worker ended with status %#x", (unsigned long)run->seed,
               (unsigned)status);
    run->kills++;
    run->own_kills += !by_us;
    start_worker(run, index);
}

static void bury_suicides(struct run *run)
{
    for (uint32_t index = 0; index < ORACLE_WORKERS; index++) {
        int status;
        if (waitpid(run->pids[index], &status, WNOHANG) > 0)
            bury(run, index, status, false);
    }
}

static void kill_one(struct run *run)
{
    uint32_t index = (uint32_t)test_random_below(&run->random, ORACLE_WORKERS);
    int status;

    test_sleep_ns(test_random_below(&run->random, 3 * LKI_NS_PER_MS / 2));
    if (test_random_below(&run->random, 20) == 0) {
        kill(run->pids[index], SIGSTOP); /* long enough to be passed over */
        test_sleep_ns(15 * LKI_NS_PER_MS);
        kill(run->pids[index], SIGCONT);
    }
    uint32_t life = atomic_load(&run->oracle->workers[index].life);
    atomic_store(&run->oracle->lives[life].doomed, 1);
    kill(run->pids[index], SIGKILL);
    test_check(waitpid(run->pids[index], &status, 0) == run->pids[index], "waitpid");
    bury(run, index, status, true);
}

static void report_stuck(struct run *run, uint32_t index)
{
    char where[256];
    for (uint32_t i = 0; i < ORACLE_WORKERS; i++) {
        struct oracle_worker *worker = &run->oracle->workers[i];
        test_process_describe(run->pids[i], where, sizeof(where));
        fprintf(stderr, "worker %u%s: pid %d, %s, %lu operations, %s\n", i,
                i == index ? " (stuck)" : "", (int)run->pids[i],
                oracle_place_name(atomic_load(&worker->place)),
                (unsigned long)atomic_load(&worker->progress), where);
    }
    for (uint32_t lock = 0; lock < ORACLE_LOCKS; lock++)
        fprintf(stderr, "lock %u: life %u inside, token %#lx\n", lock,
                atomic_load(&run->oracle->locks[lock].writer),
                (unsigned long)atomic_load(&run->oracle->locks[lock].token));
    test_check(false, "seed %lu: stuck for %lu s after %u kills", (unsigned long)run->seed,
               (unsigned long)(STUCK_NS / LKI_NS_PER_S), run->kills);
}

/* Nobody is killed from outside until every worker has done some more. */
static void be_calm(struct run *run)
{
    uint64_t start_ns = lki_clock_now_ns();
    uint64_t wanted[ORACLE_WORKERS];

    for (uint32_t i = 0; i < ORACLE_WORKERS; i++)
        wanted[i] = atomic_load(&run->oracle->workers[i].progress) + CALM_OPERATIONS;
    for (uint32_t i = 0; i < ORACLE_WORKERS;) {
        bury_suicides(run);
        if (atomic_load(&run->oracle->workers[i].progress) >= wanted[i]) {
            i++;
            continue;
        }
        if (lki_clock_now_ns() - start_ns > STUCK_NS)
            report_stuck(run, i);
        test_sleep_ns(LKI_NS_PER_MS / 5);
    }
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    if (took_ns > run->longest_calm_ns)
        run->longest_calm_ns = took_ns;
}

/* Everybody who still lives leaves; one that kills itself on the way is fine too. */
static void end_workers(struct run *run)
{
    atomic_store(&run->oracle->stop, 1);
    for (uint32_t index = 0; index < ORACLE_WORKERS; index++) {
        int status = test_reap(run->pids[index]);
        uint32_t life = atomic_load(&run->oracle->workers[index].life);
        test_check((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                       (WIFSIGNALED(status) && atomic_load(&run->oracle->lives[life].doomed)),
                   "a worker ended with status %#x", (unsigned)status);
    }
}

static void take_each_lock_once_more(struct run *run)
{
    struct test_client client;
    struct lk_segment_options options = segment_options(run);
    test_client_open(&client, run->broker.socket_path, NAME, &options);
    for (uint32_t index = 0; index < ORACLE_LOCKS; index++) {
        struct lk_lock *lock = test_lock(&client, index);
        int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 5 * LKI_NS_PER_S);
        test_check(r >= 0, "lock %u is stuck at the end: %s", index, lk_last_error());
        test_release(lock);
    }
    test_client_close(&client);
}

/* The descriptors of a broker with one client: it opens some of its own only after it answers. */
static unsigned count_descriptors(const struct run *run)
{
    struct test_client client;
    struct lk_segment_options options = test_options(0, 1);
    test_client_open(&client, run->broker.socket_path, "first", &options);
    unsigned count = test_process_descriptors(run->broker.pid);
    test_client_close(&client);
    return count;
}

/* The broker drops what belonged to the dead, and so comes back to what it had with one client. */
static void await_descriptors(const struct run *run, unsigned before)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    while (test_process_descriptors(run->broker.pid) > before) {
        if (lki_clock_now_ns() >= deadline_ns)
            test_process_show_descriptors(run->broker.pid);
        test_check(lki_clock_now_ns() < deadline_ns, "the broker has %u descriptors, had %u",
                   test_process_descriptors(run->broker.pid), before);
        test_sleep_ns(LKI_NS_PER_MS);
    }
}

static uint32_t run_seed(uint64_t seed, uint32_t kills)
{
    struct run run = {.oracle = test_shared(sizeof(struct oracle)),
                      .seed = seed,
                      .random = {seed},
                      .patience_ns = seed % 2 == 0 ? LK_PATIENCE_FIFO : 0};
    uint64_t longest_wait_ns = 0;

    test_broker_start(&run.broker);
    unsigned descriptors = count_descriptors(&run);
    uint64_t start_ns = lki_clock_now_ns();
    for (uint32_t index = 0; index < ORACLE_WORKERS; index++)
        start_worker(&run, index);
    for (uint32_t calm_at = KILLS_PER_ROUND; run.kills < kills;) {
        bury_suicides(&run);
        kill_one(&run);
        if (run.kills < calm_at)
            continue;
        be_calm(&run);
        calm_at = run.kills + KILLS_PER_ROUND;
    }
    end_workers(&run);
    take_each_lock_once_more(&run);
    await_descriptors(&run, descriptors);
    test_broker_stop(&run.broker);

    const struct oracle *oracle = run.oracle;
    for (uint32_t index = 0; index < ORACLE_WORKERS; index++)
        if (atomic_load(&oracle->workers[index].longest_wait_ns) > longest_wait_ns)
            longest_wait_ns = atomic_load(&oracle->workers[index].longest_wait_ns);
    printf("seed %lu%s: %u kills (%u of them between two steps) in %.1f s; %lu exclusive, %lu "
           "shared, %lu optimistic; %lu told, %lu gave up; longest wait %.0f ms, longest calm %.0f "
           "ms; %u violations, 0 stuck\n",
           (unsigned long)seed, run.patience_ns ? " (fifo)" : "", run.kills, run.own_kills,
           (double)(lki_clock_now_ns() - start_ns) / 1e9, (unsigned long)oracle->exclusive,
           (unsigned long)oracle->shared, (unsigned long)oracle->optimistic,
           (unsigned long)oracle->told, (unsigned long)oracle->gave_up,
           (double)longest_wait_ns / 1e6, (double)run.longest_calm_ns / 1e6, oracle->violations);
    fflush(stdout);
    test_check(oracle->told > 0 || kills < 100, "not one death was told: nothing was tested");
    return oracle->violations;
}

int main(int argc, char **argv)
{
    uint32_t kills = 2000;
    uint32_t violations = 0;
    int first = 1;

    if (argc > 2 && strcmp(argv[1], "--kills") == 0) {
        kills = (uint32_t)strtoul(argv[2], NULL, 10);
        first = 3;
    }
    if (first == argc)
        for (uint64_t seed = 1; seed <= 3; seed++)
            violations += run_seed(seed, kills);
    for (int i = first; i < argc; i++)
        violations += run_seed(strtoull(argv[i], NULL, 10), kills);
    return violations == 0 ? 0 : 1;
}
