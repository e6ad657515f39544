/* SPDX-License-Identifier: MIT */
/* The processes behind the sessions, each with one pidfd however many sessions it has. Tells when a
 * process can run no more instructions: by the pidfd, which comes only after the kernel has torn
 * its memory down (7 to 20 ms per 256 MB), or sooner by a look at its tasks when somebody asks.
 * Counted; one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "broker/core/core.h"
#include "broker/io/peer.h"
#include "common/list.h"

struct lkd_watched; /* opaque: from lkd_processes_get() to lkd_watched_unref() */

/* No instruction of the process runs any more. Called once per process, from the loop. */
typedef void (*lkd_process_ended_fn)(struct lkd_watched *process, void *user);

struct lkd_processes {
    uv_loop_t *loop;
    struct lkd_watched *by_key; /* hash tables of uthash; NULL: empty */
    struct lkd_watched *by_number;
    uint64_t last_number;
    lkd_process_ended_fn ended;
    void *user;
};

void lkd_processes_init(struct lkd_processes *processes, uv_loop_t *loop,
                        lkd_process_ended_fn ended, void *user);

/**
 * The process of a peer; one count is the caller's. Not watched before lkd_watched_start().
 * @info: its pidfd is taken out when the process is new to us
 * Errors: -ESRCH (it has ended already), -ENOMEM
 */
int lkd_processes_get(struct lkd_processes *processes, struct lkd_peer_info *info,
                      struct lkd_watched **out_process);

/* Tells of the end of the process from now on, also of one that has come already. Where epoll(7)
 * has no room for the watch a timer looks every 250 ms. Twice is once. */
void lkd_watched_start(struct lkd_watched *process);

/* Tells that it has ended, if it has or is exiting and that was not told yet. */
void lkd_watched_look(struct lkd_watched *process);

/* Gives the count back; the last one ends the watch and closes the pidfd. Returns NULL. */
struct lkd_watched *lkd_watched_unref(struct lkd_watched *process);

/* The links of its sessions, for link.c alone. */
struct lki_list *lkd_watched_links(struct lkd_watched *process);

/* Its pidfd, borrowed. */
int lkd_watched_pidfd(const struct lkd_watched *process);

/* Who that is, for PATH.names: false if the number is not known. */
bool lkd_processes_describe(const struct lkd_processes *processes, uint64_t number,
                            struct lkd_process_key *out_key, int32_t *out_pid);

/* The number by which the core knows it; never used twice. */
uint64_t lkd_watched_number(const struct lkd_watched *process);

/* Somebody who waits asks whether this process still runs. If it is exiting, `ended` is called
 * before this returns; if not, it is looked at again after 1 and 3 ms more, since whoever kills
 * does not wait, and every 3 ms from then on for the time of a waiter's nap if it is so large that
 * its pidfd would come late. */
void lkd_processes_check(struct lkd_processes *processes, uint64_t number);

/* Its pidfd, borrowed; -ESRCH: it is not known, or has ended. */
int lkd_processes_pidfd(const struct lkd_processes *processes, uint64_t number);

/* What the process does; RUNS where it cannot be told. */
enum lkd_process_state lkd_processes_state(struct lkd_processes *processes, uint64_t number);
