/* SPDX-License-Identifier: MIT */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/hostile/prober.h"
#include "tests/hostile/wire.h"
#include "tests/support/broker.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define SKIPPED 77
#define WARM_UP_ROUNDS 20 /* until every cache and helper thread of the broker is there */
#define ROUNDS_MIN 10     /* of the prober beside an attack, however short that was */
#define PROMISED_NS (50 * LKI_NS_PER_MS)
#define BOUND_NS (5 * LKI_NS_PER_S) /* of the normal run: machines are shared */
#define PATIENCE_NS (15 * LKI_NS_PER_S)
#define ATTACK_NS_MAX (60 * LKI_NS_PER_S)
#define WINDOW_NS (200 * LKI_NS_PER_MS)
#define WINDOW_TICKS_MAX 1 /* 5 % */
/* The sanitizers keep freed memory for a while; leaks they find by themselves. */
#ifdef __SANITIZE_ADDRESS__
#define GROWTH_KIB_MAX (UINT64_C(1) << 40)
#else
#define GROWTH_KIB_MAX (4 * 1024)
#endif

struct state { /* of a broker at rest */
    unsigned descriptors;
    uint64_t sessions;
    uint64_t segments;
    uint64_t resident_kib;
};

struct totals {
    unsigned rows;
    unsigned promised; /* that promise 50 ms */
    unsigned within;
};

static struct test_broker broker;
static struct hostile_context context;
static int control_fd; /* our own connection, which asks for counters */
static uint64_t control_id;
static int quiet;
static int go_on;

/* --- For attacks --- */

void hostile_become(uid_t uid)
{
    pid_t parent = getppid();
    test_check(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
                   setresuid(uid, uid, uid) == 0,
               "cannot become user %u", uid);
    /* Changing the user forgets both. */
    test_check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0, "prctl");
    if (getppid() != parent)
        _exit(1);
}

void hostile_hold(void)
{
    test_event_post(quiet);
    test_event_wait(go_on);
}

struct as_user {
    uid_t uid;
    int (*body)(void *arg);
    void *arg;
};

static int run_as_user(void *arg)
{
    const struct as_user *as = arg;
    hostile_become(as->uid);
    return as->body(as->arg);
}

pid_t hostile_spawn_as(uid_t uid, int (*body)(void *arg), void *arg)
{
    struct as_user as = {.uid = uid, .body = body, .arg = arg};
    return test_spawn(run_as_user, &as);
}

bool hostile_log_has(const char *text)
{
    char line[2048];
    bool found = false;
    FILE *log = fopen(context.log_path, "re");
    test_check(log != NULL, "%s", context.log_path);
    while (!found && fgets(line, sizeof(line), log))
        found = strstr(line, text) != NULL;
    fclose(log);
    return found;
}

/* --- The broker from outside --- */

static void look(struct state *out_state)
{
    struct hostile_reply reply;
    struct lki_message request = hostile_list(++control_id, LKI_LIST_BROKER);
    int r = hostile_call(control_fd, &request, &reply);
    test_check(r == (int)LKI_STATUS_OK && reply.message.type == LKI_REPLY_LIST_PAGE &&
                   reply.message.as.list_page.count == 1,
               "the broker does not tell its counters: %d", r);
    const struct lki_list_entry *entry = &reply.message.as.list_page.entries[0];
    *out_state = (struct state){
        .descriptors = test_process_descriptors(context.broker_pid),
        .sessions = entry->waiters,
        .segments = entry->attachments,
        .resident_kib = test_process_resident_kib(context.broker_pid),
    };
}

static bool is_back(const struct state *now, const struct state *before)
{
    return now->descriptors == before->descriptors && now->sessions == before->sessions &&
           now->segments == before->segments &&
           now->resident_kib <= before->resident_kib + GROWTH_KIB_MAX;
}

