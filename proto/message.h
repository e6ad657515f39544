/* SPDX-License-Identifier: MIT */
/* The messages between client and broker, as plain structures. The codec alone knows protobuf;
 * everybody else handles these. A message borrows the bytes that it points to: of the decoder's
 * arena when received, of the sender when sent. docs/protocol.md says what each message means. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bounds.h"
#include "proto/status.h"

#define LKI_PROTOCOL_MAJOR 1
/* 1: DEADLOCK_CHECK, and the listing GRAPH. 2: RESUMED and RESUME, MONITOR and EVENT, leases in
 * OPEN, FORCE_RELEASE. 3: BARRIER. 4: one_way in
 * GRANTED and RELEASE, to_exit in MARK_CONSISTENT, CHANGE_MODE, ACQUIRE for update, protocol_minor in OPENED */
#define LKI_PROTOCOL_MINOR 4
#define LKI_PROTOCOL_MINOR_CHANGE_MODE 4
#define LKI_PROTOCOL_MINOR_TO_EXIT 4 /* from here on: MARK_CONSISTENT has `to_exit` */
#define LKI_PROTOCOL_MINOR_ONE_WAY 4 /* from here on: GRANTED and RELEASE have `one_way` */

struct lki_bytes {
    const uint8_t *data;
    size_t length_bytes;
};

enum lki_message_type {
    LKI_MESSAGE_NONE = 0,
    /* Requests, client to broker. Each carries a rising id. One-way: no reply. */
    LKI_REQUEST_HELLO = 1,   /* first record of a connection; a reply only when refused */
    LKI_REQUEST_OPEN = 2,    /* -> OPENED with descriptors (control, data); one fd when offered */
    LKI_REQUEST_PUBLISH = 3, /* -> RESULT */
    LKI_REQUEST_DETACH = 4,  /* -> RESULT, when everything is cleaned up */
    LKI_REQUEST_REMOVE = 5,  /* -> RESULT */
    LKI_REQUEST_GROW = 6,    /* -> RESULT, value: the size in bytes */
    LKI_REQUEST_LOCK_NAMED = 7, /* -> RESULT, value: the index */
    LKI_REQUEST_ACQUIRE = 8,    /* -> GRANTED, or RESULT with the refusal; brokered waits */
    LKI_REQUEST_CANCEL = 9,     /* -> RESULT: OK cancelled (the acquire gets RESULT CANCELED), or
                                   NOT_FOUND: its answer has been sent already */
    LKI_REQUEST_RELEASE = 10,   /* -> RESULT; a brokered hold */
    LKI_REQUEST_MARK_CONSISTENT = 11, /* -> RESULT; a brokered hold */
    LKI_REQUEST_DECLARE = 12,         /* -> RESULT; a brokered hold */
    LKI_REQUEST_ASK = 13,     /* one-way: the first nap passed, is this owner still alive? */
    LKI_REQUEST_NUDGE = 14,   /* one-way: a brokered waiter of this segment was woken */
    LKI_REQUEST_HOLDER = 15,  /* -> HOLDER_IS */
    LKI_REQUEST_LIST = 16,    /* -> LIST_PAGE */
    LKI_REQUEST_GOODBYE = 17, /* -> RESULT, when everything is cleaned up; then the broker closes */
    LKI_REQUEST_DEADLOCK_CHECK = 18, /* -> RESULT: OK, or DEADLOCK: the published wait never ends */
    LKI_REQUEST_RESUME = 19, /* one-way: the answer to RESUMED; what was not answered comes again */
    LKI_REQUEST_MONITOR = 21,       /* -> RESULT; from then on EVENT as it happens */
    LKI_REQUEST_FORCE_RELEASE = 20, /* -> RESULT, when the lock was handed on, or cannot be;
                                        value: how many holders were ended */
    LKI_REQUEST_BARRIER =
        22, /* -> RESULT: every thread that relies on read bias has passed a barrier */
    LKI_REQUEST_CHANGE_MODE =
        23, /* -> GRANTED when it is exclusive, RESULT when it was weakened, or
                                     RESULT with the refusal; a brokered hold */
    /* Replies, broker to client; `id` is that of the request. */
    LKI_REPLY_RESULT = 32,
    LKI_REPLY_OPENED = 33,
    LKI_REPLY_GRANTED = 34,
    LKI_REPLY_HOLDER_IS = 35,
    LKI_REPLY_LIST_PAGE = 36,
    LKI_REPLY_RESUMED = 37, /* unasked, id 0: another worker goes on; send RESUME and repeat */
    LKI_REPLY_EVENT = 38,   /* unasked, with id 0, to who sent MONITOR */
};

struct lki_hello {
    uint32_t protocol_major;
    uint32_t protocol_minor;
    uint32_t layout_major;
};

