/* SPDX-License-Identifier: MIT */
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/assert.h"
#include "engine/step.h"
#include "tests/sim/faults.h"
#include "tests/sim/oracle.h"
#include "tests/sim/program.h"
#include "tests/sim/stores.h"
#include "tests/sim/worker.h"

/* Simulated time within which everybody has to come to rest once nothing goes wrong any more. */
#define REST_NS (20 * LKI_NS_PER_S)
#define DISPATCHES_MAX 4000000u /* of one run: more is a loop without end */

struct sim sim;
struct sim_seen sim_seen;

static struct fiber *fibers[SIM_TASKS];
static jmp_buf failed_outside; /* of any task */

/* --- Saying --- */

static const char *task_name(void)
{
    static char name[32];
    if (!sim.current)
        return "-";
    uint32_t index = (uint32_t)(sim.current - sim.tasks);
    if (index == SIM_WORKER)
        return "worker";
    (void)snprintf(name, sizeof(name), "%u/%d", index, sim.processes[sim.current->process].pid);
    return name;
}

void sim_note(const char *format, ...)
{
    if (!sim.trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%8llu %12.6f %-7s ", (unsigned long long)sim.dispatches, (double)sim.now_ns / 1e9,
           task_name());
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

void sim_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (!sim.failed)
        (void)vsnprintf(sim.failure, sizeof(sim.failure), format, arguments);
    va_end(arguments);
    sim.failed = true;
    sim_note("VIOLATION: %s", sim.failure);
    if (!sim.current)
        longjmp(failed_outside, 1);
    for (;;)
        fiber_yield(); /* and is never resumed */
}

/* --- Tasks --- */

static uint32_t owner_of(const struct sim_task *task)
{
    return task == &sim.tasks[SIM_WORKER] ? MEMORY_WORKER
                                          : MEMORY_PROCESS + (uint32_t)task->process;
}

static void start_task(uint32_t index, int process, fiber_fn run)
{
    struct sim_task *task = &sim.tasks[index];
    LKI_ASSERT(!task->live);
    *task = (struct sim_task){.fiber = fibers[index],
                              .live = true,
                              .process = process,
                              .ready_ns = sim.now_ns,
                              .doing = "begins"};
    fiber_start(task->fiber, run, task);
}

bool sim_task_is_paused(const struct sim_task *task)
{
    return task->process == SIM_NOBODY ? task->paused : sim.processes[task->process].paused;
}

static void draw_slice(struct sim_task *task)
{
    /* Mostly short, now and then long enough for whole operations. */
    task->steps_left =
        sim_chance(300) ? 1 + sim_below(4 * sim.plan.slice_max) : 1 + sim_below(sim.plan.slice_max);
}

void sim_step(const char *name)
{
    struct sim_task *self = sim.current;
    if (!self)
        return;
    sim_seen.steps++;
    bool in_core = self == &sim.tasks[SIM_WORKER] && worker_in_core();
    bool goes_on = --self->steps_left > 0;
    /* The core gives up a wait that it refuses before anybody is told: it stands there still. And what it has
     * seen may be over when the others have run. */
    if (in_core && (!goes_on || strcmp(name, "publish_wait") == 0))
        oracle_look_for_rings();
    if (goes_on)
        return;
    self->ready_ns = sim.now_ns;
    fiber_yield();
    if (in_core)
        oracle_look_for_rings();
}

void sim_block(uint64_t until_ns)
{
    struct sim_task *self = sim.current;
    stores_show(self);
    self->ready_ns = until_ns;
    fiber_yield();
}

void sim_compute(void)
{
    struct sim_task *self = sim.current;
    self->ready_ns =
        sim.now_ns + sim_between(0, self->slow ? 20 * LKI_NS_PER_MS : 60 * LKI_NS_PER_US);
    fiber_yield();
}

void sim_wake(struct sim_task *task, uint64_t at_ns)
{
    if (at_ns < task->ready_ns)
        task->ready_ns = at_ns;
}

