/* SPDX-License-Identifier: MIT */
#include "crowd.h"

#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/bias.h"
#include "client/lock.h"
#include "client/segment.h"
#include "engine/repair.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define STUCK_NS (30 * LKI_NS_PER_S)

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void futex_sleep(_Atomic uint32_t *word, uint32_t value)
{
    static const struct timespec look_again = {.tv_nsec = 100000000};
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &look_again, NULL, 0);
}

static void raise_event(struct crowd *crowd)
{
    atomic_fetch_add(&crowd->shared->events, 1);
    futex_wake(&crowd->shared->events);
}

const char *crowd_segment_name(enum crowd_kind kind)
{
    return kind == CROWD_NATIVE ? "native" : "strict";
}

void crowd_violation(struct crowd *crowd, const char *format, ...)
{
    char text[400];
    va_list arguments;
    atomic_fetch_add(&crowd->shared->violations, 1);
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "violation: %s\n", text);
}

/* --- The judge --- */

void crowd_enter(struct crowd *crowd, enum crowd_kind kind, uint32_t who, char mode, uint64_t token)
{
    struct crowd_judge *judge = &crowd->shared->judges[kind];
    if (mode == 'S') {
        atomic_fetch_add(&judge->readers, 1);
        uint32_t writer = atomic_load(&judge->writer);
        if (writer != 0)
            crowd_violation(crowd, "double grant: %u reads while %u writes", who, writer);
        if (token < atomic_load(&judge->token))
            crowd_violation(crowd, "token fell to %" PRIu64, token);
        return;
    }
    uint32_t other = atomic_exchange(&judge->writer, who);
    uint32_t readers = atomic_load(&judge->readers);
    if (other != 0 || readers != 0)
        crowd_violation(crowd, "double grant: %u writes while %u writes and %u read", who, other,
                        readers);
    uint64_t before = atomic_exchange(&judge->token, token);
    if (token <= before)
        crowd_violation(crowd, "token does not rise: %" PRIu64 " after %" PRIu64, token, before);
}

void crowd_leave(struct crowd *crowd, enum crowd_kind kind, uint32_t who, char mode)
{
    struct crowd_judge *judge = &crowd->shared->judges[kind];
    if (mode == 'S')
        atomic_fetch_sub(&judge->readers, 1);
    else if (atomic_exchange(&judge->writer, 0) != who)
        crowd_violation(crowd, "double grant: somebody took the place of %u", who);
}

/* --- Clients --- */

struct client {
    struct crowd *crowd;
    unsigned number; /* from 0 */
    struct lk_session *session;
    struct lk_segment *segments[CROWD_KINDS];
    struct lk_lock *locks[CROWD_KINDS];
};

static void open_both(const struct crowd *crowd, struct lk_session **out_session,
                      struct lk_segment *out_segments[CROWD_KINDS],
                      struct lk_lock *out_locks[CROWD_KINDS])
{
    *out_session = test_session(crowd->broker.socket_path);
    for (unsigned kind = 0; kind < CROWD_KINDS; kind++) {
        struct lk_segment_options options = test_options(4096, CROWD_LOCKS);
        options.flags |= LK_KEEP | (kind == CROWD_STRICT ? LK_STRICT : 0);
        options.attachments_max = CROWD_SLOTS;
        int r = lk_segment_open(*out_session, crowd_segment_name((enum crowd_kind)kind), &options,
                                &out_segments[kind]);
        test_check(r >= 0, "open: %s", lk_last_error());
        r = lk_lock_at(out_segments[kind], CROWD_LOCK, &out_locks[kind]);
        test_check(r == 0, "lock: %s", lk_last_error());
    }
}

struct answer {
    bool came;
    int result;
};

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct answer *answer = user;
    (void)lock;
    *answer = (struct answer){.came = true, .result = result};
}

static int acquire_async(const struct client *client, struct lk_lock *lock, enum lk_mode mode)
{
    struct answer answer = {.came = false};
    int r = lk_lock_acquire_async(lock, mode, LK_WAIT_FOREVER, on_acquired, &answer);
    test_check(r == 0, "asynchronous acquire: %s", lk_last_error());
    while (!answer.came) {
        struct pollfd wait = {.fd = lk_session_fd(client->session), .events = POLLIN};
        (void)poll(&wait, 1, -1);
        r = lk_session_dispatch(client->session);
        test_check(r >= 0, "dispatch: %s", lk_last_error());
    }
    return answer.result;
}

