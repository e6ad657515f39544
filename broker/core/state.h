/* SPDX-License-Identifier: MIT */
/* What the modules of the core share: the objects and how they hang together. Every object belongs
 * to the core; the links are
 *
 *     process --< session --< attachment >-- segment
 *
 * A *main* attachment is a session's place in a segment; *extras* are slots of their own for
 * asynchronous acquires, and end with their main. Nothing outside broker/core includes this. */
#pragma once

#include "broker/core/deadline.h"
#include "broker/core/effect.h"
#include "broker/core/hash.h"
#include "broker/core/ledger.h"
#include "broker/core/quota.h"
#include "broker/core/wait_graph.h"
#include "engine/repair.h"
#include "engine/wait.h"
#include "proto/name.h"

#define LKD_STEPS_MAX 64u /* brokered waits stepped in one event; more wait for the next tick */

struct lkd_core {
    struct lkd_core_config config;
    struct lkd_effects effects;
    struct lkd_ledger ledger;
    struct lkd_process *processes; /* by number */
    struct lkd_session *sessions;  /* by number, those not GONE */
    struct lkd_attachment *mains;  /* by session and segment, those LIVE */
    struct lkd_segment *by_name;   /* those that have a name still */
    struct lkd_segment *by_number; /* those not ENDED, in the order of their making */
    struct lki_list reserved;      /* struct lkd_reservation, see reservation.h */
    struct lki_list broken;        /* sessions to disconnect at the end of this event */
    struct lki_list ready;         /* attachments whose wait is to be stepped */
    struct lki_list repairs;       /* segments with somebody to repair, in turns */
    struct lki_list monitors;      /* who is told of events */
    uint64_t now_ns;               /* of the present event, for them */
    struct lkd_deadlines deadlines;
    struct lki_list leases; /* in the order of their making */
    struct lki_list forced; /* forced releases that wait for their end */
    struct lkd_deadlines lease_deadlines;
    uint32_t lease_count;
    uint32_t forced_count;
    struct lkd_quota quota;
    char refusal[LKD_TEXT_BYTES_MAX]; /* why the last session was not admitted */
    bool successor;                   /* there is something to take over, or was */
    uint32_t resumed;                 /* the number of this worker in RESUMED; 0: the first */
    uint64_t convicted_session;       /* 0: none; see lkd_core_blame() */
    uint32_t convicted_segment;
    uint64_t last_session;
    uint64_t last_epoch_s;
    uint32_t last_segment;
    uint32_t session_count;
    uint32_t segment_count; /* those not ENDED */
    struct lkd_wait_graph wait_graph;
    uint64_t deadlock_second_ns; /* in which deadlocks_logged were written to the log */
    uint32_t deadlocks_logged;
    uint64_t last_doubt; /* counts them, see doubt.h */
};

struct lkd_process {
    uint64_t number;
    bool ended;
    bool checked;
    uint64_t checked_ns; /* when CHECK_PROCESS was last asked for */
    struct lki_list sessions;
    struct lkd_effect_node check;
    struct lkd_effect_node signal;
    int signal_number; /* for that */
    struct lkd_effect_node look;
    UT_hash_handle by_number;
};

enum lkd_session_state {
    LKD_SESSION_GREETING, /* connected; HELLO has not come */
    LKD_SESSION_OPEN,
    LKD_SESSION_LEAVING, /* said goodbye, and is being cleaned up */
    LKD_SESSION_LOST,    /* no connection; its process lives, or it is being cleaned up */
    LKD_SESSION_GONE,    /* nothing left of it; FORGET_SESSION is on its way */
};

