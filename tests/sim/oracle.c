/* SPDX-License-Identifier: MIT */
#include "tests/sim/oracle.h"

#include <string.h>

#include "common/cleanup.h"
#include "tests/sim/worker.h"

#define NUDGE_BACKSTOP_NS (300 * LKI_NS_PER_MS) /* until then the broker's own timer looks */

static struct lki_lock_hot *hot_of(const struct sim_area *area, uint32_t lock)
{
    return &area->view.hot[lock];
}

static uint32_t word_of(const struct sim_area *area, uint32_t lock)
{
    return atomic_load_explicit(&hot_of(area, lock)->word, memory_order_relaxed);
}

static uint64_t wait_of(const struct sim_area *area, uint32_t slot)
{
    return atomic_load_explicit(&area->view.attachments[slot].wait, memory_order_relaxed);
}

static bool reads(const struct sim_area *area, uint32_t slot, uint32_t lock)
{
    for (unsigned cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        if (atomic_load_explicit(&area->view.attachments[slot].cells[cell], memory_order_relaxed) ==
            lock + 1)
            return true;
    return false;
}

/* Areas that count: laid out, and known to the worker. */
static struct sim_area *next_area(uint32_t *cursor)
{
    while (*cursor < kernel.area_count) {
        struct sim_area *area = kernel.areas[(*cursor)++];
        if (area->made && area->viewed)
            return area;
    }
    return NULL;
}

#define FOREACH_AREA(area)                                                                         \
    for (uint32_t cursor_ = 0, *at_ = &cursor_; at_; at_ = NULL)                                   \
        for (struct sim_area * area; (area = next_area(at_)) != NULL;)

/* --- What clients were told --- */

void oracle_view_area(struct sim_area *area)
{
    if (area->viewed || lki_area_view(area->base, area->bytes, &area->view) < 0)
        return;
    area->viewed = true;
    for (uint32_t lock = 0; lock < area->view.locks; lock++)
        area->locks[lock].last_token = lki_lock_sequence(&area->view, lock);
}

static int first_task(uint32_t tasks)
{
    return tasks ? __builtin_ctz(tasks) : SIM_NOBODY;
}

/* Somebody else who is inside and must not be; and how. */
static int find_excluded(const struct oracle_hold *hold, const struct sim_lock *lock,
                         const char **out_how)
{
    uint32_t readers = lock->readers & ~(UINT32_C(1) << hold->task);
    *out_how = "exclusively";
    if (lock->writer != SIM_NOBODY && lock->writer != hold->task)
        return lock->writer;
    *out_how = "for update";
    if (hold->mode != LKI_MODE_SHARED && lock->updater != SIM_NOBODY && lock->updater != hold->task)
        return lock->updater;
    *out_how = "shared";
    return hold->mode == LKI_MODE_EXCLUSIVE ? first_task(readers) : SIM_NOBODY;
}

static void check_exclusion(const struct oracle_hold *hold, const struct sim_lock *lock)
{
    static const char *const how[] = {[LKI_MODE_SHARED] = "shared",
                                      [LKI_MODE_EXCLUSIVE] = "exclusively",
                                      [LKI_MODE_UPDATE] = "for update"};
    const char *others;
    int other = find_excluded(hold, lock, &others);
    if (other != SIM_NOBODY)
        sim_fail("lock %u of segment %u: task %d is told that it holds it %s, beside task %d, "
                 "which holds it %s",
                 hold->lock, hold->area->number, hold->task, how[hold->mode], other, others);
}

static void check_told(const struct oracle_hold *hold, const struct sim_lock *lock,
                       bool told_damage)
{
    if (told_damage != lock->damaged)
        sim_fail("lock %u of segment %u: an owner %s inside, and task %d was told otherwise",
                 hold->lock, hold->area->number, lock->damaged ? "died" : "did not die",
                 hold->task);
}

/* Of a hold that is not shared. */
static void check_token(const struct oracle_hold *hold, struct sim_lock *lock, uint64_t token)
{
    bool writes = hold->mode == LKI_MODE_EXCLUSIVE && !hold->to_exit;
    if (token <= lock->last_token)
        sim_fail("lock %u of segment %u: the token of task %d is no higher than the last",
                 hold->lock, hold->area->number, hold->task);
    if ((token & 1) != (writes || lock->damaged))
        sim_fail("lock %u of segment %u: the parity of the token is wrong", hold->lock,
                 hold->area->number);
    lock->last_token = token;
}

static void put_inside(const struct oracle_hold *hold, struct sim_lock *lock)
{
    switch (hold->mode) {
    case LKI_MODE_SHARED:
        lock->readers |= UINT32_C(1) << hold->task;
        break;
    case LKI_MODE_UPDATE:
        lock->updater = hold->task;
        break;
    case LKI_MODE_EXCLUSIVE:
        lock->writer = hold->task;
        lock->to_exit = hold->to_exit;
        break;
    }
}

void oracle_taken(const struct oracle_hold *hold, bool told_damage, uint64_t token)
{
    struct sim_lock *lock = &hold->area->locks[hold->lock];
    check_exclusion(hold, lock);
    check_told(hold, lock, told_damage);
    sim_seen.taken++;
    sim_seen.taken_died += told_damage;
    sim_seen.updates += hold->mode == LKI_MODE_UPDATE;
    sim_mix(token ^ (uint64_t)hold->task << 56);
    if (hold->mode != LKI_MODE_SHARED)
        check_token(hold, lock, token);
    else if (token < lock->last_token)
        sim_fail("lock %u of segment %u: the token fell", hold->lock, hold->area->number);
    put_inside(hold, lock);
}

void oracle_releasing(const struct oracle_hold *hold)
{
    struct sim_lock *lock = &hold->area->locks[hold->lock];
    if (hold->mode == LKI_MODE_SHARED)
        lock->readers &= ~(UINT32_C(1) << hold->task);
    else if (hold->mode == LKI_MODE_UPDATE)
        lock->updater = SIM_NOBODY;
    else
        lock->writer = SIM_NOBODY;
}

void oracle_released(const struct oracle_hold *hold)
{
    if (hold->mode == LKI_MODE_EXCLUSIVE)
        hold->area->locks[hold->lock].let_go = hold->token;
}

void oracle_upgraded(struct oracle_hold *hold, bool told_damage, uint64_t token)
{
    struct sim_lock *lock = &hold->area->locks[hold->lock];
    oracle_releasing(hold);
    hold->mode = LKI_MODE_EXCLUSIVE;
    hold->to_exit = false;
    check_exclusion(hold, lock);
    check_told(hold, lock, told_damage);
    check_token(hold, lock, token);
    hold->token = token;
    put_inside(hold, lock);
    sim_seen.upgrades++;
}

void oracle_downgrading(struct oracle_hold *hold, enum lki_mode mode)
{
    struct sim_lock *lock = &hold->area->locks[hold->lock];
    oracle_releasing(hold);
    hold->mode = mode;
    put_inside(hold, lock);
}

void oracle_downgraded(const struct oracle_hold *hold, uint64_t token)
{
    struct sim_lock *lock = &hold->area->locks[hold->lock];
    sim_seen.downgrades++;
    if (token < lock->last_token)
        sim_fail("lock %u of segment %u: the token fell", hold->lock, hold->area->number);
    if (hold->mode != LKI_MODE_UPDATE)
        return;
    if ((token & 1) != lock->damaged)
        sim_fail("lock %u of segment %u: the parity of the token is wrong for update", hold->lock,
                 hold->area->number);
    lock->last_token = token;
}

void oracle_marked(const struct oracle_hold *hold)
{
    hold->area->locks[hold->lock].damaged = false;
}

void oracle_check_mark(const struct oracle_hold *hold, uint64_t token)
{
    if ((token & 1) != !hold->to_exit)
        sim_fail("lock %u of segment %u: the parity of the token is wrong once it is marked",
                 hold->lock, hold->area->number);
}

void oracle_task_ended(int task)
{
    for (uint32_t i = 0; i < kernel.area_count; i++)
        for (uint32_t index = 0; index < SIM_LOCKS_MAX; index++) {
            struct sim_lock *lock = &kernel.areas[i]->locks[index];
            lock->readers &= ~(UINT32_C(1) << task);
            if (lock->writer == task)
                lock->writer = SIM_NOBODY;
            if (lock->updater == task)
                lock->updater = SIM_NOBODY;
        }
}

/* --- Whose is an id --- */

struct owners { /* of attachments, as the ledger has them */
    struct lkd_ledger ledger;
    uint32_t count;
};

static struct owners view_owners(void)
{
    struct owners owners;
    worker_view_ledger(&owners.ledger);
    owners.count = atomic_load(&owners.ledger.header->attachments_used);
    return owners;
}

static const struct lkd_session_record *record_of_session(const struct owners *owners,
                                                          uint64_t session)
{
    uint32_t count = atomic_load(&owners->ledger.header->sessions_used);
    for (uint32_t i = 0; i < count; i++) {
        const struct lkd_session_record *record = &owners->ledger.sessions[i];
        if (record->number == session && lkd_record_state(&record->state) != LKD_RECORD_FREE)
            return record;
    }
    return NULL;
}

static void expect_damage_of(const struct lkd_attachment_record *record)
{
    struct sim_area *area = kernel_find_area(record->segment);
    if (!area || !area->viewed)
        return;
    for (uint32_t lock = 0; lock < area->view.locks; lock++) {
        if ((word_of(area, lock) & LKI_ID_MASK) != record->id)
            continue;
        uint64_t sequence = lki_lock_sequence(&area->view, lock);
        area->locks[lock].damaged = sequence & 1;
        if (sequence & 1 && sequence == area->locks[lock].let_go)
            sim_fail("lock %u of segment %u: a hold that was released counts as left by a death",
                     lock, area->number);
    }
}

void oracle_expect_damage(int32_t pid, uint64_t session, uint32_t segment)
{
    const struct owners owners = view_owners();
    for (uint32_t i = 0; i < owners.count; i++) {
        const struct lkd_attachment_record *record = &owners.ledger.attachments[i];
        if (lkd_record_state(&record->state) == LKD_RECORD_FREE ||
            (segment != 0 && record->segment != segment))
            continue;
        const struct lkd_session_record *of = record_of_session(&owners, record->session);
        if (of && (pid != SIM_NOBODY ? of->pid == pid : of->number == session))
            expect_damage_of(record);
    }
}

/* --- Rings of waits --- */

#define NODES_MAX 64

/* Who waits for whom, by the facts in the shared memory and releases under way. Bits: session by index. */
static struct {
    uint64_t sessions[NODES_MAX];
    uint64_t waits_for[NODES_MAX];
    uint32_t count;
    uint64_t in_rings[NODES_MAX]; /* numbers of sessions that were in one since the event began */
    uint32_t in_rings_count;
} graph;

static uint32_t node_of(uint64_t session)
{
    for (uint32_t i = 0; i < graph.count; i++)
        if (graph.sessions[i] == session)
            return i;
    if (graph.count == NODES_MAX)
        sim_fail("too many sessions wait");
    graph.sessions[graph.count] = session;
    graph.waits_for[graph.count] = 0;
    return graph.count++;
}

static uint64_t session_of(const struct owners *owners, const struct sim_area *area, uint32_t id)
{
    for (uint32_t i = 0; i < owners->count; i++) {
        const struct lkd_attachment_record *record = &owners->ledger.attachments[i];
        if (record->segment == area->number && record->id == id &&
            lkd_record_state(&record->state) != LKD_RECORD_FREE)
            return record->session;
    }
    return 0;
}

static uint32_t id_of_slot(const struct sim_area *area, uint32_t slot)
{
    return atomic_load_explicit(&area->view.attachments[slot].id, memory_order_relaxed);
}

static void add_edge(const struct owners *owners, const struct sim_area *area, uint32_t from_id,
                     uint32_t to_id, uint32_t lock)
{
    uint64_t from = session_of(owners, area, from_id);
    uint64_t to = session_of(owners, area, to_id);
    if (from == 0 || to == 0 || kernel_has_released(area->number, to_id, lock))
        return;
    uint32_t at = node_of(from);
    graph.waits_for[at] |= UINT64_C(1) << node_of(to);
}

static void add_edges_of_slot(const struct owners *owners, const struct sim_area *area,
                              uint32_t slot)
{
    uint64_t wait = wait_of(area, slot);
    uint32_t lock = lki_wait_lock(wait);
    uint32_t id = id_of_slot(area, slot);
    if (wait == LKI_WAIT_NONE || lock >= area->view.locks)
        return;
    if ((wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_QUEUED) {
        uint32_t word = word_of(area, lock);
        bool joins = word & LKI_UPDATE && lki_wait_mode(wait) == LKI_MODE_SHARED;
        if ((word & LKI_ID_MASK) != 0 && !joins)
            add_edge(owners, area, id, word & LKI_ID_MASK, lock);
        return;
    }
    for (uint32_t other = 1; other <= lki_area_slots_used(&area->view); other++)
        if (other != slot && reads(area, other, lock))
            add_edge(owners, area, id, id_of_slot(area, other), lock);
}

static bool is_anybody_waiting(void)
{
    FOREACH_AREA(area)
    for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++)
        if (wait_of(area, slot) != LKI_WAIT_NONE)
            return true;
    return false;
}

static bool is_in_ring(uint32_t node)
{
    uint64_t reached = graph.waits_for[node];
    for (bool more = true; more;) {
        uint64_t before = reached;
        for (uint32_t i = 0; i < graph.count; i++)
            if (reached >> i & 1)
                reached |= graph.waits_for[i];
        more = reached != before;
    }
    return reached >> node & 1;
}

static bool was_in_ring(uint64_t session)
{
    for (uint32_t i = 0; i < graph.in_rings_count; i++)
        if (graph.in_rings[i] == session)
            return true;
    return false;
}

void oracle_look_for_rings(void)
{
    if (!is_anybody_waiting())
        return;
    const struct owners owners = view_owners();
    graph.count = 0;
    FOREACH_AREA(area)
    for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++)
        add_edges_of_slot(&owners, area, slot);
    for (uint32_t i = 0; i < graph.count; i++)
        if (is_in_ring(i) && !was_in_ring(graph.sessions[i])) {
            if (graph.in_rings_count == NODES_MAX)
                sim_fail("too many sessions are in rings");
            graph.in_rings[graph.in_rings_count++] = graph.sessions[i];
        }
}

