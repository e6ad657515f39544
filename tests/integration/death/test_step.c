/* SPDX-License-Identifier: MIT */
/* A process kills itself between any two of its accesses to shared memory: at the first, then at
 * the second, and so on until it comes through. Each time a writer and a reader, waiting beside it
 * or coming afterwards, have to get the lock, and to be told if it died inside. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "engine/step.h"
#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define NAME "step"
#define STEPS_MAX 400
#define SLOW_NS (200 * LKI_NS_PER_MS)

#ifdef LKI_STEPS

enum when {
    BEFORE, /* the victim acts alone; the survivors come afterwards */
    BESIDE, /* the survivors queue while the victim holds; its steps begin with its release */
    BEHIND, /* the victim and then the survivors queue behind this process */
};

struct scene {
    const char *name;
    enum when when;
    enum lk_mode mode;   /* the victim's */
    enum lk_mode ours;   /* BEHIND: how this process holds the lock meanwhile; 0: not */
    uint64_t timeout_ns; /* the victim's */
    bool damaged;        /* an earlier owner has died inside */
};

static struct test_broker broker;
static struct test_client client;
static struct lk_lock *lock;
static const struct scene *scene;

static struct stage {
    int held, go, done;
    _Atomic uint32_t steps; /* that the victim has taken */
    uint32_t last;          /* at which it dies */
    _Atomic uint32_t
        inside; /* it holds exclusively: set after the acquire, cleared before release */
    _Atomic uint32_t tells; /* survivors that were told of a death */
    char at[32];            /* the name of that step */
} * stage;

/* --- The victim --- */

static void die_at_step(const char *name)
{
    if (atomic_fetch_add(&stage->steps, 1) + 1 != stage->last)
        return;
    snprintf(stage->at, sizeof(stage->at), "%s", name);
    kill(getpid(), SIGKILL);
}

static int be_the_victim(void *arg)
{
    struct test_client own;
    (void)arg;
    test_leave_as_it_is();
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    if (scene->when != BESIDE)
        lki_step_hook = die_at_step;
    int r = lk_lock_acquire(its, scene->mode, scene->timeout_ns);
    if (r < 0) {
        test_check(r == -ETIMEDOUT, "acquire gives %d: %s", r, lk_last_error());
        return 0;
    }
    if (scene->mode == LK_EXCLUSIVE) {
        atomic_store(&stage->inside, 1);
        lk_lock_declare(its, 1, 2);
        if (r == LK_ACQUIRED_OWNER_DIED)
            test_check(lk_lock_mark_consistent(its) == 0, "mark: %s", lk_last_error());
    }
    if (scene->when == BESIDE) {
        test_event_post(stage->held);
        test_event_wait(stage->go);
        lki_step_hook = die_at_step;
    }
    atomic_store(&stage->inside, 0);
    test_release(its);
    lki_step_hook = NULL;
    test_client_close(&own);
    return 0;
}

/* --- The survivors --- */

static int survive(enum lk_mode mode)
{
    struct test_client own;
    test_client_open(&own, broker.socket_path, NAME, NULL);
    struct lk_lock *its = test_lock(&own, 0);
    if (test_acquire(its, mode) == LK_ACQUIRED_OWNER_DIED) {
        atomic_fetch_add(&stage->tells, 1);
        if (mode == LK_EXCLUSIVE)
            lk_lock_mark_consistent(its);
    }
    test_release(its);
    test_event_post(stage->done);
    test_client_close(&own);
    return 0;
}

static int survive_as_writer(void *arg)
{
    (void)arg;
    return survive(LK_EXCLUSIVE);
}

static int survive_as_reader(void *arg)
{
    (void)arg;
    return survive(LK_SHARED);
}

/* --- The stage --- */

/* The victim sleeps, or has ended: three looks a millisecond apart find it so. */
static void await_rest(pid_t pid)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    uint32_t steps = 0;
    for (int calm = 0; calm < 3; calm++) {
        char state = test_process_state(pid);
        bool rests =
            state == 'Z' || (state == 'S' && atomic_load(&stage->steps) == steps && steps > 0);
        if (!rests)
            calm = -1;
        steps = atomic_load(&stage->steps);
        test_check(lki_clock_now_ns() < deadline_ns, "%s: the victim does not rest", scene->name);
        test_sleep_ns(LKI_NS_PER_MS);
    }
}

static void leave_damage(void)
{
    struct test_client other;
    test_client_open(&other, broker.socket_path, NAME, NULL);
    test_acquire(test_lock(&other, 0), LK_EXCLUSIVE);
    test_client_close(&other);
}

/* Whatever the round left is put right; the lock works as on the first day. */
/* Returns whether we, the last to take it, were told of a death. */
static bool tidy_up(void)
{
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 20 * LKI_NS_PER_S);
    cr_assert(le(int, 0, r), "%s, step %u (%s): the lock is lost: %s", scene->name, stage->last,
              stage->at, lk_last_error());
    if (r == LK_ACQUIRED_OWNER_DIED)
        cr_assert(eq(int, lk_lock_mark_consistent(lock), 0));
    test_release(lock);
    cr_assert(eq(int, lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER), LK_ACQUIRED));
    test_release(lock);
    return r == LK_ACQUIRED_OWNER_DIED;
}

static void start_survivors(pid_t *survivors)
{
    survivors[0] = test_spawn(survive_as_writer, NULL);
    survivors[1] = test_spawn(survive_as_reader, NULL);
}