/* With whoever drains. */
static unsigned waiters_of(const struct lk_segment *segment)
{
    unsigned count = 0;
    for (uint32_t slot = 1; slot <= CROWD_SLOTS; slot++) {
        uint64_t fact = atomic_load(&segment->area.attachments[slot].wait);
        count += lki_wait_is(fact, LKI_WAIT_QUEUED, CROWD_LOCK) ||
                 lki_wait_is(fact, LKI_WAIT_DRAINING, CROWD_LOCK);
    }
    return count;
}

/* Facts in shared memory make no event for a bystander: this looks at them again and again. */
static void await_cue(const struct client *client, const struct crowd_actor *actor)
{
    const struct crowd_shared *shared = client->crowd->shared;
    const struct lk_segment *segment = client->segments[actor->kind];
    for (;;) {
        bool waited = actor->part.when == CROWD_AT_WAIT &&
                      waiters_of(segment) > atomic_load(&shared->fellows);
        bool cued = actor->part.when == CROWD_AT_CUE && atomic_load(&shared->cue);
        if (waited || cued || atomic_load(&shared->end))
            return;
        test_sleep_ns(CROWD_SHORT_NS);
    }
}

static void bias(struct lk_lock *lock)
{
    const _Atomic uint32_t *word = &lock->party->area->hot[lock->index].word;
    lki_bias_reads = 1;
    for (int i = 0; i < 4 && !(atomic_load(word) & LKI_BIASED); i++) {
        test_check(test_acquire(lock, LK_SHARED) == LK_ACQUIRED, "cannot read");
        test_release(lock);
    }
    lki_bias_reads = LKI_BIAS_READS_DEFAULT;
    test_check(atomic_load(word) & LKI_BIASED, "the lock is not biased: %#x", atomic_load(word));
}

static void play(const struct client *client, struct crowd_actor *actor)
{
    struct crowd *crowd = client->crowd;
    struct lk_lock *lock = client->locks[actor->kind];
    enum lk_mode mode = actor->part.mode == 'S' ? LK_SHARED : LK_EXCLUSIVE;
    bool holds = actor->part.how == CROWD_HOLDS;
    struct lk_holder holder = {.size = sizeof(holder)};
    if (actor->part.how == CROWD_ASKS) {
        int asked = lk_lock_holder(lock, &holder);
        if (asked != 0)
            crowd_violation(crowd, "actor %u asks, and gets %d: %s", client->number, asked,
                            lk_strerror(asked));
        return;
    }
    if (actor->part.how == CROWD_BIASES || actor->part.biased)
        bias(lock);
    if (actor->part.how == CROWD_BIASES) {
        atomic_store(&actor->holds, 1);
        return;
    }
    int r = actor->part.how == CROWD_WAITS_ASYNC
                ? acquire_async(client, lock, mode)
                : lk_lock_acquire(lock, mode, holds ? 0 : LK_WAIT_FOREVER);
    if (r < 0) {
        crowd_violation(crowd, "actor %u gets %d: %s", client->number, r, lk_strerror(r));
        return;
    }
    actor->died = r == LK_ACQUIRED_OWNER_DIED;
    actor->token = lk_lock_token(lock);
    crowd_enter(crowd, actor->kind, client->number + 1, actor->part.mode, actor->token);
    if (holds) {
        atomic_store(&actor->holds, 1);
        raise_event(crowd);
        await_cue(client, actor);
    }
    crowd_leave(crowd, actor->kind, client->number + 1, actor->part.mode);
    r = lk_lock_release(lock);
    if (r != 0)
        crowd_violation(crowd, "actor %u holds the lock no more: %d, %s", client->number, r,
                        lk_strerror(r));
}

struct start {
    struct crowd *crowd;
    unsigned number;
};

