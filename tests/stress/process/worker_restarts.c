/* SPDX-License-Identifier: MIT */
/* worker_restarts [--restarts N] [--clients N] [--segments N] [--every MS] [SEED]
 *
 * Clients lock natively and through the broker, wait asynchronously, open, create, remove and list,
 * while the broker's worker is killed again and again, and a client now and then. Nothing of it may
 * show: every call gives what it would give without, every lock excludes, every token rises, and
 * what waits in the broker goes on. Prints how long it took from each kill to the next grant that
 * somebody had waited for.
 *
 * Exit 0: no violation, nobody stuck. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/figures.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define CLIENTS_MAX 128
#define SEGMENTS_MAX 1024
#define LIVES_MAX 65536
#define HOT 4u /* segments that every client uses */
#define OWN 6u /* others, chosen by each */
#define PLACES (HOT + OWN)
#define STUCK_NS (20 * LKI_NS_PER_S)
#define GRANT_NS (10 * LKI_NS_PER_S)

/* In memory that lockkeeper knows nothing of. */
struct judge_segment {
    _Atomic uint32_t writer; /* the life that is inside */
    _Atomic uint64_t token;
};

struct judge {
    struct judge_segment segments[SEGMENTS_MAX];
    _Atomic uint32_t doomed[LIVES_MAX];
    _Atomic uint64_t progress[CLIENTS_MAX];
    _Atomic uint32_t at[CLIENTS_MAX]; /* line of the last call, for a report */
    _Atomic uint64_t contended_ns; /* when somebody last got what it had waited for in the broker */
    _Atomic uint64_t native, brokered, asynchronous, made, told, gave_up;
    _Atomic uint32_t violations;
    _Atomic uint32_t stop;
};

/* In the data of each segment. */
struct canary {
    _Atomic uint64_t words[8];
};

static struct {
    uint32_t restarts;
    uint32_t clients;
    uint32_t segments;
    uint64_t every_ns;
    uint64_t seed;
    struct test_broker broker;
    struct judge *judge;
    struct test_random random;
    uint32_t lives;
    pid_t pids[CLIENTS_MAX];
    uint32_t life_of[CLIENTS_MAX];
    uint32_t client_kills;
} run = {.restarts = 12, .clients = 8, .segments = 24, .every_ns = 200 * LKI_NS_PER_MS, .seed = 1};

struct client {
    uint32_t index;
    uint32_t life;
    struct test_random random;
    struct test_client places[PLACES]; /* one session for all */
    struct lk_lock *locks[PLACES];
    uint32_t numbers[PLACES];
};

