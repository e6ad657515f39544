/* SPDX-License-Identifier: MIT */
#include "bench/cases/cell.h"

#include <string.h>

#include "common/clock.h"

struct worker {
    _Alignas(128) uint64_t pairs;
    uint64_t writes;
    uint64_t handoffs;
    uint64_t worst_ns;
    struct bench_histogram waits;
};

struct cell {
    struct bench_gate gate;
    _Alignas(128) struct {
        uint64_t first, second; /* always the same, for who has the lock */
        uint32_t owner;
    } inside;
    struct worker workers[CELL_PROCESSES_MAX];
};

struct job {
    const struct bench *bench;
    const struct bench_peer *peer;
    struct cell *cell;
    unsigned index, write_every;
};

/* What was written before is not kept in a register over the lock's calls, whatever those are. */
static inline void forget_memory(void)
{
    __asm__ volatile("" ::: "memory");
}

static int go_inside(struct cell *cell, struct worker *worker, uint32_t self, enum bench_mode mode)
{
    int torn;
    forget_memory();
    torn = cell->inside.first != cell->inside.second;
    if (mode == BENCH_EXCLUSIVE) {
        cell->inside.first++;
        worker->handoffs += cell->inside.owner != self;
        cell->inside.owner = self;
        cell->inside.second++;
        worker->writes++;
    }
    forget_memory();
    return torn;
}

static int hammer(void *arg)
{
    struct job *job = arg;
    const struct bench_peer *peer = job->peer;
    struct cell *cell = job->cell;
    struct worker *worker = &cell->workers[job->index];
    void *handle = peer->join(job->bench);
    unsigned until_write = job->write_every;

    bench_gate_enter(&cell->gate);
    uint64_t last = bench_ticks();
    do {
        enum bench_mode mode = BENCH_SHARED;
        if (until_write > 0 && --until_write == 0) {
            mode = BENCH_EXCLUSIVE;
            until_write = job->write_every;
        }
        if (peer->take(handle, mode) != 0 || go_inside(cell, worker, job->index + 1, mode))
            return 1;
        uint64_t now = bench_ticks();
        if (peer->drop(handle, mode) != 0)
            return 1;
        uint64_t waited_ns = bench_ticks_ns(last, now);
        last = now;
        worker->pairs++;
        if (waited_ns > worker->worst_ns)
            worker->worst_ns = waited_ns;
        bench_histogram_add(&worker->waits, waited_ns);
        /* Relaxed: nothing is read because of it. */
    } while (!atomic_load_explicit(&cell->gate.stop, memory_order_relaxed));
    if (peer->leave)
        peer->leave(handle);
    return 0;
}

static void sum_up(const struct bench_peer *peer, const struct cell *cell, unsigned processes,
                   uint64_t took_ns, struct cell_result *out)
{
    uint64_t pairs = 0, writes = 0, handoffs = 0;
    uint64_t least = UINT64_MAX, most = 0;
    *out = (struct cell_result){0};
    for (unsigned i = 0; i < processes; i++) {
        const struct worker *worker = &cell->workers[i];
        pairs += worker->pairs;
        writes += worker->writes;
        handoffs += worker->handoffs;
        least = worker->pairs < least ? worker->pairs : least;
        most = worker->pairs > most ? worker->pairs : most;
        if ((double)worker->worst_ns > out->worst_wait_ns)
            out->worst_wait_ns = (double)worker->worst_ns;
        bench_histogram_merge(&out->waits, &worker->waits);
    }
    if (cell->inside.first != writes || cell->inside.second != writes)
        bench_fail("%s: two were inside at the same time", peer->name);
    double fair = (double)(pairs ? pairs : 1) / processes;
    out->pairs_per_s = (double)pairs * 1e9 / (double)took_ns;
    out->handoffs_per_s = (double)handoffs * 1e9 / (double)took_ns;
    out->least_share = (double)least / fair;
    out->most_share = (double)most / fair;
}

void cell_run(struct bench *bench, const struct bench_peer *peer, unsigned processes,
              unsigned write_every, struct cell_result *out)
{
    struct cell *cell = bench_share(sizeof(*cell));
    pid_t pids[CELL_PROCESSES_MAX];

    bench_peer_make(bench, peer);
    for (unsigned i = 0; i < processes; i++) {
        struct job job = {
            .bench = bench, .peer = peer, .cell = cell, .index = i, .write_every = write_every};
        pids[i] = bench_spawn(hammer, &job);
    }
    bench_gate_await(&cell->gate, processes);
    uint64_t start_ns = lki_clock_now_ns();
    bench_set(&cell->gate.go, 1);
    bench_sleep(bench->cell_ns);
    atomic_store_explicit(&cell->gate.stop, 1, memory_order_relaxed);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    for (unsigned i = 0; i < processes; i++)
        bench_reap(pids[i]);
    sum_up(peer, cell, processes, took_ns, out);
    bench_peer_unmake(bench, peer);
    bench_unshare(cell, sizeof(*cell));
}
