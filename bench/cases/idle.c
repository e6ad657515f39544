/* SPDX-License-Identifier: MIT */
/* What a broker costs that has many sessions or segments with nothing to do: its memory for each of
 * them, how often it wakes up, and what it does for the others meanwhile. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define PROCESSES 8u
#define PAIRS 200u
#define CONNECTS 50u
#define SEGMENTS_EACH 2000u

struct broker_use {
    uint64_t anonymous_bytes;
    uint64_t wakes;
};

static void add_use(pid_t pid, struct broker_use *use)
{
    char path[64], line[256];
    uint64_t value;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "RssAnon: %" SCNu64, &value) == 1)
            use->anonymous_bytes += value * 1024;
        if (sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &value) == 1)
            use->wakes += value;
    }
    if (file)
        fclose(file);
}

/* Of the keeper and its worker. */
static struct broker_use look(const struct bench *bench)
{
    struct broker_use use = {0};
    char path[64];
    int child;
    add_use(bench->daemon, &use);
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)bench->daemon,
             (int)bench->daemon);
    FILE *file = fopen(path, "re");
    while (file && fscanf(file, "%d", &child) == 1)
        add_use(child, &use);
    if (file)
        fclose(file);
    return use;
}

/* --- The idle ones --- */

struct crowd {
    const struct bench *bench;
    unsigned wanted; /* of each process */
    struct counts {
        struct bench_gate gate;
        _Atomic uint32_t made;
    } * counts;
    pid_t pids[PROCESSES];
};

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void complain(const struct bench *bench, unsigned got)
{
    bench_progress_end(bench);
    fprintf(stderr, "lockkeeper: bench: idle: only %u: %s\n", got, lk_last_error());
}

/* As many as it gets: the system's limits on descriptors are not ours to fail at. */
static int be_sessions(void *arg)
{
    struct crowd *crowd = arg;
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session;
    raise_file_limit();
    for (unsigned i = 0; i < crowd->wanted; i++) {
        if (lk_session_open(crowd->bench->socket_path, &options, &session) < 0) {
            complain(crowd->bench, i);
            break;
        }
        atomic_fetch_add_explicit(&crowd->counts->made, 1, memory_order_relaxed);
    }
    bench_gate_enter(&crowd->counts->gate);
    return bench_stay();
}

static uint32_t gather(struct crowd *crowd, const struct bench *bench, unsigned sessions)
{
    *crowd = (struct crowd){.bench = bench,
                            .wanted = sessions / PROCESSES,
                            .counts = bench_share(sizeof(struct counts))};
    for (unsigned i = 0; i < PROCESSES; i++)
        crowd->pids[i] = bench_spawn(be_sessions, crowd);
    bench_gate_await(&crowd->counts->gate, PROCESSES);
    bench_set(&crowd->counts->gate.go, 1);
    return atomic_load_explicit(&crowd->counts->made, memory_order_relaxed);
}

static void dismiss(struct crowd *crowd)
{
    for (unsigned i = 0; i < PROCESSES; i++)
        bench_kill(crowd->pids[i]);
    bench_unshare(crowd->counts, sizeof(struct counts));
}

/* Kept by the broker alone, without data. By several connections: one gets half of what is left of the
 * broker's 16,384. */
static uint32_t make_segments(const struct bench *bench, unsigned count)
{
    struct lk_segment_options options = {
        .size = sizeof(options), .attachments_max = 16, .flags = LK_CREATE | LK_KEEP};
    struct lk_session *session = NULL;
    struct lk_segment *segment;
    char name[32];
    unsigned made;
    for (made = 0; made < count; made++) {
        if (made % SEGMENTS_EACH == 0) {
            lk_session_close(session);
            session = bench_connect(bench);
        }
        snprintf(name, sizeof(name), "bench-idle-%u", made);
        if (lk_segment_open(session, name, &options, &segment) < 0)
            break;
        lk_segment_close(segment);
    }
    if (made < count)
        complain(bench, made);
    lk_session_close(session);
    return made;
}

/* --- What is measured beside them --- */

static double pair_ns(struct lk_lock *lock, unsigned pairs)
{
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < pairs; i++)
        if (lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) != 0 || lk_lock_release(lock) != 0)
            bench_fail("a brokered pair failed: %s", lk_last_error());
    return (double)(lki_clock_now_ns() - start_ns) / pairs;
}

