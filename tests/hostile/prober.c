/* SPDX-License-Identifier: MIT */
#include "tests/hostile/prober.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "tests/hostile/hostile.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define NAP_NS (2 * LKI_NS_PER_MS)     /* between rounds: the attack has a core to itself */
#define GIVE_UP_NS (20 * LKI_NS_PER_S) /* a step that waits so long has failed */

/* Each step is timed by itself: what a client waits for in one call, or in open and first use. */
enum step {
    STEP_CONNECT,
    STEP_NATIVE,
    STEP_BROKERED,
    STEP_CREATE,
    STEPS,
};

static const char *const step_names[STEPS] = {
    [STEP_CONNECT] = "connect and open",
    [STEP_NATIVE] = "native lock",
    [STEP_BROKERED] = "brokered lock",
    [STEP_CREATE] = "create and remove",
};

static struct shared {
    _Atomic bool pausing;
    _Atomic uint64_t rounds;
    _Atomic uint64_t failures;
    _Atomic uint64_t worst_ns;
    _Atomic uint32_t worst_step;
    char first_failure[PROBER_TEXT_BYTES];
} * shared;

static struct {
    pid_t pid;
    uid_t uid;
    const char *socket_path;
    int paused;
    int go;
    bool runs;
} prober;

/* --- In its process --- */

static bool fail(const char *what, int result)
{
    if (atomic_fetch_add(&shared->failures, 1) == 0)
        snprintf(shared->first_failure, sizeof(shared->first_failure), "%s: %d, %.200s", what,
                 result, lk_last_error());
    return false;
}

static bool lock_once(struct lk_segment *segment, const char *what)
{
    struct lk_lock *lock = NULL;
    int r = lk_lock_at(segment, 0, &lock);
    if (r == 0)
        r = lk_lock_acquire(lock, LK_EXCLUSIVE, GIVE_UP_NS);
    if (r == 0)
        r = lk_lock_release(lock);
    return r == 0 || fail(what, r);
}

static bool create_and_remove(struct lk_session *session, uint64_t round)
{
    char name[32];
    struct lk_segment_options options = test_options(4096, 1);
    struct lk_segment *segment = NULL;
    options.flags = LK_CREATE_NEW | LK_KEEP;
    snprintf(name, sizeof(name), "probe-%llu", (unsigned long long)round);
    int r = lk_segment_open(session, name, &options, &segment);
    if (r < 0)
        return fail("create", r);
    r = lk_segment_remove(session, name);
    lk_segment_close(segment);
    return r == 0 || fail("remove", r);
}

static void note(enum step step, uint64_t *began_ns)
{
    uint64_t now_ns = lki_clock_now_ns();
    uint64_t took_ns = now_ns - *began_ns;
    if (took_ns > atomic_load(&shared->worst_ns)) {
        atomic_store(&shared->worst_ns, took_ns);
        atomic_store(&shared->worst_step, step);
    }
    *began_ns = now_ns;
}

static void probe(uint64_t round)
{
    struct lk_session_options no_start = {.size = sizeof(no_start), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    struct lk_segment *native = NULL;
    struct lk_segment *strict = NULL;
    uint64_t began_ns = lki_clock_now_ns();
    int r = lk_session_open(prober.socket_path, &no_start, &session);
    if (r == 0)
        r = lk_segment_open(session, "native", NULL, &native);
    note(STEP_CONNECT, &began_ns);
    bool ok = r == 0 || fail("open", r);
    ok = ok && lock_once(native, "native lock");
    note(STEP_NATIVE, &began_ns);
    if (ok) {
        r = lk_segment_open(session, "private", NULL, &strict);
        ok = r == 0 ? lock_once(strict, "brokered lock") : fail("open a strict segment", r);
    }
    note(STEP_BROKERED, &began_ns);
    if (ok)
        create_and_remove(session, round);
    note(STEP_CREATE, &began_ns);
    lk_session_close(session);
    atomic_fetch_add(&shared->rounds, 1);
}

/* What the rounds use, and what attacks may reach. */
static void make_segments(struct lk_session *session)
{
    static const struct {
        const char *name;
        uint32_t mode;
        uint32_t flags;
    } wanted[] = {
        {"native", 0600, 0},  {"private", 0600, LK_STRICT}, {"shown", 0644, 0},
        {"meeting", 0666, 0}, {"strict", 0666, LK_STRICT},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        struct lk_segment_options options = test_options(4096, 8);
        struct lk_segment *segment = NULL;
        options.mode = wanted[i].mode;
        options.flags |= wanted[i].flags;
        int r = lk_segment_open(session, wanted[i].name, &options, &segment);
        test_check(r == LK_CREATED, "%s: %d, %s", wanted[i].name, r, lk_last_error());
    }
}

static int run_prober(void *arg)
{
    (void)arg;
    hostile_become(prober.uid);
    make_segments(test_session(prober.socket_path));
    for (uint64_t round = 0;; round++) {
        if (atomic_load(&shared->pausing)) {
            test_event_post(prober.paused);
            test_event_wait(prober.go);
        }
        probe(round);
        test_sleep_ns(NAP_NS);
    }
    return 0;
}

/* --- In the program --- */

void prober_start(const char *socket_path, uid_t uid)
{
    if (!shared)
        shared = test_shared(sizeof(*shared));
    memset(shared, 0, sizeof(*shared));
    if (prober.paused == 0) {
        prober.paused = test_event();
        prober.go = test_event();
    }
    prober.uid = uid;
    prober.socket_path = socket_path;
    prober.runs = false;
    atomic_store(&shared->pausing, true);
    prober.pid = test_spawn(run_prober, NULL);
    test_event_wait(prober.paused);
}

void prober_run(void)
{
    test_check(!prober.runs, "it runs");
    memset(shared, 0, sizeof(*shared));
    prober.runs = true;
    test_event_post(prober.go);
}

void prober_await_rounds(uint64_t rounds)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    while (atomic_load(&shared->rounds) < rounds) {
        test_check(lki_clock_now_ns() < deadline_ns, "the prober stands still");
        test_sleep_ns(LKI_NS_PER_MS);
    }
}

void prober_pause(struct prober_report *out_report)
{
    test_check(prober.runs, "it does not run");
    atomic_store(&shared->pausing, true);
    test_event_wait(prober.paused);
    prober.runs = false;
    *out_report = (struct prober_report){
        .rounds = atomic_load(&shared->rounds),
        .failures = atomic_load(&shared->failures),
        .worst_ns = atomic_load(&shared->worst_ns),
        .worst_step = step_names[atomic_load(&shared->worst_step)],
    };
    memcpy(out_report->first_failure, shared->first_failure, sizeof(out_report->first_failure));
}

void prober_stop(void)
{
    test_kill(prober.pid);
    prober.pid = 0;
}
