/* SPDX-License-Identifier: MIT */
/* What a worker and the keeper that runs it have to say to each other. The worker is shut off from
 * nearly everything (broker/io/sandbox.h); the few things that need more it asks the keeper for, by
 * numbers of descriptors in their common table. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a worker is told at its start. */
struct lkd_worker_start {
    void *ledger;    /* broker/core/ledger.h; shared with the keeper and with every other worker */
    bool successor;  /* another one has served before */
    bool faulty;     /* the worker before failed by itself */
    const int *kept; /* descriptors in the common table that are none of the worker's */
    size_t kept_count;
    uint32_t number; /* of this worker, from 1, among those that its keeper has started */
    int request_fd;  /* to the keeper; what it answers at once, of the loop's thread */
    int reopened_fd; /* from the keeper: answers to READ_ONLY, of helper threads */
};

enum lkd_request_kind {                        /* stored as int32_t */
                        LKD_REQUEST_SIGNAL,    /* value to the process of the pidfd `fd`; comes back
                                                * with the result */
                        LKD_REQUEST_READ_ONLY, /* opens the file of `fd` anew, to be read only, if
                                                * it is asked by the present worker, and before the
                                                * deadline; comes back on the other socket, the
                                                * result being its number */
                        LKD_REQUEST_SERVING,   /* it listens */
                        LKD_REQUEST_ALIVE,     /* its loop turns */
                        LKD_REQUEST_SEGMENTS,  /* some came or went */
                        LKD_REQUEST_CLOSE,     /* gives up socket and lock: the service ends */
};

struct lkd_request { /* one datagram */
    int32_t kind;
    int32_t fd;
    int32_t value;
    int32_t result;
    uint32_t worker;      /* READ_ONLY: who asks, and */
    uint32_t number;      /* which request of its this is */
    uint64_t deadline_ns; /* READ_ONLY: nobody waits any longer */
    uint64_t process;     /* SIGNAL: the worker's number for it, to know it by */
};

/* SERVING, ALIVE, SEGMENTS, or CLOSE: from there on nobody finds us, and another daemon may take the path. */
bool lkd_worker_tell(const struct lkd_worker_start *start, enum lkd_request_kind kind);

/* None of these blocks but the last. False: the keeper could not be asked. */
bool lkd_worker_request_signal(const struct lkd_worker_start *start, int pidfd, int signal,
                               uint64_t process);

/* Takes what the keeper sent back; false: nothing yet. */
bool lkd_worker_answer(const struct lkd_worker_start *start, struct lkd_request *out_request);

/* A descriptor of the same file that cannot write, or -errno: also -ETIMEDOUT, after 5 s. For helper
 * threads, one at a time: opening may take a file system long. */
int lkd_worker_reopen_read_only(const struct lkd_worker_start *start, int fd);
