/* SPDX-License-Identifier: MIT */
/* Semaphores of value one: POSIX, and System V with SEM_UNDO, which gives back what the dead took. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include "bench/bench.h"

static void *join_posix(const struct bench *bench)
{
    return bench->arena;
}

static void make_posix(struct bench *bench)
{
    if (sem_init(bench->arena, 1, 1) < 0)
        bench_fail("cannot make a semaphore: %s", strerror(errno));
}

static int wait_posix(sem_t *semaphore)
{
    while (sem_wait(semaphore) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static int posix_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    sem_t *semaphore = arg;
    (void)mode;
    BENCH_PAIRS(count, sem_wait(semaphore), sem_post(semaphore));
}

static int posix_take(void *arg, enum bench_mode mode)
{
    (void)mode;
    return wait_posix(arg);
}

static int posix_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return sem_post(arg) < 0 ? -errno : 0;
}

static int change(int id, int by)
{
    struct sembuf operation = {.sem_op = (short)by, .sem_flg = SEM_UNDO};
    while (semop(id, &operation, 1) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static void make_sysv(struct bench *bench)
{
    int id = semget(IPC_PRIVATE, 1, 0600);
    if (id < 0)
        bench_fail("cannot make a System V semaphore: %s", strerror(errno));
    bench->leavings->sysv_id = id;
    bench->leavings->sysv_made = 1;
    struct sembuf up = {.sem_op = 1}; /* without SEM_UNDO: it is not ours to give back */
    if (semop(id, &up, 1) < 0)
        bench_fail("cannot set a System V semaphore: %s", strerror(errno));
}

void bench_sysv_sweep(struct bench *bench)
{
    if (bench->leavings->sysv_made)
        semctl(bench->leavings->sysv_id, 0, IPC_RMID);
    bench->leavings->sysv_made = 0;
}

static void *join_sysv(const struct bench *bench)
{
    return &bench->leavings->sysv_id;
}

static int sysv_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    int id = *(int *)arg;
    (void)mode;
    BENCH_PAIRS(count, change(id, -1), change(id, 1));
}

static int sysv_take(void *arg, enum bench_mode mode)
{
    (void)mode;
    return change(*(int *)arg, -1);
}

static int sysv_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return change(*(int *)arg, 1);
}

const struct bench_peer bench_peer_posix_sem = {
    .name = "posix-sem",
    .what = "POSIX semaphore, process-shared",
    .make = make_posix,
    .join = join_posix,
    .pairs = posix_pairs,
    .take = posix_take,
    .drop = posix_drop,
};

const struct bench_peer bench_peer_sysv_sem = {
    .name = "sysv-sem",
    .what = "System V semaphore with SEM_UNDO",
    .recovers = true,
    .make = make_sysv,
    .unmake = bench_sysv_sweep,
    .join = join_sysv,
    .pairs = sysv_pairs,
    .take = sysv_take,
    .drop = sysv_drop,
};
