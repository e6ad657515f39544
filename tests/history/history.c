/* SPDX-License-Identifier: MIT */
/* history [--seconds N] [--seed N] [--clients N] [--patience N] [--break NAME]
 *
 * Clients lock in all ways, natively and through the broker, and read optimistically; they are
 * killed, stopped and continued at random, and the broker's worker is killed or stopped every 200 ms.
 * Each writes down what it asks for and what it is told (record.h). Every two seconds nothing is
 * done to anybody until all have come to rest: that nobody is stuck is checked there. Then every
 * lock is taken once, and the history is judged (check.h).
 *
 * --patience: seconds after which somebody counts as stuck, or as having waited too long.
 * --break: plants a mistake, which has to be found. Exit 0: no violation; 1: some. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/admin.h"
#include "common/barrier.h"
#include "common/clock.h"
#include "tests/history/check.h"
#include "tests/history/run.h"
#include "tests/support/broker.h"
#include "tests/support/watch.h"

#define PART_NS (2 * LKI_NS_PER_S)
#define WORKER_EVERY_NS (200 * LKI_NS_PER_MS)
#define REPORTS_MAX 20u

struct body {
    pid_t pid;
    uint32_t life;
    struct record *stop; /* its stop, while it is stopped */
    uint64_t continue_at_ns;
};

struct rest_state {
    unsigned descriptors;
    uint32_t sessions;
    uint32_t attachments;
};

static struct {
    uint64_t for_ns;
    uint64_t seed;
    uint64_t patience_ns;
    uint32_t clients;
    enum run_break broken;
    struct test_broker broker;
    struct test_random random;
    struct run_shared *shared;
    struct history *history;
    struct lk_session *control;
    struct body bodies[RUN_CLIENTS_MAX];
    uint32_t lives;
    uint32_t parts, kills, stops, own_ends, worker_kills, worker_stops;
    uint64_t records;
    uint64_t reports;
    uint64_t longest_rest_ns;
} run = {.for_ns = 10 * LKI_NS_PER_S, .seed = 1, .patience_ns = 20 * LKI_NS_PER_S, .clients = 8};

static const char *const break_names[RUN_BREAKS] = {"none",  "skip",   "token", "deaf",
                                                    "crier", "sloppy", "lazy",  "blind",
                                                    "late",  "stay",   "hasty", "leak"};

/* --- What is found --- */

static void report(enum history_rule rule, const struct record *record, const char *text,
                   void *user)
{
    (void)user;
    /* The first of each kind in any case: one mistake breaks several rules. */
    if (run.reports++ >= REPORTS_MAX && history_figures(run.history)->violations[rule] > 1)
        return;
    printf("violation: %s: lock %u, life %u, %s%s%s at %.6f s: %s\n", history_rule_name(rule),
           record->lock, record->life,
           record->kind == RECORD_READ    ? "read"
           : record->mode == LK_EXCLUSIVE ? "exclusive"
           : record->mode == LK_UPDATE    ? "update"
                                          : "shared",
           record->flags & RECORD_ASYNC ? ", asynchronous"
           : record->from == LK_UPDATE  ? ", was for update"
           : record->from != 0          ? ", was exclusive"
                                        : "",
           record->lock / RUN_LOCKS_EACH % 2 ? ", strict" : "", (double)record->answered_ns / 1e9,
           text);
}

