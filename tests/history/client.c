/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <lockkeeper/inline.h>

#include "client/bias.h"
#include "common/clock.h"
#include "tests/history/run.h"

#define DEPTH_MAX 2u
#define READS_IN_A_ROW 8u     /* on the average */
#define READS_UNTIL_BIASED 3u /* in place of thousands: somebody writes much sooner */
#define BROKEN_IN 2u          /* one of so many chances to make the planted mistake is taken */

#define AT(client) atomic_store(&(client)->shared->at[(client)->index], __LINE__)

void run_segment_name(uint32_t number, char out_name[32])
{
    snprintf(out_name, 32, "%s-%u", number % 2 == 0 ? "native" : "strict", number);
}

struct lk_segment_options run_segment_options(uint32_t number)
{
    struct lk_segment_options options =
        test_options(RUN_LOCKS_EACH * sizeof(struct run_canary), RUN_LOCKS_EACH);
    /* Kept: now and then all clients are dead at once. */
    options.flags |= LK_KEEP | (number % 2 == 0 ? 0 : LK_STRICT);
    options.attachments_max = 256;
    options.patience_ns = number < 2 ? 0 : LK_PATIENCE_FIFO;
    return options;
}

void run_client_open(struct run_client *client)
{
    struct lk_session *session = test_session(client->socket_path);
    for (uint32_t number = 0; number < RUN_SEGMENTS; number++) {
        struct test_client *at = &client->segments[number];
        struct lk_segment_options options = run_segment_options(number);
        char name[32];
        void *data = NULL;
        if (client->reads_only)
            options.flags = LK_READ_ONLY;
        run_segment_name(number, name);
        at->session = session;
        test_check(lk_segment_open(session, name, &options, &at->segment) >= 0, "%s",
                   lk_last_error());
        test_check(lk_segment_map(at->segment, 0, 0, &data) == 0, "%s", lk_last_error());
        at->data = data;
        for (uint32_t i = 0; i < RUN_LOCKS_EACH; i++)
            client->locks[number * RUN_LOCKS_EACH + i] = test_lock(at, i);
    }
}

static struct run_canary *canary_of(const struct run_client *client, uint32_t lock)
{
    unsigned char *data = client->segments[lock / RUN_LOCKS_EACH].data;
    return (struct run_canary *)(void *)data + lock % RUN_LOCKS_EACH;
}

static bool chance(struct run_client *client, uint64_t one_of)
{
    return test_random_below(&client->random, one_of) == 0;
}

static bool breaks(struct run_client *client, enum run_break what)
{
    return client->broken == what && chance(client, BROKEN_IN);
}

/* --- Records --- */

struct record *run_record(struct run_ring *ring, enum record_kind kind, uint32_t life)
{
    uint32_t used = atomic_load(&ring->used);
    test_check(used < RUN_RECORDS, "the ring is full");
    struct record *record = &ring->records[used];
    memset(record, 0, sizeof(*record));
    record->kind = (uint8_t)kind;
    record->life = life;
    record->pid = getpid();
    record->asked_ns = lki_clock_now_ns();
    record_reach(record, RECORD_ASKED);
    atomic_store(&ring->used, used + 1); /* killed before: nothing has been asked yet */
    return record;
}

static struct record *ask(struct run_client *client, enum record_kind kind, uint32_t lock)
{
    struct run_ring *ring = &client->shared->rings[client->index];
    struct record *record = run_record(ring, kind, client->life);
    record->lock = (uint8_t)lock;
    return record;
}

static uint64_t look(const uint64_t *words, struct record *record, unsigned flag)
{
    bool whole = true;
    for (unsigned i = 1; i < RUN_CANARY_WORDS; i++)
        whole = whole && words[i] == words[0];
    record->flags |= (uint8_t)(whole ? flag : 0);
    return words[0];
}

static uint64_t look_inside(const struct run_canary *canary, struct record *record, unsigned flag)
{
    uint64_t words[RUN_CANARY_WORDS];
    for (unsigned i = 0; i < RUN_CANARY_WORDS; i++)
        words[i] = atomic_load_explicit(&canary->words[i], memory_order_relaxed);
    return look(words, record, flag);
}

/* --- Inside --- */

