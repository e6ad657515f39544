/* SPDX-License-Identifier: MIT */
#include "actors_stage.h"

static struct actor *actor_of_line(void)
{
    return &stage.actors[stage.line->who];
}

static void connect_actor(struct actor *actor)
{
    const struct lkd_peer peer = {
        .pid = (int32_t)actor->process, .uid = 1000, .gid = 1000, .process = actor->process};
    actor->session = connect_peer(&peer);
    actor->connected = true;
}

void perform(void *user)
{
    (void)user;
    struct actor *actor = actor_of_line();
    switch ((int)stage.line->verb) {
    case CONNECT:
        if (!actor->connected)
            connect_actor(actor);
        break;
    case LOSE:
        lose(actor->session);
        return;
    case END_PROCESS:
        end_process(actor->process);
        return;
    case TICK:
        tick_slice((uint32_t)stage.line->amount);
        return;
    case WORK:
        work();
        return;
    case PASS:
        while (lkd_core_deadline_ns(world.core) <= stage.until_ns) {
            if (lkd_core_deadline_ns(world.core) > world.now_ns)
                world.now_ns = lkd_core_deadline_ns(world.core);
            tick();
        }
        world.now_ns = stage.until_ns;
        return;
    default:
        break;
    }
    if (actor->connected && stage.asked)
        send_again(actor->session, &stage.asked->message);
}

/* What a driver or a client does once more when the worker died over it. */
bool is_repeated(enum verb verb)
{
    return verb == LOSE || verb == END_PROCESS || verb == TICK || verb == WORK || verb == PASS;
}

/* --- Recovery --- */

static bool is_left(uint64_t session)
{
    for (uint32_t i = 0; i < world.left_count; i++)
        if (world.left_sessions[i] == session)
            return true;
    return false;
}

/* Connections that the dead worker had given up. */
static void part_cut(void)
{
    for (int who = 0; who < ACTORS; who++)
        if (stage.actors[who].connected && !is_left(stage.actors[who].session))
            part(&stage.actors[who]);
}

/* A session that was taken over and that nobody knows is the one that was being opened. */
static void find_opened(void)
{
    struct actor *actor = actor_of_line();
    if (stage.line->verb != CONNECT || actor->connected)
        return;
    for (uint32_t i = 0; i < world.left_count; i++) {
        bool known = false;
        for (int who = 0; who < ACTORS; who++)
            known |= stage.actors[who].session == world.left_sessions[i];
        if (known)
            continue;
        actor->session = world.left_sessions[i];
        actor->connected = true;
    }
}

static void do_take_over(void *user)
{
    (void)user;
    take_over();
}

static void repeat_all(struct actor *actor)
{
    for (uint32_t i = 0; i < actor->asked_count && actor->connected; i++) {
        const struct asked *asked = &actor->asked[i];
        bool hello = asked->message.type == LKI_REQUEST_HELLO && !actor->heard;
        if (hello || (!asked->one_way && !asked->answered)) {
            send_again(actor->session, &asked->message);
            hear();
        }
    }
}

static void do_resume(void *user)
{
    (void)user;
    struct actor *actor = actor_of_line();
    if (stage.deaths->stale && stage.asked && stage.line->verb != LET_GO && actor->connected)
        send_again(actor->session, &stage.asked->message);
    for (int who = 0; who < ACTORS; who++) {
        struct actor *resuming = &stage.actors[who];
        uint32_t count = resuming->resumes;
        resuming->resumes = 0;
        for (uint32_t i = 0; i < count && resuming->connected; i++) {
            resume_as(resuming->session, resuming->resumed[i]);
            repeat_all(resuming);
        }
    }
}

bool lives(void (*event)(void *user))
{
    bool alive = survives(event, NULL);
    hear();
    if (alive)
        return true;
    if (stage.toll.count++ == 0)
        stage.died_at = world.steps;
    uint64_t next = stage.toll.count == 1   ? stage.deaths->second_step
                    : stage.toll.count == 2 ? stage.deaths->third_step
                                            : 0;
    world.dies_at = next ? world.steps + next : 0;
    return false;
}

void recover(void)
{
    bool unread = stage.line->verb == LET_GO;
    for (;;) {
        if (!lives(do_take_over))
            continue;
        find_opened();
        part_cut();
        if (unread && !lives(perform))
            continue;
        unread = false;
        if (!lives(do_resume))
            continue;
        bool again = is_repeated(stage.line->verb) ||
                     (stage.line->verb == CONNECT && !actor_of_line()->connected);
        if (!again || lives(perform))
            break;
    }
    world.dies_at = 0;
    stage.toll.recovery_steps = world.steps - stage.died_at;
}
