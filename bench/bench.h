/* SPDX-License-Identifier: MIT */
/* The parts of lockkeeper-bench. Each measures one group of figures into it, series by series in
 * turn, so that whatever the machine does meanwhile does it to all of them. Failures that are not
 * figures end the program with a message. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <lockkeeper/lockkeeper.h>

#include "bench/figure.h"

struct bench {
    unsigned rounds;
    unsigned pairs; /* per sample */
    unsigned opens;
    unsigned crowd; /* attachments of the crowded segment */
    char directory[32];
    char socket_path[48];
    pid_t daemon;
};

/* Ends with a message. */
void bench_fail(const char *format, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

/* A broker of its own, in a directory of its own; both go when the program ends, whatever way. */
void bench_daemon_start(struct bench *bench);
void bench_daemon_stop(struct bench *bench);

/* What everybody opens: session, segment of one page, lock 0. */
struct lk_session *bench_connect(const struct bench *bench);
struct lk_segment *bench_segment(struct lk_session *session, const char *name,
                                 uint32_t attachments);
struct lk_lock *bench_lock(struct lk_segment *segment);

/* Lock and unlock without contention, against the mutexes of the C library. */
void bench_pairs(const struct bench *bench, struct bench_group *group);

/* The exclusive pair, alone and among many attachments. */
void bench_crowd(const struct bench *bench, struct bench_group *group);

/* From nothing to the first byte of a mapped segment, in a new process, against a server that does
 * nothing but hand out two descriptors. */
void bench_open(const struct bench *bench, struct bench_group *group);

/* The new process of bench_open(): `lockkeeper-bench --child KIND SOCKET`. Returns the exit code.
 */
int bench_open_child(const char *kind, const char *socket_path);

/* The bare server, and its client. */
pid_t bench_bare_start(const char *socket_path);
int bench_bare_open(const char *socket_path, unsigned char *out_first_byte);
