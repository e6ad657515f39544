/* SPDX-License-Identifier: MIT */
/* Plays an input as a sequence of events to the broker's core, over the world of the unit tests
 * (simulated driver, memory and time): clients by the book and against it, native ones over the
 * engine, the driver's answers, deaths of processes and of workers. After every event the core's own
 * checks run, and exclusion and tokens of segments that nobody scribbles over are checked from
 * outside. In the end all processes end, and nothing may be left. One play at a time. */
#pragma once

#include "fuzz.h"
#include "tests/unit/core/world.h"

struct play_rules {
    bool scribbles;   /* clients write anything into the areas of "x" and "~1000/y" */
    bool workers_die; /* at any step, also with the stores of that step in part undone */
    bool flips;       /* bits of the ledger turn while there is no worker */
};

void play(struct fuzz_input *input, const struct play_rules *rules);

/* --- Inside of the play --- */

#define PLAY_MEMBERS 8
#define PLAY_PROCESSES 5
#define PLAY_LOCKS 4u
#define PLAY_ATTACHMENTS 6u
#define PLAY_SEGMENTS 64u /* numbers that are looked at by the checks; numbers rise */
#define PLAY_NAMES 5

struct play_native {
    bool is_live;
    uint32_t segment;
    struct lki_area area;
    struct lki_party party;
    struct lki_wait wait;
};

struct play_member {
    uint64_t session; /* 0: none */
    uint64_t process;
    uint64_t acquires[4];
    uint32_t acquire_count;
    struct lki_message last; /* sent, without what it points to; type NONE: none */
    struct play_native natives[2];
    uint32_t native_count;
};

struct play_segment { /* of a number */
    bool hostile;
    uint64_t last_token[PLAY_LOCKS];
};

struct play {
    struct fuzz_input *input;
    const struct play_rules *rules;
    struct play_member members[PLAY_MEMBERS];
    uint64_t processes[PLAY_PROCESSES]; /* that live */
    bool killed[PLAY_PROCESSES];        /* it runs no more, and nobody has told the core */
    uint64_t last_process;
    struct play_segment segments[PLAY_SEGMENTS];
    uint32_t known[8]; /* segments that somebody has opened last */
    uint32_t known_count;
    struct { /* grants that were seen last */
        uint32_t segment, lock, attachment;
        uint64_t session;
    } holds[8];
    uint32_t hold_count;
    uint32_t opening[64]; /* name, by request id */
    uint32_t to_make[64], to_grow[64];
    size_t make_count, grow_count;
    bool answers_at_once;
    uint32_t barriers;
    bool repeated; /* requests came twice: so may tokens */
    bool flipped;  /* the ledger says what nobody wrote: nothing but the absence of bad accesses and
                    * endless loops is asked for */
    bool over;
    uint64_t steps_of_event;
};

extern struct play stage;

/* play.c */
void play_learn(void);                                /* what came since the last time */
struct play_member *play_member_of(uint64_t session); /* NULL: none */
uint32_t play_pick_segment(void);
void play_guarded(void (*event)(void)); /* an event to the core, in which a worker may die */

/* play_message.c */
void play_connect(struct play_member *member);
void play_message(struct play_member *member);

/* play_native.c */
void play_native_open(struct play_member *member, const struct lki_opened *opened);
void play_native_forget(struct play_member *member, uint32_t segment); /* 0: all */
void play_native_act(struct play_member *member);
void play_native_on_step(void);
void play_check_exclusion(void);
bool play_barrier(void); /* of eight one cannot be made */

/* play_death.c */
void play_death_setup(void);
void play_death_on_step(void);
void play_death_begin(void); /* of an event */
void play_arm_worker(void);  /* one of the next events is its last */
void play_next_worker(void);
void play_refused(void) __attribute__((noreturn));
