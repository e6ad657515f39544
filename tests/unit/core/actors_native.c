/* SPDX-License-Identifier: MIT */
#include "actors_stage.h"

#include "common/clock.h"

static void note_nudge(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)slot;
    stage.nudge_due |= brokered;
}

static struct lki_party *party_of(struct actor *actor, int name)
{
    static struct lki_area areas[ACTORS][NAMES];
    struct lki_area *area = &areas[actor - stage.actors][name];
    const struct lki_opened *at = &actor->at[name];
    if (actor->has_party[name])
        return &actor->party[name];
    cr_assert(actor->open[name]);
    int r = lki_area_view(world.areas[at->segment], at->area_bytes, area);
    cr_assert(eq(int, r, 0));
    cr_assert(lki_party_init(&actor->party[name], area, at->attachment, note_nudge, NULL));
    actor->has_party[name] = true;
    return &actor->party[name];
}

static size_t wakes_of(const struct actor *actor, int name)
{
    return count_wakes(actor->at[name].segment, actor->at[name].attachment & LKI_SLOT_MASK);
}

static enum lki_verdict step_native(struct actor *actor, int name)
{
    struct lki_sleep sleep;
    actor->wakes = wakes_of(actor, name);
    return lki_wait_step(&actor->wait, world.now_ns, &sleep);
}

/* Where it sleeps still, whoever let it in has woken it: its own look after the nap must not be what
 * saves it. */
static enum lki_verdict step_awake(struct actor *actor, int name)
{
    if (actor->wait.phase == LKI_WAIT_PHASE_ENDED)
        return LKI_TAKEN; /* it got through at an earlier look */
    size_t before = actor->wakes;
    enum lki_verdict verdict = step_native(actor, name);
    if (verdict != LKI_SLEEP)
        cr_assert(lt(sz, before, actor->wakes), "it could go on, and nobody woke it");
    return verdict;
}

static enum lki_verdict act_native(struct actor *actor, const struct line *line)
{
    struct lki_party *party = party_of(actor, line->name);
    switch ((int)line->verb) {
    case N_TRY:
        return lki_lock_try(party, line->lock, (enum lki_mode)line->mode, LKI_HOLD_DATA);
    case N_WAIT:
        lki_wait_begin(&actor->wait, party, line->lock, (enum lki_mode)line->mode, LKI_HOLD_DATA,
                       world.now_ns, LKI_TIME_NEVER);
        return step_native(actor, line->name);
    case N_STEP:
        return step_awake(actor, line->name);
    default:
        drop_hold(actor, line->name, line->lock);
        return lki_lock_release(party, line->lock);
    }
}

bool is_native(const struct line *line)
{
    return line->verb >= N_TRY;
}

void tell_native(const struct line *line)
{
    struct actor *actor = &stage.actors[line->who];
    enum lki_verdict verdict = act_native(actor, line);
    note_outcome(line->verb, line->who, 0, (int)verdict);
    bool taken = verdict == LKI_TAKEN || verdict == LKI_TAKEN_DIED;
    if (taken && line->verb != N_RELEASE && !actor->held_mode[line->name][line->lock])
        take_hold(line->who, line->name, line->lock, line->mode, actor->at[line->name].attachment);
}

void nudge(struct actor *actor, const struct line *line)
{
    const struct lki_message message = {.type = LKI_REQUEST_NUDGE,
                                        .as.segment_ref = {actor->at[line->name].segment}};
    if (!stage.nudge_due)
        return;
    stage.nudge_due = false;
    send_again(actor->session, &ask(actor, &message, NULL)->message);
    hear();
}