void oracle_forget_rings(void)
{
    graph.in_rings_count = 0;
}

void oracle_check_refused(uint64_t session)
{
    sim_seen.deadlocks++;
    oracle_look_for_rings();
    if (!was_in_ring(session))
        sim_fail("session %llu is refused for a deadlock, and is in no ring",
                 (unsigned long long)session);
}

/* --- At certain moments --- */

static bool is_brokered(const struct sim_area *area, uint32_t slot)
{
    return atomic_load_explicit(&area->view.attachments[slot].flags, memory_order_relaxed) &
           LKI_ATTACHMENT_BROKERED;
}

static bool is_read_by_others(const struct sim_area *area, uint32_t slot, uint32_t lock)
{
    for (uint32_t other = 1; other <= lki_area_slots_used(&area->view); other++)
        if (other != slot && reads(area, other, lock))
            return true;
    return false;
}

/* A lost nudge is no mistake: the broker looks by its own timer. */
static bool may_be_unnudged(void)
{
    return sim.nudge_lost_ns != 0 && sim.now_ns - sim.nudge_lost_ns < NUDGE_BACKSTOP_NS;
}

/* Whether its owner sleeps until it is woken. Not while it waits for an answer, which has an end. */
static bool is_asleep(const struct sim_area *area, uint32_t slot)
{
    if (is_brokered(area, slot)) /* it sleeps as the worker does, in calm */
        return !may_be_unnudged();
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim.tasks[i].futex == &area->view.attachments[slot].futex)
            return true;
    return false;
}

