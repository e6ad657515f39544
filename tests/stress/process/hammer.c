/* SPDX-License-Identifier: MIT */
/* hammer [--rounds N] [--seed N]
 *
 * Four processes write side by side into one map. Without locks: byte i belongs to process i % 4,
 * which writes its own bytes one by one and finds in them what it wrote last, whatever the
 * neighbours do to theirs. With locks: ranges of odd lengths at odd offsets, each with a lock; a
 * writer finds all bytes of the range alike, as the last one left them, and writes its own value
 * into each. At the end nothing is lost and nothing beyond the ranges was touched. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define NAME "hammer"
#define PROCESSES 4
#define FREE_BYTES 4093 /* odd: the last line is shared with the guard behind it */
#define RANGES 61
#define RANGE_BYTES_MAX 97
#define GUARD 0xa5

/* The data: free bytes, a guard byte, and the ranges, each followed by one guard byte. */
struct stage {
    struct test_broker broker;
    uint64_t seed;
    unsigned rounds;
    int ready, go;
    uint32_t offsets[RANGES];
    uint32_t lengths[RANGES];
    uint32_t bytes;
    struct shared {
        _Atomic uint64_t writes[RANGES]; /* by lock holders, to compare with what is in the data */
        _Atomic uint64_t last[RANGES];
    } * shared;
    unsigned index; /* of this process */
};

static void lay_out(struct stage *stage)
{
    struct test_random random = {stage->seed};
    uint32_t offset = FREE_BYTES + 1;
    for (unsigned i = 0; i < RANGES; i++) {
        stage->offsets[i] = offset;
        stage->lengths[i] = 1 + (uint32_t)test_random_below(&random, RANGE_BYTES_MAX);
        offset += stage->lengths[i] + 1;
    }
    stage->bytes = offset;
}

static void hammer_free(const struct stage *stage, unsigned char *data)
{
    unsigned char mine = 0;
    for (unsigned round = 0; round < stage->rounds; round++) {
        for (unsigned i = stage->index; i < FREE_BYTES; i += PROCESSES) {
            unsigned char found = __atomic_load_n(&data[i], __ATOMIC_RELAXED);
            test_check(found == mine, "byte %u was %u, is %u: a neighbour wrote it", i, mine,
                       found);
            __atomic_store_n(&data[i], (unsigned char)(round + 1), __ATOMIC_RELAXED);
        }
        mine = (unsigned char)(round + 1);
    }
}

static void check_range(const struct stage *stage, const unsigned char *data, unsigned range)
{
    const unsigned char *bytes = data + stage->offsets[range];
    for (unsigned i = 0; i < stage->lengths[range]; i++)
        test_check(bytes[i] == (unsigned char)atomic_load(&stage->shared->last[range]),
                   "range %u, byte %u: %u instead of %u", range, i, bytes[i],
                   (unsigned)(unsigned char)atomic_load(&stage->shared->last[range]));
}

static void hammer_ranges(const struct stage *stage, const struct test_client *client)
{
    struct test_random random = {stage->seed + stage->index + 1};
    struct lk_lock *locks[RANGES];

    for (unsigned i = 0; i < RANGES; i++)
        locks[i] = test_lock(client, i);
    for (unsigned round = 0; round < stage->rounds * 16; round++) {
        unsigned range = (unsigned)test_random_below(&random, RANGES);
        bool shared = test_random_below(&random, 4) == 0;
        test_acquire(locks[range], shared ? LK_SHARED : LK_EXCLUSIVE);
        check_range(stage, client->data, range);
        if (!shared) {
            unsigned char value = (unsigned char)test_random_next(&random);
            memset(client->data + stage->offsets[range], value, stage->lengths[range]);
            atomic_store(&stage->shared->last[range], value);
            atomic_fetch_add(&stage->shared->writes[range], 1);
        }
        test_release(locks[range]);
    }
}

static int hammer(void *arg)
{
    struct stage *stage = arg;
    struct test_client client;

    test_client_open(&client, stage->broker.socket_path, NAME, NULL);
    test_event_post(stage->ready);
    test_event_wait(stage->go);
    hammer_free(stage, client.data);
    hammer_ranges(stage, &client);
    test_client_close(&client);
    return 0;
}

static void check_all(const struct stage *stage, const unsigned char *data)
{
    uint64_t writes = 0;

    for (unsigned i = 0; i < FREE_BYTES; i++)
        test_check(data[i] == (unsigned char)stage->rounds, "byte %u is %u at the end", i, data[i]);
    test_check(data[FREE_BYTES] == GUARD, "the guard behind the free bytes was touched");
    for (unsigned i = 0; i < RANGES; i++) {
        check_range(stage, data, i);
        test_check(data[stage->offsets[i] + stage->lengths[i]] == GUARD,
                   "the guard behind range %u was touched", i);
        writes += atomic_load(&stage->shared->writes[i]);
    }
    printf("seed %lu: %lu free bytes and %lu ranges written side by side by %d processes: no byte "
           "lost, no neighbour touched\n",
           (unsigned long)stage->seed, (unsigned long)FREE_BYTES * stage->rounds,
           (unsigned long)writes, PROCESSES);
}

int main(int argc, char **argv)
{
    struct stage stage = {.seed = 1,
                          .rounds = 2000,
                          .ready = test_event(),
                          .go = test_event(),
                          .shared = test_shared(sizeof(struct shared))};
    struct test_client client;
    pid_t pids[PROCESSES];

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--rounds") == 0)
            stage.rounds = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seed") == 0)
            stage.seed = strtoull(argv[i + 1], NULL, 10);
    }
    lay_out(&stage);
    test_broker_start(&stage.broker);
    struct lk_segment_options options = test_options(stage.bytes, RANGES);
    test_client_open(&client, stage.broker.socket_path, NAME, &options);
    client.data[FREE_BYTES] = GUARD;
    for (unsigned i = 0; i < RANGES; i++)
        client.data[stage.offsets[i] + stage.lengths[i]] = GUARD;
    for (unsigned i = 0; i < PROCESSES; i++) {
        stage.index = i;
        pids[i] = test_spawn(hammer, &stage);
    }
    for (unsigned i = 0; i < PROCESSES; i++)
        test_event_wait(stage.ready);
    for (unsigned i = 0; i < PROCESSES; i++)
        test_event_post(stage.go);
    for (unsigned i = 0; i < PROCESSES; i++)
        test_reap_success(pids[i]);
    check_all(&stage, client.data);
    test_client_close(&client);
    test_broker_stop(&stage.broker);
    return 0;
}
