/* SPDX-License-Identifier: MIT */
#include "tests/sim/effects.h"

#include "common/assert.h"
#include "common/cleanup.h"
#include "tests/sim/oracle.h"

/* --- Answers to come --- */

static void answer_later(const struct worker_answer *answer)
{
    LKI_ASSERT(worker.answer_count < LKI_ARRAY_LENGTH(worker.answers));
    worker.answers[worker.answer_count++] = *answer;
    sim_wake_worker(answer->due_ns);
}

void worker_hear_signal(uint64_t process, int signal, int result)
{
    answer_later(&(struct worker_answer){.kind = ANSWER_SIGNAL,
                                         .due_ns = sim.now_ns,
                                         .number = process,
                                         .signal = signal,
                                         .result = result});
}

/* --- Segments --- */

static void make_now(uint32_t number, uint64_t bytes)
{
    struct lkd_segment_made made = {
        .result = 0, .area_fd = (int32_t)number, .data_fd = LKD_NO_FD, .read_only_fd = LKD_NO_FD};
    struct sim_area *area = kernel_make_area(number, bytes);
    made.area_base = area->base;
    lkd_core_segment_made(worker.core, number, &made, sim.now_ns);
    oracle_view_area(area); /* not laid out: nobody waits for it any more */
}

static void make_segment(const struct lkd_effect *effect)
{
    if (kernel_find_area(effect->segment))
        sim_fail("number %u of a segment in use is given again", effect->segment);
    if (sim_chance(500)) {
        make_now(effect->segment, effect->spec.area_bytes);
        return;
    }
    answer_later(&(struct worker_answer){.kind = ANSWER_MADE,
                                         .due_ns = sim.now_ns + sim_between(0, LKI_NS_PER_MS),
                                         .number = effect->segment,
                                         .bytes = effect->spec.area_bytes});
}

/* --- Processes --- */

/* Looks whether no instruction of it runs any more, and once more soon after, as the driver does. */
static void look(uint64_t pid, int looks)
{
    int process = sim_process_of_pid((int32_t)pid);
    LKI_ASSERT(process != SIM_NOBODY);
    const struct sim_process *of = &sim.processes[process];
    if (worker.told_ended[process])
        return;
    if (!of->alive && (of->exiting_ns <= sim.now_ns || of->ended_ns <= sim.now_ns)) {
        if (sim.broken != SIM_BREAK_OVERLOOKS_ENDS)
            worker_say_ended(process);
    } else if (looks < 3) {
        answer_later(
            &(struct worker_answer){.kind = ANSWER_LOOK,
                                    .due_ns = sim.now_ns + (looks == 1 ? 1 : 3) * LKI_NS_PER_MS,
                                    .number = pid,
                                    .signal = looks + 1});
    }
}

static void check_process(uint64_t pid)
{
    for (uint32_t i = 0; i < worker.answer_count; i++)
        if (worker.answers[i].kind == ANSWER_LOOK && worker.answers[i].number == pid)
            return;
    look(pid, 1);
}

static void look_at_process(uint64_t pid)
{
    int process = sim_process_of_pid((int32_t)pid);
    const struct sim_process *of = &sim.processes[process];
    lkd_core_process_looked(worker.core, pid,
                            of->alive && of->paused ? LKD_PROCESS_STOPPED : LKD_PROCESS_RUNS,
                            sim.now_ns);
}

/* --- Sending --- */

/* The mistakes that can be planted here. True: the message is not to be sent. */
static bool distort(struct lki_message *message, enum lki_message_type asked)
{
    bool refusal = message->type == LKI_REPLY_RESULT;
    enum lki_status status = refusal ? message->as.result.status : LKI_STATUS_OK;
    switch ((int)sim.broken) {
    case SIM_BREAK_GRANTS_BLINDLY:
        if (asked == LKI_REQUEST_ACQUIRE && status == LKI_STATUS_TIMED_OUT)
            *message = (struct lki_message){
                .type = LKI_REPLY_GRANTED,
                .id = message->id,
                .as.granted = {.status = LKI_STATUS_OK, .attachment = 1u << 16 | 1}};
        return false;
    case SIM_BREAK_REFUSES_AT_RANDOM:
        if (asked == LKI_REQUEST_DEADLOCK_CHECK && sim_chance(100))
            message->as.result.status = LKI_STATUS_DEADLOCK;
        return false;
    case SIM_BREAK_SWALLOWS_ANSWERS:
        return message->id != 0 && sim_chance(3);
    case SIM_BREAK_FORGETS_RESUMED:
        return message->type == LKI_REPLY_RESUMED && sim_chance(300);
    default:
        return false;
    }
}

