/* SPDX-License-Identifier: MIT */
#include "tests/sim/worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/assert.h"
#include "common/barrier.h"
#include "common/cleanup.h"
#include "tests/sim/effects.h"
#include "tests/sim/oracle.h"

#define SLICE_LOCKS 2u /* of repair: small, so that others come between */

/* A ring that was in doubt may be refused so much later, though somebody in it has moved since. */
#define DOUBT_NS (300 * LKI_NS_PER_MS)

struct worker worker;

static const struct lkd_limits limits = {
    .max = {[LKD_SESSIONS] = 128,
            [LKD_SEGMENTS] = 64,
            [LKD_BYTES] = 1u << 30,
            [LKD_LOCKS] = 4096,
            [LKD_ATTACHMENTS] = 1024,
            [LKD_WAITS] = 64},
};

void worker_init(void)
{
    kernel.ledger_bytes = lkd_ledger_bytes(&limits);
    char *raw = memory_take(MEMORY_WORLD, kernel.ledger_bytes + 4096);
    kernel.ledger = (uint8_t *)raw + (4096 - (uintptr_t)raw % 4096) % 4096;
    worker_forget();
}

void worker_forget(void)
{
    memset(&worker, 0, sizeof(worker));
}

const struct lkd_core *worker_core(void)
{
    return worker.core;
}

void worker_view_ledger(struct lkd_ledger *out)
{
    lkd_ledger_peek(out, kernel.ledger, &limits);
}

bool worker_in_core(void)
{
    return worker.in_core || worker.settling; /* effects come back to it */
}

/* --- Sessions and their sockets --- */

struct worker_link *worker_find_session(uint64_t session)
{
    for (uint32_t i = 0; i < worker.link_count; i++)
        if (worker.links[i].session == session)
            return &worker.links[i];
    return NULL;
}

void worker_forget_session(uint64_t session)
{
    struct worker_link *link = worker_find_session(session);
    if (!link)
        return;
    struct sim_socket *socket = link->socket;
    *link = worker.links[--worker.link_count];
    if (socket)
        kernel_close_broker_side(socket);
}

static struct worker_link *add_link(uint64_t session, int process, struct sim_socket *socket)
{
    LKI_ASSERT(worker.link_count < LKI_ARRAY_LENGTH(worker.links));
    struct worker_link *link = &worker.links[worker.link_count++];
    *link = (struct worker_link){.session = session, .process = process, .socket = socket};
    return link;
}

static struct worker_link *link_of_socket(const struct sim_socket *socket)
{
    for (uint32_t i = 0; i < worker.link_count; i++)
        if (worker.links[i].socket == socket)
            return &worker.links[i];
    return NULL;
}

/* --- Events --- */

void worker_enter_core(void)
{
    sim_step("core");
    worker.in_core = true;
    oracle_look_for_rings();
}

void worker_leave_core(void)
{
    worker.in_core = false;
    worker_settle();
    if (worker.doubted_ns == 0 || sim.now_ns - worker.doubted_ns > DOUBT_NS)
        oracle_forget_rings();
}

/* The next session of the process has come, or its first. */
static void accept_socket(struct sim_socket *socket)
{
    socket->accepted = true;
    const struct sim_process *process = &sim.processes[socket->process];
    if (worker.told_ended[socket->process] ||
        (!process->alive && process->ended_ns <= sim.now_ns)) { /* nobody to be told */
        kernel_close_broker_side(socket);
        return;
    }
    const struct lkd_peer peer = {.pid = process->pid,
                                  .uid = 1000,
                                  .gid = 1000,
                                  .process = (uint64_t)process->pid,
                                  .command = "simulated"};
    uint64_t session = 0;
    worker_enter_core();
    int r = lkd_core_session_opened(worker.core, &peer, sim.now_ns, &session);
    if (r < 0)
        sim_fail("a session is refused: %s", lkd_core_refusal(worker.core));
    add_link(session, socket->process, socket);
    const struct lkd_session_fds fds = {.socket_fd = socket->index, .pidfd = socket->process};
    lkd_core_session_fds(worker.core, session, &fds);
    worker_leave_core();
}

