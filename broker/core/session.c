/* SPDX-License-Identifier: MIT */
#include "broker/core/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/attachment.h"
#include "broker/core/brokered_wait.h"
#include "broker/core/charge.h"
#include "broker/core/monitor.h"
#include "broker/core/forced.h"
#include "broker/core/parked.h"
#include "broker/core/process.h"
#include "common/assert.h"
#include "common/clock.h"
#include "engine/step.h"

#define GROUPS_MAX 65536u /* NGROUPS_MAX of the kernel */

struct lkd_session *lkd_session_find(const struct lkd_core *core, uint64_t number)
{
    struct lkd_session *session;
    unsigned hash = lkd_hash(core->config.hash_seed, &number, sizeof(number));
    HASH_FIND_BYHASHVALUE(by_number, core->sessions, &number, sizeof(number), hash, session);
    return session;
}

static struct lkd_session *session_new(const struct lkd_peer *peer)
{
    struct lkd_session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    /* Groups beyond what the kernel knows are left out: fewer rights, never more. */
    session->group_count = peer->group_count < GROUPS_MAX ? peer->group_count : GROUPS_MAX;
    if (session->group_count > 0) {
        session->groups = malloc(session->group_count * sizeof(*session->groups));
        if (!session->groups) {
            free(session);
            return NULL;
        }
        memcpy(session->groups, peer->groups, session->group_count * sizeof(*session->groups));
    }
    session->state = LKD_SESSION_GREETING;
    session->pid = peer->pid;
    session->uid = peer->uid;
    session->gid = peer->gid;
    memcpy(session->command, peer->command, sizeof(session->command));
    session->command[sizeof(session->command) - 1] = 0;
    lki_list_init(&session->of_process);
    lki_list_init(&session->of_silent);
    lki_list_init(&session->attachments);
    lki_list_init(&session->waits);
    lki_list_init(&session->parked);
    lki_list_init(&session->of_broken);
    lkd_effect_node_init(&session->disconnect, LKD_EFFECT_DISCONNECT);
    lkd_effect_node_init(&session->forget, LKD_EFFECT_FORGET_SESSION);
    return session;
}

static bool session_enlist(struct lkd_core *core, struct lkd_session *session, uint64_t number)
{
    session->number = number;
    unsigned hash = lkd_hash(core->config.hash_seed, &session->number, sizeof(session->number));
    HASH_ADD_KEYPTR_BYHASHVALUE(by_number, core->sessions, &session->number,
                                sizeof(session->number), hash, session);
    if (!session->by_number.tbl)
        return false;
    if (number > core->last_session)
        core->last_session = number;
    LKI_STEP("last_session");
    /* release: before the record that has it */
    atomic_store_explicit(&core->ledger.header->last_session, core->last_session,
                          memory_order_release);
    core->session_count++;
    return true;
}

/* Its record, without descriptors. */
static void session_record(struct lkd_core *core, struct lkd_session *session)
{
    struct lkd_session_record *record = lkd_ledger_take_session(&core->ledger);
    LKI_ASSERT(record); /* as many as the quota admits */
    LKI_STEP("session_record");
    record->socket_fd = LKD_NO_FD;
    record->pidfd = LKD_NO_FD;
    record->pid = session->pid;
    record->uid = session->uid;
    record->gid = session->gid;
    record->number = session->number;
    record->opened_ns = session->opened_ns;
    /* relaxed: the state vouches for them */
    atomic_store_explicit(&record->flags, 0, memory_order_relaxed);
    atomic_store_explicit(&record->received, 0, memory_order_relaxed);
    atomic_store_explicit(&record->remove_request, 0, memory_order_relaxed);
    atomic_store_explicit(&record->ended_request, 0, memory_order_relaxed);
    memcpy(record->command, session->command, sizeof(record->command));
    lkd_record_enter(&record->state, LKD_RECORD_LIVE);
    session->record = record;
}

static void note(struct lkd_session *session, uint32_t flag)
{
    LKI_STEP("session_flag");
    /* seq_cst: before whatever is done next */
    atomic_fetch_or_explicit(&session->record->flags, flag, memory_order_seq_cst);
    LKI_STEP("session_flagged");
}

