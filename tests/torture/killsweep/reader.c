/* SPDX-License-Identifier: MIT */
/* The inline paths have the hook of the store here, also where the engine was built without. */
#ifndef LKI_STEPS
#define LKI_STEPS 1
#define OWN_HOOKS
#endif
#include "reader.h"

#include <sched.h>

#include "engine/fast.h"
#include "tests/support/process.h"

#ifdef OWN_HOOKS
void (*lki_step_hook)(const char *name);
bool (*lki_store_hook)(_Atomic uint32_t *where, uint32_t value);
#endif

/* The store buffer of this process, with room for one. */
static struct {
    struct stage *stage;
    struct stage_actor *actor;
    _Atomic uint32_t *where;
    uint32_t value;
    uint32_t barriers; /* that had been asked for before */
} kept;

static bool keep(_Atomic uint32_t *where, uint32_t value)
{
    /* In this order: a barrier that finds nothing kept comes before our second look at the word. */
    kept.barriers = atomic_load(&kept.stage->shared->barriers);
    kept.where = where;
    kept.value = value;
    atomic_store(&kept.actor->keeps, 1);
    return true;
}

static void let_out(struct stage_actor *actor)
{
    if (!reader_keeps(actor))
        return;
    atomic_store(kept.where, kept.value);
    atomic_store(&actor->keeps, 0);
}

bool reader_keeps(const struct stage_actor *actor)
{
    return atomic_load(&actor->keeps) != 0;
}

void reader_serve(struct stage *stage, struct stage_actor *actor)
{
    if (reader_keeps(actor) && atomic_load(&stage->shared->barriers) != kept.barriers)
        let_out(actor);
}

enum lki_verdict reader_take(struct stage *stage, struct stage_actor *actor,
                             struct lki_party *party)
{
    kept.stage = stage;
    kept.actor = actor;
    lki_store_hook = actor->role.unseen ? keep : NULL;
    enum lki_fenceless taken = lki_hot_take_fenceless(&stage->area.hot[STAGE_LOCK],
                                                      &party->self->cells[0], STAGE_LOCK + 1);
    lki_store_hook = NULL;
    if (taken == LKI_FENCELESS_DONE)
        return LKI_TAKEN;
    let_out(actor);
    if (taken == LKI_FENCELESS_AGAIN && lki_hot_take_shared(party, STAGE_LOCK))
        return LKI_TAKEN;
    return lki_lock_try(party, STAGE_LOCK, LKI_MODE_SHARED, LKI_HOLD_DATA);
}

enum lki_verdict reader_release(struct stage *stage, struct stage_actor *actor,
                                struct lki_party *party)
{
    let_out(actor);
    kept.stage = stage;
    kept.actor = actor;
    lki_store_hook = actor->role.lingers ? keep : NULL;
    enum lki_fenceless left = lki_hot_leave_fenceless(&stage->area.hot[STAGE_LOCK],
                                                      &party->self->cells[0], STAGE_LOCK + 1);
    lki_store_hook = NULL;
    while (reader_keeps(actor) && left != LKI_FENCELESS_AGAIN &&
           !atomic_load(&stage->shared->last)) {
        reader_serve(stage, actor);
        sched_yield();
    }
    let_out(actor);
    if (left == LKI_FENCELESS_AGAIN)
        lki_cell_leave(party, STAGE_LOCK, 0);
    return left != LKI_FENCELESS_NOT ? LKI_RELEASED : lki_lock_release(party, STAGE_LOCK);
}

bool reader_barrier(void *user)
{
    struct stage *stage = user;
    if (stage->no_barrier)
        return true;
    atomic_fetch_add(&stage->shared->barriers, 1);
    for (unsigned i = 0; i < STAGE_ACTORS; i++)
        while (reader_keeps(&stage->shared->actors[i]))
            sched_yield();
    return true;
}
