/* SPDX-License-Identifier: MIT */
/* Starting, refusing to start, and ending. */
#include "daemon_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "engine/layout.h"

TestSuite(daemon_start, .init = fixture_open, .fini = fixture_close, .timeout = 60);

/* Starts one that is expected to refuse; its exit code. */
static int exit_code_of(const struct daemon_start *start)
{
    int ready_fd;
    char byte;
    pid_t pid = launch_daemon(start, &ready_fd);
    cr_assert(eq(int, (int)read(ready_fd, &byte, 1), 0), "it listens:\n%s", read_log());
    close(ready_fd);
    return wait_for(pid);
}

static bool socket_exists(void)
{
    struct stat status;
    return lstat(broker.socket_path, &status) == 0;
}

Test(daemon_start, a_client_is_served_and_a_signal_leaves_no_socket)
{
    start_daemon(NULL);
    expect_serves();
    cr_expect(eq(int, stop_daemon(SIGTERM), 0));
    cr_expect(not(socket_exists()));
}

Test(daemon_start, an_interrupt_ends_it_cleanly_with_sessions_connected)
{
    start_daemon(NULL);
    int fd = connect_raw();
    expect_works(fd, "held");
    cr_expect(eq(int, stop_daemon(SIGINT), 0));
    cr_expect(not(socket_exists()));
    cr_expect(ne(ptr, strstr(read_log(), "with 1 connections"), NULL), "%s", read_log());
    expect_dropped(fd);
}

Test(daemon_start, a_second_broker_refuses_and_names_the_first)
{
    start_daemon(NULL);
    cr_expect(eq(int, exit_code_of(&(struct daemon_start){0}), EX_TEMPFAIL));
    char expected[64];
    snprintf(expected, sizeof(expected), "another lockkeeperd (pid %d)", broker.pid);
    cr_expect(ne(ptr, strstr(read_log(), expected), NULL), "%s", read_log());
    expect_serves();
}

Test(daemon_start, a_dead_socket_file_is_replaced)
{
    start_daemon(NULL);
    cr_assert(eq(int, stop_daemon(SIGKILL), 128 + SIGKILL));
    cr_assert(socket_exists());
    start_daemon(NULL);
    expect_serves();
}

Test(daemon_start, a_file_that_is_no_socket_is_left_alone)
{
    int fd = open(broker.socket_path, O_CREAT | O_WRONLY, 0600);
    cr_assert(ge(int, fd, 0));
    close(fd);
    cr_expect(eq(int, exit_code_of(&(struct daemon_start){0}), EX_CANTCREAT));
    cr_expect(ne(ptr, strstr(read_log(), "is not a socket"), NULL), "%s", read_log());
    cr_expect(socket_exists());
}

Test(daemon_start, somebody_elses_live_socket_is_left_alone)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    cr_assert(eq(int, lki_socket_address(broker.socket_path, &address, &length_bytes), 0));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(eq(int, bind(fd, (struct sockaddr *)&address, length_bytes), 0));
    cr_assert(eq(int, listen(fd, 4), 0));
    cr_expect(eq(int, exit_code_of(&(struct daemon_start){0}), EX_TEMPFAIL));
    cr_expect(socket_exists());
    close(fd);
}

Test(daemon_start, a_path_that_does_not_fit_is_an_error_that_says_so)
{
    char path[160];
    memset(path, 'x', sizeof(path));
    memcpy(path, "/tmp/", 5);
    path[LKI_SOCKET_PATH_BYTES_MAX + 1] = '\0';
    struct daemon_start start = {.extra = {"--socket", path}, .any_socket = true};
    cr_expect(eq(int, exit_code_of(&start), EX_USAGE));
    cr_expect(ne(ptr, strstr(read_log(), "107 bytes"), NULL), "%s", read_log());
}

Test(daemon_start, a_directory_that_does_not_exist_is_named)
{
    struct daemon_start start = {.extra = {"--socket", "/nonexistent/b.sock"}, .any_socket = true};
    cr_expect(eq(int, exit_code_of(&start), EX_NOINPUT));
    cr_expect(ne(ptr, strstr(read_log(), "its directory /nonexistent"), NULL), "%s", read_log());
}

Test(daemon_start, a_directory_without_write_permission_is_an_error)
{
    /* root may write everywhere: a place where nobody can has to do */
    const char *path = geteuid() == 0 ? "/proc/b.sock" : "/b.sock";
    struct daemon_start start = {.extra = {"--socket", path}, .any_socket = true};
    int code = exit_code_of(&start);
    cr_expect(code == EX_NOPERM || code == EX_OSERR, "exit code %d", code);
    cr_expect(ne(ptr, strstr(read_log(), "cannot open"), NULL), "%s", read_log());
}

