/* SPDX-License-Identifier: MIT */
#include "bench/peers/peer.h"

#include <string.h>

/* In the order of the tables. */
const struct bench_peer *const bench_peers[] = {
    &bench_peer_lockkeeper,
    &bench_peer_lockkeeper_fifo,
    &bench_peer_lockkeeper_brokered,
    &bench_peer_cas,
    &bench_peer_robust,
    &bench_peer_mutex,
    &bench_peer_rwlock,
    &bench_peer_boost_mutex,
    &bench_peer_boost_sharable,
    &bench_peer_posix_sem,
    &bench_peer_sysv_sem,
    &bench_peer_flock,
    &bench_peer_ofd,
    &bench_peer_pipe,
    &bench_peer_seqpacket,
    &bench_peer_mq,
    &bench_peer_redis,
    &bench_peer_postgresql,
    &bench_peer_etcd,
    NULL,
};

const struct bench_peer *bench_peer_find(const char *name)
{
    for (size_t i = 0; bench_peers[i]; i++)
        if (strcmp(bench_peers[i]->name, name) == 0)
            return bench_peers[i];
    return NULL;
}
