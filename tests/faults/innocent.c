/* SPDX-License-Identifier: MIT */
#include "tests/faults/innocent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "common/clock.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define ANSWER_NS (10 * LKI_NS_PER_S)

struct life {
    const struct innocent *self;
    const char *socket_path;
    struct lk_session *holder; /* holds the strict lock 0 while `waiter` waits for it */
    struct lk_session *waiter;
    struct lk_segment *strict, *strict_too, *native;
    struct lk_lock *held, *awaited, *brokered, *own;
    bool granted;
    int result;
    unsigned turns;
};

static int note(struct life *life, int result, const char *what)
{
    struct innocent_words *words = life->self->words;
    if (result < 0 && atomic_exchange(&words->failed, 1) == 0)
        (void)snprintf(words->what, sizeof(words->what), "turn %u: %s: %d, %s", life->turns, what,
                       result, lk_last_error());
    return result;
}

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct life *life = user;
    (void)lock;
    life->granted = true;
    life->result = result;
}

static int open_all(struct life *life)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_segment_options strict = test_options(4096, 4);
    struct lk_segment_options native = test_options(4096, 4);
    strict.flags |= LK_STRICT;
    strict.attachments_max = 6;
    native.attachments_max = 4;
    int r = lk_session_open(life->socket_path, &options, &life->holder);
    if (r >= 0)
        r = lk_session_open(life->socket_path, &options, &life->waiter);
    if (r >= 0)
        r = lk_segment_open(life->holder, "innocent-strict", &strict, &life->strict);
    if (r >= 0)
        r = lk_segment_open(life->waiter, "innocent-strict", NULL, &life->strict_too);
    if (r >= 0)
        r = lk_segment_open(life->holder, "innocent", &native, &life->native);
    if (r >= 0)
        r = lk_lock_at(life->strict, 0, &life->held);
    if (r >= 0)
        r = lk_lock_at(life->strict_too, 0, &life->awaited);
    if (r >= 0)
        r = lk_lock_at(life->strict, 1, &life->brokered);
    if (r >= 0)
        r = lk_lock_at(life->native, 0, &life->own);
    return note(life, r, "open everything");
}

/* The lock is held, and waited for. */
static int begin_wait(struct life *life)
{
    int r = lk_lock_acquire(life->held, LK_EXCLUSIVE, ANSWER_NS);
    if (r >= 0)
        r = lk_lock_acquire_async(life->awaited, LK_EXCLUSIVE, LK_WAIT_FOREVER, on_acquired, life);
    life->granted = false;
    return note(life, r, "hold, and wait for, a brokered lock");
}

/* ... and granted, when it is released, to who waited. */
static int end_wait(struct life *life)
{
    uint64_t deadline_ns = lki_clock_now_ns() + ANSWER_NS;
    int r = lk_session_dispatch(life->waiter);
    if (r >= 0 && life->granted)
        r = -EPROTO;
    note(life, r, "go on waiting");
    r = note(life, lk_lock_release(life->held), "release a brokered lock");
    while (r >= 0 && !life->granted) {
        int fd = lk_session_fd(life->waiter);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        (void)poll(&ready, 1, 100);
        r = lk_session_dispatch(life->waiter);
        if (lki_clock_now_ns() > deadline_ns)
            return note(life, -ETIME, "be granted what one waited for");
    }
    if (r >= 0)
        r = life->result;
    note(life, r, "be granted what one waited for");
    return note(life, lk_lock_release(life->awaited), "release what was granted");
}

static int use_locks(struct life *life)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    int r = note(life, lk_lock_holder(life->held, &holder), "ask for the holder");
    if (r >= 0 && holder.pid != getpid())
        note(life, -EPROTO, "be named as the holder");
    r = note(life, lk_lock_acquire(life->own, LK_EXCLUSIVE, 0), "lock natively");
    if (r >= 0)
        note(life, lk_lock_release(life->own), "unlock natively");
    r = note(life, lk_lock_acquire(life->brokered, LK_EXCLUSIVE, ANSWER_NS), "lock by broker");
    return r < 0 ? r : note(life, lk_lock_release(life->brokered), "unlock by broker");
}

static void come_anew(struct life *life)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    int r = note(life, lk_session_open(life->socket_path, &options, &session), "connect");
    if (r >= 0)
        r = note(life, lk_segment_open(session, "innocent", NULL, &segment), "open its segment");
    lk_session_close(session);
}

static void take_turn(struct life *life)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    life->turns++;
    use_locks(life);
    if (life->turns % 4 == 0)
        come_anew(life);
    if (life->turns % 24 == 0) {
        end_wait(life);
        begin_wait(life);
    }
    /* Whoever has asked for this turn relies on it: the answer comes behind all that was closed. */
    note(life, lk_lock_holder(life->held, &holder), "ask once more");
}

static __attribute__((noreturn)) int live(void *arg)
{
    struct life *life = arg;
    struct innocent_words *words = life->self->words;
    if (open_all(life) >= 0)
        begin_wait(life);
    test_event_post(life->self->answer);
    struct pollfd asked = {.fd = life->self->ask, .events = POLLIN};
    for (;;) {
        while (poll(&asked, 1, -1) != 1)
            continue;
        test_event_wait(life->self->ask);
        take_turn(life);
        atomic_store(&words->answered, atomic_load(&words->asked));
        test_event_post(life->self->answer);
    }
}

void innocent_start(struct innocent *innocent, const char *socket_path)
{
    struct life life = {.self = innocent, .socket_path = socket_path};
    innocent->words = test_shared(sizeof(*innocent->words));
    innocent->ask = test_event();
    innocent->answer = test_event();
    innocent->pid = test_spawn(live, &life);
    test_event_wait(innocent->answer);
}

void innocent_stop(struct innocent *innocent)
{
    test_kill(innocent->pid);
    (void)close(innocent->ask);
    (void)close(innocent->answer);
}

void innocent_take_turn(const struct innocent *innocent)
{
    (void)atomic_fetch_add(&innocent->words->asked, 1);
    test_event_post(innocent->ask);
    test_event_wait(innocent->answer);
}
