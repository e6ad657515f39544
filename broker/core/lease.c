/* SPDX-License-Identifier: MIT */
#include "broker/core/lease.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "broker/core/fact.h"
#include "broker/core/fence.h"
#include "broker/core/forced.h"
#include "broker/core/segment.h"
#include "broker/core/process.h"
#include "broker/core/session.h"
#include "common/assert.h"
#include "common/clock.h"
#include "lockkeeper/lockkeeper.h"

/* A complaint by the holder's own user counts as consent for so long: four long naps, in which a
 * waiter that is still there complains again. */
#define CONSENT_NS (2 * LKI_NS_PER_S)

/* A reader that tries and is turned away fills its cell for a moment. So what looks like a hold is
 * seen so often, and so far apart, before anything is done about it. */
#define SIGHTINGS 5u
#define SIGHTING_NS LKI_NS_PER_MS

#define POLL_NS (10 * LKI_NS_PER_MS)       /* somebody waits for the end of a forced release */
#define TRACED_NS_MIN (20 * LKI_NS_PER_MS) /* between two looks at what a debugger has stopped */
#define LOOK_NS LKI_NS_PER_S  /* a look that is not answered counts as one after that */
#define STUCK_NS LKI_NS_PER_S /* from SIGKILL to being called stuck */

/* --- Looking at the hold --- */

static bool is_draining(const struct lkd_attachment *attachment, uint32_t lock)
{
    return lki_wait_is(lkd_fact_look_wait(&attachment->segment->area, attachment->slot),
                       LKI_WAIT_DRAINING, lock);
}

static bool is_queued(const struct lkd_attachment *attachment, uint32_t lock)
{
    return lki_wait_is(lkd_fact_look_wait(&attachment->segment->area, attachment->slot),
                       LKI_WAIT_QUEUED, lock);
}

/* Whether the hold that the lease is about goes on. Sequence first: it rises before the word is
 * freed, so what comes after cannot be another hold of the same owner. */
static bool still_holds(const struct lkd_lease *lease)
{
    const struct lkd_attachment *holder = lease->holder;
    const struct lkd_segment *segment = holder->segment;
    const struct lki_area *area = &segment->area;

    if (!lease->shared)
        return lkd_fact_look_sequence(area, lease->lock) == lease->sequence &&
               (lkd_fact_look_word(area, lease->lock) & LKI_ID_MASK) == holder->id &&
               !is_draining(holder, lease->lock);
    if (!lkd_fact_look_reads(area, holder->slot, lease->lock))
        return false;
    if (lease->forced)
        return true;
    const struct lkd_attachment *drainer = lkd_segment_attachment(segment, lease->drainer);
    return drainer && (lkd_fact_look_word(area, lease->lock) & LKI_ID_MASK) == lease->drainer &&
           is_draining(drainer, lease->lock) &&
           lkd_fact_waiting_since(area, drainer->slot) == lease->drain_ns;
}

/* Whether anybody is still kept waiting. Who drains is looked at by still_holds(). */
static bool is_waited_for(const struct lkd_lease *lease)
{
    const struct lkd_segment *segment = lease->holder->segment;

    if (lease->shared)
        return true;
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        const struct lkd_attachment *attachment = segment->slots[slot].attachment;
        if (attachment && attachment->state == LKD_ATTACHMENT_LIVE &&
            attachment->main != lease->holder->main && is_queued(attachment, lease->lock))
            return true;
    }
    return false;
}

/* --- Life --- */

static void lease_free(struct lkd_core *core, struct lkd_lease *lease)
{
    lkd_deadlines_clear(&core->lease_deadlines, &lease->deadline);
    lkd_deadlines_unreserve(&core->lease_deadlines);
    lki_list_remove(&lease->of_core);
    lki_list_remove(&lease->of_holder);
    core->lease_count--;
    free(lease);
}

