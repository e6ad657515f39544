/* SPDX-License-Identifier: MIT */
/* What the call costs that releases a lock for which others wait: it has to find the oldest of them among
 * all that are attached, and to wake it. Only the call is timed, not what it wakes: all are on one
 * processor, and who wakes there goes on only afterwards. Beside it the same from another processor, where
 * the kernel has to interrupt the one that sleeps, which on virtual ones costs more than all the rest. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "common/clock.h"

#define POPULATIONS 4u
#define CROWDS 3u
#define WAITERS_MAX 256u
#define SESSIONS_EACH 250u /* of a process that only is there: far below the usual limit on files */
#define PROCESSES_MAX (WAITERS_MAX + 8u)
#define ATTACHMENTS_MAX 2048u
#define SETTLE_NS (2 * LKI_NS_PER_MS) /* until whoever waits has stopped spinning, and sleeps */
#define WORK_NS 50000u                /* that the holder does: it has not just woken up */

/* In shared memory. */
struct signals {
    struct bench_gate gate;
    _Alignas(128) _Atomic uint32_t turn; /* another one: acquire and release once more */
    _Atomic uint32_t wanted;             /* the first so many of the waiters */
    _Atomic uint32_t done;
    _Alignas(128) _Atomic uint32_t floor; /* the floor's sleeper sleeps on this one */
};

/* A segment with so many others attached, some of which wait when they are told to. */
struct scene {
    const struct bench *bench;
    char name[32];
    unsigned waiters, sessions, index; /* sessions, index: of the process that is started next */
    struct signals *signals;
    struct lk_session *session; /* the holder's */
    struct lk_lock *lock;
    pid_t pids[PROCESSES_MAX];
    unsigned processes;
};

static struct lk_lock *attach(const struct scene *scene, struct lk_session **out_session)
{
    *out_session = bench_connect(scene->bench);
    return bench_lock(bench_segment(*out_session, scene->name, ATTACHMENTS_MAX));
}

static int be_there(void *arg)
{
    struct scene *scene = arg;
    struct lk_session *session;
    for (unsigned i = 0; i < scene->sessions; i++)
        attach(scene, &session);
    bench_gate_enter(&scene->signals->gate);
    return bench_stay();
}

/* On the processor of all who sleep, and never in front of who wakes it. */
static void give_way(void)
{
    bench_pin(0);
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
}

static int wait_when_told(void *arg)
{
    struct scene *scene = arg;
    struct signals *signals = scene->signals;
    struct lk_session *session;
    struct lk_lock *lock = attach(scene, &session);
    uint32_t turn = 0;
    give_way();
    bench_gate_enter(&signals->gate);
    for (;;) {
        while (!bench_wait_while(&signals->turn, turn))
            ; /* others have their turns */
        turn = atomic_load_explicit(&signals->turn, memory_order_acquire);
        if (scene->index >= atomic_load_explicit(&signals->wanted, memory_order_relaxed))
            continue;
        if (lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) != 0 || lk_lock_release(lock) != 0)
            return 1;
        bench_count(&signals->done);
    }
}

static int sleep_on_floor(void *arg)
{
    struct signals *signals = ((struct scene *)arg)->signals;
    uint32_t seen = 0;
    give_way();
    bench_gate_enter(&signals->gate);
    do {
        bench_wait_while(&signals->floor, seen);
        seen = atomic_load_explicit(&signals->floor, memory_order_relaxed);
    } while (!atomic_load_explicit(&signals->gate.stop, memory_order_relaxed));
    return 0;
}

static void set_up(struct bench *bench, struct scene *scene, unsigned others, unsigned waiters)
{
    *scene = (struct scene){
        .bench = bench, .waiters = waiters, .signals = bench_share(sizeof(struct signals))};
    snprintf(scene->name, sizeof(scene->name), "bench-waiters-%u", others);
    scene->pids[scene->processes++] = bench_spawn(sleep_on_floor, scene);
    for (; scene->index < waiters; scene->index++)
        scene->pids[scene->processes++] = bench_spawn(wait_when_told, scene);
    for (unsigned left = others - waiters; left > 0; left -= scene->sessions) {
        scene->sessions = left < SESSIONS_EACH ? left : SESSIONS_EACH;
        scene->pids[scene->processes++] = bench_spawn(be_there, scene);
    }
    scene->lock = attach(scene, &scene->session);
    bench_gate_await(&scene->signals->gate, scene->processes);
    bench_set(&scene->signals->gate.go, 1);
}

static void take_down(struct scene *scene)
{
    for (unsigned i = 0; i < scene->processes; i++)
        bench_kill(scene->pids[i]);
    lk_session_close(scene->session);
    bench_unshare(scene->signals, sizeof(struct signals));
}