void lkd_core_session_fds(struct lkd_core *core, uint64_t number, const struct lkd_session_fds *fds)
{
    struct lkd_session *session = lkd_session_find(core, number);
    if (!session)
        return;
    LKI_STEP("session_fds");
    memcpy(session->record->process_key, fds->process_key, sizeof(fds->process_key));
    session->record->pidfd = fds->pidfd;
    LKI_STEP("session_pidfd");
    session->record->socket_fd = fds->socket_fd;
}

bool lkd_session_is_connected(const struct lkd_session *session)
{
    switch (session->state) {
    case LKD_SESSION_GREETING:
    case LKD_SESSION_OPEN:
    case LKD_SESSION_LEAVING:
        return true;
    case LKD_SESSION_LOST:
    case LKD_SESSION_GONE:
        break;
    }
    return false;
}

/* Disconnects a session at the end of this event, for a reason that nobody is to blame for. */
void lkd_session_part(struct lkd_core *core, struct lkd_session *session, const char *reason)
{
    if (!lkd_session_is_connected(session) || !lki_list_is_empty(&session->of_broken))
        return;
    snprintf(session->farewell, sizeof(session->farewell), "%s", reason);
    lki_list_append(&core->broken, &session->of_broken);
}

/* Disconnects up to `count` sessions of the account that never said hello, oldest first. */
static uint32_t part_silent(struct lkd_core *core, struct lkd_account *account, uint32_t count,
                            uint64_t now_ns)
{
    uint32_t parted = 0;
    LKI_LIST_FOREACH_SAFE (node, &account->silent) {
        struct lkd_session *session = LKI_LIST_ENTRY(node, struct lkd_session, of_silent);
        if (parted == count || now_ns - session->opened_ns < LKD_SILENT_NS)
            break;
        lkd_session_part(core, session,
                         "it has sent nothing since it came, and others need its place");
        parted++;
    }
    return parted;
}

uint32_t lkd_core_shed_silent(struct lkd_core *core, uint32_t count, uint64_t now_ns)
{
    struct lkd_account *most = NULL;

    lkd_core_begin(core, now_ns);
    for (struct lkd_account *account = core->quota.accounts; account;
         account = account->by_uid.next)
        if (account->silent_count > (most ? most->silent_count : 0))
            most = account;
    uint32_t parted = most ? part_silent(core, most, count, now_ns) : 0;
    lkd_core_settle(core, now_ns);
    return parted;
}

/* The uid's account, charged with one more session. A silent one of the same uid makes room. */
static int admit(struct lkd_core *core, uint32_t uid, uint64_t now_ns,
                 struct lkd_account **out_account)
{
    int r = lkd_charge_admit(core, uid, out_account);
    if (r != -EDQUOT)
        return r;
    struct lkd_account *account = lkd_quota_account(&core->quota, uid);
    if (!account)
        return -ENOMEM;
    uint32_t parted = part_silent(core, account, 1, now_ns);
    lkd_quota_drop_unused(&core->quota, account);
    lkd_core_settle(core, now_ns); /* it is gone at once: it has nothing */
    return parted > 0 ? lkd_charge_admit(core, uid, out_account) : r;
}

static struct lkd_session *session_make(struct lkd_core *core, const struct lkd_peer *peer,
                                        uint64_t now_ns)
{
    struct lkd_process *process = lkd_process_get(core, peer->process);
    if (!process)
        return NULL;
    struct lkd_session *session = session_new(peer);
    if (!session || !session_enlist(core, session, core->last_session + 1)) {
        if (session)
            free(session->groups);
        free(session);
        lkd_process_drop_unused(core, process);
        return NULL;
    }
    session->opened_ns = now_ns;
    session->process = process;
    session_record(core, session);
    lki_list_append(&process->sessions, &session->of_process);
    return session;
}

