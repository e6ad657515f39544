/* SPDX-License-Identifier: MIT */
#include "broker/io/peer.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "broker/io/proc.h"

static int listener;
static struct sockaddr_un address; /* autobound: an abstract name of the kernel's choice */
static socklen_t address_bytes;

static void setup(void)
{
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    cr_assert(eq(int, bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0));
    cr_assert(eq(int, listen(listener, 16), 0));
    address_bytes = sizeof(address);
    cr_assert(eq(int, getsockname(listener, (struct sockaddr *)&address, &address_bytes), 0));
}

static void teardown(void)
{
    close(listener);
}

TestSuite(peer, .init = setup, .fini = teardown, .timeout = 30);

/* A child that connects `connections` times and stays. */
static pid_t fork_connected(int connections)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < connections; i++) {
            int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
            if (connect(fd, (struct sockaddr *)&address, address_bytes) < 0)
                _exit(1);
        }
        for (;;)
            pause();
    }
    cr_assert(gt(int, pid, 0));
    return pid;
}

static void reap(pid_t pid)
{
    kill(pid, SIGKILL);
    cr_assert(eq(int, waitpid(pid, NULL, 0), pid));
}

static int accept_one(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(ge(int, fd, 0));
    return fd;
}

static bool same_key(const struct lkd_peer_info *a, const struct lkd_peer_info *b)
{
    return a->key.first == b->key.first && a->key.second == b->key.second;
}

static void two_processes_are_told_apart(enum lkd_peer_pidfd how)
{
    struct lkd_peer_info info[3];
    pid_t first = fork_connected(2);
    int fds[3] = {accept_one(), accept_one(), -1};
    pid_t second = fork_connected(1);
    fds[2] = accept_one();
    for (int i = 0; i < 3; i++)
        cr_assert(eq(int, lkd_peer_ask(fds[i], how, &info[i]), 0));
    cr_expect(eq(int, info[0].peer.pid, first));
    cr_expect(eq(int, info[2].peer.pid, second));
    cr_expect(eq(u32, info[0].peer.uid, getuid()));
    cr_expect(eq(u32, info[0].peer.gid, getgid()));
    cr_expect(same_key(&info[0], &info[1]), "two connections of one process");
    cr_expect(not(same_key(&info[0], &info[2])), "two processes");

    struct pollfd fired = {.fd = info[0].pidfd, .events = POLLIN};
    cr_expect(eq(int, poll(&fired, 1, 0), 0));
    reap(first);
    cr_expect(eq(int, poll(&fired, 1, 5000), 1));
    reap(second);
    for (int i = 0; i < 3; i++) {
        lkd_peer_info_deinit(&info[i]);
        cr_expect(eq(int, info[i].pidfd, -1));
        close(fds[i]);
    }
}

Test(peer, processes_are_told_apart_and_their_end_is_seen)
{
    two_processes_are_told_apart(LKD_PEER_PIDFD_BEST);
}

Test(peer, processes_are_told_apart_and_their_end_is_seen_without_peerpidfd)
{
    two_processes_are_told_apart(LKD_PEER_PIDFD_FALLBACK);
}

/* A number is given again: without its start a process would inherit from the last one that had it. */
Test(peer, a_key_without_peerpidfd_has_the_start_of_the_process)
{
    uint64_t start;
    struct lkd_peer_info info;
    pid_t pid = fork_connected(1);
    int fd = accept_one();
    cr_assert(eq(int, lkd_proc_start_time(pid, &start), 0));
    cr_assert(eq(int, lkd_peer_ask(fd, LKD_PEER_PIDFD_FALLBACK, &info), 0));
    cr_expect(eq(u64, info.key.first, (uint64_t)pid));
    cr_expect(eq(u64, info.key.second, start + 1));
    lkd_peer_info_deinit(&info);
    reap(pid);
    close(fd);
}

/* Some kernels give a pidfd of a process that was reaped: then it has fired already. */
static void reaped_peer_is_no_surprise(enum lkd_peer_pidfd how)
{
    struct lkd_peer_info info;
    pid_t pid = fork_connected(1);
    int fd = accept_one();
    reap(pid);
    int r = lkd_peer_ask(fd, how, &info);
    struct pollfd fired = {.fd = info.pidfd, .events = POLLIN};
    cr_expect(r == -ESRCH || (r == 0 && poll(&fired, 1, 0) == 1), "result %d", r);
    lkd_peer_info_deinit(&info);
    close(fd);
}

Test(peer, one_that_has_been_reaped_is_not_found)
{
    reaped_peer_is_no_surprise(LKD_PEER_PIDFD_BEST);
}

Test(peer, one_that_has_been_reaped_is_not_found_without_peerpidfd)
{
    reaped_peer_is_no_surprise(LKD_PEER_PIDFD_FALLBACK);
}

/* The number says nothing once the other end is closed: it may belong to somebody else by now. */
Test(peer, one_that_has_closed_its_end_is_not_looked_up_by_number)
{
    struct lkd_peer_info info;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, connect(fd, (struct sockaddr *)&address, address_bytes), 0));
    int accepted = accept_one();
    close(fd);
    cr_expect(eq(int, lkd_peer_ask(accepted, LKD_PEER_PIDFD_FALLBACK, &info), -ESRCH));
    cr_expect(eq(int, info.pidfd, -1));
    close(accepted);
}

Test(peer, groups_are_those_of_the_peer)
{
    struct lkd_peer_info info;
    gid_t groups[256];
    int count = getgroups(256, groups);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, connect(fd, (struct sockaddr *)&address, address_bytes), 0));
    int accepted = accept_one();
    cr_assert(eq(int, lkd_peer_ask(accepted, LKD_PEER_PIDFD_BEST, &info), 0));
    cr_assert(eq(u32, info.peer.group_count, (uint32_t)count));
    for (int i = 0; i < count; i++)
        cr_expect(eq(u32, info.peer.groups[i], groups[i]));
    lkd_peer_info_deinit(&info);
    close(fd);
    close(accepted);
}

/* --- Groups --- */

/* Two processes of the superuser; the first has more groups than its own. */
Test(peer, all_groups_of_the_process_come_along)
{
    struct lkd_peer_info info;
    const gid_t groups[] = {70001, 70002, 70003};
    if (geteuid() != 0)
        cr_skip_test("only the superuser chooses its groups");
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        if (setgroups(3, groups) < 0 || connect(fd, (struct sockaddr *)&address, address_bytes) < 0)
            _exit(1);
        for (;;)
            pause();
    }
    cr_assert(gt(int, pid, 0));
    int fd = accept_one();
    cr_assert(eq(int, lkd_peer_ask(fd, LKD_PEER_PIDFD_BEST, &info), 0));
    cr_assert(eq(u32, info.peer.group_count, 3));
    for (uint32_t i = 0; i < 3; i++)
        cr_expect(eq(u32, info.peer.groups[i], groups[i]));
    lkd_peer_info_deinit(&info);
    close(fd);
    reap(pid);
}
