/* SPDX-License-Identifier: MIT */
#include "tests/faults/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/faults/requester.h"
#include "tests/faults/sites.h"
#include "tests/faults/story.h"
#include "tests/support/process.h"
#include "tests/support/watch.h"

#define LASTING_NS (300 * LKI_NS_PER_MS) /* a shortage ends when the story stands still */
#define HANG_NS (12 * LKI_NS_PER_S)      /* longer than anything that the library waits for */
#define REST_NS (5 * LKI_NS_PER_S)       /* for helpers and close callbacks */
#define STUCK_NS (60 * LKI_NS_PER_S)     /* nothing takes as long, however busy the machine */
#define REPEATS 3                        /* a leak is what grows each time */

/* --- Blocks and environments --- */

struct faults_control *stage_map_control(int fd)
{
    struct faults_control *control =
        mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    test_check(control != MAP_FAILED, "mmap");
    return control;
}

struct faults_control *stage_new_control(char *out_path, size_t bytes)
{
    int fd = memfd_create("lk-faults", MFD_CLOEXEC);
    test_check(fd >= 0 && ftruncate(fd, sizeof(struct faults_control)) == 0, "memfd");
    struct faults_control *control = stage_map_control(fd);
    control->magic = FAULTS_MAGIC;
    control->plan.call = FAULTS_CALLS;
    (void)snprintf(out_path, bytes, "/proc/%d/fd/%d", (int)getpid(), fd);
    return control;
}

void stage_set_environment(const char *control_path)
{
    if (control_path == NULL) {
        (void)unsetenv("LD_PRELOAD");
        (void)unsetenv(FAULTS_VARIABLE);
        return;
    }
    (void)setenv("LD_PRELOAD", LK_FAULTS_SHIM, 1);
    (void)setenv(FAULTS_VARIABLE, control_path, 1);
}

/* --- Words --- */

static const char *role_name(const struct stage_fault *fault)
{
    if (fault->side == STAGE_CLIENT)
        return "client";
    if (fault->role == FAULTS_MAIN)
        return "keeper";
    return fault->takeover ? "successor" : "worker";
}

void stage_describe(const struct stage *stage, const struct stage_fault *fault, char *out,
                    size_t bytes)
{
    char place[256] = "anywhere";
    const struct faults_control *control = stage->control[fault->side];
    uint32_t site = fault->site;
    if (site == FAULTS_ANY_SITE && atomic_load(&control->plan.fired) > 0)
        site = atomic_load(&control->plan.fired_site);
    if (fault->call == FAULTS_CALLS) {
        (void)snprintf(out, bytes, "nothing fails");
        return;
    }
    if (site != FAULTS_ANY_SITE)
        sites_name(&control->sites[site], place, sizeof(place));
    (void)snprintf(out, bytes, "%s: %s at %s, call %llu%s: %s", role_name(fault),
                   faults_calls[fault->call].name, place, (unsigned long long)fault->nth,
                   fault->times > 1 ? " and on" : "", strerrorname_np(fault->error));
}

static __attribute__((format(printf, 3, 4))) void
violate(struct stage *stage, const struct stage_fault *fault, const char *format, ...)
{
    char what[600];
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    stage_describe(stage, fault, what, sizeof(what));
    printf("VIOLATION %s: %s\n", what, text);
    (void)fflush(stdout);
    stage->totals.violations++;
}

/* --- Opening --- */

static pid_t worker_of(const struct stage *stage)
{
    return test_broker_worker(&stage->broker);
}

/* Counts the daemon's descriptors and names them in one line, for who has to find the one that is too
 * much. */
static unsigned list_descriptors(pid_t pid, char *out, size_t bytes)
{
    char path[64];
    size_t used = 0;
    unsigned count = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *table = opendir(path);
    test_check(table != NULL, "opendir %s", path);
    out[0] = '\0';
    for (struct dirent *entry; (entry = readdir(table)) != NULL;) {
        char target[96] = "";
        if (entry->d_name[0] == '.')
            continue;
        (void)!readlinkat(dirfd(table), entry->d_name, target, sizeof(target) - 1);
        int length = snprintf(out + used, bytes - used, "%s=%s ", entry->d_name, target);
        used += (size_t)length < bytes - used ? (size_t)length : bytes - used - 1;
        count++;
    }
    (void)closedir(table);
    return count;
}

