/* SPDX-License-Identifier: MIT */
/* Looking at processes from outside, through /proc. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The state letter of /proc/PID/stat ('R', 'S', 'T', 'Z', ...), or 0 when there is no such process.
 */
char test_process_state(pid_t pid);

/* Context switches of all its tasks so far, voluntary or not: each wake-up of a sleeping task
 * counts. */
uint64_t test_process_switches(pid_t pid);

/* What of its memory is in RAM, in KiB (VmRSS). */
uint64_t test_process_resident_kib(pid_t pid);

/* Processor time so far, of all its threads, in ticks of sysconf(_SC_CLK_TCK). */
uint64_t test_process_ticks(pid_t pid);

/* How many descriptors it has open. */
unsigned test_process_descriptors(pid_t pid);

/* Lists them on stderr, for the report of a failure. */
void test_process_show_descriptors(pid_t pid);

/* One line for a message: state and what it waits for. */
void test_process_describe(pid_t pid, char *out, size_t size);

/* Of each task of a process and of all its children, on stderr, for the report of a hang: its state, who
 * traces it, which signals are pending, and where it waits in the kernel. */
void test_process_show_tree(pid_t pid);

/* The load average of the last minute: belongs beside every measured figure. */
double test_load_average(void);
