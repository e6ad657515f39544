/* SPDX-License-Identifier: MIT */
/* One death beside a crowd: sets the scene of a call, looks what the victim has when it is to die, and
 * afterwards whether all is as it has to be. For those that kill the victim and those that kill the
 * broker's worker meanwhile. */
#pragma once

#include "call.h"

enum mistake { /* to be planted, to see that it is found */
               MISTAKE_NONE,
               MISTAKE_TOLD,       /* the next owner is told although nothing was torn */
               MISTAKE_UNTOLD,     /* the next owner is not told */
               MISTAKE_HOLD,       /* the dead one's word stays */
               MISTAKE_SLOT,       /* its slot stays */
               MISTAKE_DESCRIPTOR, /* the broker keeps something open */
               MISTAKE_TOKEN,      /* the sequence falls */
               MISTAKE_TWICE,      /* the lock is granted beside the victim */
               MISTAKE_RESULT,     /* a call gives something else than it would without a death */
               MISTAKE_HANG,       /* no other worker goes on */
};
enum mistake mistake_of(const char *name); /* aborts with a word */

struct scene {
    struct crowd crowd;
    struct call_shared *shared;
    enum mistake planted;
    int file_fd;
    bool stuck;                        /* nothing can go on */
    void (*asks)(struct scene *scene); /* before the victim's asynchronous request; NULL: nothing */
    uint64_t held_sequence;            /* when the victim stands before its call */
    uint64_t settled;
    uint64_t inside;
    uint64_t damaged;
};

/* What is known of the lock while the victim stands still. */
struct sample {
    bool settled; /* the broker has nothing to do any more */
    bool owns;    /* the victim has the word */
    uint32_t word;
    uint64_t sequence;
};

void scene_init(struct scene *scene, enum mistake planted);
void scene_deinit(struct scene *scene);

/* Returns the victim, which stands before its call, with the crowd around it. slow: see call.h. */
pid_t scene_set(struct scene *scene, const struct call *call, bool slow);

/* Whether it is granted, or expires, is a matter of time: nothing can be said of what it held. */
bool scene_may_expire(const struct call *call);

/* Lets the broker do what there is to do, and looks. */
void scene_sample(struct scene *scene, const struct call *call, pid_t pid,
                  struct sample *out_sample);

/* Its release has returned, and the broker has not read it yet. */
bool scene_release_comes(const struct scene *scene, const struct call *call);

/* Returns when its upgrade waits for readers, who stay. */
void scene_await_upgrade(struct scene *scene, const struct call *call);

enum scene_when {
    SCENE_AT_START, /* of the call */
    SCENE_MEANWHILE,
    SCENE_AT_END,
};
void scene_check_sample(struct scene *scene, const struct call *call, enum scene_when when,
                        const struct sample *sample);

/* The victim is dead: the rest of the crowd goes on, and everything is checked. */
void scene_end(struct scene *scene, const struct call *call, pid_t pid, const struct sample *sample,
               uint64_t died_ns);
