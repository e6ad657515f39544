/* SPDX-License-Identifier: MIT */
/* The memory that clients share with the broker: A17 to A21, A30. */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "engine/layout.h"
#include "tests/hostile/victim.h"
#include "tests/hostile/wire.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define SCRIBBLE_NS LKI_NS_PER_S
#define LOCKS 64u
#define ATTACHMENTS 32u

struct raw { /* an attachment by hand */
    int fd;
    uint32_t segment;
    int area_fd;
    int data_fd;
    uint64_t area_bytes;
};

static void raw_open(struct raw *raw, const char *socket_path, const char *name, uint32_t flags)
{
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, name, flags, 8192);
    open.as.open.size_max_bytes = flags & LK_CREATE ? 65536 : 0;
    open.as.open.size_bytes = flags & LK_CREATE ? 8192 : 0;
    open.as.open.locks = flags & LK_CREATE ? LOCKS : 0;
    open.as.open.attachments_max = flags & LK_CREATE ? ATTACHMENTS : 0;
    raw->fd = hostile_greet(socket_path);
    int r = hostile_call(raw->fd, &open, &reply);
    test_check(r == 0 && reply.fd_count == 2, "open %s: %d", name, r);
    raw->segment = reply.message.as.opened.segment;
    raw->area_bytes = reply.message.as.opened.area_bytes;
    raw->area_fd = reply.fds[0];
    raw->data_fd = reply.fds[1];
}

static void raw_close(struct raw *raw)
{
    close(raw->area_fd);
    close(raw->data_fd);
    close(raw->fd);
}

static void *raw_map(const struct raw *raw, int protection)
{
    void *base = mmap(NULL, raw->area_bytes, protection, MAP_SHARED, raw->area_fd, 0);
    test_check(base != MAP_FAILED, "map the control area");
    return base;
}

/* Has the broker look at everything that it may look at. */
static void ask_everything(const struct raw *raw, uint64_t *id, struct test_random *random)
{
    uint32_t lock = (uint32_t)test_random_below(random, LOCKS);
    struct hostile_reply reply;
    struct lki_message requests[] = {
        hostile_list(0, LKI_LIST_LOCKS),
        hostile_list(0, LKI_LIST_GRAPH),
        {.type = LKI_REQUEST_HOLDER, .as.lock_ref = {raw->segment, lock}},
        {.type = LKI_REQUEST_DEADLOCK_CHECK, .as.lock_ref = {raw->segment, lock}},
        {.type = LKI_REQUEST_LOCK_NAMED,
         .as.lock_named = {raw->segment, {(const uint8_t *)"any", 3}}},
        {.type = LKI_REQUEST_GROW,
         .as.grow = {raw->segment, 8192 + 4096 * test_random_below(random, 14)}},
        {.type = LKI_REQUEST_ACQUIRE,
         .as.acquire = {.segment = raw->segment,
                        .lock = lock,
                        .mode = 1 + (uint32_t)test_random_below(random, 2),
                        .asynchronous = true,
                        .deadline_ns = lki_clock_now_ns() + LKI_NS_PER_MS}},
    };
    struct lki_message hints[] = {
        {.type = LKI_REQUEST_NUDGE, .as.segment_ref = {raw->segment}},
        {.type = LKI_REQUEST_ASK,
         .as.ask = {raw->segment, lock, (uint32_t)test_random_next(random),
                    test_random_next(random)}},
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(hints); i++) {
        hints[i].id = ++*id;
        test_check(hostile_send(raw->fd, &hints[i]) == 0, "send");
    }
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(requests); i++) {
        requests[i].id = ++*id;
        int r = hostile_call(raw->fd, &requests[i], &reply);
        test_check(r >= 0, "%s is not answered: %d", lki_message_type_name(requests[i].type), r);
        if (reply.message.type != LKI_REPLY_GRANTED)
            continue;
        struct lki_message release = {
            .type = LKI_REQUEST_RELEASE,
            .id = ++*id,
            .as.hold_ref = {.segment = raw->segment,
                            .lock = lock,
                            .attachment = reply.message.as.granted.attachment},
        };
        test_check(hostile_call(raw->fd, &release, &reply) >= 0, "a release is not answered");
    }
}

/* --- A17 --- */

