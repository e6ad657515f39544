/* SPDX-License-Identifier: MIT */
/* The daemon: one libuv loop around one core. Owns the loop, the listener, the connections, the
 * processes and the segments' memory. Everything runs on the loop's thread, but for what a hostile
 * descriptor could block, which goes to libuv's helper threads.
 *
 *     event from outside -> one call into the core -> lkd_daemon_settle(): effects until there are
 * none
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "broker/core/core.h"
#include "broker/io/instance.h"
#include "broker/io/names.h"
#include "broker/io/peer.h"
#include "broker/io/process.h"
#include "broker/io/watchdog.h"
#include "broker/io/worker.h"
#include "common/list.h"
#include "common/spin.h"
#include "proto/channel.h"

struct lkd_link;         /* broker/io/link.h */
struct lkd_memory_entry; /* broker/io/effects.c */

struct lkd_daemon_options {
    const struct lkd_worker_start *start; /* from the keeper; borrowed */
    enum lkd_peer_pidfd peer_pidfd;
    uint64_t idle_exit_ms;         /* 0: never */
    struct lkd_limits limits;      /* what all users share; 0: the default */
    const struct lkd_names *names; /* PATH.names; borrowed */
    uint64_t grace_ms;             /* 0: the core's default */
    uint64_t debugger_grace_ms;
    bool tell_segments; /* the keeper wants to know when segments come and go */
    int ready_fd;       /* one byte is written here when listening, then it is closed; -1: none */
    /* As often the keeper is told that the loop turns, for a watchdog. 0: never. */
    uint64_t alive_interval_ms;
};

struct lkd_daemon {
    uv_loop_t loop;
    bool loop_open;
    struct lkd_core *core;
    struct lkd_instance *instance; /* borrowed */
    struct lkd_daemon_options options;
    uid_t uid;
    bool stopping;
    bool settling;

    /* listener.c */
    uv_poll_t listener;
    uv_timer_t listener_pause;
    bool listener_open;
    int spare_fd;

    /* unread.c */
    uv_poll_t unread;
    bool unread_open;
    int unread_fd;

    /* loop.c: time and work of the core */
    uv_poll_t keeper; /* answers of the keeper */
    bool keeper_open;
    uv_poll_t timer;
    bool timer_open;
    int timer_fd;
    uint64_t timer_due_ns; /* LKI_TIME_NEVER: not armed */
    uv_idle_t worker;      /* runs while the core's deadline is 0 */
    uint32_t slice_locks;
    struct lki_spin spin; /* waiting for requests */
    uint64_t records;     /* received from all */
    uv_timer_t idle_exit;
    uv_timer_t alive;
    struct lkd_watchdog watchdog;
    uv_signal_t signals[3];

    struct lkd_processes processes;
    struct lkd_reserver *reservers; /* takeover.c: processes that reserve names */
    bool taking_over;               /* takeover.c: clients are told that another worker goes on */
    int takeover_result;            /* why one of them could not be told; 0: all have been */
    bool names_failed;              /* PATH.names could not be written, and the log says so */
    struct lkd_link *links;         /* hash table by the core's number of the session */
    struct lki_list connections;
    uint32_t connection_count;
    uint64_t fds_queued;     /* descriptors in the queues of all connections */
    uint64_t fds_queued_max; /* beyond it the longest queue ends, so that our table never fills */
    struct lkd_memory_entry *segments; /* hash table by the core's number */
    uint32_t works;                    /* helper jobs under way */

    /* Scratch of one record, in and out: too large for the stack. */
    struct lki_arena arena;
    uint8_t record[LKI_REPLY_BYTES_MAX];
};

/**
 * Sets everything up; the daemon is large and must not be moved.
 * @instance: open, borrowed until lkd_daemon_deinit()
 * Returns 0 or -errno; call lkd_daemon_deinit() either way.
 */
int lkd_daemon_init(struct lkd_daemon *daemon, struct lkd_instance *instance,
                    const struct lkd_daemon_options *options);

/* Runs until a signal or idleness ends it. */
void lkd_daemon_run(struct lkd_daemon *daemon);

/* Closes every handle and frees everything. False: a helper thread is stuck in a hostile
 * descriptor, so that the process has to end by _exit(2). */
bool lkd_daemon_deinit(struct lkd_daemon *daemon);

/* --- For the files of this folder --- */

/* Carries out the core's effects and sets the timers. To be called after every event given to the
 * core. */
void lkd_daemon_settle(struct lkd_daemon *daemon);

/* One effect; may call back into the core. (effects.c) */
void lkd_effect_carry_out(struct lkd_daemon *daemon, const struct lkd_effect *effect);

/* Maps a segment that an earlier worker left, and gives it to the core. Returns 0 or -errno.
 * (effects.c) */
int lkd_effects_adopt_segment(struct lkd_daemon *daemon, const struct lkd_left_segment *left);

/* What the keeper sent back has come. (effects.c) */
void lkd_daemon_hear_keeper(struct lkd_daemon *daemon);

/* Gives every segment's memory back. (effects.c) */
void lkd_effects_deinit(struct lkd_daemon *daemon);

/* Starts or ends the countdown to the exit of a daemon that nobody needs. */
void lkd_daemon_note_use(struct lkd_daemon *daemon);

int lkd_listener_start(struct lkd_daemon *daemon);   /* listener.c */
void lkd_listener_resume(struct lkd_daemon *daemon); /* after a descriptor became free */
void lkd_listener_close(struct lkd_daemon *daemon);