void sim_wake_worker(uint64_t at_ns)
{
    struct sim_task *task = &sim.tasks[SIM_WORKER];
    if (task->live)
        sim_wake(task, at_ns);
}

bool sim_faults(void)
{
    return sim.phase == SIM_FAULTS;
}

/* --- Processes --- */

int sim_process_of_pid(int32_t pid)
{
    int process = pid - SIM_FIRST_PID;
    return process >= 0 && process < sim.process_count ? process : SIM_NOBODY;
}

static int add_process(uint32_t slot, uint32_t tasks)
{
    LKI_ASSERT(sim.process_count < SIM_PROCESSES_MAX);
    int index = sim.process_count++;
    sim.processes[index] =
        (struct sim_process){.pid = SIM_FIRST_PID + index,
                             .slot = slot,
                             .tasks = tasks,
                             .alive = true,
                             .may_join = !sim_chance(sim.plan.sandboxed),
                             .may_make_barriers = !sim_chance(sim.plan.sandboxed)};
    return index;
}

static void spawn(uint32_t slot)
{
    if (!sim_faults())
        return;
    uint32_t threads = sim_chance(250) ? SIM_THREADS : 1;
    int process = add_process(slot, threads);
    for (uint32_t i = 0; i < threads; i++)
        start_task(1 + slot * SIM_THREADS + i, process, program_main);
}

static uint64_t end_delay_ns(void)
{
    if (sim_chance(sim.plan.slow_end))
        return sim_between(0, 400 * LKI_NS_PER_MS);
    return sim_between(0, 8 * LKI_NS_PER_MS);
}

void sim_kill_process(int process)
{
    struct sim_process *of = &sim.processes[process];
    if (!of->alive)
        return;
    sim_note("the end of pid %d", of->pid);
    stores_show_process(process);
    of->alive = false;
    of->paused = false;
    of->exiting_ns = sim.now_ns + sim_between(0, LKI_NS_PER_MS);
    of->ended_ns = of->exiting_ns + end_delay_ns();
    for (uint32_t i = 0; i < SIM_TASKS; i++) {
        if (!sim.tasks[i].live || sim.tasks[i].process != process)
            continue;
        sim.tasks[i].live = false;
        oracle_task_ended((int)i);
    }
    kernel_end_process(process);
    memory_free_owned(MEMORY_PROCESS + (uint32_t)process);
    sim_wake_worker(sim.now_ns); /* to see when it will learn of it */
    if (of->slot < SIM_SLOTS && sim_faults())
        sim_after(sim_between(0, 20 * LKI_NS_PER_MS), SIM_TIMER_SPAWN, (int)of->slot, 0);
}

static void task_ended(struct sim_task *task)
{
    struct sim_process *process = &sim.processes[task->process];
    task->live = false;
    stores_show(task);
    oracle_task_ended((int)(task - sim.tasks));
    if (--process->tasks == 0)
        sim_kill_process(task->process);
}

/* --- Timers --- */

#define TIMERS_MAX 128

static struct timer {
    uint64_t due_ns;
    enum sim_timer_kind kind;
    int a;
    int b;
} timers[TIMERS_MAX];
static uint32_t timer_count;

void sim_after(uint64_t delay_ns, enum sim_timer_kind kind, int a, int b)
{
    LKI_ASSERT(timer_count < TIMERS_MAX);
    timers[timer_count++] = (struct timer){sim.now_ns + delay_ns, kind, a, b};
}

static void start_worker(void)
{
    oracle_turn_tokens_back();
    start_task(SIM_WORKER, SIM_NOBODY, worker_main);
}

static void run_timer(const struct timer *timer)
{
    switch (timer->kind) {
    case SIM_TIMER_SPAWN:
        spawn((uint32_t)timer->a);
        break;
    case SIM_TIMER_START_WORKER:
        start_worker();
        break;
    case SIM_TIMER_CONTINUE:
        sim.processes[timer->a].paused = false;
        break;
    case SIM_TIMER_CONTINUE_WORKER:
        sim.tasks[SIM_WORKER].paused = false;
        break;
    case SIM_TIMER_SIGNAL:
        faults_deliver_signal(timer->a, timer->b);
        break;
    }
}