int lkd_core_session_opened(struct lkd_core *core, const struct lkd_peer *peer, uint64_t now_ns,
                            uint64_t *out_session)
{
    struct lkd_account *account;

    lkd_core_begin(core, now_ns);
    int r = admit(core, peer->uid, now_ns, &account);
    if (r == -EDQUOT)
        lkd_monitor_tell(
            core,
            &(struct lkd_news){.kind = LKI_EVENT_QUOTA, .uid = peer->uid, .text = core->refusal});
    if (r < 0)
        return r;
    struct lkd_session *session = session_make(core, peer, now_ns);
    if (!session) {
        lkd_quota_uncharge(&core->quota, account, NULL, LKD_SESSIONS, 1);
        return -ENOMEM;
    }
    session->account = account;
    lki_list_append(&account->silent, &session->of_silent);
    account->silent_count++;
    if (account->silent_count > LKI_SILENT_SESSIONS_MAX)
        part_silent(core, account, account->silent_count - LKI_SILENT_SESSIONS_MAX, now_ns);
    *out_session = session->number;
    if (session->process->ended)
        lkd_session_part(core, session, "its process has ended");
    lkd_core_settle(core, now_ns);
    return 0;
}

/* The only writer of the state. */
static void enter(struct lkd_session *session, enum lkd_session_state state)
{
    switch (session->state) {
    case LKD_SESSION_GREETING:
        LKI_ASSERT(state == LKD_SESSION_OPEN || state == LKD_SESSION_LOST);
        lki_list_remove(&session->of_silent);
        session->account->silent_count--;
        break;
    case LKD_SESSION_OPEN:
        LKI_ASSERT(state == LKD_SESSION_LEAVING || state == LKD_SESSION_LOST);
        break;
    case LKD_SESSION_LEAVING:
        LKI_ASSERT(state == LKD_SESSION_LOST);
        break;
    case LKD_SESSION_LOST:
        LKI_ASSERT(state == LKD_SESSION_GONE);
        break;
    case LKD_SESSION_GONE:
        LKI_UNREACHABLE("a session that is gone changes no more");
        break;
    }
    session->state = state;
}

void lkd_session_introduce(struct lkd_core *core, struct lkd_session *session)
{
    if (session->introduced)
        return;
    session->introduced = true;
    lkd_monitor_session(core, LKI_EVENT_SESSION_OPENED, session, NULL);
}

static const char *farewell_of(const struct lkd_session *session)
{
    return session->farewell[0] ? session->farewell : "its connection has ended";
}

static void forget_if_done(struct lkd_core *core, struct lkd_session *session)
{
    if (!lki_list_is_empty(&session->attachments))
        return;
    enter(session, LKD_SESSION_GONE);
    if (session->introduced)
        lkd_monitor_session(core, LKI_EVENT_SESSION_ENDED, session, farewell_of(session));
    HASH_DELETE(by_number, core->sessions, session);
    core->session_count--;
    lkd_ledger_give_session(&core->ledger, session->record);
    session->record = NULL;
    lkd_charge_leave(core, session);
    lkd_effect_push(core, &session->forget);
}

/* Its connection has ended, or is about to: nobody waits for an answer any more. */
static void lose(struct lkd_core *core, struct lkd_session *session, uint64_t now_ns)
{
    if (!lkd_session_is_connected(session))
        return;
    lki_list_remove(&session->of_broken);
    enter(session, LKD_SESSION_LOST);
    note(session, LKD_SESSION_CUT);
    lkd_monitor_stop(session);
    if (session->to_blame)
        lkd_monitor_session(core, LKI_EVENT_DROPPED, session, session->farewell);
    if (!lki_list_is_empty(&session->attachments))
        lkd_monitor_session(core, LKI_EVENT_SESSION_LOST, session, farewell_of(session));
    lkd_parked_drop_session(core, session);
    lkd_forced_drop_session(core, session);
    lkd_wait_drop_session(core, session, now_ns);
    forget_if_done(core, session);
}

void lkd_core_session_lost(struct lkd_core *core, uint64_t number, uint64_t now_ns)
{
    lkd_core_begin(core, now_ns);
    struct lkd_session *session = lkd_session_find(core, number);
    if (session)
        lose(core, session, now_ns);
    lkd_core_settle(core, now_ns);
}

