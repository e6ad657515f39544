/* SPDX-License-Identifier: MIT */
/* faults_start [--all] [--seed N] [--faults N] [--seconds N] [--only STORY] [--verbose]
 *
 * Fails one call of a program that starts, once or from then on: of the daemon, of one that leaves
 * its starter, and of the command line, by itself and when it has to start a daemon. Each fault is a
 * start of its own. What starts serves, or says why not and exits with an error; whatever came of it,
 * nobody who comes next is in any way hindered. Options as of `faults`. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/personality.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "common/cleanup.h"
#include "common/fd.h"
#include "tests/faults/list.h"
#include "tests/faults/stage.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define PATIENCE_MS 30000 /* longer than any wait of the programs */
#define CALLS_MAX 40u     /* of one site; building the filter takes thousands */
#define WORDS_BYTES 2000u

/* --- Stories --- */

enum kind { DAEMON, COMMAND };

static const struct story {
    const char *name;
    enum kind kind;
    bool serves;              /* COMMAND: a daemon is there already */
    const char *arguments[8]; /* behind the program and --socket PATH; @: the end that it tells */
} stories[] = {
    {"daemon", DAEMON, false, {"--ready-fd", "@", NULL}},
    {"detached", DAEMON, false, {"--autostarted", "--ready-fd", "@", NULL}},
    {"autostart", COMMAND, false, {"seg", "create", "new", "--size", "4096", NULL}},
    {"create", COMMAND, true, {"seg", "create", "new", "--size", "4096", "--keep", NULL}},
    {"run", COMMAND, true, {"run", "lock", "true", NULL}},
    {"ls", COMMAND, true, {"ls", NULL}},
    {"why", COMMAND, true, {"why", "held", NULL}},
    {"graph", COMMAND, true, {"graph", NULL}},
    {"doctor", COMMAND, true, {"doctor", NULL}},
    {"stat", COMMAND, true, {"seg", "stat", "held", NULL}},
    {"where", COMMAND, true, {"where", NULL}},
};

struct run {
    bool all, verbose;
    uint64_t seed, faults, seconds;
    const char *only;
    struct stage stage; /* what of it describes a fault */
    struct faults_control *control;
    char control_path[64];
    const struct story *story;
    char directory[64];
    char socket_path[80];
    struct faults_list list;
    uint64_t tried, fired, served, refused, violations;
};

/* How a program that started ended, or that it did not. */
struct start {
    pid_t pid;
    int words_fd, ready_fd;
    bool ready;
    bool ended;
    int status;
    char words[WORDS_BYTES];
};

static __attribute__((format(printf, 3, 4))) void
violate(struct run *run, const struct stage_fault *fault, const char *format, ...)
{
    char what[600];
    va_list arguments;
    stage_describe(&run->stage, fault, what, sizeof(what));
    printf("VIOLATION %s: %s: ", run->story->name, what);
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    (void)fflush(stdout);
    run->violations++;
}

/* --- Running programs --- */

static int is_wanted_end(const char *argument)
{
    return strcmp(argument, "@") == 0;
}

/* In the child. Addresses are to be the same in each run, since call sites are known by them. */
static _Noreturn void become(const struct run *run, const struct story *story, bool observed,
                             int ready_end)
{
    const char *arguments[16] = {story->kind == DAEMON ? LK_DAEMON : LK_COMMAND};
    char ready[16];
    size_t count = 1;
    bool early = story->kind == DAEMON;
    (void)snprintf(ready, sizeof(ready), "%d", ready_end);
    if (early) {
        arguments[count++] = "--socket";
        arguments[count++] = run->socket_path;
    }
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(story->arguments) && story->arguments[i]; i++)
        arguments[count++] = is_wanted_end(story->arguments[i]) ? ready : story->arguments[i];
    (void)setenv("LOCKKEEPER_SOCKET", run->socket_path, 1);
    (void)setenv("LOCKKEEPERD", LK_DAEMON, 1);
    (void)personality(ADDR_NO_RANDOMIZE);
    stage_set_environment(observed ? run->control_path : NULL);
    (void)execv(arguments[0], (char *const *)arguments);
    _exit(127);
}

