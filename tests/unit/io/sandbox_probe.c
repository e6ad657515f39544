/* SPDX-License-Identifier: MIT */
/* sandbox_probe
 *
 * Tries from inside the worker's sandbox what a worker whose memory a stranger has taken over would
 * try, each in a process of its own, and what a worker has to be able to. Sanitized builds have no
 * sandbox: then this says so and passes. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/io/proc.h"
#include "broker/io/sandbox.h"

enum outcome {
    DONE,    /* it worked */
    REFUSED, /* it failed, with EACCES or EPERM */
    KILLED,  /* by SIGSYS */
    OTHER,
};

static pid_t parent;

static const char *const outcome_names[] = {"done", "refused", "killed", "something else"};

/* Each returns 0, or -errno. */

static int read_a_file(void)
{
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : 0;
}

static int list_a_directory(void)
{
    int fd = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : 0;
}

static int leave_proc(void)
{
    int fd = open("/proc/self/root/etc/passwd", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : 0;
}

static int write_a_file(void)
{
    return open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) < 0 ? -errno : 0;
}

static int make_a_file(void)
{
    return open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) < 0 ? -errno : 0;
}

static int remove_a_file(void)
{
    return unlink("/tmp/lk-there-is-no-such-file") < 0 ? -errno : 0;
}

static int change_a_mode(void)
{
    return chmod("/tmp/lk-there-is-no-such-file", 0777) < 0 ? -errno : 0;
}

static int make_a_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? -errno : 0;
}

static int make_a_unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? -errno : 0;
}

static int signal_the_parent(void)
{
    return kill(parent, 0) < 0 ? -errno : 0;
}

static int trace_the_parent(void)
{
    return ptrace(PTRACE_SEIZE, parent, 0, 0) < 0 ? -errno : 0;
}

static int become_another(void)
{
    return setuid(0) < 0 ? -errno : 0;
}

static int execute(void)
{
    char *const none[] = {NULL};
    return execve("/bin/true", none, none) < 0 ? -errno : 0;
}

static int make_a_process(void)
{
    return fork() < 0 ? -errno : 0;
}

static int make_code(void)
{
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? -errno : 0;
}

static int mount_something(void)
{
    return mount("none", "/mnt", "tmpfs", 0, NULL) < 0 ? -errno : 0;
}

/* What a worker needs. */

static int look_at_a_process(void)
{
    uint64_t ticks;
    char command[32];
    int r = lkd_proc_start_time((int32_t)parent, &ticks);
    lkd_proc_command((int32_t)parent, command, sizeof(command));
    if (r == 0 && command[0] == '\0')
        r = -ENOENT;
    return r < 0 ? r : lkd_proc_life((int32_t)parent) == LKD_PROC_RUNS ? 0 : -ESRCH;
}

static int make_memory(void)
{
    char path[40];
    int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, 4096) < 0 || fchmod(fd, 0600) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
        return -errno;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0)
        return -errno;
    return mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0) == MAP_FAILED ? -errno : 0;
}

static void *return_argument(void *argument)
{
    return argument;
}

static int start_a_thread(void)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, return_argument, NULL);
    return error != 0 ? -error : -pthread_join(thread, NULL);
}

static int pass_a_descriptor(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0)
        return -errno;
    return send(ends[0], "x", 1, MSG_DONTWAIT) == 1 ? 0 : -errno;
}

static const struct {
    const char *name;
    int (*act)(void);
    enum outcome expected;
    bool by_landlock; /* without it: DONE */
} rows[] = {
    {"reads a file", read_a_file, REFUSED, true},
    {"lists a directory", list_a_directory, REFUSED, true},
    {"leaves /proc by a link", leave_proc, REFUSED, true},
    {"opens a file to write", write_a_file, KILLED, false},
    {"makes a file", make_a_file, KILLED, false},
    {"removes a file", remove_a_file, KILLED, false},
    {"changes a mode", change_a_mode, KILLED, false},
    {"makes an internet socket", make_a_socket, KILLED, false},
    {"makes a Unix socket", make_a_unix_socket, KILLED, false},
    {"signals another process", signal_the_parent, KILLED, false},
    {"traces another process", trace_the_parent, KILLED, false},
    {"becomes another user", become_another, KILLED, false},
    {"executes a program", execute, KILLED, false},
    {"makes a process", make_a_process, KILLED, false},
    {"makes memory executable", make_code, KILLED, false},
    {"mounts", mount_something, KILLED, false},
    {"looks at a process", look_at_a_process, DONE, false},
    {"makes memory, and reopens it", make_memory, DONE, false},
    {"starts a thread", start_a_thread, DONE, false},
    {"sends", pass_a_descriptor, DONE, false},
};

static enum outcome outcome_of(int status)
{
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGSYS ? KILLED : OTHER;
    switch (WEXITSTATUS(status)) {
    case 0:
        return DONE;
    case EACCES:
    case EPERM:
        return REFUSED;
    default:
        return OTHER;
    }
}

static int be_worker(int (*act)(void))
{
    int parts = lkd_sandbox_enter();
    return parts < 0 ? 255 : -act();
}

static bool has_landlock(void)
{
    fflush(NULL);
    pid_t pid = fork();
    int status = 0;
    if (pid == 0)
        _exit(lkd_sandbox_enter());
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           (WEXITSTATUS(status) & LKD_SANDBOX_FILES) != 0;
}

int main(void)
{
    unsigned wrong = 0;
    if (!lkd_sandbox_is_possible()) {
        puts("this build has no sandbox");
        return 0;
    }
    parent = getpid();
    bool landlock = has_landlock();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = 0;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(be_worker(rows[i].act));
        if (waitpid(pid, &status, 0) != pid)
            return 1;
        enum outcome expected = rows[i].by_landlock && !landlock ? DONE : rows[i].expected;
        enum outcome outcome = outcome_of(status);
        if (outcome != expected)
            printf("a worker that %s: %s (status %#x), expected: %s\n", rows[i].name,
                   outcome_names[outcome], (unsigned)status, outcome_names[expected]);
        wrong += outcome != expected;
    }
    printf("%zu things tried%s, %u went wrong\n", sizeof(rows) / sizeof(rows[0]),
           landlock ? "" : " (no Landlock here)", wrong);
    return wrong == 0 ? 0 : 1;
}
