/* SPDX-License-Identifier: MIT */
#include "broker/core/process.h"

#include <stdlib.h>

#include "broker/core/attachment.h"
#include "broker/core/monitor.h"
#include "broker/core/reservation.h"
#include "broker/core/session.h"
#include "common/assert.h"
#include "common/clock.h"

#define CHECK_INTERVAL_NS LKI_NS_PER_MS

struct lkd_process *lkd_process_find(const struct lkd_core *core, uint64_t number)
{
    struct lkd_process *process;
    unsigned hash = lkd_hash(core->config.hash_seed, &number, sizeof(number));
    HASH_FIND_BYHASHVALUE(by_number, core->processes, &number, sizeof(number), hash, process);
    return process;
}

struct lkd_process *lkd_process_get(struct lkd_core *core, uint64_t number)
{
    struct lkd_process *process = lkd_process_find(core, number);
    if (process)
        return process;
    process = calloc(1, sizeof(*process));
    if (!process)
        return NULL;
    process->number = number;
    lki_list_init(&process->sessions);
    lkd_effect_node_init(&process->check, LKD_EFFECT_CHECK_PROCESS);
    lkd_effect_node_init(&process->signal, LKD_EFFECT_SIGNAL_PROCESS);
    lkd_effect_node_init(&process->look, LKD_EFFECT_LOOK_AT_PROCESS);
    unsigned hash = lkd_hash(core->config.hash_seed, &number, sizeof(number));
    HASH_ADD_KEYPTR_BYHASHVALUE(by_number, core->processes, &process->number, sizeof(number), hash,
                                process);
    if (!process->by_number.tbl) {
        free(process);
        return NULL;
    }
    return process;
}

static void cancel_effects(struct lkd_process *process)
{
    lkd_effect_cancel(&process->check);
    lkd_effect_cancel(&process->signal);
    lkd_effect_cancel(&process->look);
}

void lkd_process_drop_unused(struct lkd_core *core, struct lkd_process *process)
{
    if (!lki_list_is_empty(&process->sessions))
        return;
    cancel_effects(process);
    HASH_DELETE(by_number, core->processes, process);
    free(process);
}

/* Once for all its sessions. */
static void tell_of_end(struct lkd_core *core, const struct lkd_process *process)
{
    for (const struct lki_list *node = process->sessions.next; node != &process->sessions;
         node = node->next) {
        const struct lkd_session *session = LKI_LIST_ENTRY(node, struct lkd_session, of_process);
        if (!session->introduced)
            continue;
        lkd_monitor_session(core, LKI_EVENT_PROCESS_ENDED, session, NULL);
        return;
    }
}

void lkd_core_process_ended(struct lkd_core *core, uint64_t number, uint64_t now_ns)
{
    lkd_core_begin(core, now_ns);
    lkd_reservations_end(core, number);
    struct lkd_process *process = lkd_process_find(core, number);
    if (!process || process->ended)
        return;
    process->ended = true;
    cancel_effects(process);
    tell_of_end(core, process);
    LKI_LIST_FOREACH_SAFE (node, &process->sessions) {
        struct lkd_session *session = LKI_LIST_ENTRY(node, struct lkd_session, of_process);
        /* A forked child may hold the connection open; it was never its. */
        lkd_session_part(core, session, "its process has ended");
        lkd_attachment_end_session(core, session, LKI_CAUSE_EXITED, now_ns);
    }
    lkd_core_settle(core, now_ns);
}

void lkd_process_check(struct lkd_core *core, struct lkd_process *process, uint64_t now_ns)
{
    LKI_ASSERT(!process->ended); /* its end has ended all by which one gets here */
    if (process->checked && now_ns - process->checked_ns < CHECK_INTERVAL_NS)
        return;
    process->checked = true;
    process->checked_ns = now_ns;
    lkd_effect_push(core, &process->check);
}
