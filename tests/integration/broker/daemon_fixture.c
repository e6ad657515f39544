/* SPDX-License-Identifier: MIT */
#include "daemon_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "engine/layout.h"
#include <lockkeeper/lockkeeper.h>

#define PATIENCE_NS (5 * LKI_NS_PER_S)

struct daemon_fixture broker;

void fixture_open(void)
{
    broker = (struct daemon_fixture){.directory = "/tmp/lk-broker-XXXXXX"};
    cr_assert(ne(ptr, mkdtemp(broker.directory), NULL));
    snprintf(broker.socket_path, sizeof(broker.socket_path), "%s/b.sock", broker.directory);
    snprintf(broker.log_path, sizeof(broker.log_path), "%s/log", broker.directory);
}

static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    cr_assert(ne(ptr, directory, NULL));
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            cr_expect(eq(int, unlinkat(dirfd(directory), entry->d_name, 0), 0), "%s",
                      entry->d_name);
    }
    closedir(directory);
    cr_expect(eq(int, rmdir(path), 0));
}

void fixture_close(void)
{
    if (broker.pid > 0)
        cr_expect(eq(int, stop_daemon(SIGTERM), 0), "the daemon ends cleanly:\n%s", read_log());
    cr_expect(eq(ptr, strstr(read_log(), "Sanitizer:"), NULL), "%s", read_log());
    cr_expect(eq(ptr, strstr(read_log(), "runtime error:"), NULL), "%s", read_log());
    if (!broker.restarts)
        cr_expect(eq(ptr, strstr(read_log(), "another goes on"), NULL), "a worker failed:\n%s",
                  read_log());
    remove_directory(broker.directory);
}

/* --- The process --- */

static void set_limit(uint64_t files_max)
{
    if (files_max == 0)
        return;
    struct rlimit limit = {.rlim_cur = files_max, .rlim_max = files_max};
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        _exit(126);
}

/* In the child: becomes the daemon. Nothing of the test runner is inherited: its sockets would stay
 * open for as long as the daemon runs. */
static void become_daemon(const struct daemon_start *start, int ready_fd)
{
    const char *arguments[32];
    size_t count = 0;
    for (size_t i = 0; start->launcher[i] != NULL; i++)
        arguments[count++] = start->launcher[i];
    arguments[count++] = LKD_PATH;
    if (!start->any_socket) {
        arguments[count++] = "--socket";
        arguments[count++] = broker.socket_path;
    }
    arguments[count++] = "--ready-fd";
    arguments[count++] = "3";
    for (size_t i = 0; start->extra[i] != NULL; i++)
        arguments[count++] = start->extra[i];
    arguments[count] = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log_fd = open(broker.log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log_fd < 0 || dup2(log_fd, STDERR_FILENO) < 0 || dup2(ready_fd, 3) < 0)
        _exit(126);
    close_range(4, ~0U, 0);
    set_limit(start->files_max);
    execvp(arguments[0], (char *const *)arguments);
    _exit(127);
}

pid_t launch_daemon(const struct daemon_start *start, int *out_ready_fd)
{
    int ready[2];
    cr_assert(eq(int, pipe2(ready, O_CLOEXEC), 0));
    pid_t pid = fork();
    if (pid == 0)
        become_daemon(start, ready[1]);
    cr_assert(gt(int, pid, 0));
    close(ready[1]);
    *out_ready_fd = ready[0];
    return pid;
}

void start_daemon(const struct daemon_start *start)
{
    static const struct daemon_start plain;
    int ready_fd;
    char byte;
    broker.pid = launch_daemon(start != NULL ? start : &plain, &ready_fd);
    ssize_t length = read(ready_fd, &byte, 1);
    close(ready_fd);
    cr_assert(eq(int, (int)length, 1), "it did not start:\n%s", read_log());
}

int wait_for(pid_t pid)
{
    int status = 0;
    cr_assert(eq(int, waitpid(pid, &status, 0), pid));
    int code = WEXITSTATUS(status);
    return WIFEXITED(status) ? code : 128 + WTERMSIG(status);
}

int stop_daemon(int signal_number)
{
    pid_t pid = broker.pid;
    broker.pid = 0;
    cr_assert(eq(int, kill(pid, signal_number), 0));
    return wait_for(pid);
}