static void __attribute__((noreturn)) report_stuck(uint32_t stuck)
{
    for (uint32_t i = 0; i < run.clients; i++) {
        const struct run_ring *ring = &run.shared->rings[i];
        uint32_t used = atomic_load(&ring->used);
        char where[256];
        test_process_describe(run.bodies[i].pid, where, sizeof(where));
        fprintf(stderr, "client %u%s: pid %d, life %u, line %u, %u records, %s\n", i,
                i == stuck ? " (stuck)" : "", (int)run.bodies[i].pid, run.bodies[i].life,
                atomic_load(&run.shared->at[i]), used, where);
        if (used > 0)
            fprintf(stderr, "  last: lock %u, mode %u, stage %u, timeout %" PRIu64 "\n",
                    ring->records[used - 1].lock, ring->records[used - 1].mode,
                    (unsigned)record_stage_of(&ring->records[used - 1]),
                    ring->records[used - 1].timeout_ns);
    }
    printf("violation: stuck: client %u does not come to rest; seed %" PRIu64 "\n", stuck,
           run.seed);
    fflush(stdout);
    test_broker_show_log(&run.broker);
    /* Whoever hangs does not end by itself. Not by test_fail(), whose abort hides this finding. */
    for (uint32_t i = 0; i < run.clients; i++)
        kill(run.bodies[i].pid, SIGKILL);
    kill(run.broker.pid, SIGKILL);
    waitpid(run.broker.pid, NULL, 0);
    test_broker_forget(&run.broker);
    _exit(1);
}

/* --- Lives and deaths --- */

static struct run_ring *own_ring(void)
{
    return &run.shared->rings[RUN_CLIENTS_MAX];
}

static void start_client(uint32_t index)
{
    static struct run_client client; /* too much for a stack; each child has its copy */
    client = (struct run_client){.shared = run.shared,
                                 .socket_path = run.broker.socket_path,
                                 .index = index,
                                 .life = ++run.lives,
                                 .broken = run.broken,
                                 .random = {test_random_next(&run.random)}};
    client.reads_only = client.life % 6 == 0;
    run.bodies[index] = (struct body){.life = client.life};
    run.bodies[index].pid = test_spawn(run_client_live, &client);
}

static void end_record(struct record *record)
{
    record->answered_ns = lki_clock_now_ns();
    record_reach(record, RECORD_LEFT);
}

/* Those that have left by themselves; whoever did so in any other way has failed. */
static void replace_ended(void)
{
    for (uint32_t i = 0; i < run.clients; i++) {
        int status = 0;
        if (waitpid(run.bodies[i].pid, &status, WNOHANG) <= 0)
            continue;
        test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                   "client %u, life %u, ended with status %#x; seed %" PRIu64, i,
                   run.bodies[i].life, (unsigned)status, run.seed);
        if (run.bodies[i].stop)
            end_record(run.bodies[i].stop);
        run.own_ends++;
        start_client(i);
    }
}

