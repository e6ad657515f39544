/* SPDX-License-Identifier: MIT */
/* The command line of `lockkeeper run`: which locks, how to wait, what to execute. Reads no state
 * but the arguments and $SHELL. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"

struct lki_run_lock {
    char *label;           /* as the user wrote it, without :s or :x; owned */
    char *segment;         /* its part before '#'; owned */
    const char *lock_name; /* its part after '#', in segment; NULL: by index */
    uint32_t index;
    enum lk_mode mode;
    size_t place; /* on the command line, from 0 */
};

struct lki_run_options {
    struct lki_run_lock
        *locks; /* sorted by label, so that two runs never take them in opposite orders */
    size_t lock_count;
    uint64_t timeout_ns; /* for all locks together; 0: try once */
    int conflict_code;
    bool verbose;
    char **command; /* NULL-terminated; of argv, or shell_command */
    char *shell_command[4];
};

/* Returns -1 to carry on, else the exit code with which to end; it has complained then. Call
 * lki_run_options_deinit() in either case. */
int lki_run_options_parse(struct lki_cli *cli, int argc, char **argv,
                          struct lki_run_options *out_options);
void lki_run_options_deinit(struct lki_run_options *options);
