/* SPDX-License-Identifier: MIT */
/* One user takes all it can get of one thing; another user, and the broker's own, still work. What
 * needs other users needs root: it connects with their effective uid, which is what the kernel
 * tells the broker. */
#include "daemon_fixture.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "engine/layout.h"
#include <lockkeeper/lockkeeper.h>

TestSuite(daemon_fairness, .init = fixture_open, .fini = fixture_close, .timeout = 60);

#define GREEDY 65534u /* nobody */
#define OTHER 1u
#define CONNECTIONS 16

#define NEEDS_ROOT()                                                                               \
    do {                                                                                           \
        if (getuid() != 0)                                                                         \
            cr_skip_test("only root can become another user");                                     \
    } while (0)

static void start_with(const char *limit)
{
    start_daemon(&(struct daemon_start){.extra = {"--mode", "0666", "--limit", limit}});
    cr_assert(eq(int, chmod(broker.directory, 0755), 0));
}

static int connect_as(uid_t uid)
{
    cr_assert(eq(int, seteuid(uid), 0));
    int fd = connect_raw();
    cr_assert(eq(int, seteuid(0), 0));
    return fd;
}

static void close_fds(struct reply *reply)
{
    for (size_t i = 0; i < reply->fd_count; i++)
        close(reply->fds[i]);
}

/* What a request is answered: true, or false for QUOTA with these words. Anything else fails. */
static bool granted(int fd, const struct lki_message *request, const char *words)
{
    struct reply reply;
    char detail[512];
    if (send_request(fd, request, NULL, 0) < 0) /* a refused connection was closed */
        cr_assert(eq(int, request->id, 2));
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "%s", read_log());
    close_fds(&reply);
    if (reply.message.type != LKI_REPLY_RESULT || reply.message.as.result.status == LKI_STATUS_OK)
        return true;
    snprintf(detail, sizeof(detail), "%.*s", (int)reply.message.as.result.detail.length_bytes,
             (const char *)reply.message.as.result.detail.data);
    cr_assert(eq(int, reply.message.as.result.status, LKI_STATUS_QUOTA), "%s", detail);
    cr_assert(ne(ptr, strstr(detail, words), NULL), "%s", detail);
    return false;
}

/* Opens segments of this shape over one connection until it is refused. Returns how many. */
static int take_segments(int fd, const struct lki_message *shape, const char *words)
{
    static int number;
    char name[32];
    for (int count = 0; count < 1000; count++) {
        struct lki_message request = *shape;
        snprintf(name, sizeof(name), "taken-%d", number++);
        request.id = (uint64_t)count + 2;
        request.as.open.name =
            (struct lki_bytes){.data = (const uint8_t *)name, .length_bytes = strlen(name)};
        if (!granted(fd, &request, words))
            return count;
    }
    cr_fatal("there is no limit");
}

/* Every connection of the greedy user takes what it can, until none gets anything. */
static void take_all(const struct lki_message *shape, const char *words, int *fds)
{
    int taken = 0;
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = connect_as(GREEDY);
        send_hello(fds[i]);
        taken += take_segments(fds[i], shape, words);
    }
    cr_expect(gt(int, taken, 1), "it got nothing at all");
}

static void expect_others_work(int *fds)
{
    int other = connect_as(OTHER);
    expect_works(other, "other's");
    int own = connect_raw();
    expect_works(own, "own");
    leave(other);
    leave(own);
    for (int i = 0; i < CONNECTIONS; i++)
        leave(fds[i]);
}

Test(daemon_fairness, all_the_segments)
{
    int fds[CONNECTIONS];
    struct lki_message shape = open_request(2, "", 4096);
    NEEDS_ROOT();
    start_with("segments=64");
    take_all(&shape, "segments", fds);
    expect_others_work(fds);
}

Test(daemon_fairness, all_the_bytes)
{
    int fds[CONNECTIONS];
    struct lki_message shape = open_request(2, "", 4096);
    shape.as.open.size_max_bytes = 1 << 20;
    NEEDS_ROOT();
    start_with("bytes=64M");
    take_all(&shape, "bytes", fds);
    expect_others_work(fds);
}

