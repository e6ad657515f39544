/* SPDX-License-Identifier: MIT */
/* broker_throughput [--sessions N] [--depth N] [--seconds N]
 *
 * Sessions lock through the broker, each with many acquires under way at a time. Prints how many requests
 * the broker answered per second of its own processor time, which other work on the machine hardly
 * changes, and per second of the clock. An acquire with its release is two requests. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define SESSIONS_MAX 64u
#define DEPTH_MAX 64u

struct side {
    struct test_client client;
    int fd;
    bool ending;
    unsigned pending;
    uint64_t answered;
};

static void acquired(struct lk_lock *lock, int result, void *user)
{
    struct side *side = user;
    test_check(result == LK_ACQUIRED, "an acquire failed");
    test_release(lock);
    side->answered += 2;
    side->pending--;
    if (side->ending)
        return;
    test_check(lk_lock_acquire_async(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, acquired, side) == 0,
               "lk_lock_acquire_async");
    side->pending++;
}

static void begin(struct side *side, const char *path, unsigned number, unsigned depth)
{
    char name[32];
    struct lk_segment_options options = test_options(0, depth);
    options.flags |= LK_STRICT;
    (void)snprintf(name, sizeof(name), "throughput-%u", number);
    test_client_open(&side->client, path, name, &options);
    side->fd = lk_session_fd(side->client.session);
    for (unsigned i = 0; i < depth; i++) {
        struct lk_lock *lock = test_lock(&side->client, i);
        test_check(lk_lock_acquire_async(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, acquired, side) == 0,
                   "lk_lock_acquire_async");
        side->pending++;
    }
}

/* Returns when the time is over and nothing is under way. */
static void run(struct side *sides, unsigned count, uint64_t until_ns)
{
    struct pollfd polled[SESSIONS_MAX];
    unsigned busy = count;
    for (unsigned i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = sides[i].fd, .events = POLLIN};
    while (busy > 0) {
        test_check(poll(polled, count, 10000) > 0, "nothing came for ten seconds");
        bool over = lki_clock_now_ns() >= until_ns;
        busy = 0;
        for (unsigned i = 0; i < count; i++) {
            sides[i].ending = over;
            if (polled[i].revents != 0)
                test_check(lk_session_dispatch(sides[i].client.session) >= 0, "dispatch");
            busy += sides[i].pending > 0;
        }
    }
}

static double cpu_seconds(pid_t pid)
{
    char path[64], text[512] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    test_check(file != NULL && fgets(text, sizeof(text), file) != NULL, "%s", path);
    (void)fclose(file);
    unsigned long user = 0, system = 0;
    test_check(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                      &user, &system) == 2,
               "times");
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

int main(int argc, char **argv)
{
    unsigned sessions = 16, depth = 16, seconds = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        unsigned value = (unsigned)atoi(argv[i + 1]);
        if (strcmp(argv[i], "--sessions") == 0)
            sessions = value;
        else if (strcmp(argv[i], "--depth") == 0)
            depth = value;
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = value;
    }
    test_check(sessions >= 1 && sessions <= SESSIONS_MAX && depth >= 1 && depth <= DEPTH_MAX,
               "numbers out of range");
    struct test_broker broker;
    struct side *sides = calloc(sessions, sizeof(*sides));
    test_check(sides != NULL, "memory");
    test_broker_start(&broker);
    for (unsigned i = 0; i < sessions; i++)
        begin(&sides[i], broker.socket_path, i, depth);
    pid_t worker = test_broker_worker(&broker);
    double cpu_before = cpu_seconds(worker);
    uint64_t began_ns = lki_clock_now_ns();
    run(sides, sessions, began_ns + seconds * LKI_NS_PER_S);
    double took = (double)(lki_clock_now_ns() - began_ns) / (double)LKI_NS_PER_S;
    double cpu = cpu_seconds(worker) - cpu_before;
    uint64_t answered = 0;
    for (unsigned i = 0; i < sessions; i++) {
        answered += sides[i].answered;
        test_client_close(&sides[i].client);
    }
    free(sides);
    test_broker_stop(&broker);
    printf(
        "%u sessions, %u requests under way each: %.0f requests/s of the broker's processor time, "
        "%.0f/s of the clock\n",
        sessions, depth, (double)answered / cpu, (double)answered / took);
    return answered > 0 ? 0 : 1;
}