const char *read_log(void)
{
    static char text[64 * 1024];
    LKI_CLEANUP(lki_close_p) int fd = open(broker.log_path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    text[length > 0 ? length : 0] = '\0';
    return text;
}

size_t count_fds(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    cr_assert(ne(ptr, directory, NULL));
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* What the daemon does on its own time has no event that a test could wait on. */
static void nap(void)
{
    poll(NULL, 0, 5);
}

void expect_log(const char *text)
{
    uint64_t end_ns = lki_clock_now_ns() + PATIENCE_NS;
    while (strstr(read_log(), text) == NULL && lki_clock_now_ns() < end_ns)
        nap();
    cr_assert(ne(ptr, strstr(read_log(), text), NULL), "no '%s' in the log:\n%s", text, read_log());
}

size_t count_fds_at_rest(void)
{
    size_t count;
    do {
        count = count_fds(broker.pid);
        for (int i = 0; i < 20; i++) /* on a busy machine an end is noticed late */
            nap();
    } while (count_fds(broker.pid) != count);
    return count;
}

void expect_fds(size_t count)
{
    uint64_t end_ns = lki_clock_now_ns() + PATIENCE_NS;
    size_t now = count_fds(broker.pid);
    while (now != count && lki_clock_now_ns() < end_ns) {
        nap();
        now = count_fds(broker.pid);
    }
    cr_assert(eq(sz, now, count)); /* not counted again: what comes and goes may pass by */
}

/* --- Raw sessions --- */

int connect_raw(void)
{
    struct sockaddr_un address;
    socklen_t length_bytes;
    struct timeval patience = {.tv_sec = PATIENCE_NS / LKI_NS_PER_S};
    cr_assert(eq(int, lki_socket_address(broker.socket_path, &address, &length_bytes), 0));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert(ge(int, fd, 0));
    cr_assert(eq(int, connect(fd, (struct sockaddr *)&address, length_bytes), 0), "%s",
              strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

int send_request(int fd, const struct lki_message *message, const int *fds, size_t fd_count)
{
    uint64_t end_ns = lki_clock_now_ns() + PATIENCE_NS;
    int r;
    /* Descriptors may be sent once the broker has accepted the connection, of which nothing tells. */
    while ((r = lki_channel_send(fd, message, fds, fd_count, LKI_CHANNEL_WAIT)) == -EACCES &&
           lki_clock_now_ns() < end_ns)
        nap();
    return r;
}

int try_hello(int fd)
{
    struct lki_message hello = {
        .type = LKI_REQUEST_HELLO,
        .id = 1,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR,
                     .protocol_minor = LKI_PROTOCOL_MINOR,
                     .layout_major = LKI_LAYOUT_MAJOR},
    };
    return send_request(fd, &hello, NULL, 0);
}

void send_hello(int fd)
{
    cr_assert(eq(int, try_hello(fd), 0));
}

struct lki_message open_request(uint64_t id, const char *name, uint64_t size_bytes)
{
    return (struct lki_message){
        .type = LKI_REQUEST_OPEN,
        .id = id,
        .as.open = {.name = {.data = (const uint8_t *)name, .length_bytes = strlen(name)},
                    .flags = LK_CREATE,
                    .size_bytes = size_bytes},
    };
}

int receive_reply(int fd, struct reply *out_reply)
{
    static struct lki_arena arena;
    static uint8_t buffer[LKI_REPLY_BYTES_MAX];
    const char *reason = "";
    return lki_channel_receive(fd, &arena, buffer, LKI_DIRECTION_REPLY, LKI_CHANNEL_WAIT,
                               &out_reply->message, out_reply->fds, &out_reply->fd_count, &reason);
}

void expect_works(int fd, const char *name)
{
    struct reply reply;
    struct lki_message request = open_request(2, name, 4096);
    send_hello(fd);
    cr_assert(eq(int, send_request(fd, &request, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1), "%s", read_log());
    cr_assert(eq(int, reply.message.type, LKI_REPLY_OPENED), "status %d: %.*s",
              reply.message.as.result.status, (int)reply.message.as.result.detail.length_bytes,
              (const char *)reply.message.as.result.detail.data);
    cr_assert(eq(sz, reply.fd_count, 2));
    close(reply.fds[0]);
    close(reply.fds[1]);
}

void leave(int fd)
{
    struct reply reply;
    struct lki_message goodbye = {.type = LKI_REQUEST_GOODBYE, .id = UINT64_MAX};
    cr_assert(eq(int, send_request(fd, &goodbye, NULL, 0), 0));
    cr_assert(eq(int, receive_reply(fd, &reply), 1));
    cr_assert(eq(u64, reply.message.id, UINT64_MAX));
    close(fd);
}

void expect_serves(void)
{
    int fd = connect_raw();
    expect_works(fd, "serves");
    leave(fd);
}

void expect_dropped(int fd)
{
    char record[LKI_REPLY_BYTES_MAX];
    ssize_t length;
    while ((length = recv(fd, record, sizeof(record), 0)) > 0)
        continue;
    cr_assert(length == 0 || errno == ECONNRESET, "still connected: %s\n%s", strerror(errno),
              read_log());
    close(fd);
}

pid_t worker_pid(void)
{
    char path[64];
    int pid = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)broker.pid, (int)broker.pid);
    FILE *children = fopen(path, "re");
    cr_assert(ne(ptr, children, NULL));
    cr_assert(eq(int, fscanf(children, "%d", &pid), 1));
    fclose(children);
    return pid;
}

pid_t fork_child(int (*body)(void *user), void *user)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(body(user));
    }
    cr_assert(gt(int, pid, 0));
    return pid;
}