/* Counts while the worker waits for events, and nothing is left to do for it or for its helpers. It
 * has descriptors and memory for a moment even when nobody asks for anything: the innocent client's
 * waiter has it look at a process in /proc, four times a second. */
static struct stage_rest look(const struct stage *stage)
{
    const struct faults_control *control = stage->control[STAGE_BROKER];
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    struct stage_rest rest;
    for (;;) {
        uint32_t rests = atomic_load(&control->rests);
        bool idle = atomic_load(&control->idle);
        rest.descriptors = list_descriptors(stage->broker.pid, rest.listed, sizeof(rest.listed));
        rest.blocks = atomic_load(&control->heap[FAULTS_CHILD].blocks);
        if (idle && atomic_load(&control->idle) && atomic_load(&control->rests) == rests)
            return rest;
        test_check(lki_clock_now_ns() < deadline_ns, "the worker never has nothing to do");
        test_sleep_ns(LKI_NS_PER_MS / 20);
    }
}

/* The same when the worker has heard of everything that was closed before: it answers the innocent
 * client behind that. Only what a timer has to do may still be missing, after a fault. */
static struct stage_rest settle(const struct stage *stage)
{
    innocent_take_turn(&stage->innocent);
    return look(stage);
}

static bool is_same(const struct stage_rest *rest, const struct stage_rest *other)
{
    return rest->descriptors == other->descriptors && rest->blocks == other->blocks;
}

/* What is there now is what there has to be after each story. */
static void note_rest(struct stage *stage)
{
    stage->rest = settle(stage);
    stage->worker = worker_of(stage);
}

void stage_open(struct stage *stage, struct faults_control *client)
{
    char path[64];
    stage->control[STAGE_CLIENT] = client;
    stage->control[STAGE_BROKER] = stage_new_control(path, sizeof(path));
    atomic_store(&stage->control[STAGE_BROKER]->children, 1);
    stage->outcome = test_shared(sizeof(*stage->outcome));
    stage_set_environment(path);
    test_broker_start(&stage->broker);
    stage_set_environment(NULL);
    stage->broker.restarts = true;
    (void)snprintf(stage->socket_path, sizeof(stage->socket_path), "%s", stage->broker.socket_path);
    char file[80];
    (void)snprintf(file, sizeof(file), "%s/file", stage->broker.directory);
    stage->file_fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    test_check(stage->file_fd >= 0 && ftruncate(stage->file_fd, 4096) == 0, "a file");
    innocent_start(&stage->innocent, stage->socket_path);
    for (int i = 0; i < 3; i++)
        (void)stage_try(stage, &(struct stage_fault){.call = FAULTS_CALLS});
    note_rest(stage);
    stage->totals = (struct stage_totals){.violations = stage->totals.violations};
}

void stage_close(struct stage *stage)
{
    innocent_stop(&stage->innocent);
    (void)close(stage->file_fd);
    test_broker_stop(&stage->broker);
}

/* --- One story --- */

static void arm(struct stage *stage, const struct stage_fault *fault)
{
    struct faults_control *control = stage->control[fault->side];
    struct faults_plan *plan = &control->plan;
    for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++)
        for (int side = 0; side < STAGE_SIDES; side++)
            atomic_store(&stage->control[side]->sites[i].count, 0);
    atomic_store(&plan->role, fault->role);
    atomic_store(&plan->site, fault->site);
    atomic_store(&plan->error, fault->error);
    atomic_store(&plan->nth, fault->nth);
    atomic_store(&plan->times, fault->times);
    atomic_store(&plan->matched, 0);
    atomic_store(&plan->fired, 0);
    atomic_store(&plan->call, fault->call);
    memset(stage->outcome, 0, sizeof(*stage->outcome));
}

