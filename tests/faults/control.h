/* SPDX-License-Identifier: MIT */
/* What the driver and the interposer share: one block of memory per observed program. The driver
 * writes the plan while nobody counts (`on` is 0); the interposer counts calls by call site, fails
 * the one that the plan names, and keeps an account of the heap. Plain facts, no pointers: the
 * block is mapped at different addresses.
 *
 * The two processes of the daemon share one block, and so does whatever the command line forks. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/faults/calls.h"

#define FAULTS_VARIABLE "LK_FAULTS" /* environment: where the block can be opened */
#define FAULTS_MAGIC 0x464c4b31u
#define FAULTS_SITES_MAX 1024u
#define FAULTS_ANY_SITE UINT32_MAX

/* Which process of a program: the one that loaded the interposer, or any that it cloned. For the
 * daemon: keeper and worker. */
enum faults_role { FAULTS_MAIN, FAULTS_CHILD, FAULTS_ROLES };

/* One place in the code from which one function is called, by one role. */
struct faults_site {
    _Atomic uint32_t ready; /* 0: free; 1: being filled; 2: valid */
    uint32_t call;          /* enum faults_call */
    uint32_t role;
    uint64_t address; /* in the process that was seen first */
    uint64_t offset;  /* in its module */
    char module[64];
    char symbol[32];        /* the exported function that it is in */
    _Atomic uint64_t count; /* calls since the driver set it to 0 */
};

struct faults_plan {
    _Atomic uint32_t call; /* FAULTS_CALLS: none */
    _Atomic uint32_t role;
    _Atomic uint32_t site; /* FAULTS_ANY_SITE: any */
    _Atomic uint32_t error;
    _Atomic uint64_t nth;     /* the first of the calls that match to fail, from 1 */
    _Atomic uint64_t times;   /* how many in a row fail */
    _Atomic uint64_t matched; /* so far */
    _Atomic uint64_t fired;
    _Atomic uint32_t fired_site;
};

struct faults_heap {
    _Atomic int32_t pid; /* whose account it is */
    _Atomic int64_t blocks;
};

struct faults_control {
    uint32_t magic;
    _Atomic uint32_t on;       /* calls are counted, and fail by the plan */
    _Atomic int32_t main_pid;  /* FAULTS_MAIN */
    _Atomic uint32_t children; /* others than main_pid are FAULTS_CHILD; else left alone */
    _Atomic uint32_t idle;  /* a child waits for events, and its helpers have nothing to do: it has
                                * done all that was asked */
    _Atomic uint32_t rests; /* how often it began to be idle */
    _Atomic uint32_t planted; /* faults on purpose, see plant.h */
    struct faults_plan plan;
    struct faults_heap heap[FAULTS_ROLES];
    _Atomic uint32_t sites_used;
    struct faults_site sites[FAULTS_SITES_MAX];
};

/* Mistakes that the interposer makes on purpose, so that the checks can be seen to fail. */
enum faults_planted {
    FAULTS_PLANT_NONE,
    FAULTS_PLANT_DESCRIPTOR, /* a descriptor stays open when the fault fires */
    FAULTS_PLANT_MEMORY,     /* a block is never freed */
    FAULTS_PLANT_CRASH,      /* the process aborts */
    FAULTS_PLANT_HANG,       /* the process sleeps for ever */
    FAULTS_PLANT_SPREAD,     /* the fault does not end with its call: every later send fails too */
};