static int be_actor(void *arg)
{
    const struct start *start = arg;
    struct client client = {.crowd = start->crowd, .number = start->number};
    struct crowd_actor *actor = &client.crowd->shared->actors[client.number];
    open_both(client.crowd, &client.session, client.segments, client.locks);
    for (unsigned kind = 0; kind < CROWD_KINDS; kind++) { /* what this takes stays: slots */
        int r = acquire_async(&client, client.locks[kind], LK_EXCLUSIVE);
        test_check(r == LK_ACQUIRED, "asynchronous acquire: %d", r);
        test_release(client.locks[kind]);
    }
    for (uint32_t seen = 0;; seen++) {
        atomic_store(&actor->done, seen);
        raise_event(client.crowd);
        while (atomic_load(&actor->order) == seen)
            futex_sleep(&actor->order, seen);
        play(&client, actor);
    }
}

/* --- The driver's side ---
 *
 * Whoever waits here looks once more behind its deadline: on a busy machine any process may stand still for
 * long, also between a look and the clock. And it sleeps between two looks, since who yields is passed over
 * for as long again. */

static void show(struct crowd *crowd)
{
    for (unsigned kind = 0; kind < CROWD_KINDS; kind++) {
        const struct lki_area *area = &crowd->segments[kind]->area;
        struct lki_lock_state state;
        lki_lock_look(area, CROWD_LOCK, &state);
        fprintf(stderr, "%s: word %#x sequence %" PRIu64 ", %u wait, %u read; inside: %u\n",
                crowd_segment_name((enum crowd_kind)kind), state.word, state.sequence,
                state.waiters, state.readers, atomic_load(&crowd->shared->judges[kind].writer));
        for (uint32_t slot = 1; slot <= CROWD_SLOTS; slot++) {
            const struct lki_attachment *at = &area->attachments[slot];
            fprintf(stderr, "  slot %u: id %#x wait %#" PRIx64 " futex %#x\n", slot,
                    atomic_load(&at->id), atomic_load(&at->wait), atomic_load(&at->futex));
        }
    }
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        fprintf(stderr, "  actor %u: pid %d\n", i, (int)crowd->pids[i]);
    test_process_show_tree(getpid());
    test_process_show_descriptors(crowd->broker.pid);
    test_broker_show_log(&crowd->broker);
}

bool crowd_is_done(const struct crowd *crowd, unsigned number)
{
    const struct crowd_actor *actor = &crowd->shared->actors[number];
    return atomic_load(&actor->done) == atomic_load(&actor->order);
}

static bool is_cast(const struct crowd *crowd, unsigned number)
{
    const struct crowd_actor *actor = &crowd->shared->actors[number];
    if (actor->part.how == CROWD_HOLDS || actor->part.how == CROWD_BIASES)
        return atomic_load(&actor->holds);
    if (actor->part.how == CROWD_ASKS)
        return true;
    return waiters_of(crowd->segments[actor->kind]) > crowd->waiting;
}

void crowd_begin(struct crowd *crowd, const struct crowd_part parts[CROWD_ACTORS])
{
    unsigned fellows = 0;
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        fellows += parts[i].how == CROWD_WAITS || parts[i].how == CROWD_WAITS_ASYNC;
    atomic_store(&crowd->shared->fellows, fellows);
    crowd->waiting = 0;
    atomic_store(&crowd->shared->cue, 0);
    atomic_store(&crowd->shared->end, 0);
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        crowd->shared->actors[i].part = (struct crowd_part){.how = CROWD_ABSENT};
}

void crowd_cast(struct crowd *crowd, unsigned number, enum crowd_kind kind,
                const struct crowd_part *part)
{
    struct crowd_actor *actor = &crowd->shared->actors[number];
    uint64_t deadline_ns = lki_clock_now_ns() + crowd->stuck_ns;
    actor->part = *part;
    actor->kind = kind;
    actor->died = false;
    actor->token = 0;
    atomic_store(&actor->holds, 0);
    atomic_fetch_add(&actor->order, 1);
    futex_wake(&actor->order);
    for (uint64_t now_ns = 0; !is_cast(crowd, number); now_ns = lki_clock_now_ns()) {
        bool may_end = part->how == CROWD_BIASES;
        test_check(now_ns < deadline_ns && (may_end || !crowd_is_done(crowd, number)),
                   "actor %u does not come", number);
        test_sleep_ns(CROWD_SHORT_NS);
    }
    if (part->how == CROWD_WAITS || part->how == CROWD_WAITS_ASYNC)
        crowd->waiting++;
}