struct lkd_session {
    uint64_t number;
    enum lkd_session_state state;
    struct lkd_process *process;
    struct lki_list of_process;
    int32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint32_t group_count;
    uint32_t *groups;
    char command[32];
    struct lkd_account *account; /* until it is GONE */
    struct lkd_usage usage;
    uint64_t opened_ns;
    struct lki_list of_silent;         /* in its account, while GREETING */
    struct lkd_session_record *record; /* until it is GONE */
    bool requested;                    /* last_request counts */
    uint64_t last_request;
    /* Taken over from a worker that died: requests up to doubtful_until may have had their effect.
     */
    bool adopted;
    bool resuming;  /* RESUME has not come: nothing is answered, all of it will be asked again */
    bool repeating; /* the request at hand is doubtful */
    bool knows_1_4; /* its HELLO says so: one_way, to_exit, protocol_minor */
    uint64_t unanswered; /* the last request, if it is such a release; else 0 */
    uint64_t doubtful_until;
    uint64_t goodbye_request;
    struct lki_list attachments; /* mains and extras, until all their parts have ended */
    struct lki_list waits;       /* attachments with an unanswered acquire */
    uint32_t asynchronous_waits;
    struct lkd_wait_node wait_node; /* in the wait-for graph */
    uint64_t heard_doubt;           /* when this doubt came up, what is unread now was not there */
    uint64_t pass_doubt; /* the same once PASS_RECORDS more have been read, see doubt.h */
    uint32_t pass_records;
    struct lki_list parked; /* requests that wait for a segment */
    uint32_t parked_count;
    struct lki_list of_broken;
    char farewell[128];          /* why the connection ends */
    bool to_blame;               /* for that */
    bool introduced;             /* to the monitors, as a session */
    struct lkd_monitor *monitor; /* owned; NULL: it is told nothing */
    struct lkd_effect_node disconnect;
    struct lkd_effect_node forget;
    UT_hash_handle by_number;
};

enum lkd_attachment_state {
    LKD_ATTACHMENT_LIVE,
    LKD_ATTACHMENT_REPAIRING,
    LKD_ATTACHMENT_ENDED, /* its slot is given back; a main waits for its extras */
};

/* A brokered hold that was taken away, until its session has been told. */
#define LKD_FENCED_MAX 4u /* of one attachment and its extras; older ones are just not held */
struct lkd_fenced {
    uint32_t attachment; /* id; 0: none */
    uint32_t lock;
};

/* A ring that was seen, and may be none, see doubt.h. */
struct lkd_doubt {
    uint64_t number; /* 0: none */
    uint64_t ring;   /* the sum of what it consists of */
    uint32_t pauses; /* of the present wait, in doubt */
};

struct lkd_attachment_key {
    uint64_t session;
    uint64_t segment;
};

struct lkd_attachment {
    struct lkd_attachment_key key;
    enum lkd_attachment_state state;
    struct lkd_session *session;
    struct lkd_segment *segment;
    struct lkd_attachment_record *record; /* until it is ENDED */
    struct lkd_attachment *main;          /* itself, where it is no extra */
    struct lki_list of_session;
    struct lki_list extras; /* of a main: its extras */
    struct lki_list of_main;
    uint32_t parts; /* of a main: itself and its extras that have not ended */
    uint32_t slot;
    uint32_t id;
    bool brokered;
    bool read_only;
    bool creator;
    bool accepts_kill; /* of a main */
    uint64_t opened_ns;
    uint64_t asked_ns;     /* when it last asked about the readers of a lock */
    uint64_t refused_wait; /* the wait fact that was refused as a deadlock: no edge any more */
    struct lkd_doubt doubt;

    /* The hold for which monitors were last told that somebody waits, while it owns the word. */
    bool waited_for;
    uint32_t waited_lock;
    uint64_t waited_sequence;

    /* Brokered: what it waits for, and the last grant. */
    struct lki_party party;
    struct lki_wait wait;
    bool waiting;
    uint64_t acquire_request;
    enum lki_wait_phase checked_phase; /* as what it was last looked at for a deadlock, and when */
    uint64_t checked_ns;
    uint64_t recheck_ns;              /* so long after that again, if it is as the same */
    struct lki_list of_waits;         /* in its session */
    struct lki_list of_segment_waits; /* in its segment */
    struct lki_list of_ready;
    struct lkd_deadline deadline;
    bool granted;
    uint32_t granted_lock;
    bool granted_to_exit;
    uint64_t granted_ns;

    struct lki_list leases; /* on what it holds */
    struct lkd_fenced
        fenced[LKD_FENCED_MAX]; /* of a main: holds that were taken away, newest first */

