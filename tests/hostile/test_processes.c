/* SPDX-License-Identifier: MIT */
/* Who is who: sockets handed on, namespaces, false brokers, stopped waiters, debuggers: A22 to A24, A29,
 * A31, A32. */
#include "tests/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "tests/hostile/fake.h"
#include "tests/hostile/wire.h"
#include "tests/support/client.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

static const struct hostile_context *target;
static int ready;

/* --- A22 --- */

struct forging {
    uint32_t segment;
    uint32_t attachment; /* of the one that holds */
    pid_t holder;
    int held;
    int connected;
    int killed;
    int over;
};

/* Holds a lock while the worker changes, and releases it as if nothing had been. */
static int hold_meanwhile(void *arg)
{
    struct forging *forging = arg;
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "adopted", LK_CREATE | LK_STRICT, 0);
    int fd = hostile_greet(target->socket_path);
    forging->segment = hostile_open_segment(fd, &open);
    struct lki_message acquire = hostile_acquire(3, forging->segment, 0, LKI_TIME_NEVER);
    test_check(hostile_call(fd, &acquire, &reply) == 0, "a free lock");
    forging->attachment = reply.message.as.granted.attachment;
    forging->holder = getpid();
    test_event_post(forging->held);
    test_event_wait(forging->over);
    struct lki_message release = {
        .type = LKI_REQUEST_RELEASE,
        .id = 4,
        .as.hold_ref = {.segment = forging->segment, .attachment = forging->attachment}};
    test_check(hostile_call(fd, &release, &reply) == 0, "the hold was lost");
    return 0;
}

static struct lki_message change(uint64_t id, const struct forging *forging, enum lk_mode mode)
{
    return (struct lki_message){.type = LKI_REQUEST_CHANGE_MODE,
                                .id = id,
                                .as.change_mode = {.segment = forging->segment,
                                                   .attachment = forging->attachment,
                                                   .mode = mode,
                                                   .deadline_ns = LKI_TIME_NEVER}};
}

/* What a client could say to have a successor believe something: that it holds what another has,
 * that it may end or weaken that, that old requests of its had been granted. */
static void forge(int fd, const struct forging *forging)
{
    struct hostile_reply reply;
    const struct lki_message forged[] = {
        {.type = LKI_REQUEST_RELEASE,
         .id = 2,
         .as.hold_ref = {.segment = forging->segment, .attachment = forging->attachment}},
        {.type = LKI_REQUEST_MARK_CONSISTENT,
         .id = 3,
         .as.hold_ref = {.segment = forging->segment, .attachment = forging->attachment}},
        hostile_acquire(4, forging->segment, 0, 0),
        {.type = LKI_REQUEST_RELEASE,
         .id = 5,
         .as.hold_ref = {.segment = forging->segment, .attachment = forging->attachment}},
        change(6, forging, LK_SHARED),
        change(7, forging, LK_UPDATE),
        change(8, forging, LK_EXCLUSIVE),
    };
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(forged); i++)
        test_check(hostile_call(fd, &forged[i], &reply) > 0, "it was believed, number %zu", i);
    struct lki_message holder = {
        .type = LKI_REQUEST_HOLDER, .id = 9, .as.lock_ref = {forging->segment, 0}};
    test_check(hostile_call(fd, &holder, &reply) == 0 &&
                   reply.message.as.holder_is.pid == forging->holder &&
                   reply.message.as.holder_is.mode == LK_EXCLUSIVE,
               "it is said to be held by pid %d in mode %u", reply.message.as.holder_is.pid,
               reply.message.as.holder_is.mode);
}