static uint64_t run_timers(void)
{
    uint64_t next_ns = LKI_TIME_NEVER;
    for (uint32_t i = 0; i < timer_count;) {
        if (timers[i].due_ns > sim.now_ns) {
            next_ns = timers[i].due_ns < next_ns ? timers[i].due_ns : next_ns;
            i++;
            continue;
        }
        const struct timer due = timers[i];
        timers[i] = timers[--timer_count];
        run_timer(&due);
        i = 0;
        next_ns = LKI_TIME_NEVER;
    }
    return next_ns;
}

/* --- Calm --- */

static bool is_anybody_paused(void)
{
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim_task_is_paused(&sim.tasks[i]))
            return true;
    return false;
}

/* Only clocks are under way: nobody is stopped, and nothing is on its way to anybody who waits. */
static bool is_calm(void)
{
    for (uint32_t i = 0; i < timer_count; i++)
        if (timers[i].kind != SIM_TIMER_SPAWN)
            return false;
    for (uint32_t i = 0; i < SIM_TASKS; i++) /* a wake is on its way */
        if (sim.tasks[i].live && i != SIM_WORKER && !sim.tasks[i].futex && !sim.tasks[i].reads &&
            !sim.tasks[i].at_rest)
            return false;
    return sim.tasks[SIM_WORKER].live && !is_anybody_paused() && kernel_is_quiet() &&
           worker_is_quiet();
}

static uint32_t count_clients(bool resting_only)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        count += i != SIM_WORKER && sim.tasks[i].live && (!resting_only || sim.tasks[i].at_rest);
    return count;
}

static void enter_phase(enum sim_phase phase)
{
    sim.phase = phase;
    sim.phase_since_ns = sim.now_ns;
    sim_note("phase %d", (int)phase);
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim.tasks[i].at_rest)
            sim_wake(&sim.tasks[i], sim.now_ns);
}

static void stop_faults(void)
{
    enter_phase(SIM_CALMING);
    for (int i = 0; i < sim.process_count; i++)
        sim.processes[i].paused = false;
    sim.tasks[SIM_WORKER].paused = false;
}

/* Everybody sleeps and nothing is under way. True: the phase has changed. */
static bool move_on(void)
{
    uint64_t took_ns = sim.now_ns - sim.phase_since_ns;
    switch (sim.phase) {
    case SIM_FAULTS:
    case SIM_DONE:
        return false;
    case SIM_CALMING:
        if (count_clients(true) < count_clients(false))
            return false;
        oracle_check_rest();
        if (took_ns > sim_seen.rest_ns_max)
            sim_seen.rest_ns_max = took_ns;
        enter_phase(SIM_LEAVING);
        return true;
    case SIM_LEAVING:
        if (count_clients(false) > 0)
            return false;
        enter_phase(SIM_SWEEPING);
        start_task(SIM_JANITOR, add_process(SIM_SLOTS, 1), program_janitor);
        return true;
    case SIM_SWEEPING:
        if (count_clients(false) > 0)
            return false;
        oracle_check_end();
        enter_phase(SIM_DONE);
        return true;
    }
    return false;
}

static void check_liveness(void)
{
    if (sim.phase == SIM_FAULTS || sim.now_ns - sim.phase_since_ns < REST_NS)
        return;
    oracle_note_all();
    for (uint32_t i = 1; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && !sim.tasks[i].at_rest)
            sim_fail("nothing goes wrong any more, and for %llu s of simulated time task %u "
                     "\"%s\"",
                     (unsigned long long)(REST_NS / LKI_NS_PER_S), i, sim.tasks[i].doing);
    sim_fail("nothing goes wrong any more, and for %llu s of simulated time the broker is busy",
             (unsigned long long)(REST_NS / LKI_NS_PER_S));
}

/* --- The loop --- */