/* It is about nothing any more: its hold has ended, or nobody waits. */
static void finish(struct lkd_core *core, struct lkd_lease *lease)
{
    struct lkd_segment *segment = lease->holder->segment;
    uint32_t lock = lease->lock;
    lease_free(core, lease);
    lkd_forced_settle(core, segment, lock);
}

/* The only writer of the phase. due_ns: when to look again; LKI_TIME_NEVER: when told. */
static void enter(struct lkd_core *core, struct lkd_lease *lease, enum lkd_lease_phase phase,
                  uint64_t due_ns)
{
    switch (lease->phase) {
    case LKD_LEASE_RUNNING:
        LKI_ASSERT(phase == LKD_LEASE_RUNNING || phase == LKD_LEASE_REPORTED ||
                   phase == LKD_LEASE_ASKED);
        break;
    case LKD_LEASE_REPORTED: /* by force, or about another hold */
        LKI_ASSERT(phase == LKD_LEASE_RUNNING || phase == LKD_LEASE_ASKED);
        break;
    case LKD_LEASE_ASKED:
    case LKD_LEASE_LOOKING:
        LKI_ASSERT(phase != LKD_LEASE_STUCK);
        break;
    case LKD_LEASE_KILLED:
    case LKD_LEASE_EXAMINING:
        LKI_ASSERT(phase == LKD_LEASE_EXAMINING || phase == LKD_LEASE_STUCK ||
                   phase == LKD_LEASE_REPORTED);
        break;
    case LKD_LEASE_STUCK:
        LKI_UNREACHABLE("who is stuck is waited for");
        break;
    }
    lease->phase = phase;
    lease->step_ns = due_ns;
    if (lease->forced && phase == LKD_LEASE_ASKED && due_ns > lease->asked_ns + POLL_NS)
        due_ns = lease->asked_ns + POLL_NS;
    if (due_ns == LKI_TIME_NEVER)
        lkd_deadlines_clear(&core->lease_deadlines, &lease->deadline);
    else
        lkd_deadlines_set(&core->lease_deadlines, &lease->deadline, due_ns);
}

/* The oldest that is only remembered makes room. */
static bool make_room(struct lkd_core *core)
{
    if (core->lease_count < LKI_LEASES_MAX)
        return true;
    LKI_LIST_FOREACH_SAFE (node, &core->leases) {
        struct lkd_lease *lease = LKI_LIST_ENTRY(node, struct lkd_lease, of_core);
        if (lease->phase == LKD_LEASE_REPORTED && !lease->forced) {
            lease_free(core, lease);
            return true;
        }
    }
    return false;
}

static struct lkd_lease *lease_new(struct lkd_core *core, struct lkd_attachment *holder,
                                   uint32_t lock, bool shared)
{
    if (!make_room(core))
        return NULL;
    struct lkd_lease *lease = calloc(1, sizeof(*lease));
    if (!lease)
        return NULL;
    if (!lkd_deadlines_reserve(&core->lease_deadlines)) {
        free(lease);
        return NULL;
    }
    lkd_deadline_init(&lease->deadline);
    lki_list_init(&lease->of_core);
    lki_list_init(&lease->of_holder);
    lease->holder = holder;
    lease->lock = lock;
    lease->shared = shared;
    lki_list_append(&core->leases, &lease->of_core);
    lki_list_append(&holder->leases, &lease->of_holder);
    core->lease_count++;
    return lease;
}

static struct lkd_lease *find(const struct lkd_attachment *holder, uint32_t lock)
{
    for (const struct lki_list *node = holder->leases.next; node != &holder->leases;
         node = node->next) {
        struct lkd_lease *lease = LKI_LIST_ENTRY(node, struct lkd_lease, of_holder);
        if (lease->lock == lock)
            return lease;
    }
    return NULL;
}

void lkd_lease_forget(struct lkd_core *core, struct lkd_attachment *holder)
{
    LKI_LIST_FOREACH_SAFE (node, &holder->leases)
        lease_free(core, LKI_LIST_ENTRY(node, struct lkd_lease, of_holder));
}

