/* SPDX-License-Identifier: MIT */
/* What must never be, whatever happens. It knows what the clients were told and what stands in the
 * shared memory, and nothing of the core. */
#pragma once

#include "engine/lock.h"
#include "tests/sim/kernel.h"

void oracle_init(void);
void oracle_view_area(struct sim_area *area); /* as soon as it is laid out */

/* --- What clients were told --- */
struct oracle_hold {
    struct sim_area *area;
    uint32_t lock;
    int task;
    enum lki_mode mode;
    bool to_exit;
    uint64_t token;
};

/* Asserts that nobody else has it in a mode that conflicts, that the token has risen, and that damage
 * was told exactly when there is some. */
void oracle_taken(const struct oracle_hold *hold, bool told_damage, uint64_t token);
void oracle_releasing(const struct oracle_hold *hold); /* about to */
void oracle_released(const struct oracle_hold *hold);  /* the call has returned */
void oracle_marked(const struct oracle_hold *hold);
void oracle_check_mark(const struct oracle_hold *hold, uint64_t token);
/* A hold for update has become exclusive: asserts the same of it. */
void oracle_upgraded(struct oracle_hold *hold, bool told_damage, uint64_t token);
void oracle_downgrading(struct oracle_hold *hold, enum lki_mode mode); /* about to */
void oracle_downgraded(const struct oracle_hold *hold, uint64_t token);
void oracle_task_ended(int task); /* it runs no more, and believes nothing */

/* The core is about to learn that the attachments of a process (or, pid SIM_NOBODY, of a session, in
 * one segment, or in all if 0) have ended: which locks have to be told as damaged from here on. */
void oracle_expect_damage(int32_t pid, uint64_t session, uint32_t segment);

/* --- Rings of waits --- */
void oracle_look_for_rings(void);            /* the core may look now */
void oracle_forget_rings(void);              /* what it looked at is over */
void oracle_check_refused(uint64_t session); /* was told that its wait would never end */

/* --- At certain moments --- */

/* Nobody runs, and nothing is under way: whoever sleeps has a reason. */
void oracle_check_calm(void);
/* The same, and everybody has let go of all. */
void oracle_check_rest(void);
/* All have ended: nothing is left. */
void oracle_check_end(void);

/* Who holds and who waits, with --trace. */
void oracle_note_all(void);

/* Planted mistakes. */
void oracle_hide_damage(void);
void oracle_turn_tokens_back(void);