/* Who runs next, or NULL; when the next of the others may. */
static struct sim_task *choose_task(uint64_t *out_next_ns)
{
    uint32_t ready[SIM_TASKS];
    uint32_t count = 0;
    *out_next_ns = LKI_TIME_NEVER;
    for (uint32_t i = 0; i < SIM_TASKS; i++) {
        const struct sim_task *task = &sim.tasks[i];
        if (!task->live || sim_task_is_paused(task))
            continue;
        if (task->ready_ns <= sim.now_ns) {
            if (i == sim.last && sim_chance(sim.plan.stickiness))
                return &sim.tasks[i];
            ready[count++] = i;
        } else if (task->ready_ns < *out_next_ns) {
            *out_next_ns = task->ready_ns;
        }
    }
    return count > 0 ? &sim.tasks[ready[sim_below(count)]] : NULL;
}

static void run_task(struct sim_task *task)
{
    sim.last = (uint32_t)(task - sim.tasks);
    sim.dispatches++;
    sim_mix(sim.now_ns ^ (uint64_t)sim.last << 56);
    sim.now_ns += sim_between(50, 4000);
    stores_grow_older();
    draw_slice(task);
    sim.current = task;
    uint32_t owner = memory_set_owner(owner_of(task));
    bool goes_on = fiber_resume(task->fiber);
    memory_set_owner(owner);
    sim.current = NULL;
    if (!goes_on)
        task_ended(task);
}

/* Nobody can run now. */
static void let_time_pass(uint64_t next_ns)
{
    if (is_calm()) {
        oracle_check_calm();
        if (move_on())
            return;
    }
    if (next_ns == LKI_TIME_NEVER)
        sim_fail("everybody sleeps, and nobody will ever wake");
    sim.now_ns = next_ns;
    check_liveness();
}

static void loop(void)
{
    while (sim.phase != SIM_DONE && !sim.failed) {
        if (sim_faults() && sim.dispatches >= sim.steps_max)
            stop_faults();
        if (sim_faults())
            faults_happen();
        uint64_t timer_ns = run_timers();
        uint64_t task_ns;
        struct sim_task *task = choose_task(&task_ns);
        if (task)
            run_task(task);
        else
            let_time_pass(timer_ns < task_ns ? timer_ns : task_ns);
        if (sim.dispatches > DISPATCHES_MAX)
            sim_fail("the run does not end");
    }
}

static void on_engine_step(const char *name)
{
    bool is_client = sim.current && sim.current->process != SIM_NOBODY;
    stores_at_engine_step(name);
    if (is_client && stores_are_at_stake(name) && sim_chance(100))
        sim_compute();
    else
        sim_step(name);
}

static void hook_engine(bool on)
{
#ifdef LKI_STEPS
    lki_step_hook = on ? on_engine_step : NULL;
    lki_store_hook = on ? stores_keep_back : NULL;
#else
    (void)on;
#endif
}

static void prepare(uint64_t seed, uint64_t steps, enum sim_break broken, bool trace)
{
    memset(&sim, 0, sizeof(sim));
    sim.seed = seed;
    sim.random = seed * UINT64_C(0xd1342543de82ef95) + 1;
    sim.steps_max = steps;
    sim.broken = broken;
    sim.trace = trace;
    sim.now_ns = 1000 * LKI_NS_PER_S;
    timer_count = 0;
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (!fibers[i])
            fibers[i] = fiber_new();
    faults_draw_plan();
    kernel_init();
    oracle_init();
    worker_init();
    stores_init();
    hook_engine(true);
}

bool sim_run(uint64_t seed, uint64_t steps, enum sim_break broken, bool trace)
{
    prepare(seed, steps, broken, trace);
    if (setjmp(failed_outside) == 0) {
        start_worker();
        for (uint32_t slot = 0; slot < sim.plan.slots; slot++)
            spawn(slot);
        loop();
    }
    sim_seen.dispatches += sim.dispatches;
    hook_engine(false);
    memory_free_all();
    return !sim.failed;
}

void sim_deinit(void)
{
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        fibers[i] = fiber_free(fibers[i]);
}