static void begin(const struct run *run, const struct story *story, bool observed,
                  struct start *start)
{
    int words[2], ready[2];
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    test_check(null_fd >= 0 && pipe2(words, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0,
               "pipes");
    *start = (struct start){.words_fd = words[0], .ready_fd = ready[0]};
    (void)fflush(stdout);
    start->pid = fork();
    test_check(start->pid >= 0, "fork");
    if (start->pid == 0) {
        /* The number is the same in each run, and beyond the program's own. */
        if (dup2(null_fd, STDIN_FILENO) < 0 || dup2(words[1], STDOUT_FILENO) < 0 ||
            dup2(words[1], STDERR_FILENO) < 0 || dup2(ready[1], 200) < 0)
            _exit(127);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        become(run, story, observed, 200);
    }
    (void)close(null_fd);
    (void)close(words[1]);
    (void)close(ready[1]);
}

static void read_words(struct start *start)
{
    size_t used = strlen(start->words);
    ssize_t length = used < WORDS_BYTES - 1
                         ? read(start->words_fd, start->words + used, WORDS_BYTES - 1 - used)
                         : 0;
    if (length <= 0)
        start->words_fd = lki_close(start->words_fd);
    else
        start->words[used + (size_t)length] = '\0';
}

/* Until it is ready, if it is to be, or has ended. False: it hangs. */
static bool await(struct start *start, enum kind kind)
{
    LKI_CLEANUP(lki_close_p) int pidfd = pidfd_open(start->pid, 0);
    test_check(pidfd >= 0, "pidfd_open");
    uint64_t deadline_ns = lki_clock_now_ns() + PATIENCE_MS * LKI_NS_PER_MS;
    while (!start->ready) {
        struct pollfd fds[] = {{.fd = pidfd, .events = POLLIN},
                               {.fd = start->words_fd, .events = POLLIN},
                               {.fd = kind == DAEMON ? start->ready_fd : -1, .events = POLLIN}};
        if (lki_clock_now_ns() > deadline_ns)
            return false;
        if (poll(fds, 3, 1000) <= 0)
            continue;
        char byte;
        if (fds[1].revents != 0)
            read_words(start);
        else if (fds[2].revents != 0 && read(start->ready_fd, &byte, 1) == 1)
            start->ready = true;
        else if (fds[2].revents != 0)
            start->ready_fd = lki_close(start->ready_fd);
        else if (fds[0].revents != 0)
            break;
    }
    if (start->ready)
        return true;
    test_check(waitpid(start->pid, &start->status, 0) == start->pid, "waitpid");
    start->ended = true;
    return true;
}

/* Ends what still runs; its exit code, or 128 and the signal. */
static int finish(struct start *start, int signal_number)
{
    if (!start->ended) {
        LKI_CLEANUP(lki_close_p) int pidfd = pidfd_open(start->pid, 0);
        struct pollfd ended = {.fd = pidfd, .events = POLLIN};
        (void)kill(start->pid, signal_number);
        if (poll(&ended, 1, PATIENCE_MS) <= 0)
            (void)kill(start->pid, SIGKILL);
        (void)waitpid(start->pid, &start->status, 0);
        start->ended = true;
    }
    start->words_fd = lki_close(start->words_fd);
    start->ready_fd = lki_close(start->ready_fd);
    return WIFEXITED(start->status) ? WEXITSTATUS(start->status) : 128 + WTERMSIG(start->status);
}

/* --- What is left --- */

static void path_of(const struct run *run, const char *suffix, char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "%s%s", run->socket_path, suffix);
}

/* The daemon that a client has started is nobody's child; whoever runs holds the lock file. */
static void end_daemon(struct run *run, const struct stage_fault *fault)
{
    char path[96];
    char text[64] = "";
    path_of(run, ".lock", path, sizeof(path));
    LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
        return;
    long pid = read(fd, text, sizeof(text) - 1) > 0 ? strtol(text, NULL, 10) : 0;
    LKI_CLEANUP(lki_close_p) int pidfd = pid > 1 ? pidfd_open((pid_t)pid, 0) : -1;
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    if (pidfd < 0 || pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0 ||
        poll(&ended, 1, PATIENCE_MS) <= 0)
        violate(run, fault, "the daemon that was started cannot be ended");
}

static void check_nothing_left(struct run *run, const struct stage_fault *fault)
{
    char path[96];
    if (access(run->socket_path, F_OK) == 0)
        violate(run, fault, "the socket is left behind");
    path_of(run, ".lock", path, sizeof(path));
    LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
        violate(run, fault, "somebody still holds the lock file");
}

/* Whether a client is served. */
static void try_client(struct run *run, const struct stage_fault *fault)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_segment_options wish = test_options(4096, 2);
    struct lk_session *session = NULL;
    struct lk_segment *segment = NULL;
    struct lk_lock *lock = NULL;
    wish.flags |= LK_STRICT;
    int r = lk_session_open(run->socket_path, &options, &session);
    if (r >= 0)
        r = lk_segment_open(session, "a-client", &wish, &segment);
    if (r >= 0)
        r = lk_lock_at(segment, 0, &lock);
    if (r >= 0)
        r = lk_lock_acquire(lock, LK_EXCLUSIVE, 0);
    if (r >= 0)
        r = lk_lock_release(lock);
    if (r < 0)
        violate(run, fault, "what has started does not serve: %d, %s", r, lk_last_error());
    lk_session_close(session);
}

