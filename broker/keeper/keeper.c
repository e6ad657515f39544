/* SPDX-License-Identifier: MIT */
#include "broker/keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "broker/core/ledger.h"
#include "broker/io/log.h"
#include "common/clock.h"
#include "common/fd.h"

#define KEPT_MAX 16u

/* A worker that fails as soon as it has begun would be restarted without end at full speed. */
#define QUICK_DEATH_NS (500 * LKI_NS_PER_MS)
#define PAUSE_FIRST_NS (10 * LKI_NS_PER_MS)
#define PAUSE_MAX_NS LKI_NS_PER_S

/* So many may fail before one of them has served: then it is no accident, and whoever waits for the
 * broker has to be told. */
#define FIRST_TRIES 3u

/* A worker that somebody stopped serves nobody, and nobody can tell it from one that hangs. */
#define STOPPED_MAX_NS (10 * LKI_NS_PER_S)

#define SEGMENTS_RETRY_NS (100 * LKI_NS_PER_MS)

struct lkd_keeper {
    const struct lkd_keeper_service *service;
    struct lkd_worker_start start;
    int kept[KEPT_MAX];
    uint64_t ledger_bytes;
    struct lkd_ledger ledger; /* to look at: only workers write its records */
    int ledger_fd;
    int signal_fd;
    int requests[2]; /* ours, the worker's */
    int reopened[2]; /* likewise; for its helper threads */
    sigset_t old_mask;
    pid_t pid; /* of the worker; 0: none */
    uint64_t began_ns;
    uint64_t stopped_ns; /* since when it is stopped; 0: it runs */
    uint64_t pause_ns;
    uint64_t segments_due_ns; /* when to look at them again; LKI_TIME_NEVER */
    uint64_t resume_ns;       /* when to start the next one; 0: not now */
    uint32_t restarts;
    uint32_t failed_first; /* how many have failed while none has served */
    bool stopping;
    bool upgrading; /* asked to */
    bool closed;    /* socket and lock are given up */
    bool done;
    int exit_code;
};

/* --- Lifecycle --- */

static int make_ledger(struct lkd_keeper *keeper, const struct lkd_limits *limits)
{
    keeper->ledger_bytes = lkd_ledger_bytes(limits);
    if (keeper->ledger_fd < 0)
        keeper->ledger_fd = memfd_create("lockkeeper-ledger", MFD_CLOEXEC);
    if (keeper->ledger_fd < 0 || ftruncate(keeper->ledger_fd, (off_t)keeper->ledger_bytes) < 0)
        return -errno;
    void *base = mmap(NULL, keeper->ledger_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, keeper->ledger_fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    keeper->start.ledger = base;
    lkd_ledger_peek(&keeper->ledger, base, limits);
    return 0;
}

static const int watched[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2};

static void fill_watched(sigset_t *out_set)
{
    (void)sigemptyset(out_set);
    for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
        (void)sigaddset(out_set, watched[i]);
}

void lkd_keeper_hold_signals(void)
{
    sigset_t ours;
    fill_watched(&ours);
    (void)sigprocmask(SIG_BLOCK, &ours, NULL);
}

static int watch_signals(struct lkd_keeper *keeper)
{
    sigset_t ours;
    fill_watched(&ours);
    if (sigprocmask(SIG_BLOCK, &ours, &keeper->old_mask) < 0)
        return -errno;
    /* They may have been held before, which is nothing to hand on to the worker. */
    for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
        (void)sigdelset(&keeper->old_mask, watched[i]);
    keeper->signal_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    return keeper->signal_fd < 0 ? -errno : 0;
}

static int keeper_init(struct lkd_keeper *keeper, const struct lkd_limits *limits, const int *kept,
                       size_t kept_count)
{
    int r = make_ledger(keeper, limits);
    if (r == 0)
        r = watch_signals(keeper);
    const int type = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    if (r == 0 && (socketpair(AF_UNIX, type, 0, keeper->requests) < 0 ||
                   socketpair(AF_UNIX, type, 0, keeper->reopened) < 0))
        r = -errno;
    if (r < 0)
        return r;
    size_t count = 0;
    for (size_t i = 0; i < kept_count && count < KEPT_MAX; i++)
        keeper->kept[count++] = kept[i];
    const int own[] = {keeper->ledger_fd,   keeper->signal_fd,   keeper->requests[0],
                       keeper->requests[1], keeper->reopened[0], keeper->reopened[1]};
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]) && count < KEPT_MAX; i++)
        keeper->kept[count++] = own[i];
    keeper->start.kept = keeper->kept;
    keeper->start.kept_count = count;
    keeper->start.request_fd = keeper->requests[1];
    keeper->start.reopened_fd = keeper->reopened[1];
    return 0;
}