Test(daemon_fairness, all_the_locks)
{
    int fds[CONNECTIONS];
    struct lki_message shape = open_request(2, "", 4096);
    shape.as.open.locks = 50;
    NEEDS_ROOT();
    start_with("locks=2000");
    take_all(&shape, "locks", fds);
    expect_others_work(fds);
}

Test(daemon_fairness, all_the_attachments)
{
    int fds[CONNECTIONS];
    struct lki_message shape = open_request(2, "", 4096);
    NEEDS_ROOT();
    start_with("attachments=64");
    take_all(&shape, "attachments", fds);
    expect_others_work(fds);
}

/* Has the connection lock an entry of its segment through the broker; true: it did, or waits. */
static bool acquire(int fd, uint64_t id, uint32_t segment, uint32_t lock)
{
    struct lki_message request = {
        .type = LKI_REQUEST_ACQUIRE,
        .id = id,
        .as.acquire = {.segment = segment,
                       .lock = lock,
                       .mode = LK_EXCLUSIVE,
                       .deadline_ns = LKI_TIME_NEVER,
                       .asynchronous = true},
    };
    struct lki_message list = {
        .type = LKI_REQUEST_LIST, .id = id + 1, .as.list.what = LKI_LIST_BROKER};
    struct reply reply;
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    cr_assert(eq(int, send_request(fd, &list, NULL, 0), 0)); /* a wait has no answer yet */
    bool refused = false;
    do {
        cr_assert(eq(int, receive_reply(fd, &reply), 1));
        refused |= reply.message.type == LKI_REPLY_RESULT;
        if (reply.message.type == LKI_REPLY_RESULT)
            cr_assert(eq(int, reply.message.as.result.status, LKI_STATUS_QUOTA));
    } while (reply.message.id != id + 1);
    return !refused;
}

static uint32_t open_shared(int fd, const char *name)
{
    struct reply reply;
    struct lki_message request = open_request(2, name, 4096);
    request.as.open.locks = 64;
    request.as.open.mode = 0666;
    send_hello(fd);
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1));
    cr_assert(eq(int, reply.message.type, LKI_REPLY_OPENED));
    close_fds(&reply);
    return reply.message.as.opened.segment;
}

