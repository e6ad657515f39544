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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/core/ledger.h"
#include "broker/core/resource.h"
#include "broker/io/worker.h"

struct lkd_keeper_service {
    /* The worker's main function, in a process of its own. Returns its exit code. */
    int (*work)(const struct lkd_worker_start *start, void *user);
    /* The rest in the keeper. A worker listens: once for each worker. */
    void (*serving)(void *user);
    /* Its loop turns. */
    void (*alive)(void *user);
    /* Segments may have come or gone. False: call it again after a while. */
    bool (*segments)(const struct lkd_ledger *ledger, int ledger_fd, void *user);
    /* Asked to upgrade: whether the program that is installed can go on from here. */
    bool (*can_upgrade)(void *user);
    /* Becomes it. No worker runs. Returns on failure only, with -errno. */
    int (*upgrade)(int ledger_fd, void *user);
    /* Called once: gives up the path, the listening socket and the lock. token_epoch_s: the last
     * that a worker has used. */
    void (*close)(uint64_t token_epoch_s, void *user);
    void *user;
};

/* Holds back the signals that lkd_keeper_run() handles, until it does: by default one that comes
 * meanwhile would end a daemon that listens already, and leave its path behind. */
void lkd_keeper_hold_signals(void);

/**
 * Runs workers until one ends by itself, which is the end of the service, or until SIGTERM, SIGINT
 * or SIGHUP, which it hands on. SIGUSR2 asks for an upgrade.
 * @limits:  of the ledger
 * @ledger_fd: of a keeper whose place this one has taken; -1: there is none, and a new one is made
 * @kept:    descriptors that every worker finds and none may close; borrowed
 * Returns:  the exit code: that of the worker that ended by itself; 0 if it ended by a signal that
 *           was handed on to it; EX_OSERR
 */
int lkd_keeper_run(const struct lkd_limits *limits, int ledger_fd, const int *kept,
                   size_t kept_count, const struct lkd_keeper_service *service);