static void await_state(const struct state *before, struct state *out_now)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    look(out_now);
    while (!is_back(out_now, before) && lki_clock_now_ns() < deadline_ns) {
        test_sleep_ns(5 * LKI_NS_PER_MS);
        look(out_now);
    }
    if (is_back(out_now, before))
        return;
    test_process_show_descriptors(context.broker_pid);
    test_check(false,
               "before: %u descriptors, %" PRIu64 " sessions, %" PRIu64 " segments, %" PRIu64
               " KiB; after: %u, %" PRIu64 ", %" PRIu64 ", %" PRIu64 " KiB",
               before->descriptors, before->sessions, before->segments, before->resident_kib,
               out_now->descriptors, out_now->sessions, out_now->segments, out_now->resident_kib);
}

/* What comes to rest late gets its time; what spins never comes to rest. */
static void expect_sleep(const char *when)
{
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_NS;
    uint64_t ticks;
    do {
        uint64_t before = test_process_ticks(context.broker_pid);
        test_sleep_ns(WINDOW_NS);
        ticks = test_process_ticks(context.broker_pid) - before;
    } while (ticks > WINDOW_TICKS_MAX && lki_clock_now_ns() < deadline_ns);
    test_check(ticks <= WINDOW_TICKS_MAX, "the broker spins %s: %" PRIu64 " ticks in %d ms", when,
               ticks, (int)(WINDOW_NS / LKI_NS_PER_MS));
}

/* --- One row --- */

static void add_report(struct prober_report *sum, const struct prober_report *part)
{
    if (sum->failures == 0)
        memcpy(sum->first_failure, part->first_failure, sizeof(sum->first_failure));
    sum->rounds += part->rounds;
    sum->failures += part->failures;
    if (part->worst_ns >= sum->worst_ns) {
        sum->worst_ns = part->worst_ns;
        sum->worst_step = part->worst_step;
    }
}

static int run_attack(void *arg)
{
    const struct hostile_row *row = arg;
    if (!(row->flags & HOSTILE_AS_ROOT))
        hostile_become(row->flags & HOSTILE_AS_BROKER ? HOSTILE_BROKER_UID : HOSTILE_ATTACKER_UID);
    row->attack(&context);
    return 0;
}

/* Lets the prober do some rounds, and stops it. */
static void probe_beside(struct prober_report *report)
{
    struct prober_report part;
    prober_await_rounds(ROUNDS_MIN);
    prober_pause(&part);
    add_report(report, &part);
}

/* The attacker does nothing any more and stays as it is: the broker sleeps, and what others make it
 * open it closes again. */
static void check_beside(struct prober_report *report)
{
    struct state before;
    struct state after;
    probe_beside(report);
    expect_sleep("beside an attacker that does nothing");
    look(&before);
    prober_run();
    probe_beside(report);
    await_state(&before, &after);
}

/* Runs the attack to its end, beside the prober. */
static void watch_attack(const struct hostile_row *row, struct prober_report *report)
{
    siginfo_t ended = {.si_pid = 0};
    uint64_t deadline_ns = lki_clock_now_ns() + ATTACK_NS_MAX;
    pid_t attacker = test_spawn(run_attack, (void *)row);
    do {
        test_check(lki_clock_now_ns() < deadline_ns, "%s does not end", row->id);
        if (test_event_wait_for(quiet, 5 * LKI_NS_PER_MS)) {
            check_beside(report);
            prober_run();
            test_event_post(go_on);
        }
        test_check(waitid(P_PID, (id_t)attacker, &ended, WEXITED | WNOHANG | WNOWAIT) == 0,
                   "waitid");
    } while (ended.si_pid == 0);
    test_reap_success(attacker);
    probe_beside(report);
}

static void start(const struct hostile_row *row)
{
    struct test_broker_options options = {
        .arguments = {"--mode", "0666"},
        .uid = HOSTILE_BROKER_UID,
        .files_max = row->broker_files_max,
    };
    for (size_t i = 0; i < 4 && row->broker_arguments[i]; i++)
        options.arguments[2 + i] = row->broker_arguments[i];
    test_broker_start_with(&broker, &options);
    context.socket_path = broker.socket_path;
    context.directory = broker.directory;
    context.log_path = broker.log_path;
    broker.restarts = row->flags & HOSTILE_RESTARTS;
    context.broker_pid = test_broker_worker(&broker); /* the keeper has nothing to do with peers */
    control_fd = hostile_greet(broker.socket_path);
    control_id = 1;
    prober_start(broker.socket_path, HOSTILE_PROBER_UID);
}