/* The flags are those of struct lk_segment_options (LK_CREATE and so on). */
struct lki_open {
    struct lki_bytes name; /* as the user wrote it, "~user" and "@group" already as numbers */
    uint32_t flags;
    uint64_t size_bytes;
    uint64_t size_max_bytes;
    uint32_t locks;
    uint32_t attachments_max;
    uint32_t mode;
    uint64_t patience_ns; /* as in the options: 0 the default, UINT64_MAX first in first out */
    bool offered;         /* a file's descriptor comes along */
    uint64_t lease_ns;    /* of the creator; 0: no lease */
    uint32_t on_expiry;   /* enum lk_on_expiry */
};

struct lki_segment_ref { /* PUBLISH, DETACH, NUDGE */
    uint32_t segment;
};

struct lki_remove {
    struct lki_bytes name;
};

struct lki_grow {
    uint32_t segment;
    uint64_t size_bytes;
};

struct lki_lock_named {
    uint32_t segment;
    struct lki_bytes name;
};

struct lki_acquire {
    uint32_t segment;
    uint32_t lock;
    uint32_t mode; /* LK_SHARED, LK_EXCLUSIVE or LK_UPDATE */
    bool to_exit;
    bool asynchronous;    /* takes a slot of its own, so that it does not block the session's other
                             waits */
    uint64_t deadline_ns; /* absolute, CLOCK_MONOTONIC; 0: try once; UINT64_MAX: never */
};

struct lki_cancel {
    uint64_t request; /* the id of the ACQUIRE */
};

struct lki_hold_ref { /* RELEASE, MARK_CONSISTENT, DECLARE */
    uint32_t segment;
    uint32_t lock;
    uint32_t attachment; /* the id that GRANTED named */
    uint64_t offset;     /* DECLARE alone */
    uint64_t length_bytes;
    bool one_way; /* RELEASE alone: there is no answer */
    bool to_exit; /* MARK_CONSISTENT alone: the hold is one to exit */
};

struct lki_change_mode {
    uint32_t segment;
    uint32_t lock;
    uint32_t attachment;
    uint32_t
        mode; /* LK_EXCLUSIVE: from update; LK_UPDATE: from exclusive; LK_SHARED: from either */
    uint64_t deadline_ns; /* of the first, as in lki_acquire */
};

struct lki_ask {
    uint32_t segment;
    uint32_t lock;
    uint32_t owner;    /* the id in the word; 0: the readers that are inside */
    uint64_t sequence; /* (owner, sequence) names one hold */
};

struct lki_lock_ref { /* HOLDER, DEADLOCK_CHECK */
    uint32_t segment;
    uint32_t lock;
};

struct lki_force_release {
    struct lki_bytes name; /* of the segment, as in OPEN */
    uint32_t lock;
    struct lki_bytes lock_name; /* empty: `lock` counts */
    struct lki_bytes reason;    /* for the log; not empty */
};

enum lki_list_what {
    LKI_LIST_SEGMENTS = 1,
    LKI_LIST_LOCKS = 2,  /* holders and waiters of every lock that has any */
    LKI_LIST_BROKER = 3, /* one entry: the broker itself */
    LKI_LIST_GRAPH = 4,  /* as LOCKS, of those that somebody waits for, also those of others */
};

struct lki_list_request {
    uint32_t what;         /* enum lki_list_what */
    uint64_t cursor;       /* 0 at first, then next_cursor of the page before */
    struct lki_bytes name; /* empty: all that the caller may see; else this segment alone */
};

/* Which worker it is: replaced ones may still lie in the sockets. */
struct lki_resume {
    uint32_t number;
};

struct lki_resumed {
    uint32_t number;
};

struct lki_monitor_request {
    struct lki_bytes name; /* empty: all that the caller may see; else of this segment alone */
};

struct lki_result {
    enum lki_status status;
    uint64_t value;
    struct lki_bytes detail; /* for people: what, why, who, what next; may be empty */
};

struct lki_opened {
    bool created;
    bool brokered; /* this attachment locks through the broker: read-only or strict */
    bool read_only;
    bool file;
    uint32_t segment;        /* the broker's number for it */
    uint32_t attachment;     /* id: generation and slot */
    uint64_t area_bytes;     /* size of the control area behind the first descriptor */
    uint64_t data_bytes_max; /* 0: no data, no second descriptor */
    uint32_t flags;          /* of the segment */
    uint32_t protocol_minor; /* of the broker; 0: before 4 */
};

struct lki_granted {
    enum lki_status status; /* LKI_STATUS_OK or LKI_STATUS_OWNER_DIED */
    uint32_t attachment;    /* the id that holds */
    uint64_t token;
    bool one_way; /* its RELEASE may be so */
};

struct lki_holder_is {
    int32_t pid; /* 0: nobody */
    uint32_t uid;
    uint32_t mode;
    uint32_t holders;
    uint32_t waiters;
    uint64_t token;
    uint64_t held_ns; /* how long, 0: not known */
    struct lki_bytes command;
};

enum lki_entry_state {
    LKI_ENTRY_HELD = 1,
    LKI_ENTRY_WAITING = 2,
    LKI_ENTRY_DRAINING = 3, /* owns the word and waits for readers */
    LKI_ENTRY_DAMAGED = 4,  /* nobody holds it; its last owner died inside */
};