void lkd_lease_holder_ended(struct lkd_core *core, struct lkd_attachment *holder)
{
    LKI_LIST_FOREACH_SAFE (node, &holder->leases)
        finish(core, LKI_LIST_ENTRY(node, struct lkd_lease, of_holder));
}

bool lkd_lease_is_ending(const struct lkd_attachment *holder)
{
    for (const struct lki_list *node = holder->leases.next; node != &holder->leases;
         node = node->next)
        if (LKI_LIST_ENTRY(node, struct lkd_lease, of_holder)->phase >= LKD_LEASE_ASKED)
            return true;
    return false;
}

/* --- Complaints --- */

/* Whether the lease is about this hold; if not it begins anew, unless its holder is dying. */
static bool is_about(const struct lkd_lease *lease, uint64_t sequence, uint32_t drainer,
                     uint64_t drain_ns)
{
    if (lease->phase >= LKD_LEASE_KILLED)
        return true;
    return lease->shared ? lease->drainer == drainer && lease->drain_ns == drain_ns
                         : lease->sequence == sequence;
}

static void complain(struct lkd_core *core, const struct lkd_attachment *asker,
                     struct lkd_attachment *holder, const struct lkd_lease *about, uint64_t now_ns)
{
    struct lkd_lease *lease = find(holder, about->lock);

    if (lease && (lease->shared != about->shared ||
                  !is_about(lease, about->sequence, about->drainer, about->drain_ns))) {
        finish(core, lease);
        lease = NULL;
    }
    if (!lease) {
        lease = lease_new(core, holder, about->lock, about->shared);
        if (!lease)
            return; /* the waiter will complain again */
        lease->sequence = about->sequence;
        lease->drainer = about->drainer;
        lease->drain_ns = about->drain_ns;
        lease->since_ns = now_ns;
        enter(core, lease, LKD_LEASE_RUNNING, lki_time_add(now_ns, holder->segment->lease_ns));
    }
    if (asker->session->uid == holder->session->uid)
        lease->same_uid_ns = now_ns;
}

void lkd_lease_complain(struct lkd_core *core, const struct lkd_attachment *asker, uint32_t lock,
                        uint32_t owner, uint64_t sequence, uint64_t now_ns)
{
    const struct lkd_segment *segment = asker->segment;

    if (segment->lease_ns == 0 || !is_queued(asker, lock))
        return;
    struct lkd_attachment *holder = lkd_segment_attachment(segment, owner);
    if (!holder || holder->state != LKD_ATTACHMENT_LIVE || holder->main == asker->main)
        return;
    const struct lkd_lease about = {.holder = holder, .lock = lock, .sequence = sequence};
    if (still_holds(&about))
        complain(core, asker, holder, &about, now_ns);
}

void lkd_lease_complain_readers(struct lkd_core *core, const struct lkd_attachment *asker,
                                uint32_t lock, uint64_t now_ns)
{
    const struct lkd_segment *segment = asker->segment;

    if (segment->lease_ns == 0 || !is_draining(asker, lock))
        return;
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        struct lkd_attachment *holder = segment->slots[slot].attachment;
        if (!holder || holder->state != LKD_ATTACHMENT_LIVE || holder->main == asker->main)
            continue;
        const struct lkd_lease about = {
            .holder = holder,
            .lock = lock,
            .shared = true,
            .drainer = asker->id,
            .drain_ns = lkd_fact_waiting_since(&segment->area, asker->slot),
        };
        if (still_holds(&about))
            complain(core, asker, holder, &about, now_ns);
    }
}

/* --- When it is over --- */

static void report(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns, const char *why)
{
    lkd_lease_log(core, lease, now_ns, "%s", why);
    enter(core, lease, LKD_LEASE_REPORTED, LKI_TIME_NEVER);
    lkd_forced_settle(core, lease->holder->segment, lease->lock);
}

