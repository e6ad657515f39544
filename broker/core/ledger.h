/* SPDX-License-Identifier: MIT */
/* What the broker must not forget when its worker dies, as records of fixed size in memory that
 * outlives the worker. One writer, the worker; the next worker reads them once and goes on. The
 * keeper reads the header alone. No client ever sees this memory.
 *
 * There are no pointers and no lists in it, only records, each valid or not by its own `state`,
 * which is stored last: a worker that dies between any two stores leaves a record that is whole or
 * none. Together with the control areas, which hold the facts of locks and waits, this is all the
 * state there is. Numbers of descriptors are the driver's: they stay open across workers.
 *
 * The memory may be larger than what is used by far: it is sparse, and its records are taken from
 * the lowest free one. */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/core/resource.h"
#include "common/bounds.h"

#define LKD_LEDGER_VERSION 2u
#define LKD_NO_FD (-1)

struct lkd_ledger_header {
    _Atomic uint32_t version; /* LKD_LEDGER_VERSION, stored last; 0: nothing is here yet */
    uint32_t sessions_max;
    uint32_t segments_max;
    uint32_t attachments_max;
    /* How many records of each kind were ever in use: those behind are untouched. */
    _Atomic uint32_t sessions_used;
    _Atomic uint32_t segments_used;
    _Atomic uint32_t attachments_used;
    uint32_t padding;
    /* Numbers that must not be given twice, and tokens. */
    _Atomic uint64_t last_session;
    _Atomic uint64_t last_epoch_s;
    _Atomic uint32_t last_segment;
    _Atomic uint32_t restarts; /* how often a worker took over; the number in RESUMED */
    uint64_t started_ns;       /* by the first worker */
    _Atomic uint32_t serving;  /* a worker has listened */
    uint32_t padding1;
    /* What the worker is working on, for whoever has to explain its death; 0: nothing. */
    _Atomic uint64_t work_session;
    _Atomic uint32_t work_segment;
    _Atomic uint32_t suspect_segment; /* what it worked on when it failed the last time */
    _Atomic uint64_t suspect_session;
};

enum lkd_record_state { /* stored as uint32_t */
                        LKD_RECORD_FREE = 0,
                        LKD_RECORD_LIVE = 1,
                        LKD_RECORD_ENDING = 2, /* attachments: to be repaired */
};

#define LKD_SESSION_GREETED UINT32_C(1) /* HELLO has come */
#define LKD_SESSION_CUT UINT32_C(2)     /* no connection any more */
#define LKD_SESSION_ONE_WAY UINT32_C(4) /* its HELLO says that it knows one-way releases */

struct lkd_session_record {
    _Atomic uint32_t state;
    uint32_t next_free; /* while FREE; meaningful to one worker only */
    _Atomic uint32_t flags;
    int32_t socket_fd; /* the driver's; LKD_NO_FD: not told yet */
    int32_t pidfd;
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint64_t number;
    uint64_t opened_ns;
    _Atomic uint64_t received;       /* the highest request that was begun */
    _Atomic uint64_t remove_request; /* the last REMOVE that was begun, and of what */
    _Atomic uint64_t ended_request;  /* the last RELEASE or DETACH that ended something */
    uint32_t remove_segment;
    uint32_t padding;
    uint8_t command[32];
    uint64_t process_key
        [2]; /* the driver's: by which it finds the process again, should the pidfd be lost */
};

#define LKD_SEGMENT_NAMED UINT32_C(1)
#define LKD_SEGMENT_IS_PUBLISHED UINT32_C(2)
#define LKD_SEGMENT_IS_FILE UINT32_C(4)
#define LKD_SEGMENT_IS_QUARANTINED UINT32_C(8)

struct lkd_segment_record {
    _Atomic uint32_t state;
    uint32_t next_free;
    uint32_t number;
    _Atomic uint32_t facts; /* LKD_SEGMENT_NAMED and so on */
    int32_t area_fd;        /* the driver's */
    int32_t data_fd;
    int32_t read_only_fd;
    uint32_t padding;
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;
    uint32_t flags;
    uint32_t locks;
    uint32_t attachments_max;
    uint64_t patience_ns;
    uint64_t area_bytes;
    _Atomic uint64_t data_bytes;
    uint64_t data_bytes_max;
    uint64_t file_device;
    uint64_t file_inode;
    uint64_t creator_session; /* who created it, with which request */
    uint64_t creator_request;
    uint64_t charged_session;
    uint32_t charged_uid;
    uint32_t name_kind;
    uint32_t name_id;
    uint32_t name_bytes;
    uint8_t name[LKI_NAME_BYTES_MAX + 1];
    uint64_t lease_ns;
    uint32_t on_expiry;
    uint32_t padding1;
    uint8_t reserved[96];
};

