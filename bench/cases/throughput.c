/* SPDX-License-Identifier: MIT */
/* How much a broker gets done: 16 sessions that never let it wait, each with several acquires in flight.
 * By the clock, and by the time of a processor that the broker itself took, which a busy machine does
 * not change much. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define SESSIONS 16u
#define LOCKS_EACH 8u

struct client {
    struct lk_session *session;
    struct slot {
        struct lk_lock *lock;
        struct client *client;
    } slots[LOCKS_EACH];
    uint64_t grants;
    int failed; /* the first result that was none of a grant */
    bool stopping;
    unsigned pending;
};

static void ask(struct slot *slot);

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct slot *slot = user;
    struct client *client = slot->client;
    client->pending--;
    client->grants++;
    if (result >= 0)
        result = lk_lock_release(lock);
    if (result < 0 && client->failed == 0)
        client->failed = result;
    if (!client->stopping && client->failed == 0)
        ask(slot);
}

static void ask(struct slot *slot)
{
    int r = lk_lock_acquire_async(slot->lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, on_acquired, slot);
    if (r < 0 && slot->client->failed == 0)
        slot->client->failed = r;
    slot->client->pending += r == 0;
}

static void open_client(const struct bench *bench, struct client *client, unsigned index,
                        uint32_t flags)
{
    struct lk_segment_options options = {
        .size = sizeof(options), .locks = LOCKS_EACH, .flags = LK_CREATE | flags};
    struct lk_segment *segment;
    char name[32];
    client->session = bench_connect(bench);
    snprintf(name, sizeof(name), "bench-throughput-%u-%x", index, flags);
    if (lk_segment_open(client->session, name, &options, &segment) < 0)
        bench_fail("%s", lk_last_error());
    for (unsigned i = 0; i < LOCKS_EACH; i++) {
        client->slots[i].client = client;
        if (lk_lock_at(segment, i, &client->slots[i].lock) < 0)
            bench_fail("%s", lk_last_error());
    }
}

static unsigned dispatch(struct client *clients)
{
    struct pollfd polled[SESSIONS];
    unsigned pending = 0;
    for (unsigned i = 0; i < SESSIONS; i++)
        polled[i] = (struct pollfd){.fd = lk_session_fd(clients[i].session), .events = POLLIN};
    if (poll(polled, SESSIONS, 10000) <= 0)
        bench_fail("the broker has not answered for 10 s");
    for (unsigned i = 0; i < SESSIONS; i++) {
        if (polled[i].revents && lk_session_dispatch(clients[i].session) < 0)
            bench_fail("%s", lk_last_error());
        if (clients[i].failed)
            bench_fail("an asynchronous acquire failed: %s", lk_strerror(clients[i].failed));
        pending += clients[i].pending;
    }
    return pending;
}

static uint64_t grants_of(const struct client *clients)
{
    uint64_t grants = 0;
    for (unsigned i = 0; i < SESSIONS; i++)
        grants += clients[i].grants;
    return grants;
}

/* Of the worker, the keeper's only child. 0: not known. */
static uint64_t broker_cpu_ns(const struct bench *bench)
{
    char path[64];
    int worker = 0;
    uint64_t on_cpu_ns = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)bench->daemon,
             (int)bench->daemon);
    FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%d", &worker) != 1)
        worker = 0;
    if (file)
        fclose(file);
    /* Its first thread, which does the work. In nanoseconds, unlike stat. */
    snprintf(path, sizeof(path), "/proc/%d/schedstat", worker);
    file = fopen(path, "re");
    if (!file || fscanf(file, "%" SCNu64, &on_cpu_ns) != 1)
        on_cpu_ns = 0;
    if (file)
        fclose(file);
    return on_cpu_ns;
}

/* Sixteen sessions at work, and what they get done in a round of it. */
struct works {
    struct client clients[SESSIONS];
    int by_clock, by_cpu;
};

static void begin(const struct bench *bench, struct works *works, uint32_t flags)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        open_client(bench, &works->clients[i], i, flags);
}

static void work(const struct bench *bench, struct bench_group *group, struct works *works)
{
    struct client *clients = works->clients;
    for (unsigned i = 0; i < SESSIONS * LOCKS_EACH; i++) {
        clients[i % SESSIONS].stopping = false;
        ask(&clients[i % SESSIONS].slots[i / SESSIONS]);
    }
    uint64_t start_ns = lki_clock_now_ns(), end_ns;
    uint64_t cpu_ns = broker_cpu_ns(bench);
    uint64_t grants = grants_of(clients);
    do {
        dispatch(clients);
        end_ns = lki_clock_now_ns();
    } while (end_ns - start_ns < bench->cell_ns || grants_of(clients) == grants);
    cpu_ns = broker_cpu_ns(bench) - cpu_ns;
    grants = grants_of(clients) - grants;
    bench_sample(group, works->by_clock, (double)grants * 1e9 / (double)(end_ns - start_ns));
    bench_sample(group, works->by_cpu, (double)grants * 1e9 / (double)(cpu_ns ? cpu_ns : 1000000));
    for (unsigned i = 0; i < SESSIONS; i++)
        clients[i].stopping = true;
    while (dispatch(clients) > 0)
        ;
}

static void end(struct works *works)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        lk_session_close(works->clients[i].session);
}

void bench_throughput(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 5);
    struct bench_group *group = bench_group_add(
        report, "1/s", BENCH_MORE, rounds, "brokered locks, 16 sessions with 8 in flight each");
    static struct works strict, native;

    memset(&strict, 0, sizeof(strict));
    memset(&native, 0, sizeof(native));
    strict.by_clock = bench_series_add(group, "lockkeeper, by the clock");
    strict.by_cpu = bench_series_add(group, "lockkeeper, of the broker's own time");
    native.by_clock = bench_series_add(group, "lockkeeper, not strict, by the clock");
    native.by_cpu = bench_series_add(group, "lockkeeper, not strict, of its own time");
    group->series[strict.by_cpu].bound = 75000; /* an acquire and its release are two */
    begin(bench, &strict, LK_STRICT);
    begin(bench, &native, 0);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        work(bench, group, &strict);
        work(bench, group, &native);
    }
    end(&strict);
    end(&native);
}
