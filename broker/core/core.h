/* SPDX-License-Identifier: MIT */
/* The broker's decisions: registry of segments, sessions, attachments, rights, brokered waits,
 * repair. Events in, effects out. No sockets, no clock, no libuv, no logging, no system call: time
 * and input come in as arguments, what has to be done goes out through lkd_core_next_effect(). It
 * reads and writes the control areas that the driver mapped for it. One thread.
 *
 * The driver calls one event function, then carries out effects until there are none, then sleeps
 * until the next event or lkd_core_deadline_ns().
 *
 * Rules of the two sides: MAKE_SEGMENT and GROW_SEGMENT are answered exactly once, at once or
 * later; no DROP_SEGMENT comes before the answer, and none after a MAKE_SEGMENT that failed. An
 * offered descriptor is needed no longer than until the effects of its message are carried out.
 * After DISCONNECT the connection counts as lost: lkd_core_session_lost() need not follow, and
 * changes nothing if it does. Events about sessions and processes that the core does not know (any
 * more) are ignored. The last effect of a session is FORGET_SESSION. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/core/resource.h"
#include "engine/layout.h"
#include "proto/message.h"

struct lkd_core; /* opaque */

/* Beyond this lkd_core_new() refuses: tokens have 32 bits for the epoch, and it has to go on
 * rising. */
#define LKD_TOKEN_EPOCH_S_MAX (UINT32_MAX - (1u << 24))

#define LKD_TEXT_BYTES_MAX 640u /* the longest detail or line of the log, with a whole name in it */

#define LKD_GRACE_NS (2 * UINT64_C(1000000000))
#define LKD_TRACED_GRACE_NS (60 * UINT64_C(1000000000))

struct lkd_core_config {
    uint32_t broker_uid; /* only sessions of this uid (or 0) may offer files */
    int32_t broker_pid;
    uint64_t started_ns;
    uint64_t token_epoch_s;   /* seconds since 1970, or later: the first token is this << 32 */
    uint64_t hash_seed;       /* random */
    const char *socket_path;  /* for listings; borrowed */
    struct lkd_limits limits; /* what all users share */
    /* As common/barrier.h makes it; returns whether it was made. NULL: it cannot be made here, and there is
     * no read bias. */
    bool (*barrier)(void);
    /* Whether a one-way RELEASE may lie in the session's socket that was not heard; if so, the driver
     * calls lkd_core_session_quiet() when it has read all of it. NULL: never. */
    bool (*may_have_released)(void *driver, uint64_t session);
    void *driver;      /* borrowed */
    void *ledger;      /* lkd_ledger_bytes(&limits), zeroed or left by an earlier worker;
                               * borrowed for the core's life */
    uint64_t grace_ns; /* from SIGTERM to SIGKILL; 0: LKD_GRACE_NS */
    uint64_t
        traced_grace_ns; /* the same while a debugger has stopped the process; 0: LKD_TRACED_... */
};

/* Who is at the other end, as the kernel says. */
struct lkd_peer {
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
    const uint32_t *groups; /* supplementary; borrowed for the call, copied */
    uint32_t group_count;
    uint64_t
        process; /* the driver's number for the process, same for all sessions of one process */
    char command[32]; /* zero-terminated */
};

enum lkd_effect_kind {
    LKD_EFFECT_NONE = 0,
    LKD_EFFECT_SEND,       /* message to session, with the segment's descriptors if fds says so.
                                EVENT: at once or not at all, then lkd_core_events_lost() */
    LKD_EFFECT_DISCONNECT, /* the session's connection is to be closed after what was sent; first call
                                lkd_core_session_lost() */
    LKD_EFFECT_MAKE_SEGMENT,  /* make or adopt memory, then call lkd_core_segment_made() */
    LKD_EFFECT_GROW_SEGMENT,  /* allocate or extend, then call lkd_core_segment_grown() */
    LKD_EFFECT_DROP_SEGMENT,  /* unmap and close; the segment's number is not used any more */
    LKD_EFFECT_WAKE,          /* futex wake of one attachment of a segment */
    LKD_EFFECT_CHECK_PROCESS, /* is every task of the process exiting? then lkd_core_process_ended()
                               */
    LKD_EFFECT_SIGNAL_PROCESS,  /* send the signal, then call lkd_core_process_signaled() */
    LKD_EFFECT_LOOK_AT_PROCESS, /* what does it do? then call lkd_core_process_looked() */
    LKD_EFFECT_FORGET_SESSION,  /* its number is not used any more: nothing of it is left */
    LKD_EFFECT_LOG,             /* text, one line, for the log */
};