static void note_death_told(struct run_client *client, struct record *record, struct lk_lock *lock)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    if (record->result != LK_ACQUIRED_OWNER_DIED)
        return;
    test_check(lk_lock_recovery(lock, &recovery) == 0, "%s", lk_last_error());
    record->pid = recovery.pid;
    record->told_token = recovery.token;
    if (breaks(client, RUN_BREAK_DEAF))
        record->result = LK_ACQUIRED;
}

/* Right after the acquire, which was answered just now. */
static void enter(struct run_client *client, struct record *record, int result)
{
    struct lk_lock *lock = client->locks[record->lock];
    record->result = result;
    record->token = lk_lock_token(lock);
    note_death_told(client, record, lock);
    if (breaks(client, RUN_BREAK_TOKEN))
        record->token -= 2;
    if (result == LK_ACQUIRED && breaks(client, RUN_BREAK_CRIER)) {
        record->result = LK_ACQUIRED_OWNER_DIED;
        record->told_token = record->token - 2;
    }
    record->seen = look_inside(canary_of(client, record->lock), record, RECORD_WHOLE);
    record_reach(record, RECORD_HELD);
}

static void stay(struct run_client *client)
{
    uint64_t what = test_random_below(&client->random, 64);
    if (what == 0)
        test_sleep_ns(test_random_below(&client->random, 5 * LKI_NS_PER_MS));
    else if (what < 8)
        test_sleep_ns(test_random_below(&client->random, LKI_NS_PER_MS / 4));
}

/* Stops in the middle now and then, so that others have time to see half a write. */
static void write_canary(struct run_client *client, struct record *record)
{
    struct run_canary *canary = canary_of(client, record->lock);
    if (breaks(client, RUN_BREAK_LAZY))
        return;
    for (unsigned i = 0; i < RUN_CANARY_WORDS; i++) {
        atomic_store_explicit(&canary->words[i], record->token, memory_order_relaxed);
        if (i == RUN_CANARY_WORDS / 2 && chance(client, 8))
            stay(client);
    }
}

static void mend(struct run_client *client, struct record *record, bool surely)
{
    if (record->told_token == 0 || (!surely && chance(client, 4)))
        return;
    if (!breaks(client, RUN_BREAK_SLOPPY))
        test_check(lk_lock_mark_consistent(client->locks[record->lock]) == 0, "%s",
                   lk_last_error());
    record->flags |= RECORD_MARKED;
}

static int release(struct run_client *client, struct lk_lock *lock)
{
    return chance(client, 2) ? lk_lock_release(lock)
                             : lk_inline_release(lk_lock_inline(lock, LK_INLINE_LAYOUT), lock);
}

static void leave(struct run_client *client, struct record *record, bool releases)
{
    record->seen_last = look_inside(canary_of(client, record->lock), record, RECORD_WHOLE_LAST);
    record->leaving_ns = lki_clock_now_ns();
    record_reach(record, RECORD_LEAVING);
    AT(client);
    record->left_result = releases ? release(client, client->locks[record->lock]) : 0;
    if (record->left_result != 0)
        fprintf(stderr, "release: %s\n", lk_last_error());
    record->left_ns = lki_clock_now_ns();
    record_reach(record, RECORD_LEFT);
}

/* Closes the session with everything that it holds, which is a death to others, and ends. */
static void close_inside(struct run_client *client)
{
    struct record *record = ask(client, RECORD_DEATH, 0);
    AT(client);
    lk_session_close(client->segments[0].session);
    record->answered_ns = lki_clock_now_ns();
    record_reach(record, RECORD_LEFT);
    fflush(NULL);
    _exit(0);
}

static void act_on(struct run_client *client, uint32_t lock, unsigned depth);

static void hold(struct run_client *client, struct record *record, unsigned depth)
{
    uint32_t lock = record->lock;
    bool exclusive = record->mode == LK_EXCLUSIVE;
    if (exclusive) {
        write_canary(client, record);
        record_reach(record, RECORD_WRITTEN);
    }
    stay(client);
    /* Rising order only: there is no ring to be found. */
    if (depth < DEPTH_MAX && lock + 1 < RUN_LOCKS && chance(client, 16))
        act_on(client,
               lock + 1 + (uint32_t)test_random_below(&client->random, RUN_LOCKS - lock - 1),
               depth + 1);
    if (exclusive && chance(client, 256))
        close_inside(client);
    if (client->broken == RUN_BREAK_STAY && exclusive && chance(client, 16))
        test_stay();
    if (exclusive)
        mend(client, record, false);
}

