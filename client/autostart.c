/* SPDX-License-Identifier: MIT */
#include "client/autostart.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/connect.h"
#include "client/error.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"

#define START_NS (5 * LKI_NS_PER_S)   /* for the whole start, over all attempts */
#define RACE_NS (500 * LKI_NS_PER_MS) /* how long the winner of a race may take to listen */
#define RETRY_NS (5 * LKI_NS_PER_MS)
#define READY_FD 3 /* in the daemon */

extern char **environ;

/* --- Which program --- */

/* Writes directory/lockkeeperd if that can be executed. */
static bool program_in(const char *directory, int directory_bytes, char out_program[PATH_MAX])
{
    int length = snprintf(out_program, PATH_MAX, "%.*s/lockkeeperd", directory_bytes, directory);
    return length < PATH_MAX && access(out_program, X_OK) == 0;
}

static bool program_beside_us(char out_program[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length <= 0)
        return false;
    self[length] = '\0';
    const char *slash = strrchr(self, '/');
    return slash && program_in(self, (int)(slash - self), out_program);
}

/* $LOCKKEEPERD, where this library was installed for, beside the program that runs, and what PATH
 * has. */
void lki_autostart_program(char out_program[PATH_MAX])
{
    const char *given = secure_getenv("LOCKKEEPERD");
    if (given && given[0] != '\0' && strlen(given) < PATH_MAX)
        memcpy(out_program, given, strlen(given) + 1);
    else if (!program_in(LKI_DAEMON_DIRECTORY, (int)strlen(LKI_DAEMON_DIRECTORY), out_program) &&
             !program_beside_us(out_program))
        memcpy(out_program, "lockkeeperd",
               sizeof("lockkeeperd")); /* posix_spawnp() looks in PATH */
}

/* --- Running it --- */

struct start {
    char program[PATH_MAX];
    int ready_fd; /* our ends: a byte comes when it listens, the end when it gives up */
    int words_fd; /* what it says meanwhile */
    char words[300];
};

static void start_deinit(struct start *start)
{
    start->ready_fd = lki_close(start->ready_fd);
    start->words_fd = lki_close(start->words_fd);
}

/* In the process between: runs the program and ends, so that the daemon is no child of the client,
 * whose wait() calls are its own business. Only what is safe after fork() in a process with
 * threads. */
static int spawn_detached(const struct start *start, char *const argv[],
                          const posix_spawn_file_actions_t *actions,
                          const posix_spawnattr_t *attributes)
{
    pid_t between = _Fork();
    if (between < 0)
        return -errno;
    if (between == 0) {
        pid_t daemon;
        int error = posix_spawnp(&daemon, start->program, actions, attributes, argv, environ);
        _exit(error > 0 && error < 256 ? error : 0);
    }
    int status = 0;
    while (waitpid(between, &status, 0) < 0)
        if (errno != EINTR)
            return 0; /* the program reaps every child itself: the pipe tells the rest */
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

/* The daemon gets the null device, the two pipes and default signals, nothing else of ours. */
static int spawn_with(const struct start *start, char *const argv[], int ready_end, int words_end)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return -ENOMEM;
    }
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    bool ok = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, 0, 1) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, words_end, 2) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, ready_end, READY_FD) == 0 &&
              posix_spawn_file_actions_addclosefrom_np(&actions, READY_FD + 1) == 0 &&
              posix_spawnattr_setsigmask(&attributes, &none) == 0 &&
              posix_spawnattr_setsigdefault(&attributes, &all) == 0 &&
              posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                        POSIX_SPAWN_SETSID) == 0;
    int r = ok ? spawn_detached(start, argv, &actions, &attributes) : -ENOMEM;
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return r;
}

/* A pipe whose write end is above the numbers that the daemon's own descriptors get, so that
 * putting one in place does not overwrite the other. */
static int make_pipe(int *out_read_end, int *out_write_end)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int high = fcntl(ends[1], F_DUPFD_CLOEXEC, READY_FD + 1);
    int error = errno;
    (void)lki_close(ends[1]);
    if (high < 0) {
        (void)lki_close(ends[0]);
        return -error;
    }
    *out_read_end = ends[0];
    *out_write_end = high;
    return 0;
}