/* NULL: its process may be ended. */
static const char *forbids_kill(const struct lkd_core *core, const struct lkd_lease *lease,
                                uint64_t now_ns)
{
    const struct lkd_attachment *holder = lease->holder;
    int32_t pid = holder->session->pid;

    if (pid <= 1 || pid == core->config.broker_pid)
        return "not killed: that would end the broker, or the whole system";
    if (lease->forced || holder->segment->flags & LK_STRICT || holder->main->accepts_kill)
        return NULL;
    if (lease->same_uid_ns != 0 && now_ns - lease->same_uid_ns <= CONSENT_NS)
        return NULL;
    return "not killed: no consent (LK_ACCEPT_KILL), and another user waits";
}

static void send_signal(struct lkd_core *core, struct lkd_process *process, int number)
{
    if (!lki_list_is_empty(&process->signal.link) && process->signal_number == SIGKILL)
        return;
    process->signal_number = number;
    lkd_effect_push(core, &process->signal);
}

static void ask_to_end(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    uint64_t grace_ns = core->config.grace_ns;
    lease->asked_ns = now_ns;
    lkd_lease_log(core, lease, now_ns,
                  "asked to end (SIGTERM), killed in %" PRIu64 " ms if it holds on",
                  grace_ns / LKI_NS_PER_MS);
    enter(core, lease, LKD_LEASE_ASKED, lki_time_add(now_ns, grace_ns));
    send_signal(core, lease->holder->session->process, SIGTERM);
}

static void kill_or_report(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    const char *why_not = forbids_kill(core, lease, now_ns);
    if (why_not)
        report(core, lease, now_ns, why_not);
    else
        ask_to_end(core, lease, now_ns);
}

static void fence_or_report(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    struct lkd_attachment *holder = lease->holder;
    struct lkd_segment *segment = holder->segment;
    uint32_t lock = lease->lock;

    if (!holder->brokered) {
        report(core, lease, now_ns, "not fenced: it locks in shared memory by itself");
        return;
    }
    lkd_lease_log(core, lease, now_ns,
                  "FENCED: the lock is taken away; the process lives, and may still write");
    lease_free(core, lease);
    lkd_fence_off(core, holder, lock, now_ns); /* may free the holder */
    lkd_forced_settle(core, segment, lock);
}

/* The hold goes on, and somebody waits for its end. */
static void act(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    const struct lkd_attachment *holder = lease->holder;
    uint32_t on_expiry = holder->segment->on_expiry;

    if (on_expiry == LK_EXPIRY_FENCE && (holder->brokered || !lease->forced))
        fence_or_report(core, lease, now_ns);
    else if (on_expiry == LK_EXPIRY_KILL || lease->forced)
        kill_or_report(core, lease, now_ns);
    else
        report(core, lease, now_ns, "only reported");
}

static void expire(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    if (!still_holds(lease) || (!lease->forced && !is_waited_for(lease))) {
        finish(core, lease);
        return;
    }
    if (lease->shared && ++lease->sightings < SIGHTINGS) {
        enter(core, lease, LKD_LEASE_RUNNING, lki_time_add(now_ns, SIGHTING_NS));
        return;
    }
    act(core, lease, now_ns);
}

bool lkd_lease_force(struct lkd_core *core, struct lkd_attachment *holder, uint32_t lock,
                     uint64_t now_ns)
{
    const struct lki_area *area = &holder->segment->area;
    bool shared = (lkd_fact_look_word(area, lock) & LKI_ID_MASK) != holder->id;
    uint64_t sequence = lkd_fact_look_sequence(area, lock);
    struct lkd_lease *lease = find(holder, lock);

    if (lease &&
        (lease->shared != shared || !is_about(lease, sequence, lease->drainer, lease->drain_ns))) {
        finish(core, lease);
        lease = NULL;
    }
    if (!lease)
        lease = lease_new(core, holder, lock, shared);
    if (!lease)
        return false;
    lease->forced = true;
    if (lease->phase > LKD_LEASE_REPORTED) /* it is being ended already */
        return true;
    lease->sequence = sequence;
    if (lease->since_ns == 0)
        lease->since_ns = now_ns;
    enter(core, lease, LKD_LEASE_RUNNING, now_ns); /* the next tick acts */
    return true;
}

