/* SPDX-License-Identifier: MIT */
/* A broker of one's own: the daemon of this build on a socket in a new directory below /tmp, killed
 * by the kernel if the test ends without stopping it. One per process at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct test_broker {
    pid_t pid;
    char directory[40];   /* /tmp/lk-test-XXXXXX: what check_leftovers looks for */
    char socket_path[64]; /* in it */
    char log_path[64];    /* what the daemon wrote */
    bool restarts;        /* the test ends workers; else none may end by itself */
};

struct test_broker_options {
    const char *arguments[8]; /* beside --socket, NULL-terminated */
    uid_t uid;                /* becomes this user, its directory too; needs root. 0: stays */
    uint64_t files_max;       /* RLIMIT_NOFILE, soft and hard; 0: as it is */
};

/* Returns when it answers. Aborts if it does not within 10 s. */
void test_broker_start(struct test_broker *broker);

/* Whether the log has this text by now; and waits until it has (30 s, then aborts). */
bool test_broker_logged(const struct test_broker *broker, const char *text);
void test_broker_await_log(const struct test_broker *broker, const char *text);

/* As test_broker_start(), with options. With a uid the directory belongs to it, and every user may look into it. */
void test_broker_start_with(struct test_broker *broker, const struct test_broker_options *options);

/* Ends it by SIGTERM, checks that it exits with 0 and leaves no socket, and removes the directory.
 */
void test_broker_stop(struct test_broker *broker);

/* The daemon was ended by the test itself: removes the directory. */
void test_broker_forget(struct test_broker *broker);

/* The process that does the work, a child of broker->pid. Aborts if none appears within 10 s. */
pid_t test_broker_worker(const struct test_broker *broker);

/* Copies the daemon's log to stderr: for the report of a failure. */
void test_broker_show_log(const struct test_broker *broker);