/* Until the broker sees so many waits for the lock. */
static void await_waiters(const struct scene *scene, uint32_t wanted)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    struct lk_holder holder = {.size = sizeof(holder)};
    for (;;) {
        if (lk_lock_holder(scene->lock, &holder) < 0)
            bench_fail("%s", lk_last_error());
        if (holder.waiters == wanted)
            break;
        if (lki_clock_now_ns() > deadline_ns)
            bench_fail("only %u of %u wait", holder.waiters, wanted);
        bench_sleep(SETTLE_NS / 4);
    }
}

static void settle(void)
{
    bench_sleep(SETTLE_NS);
    uint64_t from = bench_ticks();
    while (bench_ticks_ns(from, bench_ticks()) < WORK_NS)
        ;
}

/* The calling process holds meanwhile, and lets all of them pass afterwards. */
static double release_ns(const struct scene *scene, uint32_t wanted)
{
    struct signals *signals = scene->signals;
    uint32_t done = 0;
    if (lk_lock_acquire(scene->lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) != 0)
        bench_fail("cannot acquire: %s", lk_last_error());
    atomic_store_explicit(&signals->done, 0, memory_order_relaxed);
    atomic_store_explicit(&signals->wanted, wanted, memory_order_relaxed);
    bench_set(&signals->turn, signals->turn + 1);
    await_waiters(scene, wanted);
    settle();
    uint64_t from = bench_ticks();
    int r = lk_lock_release(scene->lock);
    uint64_t to = bench_ticks();
    if (r != 0)
        bench_fail("cannot release: %s", lk_last_error());
    while ((done = atomic_load_explicit(&signals->done, memory_order_acquire)) < wanted)
        if (!bench_wait_while(&signals->done, done))
            bench_fail("only %u of %u got the lock", done, wanted);
    return (double)bench_ticks_ns(from, to);
}

static double floor_ns(const struct scene *scene)
{
    settle();
    uint32_t next = scene->signals->floor + 1;
    uint64_t from = bench_ticks();
    bench_set(&scene->signals->floor, next);
    uint64_t to = bench_ticks();
    return (double)bench_ticks_ns(from, to);
}

enum { FLOOR, NOBODY, SOMEBODY, FAR_FLOOR, FAR_SOMEBODY, SERIES };

static struct bench_group *add_group(struct bench_report *report, unsigned rounds, const char *name,
                                     const char *x_name, unsigned x)
{
    static const char *const names[SERIES] = {"futex wake", "nobody waits", "somebody waits",
                                              "futex wake elsewhere", "somebody waits elsewhere"};
    struct bench_group *group = bench_group_add(report, "ns", BENCH_LESS, rounds, "%s", name);
    bench_group_join(group, x_name, x);
    for (unsigned i = 0; i < SERIES; i++)
        bench_series_add(group, names[i]);
    group->series[SOMEBODY].bound = 20000;
    return group;
}

static void measure(const struct scene *scene, struct bench_group *group, uint32_t wanted)
{
    bench_pin(0);
    bench_sample(group, FLOOR, floor_ns(scene));
    bench_sample(group, NOBODY, release_ns(scene, 0));
    bench_sample(group, SOMEBODY, release_ns(scene, wanted));
    bench_pin(1);
    bench_sample(group, FAR_FLOOR, floor_ns(scene));
    bench_sample(group, FAR_SOMEBODY, release_ns(scene, wanted));
    bench_unpin();
}

static const unsigned usual_populations[POPULATIONS] = {1, 10, 100, 1000};
static const unsigned small_populations[POPULATIONS] = {1, 4, 16, 64};
static const unsigned usual_crowds[CROWDS] = {1, 32, WAITERS_MAX};
static const unsigned small_crowds[CROWDS] = {1, 8, 16};

void bench_waiters(struct bench *bench, struct bench_report *report)
{
    static struct scene scenes[POPULATIONS];
    struct bench_group *by_attached[POPULATIONS], *by_waiters[CROWDS];
    const unsigned *populations = bench->quick ? small_populations : usual_populations;
    const unsigned *crowds = bench->quick ? small_crowds : usual_crowds;
    const unsigned most = populations[POPULATIONS - 1];
    unsigned rounds = bench_rounds(bench, 31);
    char family[64];

    for (unsigned p = 0; p < POPULATIONS; p++) {
        by_attached[p] = add_group(report, rounds, "release", "others attached", populations[p]);
        set_up(bench, &scenes[p], populations[p], populations[p] < most ? 1 : crowds[CROWDS - 1]);
    }
    snprintf(family, sizeof(family), "release with %u attached", most);
    for (unsigned c = 0; c < CROWDS; c++)
        by_waiters[c] = add_group(report, rounds, family, "waiting", crowds[c]);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, "release");
        for (unsigned p = 0; p < POPULATIONS; p++)
            measure(&scenes[p], by_attached[p], 1);
        for (unsigned c = 0; c < CROWDS; c++)
            measure(&scenes[POPULATIONS - 1], by_waiters[c], crowds[c]);
    }
    for (unsigned p = 0; p < POPULATIONS; p++)
        take_down(&scenes[p]);
}
