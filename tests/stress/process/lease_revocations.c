/* SPDX-License-Identifier: MIT */
/* lease_revocations [N [--inherit]]
 *
 * N times (20) a holder under a lease of 5 ms that ends in a kill writes a canary without pause, is
 * stopped inside, and is waited for. Every fourth holder has forked a child before, which goes on
 * trying to write; every fourth is not stopped but deaf to SIGTERM, and writes up to its end. Whoever is granted the lock writes a canary of its own and watches it: no write
 * by the old holder, or by its child, may appear after the grant. Prints the number of such writes,
 * and the time from the end of the lease to the grant; the daemon's grace between SIGTERM, which a
 * stopped process does not hear, and SIGKILL is set to 1 ms and is part of it.
 *
 * With --inherit the children keep the data's map (LK_INHERIT), which no lease can help: they write,
 * and that has to be found. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/figures.h"
#include "tests/support/process.h"

#define NAME "revocations"
#define LEASE_NS (5 * LKI_NS_PER_MS)
#define COMPLAINT_NS (1 * LKI_NS_PER_MS) /* a waiter's first nap, about */
#define CHILD_NS (100 * LKI_NS_PER_MS)
#define WATCH_NS (20 * LKI_NS_PER_MS) /* how long each new holder watches its canary */
#define WORDS 64u                     /* each in a cache line of its own: one page */

struct stage {
    struct test_broker broker;
    uint32_t flags;             /* of the holder */
    _Atomic uint32_t *attempts; /* to write, by children; in memory of their own */
    int held;
};

static _Atomic uint64_t *canary(const struct test_client *client, uint32_t i)
{
    return (_Atomic uint64_t *)(void *)(client->data + (size_t)i * 64);
}

static void write_until(const struct test_client *client, uint64_t value, uint64_t until_ns)
{
    do {
        for (uint32_t i = 0; i < WORDS; i++)
            atomic_store_explicit(canary(client, i), value, memory_order_relaxed);
    } while (until_ns == LKI_TIME_NEVER || lki_clock_now_ns() < until_ns);
}

/* Dies of its first write, where the map is absent. */
static void try_once(const struct stage *stage, const struct test_client *client)
{
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
    atomic_fetch_add(stage->attempts, 1);
    write_until(client, UINT64_MAX, lki_clock_now_ns() + CHILD_NS);
    _exit(0);
}

/* A child of the holder, by its own children as long as the holder lives, then by itself. */
static void try_to_write(const struct stage *stage, const struct test_client *client, pid_t holder)
{
    while (getppid() == holder) {
        pid_t pid = fork();
        if (pid == 0)
            try_once(stage, client);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            break;
    }
    try_once(stage, client); /* now somebody else has the lock, or is about to */
}

enum kind { ALONE, WITH_CHILD, DEAF };

static int hold(void *arg, enum kind kind)
{
    const struct stage *stage = arg;
    struct test_client client;
    const struct lk_segment_options options = {.size = sizeof(options), .flags = stage->flags};
    test_client_open(&client, stage->broker.socket_path, NAME, &options);
    test_acquire(test_lock(&client, 0), LK_EXCLUSIVE);
    if (kind == DEAF)
        signal(SIGTERM, SIG_IGN);
    if (kind == WITH_CHILD) {
        pid_t holder = getpid();
        pid_t child = fork();
        test_check(child >= 0, "fork");
        if (child == 0)
            try_to_write(stage, &client, holder);
    }
    test_event_post(stage->held);
    write_until(&client, (uint64_t)getpid(), LKI_TIME_NEVER); /* only a kill ends this */
    return 1;
}

static int hold_alone(void *arg)
{
    return hold(arg, ALONE);
}

static int hold_with_child(void *arg)
{
    return hold(arg, WITH_CHILD);
}

static int hold_deaf(void *arg)
{
    return hold(arg, DEAF);
}