void lkd_core_session_dropped(struct lkd_core *core, uint64_t number, const char *reason,
                              uint64_t now_ns)
{
    struct lkd_session *session = lkd_session_find(core, number);
    if (session) {
        LKI_ASSERT(lki_list_is_empty(&session->of_broken)); /* as between any two events */
        session->to_blame = true;
        snprintf(session->farewell, sizeof(session->farewell), "%s", reason);
    }
    lkd_core_session_lost(core, number, now_ns);
}

bool lkd_core_session_is_attached(const struct lkd_core *core, uint64_t number)
{
    const struct lkd_session *session = lkd_session_find(core, number);
    return session && !lki_list_is_empty(&session->attachments);
}

void lkd_core_session_renamed(struct lkd_core *core, uint64_t number, const char *command)
{
    struct lkd_session *session = lkd_session_find(core, number);
    if (!session)
        return;
    size_t length = strnlen(command, sizeof(session->command) - 1);
    memset(session->command, 0, sizeof(session->command));
    memcpy(session->command, command, length);
    memcpy(session->record->command, session->command, sizeof(session->record->command));
}

void lkd_session_break(struct lkd_core *core, struct lkd_session *session, const char *reason)
{
    if (lki_list_is_empty(&session->of_broken))
        session->to_blame = true;
    lkd_session_part(core, session, reason);
}

void lkd_session_settle(struct lkd_core *core, uint64_t now_ns)
{
    while (!lki_list_is_empty(&core->broken)) {
        struct lkd_session *session =
            LKI_LIST_ENTRY(core->broken.next, struct lkd_session, of_broken);
        lkd_effect_push(core, &session->disconnect);
        lose(core, session, now_ns);
    }
}

/* Its record stays until the driver has sent the answer and says that the connection is cut: a successor of
 * a worker that dies in between hears the goodbye again, and answers. */
static void say_goodbye(struct lkd_core *core, struct lkd_session *session)
{
    snprintf(session->farewell, sizeof(session->farewell), "goodbye");
    lkd_reply_result(core, session, session->goodbye_request, LKI_STATUS_OK, 0);
    lkd_effect_push(core, &session->disconnect);
}

void lkd_session_goodbye(struct lkd_core *core, struct lkd_session *session, uint64_t request,
                         uint64_t now_ns)
{
    session->goodbye_request = request;
    lkd_parked_cancel_session(core, session);
    lkd_wait_cancel_session(core, session, now_ns);
    enter(session, LKD_SESSION_LEAVING);
    lkd_monitor_stop(session);
    lkd_attachment_end_session(core, session, LKI_CAUSE_CLOSED, now_ns);
    if (lki_list_is_empty(&session->attachments))
        say_goodbye(core, session);
}

void lkd_session_shrunk(struct lkd_core *core, struct lkd_session *session)
{
    if (!lki_list_is_empty(&session->attachments))
        return;
    switch (session->state) {
    case LKD_SESSION_GREETING:
    case LKD_SESSION_OPEN:
    case LKD_SESSION_GONE:
        break;
    case LKD_SESSION_LEAVING:
        say_goodbye(core, session);
        break;
    case LKD_SESSION_LOST:
        forget_if_done(core, session);
        break;
    }
}

bool lkd_session_greet(struct lkd_core *core, struct lkd_session *session,
                       const struct lki_message *message)
{
    const struct lki_hello *hello = &message->as.hello;

    if (hello->protocol_major != LKI_PROTOCOL_MAJOR || hello->layout_major != LKI_LAYOUT_MAJOR) {
        lkd_refuse(core, session, message->id, LKI_STATUS_VERSION,
                   "this broker speaks protocol %d with layout %d, the client protocol %u with "
                   "layout %u; restart whichever is older",
                   LKI_PROTOCOL_MAJOR, LKI_LAYOUT_MAJOR, hello->protocol_major,
                   hello->layout_major);
        lkd_session_break(core, session, "another protocol version");
        return false;
    }
    enter(session, LKD_SESSION_OPEN);
    session->knows_1_4 = hello->protocol_minor >= LKI_PROTOCOL_MINOR_ONE_WAY;
    note(session, LKD_SESSION_GREETED | (session->knows_1_4 ? LKD_SESSION_ONE_WAY : 0));
    return true;
}

