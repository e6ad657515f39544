/* SPDX-License-Identifier: MIT */
/* The client beside: a process of its own that uses the broker in every way, must succeed in all of
 * it, and takes its turns while nothing is made to fail. What it has from before (a lock held, a
 * wait in the broker's queue) has to outlive every fault in between. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct innocent {
    pid_t pid;
    int ask;    /* events: a turn, please; it is done */
    int answer; /* */
    struct innocent_words {
        _Atomic uint32_t asked;
        _Atomic uint32_t answered;
        _Atomic uint32_t failed;
        char what[400]; /* the first failure */
    } * words;          /* shared with it */
};

/* Starts it at this broker. */
void innocent_start(struct innocent *innocent, const char *socket_path);
void innocent_stop(struct innocent *innocent);

/* Has it take one turn, and waits for that. From any process that inherited the events. */
void innocent_take_turn(const struct innocent *innocent);
