/* SPDX-License-Identifier: MIT */
/* The innocent beside an attack: a process that uses the broker in every way and remembers what
 * failed and how long the longest step took. One per program at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROBER_TEXT_BYTES 256

struct prober_report {
    uint64_t rounds;
    uint64_t failures;
    uint64_t worst_ns; /* p100 of a step */
    const char *worst_step;
    char first_failure[PROBER_TEXT_BYTES];
};

/* Starts it under this uid; it begins paused, with its lasting session and segments open. */
void prober_start(const char *socket_path, uid_t uid);

/* Lets it run; forgets what it has seen so far. */
void prober_run(void);

/* Returns when it has done at least this many rounds since prober_run(). */
void prober_await_rounds(uint64_t rounds);

/* Returns when it is between two rounds and does nothing; tells what it has seen. */
void prober_pause(struct prober_report *out_report);

/* Ends it. */
void prober_stop(void);
