/* SPDX-License-Identifier: MIT */
/* What a worker may still do once it listens to strangers: speak over descriptors that it has, make
 * memory, and read /proc. It can neither open other files, nor make sockets, nor signal or trace
 * processes, nor execute programs. What needs more is asked of the keeper (broker/io/worker.h). */
#pragma once

#include <stdbool.h>

enum lkd_sandbox_part { /* what is in force, as bits */
                        LKD_SANDBOX_NO_NEW_PRIVILEGES = 1,
                        LKD_SANDBOX_NO_CAPABILITIES = 2,
                        LKD_SANDBOX_FILES = 4,        /* Landlock: nothing but reading /proc */
                        LKD_SANDBOX_SYSTEM_CALLS = 8, /* a seccomp filter */
};

/* Whether this build can be shut off: sanitizers and the counting of lines need what is forbidden.
 */
bool lkd_sandbox_is_possible(void);

/**
 * Shuts this process off, for good. Before it has threads. What the kernel does not have is left
 * out: Landlock needs 5.13 and to be enabled.
 * Returns the parts in force, or -errno: something that the kernel has could not be put in force.
 */
int lkd_sandbox_enter(void);
