/* SPDX-License-Identifier: MIT */
/* A free lock that is acquired asynchronously: from the request to the callback, by poll(2), and its
 * release; beside one round trip over a pair of sockets. */
#include <poll.h>

#include "bench/bench.h"
#include "common/clock.h"

#define GRANTS 200u /* per sample */

struct grant {
    int result;
    bool done;
};

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct grant *grant = user;
    (void)lock;
    *grant = (struct grant){.result = result, .done = true};
}

static void one_grant(struct lk_session *session, struct lk_lock *lock)
{
    struct grant grant = {0};
    if (lk_lock_acquire_async(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, on_acquired, &grant) < 0)
        bench_fail("%s", lk_last_error());
    struct pollfd polled = {.fd = lk_session_fd(session), .events = POLLIN};
    while (!grant.done) {
        if (poll(&polled, 1, 10000) <= 0)
            bench_fail("an asynchronous acquire has not ended");
        if (lk_session_dispatch(session) < 0)
            bench_fail("%s", lk_last_error());
    }
    if (grant.result < 0 || lk_lock_release(lock) < 0)
        bench_fail("an asynchronous acquire failed: %s", lk_strerror(grant.result));
}

void bench_async(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 15);
    unsigned grants = bench->quick ? GRANTS / 10 : GRANTS;
    struct bench_group *group = bench_group_add(report, "ns", BENCH_LESS, rounds,
                                                "asynchronous acquire, callback, release");
    struct bench_pong pong = bench_pong_start();
    struct lk_session *session = bench_connect(bench);
    struct lk_lock *lock = bench_lock(bench_segment(session, "bench-async", 0));
    int floor = bench_series_add(group, "seqpacket round trip");
    int ours = bench_series_add(group, "lockkeeper, free lock");

    bench_series_compare(group, ours, floor, 0, 0);
    one_grant(session, lock); /* warm */
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        uint64_t start_ns = lki_clock_now_ns();
        for (unsigned i = 0; i < grants; i++)
            if (bench_ping(pong.socket) < 0)
                bench_fail("no answer by socket");
        uint64_t middle_ns = lki_clock_now_ns();
        for (unsigned i = 0; i < grants; i++)
            one_grant(session, lock);
        uint64_t end_ns = lki_clock_now_ns();
        bench_sample(group, floor, (double)(middle_ns - start_ns) / grants);
        bench_sample(group, ours, (double)(end_ns - middle_ns) / grants);
    }
    lk_session_close(session);
    bench_pong_stop(&pong);
}
