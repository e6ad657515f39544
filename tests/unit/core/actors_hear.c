/* SPDX-License-Identifier: MIT */
#include "actors_stage.h"

#include "common/cleanup.h"

/* --- Holding --- */

void take_hold(int who, int name, uint32_t lock, uint32_t mode, uint32_t attachment)
{
    for (int other = 0; other < ACTORS; other++) {
        uint32_t others = stage.actors[other].held_mode[name][lock];
        bool conflict = others && (others == X || mode == X);
        cr_assert(eq(int, conflict, 0), "%d and %d both hold lock %u of %s", who, other, lock,
                  segment_names[name]);
    }
    stage.actors[who].held_mode[name][lock] = mode;
    stage.actors[who].held[name][lock] = attachment;
    if (mode == X && stage.telling->grant_count < OUTCOMES_MAX)
        stage.telling->grants[stage.telling->grant_count++] = (struct grant){who, name, lock};
}

void drop_hold(struct actor *actor, int name, uint32_t lock)
{
    actor->held[name][lock] = 0;
    actor->held_mode[name][lock] = 0;
}

void drop_holds(struct actor *actor, int name)
{
    for (uint32_t lock = 0; lock < LOCKS; lock++)
        drop_hold(actor, name, lock);
    actor->open[name] = false;
    actor->has_party[name] = false;
}

void drop_all_holds(struct actor *actor)
{
    for (int name = 0; name < NAMES; name++)
        drop_holds(actor, name);
}

/* --- Hearing --- */

void part(struct actor *actor)
{
    actor->connected = false;
    actor->resumes = 0;
    for (uint32_t i = 0; i < actor->asked_count; i++) {
        struct asked *asked = &actor->asked[i];
        if (asked->answered || asked->one_way)
            continue;
        asked->answered = true;
        stage.telling->outcomes[asked->outcome].type = -1;
    }
}

static void hear_granted(int who, const struct asked *asked, const struct lki_granted *granted)
{
    uint32_t lock = asked->message.as.acquire.lock;
    uint32_t mode = asked->message.as.acquire.mode;
    uint64_t *last = &stage.last_token[asked->name][lock];
    if (mode == X)
        cr_assert(lt(u64, *last, granted->token), "tokens have to rise");
    else
        cr_assert(le(u64, *last, granted->token));
    *last = granted->token;
    take_hold(who, asked->name, lock, mode, granted->attachment);
}

static void hear_reply(int who, const struct lki_message *message, const char *text)
{
    struct actor *actor = &stage.actors[who];
    struct asked *asked = NULL;
    for (uint32_t i = 0; i < actor->asked_count; i++)
        if (actor->asked[i].message.id == message->id)
            asked = &actor->asked[i];
    cr_assert(ne(ptr, asked, NULL), "%d was told what it did not ask", who);
    cr_assert(not(asked->answered), "%d: a second answer, '%s'", who, text);
    asked->answered = true;
    actor->heard = true;
    struct outcome *outcome = &stage.telling->outcomes[asked->outcome];
    outcome->type = (int)message->type;
    switch ((int)message->type) {
    case LKI_REPLY_OPENED:
        outcome->created = message->as.opened.created;
        actor->at[asked->name] = message->as.opened;
        actor->open[asked->name] = true;
        break;
    case LKI_REPLY_GRANTED:
        outcome->status = (int)message->as.granted.status;
        hear_granted(who, asked, &message->as.granted);
        break;
    default:
        cr_assert(eq(int, message->type, LKI_REPLY_RESULT));
        outcome->status = (int)message->as.result.status;
        outcome->value = message->as.result.value;
        break;
    }
}

static int who_is(uint64_t session)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].connected && stage.actors[who].session == session)
            return who;
    return -1;
}

static void note_resumed(struct actor *actor, uint32_t number)
{
    cr_assert(lt(u32, actor->resumes, LKI_ARRAY_LENGTH(actor->resumed)));
    actor->resumed[actor->resumes++] = number;
}

void hear(void)
{
    for (; stage.records_heard < world.record_count; stage.records_heard++) {
        const struct recorded *record = &world.records[stage.records_heard];
        const struct lkd_effect *effect = &record->effect;
        int who = who_is(effect->session);
        if (who < 0)
            continue;
        if (effect->kind == LKD_EFFECT_DISCONNECT)
            part(&stage.actors[who]);
        if (effect->kind != LKD_EFFECT_SEND)
            continue;
        if (effect->message.type == LKI_REPLY_RESUMED)
            note_resumed(&stage.actors[who], effect->message.as.resumed.number);
        else
            hear_reply(who, &effect->message, record->detail);
    }
}
