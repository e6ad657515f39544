/* SPDX-License-Identifier: MIT */
#include "call.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/client.h"
#include "tracer.h"

#define EXPIRY_NS (2 * LKI_NS_PER_MS)
#define EXPIRY_SLOW_NS (100 * LKI_NS_PER_MS)

/* --- The list --- */

static struct call list[224];
static size_t list_count;

static const char *word_of(enum call_what what)
{
    static const char *const words[] = {
        "connect",        "open",          "create",    "offer",         "map",           "name",
        "holder",         "acquire",       "try",       "timed",         "async",         "cancel",
        "answer",         "release",       "declare",   "close segment", "close session", "upgrade",
        "try to upgrade", "timed upgrade", "to update", "to shared"};
    return words[what];
}

/* crowd: one letter for each actor: H holds until somebody waits, K until the end, h reads until
 * somebody waits, k until the end; b and B read likewise, without a fence, and r has biased the lock
 * and gone; X and S wait, A waits asynchronously. */
static struct call *add(enum crowd_kind kind, enum call_before before, enum call_what what,
                        char mode, const char *crowd)
{
    test_check(list_count < sizeof(list) / sizeof(list[0]), "the list is full");
    struct call *call = &list[list_count++];
    *call = (struct call){.kind = kind, .before = before, .what = what, .mode = mode};
    snprintf(call->title, sizeof(call->title), "%s: %s %c%s%s%s", crowd_segment_name(kind),
             word_of(what), mode, before >= BEFORE_X && before <= BEFORE_U ? ", held" : "",
             *crowd ? ", beside " : "", crowd);
    for (size_t i = 0; crowd[i] != '\0'; i++) {
        char letter = crowd[i];
        bool holds = strchr("HKhkbB", letter) != NULL;
        call->parts[i] = (struct crowd_part){
            .how = holds           ? CROWD_HOLDS
                   : letter == 'r' ? CROWD_BIASES
                   : letter == 'A' ? CROWD_WAITS_ASYNC
                                   : CROWD_WAITS,
            .mode = strchr("hkSbB", letter) ? 'S' : 'X',
            .biased = letter == 'b' || letter == 'B',
            .when = strchr("Hhb", letter) ? CROWD_AT_WAIT : CROWD_AT_END,
        };
    }
    return call;
}

static void add_acquires(enum crowd_kind kind, enum call_what what)
{
    bool waits = what != CALL_TRY;
    add(kind, BEFORE_LOCK, what, 'X', "");
    add(kind, BEFORE_LOCK, what, 'S', "");
    add(kind, BEFORE_LOCK, what, 'S', "k");
    if (!waits)
        return;
    add(kind, BEFORE_LOCK, what, 'X', "H");
    add(kind, BEFORE_LOCK, what, 'S', "H");
    add(kind, BEFORE_LOCK, what, 'X', "h");
    add(kind, BEFORE_LOCK, what, 'X', "HXX");
    add(kind, BEFORE_LOCK, what, 'S', "HXS");
    add(kind, BEFORE_LOCK, what, 'X', "HSA");
}

static void add_ends(enum crowd_kind kind, enum call_what what)
{
    static const char *const crowds[] = {"", "X", "S", "A", "XXX", "SXA"};
    for (size_t i = 0; i < sizeof(crowds) / sizeof(crowds[0]); i++)
        add(kind, BEFORE_X, what, 'X', crowds[i]);
    add(kind, BEFORE_S, what, 'S', "");
    add(kind, BEFORE_S, what, 'S', "X");
    add(kind, BEFORE_S, what, 'S', "kXA");
}

