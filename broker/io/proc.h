/* SPDX-License-Identifier: MIT */
/* What /proc tells about a process. Reads only; every answer may be old when it returns. One
 * thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "broker/core/core.h"

/* When the process started, in ticks since boot. Errors: -ESRCH; -EPROTO (/proc looks different);
 * -EMFILE, -EACCES, ... */
int lkd_proc_start_time(int32_t pid, uint64_t *out_ticks);

/* Its command name, zero-terminated, as it is: may hold control bytes. Empty when not to be had. */
void lkd_proc_command(int32_t pid, char *out_command, size_t capacity_bytes);

/* How much of its memory is resident; 0 when that is not to be had. */
uint64_t lkd_proc_resident_bytes(int32_t pid);

enum lkd_proc_life {
    LKD_PROC_RUNS,    /* at least one task may run user instructions, or it cannot be told */
    LKD_PROC_EXITING, /* no task will ever run a user instruction again */
};

/* Looks at every task of the process. The answer EXITING is certain as long as pid still means the
 * same process after the call, which the caller checks with a pidfd. */
enum lkd_proc_life lkd_proc_life(int32_t pid);

/* What its tasks do: TRACED if a debugger has stopped one, UNINTERRUPTIBLE if one waits in the
 * kernel for something that no signal ends, STOPPED if all are stopped. RUNS where it cannot be
 * told, as of a process with very many tasks. */
enum lkd_process_state lkd_proc_state(int32_t pid);