/* --- Ending a process --- */

/* The grace is over. Before each signal: is it still that hold? */
static void look_or_let_go(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    struct lkd_attachment *holder = lease->holder;

    if (!still_holds(lease)) {
        finish(core, lease);
        return;
    }
    if (now_ns < lease->step_ns) { /* a forced one, between two steps */
        uint64_t poll_ns = lki_time_add(now_ns, POLL_NS);
        lkd_deadlines_set(&core->lease_deadlines, &lease->deadline,
                          poll_ns < lease->step_ns ? poll_ns : lease->step_ns);
        return;
    }
    enter(core, lease, LKD_LEASE_LOOKING, lki_time_add(now_ns, LOOK_NS));
    lkd_effect_push(core, &holder->session->process->look);
}

static void kill_now(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    if (!still_holds(lease)) {
        finish(core, lease);
        return;
    }
    lkd_lease_log(core, lease, now_ns, "killed (SIGKILL)");
    enter(core, lease, LKD_LEASE_KILLED, lki_time_add(now_ns, STUCK_NS));
    send_signal(core, lease->holder->session->process, SIGKILL);
}

static void wait_for_debugger(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    uint64_t until_ns = lki_time_add(lease->asked_ns, core->config.traced_grace_ns);
    uint64_t step_ns =
        core->config.grace_ns > TRACED_NS_MIN ? core->config.grace_ns : TRACED_NS_MIN;
    uint64_t next_ns = lki_time_add(now_ns, step_ns);

    if (!lease->traced)
        lkd_lease_log(core, lease, now_ns,
                      "a debugger has stopped it: it has %" PRIu64 " ms instead",
                      core->config.traced_grace_ns / LKI_NS_PER_MS);
    lease->traced = true;
    enter(core, lease, LKD_LEASE_ASKED, next_ns < until_ns ? next_ns : until_ns);
}

static void call_stuck(struct lkd_core *core, struct lkd_lease *lease, enum lkd_process_state state,
                       uint64_t now_ns)
{
    lkd_lease_log(core, lease, now_ns, "STUCK: %s; the lock is handed on when it ends, not before",
                  state == LKD_PROCESS_UNINTERRUPTIBLE
                      ? "SIGKILL cannot reach it, it waits in the kernel (state D)"
                      : "it has not ended since SIGKILL");
    enter(core, lease, LKD_LEASE_STUCK, LKI_TIME_NEVER);
    lkd_forced_settle(core, lease->holder->segment, lease->lock);
}

static void looked(struct lkd_core *core, struct lkd_lease *lease, enum lkd_process_state state,
                   uint64_t now_ns)
{
    switch (lease->phase) {
    case LKD_LEASE_LOOKING:
        if (state == LKD_PROCESS_TRACED && now_ns - lease->asked_ns < core->config.traced_grace_ns)
            wait_for_debugger(core, lease, now_ns);
        else
            kill_now(core, lease, now_ns);
        break;
    case LKD_LEASE_EXAMINING:
        call_stuck(core, lease, state, now_ns);
        break;
    case LKD_LEASE_RUNNING: /* somebody else's question */
    case LKD_LEASE_REPORTED:
    case LKD_LEASE_ASKED:
    case LKD_LEASE_KILLED:
    case LKD_LEASE_STUCK:
        break;
    }
}

/* Calls fn for every lease on what the process holds; fn may free the lease. */
typedef void (*each_fn)(struct lkd_core *core, struct lkd_lease *lease, int what, uint64_t now_ns);

