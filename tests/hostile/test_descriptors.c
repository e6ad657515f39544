/* SPDX-License-Identifier: MIT */
/* Descriptors: too many, hostile ones, and asked for without being received: A7 to A9, A12. */
#include "tests/hostile/hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "tests/hostile/wire.h"
#include "tests/support/process.h"
#include <lockkeeper/lockkeeper.h>

/* --- A7 --- */

/* Takes whatever costs the broker descriptors, until nothing is given any more: a connection, and
 * segments over it. Returns how many connections it had. */
static int take_all(const struct hostile_context *context, int *fds, int count_max)
{
    char name[32];
    struct hostile_reply reply;
    int refused = 0;
    int count = 0;
    while (count < count_max && refused < 20) {
        int fd = hostile_connect(context->socket_path);
        test_check(fd >= 0, "the listener is gone: %s", strerror(-fd));
        struct lki_message hello = hostile_hello();
        (void)hostile_send(fd, &hello);
        uint64_t id = 2;
        int r = 0;
        while (r == 0 && id < 6) {
            snprintf(name, sizeof(name), "taken-%d-%d", count, (int)id);
            struct lki_message open = hostile_open(id++, name, LK_CREATE, 4096);
            r = hostile_call(fd, &open, &reply);
            hostile_reply_close(&reply);
        }
        refused += r != 0;
        fds[count++] = fd;
    }
    test_check(refused > 0, "%d connections, and no end", count);
    return count;
}

static void attack_a7(const struct hostile_context *context)
{
    enum { CONNECTIONS = 400, TIMES = 2 };
    static int fds[CONNECTIONS];
    for (int i = 0; i < TIMES; i++) {
        int count = take_all(context, fds, CONNECTIONS);
        if (i == 0)
            hostile_hold();
        while (count > 0)
            close(fds[--count]);
    }
}

/* --- A8 --- */

static void send_descriptors(const struct hostile_context *context, size_t count, bool early)
{
    int fds[LKI_CHANNEL_FDS_MAX];
    for (size_t i = 0; i < count; i++)
        fds[i] = STDIN_FILENO;
    int fd = early ? hostile_connect(context->socket_path) : hostile_greet(context->socket_path);
    struct hostile_reply reply;
    struct lki_message list = hostile_list(2, LKI_LIST_BROKER);
    if (!early)
        test_check(hostile_call(fd, &list, &reply) == 0, "served so far");
    /* A stranger may not send any once it was accepted, where the kernel can tell it; what was on
     * its way before is received, closed, and ends the connection. */
    ssize_t sent = hostile_send_bytes(fd, "\x08\x01", 2, fds, count);
    if (sent >= 0)
        test_check(hostile_is_dropped(fd), "%zu descriptors are taken", count);
    else
        test_check(sent == -EPERM, "%s", strerror((int)-sent));
    close(fd);
}

static void attack_a8(const struct hostile_context *context)
{
    for (int i = 0; i < 30; i++) {
        send_descriptors(context, 1, i % 2);
        send_descriptors(context, LKI_RECORD_FDS_MAX + 1, i % 2);
        send_descriptors(context, LKI_CHANNEL_FDS_MAX, i % 2);
    }
}

/* --- A9 --- */

/* A TCP socket whose close() waits for its peer, which never reads: its other end is accepted from
 * the listener. */
static int make_lingering(int listener)
{
    static char data[64 * 1024];
    struct sockaddr_in address;
    socklen_t length_bytes = sizeof(address);
    const struct linger linger = {.l_onoff = 1, .l_linger = 3600};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    test_check(getsockname(listener, (struct sockaddr *)&address, &length_bytes) == 0 &&
                   connect(fd, (struct sockaddr *)&address, length_bytes) == 0,
               "a TCP connection over loopback");
    while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
        continue;
    test_check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0, "SO_LINGER");
    return fd;
}

static int listen_on_loopback(void)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    test_check(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                   listen(listener, 8) == 0,
               "listen on loopback");
    return listener;
}

/* A record with a lingering socket in it, sent over this connection. */
struct lingering {
    int listener;
    int fd;
    const struct lki_message *request; /* NULL: one that is wrong, as early as can be */
};

static void on_alarm(int number)
{
    (void)number;
}

/* Closes its own at once, so that as a rule the broker's is the last one. Where the broker was faster
 * it is us who wait: until a signal comes. In a process of its own. */
static int send_lingering(void *arg)
{
    const struct lingering *lingering = arg;
    const struct sigaction interrupt = {.sa_handler = on_alarm};
    const struct itimerval soon = {.it_value = {.tv_usec = 50000}};
    int fd = make_lingering(lingering->listener);
    test_check(sigaction(SIGALRM, &interrupt, NULL) == 0 &&
                   setitimer(ITIMER_REAL, &soon, NULL) == 0,
               "a timer");
    if (lingering->request)
        (void)lki_channel_send(lingering->fd, lingering->request, &fd, 1, LKI_CHANNEL_WAIT);
    else
        (void)hostile_send_bytes(lingering->fd, "\x08\x01", 2, &fd, 1);
    close(fd);
    return 0;
}

enum { STRANGE = 9 };