enum lkd_fds {
    LKD_FDS_NONE,
    LKD_FDS_READ_WRITE, /* control area and data, both writable */
    LKD_FDS_READ_ONLY,  /* both reopened read-only */
    LKD_FDS_STRICT,     /* control area read-only, data writable */
};

struct lkd_segment_spec { /* what MAKE_SEGMENT has to make */
    uint64_t area_bytes;
    uint64_t format_bytes;   /* of the area, from its beginning: written as soon as it is made */
    uint64_t data_bytes;     /* 0 with an offered file: the file's size */
    uint64_t data_bytes_max; /* size of the memfd from birth */
    bool reserve;            /* allocate data_bytes now */
    bool offered;            /* the data is the descriptor that came with the request */
};

struct lkd_effect {
    enum lkd_effect_kind kind;
    uint64_t session; /* SEND, DISCONNECT, FORGET_SESSION; MAKE_SEGMENT: who offered the file */
    uint32_t segment; /* MAKE_, GROW_, DROP_SEGMENT, WAKE, SEND with fds */
    uint32_t slot;    /* WAKE */
    uint64_t process; /* CHECK_, SIGNAL_, LOOK_AT_PROCESS */
    int signal;       /* SIGNAL_PROCESS */
    enum lkd_fds fds; /* SEND */
    struct lki_message
        message; /* SEND; what it points to is valid until the next call into the core */
    struct lkd_segment_spec spec;  /* MAKE_SEGMENT, GROW_SEGMENT (data_bytes: the new size) */
    bool warning;                  /* LOG; DISCONNECT: it broke the rules, or could not be served */
    char text[LKD_TEXT_BYTES_MAX]; /* LOG, DISCONNECT: the reason */
};

/* What the driver made for MAKE_SEGMENT. On failure only result counts. */
struct lkd_segment_made {
    int result; /* 0 or -errno: -ENOSPC, -ENOMEM, -EMFILE, -EBADF, -EACCES, ... */
    void
        *area_base; /* zeroed and writable, spec.area_bytes long; stays mapped until DROP_SEGMENT */
    int32_t area_fd; /* for the ledger; the core does nothing with them */
    int32_t data_fd;
    int32_t read_only_fd;
    uint64_t data_bytes;  /* the real size, of a file segment */
    uint64_t file_device; /* of an offered file; both 0 otherwise */
    uint64_t file_inode;
};

/* --- Lifecycle --- */
int lkd_core_new(const struct lkd_core_config *config, struct lkd_core **out_core);
struct lkd_core *
lkd_core_free(struct lkd_core *core); /* drops everything without effects; NULL is allowed */

/* --- Events --- */

/* A connection was accepted. *out_session is the core's number, never used twice.
 * Returns 0; -EDQUOT (see lkd_core_refusal()) or -ENOMEM: the driver closes the connection. Effects
 * in either case: connections that never said anything may have to make room. */
int lkd_core_session_opened(struct lkd_core *core, const struct lkd_peer *peer, uint64_t now_ns,
                            uint64_t *out_session);

/* A record arrived and was decoded. offered: a descriptor came with it; offered_device/inode/size
 * say what it is (the driver looked with fstat), offered_ok that it is a regular file opened for
 * read and write. */
struct lkd_offer {
    bool present;
    bool usable;
    uint64_t device;
    uint64_t inode;
    uint64_t size_bytes;
};

/* Nothing more lies in the session's socket at present. No effects. */
void lkd_core_session_quiet(struct lkd_core *core, uint64_t session);

