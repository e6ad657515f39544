/* SPDX-License-Identifier: MIT */
/* A broker of its own for each test, in a directory of its own, and child processes that are told
 * when to go on. Nothing is left behind: the end of a test looks for it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lockkeeper/lockkeeper.h>

struct fixture {
    char directory[64];
    char socket_path[96];
    pid_t daemon; /* 0: none is started by us */
    int fds_before;
};

extern struct fixture fixture;

/* .init and .fini of a test: with a daemon, and with a directory only. */
void fixture_start(void);
void fixture_stop(void);
void fixture_start_without_daemon(void);

/* Ends the daemon at once, as a crash would. */
void fixture_kill_daemon(void);
/* Ends a broker that a client started, and waits for that. */
void fixture_end_autostarted(void);

/* Calls that have to succeed. */
struct lk_session *open_session(void);
struct lk_segment *open_segment(struct lk_session *session, const char *name, uint64_t size_bytes,
                                uint32_t flags);
struct lk_lock *open_lock(struct lk_segment *segment, uint32_t index);
void *map_segment(struct lk_segment *segment, uint64_t offset, uint64_t length_bytes);

/* A child process. It runs `run`, which reports a failure by returning not 0. Parent and child each
 * have one direction of a line, one byte per event: no sleep stands in for one. */
struct child {
    pid_t pid;
    int to_fd;   /* parent writes */
    int from_fd; /* parent reads */
};

typedef int (*child_fn)(struct child *side, void *user);

struct child child_start(child_fn run, void *user);
void child_tell(struct child *child);  /* either side */
void child_await(struct child *child); /* either side; fails the test when the other has ended */
bool child_has_told(struct child *child, int timeout_ms);
void child_kill(struct child *child); /* SIGKILL, and waits for its end */
void child_join(struct child *child); /* waits; it has to have returned 0 */

/* For use in a child: returns the line's number when the condition does not hold, with a word to
 * stderr. */
#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return child_failed(#condition, __FILE__, __LINE__);                                   \
    } while (0)
int child_failed(const char *condition, const char *file, int line);

bool error_has(const char *words); /* in lk_last_error() */
int open_fds(void);