static void hear_one_way(struct sim_socket *socket, uint64_t session,
                         const struct lki_message *message)
{
    sim_note("hears one-way release %llu of session %llu", (unsigned long long)message->id,
             (unsigned long long)session);
    if (sim.broken == SIM_BREAK_TAKES_TOO_SOON)
        kernel_skip_request(socket);
    lkd_core_message(worker.core, session, message, NULL, sim.now_ns);
    if (sim.broken != SIM_BREAK_TAKES_TOO_SOON)
        kernel_skip_request(socket);
}

/* As broker/io/one_way.c: nothing more comes, and what was released counts. */
static void hear_last(const struct worker_link *link)
{
    struct lki_message message;
    if (sim.broken == SIM_BREAK_BURIES_UNHEARD)
        return;
    while (link->socket && kernel_peek_one_way(link->socket, true, &message))
        hear_one_way(link->socket, link->session, &message);
}

void worker_lose(struct worker_link *link)
{
    uint64_t session = link->session;
    hear_last(link);
    kernel_close_broker_side(link->socket);
    link->socket = NULL;
    lkd_core_session_lost(worker.core, session, sim.now_ns);
}

static void receive_next(struct sim_socket *socket)
{
    struct lki_message message;
    struct worker_link *link = link_of_socket(socket);
    LKI_ASSERT(link);
    if (kernel_peek_one_way(socket, false, &message)) {
        uint64_t session = link->session;
        worker_enter_core();
        hear_one_way(socket, session, &message);
        worker_leave_core();
        return;
    }
    int r = kernel_receive_request(socket, &message);
    if (r == 0) {
        sim_note("connection %d has ended", socket->index);
        worker_enter_core();
        worker_lose(link);
        worker_leave_core();
        return;
    }
    sim_note("hears %s %llu of session %llu", lki_message_type_name(message.type),
             (unsigned long long)message.id, (unsigned long long)link->session);
    if (message.type == LKI_REQUEST_RESUME && message.as.resume.number == worker.number)
        socket->resuming = false;
    else if (message.type == LKI_REQUEST_NUDGE && socket->resuming)
        sim.nudge_lost_ns = sim.now_ns;
    uint64_t session = link->session;
    if (message.type == LKI_REQUEST_DETACH || message.type == LKI_REQUEST_GOODBYE)
        oracle_expect_damage(SIM_NOBODY, session,
                             message.type == LKI_REQUEST_DETACH ? message.as.segment_ref.segment
                                                                : 0);
    worker_enter_core();
    lkd_core_message(worker.core, session, &message, NULL, sim.now_ns);
    worker_leave_core();
}

static void receive(struct sim_socket *socket)
{
    const struct worker_link *link = link_of_socket(socket);
    LKI_ASSERT(link);
    uint64_t session = link->session;
    receive_next(socket);
    if (!kernel_has_requests(socket))
        lkd_core_session_quiet(worker.core, session);
}

void worker_say_ended(int process)
{
    if (worker.told_ended[process])
        return;
    worker.told_ended[process] = true;
    sim_note("learns of the end of pid %d", sim.processes[process].pid);
    for (uint32_t i = 0; i < worker.link_count; i++)
        if (worker.links[i].process == process)
            hear_last(&worker.links[i]);
    oracle_expect_damage(sim.processes[process].pid, 0, 0);
    lkd_core_process_ended(worker.core, (uint64_t)sim.processes[process].pid, sim.now_ns);
}

static void end_process(int process)
{
    worker_enter_core();
    worker_say_ended(process);
    worker_leave_core();
}