static void add_kind(enum crowd_kind kind)
{
    static const enum call_what acquires[] = {CALL_ACQUIRE, CALL_TRY, CALL_TIMED, CALL_ASYNC};
    static const enum call_what ends[] = {CALL_RELEASE, CALL_CLOSE_SEGMENT, CALL_CLOSE_SESSION};
    for (size_t i = 0; i < sizeof(acquires) / sizeof(acquires[0]); i++)
        add_acquires(kind, acquires[i]);
    add(kind, BEFORE_LOCK, CALL_TRY, 'X', "K");
    add(kind, BEFORE_LOCK, CALL_TIMED, 'X', "K"); /* expires */
    add(kind, BEFORE_LOCK, CALL_TIMED, 'S', "KX");
    add(kind, BEFORE_LOCK, CALL_TIMED, 'X', "kA");
    add(kind, BEFORE_PENDING, CALL_CANCEL, 'X', "K");
    add(kind, BEFORE_PENDING, CALL_CANCEL, 'X', "KXS");
    add(kind, BEFORE_PENDING, CALL_CANCEL, 'S', "KA");
    add(kind, BEFORE_PENDING, CALL_CANCEL, 'X', ""); /* was granted meanwhile */
    add(kind, BEFORE_PENDING, CALL_DISPATCH, 'X', "");
    add(kind, BEFORE_PENDING, CALL_CLOSE_SEGMENT, 'X', "KX");
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        add_ends(kind, ends[i]);
    add(kind, BEFORE_LOCK, CALL_CLOSE_SEGMENT, 'X', "");
    add(kind, BEFORE_LOCK, CALL_CLOSE_SESSION, 'X', "");
    add(kind, BEFORE_X, CALL_DECLARE, 'X', "X");
    add(kind, BEFORE_LOCK, CALL_HOLDER, 'X', "KX");
    add(kind, BEFORE_LOCK, CALL_NAME, 'X', "");
    add(kind, BEFORE_LOCK, CALL_MAP, 'X', "");
    add(kind, BEFORE_CONNECT, CALL_CONNECT, 'X', "");
    add(kind, BEFORE_OPEN, CALL_OPEN, 'X', "KX");
    add(kind, BEFORE_OPEN, CALL_CREATE, 'X', "");
    add(kind, BEFORE_CONNECT, CALL_CREATE, 'X', "");
}

static void add_biased(enum call_before before, enum call_what what, const char *crowd,
                       bool refused)
{
    struct call *call = add(CROWD_NATIVE, before, what, 'X', crowd);
    call->age = 1;
    call->refused = refused;
    if (refused)
        strncat(call->title, ", refused", sizeof(call->title) - strlen(call->title) - 1);
}

/* Writers who meet a biased lock, of all who can make the barrier. */
static void add_all_biased(void)
{
    static const char *const waited[] = {"r", "b"};
    for (size_t i = 0; i < sizeof(waited) / sizeof(waited[0]); i++) {
        add_biased(BEFORE_LOCK, CALL_ACQUIRE, waited[i], false);
        add_biased(BEFORE_LOCK, CALL_ACQUIRE, waited[i], true);
        add_biased(BEFORE_LOCK, CALL_ASYNC, waited[i], false);
    }
    add_biased(BEFORE_LOCK, CALL_TRY, "r", true);
    add_biased(BEFORE_LOCK, CALL_TIMED, "B", true); /* expires */
    add_biased(BEFORE_PENDING, CALL_CANCEL, "B", false);
}

static void add_update(enum crowd_kind kind, bool async, enum call_before before,
                       enum call_what what, char mode, const char *crowd)
{
    struct call *call = add(kind, before, what, mode, crowd);
    call->age = 2;
    call->async = async;
    if (async)
        strncat(call->title, ", asynchronous", sizeof(call->title) - strlen(call->title) - 1);
}

/* Holds that the broker has. Nobody waits to read beside one for update. */
static void add_changes(enum crowd_kind kind, bool async)
{
    static const char *const waited[] = {"", "h", "hX"};
    for (size_t i = 0; i < sizeof(waited) / sizeof(waited[0]); i++)
        add_update(kind, async, BEFORE_U, CALL_UPGRADE, 'U', waited[i]);
    add_update(kind, async, BEFORE_U, CALL_TRY_UPGRADE, 'U', "k");
    add_update(kind, async, BEFORE_U, CALL_TIMED_UPGRADE, 'U', "k"); /* expires */
    add_update(kind, async, BEFORE_U, CALL_TIMED_UPGRADE, 'U', "kXA");
    add_update(kind, async, BEFORE_U, CALL_TO_SHARED, 'U', "kX");
    add_update(kind, async, BEFORE_X, CALL_TO_UPDATE, 'X', "");
    add_update(kind, async, BEFORE_X, CALL_TO_UPDATE, 'X', "SXA");
    add_update(kind, async, BEFORE_X, CALL_TO_SHARED, 'X', "SX");
    add_update(kind, async, BEFORE_U, CALL_RELEASE, 'U', "kXA");
}