void crowd_cue(struct crowd *crowd)
{
    atomic_store(&crowd->shared->cue, 1);
}

void crowd_end(struct crowd *crowd)
{
    atomic_store(&crowd->shared->end, 1);
}

bool crowd_is_cued(const struct crowd *crowd)
{
    const struct crowd_actor *holder = &crowd->shared->actors[0];
    return crowd_is_done(crowd, 0) ||
           waiters_of(crowd->segments[holder->kind]) > atomic_load(&crowd->shared->fellows);
}

bool crowd_await_fellows(struct crowd *crowd, enum crowd_kind kind)
{
    uint64_t deadline_ns = lki_clock_now_ns() + crowd->stuck_ns;
    for (uint64_t now_ns = 0;
         waiters_of(crowd->segments[kind]) > atomic_load(&crowd->shared->fellows);
         now_ns = lki_clock_now_ns()) {
        if (now_ns > deadline_ns) {
            crowd_violation(crowd, "stuck: the wait of the dead one stays");
            show(crowd);
            return false;
        }
        test_sleep_ns(CROWD_SHORT_NS);
    }
    return true;
}

bool crowd_await_all(struct crowd *crowd)
{
    uint64_t deadline_ns = lki_clock_now_ns() + crowd->stuck_ns;
    for (unsigned i = 0; i < CROWD_ACTORS; i++) {
        for (uint64_t now_ns = 0;; now_ns = lki_clock_now_ns()) {
            uint32_t seen = atomic_load(&crowd->shared->events);
            if (crowd_is_done(crowd, i))
                break;
            if (now_ns > deadline_ns) {
                crowd_violation(crowd, "stuck: actor %u never ends", i);
                show(crowd);
                return false;
            }
            futex_sleep(&crowd->shared->events, seen);
        }
    }
    return true;
}

int32_t crowd_settle(struct crowd *crowd, enum crowd_kind kind)
{
    struct lk_holder holder = {.pid = 0};
    /* More than the broker hears from us in one turn: then the others have had theirs, and a release that is
     * not waited for has been read. */
    for (int i = 0; i < 20; i++) {
        holder.size = sizeof(holder);
        int r = lk_lock_holder(crowd->locks[kind], &holder);
        test_check(r == 0, "lk_lock_holder: %d, %s", r, lk_last_error());
    }
    return holder.pid;
}

static unsigned slots_of(const struct lk_segment *segment)
{
    unsigned count = 0;
    for (uint32_t slot = 1; slot <= CROWD_SLOTS; slot++)
        count += atomic_load(&segment->area.attachments[slot].id) != 0;
    return count;
}

bool crowd_has_descriptors(struct crowd *crowd)
{
    unsigned descriptors = test_process_descriptors(crowd->broker.pid);
    if (descriptors < crowd->descriptors && !crowd->frozen)
        crowd->descriptors = descriptors; /* the first count had one that was open for a moment */
    return descriptors == crowd->descriptors;
}

static bool is_baseline(struct crowd *crowd)
{
    for (unsigned kind = 0; kind < CROWD_KINDS; kind++)
        if (slots_of(crowd->segments[kind]) != crowd->slots[kind])
            return false;
    return crowd_has_descriptors(crowd);
}

bool crowd_await_baseline(struct crowd *crowd)
{
    uint64_t deadline_ns = lki_clock_now_ns() + crowd->stuck_ns;
    for (uint64_t now_ns = 0; !is_baseline(crowd); now_ns = lki_clock_now_ns()) {
        if (now_ns > deadline_ns) {
            crowd_violation(crowd,
                            "leak: %u slots (%u) native, %u (%u) strict, %u descriptors (%u)",
                            slots_of(crowd->segments[CROWD_NATIVE]), crowd->slots[CROWD_NATIVE],
                            slots_of(crowd->segments[CROWD_STRICT]), crowd->slots[CROWD_STRICT],
                            test_process_descriptors(crowd->broker.pid), crowd->descriptors);
            show(crowd);
            return false;
        }
        test_sleep_ns(CROWD_SHORT_NS);
    }
    return true;
}