/* Who could make no barrier sees no readers, and tries again by itself. */
static bool is_napping(const struct sim_area *area, uint32_t slot)
{
    for (uint32_t i = 0; i < SIM_TASKS; i++)
        if (sim.tasks[i].live && sim.tasks[i].futex == &area->view.attachments[slot].futex &&
            sim.tasks[i].ready_ns <= sim.now_ns + LKI_NS_PER_MS)
            return true;
    return false;
}

/* A waiter of the lock that is not asleep will look soon: it may be its turn. */
static bool is_looked_after(const struct sim_area *area, uint32_t lock)
{
    for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++)
        if (lki_wait_is(wait_of(area, slot), LKI_WAIT_QUEUED, lock) && !is_asleep(area, slot))
            return true;
    return false;
}

static void check_sleeper(const struct sim_area *area, uint32_t slot)
{
    uint64_t wait = wait_of(area, slot);
    uint32_t lock = lki_wait_lock(wait);
    uint32_t word = word_of(area, lock);
    if (wait == LKI_WAIT_NONE || !is_asleep(area, slot))
        return;
    if ((wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_DRAINING) {
        if (!(word & LKI_BIASED && is_napping(area, slot)) && !is_read_by_others(area, slot, lock))
            sim_fail("slot %u of segment %u sleeps in a drain of lock %u that nobody reads", slot,
                     area->number, lock);
        return;
    }
    if (is_looked_after(area, lock))
        return;
    if ((word & LKI_ID_MASK) == 0)
        sim_fail("slot %u of segment %u sleeps beside lock %u, which is free (word %08x)", slot,
                 area->number, lock, word);
    if (word & LKI_UPDATE && lki_wait_mode(wait) == LKI_MODE_SHARED)
        sim_fail("slot %u of segment %u sleeps beside lock %u, which it may read (word %08x)", slot,
                 area->number, lock, word);
    if (!(word & LKI_PARKED))
        sim_fail("slot %u of segment %u sleeps, and the owner of lock %u does not know (word %08x)",
                 slot, area->number, lock, word);
}

void oracle_check_calm(void)
{
    sim_seen.calm_checks++;
    FOREACH_AREA(area)
    for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++)
        check_sleeper(area, slot);
}

