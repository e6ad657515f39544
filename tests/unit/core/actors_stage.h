/* SPDX-License-Identifier: MIT */
/* What the parts of actors.c share: who there is, what each has asked and was told, and the line that
 * is being told. */
#pragma once

#include "actors.h"

#define ASKED_MAX 64

struct asked {
    struct lki_message message;
    int name;
    bool one_way;
    bool answered;
    uint32_t outcome; /* index */
};

struct actor {
    uint64_t process;
    uint64_t session;
    bool connected;       /* it has a connection and does not know better */
    bool heard;           /* any reply: the hello has come */
    uint32_t resumes;     /* RESUMED that it has not answered */
    uint32_t resumed[16]; /* their numbers */
    struct asked asked[ASKED_MAX];
    uint32_t asked_count;
    struct lki_opened at[NAMES];
    bool open[NAMES];
    uint32_t held[NAMES][LOCKS];      /* attachment of a hold that it was told of; 0: none */
    uint32_t held_mode[NAMES][LOCKS]; /* 0: none */
    struct lki_party party[NAMES];
    bool has_party[NAMES];
    struct lki_wait wait;
    size_t wakes; /* that it had when it went to sleep */
};

struct stage {
    struct actor actors[ACTORS];
    bool fifo;
    struct telling *telling;
    uint64_t last_token[NAMES][LOCKS];
    size_t records_heard;
    bool nudge_due;
    const struct deaths *deaths;
    struct toll toll;
    uint64_t died_at;        /* steps */
    const struct line *line; /* the one that is told */
    struct asked *asked;     /* what it asks */
    uint64_t until_ns;       /* PASS */
};

extern struct stage stage;
extern const char *const segment_names[NAMES];

uint32_t note_outcome(enum verb verb, int who, int type, int status);

/* --- Holding and hearing (actors_hear.c) --- */
void take_hold(int who, int name, uint32_t lock, uint32_t mode, uint32_t attachment);
void drop_hold(struct actor *actor, int name, uint32_t lock);
void drop_holds(struct actor *actor, int name);
void drop_all_holds(struct actor *actor);
void part(struct actor *actor); /* its connection has ended */
void hear(void); /* all that came since the last time, whether or not the worker lives still */

/* --- Asking (actors_ask.c) --- */
struct lki_message message_of(const struct actor *actor, const struct line *line);
struct asked *ask(struct actor *actor, const struct lki_message *message, const struct line *line);

/* --- Natively (actors_native.c) --- */
bool is_native(const struct line *line);
void tell_native(const struct line *line);
void nudge(struct actor *actor,
           const struct line *line); /* where the last native line asks for it */

/* --- The worker's part, and its deaths (actors_worker.c) --- */
void perform(void *user);              /* what the worker does in the line */
bool lives(void (*event)(void *user)); /* whether it does at the end of that */
bool is_repeated(enum verb verb);
void recover(void); /* until the line is told, by whichever worker */