static void add_all_update(void)
{
    static const char *const waited[] = {"", "k", "H", "HXS", "HA"};
    for (size_t i = 0; i < sizeof(waited) / sizeof(waited[0]); i++)
        add_update(CROWD_STRICT, false, BEFORE_LOCK, CALL_ACQUIRE, 'U', waited[i]);
    add_update(CROWD_NATIVE, false, BEFORE_LOCK, CALL_ASYNC, 'U', "HXS");
    add_update(CROWD_STRICT, false, BEFORE_LOCK, CALL_TIMED, 'U', "KX"); /* expires */
    add_update(CROWD_STRICT, false, BEFORE_PENDING, CALL_CANCEL, 'U', "KX");
    add_update(CROWD_STRICT, false, BEFORE_U, CALL_CLOSE_SEGMENT, 'U', "kX");
    add_changes(CROWD_STRICT, false);
    add_changes(CROWD_NATIVE, true);
}

const struct call *calls(size_t *out_count)
{
    if (list_count == 0) {
        add_kind(CROWD_NATIVE);
        add_kind(CROWD_STRICT);
        add(CROWD_NATIVE, BEFORE_OPEN, CALL_OFFER, 'X', "");
        add_all_biased();
        add_all_update();
    }
    *out_count = list_count;
    return list;
}

bool call_is_upgrade(const struct call *call)
{
    return call->what >= CALL_UPGRADE && call->what <= CALL_TIMED_UPGRADE;
}

bool call_always_dies(const struct call *call)
{
    return call->before == BEFORE_X &&
           (call->what == CALL_CLOSE_SEGMENT || call->what == CALL_CLOSE_SESSION);
}

/* --- The victim --- */

struct victim {
    const struct call *call;
    const struct crowd *crowd;
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *lock;
    int file_fd;
    uint64_t expiry_ns;
    bool came;
    int result;
};

static int open_session(struct victim *victim)
{
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    return lk_session_open(victim->crowd->broker.socket_path, &options, &victim->session);
}

static int open_segment(struct victim *victim, enum crowd_kind kind)
{
    return lk_segment_open(victim->session, crowd_segment_name(kind), NULL, &victim->segment);
}

static void must(int result)
{
    if (result < 0) {
        fprintf(stderr, "the victim's preparation gives %d: %s\n", result, lk_last_error());
        _exit(3);
    }
}

static enum lk_mode mode_of(const struct victim *victim)
{
    switch (victim->call->mode) {
    case 'S':
        return LK_SHARED;
    case 'U':
        return LK_UPDATE;
    default:
        return LK_EXCLUSIVE;
    }
}

static void on_acquired(struct lk_lock *lock, int result, void *user)
{
    struct victim *victim = user;
    (void)lock;
    victim->came = true;
    victim->result = result;
}

static int ask(struct victim *victim)
{
    return lk_lock_acquire_async(victim->lock, mode_of(victim), LK_WAIT_FOREVER, on_acquired,
                                 victim);
}

static int await_answer(struct victim *victim)
{
    while (!victim->came) {
        struct pollfd wait = {.fd = lk_session_fd(victim->session), .events = POLLIN};
        (void)poll(&wait, 1, -1);
        int r = lk_session_dispatch(victim->session);
        if (r < 0)
            return r;
    }
    return victim->result;
}

