/* SPDX-License-Identifier: MIT */
/* The holder is killed while another process waits: from just before kill(2) to just after the other
 * has the lock. With a small holder, and with ones that have touched memory, which the kernel takes
 * apart before it closes descriptors. The floors are what the kernel tells a watcher of that death: by
 * a pidfd, and by the end of a socket. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define PAGE 4096u

enum floor { NO_FLOOR, BY_PIDFD, BY_SOCKET };

struct scene {
    const struct bench *bench;
    const struct bench_peer *peer; /* NULL: a floor */
    enum floor floor;
    uint64_t touch_bytes;
    int ends[2]; /* of a socket, the second one the holder's alone */
    pid_t holder;
    struct shared {
        struct bench_gate gate;
        _Atomic uint32_t held, waits, acquired;
        uint64_t acquired_ns;
        pid_t waiter;
    } * shared;
};

static void touch(uint64_t bytes)
{
    unsigned char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    /* In small pages, as most programs have them: those are what takes long. */
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < bytes; i += PAGE)
        memory[i] = 1;
}

static int hold(void *arg)
{
    struct scene *scene = arg;
    touch(scene->touch_bytes);
    if (scene->peer) {
        void *handle = scene->peer->join(scene->bench);
        if (scene->peer->take(handle, BENCH_EXCLUSIVE) < 0)
            return 1;
    } else {
        close(scene->ends[0]);
    }
    bench_set(&scene->shared->held, 1);
    return bench_stay();
}

static int watch(const struct scene *scene)
{
    struct pollfd polled = {.fd = scene->ends[0], .events = POLLIN};
    if (scene->floor == BY_PIDFD)
        polled.fd = (int)syscall(SYS_pidfd_open, scene->holder, 0);
    else
        close(scene->ends[1]);
    bench_set(&scene->shared->waits, 1);
    return polled.fd >= 0 && poll(&polled, 1, 30000) == 1 ? 0 : 1;
}

static int wait_for_it(void *arg)
{
    struct scene *scene = arg;
    struct shared *shared = scene->shared;
    if (scene->peer) {
        void *handle = scene->peer->join(scene->bench);
        bench_set(&shared->waits, 1);
        if (scene->peer->take(handle, BENCH_EXCLUSIVE) < 0)
            return 1;
        shared->acquired_ns = lki_clock_now_ns();
        bench_set(&shared->acquired, 1);
        if (scene->peer->drop(handle, BENCH_EXCLUSIVE) < 0)
            return 1;
        if (scene->peer->leave)
            scene->peer->leave(handle);
        return 0;
    }
    if (watch(scene) != 0)
        return 1;
    shared->acquired_ns = lki_clock_now_ns();
    bench_set(&shared->acquired, 1);
    return 0;
}

/* Until the kernel has put it to sleep: not how long that takes, but that it is so. */
static void await_sleep(pid_t pid)
{
    char path[64], line[512];
    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    while (lki_clock_now_ns() < deadline_ns) {
        FILE *file = fopen(path, "re");
        const char *state = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
        bool asleep = state && state[1] && state[2] == 'S';
        if (file)
            fclose(file);
        if (asleep)
            return;
        bench_sleep(LKI_NS_PER_MS);
    }
    bench_fail("who waits for the lock does not sleep");
}

static double one_death(struct bench *bench, const struct bench_peer *peer, enum floor floor,
                        uint64_t touch_bytes)
{
    struct scene scene = {.bench = bench,
                          .peer = peer,
                          .floor = floor,
                          .touch_bytes = touch_bytes,
                          .shared = bench_share(sizeof(struct shared))};
    if (peer)
        bench_peer_make(bench, peer);
    else if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, scene.ends) < 0)
        bench_fail("cannot make a pair of sockets: %s", strerror(errno));
    scene.holder = bench_spawn(hold, &scene);
    if (!bench_wait_while(&scene.shared->held, 0))
        bench_fail("%s: the first process does not get the lock", peer ? peer->name : "floor");
    pid_t waiter = bench_spawn(wait_for_it, &scene);
    if (!peer) {
        close(scene.ends[0]);
        close(scene.ends[1]);
    }
    if (!bench_wait_while(&scene.shared->waits, 0))
        bench_fail("the second process did not get ready");
    /* 20 ms later it has tried all that it tries before it waits for good. */
    bench_sleep(20 * LKI_NS_PER_MS);
    await_sleep(waiter);
    uint64_t killed_ns = lki_clock_now_ns();
    kill(scene.holder, SIGKILL);
    if (!bench_wait_while(&scene.shared->acquired, 0))
        bench_fail("%s: the lock was not handed on", peer ? peer->name : "floor");
    bench_kill(scene.holder); /* reaps it */
    bench_reap(waiter);
    uint64_t took_ns = scene.shared->acquired_ns - killed_ns;
    if (peer)
        bench_peer_unmake(bench, peer);
    bench_unshare(scene.shared, sizeof(struct shared));
    return (double)took_ns;
}

/* Strict order makes no difference to one who waits. */
static bool takes_part(const struct bench_peer *peer)
{
    return peer->recovers && peer != &bench_peer_lockkeeper_fifo;
}

struct size {
    uint64_t megabytes;
    unsigned rounds;
};

static void measure_size(struct bench *bench, struct bench_report *report, const struct size *size,
                         unsigned part)
{
    unsigned rounds = bench_rounds(bench, size->rounds);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "recovery after SIGKILL of the holder");
    bench_group_join(group, "MB touched", (double)size->megabytes);
    int pidfd = bench_series_add(group, "pidfd readable");
    int socket = bench_series_add(group, "socket ended");
    for (size_t i = 0; i < bench->peer_count; i++)
        if (takes_part(bench->peers[i]))
            bench_series_add(group, bench->peers[i]->name);
    int ours = bench_series_find(group, "lockkeeper");
    if (size->megabytes <= 1)
        bench_series_compare(group, ours, pidfd, 1.3, 0);
    else
        group->series[ours].bound = 3e6;
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t bytes = size->megabytes << 20;
        bench_progress(bench, part * rounds + round, 3 * rounds, group->name);
        bench_sample(group, pidfd, one_death(bench, NULL, BY_PIDFD, bytes));
        bench_sample(group, socket, one_death(bench, NULL, BY_SOCKET, bytes));
        for (size_t i = 0; i < bench->peer_count; i++)
            if (takes_part(bench->peers[i]))
                bench_sample(group, bench_series_find(group, bench->peers[i]->name),
                             one_death(bench, bench->peers[i], NO_FLOOR, bytes));
    }
}

void bench_recovery(struct bench *bench, struct bench_report *report)
{
    static const struct size sizes[] = {{1, 15}, {256, 7}, {2048, 3}};
    static const struct size small[] = {{1, 2}, {4, 2}, {16, 2}};
    for (unsigned i = 0; i < 3; i++)
        measure_size(bench, report, bench->quick ? &small[i] : &sizes[i], i);
}