static void keeper_deinit(struct lkd_keeper *keeper)
{
    keeper->requests[0] = lki_close(keeper->requests[0]);
    keeper->requests[1] = lki_close(keeper->requests[1]);
    keeper->reopened[0] = lki_close(keeper->reopened[0]);
    keeper->reopened[1] = lki_close(keeper->reopened[1]);
    if (keeper->signal_fd >= 0)
        (void)sigprocmask(SIG_SETMASK, &keeper->old_mask, NULL);
    keeper->signal_fd = lki_close(keeper->signal_fd);
    if (keeper->start.ledger != NULL)
        (void)munmap(keeper->start.ledger, keeper->ledger_bytes);
    keeper->ledger_fd = lki_close(keeper->ledger_fd);
}

/* --- The worker --- */

static bool has_served(const struct lkd_keeper *keeper)
{
    const struct lkd_ledger_header *header = keeper->start.ledger;
    return atomic_load_explicit(&header->serving, memory_order_relaxed) != 0;
}

static _Noreturn void be_worker(struct lkd_keeper *keeper, pid_t parent)
{
    (void)prctl(PR_SET_NAME, "lockkeeper-work");
    lkd_log_forked();
    /* Without the keeper nobody would bring the service back after the next failure. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot start: a worker cannot be tied to its keeper: %s",
                     strerror(errno));
        _exit(EX_OSERR);
    }
    if (getppid() != parent)
        _exit(EX_OSERR);
    (void)sigprocmask(SIG_SETMASK, &keeper->old_mask, NULL);
    keeper->start.successor = has_served(keeper);
    exit(keeper->service->work(&keeper->start, keeper->service->user));
}

/* Not fork(): the table of descriptors is to be one. What fork() does besides, locks of the C
 * library, matters in processes with threads alone, and we have none. */
static pid_t clone_with_files(void)
{
#if defined(__s390__) || defined(__CRIS__)
    return (pid_t)syscall(SYS_clone, NULL, (long)(CLONE_FILES | SIGCHLD), NULL, NULL, NULL);
#else
    return (pid_t)syscall(SYS_clone, (long)(CLONE_FILES | SIGCHLD), NULL, NULL, NULL, NULL);
#endif
}

/* One more has failed. True: there will be no other. */
static bool gives_up(struct lkd_keeper *keeper)
{
    if (has_served(keeper) || ++keeper->failed_first < FIRST_TRIES)
        return false;
    lkd_log_line(LKD_LOG_ERROR, "cannot start: no worker could serve, of %u", FIRST_TRIES);
    keeper->done = true;
    keeper->exit_code = EX_OSERR;
    return true;
}

static void begin_worker(struct lkd_keeper *keeper)
{
    pid_t parent = getpid();
    keeper->start.number++;
    keeper->resume_ns = 0;
    keeper->stopped_ns = 0;
    keeper->began_ns = lki_clock_now_ns();
    pid_t pid = clone_with_files();
    if (pid == 0)
        be_worker(keeper, parent);
    if (pid < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot start a worker: %s", strerror(errno));
        if (!gives_up(keeper))
            keeper->resume_ns = lki_clock_now_ns() + PAUSE_MAX_NS;
        return;
    }
    keeper->pid = pid;
}

/* It ended by its own will, by which the service ends, or it could not even begin. */
static bool is_end(const struct lkd_keeper *keeper, int status)
{
    if (keeper->stopping || keeper->closed)
        return true;
    return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !has_served(keeper));
}

/* SIGKILL is somebody's decision, an operator's or the kernel's when memory runs out; the other
 * signals are the worker's own doing, and so is an exit with an error. */
static bool is_fault(int status)
{
    return !WIFSIGNALED(status) || (WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM &&
                                    WTERMSIG(status) != SIGINT && WTERMSIG(status) != SIGHUP);
}

