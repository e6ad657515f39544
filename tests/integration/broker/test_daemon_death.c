/* SPDX-License-Identifier: MIT */
/* The daemon learns that a process has ended, by either kind of pidfd, and by nothing less. */
#include "daemon_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/parameterized.h>

#include "common/clock.h"

TestSuite(daemon_death, .init = fixture_open, .fini = fixture_close, .timeout = 60);

static const char *const pidfd_options[] = {"", "--no-peerpidfd"};

static void start_with(size_t option)
{
    struct daemon_start start = {
        .extra = {pidfd_options[option][0] != '\0' ? pidfd_options[option] : NULL}};
    start_daemon(&start);
}

/* Attaches to "shared" and stays until killed; one byte to the pipe says that it is there. */
static int attach_and_stay(void *user)
{
    const int *ready = user;
    struct reply reply;
    int fd = connect_raw();
    struct lki_message request = open_request(2, "shared", 4096);
    send_hello(fd);
    if (send_request(fd, &request, NULL, 0) < 0 || receive_reply(fd, &reply) != 1)
        return 1;
    if (write(ready[1], "", 1) != 1)
        return 1;
    for (;;)
        pause();
}

static pid_t fork_attached(int (*stay)(void *user))
{
    int ready[2];
    char byte;
    cr_assert(eq(int, pipe2(ready, O_CLOEXEC), 0));
    pid_t pid = fork_child(stay, ready);
    close(ready[1]);
    cr_assert(eq(int, (int)read(ready[0], &byte, 1), 1), "the child did not attach");
    close(ready[0]);
    return pid;
}

/* How many sessions are attached to the segment "shared". */
static uint32_t attached(int fd)
{
    static uint64_t id = 100;
    struct reply reply;
    struct lki_message request = {
        .type = LKI_REQUEST_LIST, .id = ++id, .as.list = {.what = LKI_LIST_SEGMENTS}};
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1));
    cr_assert(eq(int, reply.message.type, LKI_REPLY_LIST_PAGE));
    for (size_t i = 0; i < reply.message.as.list_page.count; i++) {
        const struct lki_list_entry *entry = &reply.message.as.list_page.entries[i];
        if (entry->name.length_bytes == 6 && memcmp(entry->name.data, "shared", 6) == 0)
            return entry->attachments;
    }
    return 0;
}

static void expect_attached(int fd, uint32_t count)
{
    uint64_t end_ns = lki_clock_now_ns() + 5 * LKI_NS_PER_S;
    while (attached(fd) != count && lki_clock_now_ns() < end_ns)
        poll(NULL, 0, 2); /* the broker hears of it in its own time */
    cr_assert(eq(u32, attached(fd), count));
}

static void dead_process_is_cleaned_up(size_t option)
{
    start_with(option);
    int fd = connect_raw();
    expect_works(fd, "shared");
    size_t fds_before = count_fds_at_rest();
    pid_t pid = fork_attached(attach_and_stay);
    expect_attached(fd, 2);
    cr_expect(eq(sz, count_fds(broker.pid), fds_before + 2), "a socket and a pidfd");
    kill(pid, SIGKILL);
    cr_assert(eq(int, wait_for(pid), 128 + SIGKILL));
    expect_attached(fd, 1);
    expect_fds(fds_before);
    close(fd);
}

Test(daemon_death, a_killed_process_is_cleaned_up_after)
{
    dead_process_is_cleaned_up(0);
}

Test(daemon_death, a_killed_process_is_cleaned_up_after_without_peerpidfd)
{
    dead_process_is_cleaned_up(1);
}

/* A zombie: the pidfd fires when the process ends, not when its parent looks. */
Test(daemon_death, a_process_that_nobody_has_waited_for_is_dead_too)
{
    start_daemon(NULL);
    int fd = connect_raw();
    expect_works(fd, "shared");
    pid_t pid = fork_attached(attach_and_stay);
    kill(pid, SIGKILL);
    expect_attached(fd, 1);
    cr_assert(eq(int, wait_for(pid), 128 + SIGKILL));
    close(fd);
}

/* The first process of a pid namespace, with a child that stays as well. */
static int attach_and_stay_with_a_child(void *user)
{
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    return child > 0 ? attach_and_stay(user) : 1;
}

static pid_t only_child_of(pid_t pid)
{
    char path[64];
    int child = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%d", &child) != 1)
        child = 0;
    if (file != NULL)
        (void)fclose(file);
    return (pid_t)child;
}

/* Its pidfd would say so at last, and here it does not: the first process of a pid namespace does not come
 * to its end before all others there have been waited for, and the other one has a tracer which does not
 * wait. The end of its connection makes the broker look. */