static void __attribute__((format(printf, 1, 2))) violation(const char *format, ...)
{
    va_list arguments;
    atomic_fetch_add(&run.judge->violations, 1);
    fprintf(stderr, "violation: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* Even ones are locked in shared memory, odd ones through the broker. */
static void name_of(uint32_t number, char out_name[32])
{
    snprintf(out_name, 32, "%s-%u", number % 2 == 0 ? "native" : "strict", number);
}

static struct lk_segment_options options_of(uint32_t number)
{
    struct lk_segment_options options = test_options(sizeof(struct canary), 2);
    options.flags |= LK_KEEP | (number % 2 == 0 ? 0 : LK_STRICT);
    options.attachments_max = 256;
    return options;
}

/* --- Inside --- */

#define AT(client) atomic_store(&run.judge->at[(client)->index], __LINE__)

/* Whoever left its mark and is not doomed is inside. */
static void enter(const struct client *client, uint32_t place, int result)
{
    struct judge_segment *segment = &run.judge->segments[client->numbers[place]];
    struct canary *canary = (struct canary *)(void *)client->places[place].data;
    uint32_t other = atomic_exchange(&segment->writer, client->life);
    if (other != 0 && !atomic_load(&run.judge->doomed[other]))
        violation("two are inside segment %u: lives %u and %u", client->numbers[place], other,
                  client->life);
    uint64_t token = lk_lock_token(client->locks[place]);
    uint64_t before = atomic_exchange(&segment->token, token);
    if (token <= before)
        violation("the token of segment %u goes from %#" PRIx64 " to %#" PRIx64,
                  client->numbers[place], before, token);
    uint64_t first = atomic_load(&canary->words[0]);
    for (int i = 1; result == LK_ACQUIRED && i < 8; i++)
        if (atomic_load(&canary->words[i]) != first)
            violation("segment %u is torn and nobody said so", client->numbers[place]);
    if (result == LK_ACQUIRED_OWNER_DIED) {
        atomic_fetch_add(&run.judge->told, 1);
        if (lk_lock_mark_consistent(client->locks[place]) != 0)
            violation("cannot mark: %s", lk_last_error());
    }
    for (int i = 0; i < 8; i++)
        atomic_store(&canary->words[i], token);
}

static void leave(struct client *client, uint32_t place)
{
    if (test_random_below(&client->random, 8) == 0)
        test_sleep_ns(test_random_below(&client->random, LKI_NS_PER_MS / 2));
    atomic_store(&run.judge->segments[client->numbers[place]].writer, 0);
    int r = lk_lock_release(client->locks[place]);
    if (r != 0)
        violation("release of segment %u gives %d: %s", client->numbers[place], r, lk_last_error());
}

/* --- What clients do --- */

static void lock_once(struct client *client, uint32_t place)
{
    static const uint64_t timeouts_ns[] = {LK_WAIT_FOREVER, LK_WAIT_FOREVER, LK_WAIT_FOREVER,
                                           20 * LKI_NS_PER_MS};
    uint64_t timeout_ns = timeouts_ns[test_random_below(&client->random, 4)];
    bool brokered = client->numbers[place] % 2 == 1;
    AT(client);
    int r = lk_lock_acquire(client->locks[place], LK_EXCLUSIVE, 0);
    bool waited = r == -EBUSY;
    AT(client);
    if (waited)
        r = lk_lock_acquire(client->locks[place], LK_EXCLUSIVE, timeout_ns);
    if (r == -ETIMEDOUT && timeout_ns != LK_WAIT_FOREVER) {
        atomic_fetch_add(&run.judge->gave_up, 1);
        return;
    }
    if (r < 0) {
        violation("acquire of segment %u gives %d: %s", client->numbers[place], r, lk_last_error());
        return;
    }
    if (waited && brokered)
        atomic_store(&run.judge->contended_ns, lki_clock_now_ns());
    atomic_fetch_add(brokered ? &run.judge->brokered : &run.judge->native, 1);
    AT(client);
    enter(client, place, r);
    leave(client, place);
}

struct answer {
    bool came;
    int result;
};

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct answer *answer = user;
    (void)lock;
    answer->came = true;
    answer->result = result;
}

/* Asynchronously, and sometimes not after all. */
static void lock_later(struct client *client, uint32_t place)
{
    struct lk_session *session = client->places[0].session;
    struct lk_lock *lock = client->locks[place];
    struct answer answer = {.came = false};
    AT(client);
    int r = lk_lock_acquire_async(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER, on_acquired, &answer);
    if (r < 0) {
        violation("asynchronous acquire gives %d: %s", r, lk_last_error());
        return;
    }
    if (test_random_below(&client->random, 4) == 0) {
        AT(client);
        r = lk_lock_cancel(lock);
        if (r < 0)
            violation("cancel gives %d: %s", r, lk_last_error());
    }
    AT(client);
    while (!answer.came) {
        struct pollfd wait = {.fd = lk_session_fd(session), .events = POLLIN};
        (void)poll(&wait, 1, 1000);
        r = lk_session_dispatch(session);
        if (r < 0) {
            violation("dispatch gives %d: %s", r, lk_last_error());
            return;
        }
    }
    if (answer.result == -ECANCELED)
        return;
    if (answer.result < 0) {
        violation("asynchronous acquire is answered %d", answer.result);
        return;
    }
    atomic_fetch_add(&run.judge->asynchronous, 1);
    AT(client);
    enter(client, place, answer.result);
    leave(client, place);
}

/* A segment of its own, with everything that can be asked about it. */
static void make_and_remove(struct client *client)
{
    struct lk_session *session = client->places[0].session;
    struct lk_segment_options options = {.size = sizeof(options), .size_bytes = 4096};
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    char name[40];
    options.flags = LK_CREATE_NEW | LK_KEEP;
    options.size_max_bytes = 65536;
    snprintf(name, sizeof(name), "own-%u-%u", client->life,
             (unsigned)test_random_below(&client->random, 1u << 30));
    AT(client);
    int r = lk_segment_open(session, name, &options, &segment);
    if (r != LK_CREATED) {
        violation("create gives %d: %s", r, lk_last_error());
        return;
    }
    AT(client);
    r = lk_lock_named(segment, "some lock", &lock);
    if (r < 0)
        violation("naming gives %d: %s", r, lk_last_error());
    AT(client);
    r = lk_segment_grow(segment, 8192);
    if (r < 0 || lk_segment_size(segment) != 8192)
        violation("growing gives %d: %s", r, lk_last_error());
    AT(client);
    r = lk_segment_remove(session, name);
    if (r != 0)
        violation("remove gives %d: %s", r, lk_last_error());
    AT(client);
    lk_segment_close(segment);
    atomic_fetch_add(&run.judge->made, 1);
}

/* Somebody who comes, does one thing, and goes. */
static void visit(struct client *client)
{
    struct test_client guest;
    char name[32];
    uint32_t number = (uint32_t)test_random_below(&client->random, run.segments);
    struct lk_segment_options options = options_of(number);
    struct lk_holder holder = {.size = sizeof(holder)};
    name_of(number, name);
    AT(client);
    test_client_open(&guest, run.broker.socket_path, name, &options);
    AT(client);
    int r = lk_lock_holder(test_lock(&guest, 0), &holder);
    if (r < 0 && r != -ENOENT)
        violation("asking for the holder gives %d: %s", r, lk_last_error());
    AT(client);
    test_client_close(&guest);
}

static void act(struct client *client)
{
    uint64_t what = test_random_below(&client->random, 16);
    uint32_t place = (uint32_t)test_random_below(
        &client->random, test_random_below(&client->random, 2) == 0 ? HOT : PLACES);
    if (what < 11)
        lock_once(client, place);
    else if (what < 14)
        lock_later(client, place);
    else if (what < 15)
        make_and_remove(client);
    else
        visit(client);
}

static void open_places(struct client *client)
{
    client->places[0].session = test_session(run.broker.socket_path);
    for (uint32_t place = 0; place < PLACES; place++) {
        uint32_t number =
            place < HOT ? place : HOT + (client->index * OWN + place - HOT) % (run.segments - HOT);
        struct lk_segment_options options = options_of(number);
        struct test_client *at = &client->places[place];
        char name[32];
        void *data;
        name_of(number, name);
        at->session = client->places[0].session;
        test_check(lk_segment_open(at->session, name, &options, &at->segment) >= 0, "%s",
                   lk_last_error());
        test_check(lk_segment_map(at->segment, 0, 0, &data) == 0, "%s", lk_last_error());
        at->data = data;
        client->numbers[place] = number;
        client->locks[place] = test_lock(at, 0);
    }
}

static int be_client(void *arg)
{
    struct client *client = arg;
    AT(client);
    open_places(client);
    while (!atomic_load(&run.judge->stop)) {
        act(client);
        atomic_fetch_add(&run.judge->progress[client->index], 1);
    }
    AT(client);
    lk_session_close(client->places[0].session);
    return 0;
}

/* --- The killer --- */

static void start_client(uint32_t index)
{
    static struct client client;
    uint32_t life = ++run.lives;
    test_check(life < LIVES_MAX, "too many lives");
    client = (struct client){.index = index, .life = life};
    client.random.state = test_random_next(&run.random);
    run.life_of[index] = life;
    run.pids[index] = test_spawn(be_client, &client);
}

static void kill_client(void)
{
    uint32_t index = (uint32_t)test_random_below(&run.random, run.clients);
    atomic_store(&run.judge->doomed[run.life_of[index]], 1);
    test_kill(run.pids[index]);
    run.client_kills++;
    start_client(index);
}

static void report_stuck(void)
{
    for (uint32_t i = 0; i < run.clients; i++) {
        char where[256];
        test_process_describe(run.pids[i], where, sizeof(where));
        fprintf(stderr, "client %u: pid %d, at line %u, %lu operations, %s\n", i, (int)run.pids[i],
                atomic_load(&run.judge->at[i]), (unsigned long)atomic_load(&run.judge->progress[i]),
                where);
    }
    test_broker_show_log(&run.broker);
    test_check(false, "somebody is stuck");
}

/* Every client does something more. */
static void await_progress(void)
{
    uint64_t wanted[CLIENTS_MAX];
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    for (uint32_t i = 0; i < run.clients; i++)
        wanted[i] = atomic_load(&run.judge->progress[i]) + 2;
    for (uint32_t i = 0; i < run.clients; i++) {
        while (atomic_load(&run.judge->progress[i]) < wanted[i]) {
            if (lki_clock_now_ns() > deadline_ns)
                report_stuck();
            test_sleep_ns(LKI_NS_PER_MS);
        }
    }
}

/* Kills the worker; returns how long nobody got what it waits for in the broker. */
static uint64_t kill_worker(void)
{
    pid_t worker = test_broker_worker(&run.broker);
    uint64_t killed_ns = lki_clock_now_ns();
    test_check(kill(worker, SIGKILL) == 0, "cannot kill the worker %d", (int)worker);
    while (atomic_load(&run.judge->contended_ns) <= killed_ns) {
        if (lki_clock_now_ns() - killed_ns > GRANT_NS)
            report_stuck();
        test_sleep_ns(LKI_NS_PER_MS / 10);
    }
    return atomic_load(&run.judge->contended_ns) - killed_ns;
}

static void make_segments(void)
{
    for (uint32_t number = 0; number < run.segments; number++) {
        struct test_client maker;
        struct lk_segment_options options = options_of(number);
        char name[32];
        name_of(number, name);
        test_client_open(&maker, run.broker.socket_path, name, &options);
        test_client_close(&maker);
    }
}

static void end_clients(void)
{
    atomic_store(&run.judge->stop, 1);
    for (uint32_t i = 0; i < run.clients; i++)
        test_reap_success(run.pids[i]);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more && strcmp(argv[i], "--restarts") == 0)
            run.restarts = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--clients") == 0)
            run.clients = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--segments") == 0)
            run.segments = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (more && strcmp(argv[i], "--every") == 0)
            run.every_ns = strtoul(argv[++i], NULL, 10) * LKI_NS_PER_MS;
        else
            run.seed = strtoull(argv[i], NULL, 10);
    }
    test_check(run.clients >= 2 && run.clients <= CLIENTS_MAX && run.segments > HOT &&
                   run.segments <= SEGMENTS_MAX,
               "numbers out of range");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    run.judge = test_shared(sizeof(*run.judge));
    run.random.state = run.seed;
    struct test_figures gaps;
    test_figures_init(&gaps, run.restarts);
    test_broker_start(&run.broker);
    run.broker.restarts = true;
    make_segments();
    for (uint32_t i = 0; i < run.clients; i++)
        start_client(i);
    await_progress();
    for (uint32_t i = 0; i < run.restarts; i++) {
        uint64_t began_ns = lki_clock_now_ns();
        test_figures_add(&gaps, kill_worker());
        if (i % 4 == 3)
            kill_client();
        if (i % 16 == 15)
            await_progress();
        uint64_t took_ns = lki_clock_now_ns() - began_ns;
        if (took_ns < run.every_ns)
            test_sleep_ns(run.every_ns - took_ns);
    }
    await_progress();
    end_clients();
    const struct judge *judge = run.judge;
    printf(
        "seed %lu: %u restarts, %u clients killed, %u clients, %u segments; %lu native, %lu "
        "brokered, %lu asynchronous locks, %lu segments made; %lu told, %lu gave up; next "
        "contended grant after %.1f ms (median), %.1f ms (longest); load %.1f; %u violations, 0 "
        "stuck\n",
        (unsigned long)run.seed, run.restarts, run.client_kills, run.clients, run.segments,
        (unsigned long)judge->native, (unsigned long)judge->brokered,
        (unsigned long)judge->asynchronous, (unsigned long)judge->made, (unsigned long)judge->told,
        (unsigned long)judge->gave_up, (double)test_figures_percentile(&gaps, 50) / 1e6,
        (double)test_figures_percentile(&gaps, 100) / 1e6, test_load_average(), judge->violations);
    test_figures_deinit(&gaps);
    if (judge->violations > 0)
        test_broker_show_log(&run.broker);
    test_broker_stop(&run.broker);
    return judge->violations == 0 ? 0 : 1;
}
