/* SPDX-License-Identifier: MIT */
#include "actors_stage.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define ROOT_PROCESS 99u

struct stage stage;

const char *const segment_names[NAMES] = {"~1000/x", "~1000/y", "~1000/z"};

uint32_t note_outcome(enum verb verb, int who, int type, int status)
{
    cr_assert(lt(u32, stage.telling->outcome_count, OUTCOMES_MAX));
    uint32_t index = stage.telling->outcome_count++;
    stage.telling->outcomes[index] =
        (struct outcome){.verb = verb, .who = who, .type = type, .status = status};
    return index;
}

/* What the actor itself does in a line: before the worker hears of it, and once. */
static void prepare(const struct line *line)
{
    struct actor *actor = &stage.actors[line->who];
    stage.line = line;
    stage.asked = NULL;
    stage.until_ns = world.now_ns + line->amount * LKI_NS_PER_MS;
    if (!is_repeated(line->verb)) {
        const struct lki_message message = message_of(actor, line);
        stage.asked = ask(actor, &message, line);
    }
    switch ((int)line->verb) {
    case RELEASE:
    case LET_GO:
        drop_hold(actor, line->name, line->lock);
        break;
    case DETACH:
        drop_holds(actor, line->name);
        break;
    case GOODBYE:
        drop_all_holds(actor);
        break;
    case LOSE:
        part(actor);
        break;
    case END_PROCESS:
        for (int who = 0; who < ACTORS; who++) {
            if (stage.actors[who].process != actor->process)
                continue;
            part(&stage.actors[who]);
            drop_all_holds(&stage.actors[who]);
        }
        break;
    default:
        break;
    }
}

static const struct line *tell_line(const struct line *line, bool dies)
{
    const struct line *next = line + 1;
    if (is_native(line)) {
        tell_native(line);
        nudge(&stage.actors[line->who], line);
        return next;
    }
    prepare(line);
    uint64_t before = world.steps;
    world.dies_at = dies ? world.steps + stage.deaths->step : 0;
    if (!lives(perform)) {
        const struct line *first = next;
        while (stage.deaths->natives && is_native(next))
            tell_native(next++);
        recover();
        if (next > first)
            nudge(&stage.actors[first->who], first);
    } else if (dies) {
        stage.toll.line_steps = world.steps - before;
    }
    world.dies_at = 0;
    return next;
}

/* Everybody ends; nothing is left. */
static void finish(void)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].session) {
            part(&stage.actors[who]);
            end_process(stage.actors[who].process);
        }
    work();
    uint64_t root = connect_as(0, ROOT_PROCESS);
    for (int name = 0; name < NAMES; name++)
        request_remove(root, segment_names[name]);
    request_goodbye(root);
    end_process(ROOT_PROCESS);
    work();
    for (uint32_t i = 0; i < LKI_ARRAY_LENGTH(world.areas); i++)
        cr_assert(eq(ptr, world.areas[i], NULL), "the memory of segment %u is left", i);
    cr_assert(eq(u64, lkd_core_deadline_ns(world.core), LKI_TIME_NEVER));
    crash();
    cr_assert(eq(u32, count_records(), 0), "records are left in the ledger");
}

void tell(const struct line *story, bool fifo, const struct deaths *deaths, struct telling *out,
          struct toll *out_toll)
{
    memset(&stage, 0, sizeof(stage));
    memset(out, 0, sizeof(*out));
    stage.fifo = fifo;
    stage.telling = out;
    stage.deaths = deaths;
    for (int who = 0; who < ACTORS; who++)
        stage.actors[who].process = (uint64_t)who + 1;
    world_setup();
    for (const struct line *line = story; line->verb != END;)
        line = tell_line(line, deaths->step && line == story + deaths->line);
    for (int who = 0; who < ACTORS; who++)
        for (uint32_t i = 0; i < stage.actors[who].asked_count; i++) {
            const struct asked *asked = &stage.actors[who].asked[i];
            if (!asked->one_way && stage.actors[who].connected && !asked->answered)
                out->outcomes[asked->outcome].type = 0; /* waits still */
        }
    finish();
    world_teardown();
    *out_toll = stage.toll;
}