/* Held. Returns how many words show anything but ours. */
static uint64_t watch(const struct test_client *client, uint64_t round)
{
    uint64_t wrong = 0;
    uint64_t until_ns = lki_clock_now_ns() + WATCH_NS;

    for (uint32_t i = 0; i < WORDS; i++)
        atomic_store_explicit(canary(client, i), round << 32, memory_order_relaxed);
    do {
        for (uint32_t i = 0; i < WORDS; i++)
            if (atomic_load_explicit(canary(client, i), memory_order_relaxed) != round << 32)
                wrong++;
    } while (wrong == 0 && lki_clock_now_ns() < until_ns);
    return wrong;
}

/* One revocation. Returns the writes after the grant. */
static uint64_t revoke_once(struct stage *stage, const struct test_client *client,
                            struct lk_lock *lock, uint64_t round, struct test_figures *figures)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    bool deaf = round % 4 == 1;
    pid_t pid = test_spawn(deaf ? hold_deaf : round % 4 == 3 ? hold_with_child : hold_alone, stage);
    test_event_wait(stage->held);
    if (!deaf)
        test_stop(pid);

    uint64_t start_ns = lki_clock_now_ns();
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 30 * LKI_NS_PER_S);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    test_check(r == LK_ACQUIRED_OWNER_DIED, "round %lu: %d, %s", (unsigned long)round, r,
               lk_last_error());
    uint64_t wrong = watch(client, round);
    test_check(wrong == 0 || stage->flags & LK_INHERIT, "round %lu: written after the grant",
               (unsigned long)round);

    uint64_t lease_ns = COMPLAINT_NS + LEASE_NS;
    test_figures_add(figures, took_ns > lease_ns ? took_ns - lease_ns : 0);
    test_check(took_ns > LEASE_NS, "the lease was cut short: granted after %lu ns",
               (unsigned long)took_ns);
    test_check(lk_lock_recovery(lock, &recovery) == 0 && recovery.cause == LK_CAUSE_FORCED &&
                   recovery.pid == pid,
               "round %lu: cause %u, pid %d instead of %d", (unsigned long)round, recovery.cause,
               recovery.pid, (int)pid);
    test_check(lk_lock_mark_consistent(lock) == 0, "%s", lk_last_error());
    test_release(lock);
    int status = test_reap(pid);
    test_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", (unsigned)status);
    return wrong;
}

int main(int argc, char **argv)
{
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 20;
    struct stage stage = {.attempts = test_shared(sizeof(*stage.attempts)), .held = test_event()};
    struct test_client client;
    struct test_figures figures;
    struct lk_segment_options options = test_options(4096, 1);
    uint64_t wrong = 0;

    if (argc > 2 && strcmp(argv[2], "--inherit") == 0)
        stage.flags = LK_INHERIT;
    options.lease_ns = LEASE_NS;
    options.on_expiry = LK_EXPIRY_KILL;
    test_figures_init(&figures, rounds);
    test_broker_start_with(&stage.broker, "--grace", "1");
    test_client_open(&client, stage.broker.socket_path, NAME, &options);
    struct lk_lock *lock = test_lock(&client, 0);
    for (uint64_t round = 1; round <= rounds; round++)
        wrong += revoke_once(&stage, &client, lock, round, &figures);

    printf("%zu revocations, %u attempts to write by children, %lu writes after the grant\n",
           rounds, atomic_load(stage.attempts), (unsigned long)wrong);
    test_figures_print_ms(&figures, "end of lease to grant, with 1 ms of grace");
    if (stage.flags & LK_INHERIT)
        test_check(wrong > 0, "children that have the map write, and this did not see it");
    else
        test_check(wrong == 0, "written after the grant");
    test_check(rounds < 3 || atomic_load(stage.attempts) > 0, "no child tried anything");
    test_client_close(&client);
    test_broker_stop(&stage.broker);
    test_figures_deinit(&figures);
    return 0;
}
