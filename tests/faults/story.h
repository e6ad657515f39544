/* SPDX-License-Identifier: MIT */
/* What the requester does while something fails: nearly everything that the library can do, in steps
 * that can each be repeated. Three sessions of one process: one that creates and locks natively, a
 * second native one, and a read-only one whose locks go through the broker. */
#pragma once

#include <stdbool.h>

#include <lockkeeper/lockkeeper.h>

struct story {
    const char *socket_path;
    const char *name; /* of the segment; the file's is the same with an f before it */
    int file_fd;      /* a regular file to offer */
    bool fork_victim; /* also have a process ended by force */

    struct lk_session *a, *b, *c;
    struct lk_segment *segment, *segment_b, *segment_c, *file;
    struct lk_lock *lock, *second, *victims, *lock_b, *lock_c, *second_c;
    unsigned char *data;
    bool a_holds, c_holds;
    bool pending; /* an asynchronous acquire of c */
    int answer;   /* its result */
};

struct story_step {
    const char *name;
    int (*act)(struct story *story); /* 0 or more: done */
};

extern const struct story_step story_steps[];
extern const unsigned story_step_count;

/* The step before which the worker is killed by those who look at takeovers: locks are held and
 * awaited there. */
unsigned story_takeover_step(void);

/* Closes what is open. Never fails. */
void story_end(struct story *story);

/* A step found something that no fault explains. NULL: nothing so far. */
extern const char *story_violation;