static void tick(void)
{
    worker_enter_core();
    lkd_core_tick(worker.core, sim.now_ns, SLICE_LOCKS);
    worker_leave_core();
}

/* --- What the worker waits for --- */

enum event_kind {
    EVENT_ACCEPT,
    EVENT_RECEIVE,
    EVENT_END,
    EVENT_TICK,
    EVENT_ANSWER,
};

struct event {
    enum event_kind kind;
    int index;
};

#define EVENTS_MAX 64

static struct {
    struct event due[EVENTS_MAX];
    uint32_t due_count;
    uint64_t next_ns;       /* of those to come, timers of the core among them */
    uint64_t next_event_ns; /* without these */
} events;

static void add_event(enum event_kind kind, int index, uint64_t due_ns)
{
    if (due_ns <= sim.now_ns) {
        if (events.due_count < EVENTS_MAX)
            events.due[events.due_count++] = (struct event){kind, index};
        return;
    }
    if (due_ns < events.next_ns)
        events.next_ns = due_ns;
    if (kind != EVENT_TICK && due_ns < events.next_event_ns)
        events.next_event_ns = due_ns;
}

/* A process that has ended, and of which the core was not told. */
static uint64_t end_due_ns(int process)
{
    const struct sim_process *of = &sim.processes[process];
    if (worker.told_ended[process])
        return LKI_TIME_NEVER;
    /* A stopped process is not a dead one. */
    if (sim.broken == SIM_BREAK_BURIES_ALIVE && of->alive && of->paused && sim_chance(300))
        return 0;
    if (of->alive || (sim.broken == SIM_BREAK_OVERLOOKS_ENDS && process % 3 == 0))
        return LKI_TIME_NEVER;
    return of->ended_ns;
}

static void gather_events(void)
{
    events.due_count = 0;
    events.next_ns = events.next_event_ns = LKI_TIME_NEVER;
    while (kernel.first_open < kernel.socket_count &&
           !kernel.sockets[kernel.first_open].broker_open)
        kernel.first_open++;
    for (int i = kernel.first_open; i < kernel.socket_count; i++) {
        struct sim_socket *socket = &kernel.sockets[i];
        if (socket->broker_open && !socket->accepted)
            add_event(EVENT_ACCEPT, i, 0);
        else
            add_event(EVENT_RECEIVE, i, kernel_request_due_ns(socket));
    }
    for (uint32_t i = 0; i < worker.link_count; i++)
        add_event(EVENT_END, worker.links[i].process, end_due_ns(worker.links[i].process));
    for (uint32_t i = 0; i < worker.answer_count; i++)
        add_event(EVENT_ANSWER, (int)i, worker.answers[i].due_ns);
    if (worker.core)
        add_event(EVENT_TICK, 0, lkd_core_deadline_ns(worker.core));
}

bool worker_is_quiet(void)
{
    gather_events();
    return worker.core && !worker.settling && !worker.in_core && events.due_count == 0 &&
           events.next_event_ns == LKI_TIME_NEVER;
}

static void handle(const struct event *event)
{
    switch (event->kind) {
    case EVENT_ACCEPT:
        accept_socket(&kernel.sockets[event->index]);
        break;
    case EVENT_RECEIVE:
        receive(&kernel.sockets[event->index]);
        break;
    case EVENT_END:
        end_process(event->index);
        break;
    case EVENT_TICK:
        tick();
        break;
    case EVENT_ANSWER:
        worker_take_answer((uint32_t)event->index);
        break;
    }
}

/* --- Taking over --- */