/* Of the same user, even. */
static int forge_beside(void *arg)
{
    struct forging *forging = arg;
    struct lki_message resume = {.type = LKI_REQUEST_RESUME};
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "adopted", 0, 0);
    struct lki_message list = hostile_list(3, LKI_LIST_SEGMENTS);
    int fd = hostile_greet(target->socket_path);
    test_check(hostile_open_segment(fd, &open) == forging->segment, "another segment");
    test_check(hostile_call(fd, &list, &reply) == 0, "list");
    test_event_post(forging->connected);
    test_event_wait(forging->killed);
    test_check(hostile_receive(fd, &reply) == 1 && reply.message.type == LKI_REPLY_RESUMED,
               "nobody took over");
    resume.as.resume.number = reply.message.as.resumed.number;
    test_check(hostile_send(fd, &resume) >= 0, "resume");
    forge(fd, forging);
    close(fd);

    fd = hostile_greet(target->socket_path);
    test_check(hostile_send(fd, &resume) >= 0, "resume");
    test_check(hostile_is_dropped(fd), "it resumes what was not interrupted");
    close(fd);
    return 0;
}

static void attack_a22(const struct hostile_context *context)
{
    struct forging *forging = test_shared(sizeof(*forging));
    target = context;
    forging->held = test_event();
    forging->connected = test_event();
    forging->killed = test_event();
    forging->over = test_event();
    pid_t holder = hostile_spawn_as(HOSTILE_ATTACKER_UID, hold_meanwhile, forging);
    test_event_wait(forging->held);
    pid_t forger = hostile_spawn_as(HOSTILE_ATTACKER_UID, forge_beside, forging);
    test_event_wait(forging->connected);
    test_check(kill(context->broker_pid, SIGKILL) == 0, "no worker");
    test_event_post(forging->killed);
    test_reap_success(forger);
    test_event_post(forging->over);
    test_reap_success(holder);
}

/* --- A23 --- */

struct handing {
    int ends[2];
};

/* Connects, locks, and gives the socket away. */
static int connect_and_hand_on(void *arg)
{
    const struct handing *handing = arg;
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "handed", LK_CREATE | LK_STRICT, 0);
    int fd = hostile_greet(target->socket_path);
    struct lki_message acquire =
        hostile_acquire(3, hostile_open_segment(fd, &open), 0, LKI_TIME_NEVER);
    test_check(hostile_call(fd, &acquire, &reply) >= 0, "a free lock");
    test_check(hostile_send_bytes(handing->ends[0], "!", 1, &fd, 1) == 1, "hand on");
    return test_stay();
}

static int receive_socket(int from)
{
    char byte;
    int fd = -1;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    test_check(recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1, "nothing was handed on");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static void attack_a23(const struct hostile_context *context)
{
    struct handing handing;
    struct hostile_reply reply;
    struct lki_message open = hostile_open(2, "handed", LK_CREATE | LK_STRICT, 0);
    target = context;
    test_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handing.ends) == 0, "pair");
    int own = hostile_greet(context->socket_path);
    uint32_t segment = hostile_open_segment(own, &open);
    for (uint64_t i = 0; i < 10; i++) {
        pid_t connector = test_spawn(connect_and_hand_on, &handing);
        int fd = receive_socket(handing.ends[1]);
        struct lki_message holder = {
            .type = LKI_REQUEST_HOLDER, .id = 10 + 3 * i, .as.lock_ref = {segment, 0}};
        test_check(hostile_call(own, &holder, &reply) == 0, "who holds it");
        test_check(reply.message.as.holder_is.pid == connector, "it is said to be pid %d",
                   reply.message.as.holder_is.pid);

        test_kill(connector); /* its session ends with it, though its socket lives on */
        struct lki_message acquire =
            hostile_acquire(11 + 3 * i, segment, 0, lki_clock_now_ns() + 10 * LKI_NS_PER_S);
        int r = hostile_call(own, &acquire, &reply);
        test_check(r == (int)LKI_STATUS_OK && reply.message.type == LKI_REPLY_GRANTED &&
                       reply.message.as.granted.status == LKI_STATUS_OWNER_DIED,
                   "round %d: %d", (int)i, r);
        test_check(hostile_is_dropped(fd), "whoever has the socket has the session");
        close(fd);
        struct lki_message release = {
            .type = LKI_REQUEST_RELEASE,
            .id = 12 + 3 * i,
            .as.hold_ref = {.segment = segment, .attachment = reply.message.as.granted.attachment}};
        test_check(hostile_call(own, &release, &reply) == 0, "release");
    }
    close(own);
}