    /* The end. */
    struct lki_list of_repairs;
    struct lki_repair repair;
    enum lki_cause cause;
    uint64_t ended_ns;
    bool detach_asked;
    uint64_t detach_request;

    struct lkd_effect_node wake;
    UT_hash_handle by_key;
};

enum lkd_segment_state {
    LKD_SEGMENT_MAKING,
    LKD_SEGMENT_UNPUBLISHED,
    LKD_SEGMENT_PUBLISHED,
    LKD_SEGMENT_ENDED, /* DROP_SEGMENT is on its way, or nothing was made */
};

struct lkd_name {  /* a segment's name, with its owner spelled out: the key of the registry */
    uint32_t kind; /* LKI_NAME_USER or LKI_NAME_GROUP */
    uint32_t id;
    uint8_t bytes[LKI_NAME_BYTES_MAX + 1];
};

struct lkd_slot {
    struct lkd_attachment *attachment; /* NULL: free */
    uint32_t generation;               /* the last one given, 0: none yet */
};

struct lkd_segment {
    struct lkd_core *core; /* for the engine's wake callback, which gets one pointer */
    uint32_t number;
    enum lkd_segment_state state;
    struct lkd_segment_record *record; /* from its making to its end */
    bool named;
    bool growing;
    bool file;
    bool quarantined; /* workers failed on it: its memory is not looked at any more */
    uint32_t name_bytes;
    struct lkd_name name;
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;
    uint32_t flags;
    uint32_t locks;
    uint32_t attachments_max;
    uint64_t patience_ns;
    uint64_t lease_ns;  /* 0: none */
    uint32_t on_expiry; /* enum lk_on_expiry */
    uint64_t file_device;
    uint64_t file_inode;
    uint64_t data_bytes;
    uint64_t data_bytes_max;
    uint64_t grow_bytes; /* while growing: the new size */
    struct lkd_segment_spec spec;
    struct lki_area area;
    struct lkd_slot *slots; /* slot_capacity entries; 0 is not used */
    uint32_t slot_capacity;
    uint32_t slots_taken;
    uint32_t lowest_free;     /* no slot below it is free */
    uint32_t last_generation; /* of slots of which nothing is known */
    uint64_t creator_session; /* who asked for it, with which request */
    uint64_t creator_request;
    struct lkd_account *account; /* who pays; NULL: not charged */
    uint64_t charged_session;    /* may have ended since */
    uint64_t offered_by;         /* session whose descriptor MAKE_SEGMENT is to use */
    struct lki_list parked;
    struct lkd_parked *leader; /* the request that is being made or grown for; NULL: it left */
    struct lki_list waits;     /* attachments whose wait the broker drives */
    struct lki_list repairs;   /* attachments being repaired, in order */
    struct lki_list of_repairs;
    bool orphaned; /* `orphan` is being repaired: an id that names nobody */
    struct lki_repair orphan;
    struct lkd_lock_name *lock_names;    /* by name */
    struct lkd_lock_name **lock_name_at; /* by index; NULL until the first name */
    uint32_t next_named;                 /* no entry from here on has a name */
    struct lkd_effect_node make;
    struct lkd_effect_node grow;
    struct lkd_effect_node drop;
    UT_hash_handle by_name;
    UT_hash_handle by_number;
};

/* What is worked on now, for whoever has to explain the worker's death. The ledger keeps it until
 * the event ends. (adopt.c) */
void lkd_work_on_session(struct lkd_core *core, uint64_t session);
void lkd_work_on_segment(struct lkd_core *core, uint32_t segment);
void lkd_work_done(struct lkd_core *core);

/* Applies a request; also one that was parked. */
void lkd_core_apply(struct lkd_core *core, struct lkd_session *session,
                    const struct lki_message *message, const struct lkd_offer *offer,
                    uint64_t now_ns);

/* The beginning of every event: what was lent to the driver is taken back. */
void lkd_core_begin(struct lkd_core *core, uint64_t now_ns);

/* The end of every event: disconnects who was broken, steps the waits that were woken. */
void lkd_core_settle(struct lkd_core *core, uint64_t now_ns);
