/* SPDX-License-Identifier: MIT */
/* Pairs of locks that another process keeps: one after the other, each with its time, beside one
 * round trip over a pair of sockets, which is the least that asking can cost. */
#include "bench/bench.h"
#include "common/clock.h"

/* Each. The first milliseconds are those of processes that have slept and meet again, after which the scheduler
 * moves them, and those who look before they sleep have found each other. */
#define SAMPLE_NS (100 * LKI_NS_PER_MS)

static struct bench_histogram times; /* of one sample */

static double one_sample(const struct bench_peer *peer, void *handle, uint64_t for_ns)
{
    times = (struct bench_histogram){0};
    unsigned pairs = 0;
    uint64_t start = bench_ticks();
    uint64_t before = start;
    do {
        if (peer->pairs(handle, BENCH_EXCLUSIVE, 1) != 0)
            bench_fail("%s: a pair failed%s%s", peer->name, peer->ours ? ": " : "",
                       peer->ours ? lk_last_error() : "");
        uint64_t now = bench_ticks();
        bench_histogram_add(&times, bench_ticks_ns(before, now));
        before = now;
        pairs++;
    } while (bench_ticks_ns(start, before) < for_ns);
    return (double)bench_ticks_ns(start, before) / pairs;
}

static int ping_pairs(void *handle, enum bench_mode mode, unsigned count)
{
    (void)mode;
    (void)count;
    return bench_ping(*(int *)handle);
}

void bench_brokered(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 15);
    uint64_t sample_ns = bench->quick ? SAMPLE_NS / 100 : SAMPLE_NS;
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "pair that another process keeps");
    struct bench_pong pong = bench_pong_start();
    struct bench_peer floor = {.name = "seqpacket round trip", .pairs = ping_pairs};
    const struct bench_peer *peers[BENCH_PEERS_MAX + 1] = {&floor};
    void *handles[BENCH_PEERS_MAX + 1] = {&pong.socket};
    size_t count = 1;

    bench_series_add(group, floor.name);
    for (size_t i = 0; i < bench->peer_count; i++) {
        if (!bench->peers[i]->remote)
            continue;
        bench_peer_make(bench, bench->peers[i]);
        peers[count] = bench->peers[i];
        handles[count] = peers[count]->join(bench);
        bench_series_add(group, peers[count++]->name);
    }
    for (size_t i = 1; i < count; i++)
        bench_series_compare(group, (int)i, 0, peers[i]->ours ? 1.3 : 0, 0);
    for (size_t i = 0; i < count; i++)
        one_sample(peers[i], handles[i], sample_ns); /* warm */
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        for (size_t turn = 0; turn < count; turn++) {
            size_t i = (turn + round) % count;
            bench_sample(group, (int)i, one_sample(peers[i], handles[i], sample_ns));
            bench_series_curve(group, (int)i, &times);
        }
    }
    for (size_t i = 1; i < count; i++) {
        if (peers[i]->leave)
            peers[i]->leave(handles[i]);
        bench_peer_unmake(bench, peers[i]);
    }
    bench_pong_stop(&pong);
}