static void run_row(const struct hostile_row *row, bool strict, struct totals *totals)
{
    struct prober_report report = {.worst_step = ""};
    struct state before;
    struct state after;

    if (!row->attack) {
        printf("%-4s not attacked here: %s\n", row->id, row->title);
        return;
    }
    start(row);
    prober_run();
    prober_await_rounds(WARM_UP_ROUNDS);
    prober_pause(&report);
    test_check(report.failures == 0, "before the attack: %s", report.first_failure);
    report = (struct prober_report){.worst_step = ""};
    expect_sleep("before the attack");
    look(&before);

    uint64_t began_ns = lki_clock_now_ns();
    prober_run();
    watch_attack(row, &report);
    uint64_t took_ns = lki_clock_now_ns() - began_ns;

    test_check(waitpid(broker.pid, NULL, WNOHANG) == 0, "%s ended the broker", row->id);
    pid_t worker = test_broker_worker(&broker);
    test_check((worker == context.broker_pid) == !broker.restarts, "%s: who ended the worker?",
               row->id);
    context.broker_pid = worker;
    test_check(report.failures == 0, "%s: %" PRIu64 " of %" PRIu64 " rounds failed: %s", row->id,
               report.failures, report.rounds, report.first_failure);
    test_check(report.worst_ns < BOUND_NS, "%s: %s took %" PRIu64 " ms", row->id, report.worst_step,
               report.worst_ns / LKI_NS_PER_MS);
    await_state(&before, &after);
    expect_sleep("after the attack");
    if (row->verify)
        row->verify(&context);

    bool within = report.worst_ns <= PROMISED_NS;
    totals->rows++;
    totals->promised += !(row->flags & HOSTILE_SLOW);
    totals->within += within && !(row->flags & HOSTILE_SLOW);
    printf("%-4s %s\n     %" PRIu64 " rounds in %" PRIu64 " ms, none failed; p100 %.1f ms (%s)%s; "
           "memory %+" PRId64 " KiB\n",
           row->id, row->title, report.rounds, took_ns / LKI_NS_PER_MS,
           (double)report.worst_ns / (double)LKI_NS_PER_MS, report.worst_step,
           within                      ? ""
           : row->flags & HOSTILE_SLOW ? ", 50 not promised"
                                       : ", above 50",
           (int64_t)after.resident_kib - (int64_t)before.resident_kib);
    test_check(!strict || within || row->flags & HOSTILE_SLOW, "%s: above 50 ms", row->id);

    prober_stop();
    close(control_fd);
    test_broker_stop(&broker);
}

/* --- All rows --- */

static bool is_wanted(const struct hostile_row *row, char **names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], row->id) == 0)
            return true;
    return count == 0;
}

int hostile_main(int argc, char **argv, const struct hostile_row *rows, size_t count)
{
    bool strict = false;
    struct totals totals = {0};
    context.seed = lki_clock_now_ns();
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--strict") == 0) {
            strict = true;
        } else if (strcmp(argv[first], "--seed") == 0 && first + 1 < argc) {
            context.seed = strtoull(argv[++first], NULL, 0);
        } else {
            fprintf(stderr, "usage: %s [--strict] [--seed N] [ROW...]\n", argv[0]);
            return 64;
        }
    }
    if (getuid() != 0) {
        printf("only root can become three other users: skipped\n");
        return SKIPPED;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* children that abort must not repeat our lines */
    printf("seed %" PRIu64 ", load %.2f\n", context.seed, test_load_average());
    quiet = test_event();
    go_on = test_event();
    for (size_t i = 0; i < count; i++)
        if (is_wanted(&rows[i], argv + first, argc - first))
            run_row(&rows[i], strict, &totals);
    printf("%u rows; %u of %u that promise 50 ms to innocents had it\n", totals.rows, totals.within,
           totals.promised);
    return 0;
}
