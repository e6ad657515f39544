/* SPDX-License-Identifier: MIT */
/* Inside of the worker: what it keeps, and how it carries out what the core wants. */
#pragma once

#include "tests/sim/worker.h"

struct worker_link { /* one session */
    uint64_t session;
    int process;
    struct sim_socket *socket; /* NULL: its connection has ended */
};

enum answer_kind {
    ANSWER_MADE,
    ANSWER_LOOK, /* at a process, once more; signal: how often it was done */
    ANSWER_SIGNAL,
};

struct worker_answer { /* to the core, to come */
    enum answer_kind kind;
    uint64_t due_ns;
    uint64_t number; /* of segment or process */
    uint64_t bytes;
    int signal;
    int result;
};

struct worker {
    struct lkd_core *core;
    uint32_t number; /* in RESUMED */
    bool in_core;
    bool settling;
    struct worker_link links[256];
    uint32_t link_count;
    struct worker_answer answers[64];
    uint32_t answer_count;
    bool told_ended[SIM_PROCESSES_MAX];
    uint64_t doubted_ns; /* when a session was last said to have something unread; 0: never */
};

extern struct worker worker;

struct worker_link *worker_find_session(uint64_t session);
void worker_forget_session(uint64_t session);
void worker_lose(struct worker_link *link);
void worker_say_ended(int process);

/* Around an event of the core. Leaving carries out the effects. */
void worker_enter_core(void);
void worker_leave_core(void);
void worker_settle(void);

void worker_take_answer(uint32_t index);
