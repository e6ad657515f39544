/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

static struct bench *running;
static pid_t owner;

static void remove_files(const struct bench *bench)
{
    static const char *const names[] = {"broker.sock", "broker.sock.lock", "bare.sock", "log"};
    char path[64];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", bench->directory, names[i]);
        unlink(path);
    }
    rmdir(bench->directory);
}

void bench_fail(const char *format, ...)
{
    va_list arguments;
    fputs("lockkeeper-bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    if (running && owner == getpid()) {
        kill(running->daemon, SIGKILL);
        waitpid(running->daemon, NULL, 0);
        remove_files(running);
    }
    exit(2);
}

static void run_daemon(const struct bench *bench, pid_t parent)
{
    char log_path[64];
    snprintf(log_path, sizeof(log_path), "%s/log", bench->directory);
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(127);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        execl(LK_DAEMON, "lockkeeperd", "--socket", bench->socket_path, (char *)NULL);
    _exit(127);
}

void bench_daemon_start(struct bench *bench)
{
    snprintf(bench->directory, sizeof(bench->directory), "/tmp/lk-bench-XXXXXX");
    if (!mkdtemp(bench->directory))
        bench_fail("cannot make a directory in /tmp: %s", strerror(errno));
    snprintf(bench->socket_path, sizeof(bench->socket_path), "%s/broker.sock", bench->directory);
    pid_t parent = getpid();
    fflush(NULL);
    bench->daemon = fork();
    if (bench->daemon < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (bench->daemon == 0)
        run_daemon(bench, parent);
    running = bench;
    owner = parent;

    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session;
    while (lk_session_open(bench->socket_path, &options, &session) < 0) {
        if (waitpid(bench->daemon, NULL, WNOHANG) != 0 || lki_clock_now_ns() > deadline_ns)
            bench_fail("%s does not answer: %s", LK_DAEMON, lk_last_error());
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    lk_session_close(session);
}

void bench_daemon_stop(struct bench *bench)
{
    kill(bench->daemon, SIGTERM);
    waitpid(bench->daemon, NULL, 0);
    remove_files(bench);
    running = NULL;
}

struct lk_session *bench_connect(const struct bench *bench)
{
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session;
    if (lk_session_open(bench->socket_path, &options, &session) < 0)
        bench_fail("%s", lk_last_error());
    return session;
}

struct lk_segment *bench_segment(struct lk_session *session, const char *name, uint32_t attachments)
{
    struct lk_segment_options options = {.size = sizeof(options),
                                         .size_bytes = 4096,
                                         .attachments_max = attachments,
                                         .flags = LK_CREATE};
    struct lk_segment *segment;
    if (lk_segment_open(session, name, &options, &segment) < 0)
        bench_fail("%s", lk_last_error());
    return segment;
}

struct lk_lock *bench_lock(struct lk_segment *segment)
{
    struct lk_lock *lock;
    if (lk_lock_at(segment, 0, &lock) < 0)
        bench_fail("%s", lk_last_error());
    return lock;
}
