/* SPDX-License-Identifier: MIT */
/* Ends a worker whose loop hangs: a turn that lasts longer than any turn may. The keeper then starts
 * another one, and two that hang over the same session or segment in a row convict it.
 *
 * A POSIX timer of this process looks from a signal handler, so it works whatever the loop is stuck
 * in. It is armed by the first turn after a pause and disarmed by itself when it finds the loop
 * asleep: an idle broker is not woken. One per process. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

struct lkd_watchdog {
    uv_prepare_t prepare; /* before the loop sleeps */
    uv_check_t check;     /* when it has slept */
    bool open;
};

#define LKD_WATCHDOG_NS UINT64_C(5000000000) /* a turn is stuck after one to two of these */

/* Starts looking at the loop. Returns 0, or what timer_create(2) says. */
int lkd_watchdog_open(struct lkd_watchdog *watchdog, uv_loop_t *loop, uint64_t interval_ns);

/* Closes its handles and its timer. Twice is once. */
void lkd_watchdog_close(struct lkd_watchdog *watchdog);