static void refuse_changes(int fd, const char *what)
{
    test_check(ftruncate(fd, 0) < 0 && errno == EPERM, "%s can be cut", what);
    test_check(ftruncate(fd, INT64_C(1) << 30) < 0 && errno == EPERM, "%s can be stretched", what);
    test_check(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 && errno == EPERM,
               "%s can be sealed", what);
    test_check(fchmod(fd, 0666) < 0 && errno == EPERM, "%s can be opened to others", what);
}

static void attack_a17(const struct hostile_context *context)
{
    struct test_random random = {.state = context->seed};
    for (int i = 0; i < 20; i++) {
        struct raw raw;
        uint64_t id = 2;
        char name[32];
        snprintf(name, sizeof(name), "punched-%d", i); /* the old ones live as long as we do */
        raw_open(&raw, context->socket_path, name, LK_CREATE);
        refuse_changes(raw.area_fd, "the control area");
        refuse_changes(raw.data_fd, "the data");
        /* This is allowed, as writing zeros is: all words, counts and the header are gone. */
        test_check(fallocate(raw.area_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                             (off_t)raw.area_bytes) == 0,
                   "punch");
        ask_everything(&raw, &id, &random);
        struct lki_message open = hostile_open(1000, name, 0, 0);
        struct hostile_reply reply;
        int fd = hostile_greet(context->socket_path);
        test_check(hostile_call(fd, &open, &reply) >= 0, "a second one is not answered");
        hostile_reply_close(&reply);
        close(fd);
        raw_close(&raw);
    }
}

/* --- A18 --- */

static void refuse_writing(int fd, const char *what)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    test_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES, "%s can be reopened", what);
    test_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED &&
                   errno == EACCES,
               "%s can be mapped for writing", what);
    test_check(pwrite(fd, "!", 1, 0) < 0 && errno == EBADF, "%s can be written", what);
}

static void attack_a18(const struct hostile_context *context)
{
    struct raw raw;
    char path[64];
    raw_open(&raw, context->socket_path, HOSTILE_SHOWN, LK_READ_ONLY);
    refuse_writing(raw.area_fd, "the control area of a reader");
    refuse_writing(raw.data_fd, "the data of a reader");
    raw_close(&raw);
    raw_open(&raw, context->socket_path, HOSTILE_STRICT, 0);
    refuse_writing(raw.area_fd, "the control area of a strict segment");
    raw_close(&raw);
    snprintf(path, sizeof(path), "/proc/%d/fd/0", (int)context->broker_pid);
    test_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES, "the broker's descriptors");
}

/* --- A19, A20, A30: somebody writes into the area while everybody works with it --- */

static const struct hostile_context *target;

static const char *canvas = "canvas";

static void scribble_once(const struct lki_area *area, struct test_random *random)
{
    uint64_t value = test_random_next(random);
    struct lki_lock_hot *hot = &area->hot[test_random_below(random, area->locks)];
    struct lki_attachment *slot =
        &area->attachments[1 + test_random_below(random, area->attachments_max)];
    switch (test_random_below(random, 10)) {
    case 0: /* anything anywhere, the header too */
        ((_Atomic uint64_t *)(void *)
             area->header)[test_random_below(random, area->area_bytes / sizeof(uint64_t))] = value;
        break;
    case 1:
        hot->word = (uint32_t)value;
        break;
    case 2: /* somebody else owns it */
        hot->word = slot->id;
        break;
    case 3: /* waiters, readers, damage: all bits of the kind */
        hot->word |= LKI_PARKED | LKI_FAIR | LKI_READ | (value & 1 ? LKI_DIED | LKI_BIASED : 0);
        break;
    case 4: /* the token goes back */
        hot->sequence = value & 1 ? 0 : UINT64_MAX;
        break;
    case 5:
        hot->word = UINT32_MAX;
        break;
    case 6:
        slot->wait = value & 1 ? value : UINT64_MAX;
        break;
    case 7:
        slot->cells[value % LKI_SHARED_HOLDS_MAX] = (uint32_t)(value >> 32);
        break;
    case 8:
        slot->id = (uint32_t)value;
        slot->flags = (uint32_t)(value >> 32);
        break;
    case 9:
        area->cold[test_random_below(random, area->locks)].name_bytes = (uint32_t)value;
        break;
    }
}

