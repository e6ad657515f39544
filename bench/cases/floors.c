/* SPDX-License-Identifier: MIT */
/* The floors of everything that has to wake another process: round trips by futex and by a pair of
 * sockets, where the scheduler puts the two, and on one processor each. What a locked word costs at
 * least is among the pairs. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define PINGS 500u

static int pong(void *arg)
{
    int socket = *(int *)arg;
    char byte;
    while (recv(socket, &byte, 1, 0) == 1)
        if (send(socket, &byte, 1, MSG_NOSIGNAL) != 1)
            return 1;
    return 0;
}

struct bench_pong bench_pong_start(void)
{
    struct bench_pong partner;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        bench_fail("cannot make a pair of sockets: %s", strerror(errno));
    partner.socket = ends[0];
    partner.pid = bench_spawn(pong, &ends[1]);
    close(ends[1]);
    return partner;
}

void bench_pong_stop(struct bench_pong *partner)
{
    close(partner->socket);
    bench_kill(partner->pid); /* it has the other end too, so a close would not end it */
}

int bench_ping(int socket)
{
    char byte = 'p';
    return send(socket, &byte, 1, MSG_NOSIGNAL) == 1 && recv(socket, &byte, 1, 0) == 1 ? 0 : -1;
}

/* --- By futex: the word counts the turns --- */

struct turns {
    _Atomic uint32_t ping;
    _Alignas(128) _Atomic uint32_t pong;
};

static int futex_pong(void *arg)
{
    struct turns *turns = arg;
    for (uint32_t turn = 0; bench_wait_while(&turns->ping, turn); turn++)
        bench_set(&turns->pong, turn + 1);
    return 1;
}

static double futex_round(struct turns *turns, uint32_t *turn)
{
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < PINGS; i++, (*turn)++) {
        bench_set(&turns->ping, *turn + 1);
        if (!bench_wait_while(&turns->pong, *turn))
            bench_fail("no answer by futex");
    }
    return (double)(lki_clock_now_ns() - start_ns) / PINGS;
}

static double socket_round(int socket)
{
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < PINGS; i++)
        if (bench_ping(socket) < 0)
            bench_fail("no answer by socket");
    return (double)(lki_clock_now_ns() - start_ns) / PINGS;
}

void bench_floors(struct bench *bench, struct bench_report *report)
{
    unsigned rounds = bench_rounds(bench, 15);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "round trip between two processes");
    int series[2][2];
    struct turns *turns[2];
    pid_t partners[2];
    struct bench_pong pongs[2];
    uint32_t turn[2] = {0, 0};

    for (int pinned = 0; pinned < 2; pinned++) {
        if (pinned)
            bench_pin(1); /* what is started now inherits it */
        turns[pinned] = bench_share(sizeof(struct turns));
        partners[pinned] = bench_spawn(futex_pong, turns[pinned]);
        pongs[pinned] = bench_pong_start();
        bench_unpin();
        series[pinned][0] = bench_series_add(group, pinned ? "futex, one processor each" : "futex");
        series[pinned][1] =
            bench_series_add(group, pinned ? "seqpacket, one processor each" : "seqpacket");
    }
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, rounds, group->name);
        for (int pinned = 0; pinned < 2; pinned++) {
            if (pinned)
                bench_pin(0);
            bench_sample(group, series[pinned][0], futex_round(turns[pinned], &turn[pinned]));
            bench_sample(group, series[pinned][1], socket_round(pongs[pinned].socket));
            bench_unpin();
        }
    }
    for (int pinned = 0; pinned < 2; pinned++) {
        bench_kill(partners[pinned]);
        bench_pong_stop(&pongs[pinned]);
        bench_unshare(turns[pinned], sizeof(struct turns));
    }
}