static void kill_client(uint32_t index)
{
    struct body *body = &run.bodies[index];
    struct record *death = run_record(own_ring(), RECORD_DEATH, body->life);
    int status = 0;
    death->pid = body->pid;
    test_check(kill(body->pid, SIGKILL) == 0, "kill %d", (int)body->pid);
    test_check(waitpid(body->pid, &status, 0) == body->pid, "waitpid %d", (int)body->pid);
    /* It may have left just before. */
    test_check((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
                   (WIFEXITED(status) && WEXITSTATUS(status) == 0),
               "client %u ended with status %#x", index, (unsigned)status);
    end_record(death);
    if (body->stop)
        end_record(body->stop);
    run.kills++;
    start_client(index);
}

static void stop_client(uint32_t index)
{
    struct body *body = &run.bodies[index];
    uint64_t longest_ns = test_random_below(&run.random, 16) == 0 ? 400 : 30;
    if (body->stop)
        return;
    body->stop = run_record(own_ring(), RECORD_STOP, body->life);
    test_check(kill(body->pid, SIGSTOP) == 0, "stop %d", (int)body->pid);
    body->continue_at_ns =
        lki_clock_now_ns() + test_random_below(&run.random, longest_ns * LKI_NS_PER_MS);
    run.stops++;
}

static void continue_clients(uint64_t now_ns)
{
    for (uint32_t i = 0; i < run.clients; i++) {
        struct body *body = &run.bodies[i];
        if (!body->stop || body->continue_at_ns > now_ns)
            continue;
        test_continue(body->pid);
        end_record(body->stop);
        body->stop = NULL;
    }
}

static void hurt_worker(void)
{
    pid_t worker = test_broker_worker(&run.broker);
    if (test_random_below(&run.random, 8) != 0) {
        test_check(kill(worker, SIGKILL) == 0, "cannot kill the worker %d", (int)worker);
        run.worker_kills++;
        return;
    }
    test_check(kill(worker, SIGSTOP) == 0, "cannot stop the worker %d", (int)worker);
    test_sleep_ns(test_random_below(&run.random, 50 * LKI_NS_PER_MS));
    test_check(kill(worker, SIGCONT) == 0, "cannot continue the worker %d", (int)worker);
    run.worker_stops++;
}

/* --- Parts of a run --- */

static void disturb(uint64_t until_ns)
{
    uint64_t hurt_at_ns = lki_clock_now_ns();
    for (uint64_t now_ns; (now_ns = lki_clock_now_ns()) < until_ns;) {
        uint64_t what = test_random_below(&run.random, 16);
        uint32_t index = (uint32_t)test_random_below(&run.random, run.clients);
        replace_ended();
        continue_clients(now_ns);
        if (what < 3)
            kill_client(index);
        else if (what < 6)
            stop_client(index);
        if (now_ns >= hurt_at_ns) {
            hurt_worker();
            hurt_at_ns = now_ns + WORKER_EVERY_NS;
        }
        test_sleep_ns(test_random_below(&run.random, 8 * LKI_NS_PER_MS));
    }
    continue_clients(UINT64_MAX);
}

static void await_rest(uint32_t phase)
{
    uint64_t began_ns = lki_clock_now_ns();
    for (uint32_t i = 0; i < run.clients; i++) {
        while (atomic_load(&run.shared->resting[i]) != phase) {
            replace_ended();
            if (lki_clock_now_ns() - began_ns > run.patience_ns)
                report_stuck(i);
            test_sleep_ns(LKI_NS_PER_MS / 2);
        }
    }
    uint64_t took_ns = lki_clock_now_ns() - began_ns;
    if (took_ns > run.longest_rest_ns)
        run.longest_rest_ns = took_ns;
}

static void take_all(void)
{
    static struct run_client client;
    client = (struct run_client){.shared = run.shared,
                                 .socket_path = run.broker.socket_path,
                                 .index = RUN_CLIENTS_MAX,
                                 .life = ++run.lives,
                                 .random = {test_random_next(&run.random)}};
    run_client_open(&client);
    run_client_take_all(&client, run.patience_ns);
    lk_session_close(client.segments[0].session);
}

static size_t judge(void)
{
    for (uint32_t i = 0; i <= RUN_CLIENTS_MAX; i++) {
        const struct run_ring *ring = &run.shared->rings[i];
        uint32_t used = atomic_load(&ring->used);
        history_add(run.history, ring->records, used);
        run.records += used;
    }
    size_t found = history_check(run.history);
    for (uint32_t i = 0; i <= RUN_CLIENTS_MAX; i++)
        atomic_store(&run.shared->rings[i].used, 0);
    run.parts++;
    return found;
}

/* The phase goes on to the next odd one, and back to rest. */
static size_t run_part(uint64_t for_ns)
{
    atomic_fetch_add(&run.shared->phase, 1);
    disturb(lki_clock_now_ns() + for_ns);
    uint32_t phase = atomic_fetch_add(&run.shared->phase, 1) + 1;
    await_rest(phase);
    take_all();
    return judge();
}

/* --- Beginning and end --- */

static int count_broker(const struct lki_list_entry *entry, void *user)
{
    ((struct rest_state *)user)->sessions = entry->waiters;
    return 0;
}

static int count_segment(const struct lki_list_entry *entry, void *user)
{
    ((struct rest_state *)user)->attachments += entry->attachments;
    return 0;
}

static void look(struct rest_state *out_state)
{
    *out_state = (struct rest_state){0};
    int r = lki_admin_list(run.control, LKI_LIST_BROKER, NULL, count_broker, out_state);
    test_check(r == 0, "%s", lk_last_error());
    r = lki_admin_list(run.control, LKI_LIST_SEGMENTS, NULL, count_segment, out_state);
    test_check(r == 0, "%s", lk_last_error());
    out_state->descriptors = test_process_descriptors(run.broker.pid);
}

/* Nobody is left but the control session. False: not within the patience, and *out_state says what
 * is. */
static bool await_empty(struct rest_state *out_state, unsigned descriptors)
{
    uint64_t deadline_ns = lki_clock_now_ns() + run.patience_ns;
    for (look(out_state); out_state->sessions != 1 || out_state->attachments != 0 ||
                          (descriptors != 0 && out_state->descriptors != descriptors);
         look(out_state)) {
        if (lki_clock_now_ns() > deadline_ns)
            return false;
        test_sleep_ns(5 * LKI_NS_PER_MS);
    }
    return true;
}

/* With another worker than the first, since that is what there will be at the end. Helpers of the
 * worker close descriptors, at some time: they count once they stay as they are. */
static unsigned make_segments(void)
{
    struct rest_state state, before;
    uint64_t deadline_ns = lki_clock_now_ns() + run.patience_ns;
    run.control = test_session(run.broker.socket_path);
    take_all();
    hurt_worker();
    take_all();
    test_check(await_empty(&state, 0), "the broker does not come to rest");
    do {
        before = state;
        test_sleep_ns(100 * LKI_NS_PER_MS);
        look(&state);
        test_check(lki_clock_now_ns() < deadline_ns, "the broker does not come to rest");
    } while (state.descriptors != before.descriptors);
    return state.descriptors;
}

static void end_clients(void)
{
    atomic_store(&run.shared->end, 1);
    for (uint32_t i = 0; i < run.clients; i++)
        test_reap_success(run.bodies[i].pid);
}

/* Returns the number of violations: 0 or 1. */
static size_t check_nothing_left(unsigned descriptors)
{
    struct rest_state state;
    struct lk_session *left =
        run.broken == RUN_BREAK_LEAK ? test_session(run.broker.socket_path) : NULL;
    struct lk_segment *segment = NULL;
    if (left)
        test_check(lk_segment_open(left, "native-0", NULL, &segment) == 0, "%s", lk_last_error());
    bool empty = await_empty(&state, descriptors);
    if (!empty) {
        printf("violation: left behind: %u sessions, %u attachments, %u descriptors; %u before\n",
               state.sessions - 1, state.attachments, state.descriptors, descriptors);
        test_process_show_descriptors(run.broker.pid);
    }
    lk_session_close(left);
    return empty ? 0 : 1;
}

static uint32_t parse_number(const char *text)
{
    char *end = NULL;
    unsigned long number = strtoul(text, &end, 10);
    test_check(*text != '\0' && *end == '\0' && number <= UINT32_MAX, "'%s' is no number", text);
    return (uint32_t)number;
}

static enum run_break parse_break(const char *name)
{
    for (int i = 0; i < RUN_BREAKS; i++)
        if (strcmp(name, break_names[i]) == 0)
            return (enum run_break)i;
    test_check(false, "no mistake is called '%s'", name);
    return RUN_BREAK_NONE;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--seconds") == 0)
            run.for_ns = parse_number(value) * LKI_NS_PER_S;
        else if (strcmp(argv[i], "--seed") == 0)
            run.seed = parse_number(value);
        else if (strcmp(argv[i], "--clients") == 0)
            run.clients = parse_number(value);
        else if (strcmp(argv[i], "--patience") == 0)
            run.patience_ns = parse_number(value) * LKI_NS_PER_S;
        else if (strcmp(argv[i], "--break") == 0)
            run.broken = parse_break(value);
        else
            test_check(false, "what is %s?", argv[i]);
    }
    test_check(argc % 2 == 1 && run.clients >= 2 && run.clients <= RUN_CLIENTS_MAX,
               "history [--seconds N] [--seed N] [--clients 2..%u] [--patience N] [--break NAME]",
               RUN_CLIENTS_MAX);
}