void oracle_check_rest(void)
{
    oracle_check_calm();
    FOREACH_AREA(area)
    {
        for (uint32_t lock = 0; lock < area->view.locks; lock++)
            if (word_of(area, lock) & LKI_ID_MASK)
                sim_fail("everybody has let go, and lock %u of segment %u has an owner (%08x)",
                         lock, area->number, word_of(area, lock));
        for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++) {
            if (wait_of(area, slot) != LKI_WAIT_NONE)
                sim_fail("everybody has let go, and slot %u of segment %u waits", slot,
                         area->number);
            for (uint32_t lock = 0; lock < area->view.locks; lock++)
                if (reads(area, slot, lock))
                    sim_fail("everybody has let go, and slot %u of segment %u reads lock %u", slot,
                             area->number, lock);
        }
    }
}

#define COUNT_USED(records, used)                                                                  \
    for (uint32_t i = 0; i < (used); i++)                                                          \
    count += lkd_record_state(&(records)[i].state) != LKD_RECORD_FREE

void oracle_check_end(void)
{
    struct lkd_ledger ledger;
    uint32_t count = 0;
    for (uint32_t i = 0; i < kernel.area_count; i++)
        if (kernel.areas[i]->made || kernel.areas[i]->maps > 0)
            sim_fail("everybody has left, and the memory of segment %u is there",
                     kernel.areas[i]->number);
    worker_view_ledger(&ledger);
    COUNT_USED(ledger.sessions, ledger.header->sessions_used);
    COUNT_USED(ledger.segments, ledger.header->segments_used);
    COUNT_USED(ledger.attachments, ledger.header->attachments_used);
    if (count > 0)
        sim_fail("everybody has left, and %u records are in the ledger", count);
    if (lkd_core_deadline_ns(worker_core()) != LKI_TIME_NEVER)
        sim_fail("everybody has left, and the broker has a timer");
}