static void scribble(const struct lki_area *area, uint64_t seed)
{
    struct test_random random = {.state = seed};
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    while (lki_clock_now_ns() < end_ns) {
        for (int i = 0; i < 100; i++)
            scribble_once(area, &random);
        /* Much of the time things may look right, so that work gets to the point again. */
        if (test_random_below(&random, 4) == 0)
            memset(area->hot, 0, area->locks * sizeof(*area->hot));
        test_sleep_ns(50 * LKI_NS_PER_US);
    }
}

/* Two values in turn, as fast as can be, in words that are looked at more than once. */
static void flip(const struct lki_area *area, uint64_t seed)
{
    struct test_random random = {.state = seed};
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    while (lki_clock_now_ns() < end_ns) {
        struct lki_lock_hot *hot = &area->hot[test_random_below(&random, 4)];
        struct lki_attachment *slot = &area->attachments[1 + test_random_below(&random, 8)];
        struct lki_lock_cold *cold = &area->cold[test_random_below(&random, 4)];
        uint32_t used = area->header->attachments_used;
        uint32_t id = slot->id;
        uint64_t fact = LKI_WAIT_QUEUED | UINT64_C(2) << LKI_WAIT_MODE_SHIFT;
        for (int i = 0; i < 2000; i++) {
            bool odd = i & 1;
            area->header->attachments_used = odd ? UINT32_MAX : used;
            area->header->locks = odd ? UINT32_MAX : area->locks;
            area->header->data_bytes = odd ? UINT64_MAX : 8192;
            hot->word = odd ? id : UINT32_MAX;
            slot->wait = fact | (odd ? LKI_WAIT_LOCK_MASK << LKI_WAIT_LOCK_SHIFT : 0);
            slot->cells[0] = odd ? UINT32_MAX : 1;
            slot->flags ^= LKI_ATTACHMENT_BROKERED;
            cold->name_bytes = odd ? UINT32_MAX : 3;
            cold->recovery_command[i % 32] = 'x';
        }
        area->header->attachments_used = used;
        test_sleep_ns(20 * LKI_NS_PER_US);
    }
}

static int ask_for_ever(void *arg)
{
    struct raw raw;
    struct test_random random = {.state = target->seed + 1};
    uint64_t id = 2;
    (void)arg;
    raw_open(&raw, target->socket_path, canvas, 0);
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    while (lki_clock_now_ns() < end_ns)
        ask_everything(&raw, &id, &random);
    return 0;
}

static int be_victim(void *arg)
{
    victim_work(target->socket_path, canvas, target->seed + (uint64_t)(uintptr_t)arg,
                lki_clock_now_ns() + SCRIBBLE_NS);
    return 0;
}

/* Holds and waits until it is killed. */
static int be_killed(void *arg)
{
    victim_work(target->socket_path, canvas, (uint64_t)(uintptr_t)arg, LKI_TIME_NEVER);
    return 0;
}

static int kill_often(void *arg)
{
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    (void)arg;
    for (uintptr_t i = 0; lki_clock_now_ns() < end_ns; i++) {
        pid_t pid = test_spawn(be_killed, (void *)i);
        test_sleep_ns(5 * LKI_NS_PER_MS);
        test_kill(pid);
    }
    return 0;
}

static void work_beside(const struct hostile_context *context,
                        void (*spoil)(const struct lki_area *area, uint64_t seed))
{
    struct raw raw;
    struct lki_area area;
    pid_t pids[4];
    target = context;
    raw_open(&raw, context->socket_path, canvas, LK_CREATE);
    void *base = raw_map(&raw, PROT_READ | PROT_WRITE);
    test_check(lki_area_view(base, raw.area_bytes, &area) == 0, "not a control area");
    pids[0] = test_spawn(ask_for_ever, NULL);
    pids[1] = test_spawn(kill_often, NULL);
    pids[2] = test_spawn(be_victim, (void *)1);
    pids[3] = test_spawn(be_victim, (void *)2);
    spoil(&area, context->seed);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(pids); i++)
        test_reap_success(pids[i]);
    hostile_hold(); /* whatever the words say now */
    munmap(base, raw.area_bytes);
    raw_close(&raw);
}

static void attack_a19(const struct hostile_context *context)
{
    work_beside(context, scribble);
}

static void attack_a20(const struct hostile_context *context)
{
    work_beside(context, flip);
}