/* As a sandbox does it. */
static void refuse_barriers(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void do_before(struct victim *victim)
{
    const struct call *call = victim->call;
    if (call->before == BEFORE_CONNECT && call->what == CALL_CONNECT)
        return;
    must(open_session(victim));
    if (call->before == BEFORE_OPEN) {
        must(open_segment(victim, call->kind == CROWD_NATIVE ? CROWD_STRICT : CROWD_NATIVE));
        return;
    }
    if (call->before == BEFORE_CONNECT)
        return;
    must(open_segment(victim, call->kind));
    must(lk_lock_at(victim->segment, CROWD_LOCK, &victim->lock));
    if (call->refused)
        refuse_barriers();
    if (call->before < BEFORE_X || call->before > BEFORE_U)
        return;
    if (call->async) {
        must(ask(victim));
        must(await_answer(victim));
    } else {
        must(lk_lock_acquire(victim->lock, mode_of(victim), 0));
    }
}

static int create(struct victim *victim)
{
    struct lk_segment_options options = test_options(4096, CROWD_LOCKS);
    options.flags = LK_CREATE_NEW | (victim->call->kind == CROWD_STRICT ? LK_STRICT : 0);
    return lk_segment_open(victim->session, CALL_NEW_NAME, &options, &victim->segment);
}

static int offer(struct victim *victim)
{
    struct lk_segment_options options = test_options(4096, CROWD_LOCKS);
    return lk_segment_offer(victim->session, CALL_NEW_NAME, victim->file_fd, &options,
                            &victim->segment);
}

static int map(struct victim *victim)
{
    void *address = NULL;
    int r = lk_segment_map(victim->segment, 0, 0, &address);
    return r < 0 ? r : lk_segment_unmap(victim->segment, address);
}

static int call_it(struct victim *victim)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    struct lk_lock *other = NULL;
    int r;
    switch (victim->call->what) {
    case CALL_CONNECT:
        r = open_session(victim);
        return r < 0 ? r : open_segment(victim, victim->call->kind);
    case CALL_OPEN:
        return open_segment(victim, victim->call->kind);
    case CALL_CREATE:
        return create(victim);
    case CALL_OFFER:
        return offer(victim);
    case CALL_MAP:
        return map(victim);
    case CALL_NAME:
        return lk_lock_named(victim->segment, "a name", &other);
    case CALL_HOLDER:
        return lk_lock_holder(victim->lock, &holder);
    case CALL_ACQUIRE:
        return lk_lock_acquire(victim->lock, mode_of(victim), LK_WAIT_FOREVER);
    case CALL_TRY:
        return lk_lock_acquire(victim->lock, mode_of(victim), 0);
    case CALL_TIMED:
        return lk_lock_acquire(victim->lock, mode_of(victim), victim->expiry_ns);
    case CALL_ASYNC:
        r = ask(victim);
        return r < 0 ? r : await_answer(victim);
    case CALL_CANCEL:
        r = lk_lock_cancel(victim->lock);
        return r < 0 ? r : await_answer(victim);
    case CALL_DISPATCH:
        return await_answer(victim);
    case CALL_RELEASE:
        return lk_lock_release(victim->lock);
    case CALL_DECLARE:
        return lk_lock_declare(victim->lock, 100, 28);
    case CALL_CLOSE_SEGMENT:
        (void)lk_segment_close(victim->segment);
        return 0;
    case CALL_CLOSE_SESSION:
        (void)lk_session_close(victim->session);
        return 0;
    case CALL_UPGRADE:
        return lk_lock_upgrade(victim->lock, LK_WAIT_FOREVER);
    case CALL_TRY_UPGRADE:
        return lk_lock_upgrade(victim->lock, 0);
    case CALL_TIMED_UPGRADE:
        return lk_lock_upgrade(victim->lock, victim->expiry_ns);
    case CALL_TO_UPDATE:
        return lk_lock_downgrade(victim->lock, LK_UPDATE);
    case CALL_TO_SHARED:
        return lk_lock_downgrade(victim->lock, LK_SHARED);
    }
    return -1;
}

pid_t call_start(const struct call *call, const struct crowd *crowd, struct call_shared *shared,
                 int file_fd, bool slow)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    test_check(pid >= 0, "fork");
    if (pid > 0) {
        tracer_await_stop(pid);
        return pid;
    }
    struct victim victim = {.call = call,
                            .crowd = crowd,
                            .file_fd = file_fd,
                            .expiry_ns = slow ? EXPIRY_SLOW_NS : EXPIRY_NS};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
    do_before(&victim);
    if (call->before == BEFORE_PENDING) {
        tracer_begin_here(); /* so that the crowd comes before the request */
        must(ask(&victim));
        tracer_end_here();
    } else {
        tracer_begin_here();
    }
    atomic_store(&shared->result, call_it(&victim));
    tracer_end_here();
    _exit(0);
}
