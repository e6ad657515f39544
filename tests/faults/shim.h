/* SPDX-License-Identifier: MIT */
/* Inside of the interposer: the decision whether a call is to fail, and the account of the heap.
 * Works in any process and thread, before main() and between clone and exec; allocates nothing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/faults/calls.h"

/* Counts a call from `caller`. Returns the error that it is to fail with, or 0. `blocks`: the call
 * may wait, so that it cannot say EAGAIN. */
int faults_ask(enum faults_call call, const void *caller, bool blocks);

/* For calls on any descriptor: also whether it is a regular file, which alone can say EIO and
 * ENOSPC, and whether it waits. */
int faults_ask_fd(enum faults_call call, const void *caller, int fd);

void faults_count_blocks(int change);

/* This process waits for events, or not any more. While helper threads work for it, it is not idle. */
void faults_note_idle(bool idle);

/* The loop's thread gives a helper thread something to do, or has heard that it is done. */
void faults_count_jobs(int change);

/* The next definition of a function behind ours. */
void *faults_next(const char *name);