static double visit_ns(const struct bench *bench, unsigned visits)
{
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < visits; i++) {
        struct lk_session *session = bench_connect(bench);
        bench_segment(session, "bench-visit", 0);
        lk_session_close(session);
    }
    return (double)(lki_clock_now_ns() - start_ns) / visits;
}

static struct bench_group *add_group(struct bench_report *report, const char *unit, unsigned rounds,
                                     const char *name, const char *what, uint32_t count)
{
    struct bench_group *group =
        bench_group_add(report, unit, BENCH_LESS, rounds, "idle broker: %s", name);
    bench_group_join(group, what, count);
    bench_series_add(group, "lockkeeper");
    return group;
}

static void measure(struct bench *bench, struct bench_report *report, struct lk_lock *lock,
                    const char *what, uint32_t count, const struct broker_use *before)
{
    unsigned rounds = bench_rounds(bench, 5);
    unsigned pairs = bench->quick ? PAIRS / 10 : PAIRS;
    unsigned visits = bench->quick ? CONNECTS / 10 : CONNECTS;
    char family[64];
    struct bench_group *group;

    struct broker_use use = look(bench);
    if (count > 0) {
        snprintf(family, sizeof(family), "memory for each of so many %s", what);
        group = add_group(report, "bytes", 1, family, what, count);
        bench_sample(group, 0,
                     use.anonymous_bytes > before->anonymous_bytes
                         ? (double)(use.anonymous_bytes - before->anonymous_bytes) / count
                         : 0);
        group->series[0].bound = strcmp(what, "segments") == 0 ? 2048 : 4096;
    }
    snprintf(family, sizeof(family), "wake-ups beside so many %s", what);
    group = add_group(report, "1/s", 1, family, what, count);
    bench_sleep(bench->cell_ns); /* what their coming made it do is over */
    uint64_t start_ns = lki_clock_now_ns();
    use = look(bench);
    bench_sleep(bench->cell_ns * 2);
    bench_sample(group, 0,
                 (double)(look(bench).wakes - use.wakes) * 1e9 /
                     (double)(lki_clock_now_ns() - start_ns));
    snprintf(family, sizeof(family), "brokered pair beside so many %s", what);
    group = add_group(report, "ns", rounds, family, what, count);
    for (unsigned round = 0; round < rounds; round++)
        bench_sample(group, 0, pair_ns(lock, pairs));
    snprintf(family, sizeof(family), "connect, open, close beside so many %s", what);
    group = add_group(report, "ns", rounds, family, what, count);
    for (unsigned round = 0; round < rounds; round++)
        bench_sample(group, 0, visit_ns(bench, visits));
}

/* Each population meets a broker that has never seen another: what that one had freed, it would use
 * again, and the memory would not count. */
static void measure_population(struct bench *bench, struct bench_report *report, const char *what,
                               unsigned count)
{
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE | LK_STRICT};
    struct lk_segment *strict;
    struct crowd crowd;
    bool sessions = strcmp(what, "sessions") == 0;

    bench_daemon_stop(bench);
    bench_daemon_start(bench);
    struct lk_session *session = bench_connect(bench);
    if (lk_segment_open(session, "bench-strict", &options, &strict) < 0)
        bench_fail("%s", lk_last_error());
    struct lk_lock *lock = bench_lock(strict);
    bench_segment(session, "bench-visit", 0);
    struct broker_use before = look(bench);
    uint32_t made = sessions ? gather(&crowd, bench, count) : make_segments(bench, count);
    measure(bench, report, lock, what, made, &before);
    if (sessions)
        dismiss(&crowd);
    lk_session_close(session);
}

void bench_idle(struct bench *bench, struct bench_report *report)
{
    static const unsigned usual[] = {0, 1000, 10000};
    static const unsigned small[] = {0, 160, 320};
    const unsigned *counts = bench->quick ? small : usual;
    for (unsigned i = 0; i < 3; i++) {
        bench_progress(bench, i, 6, "sessions");
        measure_population(bench, report, "sessions", counts[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        bench_progress(bench, 3 + i, 6, "segments");
        measure_population(bench, report, "segments", counts[i]);
    }
    bench_daemon_stop(bench); /* with all that it keeps */
    bench_daemon_start(bench);
}