/* --- One fault --- */

static void arm(struct run *run, const struct stage_fault *fault)
{
    struct faults_control *control = run->control;
    for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++)
        atomic_store(&control->sites[i].count, 0);
    atomic_store(&control->main_pid, 0);
    atomic_store(&control->children, run->story->kind == DAEMON);
    atomic_store(&control->plan.role, fault->role);
    atomic_store(&control->plan.site, fault->site);
    atomic_store(&control->plan.error, fault->error);
    atomic_store(&control->plan.nth, fault->nth);
    atomic_store(&control->plan.times, fault->times);
    atomic_store(&control->plan.matched, 0);
    atomic_store(&control->plan.fired, 0);
    atomic_store(&control->plan.call, fault->call);
    atomic_store(&control->on, 1);
}

static bool disarm(struct run *run)
{
    atomic_store(&run->control->on, 0);
    atomic_store(&run->control->plan.call, FAULTS_CALLS);
    return atomic_load(&run->control->plan.fired) > 0;
}

static void note_calls(struct run *run)
{
    for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++)
        run->stage.calls[STAGE_BROKER][i] = atomic_load(&run->control->sites[i].count);
}

/* Another start in the same place, of which nothing fails. */
static void check_next(struct run *run, const struct stage_fault *fault)
{
    struct start start;
    begin(run, run->story, false, &start);
    bool hangs = !await(&start, run->story->kind);
    bool ok = run->story->kind == DAEMON
                  ? start.ready
                  : start.ended && WIFEXITED(start.status) && WEXITSTATUS(start.status) <= 1;
    if (hangs || !ok)
        violate(run, fault, "and the next one fails: %s", start.words);
    (void)finish(&start, SIGTERM);
}

/* Who has left its starter speaks to a file. */
static void read_log(const struct run *run, struct start *start)
{
    char path[96];
    size_t used = strlen(start->words);
    path_of(run, ".log", path, sizeof(path));
    LKI_CLEANUP(lki_close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, start->words + used, sizeof(start->words) - 1 - used) : 0;
    start->words[used + (length > 0 ? (size_t)length : 0)] = '\0';
    (void)unlink(path);
}

static void judge_daemon(struct run *run, const struct stage_fault *fault, struct start *start)
{
    if (start->ready)
        try_client(run, fault);
    run->served += start->ready;
    bool ready = start->ready;
    int code = finish(start, SIGTERM);
    read_log(run, start);
    if (ready && code != 0)
        violate(run, fault, "it served, and ends with %d: %s", code, start->words);
    else if (!ready && (code == 0 || code >= 128 || start->words[0] == '\0'))
        violate(run, fault, "it did not start, and ends with %d, saying '%s'", code, start->words);
    check_nothing_left(run, fault);
    if (!ready) {
        run->refused++;
        check_next(run, fault);
        check_nothing_left(run, fault);
    }
}

/* The C library crashes, or aborts, when it finds no memory while it looks up a user (glibc 2.36):
 * somewhere inside of it, in no function that others call. */
static bool is_foreign(const struct run *run, const struct start *start)
{
    const struct faults_site *site =
        &run->control->sites[atomic_load(&run->control->plan.fired_site)];
    return site->call == FAULTS_ALLOC && strncmp(site->module, "libc.so", 7) == 0 &&
           (strstr(start->words, "nss_database.c") != NULL || site->symbol[0] == '\0' ||
            strncmp(site->symbol, "__nss", 5) == 0);
}

static void judge_command(struct run *run, const struct stage_fault *fault, struct start *start)
{
    int code = finish(start, SIGKILL);
    if (code >= 128 && is_foreign(run, start))
        code = 1;
    if (code >= 128 || (code != 0 && start->words[0] == '\0' && code != 1))
        violate(run, fault, "it ends with %d, saying '%s'", code, start->words);
    run->served += code == 0;
    run->refused += code != 0;
    check_next(run, fault);
    if (!run->story->serves) {
        end_daemon(run, fault);
        check_nothing_left(run, fault);
    }
}

static void try_fault(struct run *run, const struct stage_fault *fault)
{
    struct start start;
    arm(run, fault);
    begin(run, run->story, true, &start);
    bool hangs = !await(&start, run->story->kind);
    note_calls(run);
    bool fired = disarm(run);
    run->tried++;
    run->fired += fired;
    if (hangs) {
        violate(run, fault, "it neither serves nor ends: %s", start.words);
        (void)finish(&start, SIGKILL);
    } else if (run->story->kind == DAEMON) {
        judge_daemon(run, fault, &start);
    } else {
        judge_command(run, fault, &start);
    }
    if (run->verbose && fired) {
        char what[600];
        stage_describe(&run->stage, fault, what, sizeof(what));
        printf("%s: %s -> %#x %s\n", run->story->name, what, (unsigned)start.status, start.words);
    }
}

