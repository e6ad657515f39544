/* SPDX-License-Identifier: MIT */
/* Leases: how long a hold may last on while somebody waits for it, and what becomes of a holder
 * that holds on. A lease object exists for a hold that somebody has complained about, or that is to
 * be released by force, never for one that is in nobody's way; so nothing here costs a lock that is
 * not waited for, and no timer runs without a complaint. docs/architecture.md has the reasons. */
#pragma once

#include "broker/core/state.h"

enum lkd_lease_phase {
    LKD_LEASE_RUNNING,   /* the clock runs */
    LKD_LEASE_REPORTED,  /* over, and all that is done about this hold was done */
    LKD_LEASE_ASKED,     /* SIGTERM was sent; the grace runs */
    LKD_LEASE_LOOKING,   /* the grace is over; what does the process do? */
    LKD_LEASE_KILLED,    /* SIGKILL was sent; its end will be told */
    LKD_LEASE_EXAMINING, /* it has not ended for long: why not? */
    LKD_LEASE_STUCK,     /* it cannot end, and was reported; its end will be told all the same */
};

/* One hold. Ends with the hold, with its attachment, or when nobody waits any more. */
struct lkd_lease {
    struct lki_list of_core;
    struct lki_list of_holder;
    struct lkd_attachment *holder; /* LIVE or REPAIRING */
    uint32_t lock;
    bool shared;
    bool forced;       /* by a person: nobody need wait */
    uint64_t sequence; /* exclusive: the hold is (holder's id, sequence) */
    uint32_t drainer;  /* shared: id that waits for the readers, and since when; this names the */
    uint64_t drain_ns; /* hold, since no reader can come in while one drains; 0: forced */
    enum lkd_lease_phase phase;
    uint64_t since_ns;    /* first complaint */
    uint64_t same_uid_ns; /* last complaint by a session of the holder's user; 0: none */
    uint64_t asked_ns;    /* when SIGTERM was sent */
    uint64_t step_ns;     /* when this phase is over */
    uint32_t sightings;   /* of a reader's cell */
    bool traced;          /* that a debugger has stopped it was told */
    struct lkd_deadline deadline;
};

/* The session behind `asker`, which waits for the lock, complains about the hold (owner, sequence);
 * or, draining, about the readers inside. Anything else than what is there now is ignored. */
void lkd_lease_complain(struct lkd_core *core, const struct lkd_attachment *asker, uint32_t lock,
                        uint32_t owner, uint64_t sequence, uint64_t now_ns);
void lkd_lease_complain_readers(struct lkd_core *core, const struct lkd_attachment *asker,
                                uint32_t lock, uint64_t now_ns);

/* Ends this hold now, as if its lease was over: by its process, or by a fence where the segment has
 * those and the hold is brokered. False: no memory, or too many leases. */
bool lkd_lease_force(struct lkd_core *core, struct lkd_attachment *holder, uint32_t lock,
                     uint64_t now_ns);

/* Takes the steps that are due. */
void lkd_lease_due(struct lkd_core *core, uint64_t now_ns);

/* The repair of a holder is complete. */
void lkd_lease_holder_ended(struct lkd_core *core, struct lkd_attachment *holder);

/* Frees the leases of an attachment; nobody is told. */
void lkd_lease_forget(struct lkd_core *core, struct lkd_attachment *holder);

/* Whether its process was told to end because of what it holds. */
bool lkd_lease_is_ending(const struct lkd_attachment *holder);

/* --- Words (lease_text.c) --- */

/* "report", "kill" or "fence" */
const char *lkd_lease_policy(uint32_t on_expiry);

/* One line in the log about the hold: what was done, then who holds what and who waits. */
void lkd_lease_log(struct lkd_core *core, const struct lkd_lease *lease, uint64_t now_ns,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));
