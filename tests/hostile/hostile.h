/* SPDX-License-Identifier: MIT */
/* One attack of the threat model (docs/security.md) on a real broker, with an innocent beside it.
 *
 * The broker runs under a user of its own, as a system's broker does. A prober of another user
 * works all the time: connects, opens, locks natively and through the broker, creates and removes.
 * A third user attacks. Afterwards the broker has to be the same process, the prober must never
 * have failed, descriptors, sessions and segments have to be what they were before, and the broker
 * has to sleep. All that is checked for every row; a row adds what is special about it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HOSTILE_BROKER_UID 20000u
#define HOSTILE_PROBER_UID 20001u
#define HOSTILE_ATTACKER_UID 20002u

/* Segments of the prober. */
#define HOSTILE_SHOWN "~20001/shown"     /* mode 0644: others may read it */
#define HOSTILE_MEETING "~20001/meeting" /* mode 0666: others may write it */
#define HOSTILE_STRICT "~20001/strict"   /* mode 0666, strict */

struct hostile_context {
    const char *socket_path;
    const char *directory;
    const char *log_path;
    pid_t broker_pid;
    uint64_t seed;
};

enum hostile_flags {
    HOSTILE_AS_ROOT = 1 << 0,   /* the attack starts as root, and becomes others by itself */
    HOSTILE_AS_BROKER = 1 << 1, /* as the broker's own user: it alone may offer files */
    HOSTILE_SLOW = 1 << 2,      /* the row does not promise 50 ms */
    HOSTILE_RESTARTS = 1 << 3,  /* the attack, as root, ends the worker */
};

struct hostile_row {
    const char *id;    /* "A7" */
    const char *title; /* also of what is promised, where there is no attack */
    void (*attack)(const struct hostile_context *context); /* in a process of its own; NULL: none */
    void (*verify)(const struct hostile_context *context); /* as root, afterwards; may be NULL */
    unsigned flags;                                        /* enum hostile_flags */
    const char *broker_arguments[4];
    uint64_t broker_files_max; /* RLIMIT_NOFILE; 0: as it is */
};

/* PROGRAM [--strict] [--seed N] [ROW...]: runs the rows, all without names. Aborts at the first
 * that fails; --strict makes 50 ms a condition. Returns the exit code; 77, skipped, without root. */
int hostile_main(int argc, char **argv, const struct hostile_row *rows, size_t count);

/* --- For attacks --- */

/* Becomes this user, with no other groups, for good. Ends with its parent. */
void hostile_become(uid_t uid);

/* Says that the attack does nothing any more and stays as it is; returns when the broker was seen to
 * sleep beside it. */
void hostile_hold(void);

/* Whether the broker's log has this text. For verify: nobody else may read it. */
bool hostile_log_has(const char *text);

/* Runs body in a child of that user, which starts as root: for attacks HOSTILE_AS_ROOT. */
pid_t hostile_spawn_as(uid_t uid, int (*body)(void *arg), void *arg);
