/* SPDX-License-Identifier: MIT */
/* watchdog_probe
 *
 * A loop that works in many short turns goes on, one that sleeps for long goes on and is not woken,
 * and one that hangs in a turn is ended by SIGABRT. Each in a process of its own. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "broker/io/watchdog.h"

#define INTERVAL_NS UINT64_C(50000000)
#define SHORT_MS 5
#define LONG_MS 400 /* eight intervals */

static unsigned turns;

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void on_short_turn(uv_timer_t *timer)
{
    uint64_t began_ms = now_ms();
    while (now_ms() - began_ms < SHORT_MS)
        continue;
    if (++turns == LONG_MS / SHORT_MS)
        (void)uv_timer_stop(timer);
}

static void on_once(uv_timer_t *timer)
{
    (void)timer;
    turns++;
}

static void on_hang(uv_timer_t *timer)
{
    uint64_t began_ms = now_ms();
    (void)timer;
    while (now_ms() - began_ms < 20 * LONG_MS)
        continue;
}

/* Runs a loop with one timer under the watchdog. Returns 0 if it ended by itself. */
static int run(uv_timer_cb act, uint64_t after_ms, uint64_t repeat_ms)
{
    uv_loop_t loop;
    uv_timer_t timer;
    struct lkd_watchdog watchdog = {.open = false};
    if (uv_loop_init(&loop) < 0 || lkd_watchdog_open(&watchdog, &loop, INTERVAL_NS) < 0)
        return 2;
    (void)uv_timer_init(&loop, &timer);
    (void)uv_timer_start(&timer, act, after_ms, repeat_ms);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&timer, NULL);
    lkd_watchdog_close(&watchdog);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) == 0 && turns > 0 ? 0 : 3;
}

static bool expect(const char *what, uv_timer_cb act, uint64_t after_ms, uint64_t repeat_ms,
                   bool aborted)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(run(act, after_ms, repeat_ms));
    if (waitpid(pid, &status, 0) != pid)
        return false;
    bool right = aborted ? WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT
                         : WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!right)
        printf("a loop that %s ends with status %#x\n", what, (unsigned)status);
    return right;
}

int main(void)
{
    bool right = expect("works in short turns", on_short_turn, 1, 1, false);
    right = expect("sleeps", on_once, LONG_MS, 0, false) && right;
    right = expect("hangs", on_hang, 1, 0, true) && right;
    return right ? 0 : 1;
}