Test(daemon_start, unknown_options_and_bad_values_are_usage_errors)
{
    static const struct {
        const char *name;
        const char *arguments[3];
    } rows[] = {
        {"unknown option", {"--frobnicate"}},
        {"mode that is no octal number", {"--mode", "0999"}},
        {"negative mode", {"--mode", "-1"}},
        {"idle-exit that is no number", {"--idle-exit", "soon"}},
        {"limit of what there is not", {"--limit", "users=1"}},
        {"limit without a number", {"--limit", "bytes="}},
        {"limit without a name", {"--limit", "=1"}},
        {"limit without either", {"--limit", "bytes"}},
        {"limit of nothing", {"--limit", "locks=0"}},
        {"limit beyond reach", {"--limit", "segments=16777217"}},
        {"limit of bytes beyond reach", {"--limit", "bytes=9999999T"}},
        {"suffix for what is no bytes", {"--limit", "locks=1K"}},
        {"unknown log level", {"--log-level", "loud"}},
        {"argument too many", {"now"}},
        {"ready descriptor that is not open", {"--ready-fd", "77"}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct daemon_start start = {.extra = {rows[i].arguments[0], rows[i].arguments[1]}};
        cr_expect(eq(int, exit_code_of(&start), EX_USAGE), "%s", rows[i].name);
        cr_expect(not(socket_exists()));
    }
}

Test(daemon_start, the_socket_has_the_mode_asked_for)
{
    struct stat status;
    start_daemon(NULL);
    cr_assert(eq(int, lstat(broker.socket_path, &status), 0));
    cr_expect(eq(u32, status.st_mode & 07777, 0600));
    cr_assert(eq(int, stop_daemon(SIGTERM), 0));

    start_daemon(&(struct daemon_start){.extra = {"--mode", "0666"}});
    cr_assert(eq(int, lstat(broker.socket_path, &status), 0));
    cr_expect(eq(u32, status.st_mode & 07777, 0666));
}

Test(daemon_start, one_that_nobody_needs_ends_by_itself)
{
    start_daemon(&(struct daemon_start){.extra = {"--idle-exit", "1"}});
    int fd = connect_raw();
    expect_works(fd, "needed");
    leave(fd);
    pid_t pid = broker.pid;
    broker.pid = 0;
    cr_expect(eq(int, wait_for(pid), 0));
    cr_expect(not(socket_exists()));
}

Test(daemon_start, one_that_a_client_started_leaves_its_session_and_descriptors)
{
    char path[128];
    char target[256];
    start_daemon(&(struct daemon_start){.extra = {"--autostarted"}});
    cr_expect(eq(int, getsid(broker.pid), broker.pid));
    for (int fd = 0; fd <= 1; fd++) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", broker.pid, fd);
        ssize_t length = readlink(path, target, sizeof(target) - 1);
        target[length > 0 ? length : 0] = '\0';
        cr_expect(eq(str, target, "/dev/null"));
    }
    snprintf(path, sizeof(path), "/proc/%d/cwd", broker.pid);
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    target[length > 0 ? length : 0] = '\0';
    cr_expect(eq(str, target, "/"));
    snprintf(path, sizeof(path), "%s.log", broker.socket_path);
    cr_expect(eq(int, access(path, R_OK), 0));
    expect_serves();
}

/* The token with which the first lock of a new segment begins. */
static uint64_t first_token(const char *name)
{
    struct reply reply;
    int fd = connect_raw();
    send_hello(fd);
    struct lki_message request = open_request(2, name, 0);
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1));
    cr_assert(eq(sz, reply.fd_count, 1), "a segment without data has a control area alone");
    struct lki_header header;
    struct lki_lock_hot hot;
    cr_assert(eq(int, (int)pread(reply.fds[0], &header, sizeof(header), 0), (int)sizeof(header)));
    cr_assert(eq(int, (int)pread(reply.fds[0], &hot, sizeof(hot), (off_t)header.hot_offset),
                 (int)sizeof(hot)));
    close(reply.fds[0]);
    leave(fd); /* ends the segment as well: the next one of this name is new */
    return hot.sequence;
}

Test(daemon_start, tokens_rise_over_restarts_within_one_second)
{
    uint64_t last = 0;
    for (int life = 0; life < 4; life++) {
        start_daemon(NULL);
        for (int i = 0; i < 3; i++) {
            uint64_t token = first_token("same");
            cr_assert(lt(u64, last, token), "life %d, segment %d", life, i);
            last = token;
        }
        cr_assert(eq(int, stop_daemon(life % 2 ? SIGKILL : SIGTERM), life % 2 ? 128 + SIGKILL : 0));
    }
}