/* --- From one mode to another --- */

static uint64_t choose_timeout(struct run_client *client)
{
    static const uint64_t timeouts_ns[] = {
        LK_WAIT_FOREVER,   LK_WAIT_FOREVER, LK_WAIT_FOREVER,   LK_WAIT_FOREVER, 0,
        LKI_NS_PER_MS / 5, LKI_NS_PER_MS,   20 * LKI_NS_PER_MS};
    return timeouts_ns[test_random_below(&client->random, 8)];
}

static struct record *ask_for_lock(struct run_client *client, uint32_t lock, enum lk_mode mode,
                                   uint64_t timeout_ns);
static void refuse(struct record *record, int result);

/* Until the answer it is a hold for update in any case, and from then on one or the other. Returns the
 * record of the hold that there is. */
static struct record *upgrade(struct run_client *client, struct record *was)
{
    uint64_t timeout_ns = choose_timeout(client);
    was->seen_last = look_inside(canary_of(client, was->lock), was, RECORD_WHOLE_LAST);
    struct record *record = ask_for_lock(client, was->lock, LK_EXCLUSIVE, timeout_ns);
    record->from = LK_UPDATE;
    AT(client);
    int r = breaks(client, RUN_BREAK_HASTY) ? LK_ACQUIRED
                                            : lk_lock_upgrade(client->locks[was->lock], timeout_ns);
    record->answered_ns = lki_clock_now_ns();
    if (r < 0) {
        refuse(record, r);
        was->flags &= (uint8_t)~RECORD_WHOLE_LAST;
        return was;
    }
    was->leaving_ns = was->left_ns = record->answered_ns;
    record_reach(was, RECORD_LEFT);
    enter(client, record, r);
    write_canary(client, record);
    record_reach(record, RECORD_WRITTEN);
    stay(client);
    mend(client, record, false);
    return record;
}

/* Nobody comes between the two: the second hold begins where the first one ends. */
static struct record *downgrade(struct run_client *client, struct record *was, enum lk_mode mode)
{
    bool torn =
        was->told_token != 0 && !(was->flags & RECORD_MARKED) && client->broken != RUN_BREAK_CRIER;
    was->seen_last = look_inside(canary_of(client, was->lock), was, RECORD_WHOLE_LAST);
    was->leaving_ns = lki_clock_now_ns();
    record_reach(was, RECORD_LEAVING);
    AT(client);
    was->left_result = lk_lock_downgrade(client->locks[was->lock], mode);
    if (was->left_result != 0)
        fprintf(stderr, "downgrade: %s\n", lk_last_error());
    was->left_ns = lki_clock_now_ns();
    record_reach(was, RECORD_LEFT);
    struct record *record = ask_for_lock(client, was->lock, mode, LK_WAIT_FOREVER);
    record->from = was->mode;
    record->asked_ns = record->answered_ns = was->leaving_ns;
    enter(client, record, torn ? LK_ACQUIRED_OWNER_DIED : LK_ACQUIRED);
    stay(client);
    return record;
}

/* Of a native hold. Returns the record of the last one. */
static struct record *change(struct run_client *client, struct record *record)
{
    if (record->mode == LK_UPDATE && !chance(client, 4))
        record = upgrade(client, record);
    if (record->mode == LK_EXCLUSIVE && chance(client, 8))
        record = downgrade(client, record, LK_UPDATE);
    if (record->mode != LK_SHARED && chance(client, 8))
        record = downgrade(client, record, LK_SHARED);
    return record;
}

/* --- Calls --- */

static enum lk_mode choose_mode(struct run_client *client)
{
    return !client->reads_only && chance(client, 2) ? LK_EXCLUSIVE : LK_SHARED;
}

/* Whether the calling process has this lock in shared memory, and not the broker for it. */
static bool is_native(const struct run_client *client, uint32_t lock)
{
    return !client->reads_only && lock / RUN_LOCKS_EACH % 2 == 0;
}

static enum lk_mode choose_native_mode(struct run_client *client, uint32_t lock)
{
    return is_native(client, lock) && chance(client, 4) ? LK_UPDATE : choose_mode(client);
}