bool crowd_ask_idle(struct crowd *crowd, enum crowd_kind kind)
{
    static const struct crowd_part asks = {.how = CROWD_ASKS};
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        if (crowd->shared->actors[i].part.how == CROWD_ABSENT)
            crowd_cast(crowd, i, kind, &asks);
    return crowd_await_all(crowd);
}

static bool probe_once(struct crowd *crowd, enum crowd_kind kind, enum lk_mode mode, bool died)
{
    struct lk_lock *lock = crowd->locks[kind];
    char letter = mode == LK_SHARED ? 'S' : 'X';
    int r = lk_lock_acquire(lock, mode, crowd->stuck_ns);
    if (r < 0) {
        crowd_violation(crowd, "stuck: the prober's acquire gives %d: %s", r, lk_last_error());
        show(crowd);
        return false;
    }
    if ((r == LK_ACQUIRED_OWNER_DIED) != died)
        crowd_violation(crowd, "owner-died: the prober was told %d instead of %d", r, died);
    crowd_enter(crowd, kind, CROWD_PROBER, letter, lk_lock_token(lock));
    crowd_leave(crowd, kind, CROWD_PROBER, letter);
    if (mode != LK_SHARED && r == LK_ACQUIRED_OWNER_DIED && lk_lock_mark_consistent(lock) != 0)
        crowd_violation(crowd, "the prober cannot mark: %s", lk_last_error());
    if (lk_lock_release(lock) != 0)
        crowd_violation(crowd, "the prober cannot release: %s", lk_last_error());
    return true;
}

bool crowd_probe(struct crowd *crowd, enum crowd_kind kind, bool died, uint64_t died_ns)
{
    if (!probe_once(crowd, kind, LK_EXCLUSIVE, died))
        return false;
    uint64_t took_ns = lki_clock_now_ns() - died_ns;
    crowd->slowest_ns = took_ns > crowd->slowest_ns ? took_ns : crowd->slowest_ns;
    if (!probe_once(crowd, kind, LK_SHARED, false) || !probe_once(crowd, kind, LK_EXCLUSIVE, false))
        return false;
    (void)crowd_settle(crowd, kind); /* our own release is read */
    struct lki_lock_state state;
    lki_lock_look(&crowd->segments[kind]->area, CROWD_LOCK, &state);
    if ((state.word & (LKI_ID_MASK | LKI_DIED)) != 0 || (state.sequence & 1) != 0 ||
        state.readers != 0 || state.waiters != 0)
        crowd_violation(crowd, "word: %#x is left, %u read, %u wait, sequence %" PRIu64, state.word,
                        state.readers, state.waiters, state.sequence);
    return true;
}

void crowd_init(struct crowd *crowd)
{
    *crowd = (struct crowd){.shared = test_shared(sizeof(*crowd->shared)), .stuck_ns = STUCK_NS};
    test_broker_start(&crowd->broker);
    for (unsigned i = 0; i < CROWD_ACTORS; i++) {
        struct start start = {.crowd = crowd, .number = i};
        atomic_store(&crowd->shared->actors[i].order, 0);
        atomic_store(&crowd->shared->actors[i].done, 1);
        crowd->pids[i] = test_spawn(be_actor, &start);
        while (!crowd_is_done(crowd, i)) /* one by one: each tries both locks */
            futex_sleep(&crowd->shared->events, atomic_load(&crowd->shared->events));
    }
    open_both(crowd, &crowd->session, crowd->segments, crowd->locks);
    for (unsigned kind = 0; kind < CROWD_KINDS; kind++) {
        test_check(test_acquire(crowd->locks[kind], LK_EXCLUSIVE) == LK_ACQUIRED, "damaged");
        test_release(crowd->locks[kind]);
        crowd->slots[kind] = slots_of(crowd->segments[kind]);
    }
    crowd->descriptors = test_process_descriptors(crowd->broker.pid);
    for (int i = 0; i < 8; i++) {
        crowd_settle(crowd, CROWD_NATIVE);
        (void)is_baseline(crowd);
    }
}

void crowd_deinit(struct crowd *crowd)
{
    for (unsigned i = 0; i < CROWD_ACTORS; i++)
        test_kill(crowd->pids[i]);
    lk_session_close(crowd->session);
    test_broker_stop(&crowd->broker);
}