/* --- A24 --- */

static void hold_as_pid_one(void)
{
    struct test_client client;
    hostile_become(HOSTILE_ATTACKER_UID);
    test_check(getpid() == 1, "no namespace");
    test_client_open(&client, target->socket_path, HOSTILE_MEETING, NULL);
    test_acquire(test_lock(&client, 0), LK_EXCLUSIVE);
    test_event_post(ready);
    test_stay();
}

/* The first process of a new pid namespace: there everybody has other numbers. */
static int live_and_die_elsewhere(void *arg)
{
    struct test_client client;
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    (void)arg;
    test_leave_as_it_is(); /* LeakSanitizer's helper would be elsewhere too */
    test_client_open(&client, target->socket_path, HOSTILE_MEETING, NULL);
    struct lk_lock *lock = test_lock(&client, 0);
    test_check(unshare(CLONE_NEWPID) == 0, "unshare");
    pid_t pid = fork(); /* test_spawn() looks for a parent that is not to be seen from there */
    if (pid == 0)
        hold_as_pid_one();
    test_event_wait(ready);
    test_check(lk_lock_acquire(lock, LK_EXCLUSIVE, 0) == -EBUSY, "it holds the lock");
    test_kill(pid);
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, 10 * LKI_NS_PER_S);
    test_check(r == LK_ACQUIRED_OWNER_DIED, "its end is answered by %d", r);
    test_check(lk_lock_recovery(lock, &recovery) == 0 && recovery.pid == pid,
               "it is known as pid %d", recovery.pid);
    test_check(lk_lock_mark_consistent(lock) == 0 && lk_lock_release(lock) == 0, "release");
    test_client_close(&client);
    return 0;
}

/* The broker knows processes by their pidfds, whatever their numbers; it sends no signal to anybody.
 */
static void attack_a24(const struct hostile_context *context)
{
    target = context;
    ready = test_event();
    for (int i = 0; i < 5; i++)
        test_reap_success(test_spawn(live_and_die_elsewhere, NULL));
}

/* --- A29 --- */

static char fake_directory[96];
static char fake_path[120];

static int be_fooled(void *arg)
{
    struct lk_session_options no_start = {.size = sizeof(no_start), .flags = LK_NO_AUTOSTART};
    int expected = (int)(intptr_t)arg;
    for (unsigned i = 0; i < FAKE_LIES; i++) {
        struct lk_session *session = NULL;
        struct lk_segment *segment = NULL;
        struct lk_segment_options options = test_options(4096, 4);
        int r = lk_session_open(fake_path, &no_start, &session);
        if (expected != 0) {
            test_check(r == expected, "a stranger's socket gives %d", r);
            return 0;
        }
        test_check(r == 0, "connect: %d, %s", r, lk_last_error());
        r = lk_segment_open(session, "fooled", &options, &segment);
        test_check(r < 0, "lie %u is believed", i);
        lk_session_close(session);
    }
    return 0;
}

static int be_fake(void *arg)
{
    (void)arg;
    fake_serve(fake_path, ready);
    return 0;
}

static void attack_a29(const struct hostile_context *context)
{
    ready = test_event();
    snprintf(fake_directory, sizeof(fake_directory), "%s/fake", context->directory);
    snprintf(fake_path, sizeof(fake_path), "%s/sock", fake_directory);
    test_check(mkdir(fake_directory, 0755) == 0 &&
                   chown(fake_directory, HOSTILE_ATTACKER_UID, 0) == 0,
               "%s", fake_directory);
    pid_t fake = hostile_spawn_as(HOSTILE_ATTACKER_UID, be_fake, NULL);
    test_event_wait(ready);
    /* Chosen by its path, it may be a broker, and lies. */
    test_reap_success(hostile_spawn_as(HOSTILE_PROBER_UID, be_fooled, NULL));
    /* Somebody else's socket, and a stranger behind it. */
    test_check(chown(fake_path, HOSTILE_PROBER_UID, 0) == 0 && chmod(fake_path, 0666) == 0,
               "chown");
    test_reap_success(hostile_spawn_as(HOSTILE_PROBER_UID, be_fooled, (void *)(intptr_t)-EACCES));
    test_kill(fake);
    unlink(fake_path);
    rmdir(fake_directory);
}

