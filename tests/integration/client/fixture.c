/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

struct fixture fixture;

/* --- The broker --- */

int open_fds(void)
{
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    cr_assert(ne(ptr, directory, NULL));
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

void fixture_start_without_daemon(void)
{
    fixture = (struct fixture){.fds_before = open_fds()};
    (void)snprintf(fixture.directory, sizeof(fixture.directory), "/tmp/lk-client-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(fixture.directory), NULL));
    (void)snprintf(fixture.socket_path, sizeof(fixture.socket_path), "%s/broker.sock",
                   fixture.directory);
    cr_assert(eq(int, setenv("LOCKKEEPERD", LOCKKEEPERD_PROGRAM, 1), 0));
    cr_assert(eq(int, unsetenv("LOCKKEEPER_SOCKET"), 0));
    cr_assert(eq(int, unsetenv("LOCKKEEPER_AUTOSTART"), 0));
}

void fixture_start(void)
{
    fixture_start_without_daemon();
    int ready[2];
    cr_assert(eq(int, pipe2(ready, O_CLOEXEC), 0));
    fixture.daemon = fork();
    cr_assert(ge(int, fixture.daemon, 0));
    if (fixture.daemon == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* not left behind by a test that is killed */
        (void)dup2(ready[1], 9);
        (void)execl(LOCKKEEPERD_PROGRAM, "lockkeeperd", "--socket", fixture.socket_path,
                    "--ready-fd", "9", "--log-level", "warning", (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    char byte;
    cr_assert(eq(int, (int)read(ready[0], &byte, 1), 1), "the daemon does not start");
    close(ready[0]);
}

/* Waits for the end of an autostarted daemon: it holds the lock beside the socket until then. */
void fixture_end_autostarted(void)
{
    char path[128], text[64] = "";
    (void)snprintf(path, sizeof(path), "%s.lock", fixture.socket_path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* none was started */
    ssize_t length = read(fd, text, sizeof(text) - 1);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    close(fd);
    int pid_fd = pid > 1 ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
    if (pid_fd < 0)
        return;
    /* It is ours: its lock file lies in our directory, and its number was not given anew, as the
     * socket path in its arguments shows. */
    (void)snprintf(path, sizeof(path), "/proc/%ld/cmdline", pid);
    char arguments[512] = "";
    fd = open(path, O_RDONLY | O_CLOEXEC);
    length = fd >= 0 ? read(fd, arguments, sizeof(arguments) - 1) : 0;
    close(fd);
    if (length > 0 &&
        memmem(arguments, (size_t)length, fixture.socket_path, strlen(fixture.socket_path))) {
        (void)syscall(SYS_pidfd_send_signal, pid_fd, SIGTERM, NULL, 0);
        struct pollfd ended = {.fd = pid_fd, .events = POLLIN};
        cr_expect(eq(int, poll(&ended, 1, 20000), 1), "the autostarted daemon does not end");
    }
    close(pid_fd);
}

static void remove_directory(void)
{
    DIR *directory = opendir(fixture.directory);
    cr_assert(ne(ptr, directory, NULL));
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        bool expected = strcmp(entry->d_name, "broker.sock.lock") == 0 ||
                        strcmp(entry->d_name, "broker.sock.log") == 0 ||
                        strcmp(entry->d_name, "broker.sock.names") == 0 || fixture.daemon < 0;
        cr_expect(expected, "'%s' was left behind", entry->d_name);
        cr_expect(eq(int, unlinkat(dirfd(directory), entry->d_name, 0), 0));
    }
    closedir(directory);
    cr_expect(eq(int, rmdir(fixture.directory), 0));
}

void fixture_stop(void)
{
    if (fixture.daemon > 0) {
        int status = 0;
        cr_expect(eq(int, kill(fixture.daemon, SIGTERM), 0));
        cr_expect(eq(int, waitpid(fixture.daemon, &status, 0), fixture.daemon));
        cr_expect(eq(int, status, 0), "the daemon's end");
    } else if (fixture.daemon == 0) {
        fixture_end_autostarted();
    }
    remove_directory();
    cr_expect(eq(int, open_fds(), fixture.fds_before), "descriptors before and after");
}

void fixture_kill_daemon(void)
{
    int status = 0;
    cr_assert(eq(int, kill(fixture.daemon, SIGKILL), 0));
    cr_assert(eq(int, waitpid(fixture.daemon, &status, 0), fixture.daemon));
    fixture.daemon = -1; /* its socket file stays */
}

/* --- Calls that have to succeed --- */

struct lk_session *open_session(void)
{
    struct lk_session *session = NULL;
    cr_assert(eq(int, lk_session_open(fixture.socket_path, NULL, &session), 0), "%s",
              lk_last_error());
    return session;
}

struct lk_segment *open_segment(struct lk_session *session, const char *name, uint64_t size_bytes,
                                uint32_t flags)
{
    const struct lk_segment_options options = {
        .size = sizeof(options), .size_bytes = size_bytes, .flags = flags};
    struct lk_segment *segment = NULL;
    cr_assert(ge(int, lk_segment_open(session, name, &options, &segment), 0), "%s",
              lk_last_error());
    return segment;
}

struct lk_lock *open_lock(struct lk_segment *segment, uint32_t index)
{
    struct lk_lock *lock = NULL;
    cr_assert(eq(int, lk_lock_at(segment, index, &lock), 0), "%s", lk_last_error());
    return lock;
}

void *map_segment(struct lk_segment *segment, uint64_t offset, uint64_t length_bytes)
{
    void *address = NULL;
    cr_assert(eq(int, lk_segment_map(segment, offset, length_bytes, &address), 0), "%s",
              lk_last_error());
    return address;
}

bool error_has(const char *words)
{
    return strstr(lk_last_error(), words) != NULL;
}

/* --- Children --- */

/* As in tests/support/process.c: _exit(2) asks nobody. */
static bool leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
    return __lsan_do_recoverable_leak_check() != 0;
#else
    return false;
#endif
}

struct child child_start(child_fn run, void *user)
{
    int down[2], up[2];
    cr_assert(eq(int, pipe2(down, O_CLOEXEC), 0));
    cr_assert(eq(int, pipe2(up, O_CLOEXEC), 0));
    pid_t pid = fork();
    cr_assert(ge(int, pid, 0));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct child side = {.to_fd = up[1], .from_fd = down[0]};
        close(down[1]);
        close(up[0]);
        int result = run(&side, user);
        _exit(result == 0 && !leaks() ? 0 : 1);
    }
    close(down[0]);
    close(up[1]);
    return (struct child){.pid = pid, .to_fd = down[1], .from_fd = up[0]};
}

void child_tell(struct child *child)
{
    (void)!write(child->to_fd, "x", 1);
}

void child_await(struct child *child)
{
    char byte;
    ssize_t count;
    do
        count = read(child->from_fd, &byte, 1);
    while (count < 0 && errno == EINTR);
    if (count == 1)
        return;
    if (child->pid == 0)
        _exit(1); /* the parent has ended */
    cr_assert(eq(int, (int)count, 1), "the child has ended");
}

bool child_has_told(struct child *child, int timeout_ms)
{
    struct pollfd line = {.fd = child->from_fd, .events = POLLIN};
    return poll(&line, 1, timeout_ms) == 1 && (line.revents & POLLIN);
}

static int end(struct child *child)
{
    int status = 0;
    cr_assert(eq(int, waitpid(child->pid, &status, 0), child->pid));
    close(child->to_fd);
    close(child->from_fd);
    return status;
}

void child_kill(struct child *child)
{
    cr_assert(eq(int, kill(child->pid, SIGKILL), 0));
    int status = end(child);
    cr_assert(eq(int, WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGKILL),
              "it had ended before, with %d", status);
}

void child_join(struct child *child)
{
    cr_assert(eq(int, end(child), 0), "the child failed");
}

int child_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: in the child: %s: %s\n", file, line, condition, lk_last_error());
    return line;
}
