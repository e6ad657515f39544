/* SPDX-License-Identifier: MIT */
/* More of everything than is fair: A5, A6, A13, A14, A25, A26. */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "tests/hostile/wire.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define STORM_NS (700 * LKI_NS_PER_MS)

static const struct hostile_context *target;

/* --- A5 --- */

static void attack_a5(const struct hostile_context *context)
{
    enum { CONNECTIONS = 10000 };
    static int fds[CONNECTIONS];
    int served = 0;
    struct hostile_reply reply;
    struct lki_message hello = hostile_hello();
    struct lki_message list = hostile_list(2, LKI_LIST_BROKER);
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = hostile_connect(context->socket_path);
        test_check(fds[i] >= 0, "connection %d: %s", i, strerror(-fds[i]));
        if (i % 4 > 0) /* the others are silent */
            served += hostile_send(fds[i], &hello) == 0 && hostile_call(fds[i], &list, &reply) == 0;
    }
    hostile_hold();
    test_check(served < CONNECTIONS * 3 / 4, "%d connections, and no end", served);
    for (int i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
}

/* --- A6 --- */

static int end_anywhere(void *arg)
{
    uint64_t how = (uint64_t)(uintptr_t)arg;
    int fd = hostile_connect(target->socket_path);
    struct lki_message hello = hostile_hello();
    struct lki_message open = hostile_open(2, "briefly", LK_CREATE, 4096);
    if (how > 0)
        (void)hostile_send(fd, &hello);
    if (how > 1)
        (void)hostile_send(fd, &open);
    return 0;
}

static void attack_a6(const struct hostile_context *context)
{
    enum { CONNECTIONS = 3000, PROCESSES = 150 };
    target = context;
    for (int i = 0; i < CONNECTIONS; i++)
        close(hostile_connect(context->socket_path));
    for (int i = 0; i < PROCESSES; i++)
        test_reap_success(test_spawn(end_anywhere, (void *)(uintptr_t)(i % 3)));
}

/* --- A13 --- */

static int flood(void *arg)
{
    enum { CONNECTIONS = 8, AHEAD = 8 };
    int fds[CONNECTIONS];
    uint64_t id = 2;
    uint64_t end_ns = lki_clock_now_ns() + STORM_NS;
    struct hostile_reply reply;
    (void)arg;
    for (int i = 0; i < CONNECTIONS; i++)
        fds[i] = hostile_greet(target->socket_path);
    for (; lki_clock_now_ns() < end_ns; id += AHEAD) {
        for (int i = 0; i < CONNECTIONS; i++)
            for (uint64_t ahead = 0; ahead < AHEAD; ahead++) {
                struct lki_message list = hostile_list(id + ahead, LKI_LIST_SEGMENTS);
                test_check(hostile_send(fds[i], &list) == 0, "send");
            }
        for (int i = 0; i < CONNECTIONS * AHEAD; i++)
            test_check(hostile_receive(fds[i / AHEAD], &reply) == 1, "receive");
    }
    return 0;
}

static void attack_a13(const struct hostile_context *context)
{
    enum { PROCESSES = 4 };
    pid_t pids[PROCESSES];
    struct lki_message open = hostile_open(2, "sibling", LK_CREATE, 4096);
    target = context;
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = test_spawn(flood, NULL);
    /* One of the same user lives beside them. */
    for (int i = 0; i < 20; i++) {
        int fd = hostile_greet(context->socket_path);
        (void)hostile_open_segment(fd, &open);
        close(fd);
    }
    for (int i = 0; i < PROCESSES; i++)
        test_reap_success(pids[i]);
}

/* --- A14 --- */

static const struct absurd {
    const char *name;
    uint64_t size_bytes;
    uint64_t size_max_bytes;
    uint32_t locks;
    uint32_t attachments_max;
    uint32_t flags;
    uint32_t mode;
} absurd[] = {
    {.name = "2^63 bytes", .size_bytes = UINT64_C(1) << 63},
    {.name = "2^64 - 1 bytes", .size_bytes = UINT64_MAX},
    {.name = "growing to 2^64 - 1", .size_bytes = 4096, .size_max_bytes = UINT64_MAX},
    {.name = "a maximum below the size", .size_bytes = 8192, .size_max_bytes = 4096},
    {.name = "2^32 - 1 locks", .locks = UINT32_MAX},
    {.name = "2^20 + 1 locks", .locks = (1u << 20) + 1},
    {.name = "2^32 - 1 attachments", .attachments_max = UINT32_MAX},
    {.name = "every flag", .flags = UINT32_MAX},
    {.name = "every mode", .mode = UINT32_MAX},
    {.name = "64 TiB, reserved", .size_bytes = UINT64_C(1) << 46, .flags = LK_RESERVE},
};