/* --- All of a story --- */

static void list_faults(struct run *run)
{
    for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++) {
        const struct faults_site *site = &run->control->sites[i];
        uint64_t count = run->stage.calls[STAGE_BROKER][i];
        bool filter = strncmp(site->module, "libseccomp", 10) == 0;
        uint64_t most = filter ? 2 : CALLS_MAX;
        bool ours = strcmp(site->module, "true") != 0;
        for (uint64_t nth = 1; ours && nth <= count && nth <= most; nth++)
            faults_list_add(&run->list,
                            &(struct stage_fault){.side = STAGE_BROKER,
                                                  .role = site->role,
                                                  .call = site->call,
                                                  .site = i,
                                                  .nth = nth},
                            FAULTS_ONCE_AND_LASTING);
    }
}

static void empty_directory(const struct run *run)
{
    static const char *const suffixes[] = {"", ".lock", ".names", ".log"};
    char path[96];
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(suffixes); i++) {
        path_of(run, suffixes[i], path, sizeof(path));
        (void)unlink(path);
    }
}

static void tell(struct run *run, const struct story *story, uint64_t end_ns)
{
    static const struct story plain = {"", DAEMON, false, {"--ready-fd", "@", NULL}};
    const struct stage_fault none = {.side = STAGE_BROKER, .call = FAULTS_CALLS};
    struct start daemon;
    struct test_client holder;
    struct lk_segment_options wish = test_options(4096, 2);
    run->story = story;
    if (story->serves) {
        begin(run, &plain, false, &daemon);
        test_check(await(&daemon, DAEMON) && daemon.ready, "no daemon: %s", daemon.words);
        test_client_open(&holder, run->socket_path, "held", &wish);
        (void)test_acquire(test_lock(&holder, 0), LK_EXCLUSIVE);
    }
    memset(run->control, 0, sizeof(*run->control));
    run->control->magic = FAULTS_MAGIC;
    run->list.count = 0;
    try_fault(run, &none);
    list_faults(run);
    faults_list_shuffle(&run->list, run->seed);
    uint64_t count = run->all || run->faults > run->list.count ? run->list.count : run->faults;
    for (uint64_t i = 0; i < count && lki_clock_now_ns() < end_ns; i++)
        try_fault(run, &run->list.faults[i]);
    printf("%s: %llu of %zu\n", story->name, (unsigned long long)count, run->list.count);
    if (story->serves) {
        test_client_close(&holder);
        (void)finish(&daemon, SIGTERM);
    }
    empty_directory(run);
}

static void parse(int argc, char **argv, struct run *run)
{
    static const struct option options[] = {{"all", no_argument, NULL, 'a'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"faults", required_argument, NULL, 'n'},
                                            {"seconds", required_argument, NULL, 'k'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    run->seed = (uint64_t)time(NULL);
    run->faults = 20;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'a')
            run->all = true;
        else if (c == 's')
            run->seed = strtoull(optarg, NULL, 10);
        else if (c == 'n')
            run->faults = strtoull(optarg, NULL, 10);
        else if (c == 'k')
            run->seconds = strtoull(optarg, NULL, 10);
        else if (c == 'o')
            run->only = optarg;
        else if (c == 'v')
            run->verbose = true;
        else
            exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct run run;
    parse(argc, argv, &run);
    printf("seed %llu\n", (unsigned long long)run.seed);
    run.control = stage_new_control(run.control_path, sizeof(run.control_path));
    run.stage.control[STAGE_BROKER] = run.control;
    (void)snprintf(run.directory, sizeof(run.directory), "/tmp/lk-test-XXXXXX");
    test_check(mkdtemp(run.directory) != NULL, "mkdtemp");
    (void)snprintf(run.socket_path, sizeof(run.socket_path), "%s/b.sock", run.directory);
    uint64_t end_ns =
        run.seconds > 0 ? lki_clock_now_ns() + run.seconds * LKI_NS_PER_S : LKI_TIME_NEVER;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(stories); i++)
        if (run.only == NULL || strcmp(run.only, stories[i].name) == 0)
            tell(&run, &stories[i], end_ns);
    (void)rmdir(run.directory);
    free(run.list.faults);
    printf("faults_start: seed %llu, %llu tried: %llu fired, %llu served, %llu gave up; %llu "
           "violations\n",
           (unsigned long long)run.seed, (unsigned long long)run.tried,
           (unsigned long long)run.fired, (unsigned long long)run.served,
           (unsigned long long)run.refused, (unsigned long long)run.violations);
    return run.violations > 0 ? 1 : 0;
}