Test(daemon_death, a_process_that_is_exiting_is_cleaned_up_before_its_pidfd_tells)
{
    start_daemon(NULL);
    int fd = connect_raw();
    expect_works(fd, "shared");
    if (unshare(CLONE_NEWPID) < 0)
        cr_skip_test("creating a pid namespace is not permitted here");
    pid_t pid = fork_attached(attach_and_stay_with_a_child);
    pid_t traced = only_child_of(pid);
    if (traced == 0 || ptrace(PTRACE_SEIZE, traced, NULL, NULL) < 0) {
        kill(pid, SIGKILL);
        cr_skip_test("tracing is not permitted here");
    }
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    cr_assert(ge(int, end.fd, 0));
    expect_attached(fd, 2);
    kill(pid, SIGKILL);
    expect_attached(fd, 1);
    cr_expect(eq(int, poll(&end, 1, 0), 0), "it was to be stuck in its end");
    cr_expect(eq(int, waitpid(traced, NULL, __WALL), traced));
    cr_assert(eq(int, wait_for(pid), 128 + SIGKILL));
    close(end.fd);
    close(fd);
}

static void sessions_of_one_process_share_a_pidfd(size_t option)
{
    int fds[10];
    start_with(option);
    int first = connect_raw();
    expect_works(first, "shared");
    size_t fds_before = count_fds_at_rest();
    for (int i = 0; i < 10; i++) {
        fds[i] = connect_raw();
        expect_works(fds[i], "shared");
    }
    expect_fds(fds_before + 10); /* sockets alone */
    for (int i = 0; i < 10; i++)
        close(fds[i]);
    expect_fds(fds_before);
    close(first);
}

Test(daemon_death, sessions_of_one_process_share_its_pidfd)
{
    sessions_of_one_process_share_a_pidfd(0);
}

Test(daemon_death, sessions_of_one_process_share_its_pidfd_without_peerpidfd)
{
    sessions_of_one_process_share_a_pidfd(1);
}

/* The end of the connection is not the end of the process: its attachment stays. */
Test(daemon_death, a_process_that_lives_keeps_its_place_when_its_connection_ends)
{
    start_daemon(NULL);
    int watcher = connect_raw();
    expect_works(watcher, "shared");
    int lost = connect_raw();
    expect_works(lost, "shared");
    expect_attached(watcher, 2);
    close(lost);
    expect_serves(); /* by now the broker has seen the end of that connection */
    cr_expect(ge(u32, attached(watcher), 2));
    close(watcher);
}

static int connect_and_end(void *user)
{
    (void)user;
    struct sockaddr_un address;
    socklen_t length_bytes;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    return lki_socket_address(broker.socket_path, &address, &length_bytes) != 0 ||
           connect(fd, (struct sockaddr *)&address, length_bytes) != 0;
}

static void processes_that_end_at_once(size_t option)
{
    start_with(option);
    expect_serves();
    size_t fds_before = count_fds_at_rest();
    for (int i = 0; i < 200; i++)
        cr_assert(eq(int, wait_for(fork_child(connect_and_end, NULL)), 0));
    expect_fds(fds_before);
    expect_serves();
}

Test(daemon_death, processes_that_connect_and_end_at_once_are_nothing_special)
{
    processes_that_end_at_once(0);
}

Test(daemon_death, processes_that_connect_and_end_at_once_without_peerpidfd)
{
    processes_that_end_at_once(1);
}

/* A broker in a pid namespace of its own cannot see who connects from outside. */
Test(daemon_death, a_peer_from_an_unseen_pid_namespace_is_refused_with_the_reason)
{
    pid_t probe = fork();
    if (probe == 0)
        _exit(unshare(CLONE_NEWPID) == 0 ? 0 : 1);
    if (wait_for(probe) != 0)
        cr_skip_test("creating a pid namespace is not permitted here");

    /* unshare(1) stays outside as the parent and passes its signal on by ending: the daemon dies
     * with it. */
    struct daemon_start start = {.launcher = {"unshare", "--pid", "--fork", "--kill-child", NULL}};
    start_daemon(&start);
    struct reply reply;
    int fd = connect_raw();
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "%s", read_log());
    cr_expect(eq(int, reply.message.type, LKI_REPLY_RESULT));
    cr_expect(eq(int, reply.message.as.result.status, LKI_STATUS_DENIED));
    cr_expect(gt(sz, reply.message.as.result.detail.length_bytes, 0));
    cr_expect(eq(int, receive_reply(fd, &reply), 0), "then the connection ends");
    expect_log("refused a peer");
    close(fd);
    cr_expect(eq(int, stop_daemon(SIGKILL), 128 + SIGKILL));
}
