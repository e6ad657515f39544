/* SPDX-License-Identifier: MIT */
/* Processes connect and end, at any point of what a client does at first, by themselves or by
 * SIGKILL. Afterwards the broker's descriptors, sessions and segments are what they were, exactly, and
 * its memory is within 1 MiB (not counted under the sanitizers, which keep what was freed).
 *
 *     connect_storm [CYCLES [SEED]]            3000 if not given */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/admin.h"
#include "common/clock.h"
#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"
#include <lockkeeper/lockkeeper.h>

#define CYCLES_DEFAULT 3000u
#define WARM_UP_CYCLES 1000u /* until the allocator has what it needs for so many at a time */
#define AT_A_TIME 16u
#define SEGMENTS 8u
#define PATIENCE_NS (30 * LKI_NS_PER_S)
#define GROWTH_KIB_MAX 1024u
#ifdef __SANITIZE_ADDRESS__
#define COUNTS_MEMORY false
#else
#define COUNTS_MEMORY true
#endif

struct cycle {
    const char *socket_path;
    struct test_random random;
};

struct state {
    unsigned descriptors;
    uint32_t sessions;
    uint32_t segments;
    uint64_t resident_kib;
};

static struct lk_session *control;

/* A client, up to a random point. Refusals are none of its business: others may have removed what it
 * opens. */
static int live(void *arg)
{
    struct cycle *cycle = arg;
    struct lk_session_options no_start = {.size = sizeof(no_start), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    struct lk_segment_options options = test_options(4096, 4);
    char name[16];
    uint64_t until = test_random_below(&cycle->random, 6);
    bool waits_for_kill = test_random_below(&cycle->random, 2) == 0;

    test_leave_as_it_is();
    snprintf(name, sizeof(name), "storm-%u", (unsigned)test_random_below(&cycle->random, SEGMENTS));
    options.flags |= test_random_below(&cycle->random, 4) == 0 ? LK_STRICT : 0;
    test_check(lk_session_open(cycle->socket_path, &no_start, &session) == 0, "%s",
               lk_last_error());
    if (until > 0 && lk_segment_open(session, name, &options, &segment) >= 0 &&
        lk_lock_at(segment, 0, &lock) == 0 && until > 1) {
        int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 2 * LKI_NS_PER_MS);
        if (r >= 0 && until > 2)
            (void)lk_lock_release(lock);
        if (until > 3)
            lk_segment_close(segment);
        if (until > 4)
            lk_session_close(session);
    }
    if (waits_for_kill)
        test_stay();
    return 0;
}

/* Lets cycles processes live and die, AT_A_TIME at a time; some are killed at any instant. */
static void storm(const char *socket_path, unsigned cycles, struct test_random *random)
{
    pid_t pids[AT_A_TIME];
    for (unsigned done = 0; done < cycles; done += AT_A_TIME) {
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            struct cycle cycle = {.socket_path = socket_path,
                                  .random = {.state = test_random_next(random)}};
            pids[i] = test_spawn(live, &cycle);
        }
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            test_sleep_ns(test_random_below(random, 100) * LKI_NS_PER_US);
            (void)kill(pids[i], SIGKILL); /* a zombie by now, perhaps */
            int status = test_reap(pids[i]);
            test_check((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                           (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
                       "a client ended with status %#x", (unsigned)status);
        }
    }
}

static int count_broker(const struct lki_list_entry *entry, void *user)
{
    struct state *state = user;
    state->sessions = entry->waiters;
    state->segments = entry->attachments;
    return 0;
}

static void look(pid_t broker, struct state *out_state)
{
    int r = lki_admin_list(control, LKI_LIST_BROKER, NULL, count_broker, out_state);
    test_check(r == 0, "%s", lk_last_error());
    out_state->descriptors =
        test_process_descriptors(broker); /* the worker's: one table for both */
    out_state->resident_kib = test_process_resident_kib(broker);
}

static bool is_back(const struct state *now, const struct state *before)
{
    bool grown = now->resident_kib > before->resident_kib + GROWTH_KIB_MAX;
    return now->descriptors == before->descriptors && now->sessions == before->sessions &&
           now->segments == before->segments && !(grown && COUNTS_MEMORY);
}

/* Ends are noticed a little after a wait(2): the last are still being cleaned up. */
static bool await_state(pid_t broker, const struct state *before, struct state *out_now)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    for (look(broker, out_now); !is_back(out_now, before); look(broker, out_now)) {
        if (lki_clock_now_ns() > deadline_ns)
            return false;
        test_sleep_ns(10 * LKI_NS_PER_MS);
    }
    return true;
}

/* The state of a broker that serves nobody but us. */
static void await_rest(pid_t broker, struct state *out_state)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    struct state last;
    look(broker, &last);
    for (;;) {
        test_sleep_ns(100 * LKI_NS_PER_MS);
        look(broker, out_state);
        if (out_state->sessions == 1 && out_state->segments == 0 &&
            out_state->descriptors == last.descriptors)
            return;
        test_check(lki_clock_now_ns() < deadline_ns, "the broker does not come to rest");
        last = *out_state;
    }
}

int main(int argc, char **argv)
{
    struct test_broker broker;
    struct state before;
    struct state after;
    unsigned cycles = argc > 1 ? (unsigned)atoi(argv[1]) : CYCLES_DEFAULT;
    struct test_random random = {.state =
                                     argc > 2 ? strtoull(argv[2], NULL, 0) : lki_clock_now_ns()};
    printf("seed %" PRIu64 "\n", random.state);
    test_broker_start(&broker);
    pid_t worker = test_broker_worker(&broker);
    control = test_session(broker.socket_path);
    storm(broker.socket_path, cycles < WARM_UP_CYCLES ? cycles : WARM_UP_CYCLES, &random);
    await_rest(worker, &before);

    uint64_t began_ns = lki_clock_now_ns();
    storm(broker.socket_path, cycles, &random);
    uint64_t took_ns = lki_clock_now_ns() - began_ns;
    bool back = await_state(worker, &before, &after);
    printf(
        "%u cycles in %.1f s: descriptors %u -> %u, sessions %u -> %u, segments %u -> %u, memory "
        "%" PRIu64 " -> %" PRIu64 " KiB\n",
        cycles, (double)took_ns / (double)LKI_NS_PER_S, before.descriptors, after.descriptors,
        before.sessions, after.sessions, before.segments, after.segments, before.resident_kib,
        after.resident_kib);
    fflush(stdout);
    if (!back)
        test_process_show_descriptors(worker);
    test_check(back, "the broker is not what it was");
    lk_session_close(control);
    test_broker_stop(&broker);
    return 0;
}