static void for_each(struct lkd_core *core, struct lkd_process *process, each_fn fn, int what,
                     uint64_t now_ns)
{
    LKI_LIST_FOREACH_SAFE (of_process, &process->sessions) {
        struct lkd_session *session = LKI_LIST_ENTRY(of_process, struct lkd_session, of_process);
        LKI_LIST_FOREACH_SAFE (of_session, &session->attachments) {
            struct lkd_attachment *holder =
                LKI_LIST_ENTRY(of_session, struct lkd_attachment, of_session);
            LKI_LIST_FOREACH_SAFE (of_holder, &holder->leases)
                fn(core, LKI_LIST_ENTRY(of_holder, struct lkd_lease, of_holder), what, now_ns);
        }
    }
}

static void each_looked(struct lkd_core *core, struct lkd_lease *lease, int what, uint64_t now_ns)
{
    looked(core, lease, (enum lkd_process_state)what, now_ns);
}

void lkd_core_process_looked(struct lkd_core *core, uint64_t number, enum lkd_process_state state,
                             uint64_t now_ns)
{
    lkd_core_begin(core, now_ns);
    struct lkd_process *process = lkd_process_find(core, number);
    if (process && !process->ended)
        for_each(core, process, each_looked, (int)state, now_ns);
    lkd_core_settle(core, now_ns);
}

static void each_refused(struct lkd_core *core, struct lkd_lease *lease, int what, uint64_t now_ns)
{
    if (lease->phase != LKD_LEASE_ASKED && lease->phase != LKD_LEASE_KILLED)
        return;
    report(core, lease, now_ns,
           what == EPERM ? "not killed: the broker's user may not signal it"
                         : "not killed: the system refused the signal");
}

void lkd_core_process_signaled(struct lkd_core *core, uint64_t number, int signal, int result,
                               uint64_t now_ns)
{
    lkd_core_begin(core, now_ns);
    struct lkd_process *process = lkd_process_find(core, number);
    if (process && !process->ended) {
        if (result < 0 && result != -ESRCH) {
            for_each(core, process, each_refused, -result, now_ns);
        } else if (signal == SIGKILL) {
            process->checked = false;
            lkd_process_check(core, process, now_ns);
        }
    }
    lkd_core_settle(core, now_ns);
}

/* --- Time --- */

static void step(struct lkd_core *core, struct lkd_lease *lease, uint64_t now_ns)
{
    if (lease->holder->state != LKD_ATTACHMENT_LIVE) { /* the end of its repair ends the lease */
        enter(core, lease, LKD_LEASE_REPORTED, LKI_TIME_NEVER);
        return;
    }
    switch (lease->phase) {
    case LKD_LEASE_RUNNING:
        expire(core, lease, now_ns);
        break;
    case LKD_LEASE_ASKED:
        look_or_let_go(core, lease, now_ns);
        break;
    case LKD_LEASE_LOOKING:
        kill_now(core, lease, now_ns);
        break;
    case LKD_LEASE_KILLED:
        enter(core, lease, LKD_LEASE_EXAMINING, lki_time_add(now_ns, LOOK_NS));
        lkd_effect_push(core, &lease->holder->session->process->look);
        break;
    case LKD_LEASE_EXAMINING:
        call_stuck(core, lease, LKD_PROCESS_RUNS, now_ns);
        break;
    case LKD_LEASE_REPORTED:
    case LKD_LEASE_STUCK:
        LKI_UNREACHABLE("these have no deadline");
        break;
    }
}

void lkd_lease_due(struct lkd_core *core, uint64_t now_ns)
{
    struct lkd_deadline *first;
    for (uint32_t steps = 0; steps < LKD_STEPS_MAX; steps++) {
        first = lkd_deadlines_first(&core->lease_deadlines);
        if (!first || first->at_ns > now_ns)
            break;
        lkd_deadlines_clear(&core->lease_deadlines, first);
        step(core, LKI_CONTAINER_OF(first, struct lkd_lease, deadline), now_ns);
    }
}
