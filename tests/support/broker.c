/* SPDX-License-Identifier: MIT */
#include "tests/support/broker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "tests/support/process.h"

static struct test_broker *running;

/* Everything in the directory, which has no folders in it. */
static void remove_directory(const char *directory)
{
    DIR *listing = opendir(directory);
    if (!listing)
        return;
    for (struct dirent *entry; (entry = readdir(listing));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(listing), entry->d_name, 0);
    closedir(listing);
    rmdir(directory);
}

static void give_up(void)
{
    if (!running)
        return;
    kill(running->pid, SIGKILL);
    waitpid(running->pid, NULL, 0);
    test_broker_show_log(running);
    remove_directory(running->directory);
    running = NULL;
}

/* In the child: another user, and fewer descriptors, if so asked. Before the end of the parent is
 * watched for, since changing the user forgets that. */
static void become(const struct test_broker_options *options)
{
    struct rlimit files = {.rlim_cur = options->files_max, .rlim_max = options->files_max};
    if (options->uid != 0 &&
        (setgroups(0, NULL) < 0 || setgid(options->uid) < 0 || setuid(options->uid) < 0))
        _exit(1);
    if (options->files_max > 0 && setrlimit(RLIMIT_NOFILE, &files) < 0)
        _exit(1);
}

static void run_daemon(const struct test_broker *broker, const struct test_broker_options *options,
                       pid_t parent)
{
    const char *arguments[LKI_ARRAY_LENGTH(options->arguments) + 4] = {"lockkeeperd", "--socket",
                                                                       broker->socket_path};
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(options->arguments) && options->arguments[i]; i++)
        arguments[3 + i] = options->arguments[i];
    become(options);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    int log = open(broker->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(log, STDERR_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0)
        _exit(1);
    /* Not the pipes and sockets of whoever runs the test: it waits for their ends. */
    close_range(3, ~0u, 0);
    execv(LK_DAEMON, (char *const *)arguments);
    perror(LK_DAEMON);
    _exit(1);
}

static bool answers(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    LKI_CLEANUP(lki_close_p) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    test_check(fd >= 0, "socket");
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

void test_broker_start(struct test_broker *broker)
{
    static const struct test_broker_options plain;
    test_broker_start_with(broker, &plain);
}

void test_broker_start_with(struct test_broker *broker, const struct test_broker_options *options)
{
    test_check(!running, "one broker per process");
    *broker = (struct test_broker){.directory = "/tmp/lk-test-XXXXXX"};
    test_check(mkdtemp(broker->directory) != NULL, "mkdtemp");
    if (options->uid != 0)
        test_check(chown(broker->directory, options->uid, options->uid) == 0 &&
                       chmod(broker->directory, 0755) == 0,
                   "cannot open %s to other users", broker->directory);
    snprintf(broker->socket_path, sizeof(broker->socket_path), "%s/broker.sock", broker->directory);
    snprintf(broker->log_path, sizeof(broker->log_path), "%s/log", broker->directory);

    pid_t parent = getpid();
    fflush(NULL);
    broker->pid = fork();
    test_check(broker->pid >= 0, "fork");
    if (broker->pid == 0)
        run_daemon(broker, options, parent);
    running = broker;
    test_on_fail(give_up);

    /* Who connects cannot be told that a socket appears; so this asks every millisecond. */
    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    while (!answers(broker->socket_path)) {
        test_check(waitpid(broker->pid, NULL, WNOHANG) == 0, "the broker ended at once");
        test_check(lki_clock_now_ns() < deadline_ns, "the broker does not answer");
        test_sleep_ns(LKI_NS_PER_MS);
    }
}

/* The keeper replaces a worker that fails, and nobody would notice. */
static void expect_one_worker(const struct test_broker *broker)
{
    if (broker->restarts || !test_broker_logged(broker, "another goes on"))
        return;
    test_broker_show_log(broker);
    test_check(false, "a worker of the broker failed");
}

void test_broker_stop(struct test_broker *broker)
{
    expect_one_worker(broker);
    test_check(kill(broker->pid, SIGTERM) == 0, "the broker ended by itself");
    int status = test_reap(broker->pid);
    test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "SIGTERM ended the broker with status %#x", (unsigned)status);
    struct stat info;
    test_check(lstat(broker->socket_path, &info) != 0 && errno == ENOENT,
               "the broker left its socket behind");
    remove_directory(broker->directory);
    running = NULL;
}

void test_broker_forget(struct test_broker *broker)
{
    remove_directory(broker->directory);
    running = NULL;
}

pid_t test_broker_worker(const struct test_broker *broker)
{
    char path[64];
    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)broker->pid, (int)broker->pid);
    for (;;) {
        int worker = 0;
        FILE *children = fopen(path, "re");
        bool found = children && fscanf(children, "%d", &worker) == 1;
        if (children)
            fclose(children);
        if (found)
            return worker;
        test_check(lki_clock_now_ns() < deadline_ns, "the broker has no worker");
        test_sleep_ns(LKI_NS_PER_MS);
    }
}

bool test_broker_logged(const struct test_broker *broker, const char *text)
{
    FILE *log = fopen(broker->log_path, "re");
    char line[1024];
    bool found = false;
    if (!log)
        return false;
    while (!found && fgets(line, sizeof(line), log))
        found = strstr(line, text) != NULL;
    fclose(log);
    return found;
}

void test_broker_await_log(const struct test_broker *broker, const char *text)
{
    uint64_t deadline_ns = lki_clock_now_ns() + 30 * LKI_NS_PER_S;
    /* Nobody announces a line of a log; so this looks again and again. */
    while (!test_broker_logged(broker, text)) {
        test_check(lki_clock_now_ns() < deadline_ns, "the broker never logged '%s'", text);
        test_sleep_ns(2 * LKI_NS_PER_MS);
    }
}

void test_broker_show_log(const struct test_broker *broker)
{
    FILE *log = fopen(broker->log_path, "re");
    char line[1024];
    if (!log)
        return;
    fprintf(stderr, "--- the broker's log ---\n");
    while (fgets(line, sizeof(line), log))
        fputs(line, stderr);
    fprintf(stderr, "--- end ---\n");
    fclose(log);
}
