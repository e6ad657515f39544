/* SPDX-License-Identifier: MIT */
#include "broker/io/watchdog.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* For the handler, which gets no argument of ours. Written by the loop's thread and read by the
 * handler, in whichever thread that runs: relaxed, since each is a fact of its own. */
static struct {
    timer_t timer;
    struct itimerspec interval;
    _Atomic uint32_t turns;
    _Atomic uint32_t turns_seen;
    _Atomic bool in_turn;
    _Atomic bool armed;
} state;

static void arm(void)
{
    (void)timer_settime(state.timer, 0, &state.interval, NULL);
}

/* The timer has run out: either the loop sleeps, or it is in another turn than last time, or it
 * hangs. */
static void on_timer(int number)
{
    static const char words[] = "lockkeeperd: the worker's loop hangs: it is ended\n";
    int saved = errno;
    (void)number;
    uint32_t turns = atomic_load_explicit(&state.turns, memory_order_relaxed);
    if (!atomic_load_explicit(&state.in_turn, memory_order_relaxed)) {
        atomic_store_explicit(&state.armed, false, memory_order_relaxed);
    } else if (turns == atomic_load_explicit(&state.turns_seen, memory_order_relaxed)) {
        (void)!write(STDERR_FILENO, words, sizeof(words) - 1);
        abort();
    } else {
        atomic_store_explicit(&state.turns_seen, turns, memory_order_relaxed);
        arm();
    }
    errno = saved;
}

static void on_asleep(uv_prepare_t *handle)
{
    (void)handle;
    atomic_store_explicit(&state.in_turn, false, memory_order_relaxed);
}

static void on_awake(uv_check_t *handle)
{
    (void)handle;
    atomic_fetch_add_explicit(&state.turns, 1, memory_order_relaxed);
    atomic_store_explicit(&state.in_turn, true, memory_order_relaxed);
    if (!atomic_exchange_explicit(&state.armed, true, memory_order_relaxed))
        arm();
}

int lkd_watchdog_open(struct lkd_watchdog *watchdog, uv_loop_t *loop, uint64_t interval_ns)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    memset(&state, 0, sizeof(state));
    state.interval.it_value = (struct timespec){.tv_sec = (time_t)(interval_ns / 1000000000),
                                                .tv_nsec = (long)(interval_ns % 1000000000)};
    if (sigaction(SIGALRM, &action, NULL) < 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &state.timer) < 0)
        return -errno;
    watchdog->open = true;
    /* What comes before the loop sleeps for the first time is a turn as well. */
    on_awake(&watchdog->check);
    /* None of these can fail. What they do alone keeps no loop running. */
    (void)uv_prepare_init(loop, &watchdog->prepare);
    (void)uv_check_init(loop, &watchdog->check);
    (void)uv_prepare_start(&watchdog->prepare, on_asleep);
    (void)uv_check_start(&watchdog->check, on_awake);
    uv_unref((uv_handle_t *)&watchdog->prepare);
    uv_unref((uv_handle_t *)&watchdog->check);
    return 0;
}

void lkd_watchdog_close(struct lkd_watchdog *watchdog)
{
    if (!watchdog->open)
        return;
    watchdog->open = false;
    (void)timer_delete(state.timer);
    (void)signal(SIGALRM, SIG_IGN);
    uv_close((uv_handle_t *)&watchdog->prepare, NULL);
    uv_close((uv_handle_t *)&watchdog->check, NULL);
}