void lkd_session_free(struct lkd_core *core, struct lkd_session *session)
{
    struct lkd_process *process = session->process;

    lkd_effect_cancel(&session->disconnect);
    lkd_effect_cancel(&session->forget);
    lki_list_remove(&session->of_process);
    lkd_monitor_stop(session);
    free(session->groups);
    free(session);
    lkd_process_drop_unused(core, process);
}

/* --- Taken over --- */

void lkd_session_resume(struct lkd_core *core, struct lkd_session *session, uint32_t number)
{
    if (!session->adopted) {
        lkd_session_break(core, session, "it resumes what was not interrupted");
        return;
    }
    if (number == core->resumed)
        session->resuming = false;
    /* else it was meant for a worker that has died since: RESUMED of this one is on its way */
}

void lkd_session_receive(struct lkd_session *session, uint64_t request)
{
    session->requested = true;
    session->last_request = request;
    session->repeating = session->adopted && request <= session->doubtful_until;
    if (request <= session->doubtful_until)
        return;
    LKI_STEP("received");
    /* release: before the request has any effect that a successor could see */
    atomic_store_explicit(&session->record->received, request, memory_order_release);
}

static void adopt_account(struct lkd_core *core, struct lkd_session *session,
                          struct lkd_account *account)
{
    session->account = account;
    lkd_quota_charge(&core->quota, account, NULL, LKD_SESSIONS, 1);
    if (session->state != LKD_SESSION_GREETING)
        return;
    lki_list_append(&account->silent, &session->of_silent);
    account->silent_count++;
}

struct lkd_session *lkd_session_adopt(struct lkd_core *core, struct lkd_session_record *record,
                                      const struct lkd_peer *peer)
{
    /* relaxed: written by a worker that has ended */
    uint32_t flags = atomic_load_explicit(&record->flags, memory_order_relaxed);
    struct lkd_peer known = *peer;
    known.pid = record->pid;
    known.uid = record->uid;
    known.gid = record->gid;
    memcpy(known.command, record->command, sizeof(known.command));
    struct lkd_account *account = lkd_quota_account(&core->quota, record->uid);
    struct lkd_process *process = lkd_process_get(core, peer->process);
    struct lkd_session *session = process ? session_new(&known) : NULL;
    if (!account || !session || !session_enlist(core, session, record->number)) {
        if (session)
            free(session->groups);
        free(session);
        return NULL; /* and the worker ends: what was made so far goes with it */
    }
    session->record = record;
    session->opened_ns = record->opened_ns;
    session->adopted = true;
    /* relaxed: as above */
    session->doubtful_until = atomic_load_explicit(&record->received, memory_order_relaxed);
    if (flags & LKD_SESSION_CUT)
        session->state = LKD_SESSION_LOST;
    else if (flags & LKD_SESSION_GREETED)
        session->state = LKD_SESSION_OPEN;
    session->knows_1_4 = flags & LKD_SESSION_ONE_WAY;
    session->resuming = session->state != LKD_SESSION_LOST;
    session->process = process;
    lki_list_append(&process->sessions, &session->of_process);
    adopt_account(core, session, account);
    return session;
}

bool lkd_session_adopted(struct lkd_core *core, struct lkd_session *session)
{
    if (!lkd_session_is_connected(session)) {
        forget_if_done(core, session);
        return true;
    }
    /* Also if the worker before had told it, or had been answered: nobody can know how far that came.
     */
    struct lkd_sending *sending = lkd_notice(core, session, LKI_REPLY_RESUMED, 0);
    if (!sending)
        return false; /* it has asked for nothing that could fail */
    sending->message.as.resumed.number = core->resumed;
    return true;
}

void lkd_session_note_ending(struct lkd_session *session, uint64_t request)
{
    LKI_STEP("session_ending");
    /* seq_cst: before the hold or the attachment ends */
    atomic_store_explicit(&session->record->ended_request, request, memory_order_seq_cst);
}

bool lkd_session_has_ended(const struct lkd_session *session, uint64_t request)
{
    /* relaxed: written by a worker that has ended, or by this one */
    return session->repeating &&
           request <= atomic_load_explicit(&session->record->ended_request, memory_order_relaxed);
}
