/* SPDX-License-Identifier: MIT */
#include "tests/sim/faults.h"

#include <errno.h>
#include <signal.h>

#include "tests/sim/stores.h"
#include "tests/sim/worker.h"

/* In a million per dispatch: none at all in many runs, so that the others come to depth. */
static uint32_t draw_chance(uint32_t runs_per_mille, uint32_t most)
{
    return sim_chance(runs_per_mille) ? 1 + sim_below(most) : 0;
}

/* Many readers of one or two native locks, and few deaths: else hardly any lock is biased for long. */
static void prefer_readers(void)
{
    sim.plan.bias = true;
    sim.plan.bias_reads = 1;
    sim.plan.shared = 50 + sim_below(40);
    sim.plan.in_a_row = 600 + sim_below(400);
    sim.plan.slots = SIM_SLOTS - sim_below(2);
    sim.plan.locks = 1;
    sim.plan.segments = sim_chance(700) ? 1 : sim_chance(500) ? 2 : 1 | 4;
    sim.plan.kill_client /= 4;
    sim.plan.kill_taker = sim_chance(500) ? 200 : 0;
    sim.plan.sandboxed = sim_chance(500) ? 500 : 0;
}

void faults_draw_plan(void)
{
    sim.plan = (struct sim_plan){
        .kill_client = draw_chance(700, 20000),
        .kill_worker = draw_chance(500, 10000),
        .pause_client = draw_chance(500, 8000),
        .pause_worker = draw_chance(300, 4000),
        .lose_hint = draw_chance(400, 300),
        .spurious_wake = draw_chance(400, 200),
        .slow_wake = draw_chance(500, 300),
        .slow_record = draw_chance(500, 300),
        .slow_end = draw_chance(500, 500),
        .kill_taker = draw_chance(400, 300),
        .slow_barrier = draw_chance(300, 300),
        .sandboxed = draw_chance(500, 700),
        .slice_max = 1 + sim_below(30),
        .stickiness = sim_chance(500) ? sim_below(900) : 0,
        .slots = 2 + sim_below(SIM_SLOTS - 1),
        .locks = 1 + sim_below(3),
        .segments = sim_chance(200) ? 4 : 1 + sim_below(31), /* 4: strict alone, released one-way */
        .shared = sim_chance(500) ? 35 : 35 + sim_below(60),
        .in_a_row = draw_chance(600, 600),
        .bias = sim_chance(850),
        .bias_reads = 1 + sim_below(4),
        .store_age = 1 + sim_below(100),
        .slow_tasks = draw_chance(400, 300),
    };
    if (sim_chance(250))
        prefer_readers();
}

/* Half of the time whoever ran last: it is in the middle of something. */
static int choose_process(void)
{
    const struct sim_task *last = &sim.tasks[sim.last];
    if (last->live && last->process != SIM_NOBODY && sim_chance(500))
        return last->process;
    int process =
        sim_process_of_pid(SIM_FIRST_PID + (int32_t)sim_below((uint32_t)sim.process_count));
    for (int i = 0; i < sim.process_count; i++) {
        int candidate = (process + i) % sim.process_count;
        if (sim.processes[candidate].alive)
            return candidate;
    }
    return SIM_NOBODY;
}

static uint64_t pause_ns(void)
{
    static const uint64_t most_ms[] = {2, 12, 60, 400};
    return sim_between(0, most_ms[sim_below(4)] * LKI_NS_PER_MS);
}

static void pause_client(void)
{
    int process = choose_process();
    if (process == SIM_NOBODY || sim.processes[process].paused)
        return;
    sim_note("pid %d is stopped", sim.processes[process].pid);
    sim.processes[process].paused = true;
    stores_show_process(process);
    sim_seen.pauses++;
    sim_after(pause_ns(), SIM_TIMER_CONTINUE, process, 0);
}

static void pause_worker(void)
{
    struct sim_task *task = &sim.tasks[SIM_WORKER];
    if (!task->live || task->paused)
        return;
    sim_note("the worker is stopped");
    task->paused = true;
    sim_seen.pauses++;
    sim_after(pause_ns(), SIM_TIMER_CONTINUE_WORKER, 0, 0);
}

static void kill_client(void)
{
    int process = choose_process();
    if (process == SIM_NOBODY)
        return;
    sim_seen.client_kills++;
    sim_kill_process(process);
}

static void kill_worker(void)
{
    struct sim_task *task = &sim.tasks[SIM_WORKER];
    if (!task->live)
        return;
    sim_note("the end of the worker");
    sim_seen.worker_kills++;
    task->live = false;
    memory_free_owned(MEMORY_WORKER);
    worker_forget();
    sim_after(sim_between(0, sim_chance(800) ? LKI_NS_PER_MS : 100 * LKI_NS_PER_MS),
              SIM_TIMER_START_WORKER, 0, 0);
}

static bool comes(uint32_t per_million)
{
    return per_million > 0 && sim_below(1000000) < per_million;
}

void faults_happen(void)
{
    if (comes(sim.plan.kill_client))
        kill_client();
    if (comes(sim.plan.pause_client))
        pause_client();
    if (comes(sim.plan.pause_worker))
        pause_worker();
    /* Mostly while it does something: what it is at between two events is soon told. */
    if (comes(sim.plan.kill_worker) && (worker_in_core() || sim_chance(200)))
        kill_worker();
}

/* The moment in which a taker owes others a barrier is short: at random it would hardly ever be hit. */
void faults_before_barrier(void)
{
    if (!sim_faults() || !sim_chance(sim.plan.kill_taker))
        return;
    sim_seen.client_kills++;
    sim_kill_process(sim.current->process);
    for (;;)
        fiber_yield(); /* and is never resumed */
}

void faults_deliver_signal(int process, int signal)
{
    const struct sim_process *of = &sim.processes[process];
    uint64_t pid = (uint64_t)of->pid;
    bool alive = of->alive;
    sim_seen.signals++;
    sim_note("signal %d for pid %d", signal, of->pid);
    if (alive && (signal == SIGKILL || (!of->paused && sim_chance(600))))
        sim_kill_process(process);
    if (sim.tasks[SIM_WORKER].live && worker_core())
        worker_hear_signal(pid, signal, alive ? 0 : -ESRCH);
}