static void print_summary(size_t violations, double seconds)
{
    const struct history_figures *figures = history_figures(run.history);
    printf("history: seed %" PRIu64 ": %.0f s, %u parts, %u clients, %" PRIu64 " records; %" PRIu64
           " exclusive, %" PRIu64 " shared (%" PRIu64 " asynchronous, %" PRIu64
           " inline without a fence), %" PRIu64 " for update, %" PRIu64 " upgraded, %" PRIu64
           " downgraded, %" PRIu64 " refused (%" PRIu64 " timed out, %" PRIu64
           " cancelled), %" PRIu64 " optimistic; %u killed, %u stopped, %u "
           "left; worker %u killed, %u stopped; %" PRIu64 " died inside, %" PRIu64
           " within a call, %" PRIu64 " told (%" PRIu64 " of the latter); longest wait %.0f ms, "
           "overrun %.0f ms, rest %.0f ms; load %.1f; %zu violations\n",
           run.seed, seconds, run.parts, run.clients, run.records, figures->exclusive,
           figures->shared, figures->asynchronous, figures->fenceless, figures->update,
           figures->upgrades, figures->downgrades, figures->refused, figures->timed_out,
           figures->cancelled, figures->reads_accepted, run.kills, run.stops, run.own_ends,
           run.worker_kills, run.worker_stops, figures->deaths_inside, figures->deaths_open,
           figures->told, figures->told_of_open, (double)figures->longest_wait_ns / 1e6,
           (double)figures->longest_overrun_ns / 1e6, (double)run.longest_rest_ns / 1e6,
           test_load_average(), violations);
}