static void ask_absurd(const struct hostile_context *context)
{
    struct hostile_reply reply;
    int fd = hostile_greet(context->socket_path);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(absurd); i++) {
        const struct absurd *row = &absurd[i];
        struct lki_message open = hostile_open(2 + i, "absurd", LK_CREATE | row->flags, 0);
        open.as.open.size_bytes = row->size_bytes;
        open.as.open.size_max_bytes = row->size_max_bytes;
        open.as.open.locks = row->locks;
        open.as.open.attachments_max = row->attachments_max;
        open.as.open.mode = row->mode;
        int r = hostile_call(fd, &open, &reply);
        test_check(r > (int)LKI_STATUS_CREATED, "%s is answered by %d", row->name, r);
    }
    /* Odd is no error, and none at all is a plain lock. */
    struct lki_message open = hostile_open(1000, "odd", LK_CREATE, 4097);
    (void)hostile_open_segment(fd, &open);
    open = hostile_open(1001, "empty", LK_CREATE, 0);
    (void)hostile_open_segment(fd, &open);
    close(fd);
}

/* Segments of one shape until there are no more to be had, over as many connections. */
static void take_segments(const struct hostile_context *context, uint32_t locks,
                          uint64_t size_bytes)
{
    enum { CONNECTIONS = 16, EACH_MAX = 4000 };
    int fds[CONNECTIONS];
    char name[48];
    for (int i = 0; i < CONNECTIONS; i++) {
        struct hostile_reply reply;
        int r = 0;
        int count = 0;
        fds[i] = hostile_greet(context->socket_path);
        for (; r == 0 && count < EACH_MAX; count++) {
            snprintf(name, sizeof(name), "%llx-%d-%d", (unsigned long long)size_bytes, i, count);
            struct lki_message open =
                hostile_open(2 + (uint64_t)count, name, LK_CREATE, size_bytes);
            open.as.open.locks = locks;
            r = hostile_call(fds[i], &open, &reply);
            hostile_reply_close(&reply);
        }
        test_check(r == (int)LKI_STATUS_QUOTA, "after %d segments: %d", count, r);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
}

static void attack_a14(const struct hostile_context *context)
{
    ask_absurd(context);
    take_segments(context, 1, 0);
    take_segments(context, 1, UINT64_C(1) << 44);
}

static void attack_a14_locks(const struct hostile_context *context)
{
    take_segments(context, 1u << 20, 0);
}

/* --- A25 --- */

#define MANY_LOCKS 100000u

static int holds_all;

static int hold_many(void *arg)
{
    struct test_client client;
    (void)arg;
    test_client_open(&client, target->socket_path, "many", NULL);
    for (uint32_t i = 0; i < MANY_LOCKS; i++)
        test_acquire(test_lock(&client, i), LK_EXCLUSIVE);
    test_event_post(holds_all);
    return test_stay();
}

static void attack_a25(const struct hostile_context *context)
{
    struct test_client client;
    struct lk_segment_options options = test_options(4096, MANY_LOCKS);
    target = context;
    holds_all = test_event();
    test_client_open(&client, context->socket_path, "many", &options);
    pid_t pid = test_spawn(hold_many, NULL);
    test_event_wait(holds_all);
    hostile_hold(); /* it may hold as long as it lives: leases are for that */
    test_kill(pid);
    /* Every single one is handed on. */
    for (uint32_t i = 0; i < MANY_LOCKS; i += MANY_LOCKS / 100) {
        int r = lk_lock_acquire(test_lock(&client, i), LK_EXCLUSIVE, 20 * LKI_NS_PER_S);
        test_check(r == LK_ACQUIRED || r == LK_ACQUIRED_OWNER_DIED, "lock %u: %d", i, r);
    }
    test_client_close(&client);
}

/* --- A26 --- */

/* Waits and cancels as fast as they are answered. */
static int wait_and_cancel(void *arg)
{
    enum { AHEAD = 16 };
    struct lki_message open = hostile_open(2, "strict", 0, 0);
    struct hostile_reply reply;
    uint64_t end_ns = lki_clock_now_ns() + STORM_NS;
    (void)arg;
    int fd = hostile_greet(target->socket_path);
    uint32_t segment = hostile_open_segment(fd, &open);
    for (uint64_t id = 3; lki_clock_now_ns() < end_ns; id += 2 * AHEAD) {
        for (uint64_t i = 0; i < AHEAD; i++) {
            struct lki_message acquire =
                hostile_acquire(id + i, segment, (uint32_t)i, LKI_TIME_NEVER);
            acquire.as.acquire.asynchronous = true;
            test_check(hostile_send(fd, &acquire) == 0, "send");
        }
        for (uint64_t i = 0; i < AHEAD; i++) {
            struct lki_message cancel = {
                .type = LKI_REQUEST_CANCEL, .id = id + AHEAD + i, .as.cancel = {.request = id + i}};
            test_check(hostile_send(fd, &cancel) == 0, "send");
        }
        for (int i = 0; i < 2 * AHEAD; i++)
            test_check(hostile_receive(fd, &reply) == 1, "receive");
    }
    return 0;
}

/* Waits behind each other, as long as the chain may be, and tries to close it again and again. */
static void close_rings(const struct hostile_context *context)
{
    enum { LENGTH = 100, TIMES = 200 };
    int fds[LENGTH];
    uint32_t segment = 0;
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "chain", LK_CREATE | LK_STRICT, 0);
    open.as.open.locks = LENGTH;
    for (int i = 0; i < LENGTH; i++) {
        fds[i] = hostile_greet(context->socket_path);
        segment = hostile_open_segment(fds[i], &open);
        struct lki_message acquire = hostile_acquire(3, segment, (uint32_t)i, LKI_TIME_NEVER);
        test_check(hostile_call(fds[i], &acquire, &reply) == 0, "a lock of its own");
    }
    for (int i = 0; i < LENGTH - 1; i++) {
        struct lki_message acquire = hostile_acquire(4, segment, (uint32_t)i + 1, LKI_TIME_NEVER);
        struct lki_message list = hostile_list(5, LKI_LIST_BROKER);
        test_check(hostile_send(fds[i], &acquire) == 0, "a lock of the next");
        /* Answered behind it: it waits now, so the last one closes the ring. */
        test_check(hostile_call(fds[i], &list, &reply) == 0, "served");
    }
    for (uint64_t i = 0; i < TIMES; i++) {
        struct lki_message acquire = hostile_acquire(4 + i, segment, 0, LKI_TIME_NEVER);
        int r = hostile_call(fds[LENGTH - 1], &acquire, &reply);
        test_check(r == (int)LKI_STATUS_DEADLOCK, "a ring is answered by %d", r);
    }
    for (int i = 0; i < LENGTH; i++)
        close(fds[i]);
}

