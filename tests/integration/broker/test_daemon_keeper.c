/* SPDX-License-Identifier: MIT */
/* A keeper that answers when its worker has given up: the number that was to take the answer may be
 * another's connection by then. And one whose worker needs replacing. */
#include "daemon_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define BYSTANDERS 12

static void setup(void)
{
    fixture_open();
    start_daemon(NULL);
    expect_serves();
}

static void teardown(void)
{
    if (broker.pid > 0)
        (void)kill(broker.pid, SIGCONT); /* a test that failed may have left it stopped */
    fixture_close();
}

TestSuite(daemon_keeper, .init = setup, .fini = teardown, .timeout = 120);

/* One that may wait for longer than the worker does. */
static int connect_raw_patiently(void)
{
    const struct timeval patience = {.tv_sec = 60};
    int fd = connect_raw();
    cr_assert(eq(int, setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0));
    return fd;
}

static int connect_patiently(void)
{
    int fd = connect_raw_patiently();
    send_hello(fd);
    return fd;
}

static int make_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", broker.directory, name);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    cr_assert(ge(int, fd, 0));
    return fd;
}

static void send_offer(int session, uint64_t id, const char *name)
{
    int fd = make_file(name);
    struct lki_message request = open_request(id, name, 4096);
    request.as.open.offered = true;
    cr_assert(eq(int, send_request(session, &request, &fd, 1), 0));
    close(fd);
}

static int type_of_reply(int session, enum lki_status *out_status)
{
    struct reply reply;
    cr_assert(eq(int, receive_reply(session, &reply), 1), "%s", read_log());
    for (size_t i = 0; i < reply.fd_count; i++)
        close(reply.fds[i]);
    *out_status =
        reply.message.type == LKI_REPLY_RESULT ? reply.message.as.result.status : LKI_STATUS_OK;
    return (int)reply.message.type;
}

Test(daemon_keeper, an_answer_that_is_late_reaches_nobody_else)
{
    enum lki_status status;
    int bystanders[BYSTANDERS];
    int session = connect_patiently();
    size_t fds = count_fds_at_rest();

    cr_assert(eq(int, kill(broker.pid, SIGSTOP), 0));
    send_offer(session, 2, "late");
    cr_assert(eq(int, type_of_reply(session, &status), LKI_REPLY_RESULT));
    cr_expect(eq(int, (int)status, LKI_STATUS_TIMED_OUT));
    for (int i = 0; i < BYSTANDERS; i++) /* have the lowest numbers that are free */
        bystanders[i] = connect_raw();
    expect_works(bystanders[BYSTANDERS - 1], "the-last"); /* accepted, as all before it */
    cr_assert(eq(int, kill(broker.pid, SIGCONT), 0));
    send_offer(session, 3, "punctual"); /* asked for behind all that is late */
    cr_assert(eq(int, type_of_reply(session, &status), LKI_REPLY_OPENED));

    for (int i = 0; i < BYSTANDERS - 1; i++) {
        char name[32];
        snprintf(name, sizeof(name), "bystander-%d", i);
        expect_works(bystanders[i], name);
    }
    for (int i = 0; i < BYSTANDERS; i++)
        leave(bystanders[i]);
    expect_fds(fds + 3); /* of "punctual": its control area, its file, and that for readers */
    leave(session);
}

/* Until the broker has received all that was sent. */
static void await_received(int session)
{
    int unread = 1;
    while (unread > 0) {
        cr_assert(eq(int, ioctl(session, SIOCOUTQ, &unread), 0));
        (void)sched_yield();
    }
}

/* The keeper may have opened something for the dead worker, or may be asked to when that is gone:
 * whichever, its successor has no more than it knows of. */
Test(daemon_keeper, what_a_dead_worker_asked_for_is_nobodys)
{
    enum lki_status status;
    struct reply resumed;
    int session = connect_patiently();
    size_t fds = count_fds_at_rest();
    broker.restarts = true;

    cr_assert(eq(int, kill(broker.pid, SIGSTOP), 0));
    send_offer(session, 2, "file");
    await_received(session);
    cr_assert(eq(int, kill(worker_pid(), SIGKILL), 0));
    cr_assert(eq(int, kill(broker.pid, SIGCONT), 0));

    cr_assert(eq(int, receive_reply(session, &resumed), 1));
    cr_assert(eq(int, (int)resumed.message.type, LKI_REPLY_RESUMED));
    struct lki_message resume = {.type = LKI_REQUEST_RESUME,
                                 .as.resume.number = resumed.message.as.resumed.number};
    cr_assert(eq(int, send_request(session, &resume, NULL, 0), 0));
    send_offer(session, 2, "file");
    cr_assert(eq(int, type_of_reply(session, &status), LKI_REPLY_OPENED));
    expect_fds(fds + 3);
    leave(session);
    expect_serves();
}

/* Its own watchdog, which ends one that hangs, is stopped with it. */
Test(daemon_keeper, a_worker_that_stays_stopped_is_replaced)
{
    struct reply reply;
    int session = connect_raw_patiently();
    expect_works(session, "before");
    pid_t stopped = worker_pid();
    broker.restarts = true;

    cr_assert(eq(int, kill(stopped, SIGSTOP), 0));
    cr_assert(eq(int, receive_reply(session, &reply), 1), "%s", read_log());
    cr_expect(eq(int, (int)reply.message.type, LKI_REPLY_RESUMED));
    cr_expect(ne(int, worker_pid(), stopped));
    cr_expect(ne(ptr, strstr(read_log(), "was stopped for"), NULL), "%s", read_log());
    expect_serves();
    close(session);
}

/* A shell or a daemon that ignores SIGCHLD hands that on to what it starts. */
Test(daemon_keeper, one_that_was_started_with_ends_of_children_ignored_replaces_its_worker)
{
    static const struct daemon_start ignoring = {.launcher = {"env", "--ignore-signal=CHLD"}};
    cr_assert(eq(int, stop_daemon(SIGTERM), 0));
    start_daemon(&ignoring);
    broker.restarts = true;
    pid_t first = worker_pid();
    cr_assert(eq(int, kill(first, SIGKILL), 0));
    expect_serves();
    cr_expect(ne(int, worker_pid(), first));
}