/* --- A31 --- */

static _Atomic uint64_t *had_it_ns;

static int wait_for_turn(void *arg)
{
    struct test_client client;
    test_client_open(&client, target->socket_path, HOSTILE_MEETING, NULL);
    test_acquire(test_lock(&client, 0), LK_EXCLUSIVE);
    if (arg)
        *had_it_ns = lki_clock_now_ns();
    test_release(test_lock(&client, 0));
    test_client_close(&client);
    return 0;
}

static void attack_a31(const struct hostile_context *context)
{
    struct test_client client;
    uint64_t longest_ns = 0;
    target = context;
    had_it_ns = test_shared(sizeof(*had_it_ns));
    test_client_open(&client, context->socket_path, HOSTILE_MEETING, NULL);
    struct lk_lock *lock = test_lock(&client, 0);
    for (int i = 0; i < 5; i++) {
        test_acquire(lock, LK_EXCLUSIVE);
        pid_t attacker = hostile_spawn_as(HOSTILE_ATTACKER_UID, wait_for_turn, NULL);
        test_await_waiters(lock, 1);
        test_stop(attacker);
        pid_t innocent = hostile_spawn_as(HOSTILE_PROBER_UID, wait_for_turn, (void *)had_it_ns);
        test_await_waiters(lock, 2);
        uint64_t released_ns = lki_clock_now_ns();
        test_release(lock);
        test_reap_success(innocent);
        if (*had_it_ns - released_ns > longest_ns)
            longest_ns = *had_it_ns - released_ns;
        test_continue(attacker);
        test_reap_success(attacker);
    }
    printf("     longest turn behind one that is stopped: %.1f ms (promised: a nap of 250 ms)\n",
           (double)longest_ns / (double)LKI_NS_PER_MS);
    test_check(longest_ns < 5 * LKI_NS_PER_S, "the stopped one held the queue up");
    test_client_close(&client);
}

/* --- A32 --- */

static void attack_a32(const struct hostile_context *context)
{
    static const char *const secrets[] = {"mem", "environ", "maps", "fd/0", "stack"};
    char path[64];
    pid_t pid = context->broker_pid;
    test_check(ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 && errno == EPERM, "it can be traced");
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(secrets); i++) {
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, secrets[i]);
        test_check(open(path, O_RDONLY | O_CLOEXEC) < 0 && (errno == EACCES || errno == EPERM),
                   "%s can be read", path);
    }
}

static const struct hostile_row rows[] = {
    {.id = "A22",
     .title = "what another client holds, claimed from a worker that takes over",
     .attack = attack_a22,
     .flags = HOSTILE_AS_ROOT | HOSTILE_SLOW | HOSTILE_RESTARTS},
    {.id = "A23", .title = "a connection handed to another process", .attack = attack_a23},
    {.id = "A24",
     .title = "processes of another pid namespace",
     .attack = attack_a24,
     .flags = HOSTILE_AS_ROOT},
    {.id = "A29",
     .title = "a false broker that lies to the library",
     .attack = attack_a29,
     .flags = HOSTILE_AS_ROOT},
    {.id = "A31",
     .title = "a waiter that stops itself at the head of the queue",
     .attack = attack_a31,
     .flags = HOSTILE_AS_ROOT},
    {.id = "A32", .title = "tracing and reading the broker", .attack = attack_a32},
    {.id = "A32",
     .title = "the same as the broker's own user",
     .attack = attack_a32,
     .flags = HOSTILE_AS_BROKER},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
