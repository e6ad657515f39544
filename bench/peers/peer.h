/* SPDX-License-Identifier: MIT */
/* What lockkeeper is compared with, and lockkeeper itself, each behind the same few functions. A
 * server is started once for all cases. A peer is made anew for each measurement, before any process
 * is started; then each process joins for itself, in the arena that all of them inherited or by a
 * path in the bench's own directory. Failures that are no figure end the program. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench;

enum bench_mode {
    BENCH_EXCLUSIVE,
    BENCH_SHARED,
    BENCH_UPDATE,  /* of lockkeeper's pairs alone */
    BENCH_UPGRADE, /* the same, becoming exclusive in between */
};

struct bench_peer {
    const char *name;
    const char *what; /* in a few words */
    bool always;      /* measured without being asked for: ours, and what goals compare with */
    bool ours;
    bool shares;   /* has a shared mode */
    bool recovers; /* a holder's death hands the lock on */
    bool remote;   /* asks another process each time: tens of microseconds */

    /* NULL: it can be used here; else why not. May be NULL itself. */
    const char *(*missing)(void);
    void (*start)(struct bench *bench); /* its server; may be NULL, as may stop */
    void (*stop)(struct bench *bench);

    void (*make)(struct bench *bench); /* may be NULL, as may unmake */
    void (*unmake)(struct bench *bench);

    void *(*join)(const struct bench *bench);
    void (*leave)(void *handle); /* may be NULL */

    /* Pairs of take and drop, in a loop of its own so that no pair pays for an indirect call. 0, or
     * not: something failed. */
    int (*pairs)(void *handle, enum bench_mode mode, unsigned count);
    /* Waits. 0; 1: the owner died; negative: failed. NULL: a floor, which cannot wait. */
    int (*take)(void *handle, enum bench_mode mode);
    int (*drop)(void *handle, enum bench_mode mode);
};

/* All of them, the last NULL. */
extern const struct bench_peer *const bench_peers[];

const struct bench_peer *bench_peer_find(const char *name);

/* A body for `pairs`: TAKE and DROP are expressions that are 0 when all is well. */
#define BENCH_PAIRS(count, TAKE, DROP)                                                             \
    do {                                                                                           \
        int bench_failed = 0;                                                                      \
        for (unsigned bench_pair = 0; bench_pair < (count); bench_pair++) {                        \
            bench_failed |= (TAKE);                                                                \
            bench_failed |= (DROP);                                                                \
        }                                                                                          \
        return bench_failed;                                                                       \
    } while (0)

extern const struct bench_peer bench_peer_lockkeeper, bench_peer_lockkeeper_inline,
    bench_peer_empty_calls, bench_peer_lockkeeper_fifo, bench_peer_lockkeeper_brokered,
    bench_peer_cas, bench_peer_mutex, bench_peer_robust, bench_peer_rwlock, bench_peer_posix_sem,
    bench_peer_sysv_sem, bench_peer_flock, bench_peer_ofd, bench_peer_pipe, bench_peer_seqpacket,
    bench_peer_mq, bench_peer_redis, bench_peer_postgresql, bench_peer_etcd, bench_peer_boost_mutex,
    bench_peer_boost_sharable;

/* Removes the System V semaphore that a process which ended early left behind. */
void bench_sysv_sweep(struct bench *bench);