Test(daemon_fairness, all_the_waits)
{
    NEEDS_ROOT();
    start_with("waits=16");
    int holder = connect_raw();
    uint32_t segment = open_shared(holder, "held");
    for (uint32_t lock = 0; lock < 40; lock++)
        cr_assert(acquire(holder, 10 + 2 * lock, segment, lock));
    int fds[4];
    int waits = 0;
    for (int i = 0; i < 4; i++) {
        fds[i] = connect_as(GREEDY);
        segment = open_shared(fds[i], "~0/held");
        for (uint32_t lock = 0; lock < 40 && acquire(fds[i], 10 + 2 * lock, segment, lock); lock++)
            waits++;
    }
    cr_expect(eq(int, waits, 4 + 2 + 1 + 1), "half of them, by halves");
    int other = connect_as(OTHER);
    segment = open_shared(other, "~0/held");
    cr_expect(acquire(other, 10, segment, 0), "another user may wait");
    leave(holder);
    struct reply reply;
    do
        cr_assert(eq(int, receive_reply(fds[0], &reply), 1));
    while (reply.message.id != 10);
    cr_expect(eq(int, reply.message.type, LKI_REPLY_GRANTED));
    close(other);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

/* In a child: takes sessions as nobody until it is refused, says how many, and stays. */
static int take_sessions(void *user)
{
    const int *ready = user;
    struct lki_message list = {.type = LKI_REQUEST_LIST, .id = 2, .as.list.what = LKI_LIST_BROKER};
    if (setgroups(0, NULL) < 0 || setgid(GREEDY) < 0 || setuid(GREEDY) < 0)
        return 1;
    for (uint8_t count = 0; count < 100; count++) {
        int fd = connect_raw();
        (void)try_hello(fd); /* the refused one may be closed already */
        if (granted(fd, &list, "sessions"))
            continue;
        if (write(*ready, &count, 1) != 1)
            return 2;
        for (;;)
            pause();
    }
    return 3;
}

Test(daemon_fairness, all_the_sessions_and_back_by_its_death)
{
    int ready[2];
    uint8_t count = 0;
    NEEDS_ROOT();
    start_with("sessions=20");
    cr_assert(eq(int, pipe(ready), 0));
    pid_t child = fork_child(take_sessions, &ready[1]);
    cr_assert(eq(int, (int)read(ready[0], &count, 1), 1));
    cr_expect(eq(int, count, 10), "half of them");
    int other = connect_as(OTHER);
    expect_works(other, "other's");
    leave(other);
    expect_serves();

    /* Its end is noticed a little later. */
    uint64_t end_ns = lki_clock_now_ns() + 5 * LKI_NS_PER_S;
    do {
        cr_assert(eq(int, kill(child, SIGKILL), 0));
        cr_assert(eq(int, wait_for(child), 128 + SIGKILL));
        child = fork_child(take_sessions, &ready[1]);
        cr_assert(eq(int, (int)read(ready[0], &count, 1), 1));
    } while (count < 10 && lki_clock_now_ns() < end_ns);
    cr_expect(eq(int, count, 10), "all was given back");
    cr_assert(eq(int, kill(child, SIGKILL), 0));
    cr_assert(eq(int, wait_for(child), 128 + SIGKILL));
    close(ready[0]);
    close(ready[1]);
}

Test(daemon_fairness, one_connection_leaves_room_for_its_siblings)
{
    struct lki_message shape = open_request(2, "", 4096);
    start_with("segments=16");
    int runaway = connect_raw();
    send_hello(runaway);
    cr_expect(eq(int, take_segments(runaway, &shape, "this connection has 8 segments"), 8));
    int sibling = connect_raw();
    expect_works(sibling, "sibling");
    leave(runaway);
    leave(sibling);
}

/* --- Without a hello --- */

#define SILENT 200

static bool is_closed(int fd)
{
    char byte;
    ssize_t length = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return length == 0 || (length < 0 && errno != EAGAIN);
}

static int count_closed(const int *fds)
{
    int closed = 0;
    for (int i = 0; i < SILENT; i++)
        closed += is_closed(fds[i]);
    return closed;
}

/* Time itself is what is tested here. */
static void pass_silence(void)
{
    poll(NULL, 0, 2100);
}

Test(daemon_fairness, silent_connections_beyond_the_bound_go_when_somebody_comes)
{
    int fds[SILENT];
    start_daemon(NULL);
    for (int i = 0; i < SILENT; i++)
        fds[i] = connect_raw();
    expect_serves();
    cr_expect(eq(int, count_closed(fds), 0), "they are young");
    pass_silence();
    cr_expect(eq(int, count_closed(fds), 0), "nobody needs their places");
    expect_serves();
    uint64_t end_ns = lki_clock_now_ns() + 5 * LKI_NS_PER_S;
    int expected = SILENT + 1 - (int)LKI_SILENT_SESSIONS_MAX; /* the one who comes is silent too */
    while (count_closed(fds) < expected && lki_clock_now_ns() < end_ns)
        poll(NULL, 0, 5);
    cr_expect(eq(int, count_closed(fds), expected));
    cr_expect(is_closed(fds[0]), "the oldest");
    cr_expect(not(is_closed(fds[SILENT - 1])), "the youngest");
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
}

Test(daemon_fairness, silent_connections_do_not_keep_others_out_of_a_full_table)
{
    int fds[SILENT];
    int first = -1;
    start_daemon(&(struct daemon_start){.files_max = 60});
    for (int i = 0; i < SILENT; i++)
        fds[i] = connect_raw();
    pass_silence();
    /* One that finds the last descriptor taken may be refused; room is made for the next. */
    struct reply reply;
    struct lki_message request = open_request(2, "first", 4096);
    for (int i = 0; i < 5; i++) {
        first = connect_raw();
        (void)try_hello(first);
        (void)send_request(first, &request, NULL, 0);
        cr_assert(eq(int, receive_reply(first, &reply), 1));
        close_fds(&reply);
        if (reply.message.type == LKI_REPLY_OPENED)
            break;
        close(first);
    }
    cr_expect(eq(int, reply.message.type, LKI_REPLY_OPENED));
    leave(first);
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
}