static void attack_a26(const struct hostile_context *context)
{
    enum { PROCESSES = 3 };
    pid_t pids[PROCESSES];
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "strict", LK_CREATE | LK_STRICT, 0);
    target = context;
    int holder = hostile_greet(context->socket_path);
    uint32_t segment = hostile_open_segment(holder, &open);
    for (uint32_t i = 0; i < 16; i++) {
        struct lki_message acquire = hostile_acquire(3 + i, segment, i, LKI_TIME_NEVER);
        test_check(hostile_call(holder, &acquire, &reply) == 0, "a free lock");
    }
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = test_spawn(wait_and_cancel, NULL);
    for (int i = 0; i < PROCESSES; i++)
        test_reap_success(pids[i]);
    close(holder);
    close_rings(context);
}

static const struct hostile_row rows[] = {
    {.id = "A5", .title = "10,000 connections of one user", .attack = attack_a5},
    {.id = "A6", .title = "processes that connect and end", .attack = attack_a6},
    {.id = "A13", .title = "load spread over many connections", .attack = attack_a13},
    {.id = "A14", .title = "segments of absurd sizes, and as many as can be", .attack = attack_a14},
    {.id = "A14",
     .title = "lock tables of a million entries, as many as can be",
     .attack = attack_a14_locks},
    {.id = "A25", .title = "100,000 locks held for ever, and by the dead", .attack = attack_a25},
    {.id = "A26", .title = "waits and cancels, chains and rings", .attack = attack_a26},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