/* One line of a listing. Which fields count depends on `what`. */
struct lki_list_entry {
    struct lki_bytes name;      /* segment: as the caller may write it. BROKER: the socket path */
    struct lki_bytes lock_name; /* LOCKS; may be empty */
    struct lki_bytes command;
    uint32_t lock;
    uint32_t state;   /* LOCKS: enum lki_entry_state */
    uint32_t mode;    /* LOCKS: 1 shared, 2 exclusive. SEGMENTS: permission bits */
    int32_t pid;      /* LOCKS: of this line's session. BROKER: of the broker */
    uint32_t uid;     /* LOCKS: of this line's session. SEGMENTS: the owner. BROKER: the broker's */
    uint32_t waiters; /* LOCKS held: how many wait. BROKER: sessions */
    uint32_t attachments; /* SEGMENTS: sessions attached. BROKER: segments */
    uint32_t locks;       /* SEGMENTS */
    uint32_t flags;       /* SEGMENTS: flags of the options. LOCKS: 1 = to exit */
    uint64_t token;       /* LOCKS */
    uint64_t since_ns;    /* LOCKS: how long held or waiting, 0: not known. BROKER: up since */
    uint64_t size_bytes;  /* SEGMENTS */
    uint64_t size_max_bytes;
    bool file;        /* SEGMENTS */
    uint64_t session; /* LOCKS, GRAPH: the broker's number for this line's session; 0: nobody */
    uint32_t segment; /* LOCKS, GRAPH: the broker's number for the segment */
};

struct lki_list_page {
    uint64_t next_cursor; /* 0: this was the last page */
    size_t count;
    const struct lki_list_entry *entries; /* at most LKI_LIST_PAGE_ENTRIES_MAX */
};

enum lki_event_kind {
    LKI_EVENT_SESSION_OPENED = 1, /* it has sent its first request behind HELLO */
    LKI_EVENT_SESSION_LOST = 2,   /* its connection has ended; what it holds stays for now */
    LKI_EVENT_SESSION_ENDED = 3,  /* nothing of it is left */
    LKI_EVENT_PROCESS_ENDED = 4,  /* one that had sessions */
    LKI_EVENT_SEGMENT_CREATED = 5,
    LKI_EVENT_SEGMENT_PUBLISHED = 6,
    LKI_EVENT_SEGMENT_GROWN = 7,
    LKI_EVENT_SEGMENT_REMOVED = 8, /* its name is free; it may live on without */
    LKI_EVENT_SEGMENT_ENDED = 9,
    LKI_EVENT_ATTACHED = 10,
    LKI_EVENT_DETACHED = 11,
    LKI_EVENT_LOCK_DAMAGED = 12,    /* its owner ended while changing data; repaired, marked */
    LKI_EVENT_LOCK_WAITED_FOR = 13, /* longer than a nap: of this session, by the one in `text` */
    LKI_EVENT_DEADLOCK = 14,        /* this session's wait was refused */
    LKI_EVENT_QUOTA = 15,           /* this session, or a connection of this uid, was refused */
    LKI_EVENT_DROPPED = 16,         /* its connection broke the rules, or could not be served */
};

/* What happened to whom. Which fields count depends on `kind`; docs/protocol.md has the table. */
struct lki_event {
    uint32_t kind;    /* enum lki_event_kind */
    uint64_t when_ns; /* CLOCK_MONOTONIC */
    int32_t pid;      /* whose doing or fate it is; 0: nobody's */
    uint32_t uid;
    struct lki_bytes command;
    uint64_t session;
    struct lki_bytes name;      /* of the segment, as the receiver may write it; empty: none */
    struct lki_bytes lock_name; /* may be empty */
    uint32_t segment;
    uint32_t lock;
    uint64_t token;
    uint32_t cause; /* enum lki_cause */
    uint64_t size_bytes;
    struct lki_bytes text; /* for people */
    uint64_t lost;         /* events that this receiver did not get, before this one */
};

struct lki_message {
    enum lki_message_type type;
    uint64_t id;
    union {
        struct lki_hello hello;
        struct lki_open open;
        struct lki_segment_ref segment_ref;
        struct lki_remove remove;
        struct lki_grow grow;
        struct lki_lock_named lock_named;
        struct lki_acquire acquire;
        struct lki_cancel cancel;
        struct lki_hold_ref hold_ref;
        struct lki_change_mode change_mode;
        struct lki_ask ask;
        struct lki_lock_ref lock_ref;
        struct lki_list_request list;
        struct lki_force_release force_release;
        struct lki_result result;
        struct lki_opened opened;
        struct lki_granted granted;
        struct lki_holder_is holder_is;
        struct lki_list_page list_page;
        struct lki_resume resume;
        struct lki_resumed resumed;
        struct lki_monitor_request monitor;
        struct lki_event event;
    } as;
};

/* The name of a message type for logs and errors: "open", "granted"; "unknown" for a value that is
 * no type. Static. Pure. */
const char *lki_message_type_name(enum lki_message_type type);