/* False: it was not heard, and nothing will answer it; a session that is taken over sends it again. */
bool lkd_core_message(struct lkd_core *core, uint64_t session, const struct lki_message *message,
                      const struct lkd_offer *offer, uint64_t now_ns);

/* The connection has ended (or broke the rules): the session's brokered waits are given up, but
 * what it holds stays until its process has ended. */
void lkd_core_session_lost(struct lkd_core *core, uint64_t session, uint64_t now_ns);

/* Whether the session would leave anything behind that others could wait for. */
bool lkd_core_session_is_attached(const struct lkd_core *core, uint64_t session);

/* The session's process has executed another program and is called otherwise now; the command is
 * copied. No effects. Between connection and loss, or not at all. */
void lkd_core_session_renamed(struct lkd_core *core, uint64_t session, const char *command);

/* No instruction of this process runs any more: everything of all its sessions is repaired. Twice
 * is once. */
void lkd_core_process_ended(struct lkd_core *core, uint64_t process, uint64_t now_ns);

/* The same, and `reason` (for people, copied) is what the peer did wrong, or why it cannot be served.
 */
void lkd_core_session_dropped(struct lkd_core *core, uint64_t session, const char *reason,
                              uint64_t now_ns);

/* An EVENT was not sent, since the peer does not read: it, and those that it said were lost before
 * it, count as lost. No effects. */
void lkd_core_events_lost(struct lkd_core *core, uint64_t session, uint64_t count);
/* What came of SIGNAL_PROCESS: 0 or -errno. -ESRCH: its end will be told, or was. */
void lkd_core_process_signaled(struct lkd_core *core, uint64_t process, int signal, int result,
                               uint64_t now_ns);

/* The answer to LOOK_AT_PROCESS. */
enum lkd_process_state {
    LKD_PROCESS_RUNS,            /* or sleeps, or it cannot be told */
    LKD_PROCESS_STOPPED,         /* by a signal */
    LKD_PROCESS_TRACED,          /* stopped by a debugger */
    LKD_PROCESS_UNINTERRUPTIBLE, /* a task of it waits in the kernel and takes no signal */
};
void lkd_core_process_looked(struct lkd_core *core, uint64_t process, enum lkd_process_state state,
                             uint64_t now_ns);

void lkd_core_segment_made(struct lkd_core *core, uint32_t segment,
                           const struct lkd_segment_made *made, uint64_t now_ns);
void lkd_core_segment_grown(struct lkd_core *core, uint32_t segment, int result, uint64_t now_ns);

/* Time has passed, or there is unfinished work: steps brokered waits that are due and does one
 * slice of repair (at most slice_locks locks). */
void lkd_core_tick(struct lkd_core *core, uint64_t now_ns, uint32_t slice_locks);

/* The descriptors of a session, for the ledger: a successor finds them open. Once, right after
 * lkd_core_session_opened(). */
struct lkd_session_fds {
    int socket_fd;
    int pidfd;
    uint64_t process_key[2]; /* by which the driver finds the process again without its pidfd */
};

void lkd_core_session_fds(struct lkd_core *core, uint64_t session,
                          const struct lkd_session_fds *fds);

/* --- Names that outlive the broker ---
 *
 * A client of a segment goes on when its broker is gone altogether. So that nobody makes another
 * segment of that name meanwhile, the driver writes down, outside, which processes have which
 * names; the next broker reserves those names until the processes have ended. */

struct lkd_name_change {
    uint32_t index; /* which note: small numbers, used again */
    bool present;   /* else the note is to be taken away */
    uint64_t process;
    uint32_t name_kind; /* LKI_NAME_USER or LKI_NAME_GROUP */
    uint32_t name_id;
    uint32_t name_bytes;
    const uint8_t *name; /* valid until the next call into the core */
};

/* Takes the next change of the notes; to be written down before the effects are carried out. False:
 * there is none. */
bool lkd_core_next_name_change(struct lkd_core *core, struct lkd_name_change *out);