static void send_message(const struct lkd_effect *effect)
{
    struct worker_link *link = worker_find_session(effect->session);
    if (!link || !link->socket)
        return;
    struct sim_socket *socket = link->socket;
    struct lki_message message = effect->message;
    struct sim_area *area = effect->fds == LKD_FDS_NONE ? NULL : kernel_find_area(effect->segment);
    if (effect->fds != LKD_FDS_NONE && !area)
        sim_fail("segment %u is to be sent and does not exist", effect->segment);
    if (distort(&message, kernel_type_asked(socket, message.id)))
        return;
    if (message.type == LKI_REPLY_RESULT && message.as.result.status == LKI_STATUS_DEADLOCK)
        oracle_check_refused(link->session);
    sim_note("sends %s %llu to session %llu", lki_message_type_name(message.type),
             (unsigned long long)message.id, (unsigned long long)link->session);
    if (!kernel_send_reply(socket, &message, area))
        worker_lose(link);
    else if (sim.broken == SIM_BREAK_ANSWERS_TWICE && message.id != 0 && sim_chance(3))
        (void)kernel_send_reply(socket, &message, area);
}

/* --- The rest --- */

static void wake(const struct lkd_effect *effect)
{
    const struct sim_area *area = kernel_find_area(effect->segment);
    struct lki_attachment *attachment =
        area && area->viewed ? lki_area_attachment(&area->view, effect->slot) : NULL;
    if (sim.broken == SIM_BREAK_LOSES_WAKES && sim_chance(200))
        return;
    if (attachment)
        kernel_wake_futex(&attachment->futex);
}

static void disconnect(const struct lkd_effect *effect)
{
    struct worker_link *link = worker_find_session(effect->session);
    if (!link || !link->socket)
        return;
    sim_note("disconnects session %llu: %s", (unsigned long long)effect->session, effect->text);
    lkd_core_session_lost(worker.core, effect->session, sim.now_ns);
    kernel_close_broker_side(link->socket);
    link->socket = NULL;
}

static void carry_out(const struct lkd_effect *effect)
{
    switch (effect->kind) {
    case LKD_EFFECT_NONE:
        break;
    case LKD_EFFECT_SEND:
        send_message(effect);
        break;
    case LKD_EFFECT_DISCONNECT:
        disconnect(effect);
        break;
    case LKD_EFFECT_MAKE_SEGMENT:
        make_segment(effect);
        break;
    case LKD_EFFECT_GROW_SEGMENT:
        sim_fail("nobody has asked for growth");
    case LKD_EFFECT_DROP_SEGMENT: {
        struct sim_area *area = kernel_find_area(effect->segment);
        if (!area)
            sim_fail("segment %u is dropped and does not exist", effect->segment);
        kernel_drop_area(area);
        break;
    }
    case LKD_EFFECT_WAKE:
        wake(effect);
        break;
    case LKD_EFFECT_CHECK_PROCESS:
        check_process(effect->process);
        break;
    case LKD_EFFECT_SIGNAL_PROCESS:
        sim_after(sim_between(0, 200 * LKI_NS_PER_US), SIM_TIMER_SIGNAL,
                  sim_process_of_pid((int32_t)effect->process), effect->signal);
        break;
    case LKD_EFFECT_LOOK_AT_PROCESS:
        look_at_process(effect->process);
        break;
    case LKD_EFFECT_FORGET_SESSION:
        worker_forget_session(effect->session);
        break;
    case LKD_EFFECT_LOG:
        sim_note("logs: %s", effect->text);
        break;
    }
}

static void take_name_changes(void)
{
    struct lkd_name_change change;
    while (lkd_core_next_name_change(worker.core, &change))
        if (change.present && sim_process_of_pid((int32_t)change.process) == SIM_NOBODY)
            sim_fail("a name is noted for a process that never was");
}

void worker_settle(void)
{
    struct lkd_effect effect;
    if (worker.settling)
        return; /* an effect came back here; the loop below goes on with what it caused */
    worker.settling = true;
    take_name_changes();
    while (lkd_core_next_effect(worker.core, &effect)) {
        sim_step("effect");
        carry_out(&effect);
    }
    take_name_changes();
    worker.settling = false;
    lkd_core_check(worker.core);
    oracle_hide_damage();
}

void worker_take_answer(uint32_t index)
{
    const struct worker_answer answer = worker.answers[index];
    worker.answers[index] = worker.answers[--worker.answer_count];
    worker_enter_core();
    switch (answer.kind) {
    case ANSWER_MADE:
        make_now((uint32_t)answer.number, answer.bytes);
        break;
    case ANSWER_LOOK:
        look(answer.number, answer.signal);
        break;
    case ANSWER_SIGNAL:
        lkd_core_process_signaled(worker.core, answer.number, answer.signal, answer.result,
                                  sim.now_ns);
        break;
    }
    worker_leave_core();
}