static struct record *ask_for_lock(struct run_client *client, uint32_t lock, enum lk_mode mode,
                                   uint64_t timeout_ns)
{
    struct record *record = ask(client, RECORD_LOCK, lock);
    record->mode = (uint8_t)mode;
    record->timeout_ns = timeout_ns;
    if (breaks(client, RUN_BREAK_LATE))
        record->asked_ns -= 60 * LKI_NS_PER_S;
    return record;
}

static void refuse(struct record *record, int result)
{
    bool expected = result == -EBUSY || result == -ETIMEDOUT || result == -ECANCELED;
    record->result = result;
    record_reach(record, RECORD_REFUSED);
    if (!expected)
        fprintf(stderr, "lock %u: acquire gives %d: %s\n", record->lock, result, lk_last_error());
}

/* A program may have the path without a fence compiled in, or call the library for it. That it needed none is
 * known of the former alone, as far as a look before it tells. */
static int acquire(struct run_client *client, struct record *record, uint64_t timeout_ns)
{
    struct lk_lock *lock = client->locks[record->lock];
    const struct lk_inline *fast = lk_lock_inline(lock, LK_INLINE_LAYOUT);
    if (record->mode == LK_SHARED && fast->cell && chance(client, 2)) {
        if (*(uint32_t *)fast->cell == 0 && lk_inline_is_biased(fast, __ATOMIC_RELAXED))
            record->flags |= RECORD_FENCELESS;
        return lk_inline_acquire_shared(fast, fast->cell, lock, timeout_ns);
    }
    return lk_lock_acquire(lock, (enum lk_mode)record->mode, timeout_ns);
}

static void lock_now(struct run_client *client, uint32_t lock, enum lk_mode mode,
                     uint64_t timeout_ns, unsigned depth)
{
    struct record *record = ask_for_lock(client, lock, mode, timeout_ns);
    bool skips = record->mode == LK_EXCLUSIVE && breaks(client, RUN_BREAK_SKIP);
    AT(client);
    int r = skips ? LK_ACQUIRED : acquire(client, record, timeout_ns);
    record->answered_ns = lki_clock_now_ns();
    if (r < 0) {
        refuse(record, r);
        return;
    }
    enter(client, record, r);
    hold(client, record, depth);
    if (is_native(client, lock) && !skips)
        record = change(client, record);
    leave(client, record, !skips);
}

struct answer {
    struct record *record;
    bool came;
    int result;
};

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct answer *answer = user;
    (void)lock;
    answer->record->answered_ns = lki_clock_now_ns();
    answer->came = true;
    answer->result = result;
}

static void await_answer(struct run_client *client, struct answer *answer)
{
    struct lk_session *session = client->segments[0].session;
    AT(client);
    while (!answer->came) {
        struct pollfd wait = {.fd = lk_session_fd(session), .events = POLLIN};
        (void)poll(&wait, 1, 1000);
        int r = lk_session_dispatch(session);
        test_check(r >= 0, "dispatch gives %d: %s", r, lk_last_error());
    }
}

/* A copy takes nanoseconds: now and then it rests half-way, for a writer to come in between. */
static void read_outside(struct run_client *client, uint32_t lock)
{
    struct record *record = ask(client, RECORD_READ, lock);
    const struct run_canary *canary = canary_of(client, lock);
    uint64_t words[RUN_CANARY_WORDS];
    record->result = lk_read_begin(client->locks[lock], &record->token);
    if (record->result == 0) {
        lk_read_copy(words, canary, sizeof(words) / 2);
        if (chance(client, 4))
            stay(client);
        lk_read_copy(words + RUN_CANARY_WORDS / 2, &canary->words[RUN_CANARY_WORDS / 2],
                     sizeof(words) / 2);
        if (breaks(client, RUN_BREAK_BLIND) || lk_read_valid(client->locks[lock], record->token))
            record->flags |= RECORD_ACCEPTED;
        record->seen = look(words, record, RECORD_WHOLE);
    }
    record->answered_ns = lki_clock_now_ns();
    record_reach(record, RECORD_LEFT);
}