void oracle_note_all(void)
{
    const struct owners owners = view_owners();
    FOREACH_AREA(area)
    {
        for (uint32_t lock = 0; lock < area->view.locks; lock++)
            sim_note(
                "segment %u lock %u: word %08x of session %llu, sequence %llx", area->number, lock,
                word_of(area, lock),
                (unsigned long long)session_of(&owners, area, word_of(area, lock) & LKI_ID_MASK),
                (unsigned long long)lki_lock_sequence(&area->view, lock));
        for (uint32_t slot = 1; slot <= lki_area_slots_used(&area->view); slot++)
            sim_note("segment %u slot %u: session %llu, wait %016llx, cell %u%s", area->number,
                     slot, (unsigned long long)session_of(&owners, area, id_of_slot(area, slot)),
                     (unsigned long long)wait_of(area, slot),
                     atomic_load(&area->view.attachments[slot].cells[0]),
                     is_brokered(area, slot) ? ", brokered" : "");
    }
}

/* --- Planted mistakes --- */

void oracle_init(void)
{
    memset(&graph, 0, sizeof(graph));
}

void oracle_hide_damage(void)
{
    bool hides = sim.broken == SIM_BREAK_HIDES_DAMAGE;
    if (!hides && sim.broken != SIM_BREAK_INVENTS_DAMAGE)
        return;
    FOREACH_AREA(area)
    for (uint32_t lock = 0; lock < area->view.locks; lock++) {
        uint32_t word = word_of(area, lock);
        if (word & LKI_ID_MASK)
            continue;
        if (hides && word & LKI_DIED && sim_chance(100))
            atomic_store(&hot_of(area, lock)->word, word & ~LKI_DIED);
        else if (!hides && sim_chance(1))
            atomic_store(&hot_of(area, lock)->word, word | LKI_DIED);
    }
}

void oracle_turn_tokens_back(void)
{
    if (sim.broken != SIM_BREAK_TURNS_TOKENS_BACK)
        return;
    FOREACH_AREA(area)
    for (uint32_t lock = 0; lock < area->view.locks; lock++)
        if (!(word_of(area, lock) & (LKI_ID_MASK | LKI_DIED)))
            atomic_fetch_sub(&hot_of(area, lock)->sequence, 2);
}
