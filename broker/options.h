/* SPDX-License-Identifier: MIT */
/* The command line of lockkeeperd. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/core/resource.h"
#include "broker/io/log.h"

struct lkd_options {
    const char *socket_path; /* NULL: the user's own place */
    mode_t mode;
    uint64_t idle_exit_s; /* 0: never */
    bool idle_exit_given;
    int ready_fd; /* -1: none */
    bool autostarted;
    bool no_peerpidfd;
    bool no_sandbox;
    bool upgrade;     /* ask a running broker to become what is installed */
    int resume_fd;    /* of an upgrade; -1: none */
    uint64_t accepts; /* 0: not asked */
    enum lkd_log_level log_level;
    struct lkd_limits limits;
    uint64_t grace_ms; /* 0: the default */
    uint64_t debugger_grace_ms;
};

/* Reads the arguments; prints what --help and --version ask for, and what is wrong.
 * Returns true to go on; false: exit with *out_exit_code. */
bool lkd_options_parse(int argc, char **argv, struct lkd_options *out_options, int *out_exit_code);