/* Asks, perhaps does something else, perhaps gives up, and waits for the answer. */
static void lock_later(struct run_client *client, uint32_t lock, uint64_t timeout_ns,
                       unsigned depth)
{
    struct record *record = ask_for_lock(client, lock, choose_mode(client), timeout_ns);
    struct answer answer = {.record = record};
    record->flags |= RECORD_ASYNC;
    AT(client);
    int r = lk_lock_acquire_async(client->locks[lock], (enum lk_mode)record->mode, timeout_ns,
                                  on_acquired, &answer);
    test_check(r == 0, "asynchronous acquire gives %d: %s", r, lk_last_error());
    /* No other lock meanwhile: what a session waits for and what it holds may make a ring. */
    if (chance(client, 8))
        read_outside(client, (uint32_t)test_random_below(&client->random, RUN_LOCKS));
    if (chance(client, 4)) {
        AT(client);
        r = lk_lock_cancel(client->locks[lock]);
        test_check(r >= 0 || r == -ENOENT, "cancel gives %d: %s", r, lk_last_error());
        if (r >= 0)
            record->flags |= r == 0 ? RECORD_GIVEN_UP : RECORD_GRANTED;
    }
    await_answer(client, &answer);
    if (answer.result < 0) {
        refuse(record, answer.result);
        return;
    }
    enter(client, record, answer.result);
    hold(client, record, depth);
    leave(client, record, true);
}

/* As those do for whom read bias is made. Within another hold once: each takes room in the ring. */
static void read_in_a_row(struct run_client *client, uint32_t lock, uint64_t timeout_ns,
                          unsigned depth)
{
    uint64_t most = depth == 0 ? 2 * READS_IN_A_ROW : 1;
    for (uint64_t reads = 1 + test_random_below(&client->random, most); reads > 0; reads--)
        lock_now(client, lock, LK_SHARED, timeout_ns, depth);
}

static void act_on(struct run_client *client, uint32_t lock, unsigned depth)
{
    uint64_t timeout_ns = choose_timeout(client);
    uint64_t what = test_random_below(&client->random, 16);
    if (what < 8)
        lock_now(client, lock, choose_native_mode(client, lock), timeout_ns, depth);
    else if (what < 9)
        read_in_a_row(client, lock, timeout_ns, depth);
    else if (what < 12)
        lock_later(client, lock, timeout_ns, depth);
    else
        for (uint64_t i = 0; i < 2 * what - 20; i++)
            read_outside(client, lock);
}

void run_client_take_all(struct run_client *client, uint64_t patience_ns)
{
    for (uint32_t lock = 0; lock < RUN_LOCKS; lock++) {
        struct record *record = ask(client, RECORD_LOCK, lock);
        record->mode = LK_EXCLUSIVE;
        record->timeout_ns = patience_ns;
        int r = lk_lock_acquire(client->locks[lock], LK_EXCLUSIVE, patience_ns);
        record->answered_ns = lki_clock_now_ns();
        test_check(r >= 0, "lock %u cannot be taken when all is quiet: %s", lock, lk_last_error());
        enter(client, record, r);
        write_canary(client, record);
        record_reach(record, RECORD_WRITTEN);
        mend(client, record, true);
        leave(client, record, true);
    }
}

/* --- A life --- */

/* Until the next odd phase, if this one is even, or if there is no more room in this one. */
static void rest(struct run_client *client)
{
    struct run_shared *shared = client->shared;
    for (;;) {
        uint32_t phase = atomic_load(&shared->phase);
        bool full =
            atomic_load(&shared->rings[client->index].used) + RUN_RECORDS_SPARE > RUN_RECORDS;
        if (phase % 2 == 0)
            atomic_store(&shared->resting[client->index], phase);
        else if (!full)
            return;
        if (atomic_load(&shared->end))
            return;
        test_sleep_ns(LKI_NS_PER_MS / 2); /* the driver has no event for so many that come and go */
    }
}

/* Three of four actions follow a pause, so that not all of the processor goes into records of
 * uncontended locks; one of eight lives knows no rest. */
static void pause_between(struct run_client *client)
{
    if (client->life % 8 != 0 && !chance(client, 4))
        test_sleep_ns(test_random_below(&client->random, LKI_NS_PER_MS / 2));
}

int run_client_live(void *arg)
{
    struct run_client *client = arg;
    AT(client);
    lki_bias_reads = READS_UNTIL_BIASED;
    run_client_open(client);
    for (rest(client); !atomic_load(&client->shared->end); rest(client)) {
        uint32_t lock = (uint32_t)test_random_below(&client->random, RUN_LOCKS);
        act_on(client, lock, 0);
        pause_between(client);
        if (chance(client, 2048))
            break; /* enough */
    }
    AT(client);
    lk_session_close(client->segments[0].session);
    return 0;
}