static void disarm(struct stage *stage)
{
    for (int side = 0; side < STAGE_SIDES; side++)
        atomic_store(&stage->control[side]->plan.call, FAULTS_CALLS);
}

/* Returns the status of the child, or -1 when it hangs. */
static int watch(struct stage *stage, pid_t child)
{
    struct stage_outcome *outcome = stage->outcome;
    uint32_t progress = 0;
    uint64_t since_ns = lki_clock_now_ns();
    for (;;) {
        int status;
        uint64_t now_ns = lki_clock_now_ns();
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        if (atomic_load(&outcome->kill) != 0) {
            (void)kill(worker_of(stage), SIGKILL);
            atomic_store(&outcome->kill, 0);
        }
        if (atomic_load(&outcome->progress) != progress) {
            progress = atomic_load(&outcome->progress);
            since_ns = now_ns;
        }
        if (now_ns - since_ns > LASTING_NS)
            disarm(stage);
        if (now_ns - since_ns > HANG_NS)
            return -1;
        test_sleep_ns(LKI_NS_PER_MS / 5);
    }
}

static void end_hanging(struct stage *stage, const struct stage_fault *fault, pid_t child)
{
    char where[256];
    unsigned step = atomic_load(&stage->outcome->step);
    test_process_describe(child, where, sizeof(where));
    test_broker_show_log(&stage->broker);
    violate(stage, fault, "the requester hangs in '%s': %s", story_steps[step].name, where);
    test_kill(child);
}

/* What the requester's process said, and how it ended. */
static void judge_requester(struct stage *stage, const struct stage_fault *fault, int status)
{
    const struct stage_outcome *outcome = stage->outcome;
    if (WIFSIGNALED(status))
        violate(stage, fault, "the requester dies by signal %d (%s) in '%s'", WTERMSIG(status),
                strsignal(WTERMSIG(status)), story_steps[outcome->step].name);
    else if (outcome->violation[0] != '\0')
        violate(stage, fault, "%s", outcome->violation);
    else if (!outcome->done)
        violate(stage, fault, "the requester exits with %#x in '%s'", (unsigned)status,
                story_steps[outcome->step].name);
}

static void judge_innocent(struct stage *stage, const struct stage_fault *fault)
{
    struct innocent_words *words = stage->innocent.words;
    while (atomic_load(&words->asked) != atomic_load(&words->answered)) /* its asker was killed */
        test_sleep_ns(LKI_NS_PER_MS);
    if (waitpid(stage->innocent.pid, NULL, WNOHANG) != 0)
        test_check(false, "the innocent client ended");
    if (!atomic_load(&words->failed))
        return;
    violate(stage, fault, "the innocent client: %s", words->what);
    if (stage->verbose)
        test_broker_show_log(&stage->broker);
    /* Another one, that has lost nothing. */
    innocent_stop(&stage->innocent);
    innocent_start(&stage->innocent, stage->socket_path);
}

/* Whether the daemon lets go of everything of the story. */
static bool comes_to_rest(const struct stage *stage)
{
    uint64_t deadline_ns = lki_clock_now_ns() + REST_NS;
    struct stage_rest rest = settle(stage);
    while (!is_same(&rest, &stage->rest)) { /* a timer may have to come */
        if (lki_clock_now_ns() > deadline_ns)
            return false;
        test_sleep_ns(LKI_NS_PER_MS / 5);
        rest = look(stage);
    }
    return true;
}

/* Libraries that end their process when they find no memory, and what of them is called when. */
static bool may_end_worker(const struct stage *stage, const struct stage_fault *fault)
{
    if (fault->side != STAGE_BROKER || fault->takeover)
        return fault->takeover;
    const struct faults_control *control = stage->control[STAGE_BROKER];
    uint32_t site = atomic_load(&control->plan.fired_site);
    bool libuv = strncmp(control->sites[site].module, "libuv", 5) == 0;
    return libuv && (fault->call == FAULTS_ALLOC || fault->call == FAULTS_EPOLL_ADD ||
                     fault->call == FAULTS_EPOLL_MOD || fault->call == FAULTS_THREAD);
}