#define LKD_ATTACHMENT_BROKERED UINT32_C(1)
#define LKD_ATTACHMENT_READ_ONLY UINT32_C(2)
#define LKD_ATTACHMENT_CREATOR UINT32_C(4)
#define LKD_ATTACHMENT_EXTRA UINT32_C(8)
#define LKD_ATTACHMENT_ACCEPTS_KILL UINT32_C(16)

/* How far the last acquire of a brokered attachment has come. */
enum lkd_acquire_stage { /* stored as uint32_t */
                         LKD_ACQUIRE_NONE = 0,
                         LKD_ACQUIRE_TRYING = 1, /* tries or waits; nobody was told anything */
                         LKD_ACQUIRE_HELD = 2,   /* held; the client was told, or will ask again */
};

struct lkd_attachment_record {
    _Atomic uint32_t state;
    uint32_t next_free;
    uint32_t slot;
    uint32_t id;
    uint64_t session;
    uint32_t segment;
    uint32_t flags;
    uint64_t opened_ns;
    uint64_t ended_ns; /* ENDING: when, and why */
    uint32_t cause;
    _Atomic uint32_t stage; /* enum lkd_acquire_stage; what follows counts while it is not NONE */
    uint32_t lock;
    uint16_t mode;
    uint16_t to_exit;
    uint64_t request;
    uint64_t deadline_ns;
    uint64_t granted_ns;
    uint32_t next_changed; /* index + 2; 1: the last one; 0: not in the list. One worker's */
    /* Of any lock that it holds, be it the above or not. */
    _Atomic uint32_t upgrading;      /* not 0: for update, and waits for readers to leave */
    _Atomic uint64_t change_request; /* the last CHANGE_MODE that was begun */
    uint64_t change_deadline_ns;     /* while it is upgrading, as is what follows */
    uint32_t change_lock;
    uint8_t padding[12];
};

static_assert(sizeof(struct lkd_session_record) == 128, "ledger version 2");
static_assert(sizeof(struct lkd_segment_record) == 512, "ledger version 2");
static_assert(sizeof(struct lkd_attachment_record) == 128, "ledger version 2");

/* A view, with the lists of free records, which are private to the worker. */
struct lkd_ledger {
    struct lkd_ledger_header *header;
    struct lkd_session_record *sessions;
    struct lkd_segment_record *segments;
    struct lkd_attachment_record *attachments;
    uint32_t free_session; /* index + 1; 0: none below `used` */
    uint32_t free_segment;
    uint32_t free_attachment;
    uint32_t
        changed; /* attachments that came or went since the driver looked: index + 2; 1: none */
};

/* Bytes that a ledger for these limits takes; limits of 0 are the defaults. Pure. */
uint64_t lkd_ledger_bytes(const struct lkd_limits *limits);

/**
 * Views a ledger; lays it out first if its memory is zeroed.
 * @base: lkd_ledger_bytes(limits) long, aligned to 4096; must outlive the view
 * Returns: 0: a new one; 1: an earlier worker left it, and what it says is to be taken over
 * Errors:  -EPROTO: it was made for other limits or by another version
 */
int lkd_ledger_view(struct lkd_ledger *ledger, void *base, const struct lkd_limits *limits);

/* The same to look at only, beside the worker that has it: nothing is laid out, checked or taken. */
void lkd_ledger_peek(struct lkd_ledger *ledger, void *base, const struct lkd_limits *limits);

/* Takes a free record; its fields are as they were left, its state is FREE. Fill it in and then
 * call lkd_record_enter(). NULL: all are taken. */
struct lkd_session_record *lkd_ledger_take_session(struct lkd_ledger *ledger);
struct lkd_segment_record *lkd_ledger_take_segment(struct lkd_ledger *ledger);
struct lkd_attachment_record *lkd_ledger_take_attachment(struct lkd_ledger *ledger);

/* The attachment record came or went. */
void lkd_ledger_change(struct lkd_ledger *ledger, struct lkd_attachment_record *record);

/* Takes one of those that did. False: there is none. */
bool lkd_ledger_next_change(struct lkd_ledger *ledger, uint32_t *out_index);

/* Gives one back, whatever its state; NULL is allowed. */
void lkd_ledger_give_session(struct lkd_ledger *ledger, struct lkd_session_record *record);
void lkd_ledger_give_segment(struct lkd_ledger *ledger, struct lkd_segment_record *record);
void lkd_ledger_give_attachment(struct lkd_ledger *ledger, struct lkd_attachment_record *record);

/* The state or stage changes after everything that was written before. */
void lkd_record_enter(_Atomic uint32_t *state, uint32_t value);

/* The same for a state whose fields are to be written next: whoever sees one of them changed sees
 * this value. */
void lkd_record_leave(_Atomic uint32_t *state, uint32_t value);

static inline uint32_t lkd_record_state(const _Atomic uint32_t *state)
{
    /* acquire: the fields that it vouches for */
    return atomic_load_explicit(state, memory_order_acquire);
}