/* --- A21 --- */

static _Atomic uint64_t *longest_ns;

/* Passes a lock of the prober's user to and fro, which has to wake somebody each time. */
static int pass_on(void *arg)
{
    struct test_client client;
    (void)arg;
    test_client_open(&client, target->socket_path, "shown", NULL);
    struct lk_lock *lock = test_lock(&client, 0);
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    while (lki_clock_now_ns() < end_ns) {
        uint64_t began_ns = lki_clock_now_ns();
        test_acquire(lock, LK_EXCLUSIVE);
        uint64_t took_ns = lki_clock_now_ns() - began_ns;
        if (took_ns > *longest_ns) /* while holding it: nobody else writes */
            *longest_ns = took_ns;
        test_sleep_ns(LKI_NS_PER_MS / 2);
        test_release(lock);
    }
    test_client_close(&client);
    return 0;
}

/* Sleeps where others sleep, and wakes them without reason, over a map that cannot be written. */
static int steal_wakes(void *arg)
{
    struct raw raw;
    struct lki_area area;
    struct test_random random = {.state = target->seed + (uint64_t)(uintptr_t)arg};
    const struct timespec nap = {.tv_nsec = 2000000};
    raw_open(&raw, target->socket_path, HOSTILE_SHOWN, LK_READ_ONLY);
    test_check(lki_area_view(raw_map(&raw, PROT_READ), raw.area_bytes, &area) == 0, "a view");
    uint64_t end_ns = lki_clock_now_ns() + SCRIBBLE_NS;
    while (lki_clock_now_ns() < end_ns) {
        _Atomic uint32_t *futex = &area.attachments[1 + test_random_below(&random, 8)].futex;
        if (test_random_below(&random, 8) == 0)
            syscall(SYS_futex, futex, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        else
            syscall(SYS_futex, futex, FUTEX_WAIT, *futex, &nap, NULL, 0);
    }
    return 0;
}

static void attack_a21(const struct hostile_context *context)
{
    enum { EACH = 3 };
    pid_t pids[2 * EACH];
    target = context;
    longest_ns = test_shared(sizeof(*longest_ns));
    for (uintptr_t i = 0; i < EACH; i++) {
        pids[i] = hostile_spawn_as(HOSTILE_PROBER_UID, pass_on, NULL);
        pids[EACH + i] = hostile_spawn_as(HOSTILE_ATTACKER_UID, steal_wakes, (void *)i);
    }
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(pids); i++)
        test_reap_success(pids[i]);
    printf("     longest wait beside the thieves: %.1f ms (promised: a nap of 250 ms)\n",
           (double)*longest_ns / (double)LKI_NS_PER_MS);
    test_check(*longest_ns < 2 * LKI_NS_PER_S, "a wake was lost");
}

/* --- A30 --- */

static void attack_a30(const struct hostile_context *context)
{
    target = context;
    for (uint64_t round = 0; round < 2; round++) {
        struct raw raw;
        struct lki_area area;
        pid_t victims[2];
        canvas = round ? "canvas-1" : "canvas-0";
        raw_open(&raw, context->socket_path, canvas, LK_CREATE);
        void *base = raw_map(&raw, PROT_READ | PROT_WRITE);
        test_check(lki_area_view(base, raw.area_bytes, &area) == 0, "not a control area");
        for (uintptr_t i = 0; i < 2; i++)
            victims[i] = test_spawn(be_victim, (void *)(i + 3));
        (round ? flip : scribble)(&area, context->seed + round);
        for (size_t i = 0; i < 2; i++)
            test_reap_success(victims[i]);
        munmap(base, raw.area_bytes);
        raw_close(&raw);
    }
}

static const struct hostile_row rows[] = {
    {.id = "A17", .title = "cutting, sealing and punching the memory", .attack = attack_a17},
    {.id = "A18", .title = "writing where one may only read", .attack = attack_a18},
    {.id = "A19", .title = "scribbles over the control area", .attack = attack_a19},
    {.id = "A20", .title = "words that change between two looks", .attack = attack_a20},
    {.id = "A21",
     .title = "wakes stolen by a reader",
     .attack = attack_a21,
     .flags = HOSTILE_AS_ROOT},
    {.id = "A30", .title = "a control area that leads the library astray", .attack = attack_a30},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