static int launch(struct start *start, const char *path)
{
    LKI_CLEANUP(lki_close_p) int ready_end = -1;
    LKI_CLEANUP(lki_close_p) int words_end = -1;
    int r = make_pipe(&start->ready_fd, &ready_end);
    if (r == 0)
        r = make_pipe(&start->words_fd, &words_end);
    if (r < 0)
        return r;
    (void)fcntl(start->words_fd, F_SETFL, O_NONBLOCK);
    char socket_path[LKI_SOCKET_PATH_BYTES_MAX + 1];
    (void)snprintf(socket_path, sizeof(socket_path), "%s", path);
    char *argv[] = {
        (char[]){"lockkeeperd"}, (char[]){"--socket"}, socket_path, (char[]){"--autostarted"},
        (char[]){"--ready-fd"},  (char[]){"3"},        NULL};
    return spawn_with(start, argv, ready_end, words_end);
}

/* --- Waiting for it --- */

/* Keeps the beginning of what the daemon says, on one line. Returns false when there is no more. */
static bool read_words(struct start *start)
{
    char bytes[256];
    ssize_t count = read(start->words_fd, bytes, sizeof(bytes));
    if (count < 0)
        return errno == EINTR; /* EAGAIN: no more for now, and none is waited for */
    size_t used = strlen(start->words);
    for (ssize_t i = 0; i < count && used < sizeof(start->words) - 1; i++)
        if ((unsigned char)bytes[i] >= ' ')
            start->words[used++] = bytes[i];
    start->words[used] = '\0';
    return count > 0;
}

/* Waits for the ready byte, for the daemon's end, or for the deadline. True: it listens. */
static bool wait_ready(struct start *start, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = lki_clock_now_ns();
        if (now_ns >= deadline_ns)
            return false;
        struct pollfd fds[] = {{.fd = start->ready_fd, .events = POLLIN},
                               {.fd = start->words_fd, .events = POLLIN}};
        int timeout_ms = (int)((deadline_ns - now_ns) / LKI_NS_PER_MS) + 1;
        if (poll(fds, 2, timeout_ms) < 0) {
            if (errno != EINTR)
                return false;
            continue;
        }
        if (fds[1].revents && !read_words(start))
            start->words_fd = lki_close(start->words_fd);
        if (fds[0].revents) {
            char byte;
            bool ready = read(start->ready_fd, &byte, 1) == 1;
            while (!ready && start->words_fd >= 0 && read_words(start))
                continue; /* it has ended: its last words lie in the pipe */
            return ready;
        }
    }
}

/* Connects, again and again until the deadline: somebody else's daemon may be about to listen. */
static int connect_until(const char *path, uint64_t deadline_ns, int *out_fd)
{
    for (;;) {
        int r = lki_connect_path(path, out_fd);
        if ((r != -ENOENT && r != -ECONNREFUSED) || lki_clock_now_ns() >= deadline_ns)
            return r;
        const struct timespec pause = {.tv_nsec = (long)RETRY_NS};
        (void)nanosleep(&pause, NULL);
    }
}

static int attempt(struct start *start, const char *path, uint64_t deadline_ns, int *out_fd)
{
    int r = launch(start, path);
    if (r < 0)
        return r;
    bool ready = wait_ready(start, deadline_ns);
    uint64_t race_ns = ready ? 0 : lki_time_add(lki_clock_now_ns(), RACE_NS);
    return connect_until(path, race_ns < deadline_ns ? race_ns : deadline_ns, out_fd);
}

int lki_autostart(const char *path, int *out_fd)
{
    struct start start = {.ready_fd = -1, .words_fd = -1};
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), START_NS);
    lki_autostart_program(start.program);
    int r = attempt(&start, path, deadline_ns, out_fd);
    start_deinit(&start);
    if (r == 0)
        return 0;
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM)
        return lki_fail(r, "cannot start a broker at %s: %s", path, lk_strerror(r));
    lki_fail(-ECONNREFUSED, "no broker answers at %s, and '%s' could not be started: %s", path,
             start.program, start.words[0] ? start.words : lk_strerror(r));
    if (start.words[0])
        return lki_fail_hint(-ECONNREFUSED, "start it by hand: lockkeeperd --socket %s", path);
    /* Once detached from us it speaks to a file. */
    return lki_fail_hint(-ECONNREFUSED, "see %s.log, or start it by hand: lockkeeperd --socket %s",
                         path, path);
}
