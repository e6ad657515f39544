/* SPDX-License-Identifier: MIT */
#include "tests/stress/engine/schedule.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "common/assert.h"

#define STACK_BYTES ((size_t)64 * 1024)
#define STEPS_MAX 4096 /* of one run; more is a loop without end */
#define NOBODY (-1)

enum actor_state {
    ACTOR_READY,
    ACTOR_ASLEEP,
    ACTOR_ENDED,
};

struct actor {
    ucontext_t context;
    enum actor_state state;
    schedule_fn run;
    void *argument;
    unsigned alarms; /* left */
    bool mortal;
    bool alarmed;
};

enum choice_kind {
    CHOOSE_ACTOR,
    CHOOSE_ALARM,
    CHOOSE_DEATH,
};

struct choice {
    enum choice_kind kind;
    int actor;
};

static char stacks[SCHEDULE_ACTORS_MAX][STACK_BYTES] __attribute__((aligned(16)));
static struct actor actors[SCHEDULE_ACTORS_MAX];
static int actors_count;
static int current = NOBODY;
static ucontext_t scheduler;
static const struct schedule_plan *plan;
static unsigned preemptions_left;
static unsigned deaths_left;

/* The path of this run: which option was taken at each choice, and of how many. */
static struct {
    unsigned char taken;
    unsigned char count;
} path[STEPS_MAX];
static unsigned path_length;
static unsigned path_position;

static struct {
    const char *name;
    int actor;
} trace[STEPS_MAX];
static unsigned trace_length;

static void note(int actor, const char *name)
{
    if (trace_length == STEPS_MAX)
        schedule_fail("the run does not end");
    trace[trace_length].actor = actor;
    trace[trace_length++].name = name;
}

void schedule_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("FAILED: ", stdout);
    vprintf(format, arguments);
    va_end(arguments);
    fputs("\nThe schedule (actor: steps):", stdout);
    for (unsigned i = 0; i < trace_length; i++) {
        if (i == 0 || trace[i].actor != trace[i - 1].actor)
            printf("\n  %d:", trace[i].actor);
        printf(" %s", trace[i].name);
    }
    fputs("\n", stdout);
    fflush(stdout);
    _Exit(1);
}

static unsigned choose(unsigned count)
{
    if (count == 1)
        return 0;
    if (path_position == path_length) {
        path[path_length].taken = 0;
        path[path_length++].count = (unsigned char)count;
    }
    LKI_ASSERT(path[path_position].count == count); /* else a run depends on more than its path */
    return path[path_position++].taken;
}

/* Steps to the next path. False: all were run. */
static bool next_path(void)
{
    while (path_length > 0 && path[path_length - 1].taken + 1 == path[path_length - 1].count)
        path_length--;
    if (path_length == 0)
        return false;
    path[path_length - 1].taken++;
    return true;
}

/* What can happen now, the cheapest first. */
static unsigned list_options(struct choice *options)
{
    unsigned count = 0;
    bool goes_on = current != NOBODY && actors[current].state == ACTOR_READY;

    if (goes_on)
        options[count++] = (struct choice){CHOOSE_ACTOR, current};
    if (!goes_on || preemptions_left > 0) {
        for (int i = 0; i < actors_count; i++) {
            if (i != current && actors[i].state == ACTOR_READY)
                options[count++] = (struct choice){CHOOSE_ACTOR, i};
        }
        if (count == 0)
            return 0; /* whoever sleeps now has been forgotten: time must not hide it */
        for (int i = 0; i < actors_count; i++) {
            if (actors[i].state == ACTOR_ASLEEP && actors[i].alarms > 0)
                options[count++] = (struct choice){CHOOSE_ALARM, i};
        }
    }
    if (deaths_left == 0)
        return count;
    for (int i = 0; i < actors_count; i++) {
        if (actors[i].mortal && (goes_on ? i == current : actors[i].state == ACTOR_ASLEEP))
            options[count++] = (struct choice){CHOOSE_DEATH, i};
    }
    return count;
}

/* Decides who runs next; NOBODY when all sleep or have ended. */
static int decide(void)
{
    for (;;) {
        struct choice options[3 * SCHEDULE_ACTORS_MAX];
        unsigned count = list_options(options);
        if (count == 0)
            return NOBODY;
        struct choice choice = options[choose(count)];
        struct actor *actor = &actors[choice.actor];
        bool goes_on = current != NOBODY && actors[current].state == ACTOR_READY;
        switch (choice.kind) {
        case CHOOSE_ACTOR:
            if (goes_on && choice.actor != current)
                preemptions_left--;
            return choice.actor;
        case CHOOSE_ALARM:
            if (goes_on)
                preemptions_left--;
            actor->alarms--;
            actor->alarmed = true;
            actor->state = ACTOR_READY;
            note(choice.actor, "ALARM");
            return choice.actor;
        case CHOOSE_DEATH:
            deaths_left--;
            actor->state = ACTOR_ENDED;
            note(choice.actor, "KILLED");
            plan->died(plan->user, choice.actor);
            break;
        }
    }
}

static void run_actor(void)
{
    struct actor *actor = &actors[current];
    actor->run(actor->argument);
    actor->state = ACTOR_ENDED;
    swapcontext(&actor->context, &scheduler);
}

int schedule_spawn(schedule_fn run, void *argument, unsigned alarms, bool mortal)
{
    LKI_ASSERT(actors_count < SCHEDULE_ACTORS_MAX);
    int index = actors_count++;
    struct actor *actor = &actors[index];
    *actor = (struct actor){.run = run, .argument = argument, .alarms = alarms, .mortal = mortal};
    getcontext(&actor->context);
    actor->context.uc_stack.ss_sp = stacks[index];
    actor->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&actor->context, run_actor, 0);
    return index;
}

/* Hands over to whoever is decided for. Returns when this actor runs again. */
static void hand_over(void)
{
    int self = current;
    int next = decide();
    if (next == self)
        return;
    current = next;
    swapcontext(&actors[self].context, next == NOBODY ? &scheduler : &actors[next].context);
}

int schedule_current(void)
{
    return current;
}

void schedule_step(const char *name)
{
    if (current == NOBODY)
        return;
    note(current, name);
    hand_over();
}

bool schedule_sleep(void)
{
    struct actor *actor = &actors[current];
    note(current, "(sleeps)");
    actor->state = ACTOR_ASLEEP;
    actor->alarmed = false;
    hand_over();
    return actor->alarmed;
}

void schedule_wake(int actor)
{
    if (actors[actor].state == ACTOR_ASLEEP)
        actors[actor].state = ACTOR_READY;
}

static void run_once(void)
{
    actors_count = 0;
    current = NOBODY;
    path_position = 0;
    trace_length = 0;
    preemptions_left = plan->preemptions;
    deaths_left = plan->deaths;
    plan->setup(plan->user);
    for (;;) { /* an actor that ends comes back here */
        int next = decide();
        current = next;
        if (next == NOBODY)
            break;
        swapcontext(&scheduler, &actors[next].context);
        if (current == NOBODY)
            break;
    }
    current = NOBODY;
    for (int i = 0; i < actors_count; i++) {
        if (actors[i].state == ACTOR_ASLEEP)
            schedule_fail("actor %d sleeps and nobody will wake it", i);
    }
    plan->finished(plan->user);
}

unsigned long schedule_explore(const struct schedule_plan *new_plan)
{
    unsigned long runs = 0;

    plan = new_plan;
    path_length = 0;
    do {
        run_once();
        runs++;
    } while (next_path());
    return runs;
}
