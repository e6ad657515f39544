/* SPDX-License-Identifier: MIT */
/* What a worker and the keeper that runs it have to say to each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a worker is told at its start. */
struct lkd_worker_start {
    void *ledger;    /* broker/core/ledger.h; shared with the keeper and with every other worker */
    bool faulty;     /* the worker before failed by itself */
    const int *kept; /* descriptors in the common table that are none of the worker's */
    size_t kept_count;
    int request_fd; /* to the keeper */
};

/* One datagram: send this signal to the process of this pidfd of the common table. */
struct lkd_signal_request {
    int32_t pidfd;
    int32_t signal;
};

/* Asks the keeper, who alone may. Never blocks; false: it could not be asked. */
bool lkd_worker_request_signal(const struct lkd_worker_start *start, int pidfd, int signal);
