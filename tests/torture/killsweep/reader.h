/* SPDX-License-Identifier: MIT */
/* A reader of a biased lock in the crowd, and the barrier that makes it seen. It is the engine's own, but
 * for its store of the cell: that may be kept back, as in a processor's store buffer, until a barrier comes.
 * A real one is kept back for nanoseconds, which no death would hit. */
#pragma once

#include "stage.h"

/* Without a fence; where the lock is not biased, as any other. unseen, lingers: the store is kept back. */
enum lki_verdict reader_take(struct stage *stage, struct stage_actor *actor,
                             struct lki_party *party);
enum lki_verdict reader_release(struct stage *stage, struct stage_actor *actor,
                                struct lki_party *party);

/* Whether a store is kept back. Then reader_serve() has to be called again and again. */
bool reader_keeps(const struct stage_actor *actor);

/* Lets the store out if a barrier waits for it. */
void reader_serve(struct stage *stage, struct stage_actor *actor);

/* A lki_barrier_fn: returns when all that was kept back before is seen. user is the stage. */
bool reader_barrier(void *user);