/* Descriptors that are no plain files; -1 for what this kernel does not have. */
static void make_strange(const struct hostile_context *context, int fds[STRANGE])
{
    uint64_t parameters[32] = {0}; /* struct io_uring_params has 120 bytes */
    int pair[2];
    int i = 0;
    fds[i] = memfd_create("huge", MFD_CLOEXEC);
    test_check(ftruncate(fds[i++], INT64_C(1) << 40) == 0, "a memfd of 1 TiB");
    fds[i++] = (int)syscall(SYS_io_uring_setup, 4, parameters);
    fds[i++] = pidfd_open(getpid(), 0);
    fds[i++] = open("/", O_PATH | O_CLOEXEC);
    fds[i++] = open("/dev/zero", O_RDWR | O_CLOEXEC);
    fds[i++] = epoll_create1(EPOLL_CLOEXEC);
    fds[i++] = hostile_connect(context->socket_path); /* the broker's own socket, the other end */
    test_check(pipe2(pair, O_CLOEXEC) == 0, "pipe2");
    fds[i++] = pair[0];
    close(pair[1]);
    /* A cycle: a socket with itself in its queue. */
    test_check(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    test_check(hostile_send_bytes(pair[0], "!", 1, &pair[1], 1) == 1, "a cycle");
    fds[i] = pair[1];
    close(pair[0]);
}

/* The connection was looked at: who may send descriptors may do so now. */
static void await_accepted(int fd)
{
    struct hostile_reply reply;
    struct lki_message list = hostile_list(2, LKI_LIST_BROKER);
    test_check(hostile_call(fd, &list, &reply) == 0, "not served");
}

/* Offers each as the file of a segment. */
static void offer_strange(const struct hostile_context *context)
{
    int fds[STRANGE];
    make_strange(context, fds);
    for (int i = 0; i < STRANGE; i++) {
        struct hostile_reply reply = {.fd_count = 0};
        if (fds[i] < 0)
            continue;
        int fd = hostile_greet(context->socket_path);
        struct lki_message open = hostile_open(3, "offered", LK_CREATE, 4096);
        open.as.open.offered = true;
        await_accepted(fd);
        int r = lki_channel_send(fd, &open, &fds[i], 1, LKI_CHANNEL_WAIT);
        close(fds[i]);
        /* The memfd is a regular file to everybody, and may be one. */
        if (r == 0 && hostile_receive(fd, &reply) == 1)
            test_check(i == 0 || reply.message.type == LKI_REPLY_RESULT, "descriptor %d is used",
                       i);
        hostile_reply_close(&reply);
        close(fd);
    }
}

enum { LINGERING_MAX = 8 };

/* So many that block for long whoever closes them. */
static void offer_lingering(const struct hostile_context *context, int count, bool early)
{
    int fds[LINGERING_MAX];
    int peers[LINGERING_MAX];
    struct lki_message open = hostile_open(3, "offered", LK_CREATE, 4096);
    int listener = listen_on_loopback();
    open.as.open.offered = true;
    for (int i = 0; i < count; i++) {
        fds[i] =
            early ? hostile_connect(context->socket_path) : hostile_greet(context->socket_path);
        if (!early)
            await_accepted(fds[i]);
        struct lingering lingering = {
            .listener = listener, .fd = fds[i], .request = early ? NULL : &open};
        test_reap_success(test_spawn(send_lingering, &lingering));
        peers[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        test_check(peers[i] >= 0, "accept");
    }
    hostile_hold();
    for (int i = 0; i < count; i++) {
        close(fds[i]);
        close(peers[i]);
    }
    close(listener);
}

static void attack_a9(const struct hostile_context *context)
{
    for (int i = 0; i < 3; i++)
        offer_strange(context);
    offer_lingering(context, 1, false);
}

/* More of them than the broker has helper threads, with the connection itself. */
static void attack_a9_early(const struct hostile_context *context)
{
    offer_lingering(context, LINGERING_MAX, true);
}

/* --- A12 --- */

static void attack_a12(const struct hostile_context *context)
{
    enum { CONNECTIONS = 200, REQUESTS = 30 };
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        struct lki_message hello = hostile_hello();
        fds[i] = hostile_connect(context->socket_path);
        test_check(fds[i] >= 0, "cannot connect: %s", strerror(-fds[i]));
        if (hostile_send(fds[i], &hello) < 0)
            continue; /* refused: its share of sessions is taken, those just dropped among them */
        for (uint64_t id = 2; id < 2 + REQUESTS; id++) {
            struct lki_message open = hostile_open(id, "wanted", LK_CREATE, 4096);
            (void)hostile_send(fds[i], &open);
        }
    }
    hostile_hold();
    for (int i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
}

static void verify_a12(const struct hostile_context *unused)
{
    (void)unused;
    test_check(hostile_log_has("too many descriptors wait for clients"),
               "the table was filled with what waits");
}

static const struct hostile_row rows[] = {
    {.id = "A7",
     .title = "one user takes all the descriptors that it can get",
     .attack = attack_a7,
     .broker_files_max = 256},
    {.id = "A8",
     .title = "descriptors that nobody asked for, up to 253 in a record",
     .attack = attack_a8,
     .broker_files_max = 256},
    {.id = "A9", .title = "descriptors that block whoever closes them", .attack = attack_a9},
    {.id = "A9",
     .title = "the same from the user that may offer files",
     .attack = attack_a9,
     .flags = HOSTILE_AS_BROKER},
    {.id = "A9",
     .title = "more of them than the broker has helper threads",
     .attack = attack_a9_early},
    {.id = "A12",
     .title = "200 connections that never receive their descriptors",
     .attack = attack_a12,
     .verify = verify_a12,
     .broker_files_max = 1024},
};

int main(int argc, char **argv)
{
    return hostile_main(argc, argv, rows, LKI_ARRAY_LENGTH(rows));
}