/* A process of an earlier broker's client has the name: until lkd_core_process_ended() nobody gets
 * it. Before any event. Returns 0 or -ENOMEM. */
int lkd_core_reserve_name(struct lkd_core *core, const struct lkd_name_change *name, int32_t pid);

/* --- Taking over from a worker that died ---
 *
 * On a ledger that an earlier worker left, before any event: lkd_core_blame(); then every segment of
 * lkd_core_next_left_segment() goes back mapped, every session of lkd_core_next_left_session() with
 * its process; then lkd_core_adopt(), and its effects. What is not given back is forgotten, and its
 * descriptors are the driver's to close. */

/* Whether there is anything to take over. */
bool lkd_core_is_successor(const struct lkd_core *core);

/* faulty: the worker before failed by itself (a bad access, a broken invariant), it was not killed.
 * Two failures in a row over one session end it, over one segment put that into quarantine. */
void lkd_core_blame(struct lkd_core *core, bool faulty);

struct lkd_segment_record;
struct lkd_session_record;

struct lkd_left_segment {
    struct lkd_segment_record *record; /* the core's */
    uint32_t number;
    int32_t area_fd;
    int32_t data_fd;      /* -1: none */
    int32_t read_only_fd; /* -1: none */
    uint64_t area_bytes;
    uint32_t locks;
    uint32_t attachments_max;
    bool file;
};

/* *cursor is 0 first. False: there are no more. */
bool lkd_core_next_left_segment(const struct lkd_core *core, uint32_t *cursor,
                                struct lkd_left_segment *out);

/* area_base: mapped, as in lkd_segment_made. Returns 0, -ENOMEM, or -EPROTO: no worker wrote such a
 * record. */
int lkd_core_adopt_segment(struct lkd_core *core, const struct lkd_left_segment *left,
                           void *area_base);

struct lkd_left_session {
    struct lkd_session_record *record; /* the core's */
    int32_t socket_fd;                 /* LKD_NO_FD: it has no connection any more */
    int32_t pidfd;
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
};

bool lkd_core_next_left_session(struct lkd_core *core, uint32_t *cursor,
                                struct lkd_left_session *out);

/* The number stays. peer: process and groups count, the rest is known. Returns as above. */
int lkd_core_adopt_session(struct lkd_core *core, const struct lkd_left_session *left,
                           const struct lkd_peer *peer, uint64_t *out_session);

/* All has been given back: attachments, waits and repairs go on where they were, everybody who waits
 * is woken, connected sessions get RESUMED. Returns as above. */
int lkd_core_adopt(struct lkd_core *core, uint64_t now_ns);

/* --- Queries --- */

/* Takes the next effect; those of the kind WAKE come first, and DISCONNECT and FORGET_SESSION last. False:
 * there is none. */
bool lkd_core_next_effect(struct lkd_core *core, struct lkd_effect *out_effect);

/* Takes the next WAKE alone, and fills in only what belongs to it: who is woken waits for nothing else
 * that the driver has to do. False: there is none. */
bool lkd_core_next_wake(struct lkd_core *core, struct lkd_effect *out_effect);

/* When the next tick is due: 0 at once (repair goes on), LKI_TIME_NEVER: no timer needed. */
uint64_t lkd_core_deadline_ns(const struct lkd_core *core);

/* The highest token epoch given to a segment so far, 0 before the first. The driver writes it down
 * before it sends what depends on it: the next broker has to begin above. */
uint64_t lkd_core_token_epoch_s(const struct lkd_core *core);

/* Why lkd_core_session_opened() last said -EDQUOT, for the peer. Valid until its next call. */
const char *lkd_core_refusal(const struct lkd_core *core);

/* The driver can take no more connections: ends up to `count` of those that have been silent since
 * they came, the oldest of whichever user has most of them. Returns how many. */
uint32_t lkd_core_shed_silent(struct lkd_core *core, uint32_t count, uint64_t now_ns);

/* Walks every invariant and aborts on a broken one. For tests and debug builds. */
void lkd_core_check(const struct lkd_core *core);