static void plan_next(struct lkd_keeper *keeper, int status)
{
    uint64_t now_ns = lki_clock_now_ns();
    keeper->start.faulty = is_fault(status);
    keeper->restarts++;
    bool quick = keeper->start.faulty && now_ns - keeper->began_ns < QUICK_DEATH_NS;
    if (!quick)
        keeper->pause_ns = 0;
    else if (keeper->pause_ns == 0)
        keeper->pause_ns = PAUSE_FIRST_NS;
    else if (keeper->pause_ns < PAUSE_MAX_NS)
        keeper->pause_ns *= 2;
    if (WIFSIGNALED(status))
        lkd_log_line(LKD_LOG_WARNING, "the worker (pid %d) died by signal %d (%s): another goes on",
                     keeper->pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        lkd_log_line(LKD_LOG_WARNING, "the worker (pid %d) failed with code %d: another goes on",
                     keeper->pid, WEXITSTATUS(status));
    keeper->pid = 0;
    if (!keeper->start.faulty || !gives_up(keeper))
        keeper->resume_ns = now_ns + keeper->pause_ns;
}

/* A worker that is told to end before it listens for that ends by the signal, which is as good. */
static int exit_code_of(const struct lkd_keeper *keeper, int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    bool as_told = keeper->stopping && WTERMSIG(status) != SIGKILL && !is_fault(status);
    return as_told ? 0 : EX_OSERR;
}

static void on_child(struct lkd_keeper *keeper)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
        if (pid != keeper->pid)
            continue;
        if (WIFSTOPPED(status)) {
            keeper->stopped_ns = lki_clock_now_ns();
        } else if (WIFCONTINUED(status)) {
            keeper->stopped_ns = 0;
        } else if (is_end(keeper, status)) {
            keeper->done = true;
            keeper->exit_code = exit_code_of(keeper, status);
            keeper->pid = 0;
        } else {
            plan_next(keeper, status);
        }
    }
}

static void look_at_segments(struct lkd_keeper *keeper)
{
    bool done =
        keeper->service->segments(&keeper->ledger, keeper->ledger_fd, keeper->service->user);
    keeper->segments_due_ns = done ? LKI_TIME_NEVER : lki_clock_now_ns() + SEGMENTS_RETRY_NS;
}

/* --- Upgrade --- */

