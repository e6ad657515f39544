/* SPDX-License-Identifier: MIT */
/* The stage on which one thing at a time fails: a daemon and a requester with the interposer inside,
 * an innocent client beside, and the driver, which looks at all of them before and after. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/faults/control.h"
#include "tests/faults/innocent.h"
#include "tests/support/broker.h"

enum stage_side { STAGE_CLIENT, STAGE_BROKER, STAGE_SIDES };

struct stage_fault {
    enum stage_side side;
    enum faults_role role;
    enum faults_call call; /* FAULTS_CALLS: nothing fails */
    uint32_t site;
    int error;
    uint64_t nth;
    uint64_t times;
    bool takeover; /* the worker is killed, and only its successor's beginning is to fail */
};

/* What one process of the story leaves to be read by the driver. */
struct stage_outcome {
    _Atomic uint32_t step;     /* which it is at */
    _Atomic uint32_t progress; /* changes with each step and turn */
    _Atomic uint32_t kill;     /* asks the driver to kill the worker; 0 when that is done */
    _Atomic uint32_t done;
    int result;           /* of the step that failed first; 0: none did */
    uint32_t failed_step; /* which */
    bool restarted;       /* the repetition needed new sessions */
    char violation[600];  /* empty: all was well */
};

struct stage_totals {
    uint64_t faults;    /* that fired */
    uint64_t missed;    /* never came to their call */
    uint64_t invisible; /* no step failed */
    uint64_t refused;   /* the step failed, and succeeded when it was repeated */
    uint64_t lost;      /* it did so in new sessions */
    uint64_t replaced;  /* a worker ended itself over it, and its successor took over */
    uint64_t violations;
};

/* What the daemon has when nobody wants anything of it. */
struct stage_rest {
    unsigned descriptors;
    int64_t blocks; /* the worker's */
    char listed[4096];
};

struct stage {
    struct test_broker broker;
    struct innocent innocent;
    struct faults_control *control[STAGE_SIDES];
    struct stage_outcome *outcome;
    struct stage_totals totals;
    int file_fd;
    char socket_path[64];
    struct stage_rest rest;
    pid_t worker;
    uint64_t serial; /* of stories */
    uint64_t calls[STAGE_SIDES]
                  [FAULTS_SITES_MAX]; /* that the last fault's story made from each site */
    bool verbose;
    const char *what; /* of the fault at hand, for messages */
};

/* client: this process's own block, which its children use too. */
void stage_open(struct stage *stage, struct faults_control *client);
void stage_close(struct stage *stage);

/* Tells the story once under this fault, and looks at everything. Prints what is wrong. Returns
 * whether the fault fired. */
bool stage_try(struct stage *stage, const struct stage_fault *fault);

/* A block for a program that is started next, and the environment for it. NULL: no interposer. */
struct faults_control *stage_new_control(char *out_path, size_t bytes);
struct faults_control *stage_map_control(int fd);
void stage_set_environment(const char *control_path);

/* "worker: recvmsg at receive_record (channel.c:167), call 3: ENOMEM", to stdout and for logs. */
void stage_describe(const struct stage *stage, const struct stage_fault *fault, char *out,
                    size_t bytes);