static bool tell(struct stage *stage, const struct stage_fault *fault)
{
    stage->serial++;
    arm(stage, fault);
    (void)fflush(stdout);
    pid_t child = fork();
    test_check(child >= 0, "fork");
    if (child == 0)
        _exit(requester_live(stage, fault));
    int status = watch(stage, child);
    disarm(stage);
    bool fired = atomic_load(&stage->control[fault->side]->plan.fired) > 0;
    if (status == -1)
        end_hanging(stage, fault, child);
    else
        judge_requester(stage, fault, status);
    judge_innocent(stage, fault);
    return fired;
}

/* Lets a new worker run in, by a story without a fault: it makes what a worker makes once and keeps.
 * Then it has as many descriptors as the one before. */
static void accept_worker(struct stage *stage, const struct stage_fault *fault)
{
    if (!fault->takeover) {
        stage->totals.replaced++;
        if (!may_end_worker(stage, fault))
            violate(stage, fault, "a worker ended of it");
    }
    innocent_take_turn(&stage->innocent);
    judge_innocent(stage, fault); /* of this fault, not of none */
    (void)tell(stage, &(struct stage_fault){.call = FAULTS_CALLS});
    uint64_t deadline_ns = lki_clock_now_ns() + REST_NS;
    struct stage_rest rest = settle(stage);
    while (rest.descriptors != stage->rest.descriptors && lki_clock_now_ns() < deadline_ns) {
        test_sleep_ns(LKI_NS_PER_MS);
        rest = look(stage);
    }
    if (rest.descriptors != stage->rest.descriptors) {
        violate(stage, fault, "the daemon has %u descriptors, and had %u before its worker ended",
                rest.descriptors, stage->rest.descriptors);
        printf("before: %s\nnow:    %s\n", stage->rest.listed, rest.listed);
    }
    stage->rest = rest;
    stage->worker = worker_of(stage);
}

/* Whether the same fault, again and again, leaves more each time. */
static void judge_leak(struct stage *stage, const struct stage_fault *fault)
{
    struct stage_rest first = settle(stage);
    for (int i = 0; i < REPEATS; i++) {
        (void)tell(stage, fault);
        (void)comes_to_rest(stage);
    }
    struct stage_rest last = settle(stage);
    bool same_worker = worker_of(stage) == stage->worker;
    if (last.descriptors >= first.descriptors + REPEATS)
        violate(stage, fault, "the daemon keeps descriptors: %u, and %u after %d times more",
                first.descriptors, last.descriptors, REPEATS);
    else if (same_worker && last.blocks >= first.blocks + REPEATS)
        violate(stage, fault, "the worker keeps memory: %lld blocks, and %lld after %d times more",
                (long long)first.blocks, (long long)last.blocks, REPEATS);
    note_rest(stage);
}

static void count(struct stage *stage, bool fired)
{
    for (int side = 0; side < STAGE_SIDES; side++)
        for (uint32_t i = 0; i < FAULTS_SITES_MAX; i++)
            stage->calls[side][i] = atomic_load(&stage->control[side]->sites[i].count);
    const struct stage_outcome *outcome = stage->outcome;
    struct stage_totals *totals = &stage->totals;
    totals->faults += fired;
    totals->missed += !fired;
    totals->invisible += fired && outcome->result == 0;
    totals->refused += fired && outcome->result < 0 && !outcome->restarted;
    totals->lost += fired && outcome->restarted;
}

bool stage_try(struct stage *stage, const struct stage_fault *fault)
{
    bool fired = tell(stage, fault);
    count(stage, fired);
    if (stage->verbose && fired) {
        char what[600];
        stage_describe(stage, fault, what, sizeof(what));
        printf("%s -> %s %d%s\n", what,
               stage->outcome->result < 0 ? story_steps[stage->outcome->failed_step].name : "done",
               stage->outcome->result, stage->outcome->restarted ? ", new sessions" : "");
    }
    if (stage->worker == 0) /* still opening */
        return fired;
    if (worker_of(stage) != stage->worker)
        accept_worker(stage, fault);
    else if (!comes_to_rest(stage))
        judge_leak(stage, fault);
    return fired;
}