static void adopt_segments(void)
{
    struct lkd_left_segment left;
    bool is_left[SIM_AREAS_MAX] = {false};
    for (uint32_t cursor = 0; lkd_core_next_left_segment(worker.core, &cursor, &left);) {
        struct sim_area *area = kernel_find_area(left.number);
        if (!area || area->bytes != left.area_bytes)
            sim_fail("the ledger has a segment %u that does not exist", left.number);
        for (uint32_t i = 0; i < kernel.area_count; i++)
            is_left[i] |= kernel.areas[i] == area;
        oracle_view_area(area); /* the worker may have died right after it was laid out */
        int r = lkd_core_adopt_segment(worker.core, &left, area->base);
        LKI_ASSERT(r == 0);
    }
    for (uint32_t i = 0; i < kernel.area_count; i++)
        if (kernel.areas[i]->made && !is_left[i])
            kernel_drop_area(kernel.areas[i]);
}

static void adopt_sessions(void)
{
    struct lkd_left_session left;
    for (uint32_t cursor = 0; lkd_core_next_left_session(worker.core, &cursor, &left);) {
        struct sim_socket *socket =
            left.socket_fd == LKD_NO_FD ? NULL : &kernel.sockets[left.socket_fd];
        if (socket && !socket->broker_open)
            socket = NULL;
        if (sim.broken == SIM_BREAK_FORGETS_BEGUN)
            atomic_store(&left.record->received, 1);
        const struct lkd_peer peer = {
            .pid = left.pid, .uid = left.uid, .gid = left.gid, .process = (uint64_t)left.pid};
        uint64_t session = 0;
        int r = lkd_core_adopt_session(worker.core, &left, &peer, &session);
        LKI_ASSERT(r == 0);
        add_link(session, left.pidfd, socket);
        if (socket)
            socket->resuming = true;
    }
}

/* A connection that was accepted and not noted down is accepted once more. */
static void take_strays(void)
{
    for (int i = kernel.first_open; i < kernel.socket_count; i++) {
        struct sim_socket *socket = &kernel.sockets[i];
        if (socket->accepted && socket->broker_open && !link_of_socket(socket))
            accept_socket(socket);
    }
}

static void take_over(void)
{
    struct lkd_ledger ledger;
    worker.in_core = true;
    lkd_core_blame(worker.core, false);
    adopt_segments();
    adopt_sessions();
    int r = lkd_core_adopt(worker.core, sim.now_ns);
    LKI_ASSERT(r == 0);
    worker_view_ledger(&ledger);
    worker.number = atomic_load(&ledger.header->restarts);
    worker_leave_core();
    take_strays();
    sim_seen.takeovers++;
}

static bool may_have_released(void *driver, uint64_t session)
{
    (void)driver;
    const struct worker_link *link = worker_find_session(session);
    if (!link || !link->socket || !kernel_has_requests(link->socket) ||
        sim.broken == SIM_BREAK_TRUSTS_RINGS)
        return false;
    sim_seen.doubts++;
    worker.doubted_ns = sim.now_ns;
    return true;
}

static bool make_barrier(void)
{
    return sim.broken == SIM_BREAK_CLAIMS_BARRIERS || lki_barrier_make();
}

static void begin(void)
{
    const struct lkd_core_config config = {.broker_uid = 1000,
                                           .broker_pid = 42,
                                           .started_ns = 77,
                                           .token_epoch_s = 1000,
                                           .hash_seed = sim.seed,
                                           .socket_path = "/run/simulated",
                                           .limits = limits,
                                           .barrier = sim.plan.bias ? make_barrier : NULL,
                                           .may_have_released = may_have_released,
                                           .ledger = kernel.ledger,
                                           .grace_ns = 20 * LKI_NS_PER_MS};
    worker.in_core = true;
    int r = lkd_core_new(&config, &worker.core);
    LKI_ASSERT(r == 0);
    if (lkd_core_is_successor(worker.core))
        take_over();
    worker.in_core = false;
}

void worker_main(void *user)
{
    (void)user;
    begin();
    for (;;) {
        gather_events();
        if (events.due_count == 0) {
            sim_block(events.next_ns);
            continue;
        }
        const struct event event = events.due[sim_below(events.due_count)];
        handle(&event);
        sim_step("event");
    }
}