/* True: the victim died. False: it came through, so there are no more steps. */
static bool play_round(uint32_t last, uint64_t *out_waited_ns)
{
    pid_t survivors[2];

    stage->steps = 0;
    stage->last = last;
    stage->inside = 0;
    stage->tells = 0;
    stage->at[0] = 0;
    if (scene->damaged)
        leave_damage();
    if (scene->ours)
        test_acquire(lock, scene->ours);
    pid_t victim = test_spawn(be_the_victim, NULL);
    switch (scene->when) {
    case BEFORE:
        break;
    case BESIDE:
        test_event_wait(stage->held);
        start_survivors(survivors);
        test_await_waiters(lock, 2);
        test_event_post(stage->go);
        break;
    case BEHIND:
        await_rest(victim);
        start_survivors(survivors);
        if (scene->ours == LK_EXCLUSIVE)
            test_await_waiters(lock, 2); /* a third if the victim still waits */
        test_release(lock);
        break;
    }
    if (scene->when == BEFORE) {
        test_reap(victim);
        start_survivors(survivors);
    }
    uint64_t start_ns = lki_clock_now_ns();
    for (int i = 0; i < 2; i++)
        cr_assert(test_event_wait_for(stage->done, 30 * LKI_NS_PER_S),
                  "%s, step %u (%s): a survivor waits for ever", scene->name, last, stage->at);
    *out_waited_ns = lki_clock_now_ns() - start_ns;
    for (int i = 0; i < 2; i++)
        test_reap_success(survivors[i]);
    if (scene->when != BEFORE)
        test_reap(victim);
    bool died = stage->at[0] != 0;
    /* On a busy machine both survivors may be through before the victim gets in: then we are told. */
    bool told = tidy_up() || atomic_load(&stage->tells) > 0;
    if (died && atomic_load(&stage->inside))
        cr_expect(told, "%s, step %u (%s): nobody was told", scene->name, last, stage->at);
    return died;
}

/* A lost wake-up ends with the sleeper's own long nap of 250 ms. A busy machine may be as slow
 * once, but not at the same step three times in a row. */
static bool play_step(uint32_t last)
{
    uint64_t waited_ns = 0;
    bool died = false;
    for (int tries = 0; tries < 3; tries++) {
        died = play_round(last, &waited_ns);
        if (waited_ns < SLOW_NS)
            return died;
    }
    cr_expect(lt(u64, waited_ns, SLOW_NS), "%s, step %u (%s): nobody was woken", scene->name, last,
              stage->at);
    return died;
}

static void play(const struct scene *played)
{
    uint32_t last = 1;
    scene = played;
    while (play_step(last) && last < STEPS_MAX)
        last++;
    cr_log_info("%s: died at each of %u steps", scene->name, last - 1);
    cr_expect(lt(u32, 2, last), "%s: there were no steps", scene->name);
    cr_expect(lt(u32, last, STEPS_MAX), "%s: the victim never came through", scene->name);
}

static void setup(void)
{
    struct lk_segment_options options = test_options(0, 1);
    stage = test_shared(sizeof(*stage));
    stage->held = test_event();
    stage->go = test_event();
    stage->done = test_event();
    test_broker_start(&broker);
    test_client_open(&client, broker.socket_path, NAME, &options);
    lock = test_lock(&client, 0);
}

static void teardown(void)
{
    test_client_close(&client);
    test_broker_stop(&broker);
}

#define MS LKI_NS_PER_MS
static const struct scene alone_exclusive = {"alone, exclusive", BEFORE, LK_EXCLUSIVE, 0,
                                             LK_WAIT_FOREVER,    false};
static const struct scene alone_shared = {"alone, shared", BEFORE, LK_SHARED, 0,
                                          LK_WAIT_FOREVER, false};
static const struct scene repairer = {"repairer", BEFORE, LK_EXCLUSIVE, 0, LK_WAIT_FOREVER, true};
static const struct scene waited_for = {"owner with waiters", BESIDE, LK_EXCLUSIVE, 0,
                                        LK_WAIT_FOREVER,      false};
static const struct scene waiting_exclusive = {"waiter, exclusive", BEHIND,          LK_EXCLUSIVE,
                                               LK_EXCLUSIVE,        LK_WAIT_FOREVER, false};
static const struct scene waiting_shared = {"waiter, shared", BEHIND,          LK_SHARED,
                                            LK_EXCLUSIVE,     LK_WAIT_FOREVER, false};
static const struct scene draining = {"draining owner", BEHIND,          LK_EXCLUSIVE,
                                      LK_SHARED,        LK_WAIT_FOREVER, false};
static const struct scene giving_up = {"waiter that gives up", BEHIND, LK_EXCLUSIVE,
                                       LK_EXCLUSIVE,           2 * MS, false};
static const struct scene backing_out = {
    "drainer that gives up", BEHIND, LK_EXCLUSIVE, LK_SHARED, 2 * MS, false};
#else
static void setup(void)
{
}
static void teardown(void)
{
}
#endif

TestSuite(step, .init = setup, .fini = teardown, .timeout = 100);

#ifdef LKI_STEPS
#define STEP_TEST(scene_name)                                                                      \
    Test(step, scene_name)                                                                         \
    {                                                                                              \
        play(&scene_name);                                                                         \
    }
#else
#define STEP_TEST(scene_name)                                                                      \
    Test(step, scene_name)                                                                         \
    {                                                                                              \
        cr_skip_test("this build has no step hook");                                               \
    }
#endif

STEP_TEST(alone_exclusive)
STEP_TEST(alone_shared)
STEP_TEST(repairer)
STEP_TEST(waited_for)
STEP_TEST(waiting_exclusive)
STEP_TEST(waiting_shared)
STEP_TEST(draining)
STEP_TEST(giving_up)
STEP_TEST(backing_out)
