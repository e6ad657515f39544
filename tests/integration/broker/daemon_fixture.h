/* SPDX-License-Identifier: MIT */
/* A real lockkeeperd in a temporary directory, and raw connections to it: what a client library
 * would never send can be sent here. One per test; Criterion runs every test in a process of its
 * own. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/channel.h"

struct daemon_fixture {
    char directory[64];
    char socket_path[96];
    char log_path[96];
    pid_t pid;     /* 0: not running */
    bool restarts; /* the test ends workers; else none may end by itself */
};

extern struct daemon_fixture broker;

struct daemon_start {
    const char *extra[16];   /* more arguments, NULL-terminated; not --socket or --ready-fd */
    const char *launcher[8]; /* put before the daemon: "unshare", ... */
    uint64_t files_max;      /* RLIMIT_NOFILE, soft and hard; 0: as it is */
    bool any_socket;         /* extra has the --socket */
};

/* Makes the directory. For .init */
void fixture_open(void);

/* Ends what still runs, checks that the daemon left no socket and no sanitizer's report, and
 * removes the directory. For .fini */
void fixture_close(void);

/* Starts the daemon and waits until it listens. */
void start_daemon(const struct daemon_start *start);

/* Starts it and does not wait. Returns the pid; *out_ready_fd can be read, or is at its end after
 * an exit. */
pid_t launch_daemon(const struct daemon_start *start, int *out_ready_fd);

/* Sends the signal and waits. Returns the exit code, 128 + N if a signal ended it. */
int stop_daemon(int signal_number);

/* Waits for a child of ours. Returns as above. */
int wait_for(pid_t pid);

/* The log so far, in a buffer that lives until the next call. */
const char *read_log(void);

/* Waits until the log has this text; fails the test after 5 s. */
void expect_log(const char *text);

/* How many entries /proc/PID/fd has. */
size_t count_fds(pid_t pid);

/* The same for the daemon, once what it closes on its helper threads is closed. */
size_t count_fds_at_rest(void);

/* Waits until the daemon has this many descriptors again; fails the test after 5 s. */
void expect_fds(size_t count);

/* --- Raw sessions --- */

/* Connects; fails the test if nobody listens. Blocking, with a receive time-out of 5 s. */
int connect_raw(void);

void send_hello(int fd);

/* The same over a connection that may have been refused and closed by now. */
int try_hello(int fd);

/* Encodes and sends, with descriptors. Returns as lki_channel_send(). */
int send_request(int fd, const struct lki_message *message, const int *fds, size_t fd_count);

/* An OPEN that creates a segment. */
struct lki_message open_request(uint64_t id, const char *name, uint64_t size_bytes);

/* Receives a reply and its descriptors, which are the caller's. Returns as lki_channel_receive().
 */
struct reply {
    struct lki_message message;
    int fds[LKI_RECORD_FDS_MAX];
    size_t fd_count;
};
int receive_reply(int fd, struct reply *out_reply);

/* Hello and OPEN of a new segment; the descriptors are closed. Fails the test unless it was made.
 */
void expect_works(int fd, const char *name);

/* Says goodbye, so that nothing of the session stays, and closes. */
void leave(int fd);

/* Connects, opens a segment and leaves: the broker serves. */
void expect_serves(void);

/* Waits for the end of the connection, reading replies away. Fails the test after 5 s. */
void expect_dropped(int fd);

/* The child of the daemon that does the work. */
pid_t worker_pid(void);

/* In a fork: calls body, which returns the exit code, and exits without clean-up. Returns the pid.
 */
pid_t fork_child(int (*body)(void *user), void *user);