/* A run in which nothing happened proves nothing. */
static void check_something_happened(void)
{
    const struct history_figures *figures = history_figures(run.history);
    test_check(figures->deaths_inside > 0 && figures->told > 0 && figures->reads_accepted > 0 &&
                   figures->asynchronous > 0 && figures->cancelled > 0 && figures->timed_out > 0 &&
                   figures->upgrades > 0 && figures->downgrades > 0 && run.worker_kills > 0 &&
                   (figures->fenceless > 0 || !lki_barrier_make()),
               "the run did not do what it is for");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    printf("seed %" PRIu64 "\n", run.seed);
    fflush(stdout);
    struct history_limits limits = {.wait_ns = run.patience_ns, .slack_ns = run.patience_ns / 2};
    run.random.state = run.seed;
    run.shared = test_shared(sizeof(*run.shared));
    run.history = history_new(&limits, report, NULL);
    test_broker_start(&run.broker);
    run.broker.restarts = true;
    unsigned descriptors = make_segments();
    size_t violations = judge();
    uint64_t began_ns = lki_clock_now_ns();
    for (uint32_t i = 0; i < run.clients; i++)
        start_client(i);
    await_rest(0);
    for (uint64_t now_ns; (now_ns = lki_clock_now_ns()) < began_ns + run.for_ns;) {
        uint64_t left_ns = began_ns + run.for_ns - now_ns;
        violations += run_part(left_ns < PART_NS ? left_ns : PART_NS);
    }
    end_clients();
    violations += check_nothing_left(descriptors);
    print_summary(violations, (double)(lki_clock_now_ns() - began_ns) / 1e9);
    fflush(stdout);
    if (violations == 0)
        check_something_happened();
    else
        test_broker_show_log(&run.broker);
    lk_session_close(run.control);
    test_broker_stop(&run.broker);
    history_free(run.history);
    return violations == 0 ? 0 : 1;
}
