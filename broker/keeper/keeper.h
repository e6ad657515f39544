/* SPDX-License-Identifier: MIT */
/* The keeper: the process that people know as lockkeeperd. It owns the listening socket, PATH.lock
 * and the ledger, and runs the worker, which does everything else. When the worker dies it starts
 * another one, which finds all that it needs in the ledger, in the control areas, and in the table
 * of descriptors.
 *
 * That table is one for both (clone(2) with CLONE_FILES): what the worker opens stays open when it
 * dies, without a message that would have to be sent, and could be lost, for each descriptor. It is
 * also why the worker is a child that executes no other program: exec would take a copy of the
 * table. Memory is not shared but for the ledger.
 *
 * One thread; the worker is the only child. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "broker/core/resource.h"
#include "broker/io/worker.h"

/* The worker's main function, in a process of its own. Returns its exit code. */
typedef int (*lkd_worker_fn)(const struct lkd_worker_start *start, void *user);

/* Gives up the path: the listening socket and the lock. In the keeper. token_epoch_s: the last that
 * a worker has used. */
typedef void (*lkd_close_fn)(uint64_t token_epoch_s, void *user);

/**
 * Runs workers until one ends by itself, which is the end of the service, or until SIGTERM, SIGINT
 * or SIGHUP, which it hands on.
 * @limits:  of the ledger
 * @kept:    descriptors that every worker finds and none may close; borrowed
 * @close:   called once: nobody is to find the service any more
 * Returns:  the exit code: that of the worker that ended by itself; EX_OSERR
 */
int lkd_keeper_run(const struct lkd_limits *limits, const int *kept, size_t kept_count,
                   lkd_worker_fn worker, lkd_close_fn close, void *user);
