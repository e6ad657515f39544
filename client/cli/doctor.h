/* SPDX-License-Identifier: MIT */
/* What the parts of `lockkeeper doctor` share: one finding after the other, each with what was
 * found and what to do about it. Nothing is started, changed or locked. */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "client/cli/probe.h"

struct lki_cli;

enum lki_health {
    LKI_HEALTH_OK,
    LKI_HEALTH_WARNING, /* works, but not as it may be meant, or not for ever */
    LKI_HEALTH_PROBLEM, /* does not work */
};

struct lki_doctor {
    const struct lki_cli *cli;
    uint64_t patience_ns; /* a wait that lasts longer is worth a word */
    struct lki_places places;
    struct lki_probe probes[LKI_PLACES_MAX];
    const struct lki_probe *used;
    unsigned counts[3]; /* findings by health */
    json_t *findings;   /* --json: what is printed at the end */
};

/**
 * Tells one finding.
 * @check:  one word, which scripts may look for
 * @advice: what to do; NULL: nothing
 */
void lki_doctor_tell(struct lki_doctor *doctor, enum lki_health health, const char *check,
                     const char *advice, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The places: which broker is used, others, sockets without one. Fills doctor->used. */
void lki_doctor_look_at_places(struct lki_doctor *doctor);

/* The process behind the socket: whose it is, its namespace, its descriptors, its maps. */
void lki_doctor_look_at_broker(struct lki_doctor *doctor);

/* What it was told to allow beside what there is. files_max: that it may open; 0: not known. */
void lki_doctor_look_at_limits(struct lki_doctor *doctor, uint64_t files_max);

/* About how many files a broker has open with so many of both. */
uint64_t lki_doctor_files_for(uint64_t sessions, uint64_t segments);

/* This machine: kernel, memory, the program that would be started. */
void lki_doctor_look_at_system(struct lki_doctor *doctor);

/* Its locks: damage, rings, long waits. */
void lki_doctor_look_at_locks(struct lki_doctor *doctor);
