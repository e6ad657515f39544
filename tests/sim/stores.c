/* SPDX-License-Identifier: MIT */
#include "tests/sim/stores.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>

#include "common/assert.h"
#include "tests/sim/faults.h"

static struct store {
    _Atomic uint32_t *where; /* NULL: none is kept back */
    uint32_t value;
    uint32_t age_left; /* dispatches, of anybody */
} stores[SIM_TASKS];
static uint32_t kept; /* how many */

static const char *last_step[SIM_TASKS]; /* of the engine */

static uint32_t index_of(const struct sim_task *task)
{
    return (uint32_t)(task - sim.tasks);
}

void stores_init(void)
{
    memset(stores, 0, sizeof(stores));
    memset(last_step, 0, sizeof(last_step));
    kept = 0;
}

static void show(struct store *store)
{
    if (!store->where)
        return;
    atomic_store_explicit(store->where, store->value, memory_order_seq_cst);
    store->where = NULL;
    kept--;
}

void stores_show(const struct sim_task *task)
{
    show(&stores[index_of(task)]);
}

void stores_show_process(int process)
{
    for (uint32_t i = 0; kept > 0 && i < SIM_TASKS; i++)
        if (stores[i].where && sim.tasks[i].process == process)
            show(&stores[i]);
}

bool stores_keep_back(_Atomic uint32_t *where, uint32_t value)
{
    struct store *store = &stores[index_of(sim.current)];
    LKI_ASSERT(!store->where); /* there was a step between them */
    /* Some are kept back for so long that others die meanwhile, and are repaired. */
    uint32_t age = sim.current->slow ? UINT32_MAX : sim_below(sim.plan.store_age + 1);
    if (age == 0)
        return false;
    *store = (struct store){.where = where, .value = value, .age_left = age};
    kept++;
    sim_note("keeps %u back", value);
    return true;
}

static bool is_look(const char *name)
{
    return strcmp(name, "take_fenceless_look") == 0 || strcmp(name, "leave_fenceless_look") == 0;
}

bool stores_are_at_stake(const char *name)
{
    return strstr(name, "_fenceless") || strncmp(name, "end_bias", 8) == 0;
}

void stores_at_engine_step(const char *name)
{
    if (!sim.current)
        return;
    uint32_t index = index_of(sim.current);
    last_step[index] = name;
    if (stores[index].where && !is_look(name))
        show(&stores[index]);
}

void stores_grow_older(void)
{
    for (uint32_t i = 0; kept > 0 && i < SIM_TASKS; i++)
        if (stores[i].where && --stores[i].age_left == 0)
            show(&stores[i]);
}

bool stores_took_fenceless(const struct sim_task *task)
{
    const char *step = last_step[index_of(task)];
    return step && strcmp(step, "take_fenceless_look") == 0;
}

/* --- Barriers --- */

/* One processor after the other is interrupted, and meanwhile the others go on. */
static void interrupt_all(void)
{
    for (uint32_t i = 0; i < SIM_TASKS; i++) {
        int process = sim.tasks[i].process;
        if (!stores[i].where || process == SIM_NOBODY || !sim.processes[process].joined)
            continue;
        show(&stores[i]);
        sim_seen.stores_shown++;
        sim_step("barrier");
    }
}

static struct sim_process *caller(void) /* NULL: the worker, which may */
{
    int process = sim.current->process;
    return process == SIM_NOBODY ? NULL : &sim.processes[process];
}

long stores_membarrier(int command)
{
    struct sim_process *process = caller();
    bool joins = command == MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    LKI_ASSERT(joins || command == MEMBARRIER_CMD_GLOBAL_EXPEDITED);
    sim_step("membarrier");
    if (process && !(joins ? process->may_join : process->may_make_barriers)) {
        sim_note("may not %s", joins ? "join" : "make barriers");
        errno = EPERM;
        return -1;
    }
    if (process && !joins)
        faults_before_barrier();
    if (joins) {
        process->joined = true;
        return 0;
    }
    sim_note("makes a barrier");
    *(process ? &sim_seen.barriers : &sim_seen.barriers_of_worker) += 1;
    if (sim.broken != SIM_BREAK_EMPTY_BARRIERS)
        interrupt_all();
    return 0;
}
