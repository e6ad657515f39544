/* SPDX-License-Identifier: MIT */
#include "tests/hostile/victim.h"

#include <errno.h>

#include "common/clock.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

#define WAIT_NS (2 * LKI_NS_PER_MS)

struct victim {
    struct lk_session *session;
    struct lk_segment *segment;
    struct test_random random;
};

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    (void)user;
    if (result >= 0)
        (void)lk_lock_release(lock);
}

static void use_lock(struct victim *victim)
{
    struct lk_lock *lock = NULL;
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    struct lk_holder holder = {.size = sizeof(holder)};
    uint64_t version;
    if (lk_lock_at(victim->segment, (uint32_t)test_random_below(&victim->random, 64), &lock) < 0)
        return;
    enum lk_mode mode = test_random_below(&victim->random, 2) ? LK_SHARED : LK_EXCLUSIVE;
    int r = lk_lock_acquire(lock, mode, test_random_below(&victim->random, 2) ? 0 : WAIT_NS);
    if (r >= 0) {
        (void)lk_lock_declare(lock, 0, 100);
        (void)lk_lock_mark_consistent(lock);
        (void)lk_lock_token(lock);
        (void)lk_lock_release(lock);
    }
    (void)lk_lock_recovery(lock, &recovery);
    (void)lk_lock_holder(lock, &holder);
    if (lk_read_begin(lock, &version) == 0)
        (void)lk_read_valid(lock, version);
    if (test_random_below(&victim->random, 4) == 0 &&
        lk_lock_acquire_async(lock, mode, WAIT_NS, on_acquired, NULL) == 0) {
        (void)lk_session_dispatch(victim->session);
        (void)lk_lock_cancel(lock);
        (void)lk_session_dispatch(victim->session);
    }
    lk_lock_close(lock);
}

static void use_data(struct victim *victim)
{
    struct lk_lock *lock = NULL;
    void *address = NULL;
    uint64_t bytes = lk_segment_size(victim->segment);
    if (lk_segment_map(victim->segment, 0, 0, &address) == 0) {
        /* What was mapped is there, whatever the size says meanwhile. */
        ((volatile unsigned char *)address)[0] = 1;
        lk_segment_unmap(victim->segment, address);
    }
    if (bytes > 4096 && lk_segment_map(victim->segment, bytes - 4096, 4096, &address) == 0) {
        ((volatile unsigned char *)address)[4095] = 1;
        lk_segment_unmap(victim->segment, address);
    }
    (void)lk_segment_grow(victim->segment, 8192 + 4096 * test_random_below(&victim->random, 14));
    if (lk_lock_named(victim->segment, "any", &lock) == 0)
        lk_lock_close(lock);
}

/* A session for some dozens of rounds: opening meets a spoilt area as well. */
static void work_once(struct victim *victim, const char *name, uint64_t end_ns)
{
    if (lk_segment_open(victim->session, name, NULL, &victim->segment) < 0)
        return;
    for (int i = 0; i < 30 && lki_clock_now_ns() < end_ns; i++) {
        use_lock(victim);
        if (i % 8 == 0)
            use_data(victim);
    }
    lk_segment_close(victim->segment);
}

void victim_work(const char *socket_path, const char *name, uint64_t seed, uint64_t end_ns)
{
    struct victim victim = {.random = {.state = seed}};
    while (lki_clock_now_ns() < end_ns) {
        victim.session = test_session(socket_path);
        work_once(&victim, name, end_ns);
        victim.session = lk_session_close(victim.session);
    }
}