/* The worker is killed as it might be at any time, so that this is no case of its own. */
static void stop_worker(struct lkd_keeper *keeper)
{
    int status;
    if (keeper->pid == 0)
        return;
    (void)kill(keeper->pid, SIGKILL);
    while (waitpid(keeper->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    keeper->pid = 0;
}

static void upgrade(struct lkd_keeper *keeper)
{
    keeper->upgrading = false;
    if (!has_served(keeper) || keeper->closed)
        return;
    if (!keeper->service->can_upgrade(keeper->service->user)) {
        lkd_log_line(LKD_LOG_WARNING, "no upgrade: the program that is installed now cannot go on "
                                      "from here; this one goes on");
        return;
    }
    stop_worker(keeper);
    look_at_segments(keeper); /* the next image takes all of them for told */
    (void)sigprocmask(SIG_SETMASK, &keeper->old_mask, NULL);
    int r = keeper->service->upgrade(keeper->ledger_fd, keeper->service->user);
    lkd_log_line(LKD_LOG_WARNING, "no upgrade: %s; this program goes on", strerror(-r));
    lkd_keeper_hold_signals();
    begin_worker(keeper);
}

/* --- The loop --- */

static void on_signals(struct lkd_keeper *keeper)
{
    struct signalfd_siginfo info;
    bool child = false;
    while (read(keeper->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD || info.ssi_signo == SIGUSR2) {
            child = child || info.ssi_signo == SIGCHLD;
            keeper->upgrading = keeper->upgrading || info.ssi_signo == SIGUSR2;
            continue;
        }
        keeper->stopping = true;
        if (keeper->pid != 0)
            (void)kill(keeper->pid, (int)info.ssi_signo);
        else
            keeper->done = true;
    }
    if (child)
        on_child(keeper);
    if (keeper->upgrading && !keeper->done && !keeper->stopping)
        upgrade(keeper);
}

/* A descriptor of the same file that cannot write. A dup would share the file description, and with
 * it the right to write. */
static int reopen_read_only(int fd)
{
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int reopened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return reopened < 0 ? -errno : reopened;
}

static void close_service(struct lkd_keeper *keeper)
{
    const struct lkd_ledger_header *header = keeper->start.ledger;
    uint64_t epoch_s =
        header != NULL ? atomic_load_explicit(&header->last_epoch_s, memory_order_relaxed) : 0;
    keeper->segments_due_ns = LKI_TIME_NEVER;
    if (!keeper->closed)
        keeper->service->close(epoch_s, keeper->service->user);
    keeper->closed = true;
}

static void send_signal(const struct lkd_keeper *keeper, const struct lkd_request *request)
{
    struct lkd_request answer = *request;
    answer.result = pidfd_send_signal(request->fd, request->value, NULL, 0) < 0 ? -errno : 0;
    (void)send(keeper->requests[0], &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* What is opened for a worker that has ended nobody would ever close, if its successor has looked the
 * table through by then. */
static void reopen(const struct lkd_keeper *keeper, const struct lkd_request *request)
{
    struct lkd_request answer = *request;
    if (request->worker != keeper->start.number || request->deadline_ns <= lki_clock_now_ns())
        return;
    answer.result = reopen_read_only(request->fd);
    if (send(keeper->reopened[0], &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        answer.result >= 0)
        (void)lki_close(answer.result); /* it asks again */
}

static void serve_request(struct lkd_keeper *keeper, const struct lkd_request *request)
{
    switch ((enum lkd_request_kind)request->kind) {
    case LKD_REQUEST_SIGNAL:
        send_signal(keeper, request);
        break;
    case LKD_REQUEST_READ_ONLY:
        reopen(keeper, request);
        break;
    case LKD_REQUEST_SERVING:
        keeper->service->serving(keeper->service->user);
        keeper->segments_due_ns = 0;
        break;
    case LKD_REQUEST_ALIVE:
        keeper->service->alive(keeper->service->user);
        keeper->segments_due_ns = 0;
        break;
    case LKD_REQUEST_SEGMENTS:
        keeper->segments_due_ns = 0; /* once, however many have been told of */
        break;
    case LKD_REQUEST_CLOSE:
        close_service(keeper);
        break;
    }
}

static void on_request(struct lkd_keeper *keeper)
{
    struct lkd_request request;
    while (recv(keeper->requests[0], &request, sizeof(request), 0) == sizeof(request))
        serve_request(keeper, &request);
}

/* When there is something to do without an event, or LKI_TIME_NEVER. */
static uint64_t next_deadline(const struct lkd_keeper *keeper)
{
    uint64_t due_ns = LKI_TIME_NEVER;
    if (keeper->pid == 0)
        due_ns = keeper->resume_ns;
    else if (keeper->stopped_ns != 0)
        due_ns = keeper->stopped_ns + STOPPED_MAX_NS;
    return due_ns < keeper->segments_due_ns ? due_ns : keeper->segments_due_ns;
}

static void on_deadline(struct lkd_keeper *keeper, uint64_t now_ns)
{
    if (keeper->segments_due_ns <= now_ns) {
        look_at_segments(keeper);
        return;
    }
    if (keeper->pid == 0) {
        begin_worker(keeper);
        return;
    }
    lkd_log_line(LKD_LOG_WARNING, "the worker (pid %d) was stopped for %d s: it is killed",
                 keeper->pid, (int)(STOPPED_MAX_NS / LKI_NS_PER_S));
    keeper->stopped_ns = 0;
    (void)kill(keeper->pid, SIGKILL);
}

static void turn(struct lkd_keeper *keeper)
{
    struct pollfd fds[] = {{.fd = keeper->signal_fd, .events = POLLIN},
                           {.fd = keeper->requests[0], .events = POLLIN}};
    uint64_t due_ns = next_deadline(keeper);
    uint64_t now_ns = lki_clock_now_ns();
    if (due_ns <= now_ns) {
        on_deadline(keeper, now_ns);
        return;
    }
    uint64_t left_ns = due_ns - now_ns;
    const struct timespec left = {.tv_sec = (time_t)(left_ns / LKI_NS_PER_S),
                                  .tv_nsec = (long)(left_ns % LKI_NS_PER_S)};
    if (ppoll(fds, 2, due_ns == LKI_TIME_NEVER ? NULL : &left, NULL) <= 0)
        return;
    if (fds[1].revents != 0)
        on_request(keeper);
    if (fds[0].revents != 0)
        on_signals(keeper);
}

int lkd_keeper_run(const struct lkd_limits *limits, int ledger_fd, const int *kept,
                   size_t kept_count, const struct lkd_keeper_service *service)
{
    struct lkd_keeper keeper = {
        .service = service,
        .ledger_fd = ledger_fd,
        .signal_fd = -1,
        .requests = {-1, -1},
        .reopened = {-1, -1},
        .segments_due_ns = LKI_TIME_NEVER,
    };
    int r = keeper_init(&keeper, limits, kept, kept_count);
    if (r < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot keep a worker: %s", strerror(-r));
        close_service(&keeper);
        keeper_deinit(&keeper);
        return EX_OSERR;
    }
    begin_worker(&keeper);
    while (!keeper.done)
        turn(&keeper);
    close_service(&keeper);
    keeper_deinit(&keeper);
    return keeper.exit_code;
}
