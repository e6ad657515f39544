/* SPDX-License-Identifier: MIT */
#include "tracer.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.h"
#include "tests/support/watch.h"

#define BREAKPOINT UINT64_C(0xcc)
#define SYSCALL_OPCODE UINT64_C(0x050f)
#define IGNORED SIGALRM /* a watchdog would take the time of single steps for a hang */
#define DIED (-1)       /* no signal: another thread came to the breakpoint, and is not traced */
#define STUCK_NS (60 * LKI_NS_PER_S)
#define QUIET_NS (3 * LKI_NS_PER_MS) /* a step that takes so long is a sleep; looked at, then */
#define NAP_NS (LKI_NS_PER_MS / 5)   /* between two looks at what makes no event */

/* --- Words and registers of the tracee --- */

/* The request is no enum in other C libraries, and PTRACE_ calls of one kind return what they read. */
static long trace(int request, pid_t pid, uint64_t address, uint64_t data)
{
    errno = 0;
    return ptrace((enum __ptrace_request)request, pid, (void *)(uintptr_t)address,
                  (void *)(uintptr_t)data);
}

static void trace_must(int request, pid_t pid, uint64_t address, uint64_t data, const char *what)
{
    test_check(trace(request, pid, address, data) != -1 || errno == 0, "ptrace %s, pid %d", what,
               (int)pid);
}

static uint64_t peek(pid_t pid, uint64_t address)
{
    long word = trace(PTRACE_PEEKTEXT, pid, address, 0);
    test_check(errno == 0, "ptrace PEEKTEXT at %#llx", (unsigned long long)address);
    return (uint64_t)word;
}

static void poke(pid_t pid, uint64_t address, uint64_t word)
{
    trace_must(PTRACE_POKETEXT, pid, address, word, "POKETEXT");
}

#define REGISTER_OFFSET(name) offsetof(struct user_regs_struct, name)

static uint64_t read_register(pid_t pid, size_t offset)
{
    long value = trace(PTRACE_PEEKUSER, pid, offset, 0);
    test_check(errno == 0, "ptrace PEEKUSER");
    return (uint64_t)value;
}

static uint64_t read_pc(pid_t pid)
{
    return read_register(pid, REGISTER_OFFSET(rip));
}

static void write_pc(pid_t pid, uint64_t pc)
{
    trace_must(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rip), pc, "POKEUSER");
}

/* --- Stops --- */

static int last_status; /* of whoever was waited for, for a message */

/* The signal that it stopped by; 0: it ended, or is still running where WNOHANG was asked for. */
static int stop_signal(pid_t pid, int flags, bool *out_ended)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(pid, &status, flags | __WALL)) < 0 && errno == EINTR)
        continue;
    test_check(got >= 0, "waitpid %d", (int)pid);
    last_status = status;
    *out_ended = got == pid && !WIFSTOPPED(status);
    return got == pid && WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
}

static int await_signal(pid_t pid)
{
    bool ended;
    int signal = stop_signal(pid, 0, &ended);
    test_check(!ended, "the traced process %d ended by itself", (int)pid);
    return signal;
}

void tracer_begin_here(void)
{
    if (trace(PTRACE_TRACEME, 0, 0, 0) == -1)
        _exit(2);
    (void)raise(SIGSTOP);
}

void tracer_end_here(void)
{
    (void)raise(SIGSTOP);
}

void tracer_await_stop(pid_t pid)
{
    int signal = await_signal(pid);
    test_check(signal == SIGSTOP, "the child stopped by signal %d", signal);
}

bool tracer_is_allowed(void)
{
    pid_t pid = fork();
    test_check(pid >= 0, "fork");
    if (pid == 0) {
        tracer_begin_here();
        _exit(0);
    }
    bool ended;
    bool allowed = stop_signal(pid, 0, &ended) == SIGSTOP;
    if (ended)
        return false;
    tracer_kill(pid);
    return allowed;
}

void tracer_kill(pid_t pid)
{
    test_check(kill(pid, SIGKILL) == 0, "kill %d", (int)pid);
    for (bool ended = false; !ended;)
        (void)stop_signal(pid, 0, &ended); /* a stop that was under way may come first */
}

void tracer_seize(pid_t pid)
{
    bool ended;
    trace_must(PTRACE_SEIZE, pid, 0, 0, "SEIZE");
    trace_must(PTRACE_INTERRUPT, pid, 0, 0, "INTERRUPT");
    (void)stop_signal(pid, 0, &ended);
    test_check(!ended, "process %d ended when it was seized", (int)pid);
}

void tracer_continue(pid_t pid)
{
    trace_must(PTRACE_CONT, pid, 0, 0, "CONT");
}

void tracer_watch_children(pid_t pid)
{
    trace_must(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE, "SEIZE");
}

pid_t tracer_await_child(pid_t pid)
{
    unsigned long child = 0;
    bool ended;
    int signal;
    while ((signal = await_signal(pid)) != SIGTRAP)
        trace_must(PTRACE_CONT, pid, 0, (uint64_t)signal, "CONT");
    trace_must(PTRACE_GETEVENTMSG, pid, 0, (uint64_t)(uintptr_t)&child, "GETEVENTMSG");
    trace_must(PTRACE_DETACH, pid, 0, 0, "DETACH");
    (void)stop_signal((pid_t)child, 0, &ended);
    test_check(!ended, "the child %lu ended at once", child);
    /* It has inherited what was asked of its parent: to stop whenever it makes a thread, which would be
     * traced as well, and stand still. */
    trace_must(PTRACE_SETOPTIONS, (pid_t)child, 0, 0, "SETOPTIONS");
    return (pid_t)child;
}

/* --- Where code lies --- */

extern const char __executable_start, etext; /* by the linker */

struct path_range tracer_own_text(void)
{
    return (struct path_range){.begin = (uint64_t)(uintptr_t)&__executable_start,
                               .end = (uint64_t)(uintptr_t)&etext};
}

struct path_range tracer_text_of(pid_t pid)
{
    char path[64], line[1024], program[PATH_MAX];
    struct path_range range = {.begin = 0};
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    ssize_t bytes = readlink(path, program, sizeof(program) - 1);
    test_check(bytes > 0, "readlink %s", path);
    program[bytes] = '\0';
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    test_check(maps, "open %s", path);
    while (fgets(line, sizeof(line), maps)) {
        unsigned long long begin, end;
        char rights[8];
        if (sscanf(line, "%llx-%llx %7s", &begin, &end, rights) != 3 || rights[2] != 'x')
            continue;
        if (range.begin == 0 && strstr(line, program)) {
            range.begin = begin;
            range.end = end;
        } else if (strstr(line, "[vdso]")) {
            range.clock_begin = begin;
            range.clock_end = end;
        }
    }
    fclose(maps);
    test_check(range.begin != 0, "no code of %s in its maps", program);
    return range;
}

/* --- Recording --- */

/* How often each instruction came: open addressing, doubled when half full. */
struct turns {
    struct path_point *slots; /* pc 0: unused */
    size_t capacity;
    size_t used;
};

static struct path_point *slot_of(const struct turns *turns, uint64_t pc)
{
    size_t at = (size_t)(pc * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (turns->capacity - 1);
    while (turns->slots[at].pc != 0 && turns->slots[at].pc != pc)
        at = (at + 1) & (turns->capacity - 1);
    return &turns->slots[at];
}

static void turns_grow(struct turns *turns)
{
    struct turns bigger = {.capacity = turns->capacity ? turns->capacity * 2 : 1024,
                           .used = turns->used};
    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    test_check(bigger.slots, "calloc");
    for (size_t i = 0; i < turns->capacity; i++)
        if (turns->slots[i].pc != 0)
            *slot_of(&bigger, turns->slots[i].pc) = turns->slots[i];
    free(turns->slots);
    *turns = bigger;
}

static uint32_t next_turn(struct turns *turns, uint64_t pc)
{
    if (turns->used * 2 >= turns->capacity)
        turns_grow(turns);
    struct path_point *slot = slot_of(turns, pc);
    if (slot->pc == 0) {
        slot->pc = pc;
        turns->used++;
    }
    return ++slot->turn;
}

static void append(struct path *path, struct path_point point)
{
    if ((path->count & (path->count - 1)) == 0) {
        size_t capacity = path->count ? path->count * 2 : 1;
        path->points = realloc(path->points, capacity * sizeof(*path->points));
        test_check(path->points, "realloc");
    }
    path->points[path->count++] = point;
}

void path_deinit(struct path *path)
{
    free(path->points);
    *path = (struct path){.points = NULL};
}

struct recorder {
    pid_t pid;
    const struct path_range *range;
    struct path *path;
    struct turns turns;
    bool behind_call;
    uint64_t inside; /* the last instruction inside, if that was the last one; else 0 */
    bool in_clock;   /* the last instruction was one of the kernel's own functions */
};

static bool is_inside(const struct path_range *range, uint64_t pc)
{
    return pc >= range->begin && pc < range->end;
}

/* The tracee stands before the instruction at pc. */
static void note(struct recorder *recorder, uint64_t pc)
{
    const struct path_range *range = recorder->range;
    bool inside = is_inside(range, pc);
    bool behind = recorder->behind_call;
    recorder->behind_call = range->calls && (peek(recorder->pid, pc) & 0xffff) == SYSCALL_OPCODE;
    if (!inside && !behind && !recorder->behind_call)
        return;
    append(recorder->path, (struct path_point){.pc = pc,
                                               .turn = next_turn(&recorder->turns, pc),
                                               .syscall = behind || recorder->behind_call});
}

/* Whether anybody has just called one of the kernel's functions, which lie in the vDSO. Those that read the
 * clock begin again when it has moved on meanwhile, as it does every few milliseconds: whoever steps
 * through them too slowly never comes out. */
static bool enters_clock(struct recorder *recorder, uint64_t pc)
{
    const struct path_range *range = recorder->range;
    bool was_there = recorder->in_clock;
    recorder->in_clock = pc >= range->clock_begin && pc < range->clock_end;
    return recorder->in_clock && !was_there;
}

/* Where the code inside goes on, if it has just called something outside; else 0. Also where a caller of
 * the kernel's functions does. */
static uint64_t return_address(struct recorder *recorder, uint64_t pc)
{
    uint64_t caller = recorder->inside;
    recorder->inside = is_inside(recorder->range, pc) ? pc : 0;
    if (!recorder->range->over)
        return 0;
    if (enters_clock(recorder, pc))
        return peek(recorder->pid, read_register(recorder->pid, REGISTER_OFFSET(rsp)));
    if (caller == 0 || recorder->inside != 0)
        return 0;
    uint64_t opcode = peek(recorder->pid, caller) & 0xff;
    uint64_t stack = read_register(recorder->pid, REGISTER_OFFSET(rsp));
    if (opcode == 0xc3 || opcode == 0xc2)
        return 0; /* a return: what lies there is something else */
    uint64_t to = peek(recorder->pid, stack);
    /* The first call of a function goes to the linker, with two words more. */
    if (!is_inside(recorder->range, to) && opcode != 0xe8)
        to = peek(recorder->pid, stack + 16);
    return is_inside(recorder->range, to) ? to : 0;
}

/* One step, or what is called outside as one. Returns the address of a breakpoint to be taken back by
 * stepped(), or 0. */
static uint64_t step(struct recorder *recorder, uint64_t *out_original)
{
    uint64_t to = return_address(recorder, read_pc(recorder->pid));
    if (to == 0) {
        trace_must(PTRACE_SINGLESTEP, recorder->pid, 0, 0, "SINGLESTEP");
        return 0;
    }
    *out_original = peek(recorder->pid, to);
    poke(recorder->pid, to, (*out_original & ~UINT64_C(0xff)) | BREAKPOINT);
    trace_must(PTRACE_CONT, recorder->pid, 0, 0, "CONT");
    return to;
}

static void stepped(const struct recorder *recorder, uint64_t to, uint64_t original)
{
    if (to == 0)
        return;
    if (read_pc(recorder->pid) == to + 1)
        write_pc(recorder->pid, to);
    poke(recorder->pid, to, original);
}

void tracer_record(pid_t pid, const struct path_range *range, struct path *out_path)
{
    struct recorder recorder = {.pid = pid, .range = range, .path = out_path};
    for (;;) {
        uint64_t original = 0;
        note(&recorder, read_pc(pid));
        uint64_t to = step(&recorder, &original);
        int signal = await_signal(pid);
        stepped(&recorder, to, original);
        if (signal == SIGSTOP)
            break;
        test_check(signal == SIGTRAP, "signal %d on the path", signal);
        out_path->steps++;
    }
    free(recorder.turns.slots);
}

/* Whether the tracee, which may sleep for long, has stopped. False: not yet. */
static bool has_stopped(pid_t pid, int *out_signal)
{
    bool ended;
    *out_signal = stop_signal(pid, WNOHANG, &ended);
    test_check(!ended || (WIFSIGNALED(last_status) && WTERMSIG(last_status) == SIGTRAP),
               "the traced process %d ended by itself, with status %#x", (int)pid,
               (unsigned)last_status);
    if (ended)
        *out_signal = DIED;
    return *out_signal != 0;
}

/* Sleeps until a child stops or ends, or for so long. Whoever only yields instead is not asked again before
 * a busy process beside it has had its turn, some milliseconds with each step: a path of 15,000 took half
 * a minute. SIGCHLD has to be blocked: then one that came before is not lost. */
static void await_any(const sigset_t *child, uint64_t ns)
{
    const struct timespec time = {.tv_nsec = (long)ns};
    (void)sigtimedwait(child, NULL, &time);
}

/* Waits for a stop of a tracee that may sleep for long. False: it sleeps, and is_done(). */
static bool await_stop_unless(pid_t pid, tracer_done_fn is_done, void *user, int *out_signal)
{
    uint64_t began_ns = lki_clock_now_ns(), waited_ns = 0;
    bool stopped, quiet = false;
    sigset_t child, mask;
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    test_check(sigprocmask(SIG_BLOCK, &child, &mask) == 0, "sigprocmask");
    while (!(stopped = has_stopped(pid, out_signal)) && !quiet) {
        test_check(waited_ns < STUCK_NS, "process %d does nothing any more", (int)pid);
        await_any(&child, waited_ns < QUIET_NS ? QUIET_NS - waited_ns : NAP_NS);
        waited_ns = lki_clock_now_ns() - began_ns;
        /* Asleep for a while and nobody waits for anything from it: there is no event for that. */
        quiet = waited_ns >= QUIET_NS && test_process_state(pid) == 'S' && is_done(user);
    }
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    return stopped;
}

enum tracer_end tracer_record_until(pid_t pid, const struct path_range *range,
                                    tracer_done_fn is_done, void *user, struct path *out_path)
{
    /* Where it stands at first nobody has called. */
    struct recorder recorder = {.pid = pid, .range = range, .path = out_path, .in_clock = true};
    uint64_t to, original = 0;
    bool stopped = true;
    while (stopped && (range->steps_max == 0 || out_path->steps < range->steps_max)) {
        int signal;
        note(&recorder, read_pc(pid));
        if (range->nap_ns > 0)
            test_sleep_ns(range->nap_ns);
        to = step(&recorder, &original);
        stopped = await_stop_unless(pid, is_done, user, &signal);
        if (!stopped) {
            bool ended;
            trace_must(PTRACE_INTERRUPT, pid, 0, 0, "INTERRUPT");
            (void)stop_signal(pid, 0, &ended);
        }
        if (stopped && signal == DIED) {
            free(recorder.turns.slots);
            return TRACER_DIED;
        }
        test_check(!stopped || signal == SIGTRAP || signal == IGNORED, "signal %d on the path",
                   signal);
        stepped(&recorder, to, original);
        out_path->steps++;
    }
    free(recorder.turns.slots);
    return TRACER_REACHED;
}

/* --- Running to a point --- */

/* Goes past the breakpoint on which it stands, which stays. */
static void step_over(pid_t pid, uint64_t pc, uint64_t original)
{
    write_pc(pid, pc);
    poke(pid, pc, original);
    trace_must(PTRACE_SINGLESTEP, pid, 0, 0, "SINGLESTEP");
    int signal = await_signal(pid);
    test_check(signal == SIGTRAP, "signal %d in a single step", signal);
    poke(pid, pc, (original & ~UINT64_C(0xff)) | BREAKPOINT);
}

static enum tracer_end run_to(pid_t pid, const struct path_point *point, tracer_done_fn is_done,
                              void *user)
{
    uint64_t original = peek(pid, point->pc);
    uint32_t turn = 0;
    /* It may stand there already: then this is its first turn. */
    if (read_pc(pid) == point->pc && ++turn == point->turn)
        return TRACER_REACHED;
    if (turn > 0)
        step_over(pid, point->pc, original);
    else
        poke(pid, point->pc, (original & ~UINT64_C(0xff)) | BREAKPOINT);
    for (;;) {
        int signal;
        trace_must(PTRACE_CONT, pid, 0, 0, "CONT");
        if (is_done && !await_stop_unless(pid, is_done, user, &signal)) {
            bool ended;
            trace_must(PTRACE_INTERRUPT, pid, 0, 0, "INTERRUPT");
            signal = stop_signal(pid, 0, &ended);
            if (signal == SIGTRAP && read_pc(pid) == point->pc + 1)
                write_pc(pid, point->pc); /* it came there in this very moment */
            poke(pid, point->pc, original);
            trace_must(PTRACE_DETACH, pid, 0, 0, "DETACH");
            return TRACER_FINISHED;
        }
        if (!is_done)
            signal = await_signal(pid);
        if (signal == SIGSTOP)
            return TRACER_FINISHED;
        if (signal == IGNORED)
            continue;
        if (signal == DIED)
            return TRACER_DIED;
        /* Of an INTERRUPT for which it had stopped already: it stops again, at its next system call. */
        if (last_status >> 16 == PTRACE_EVENT_STOP)
            continue;
        test_check(signal == SIGTRAP && read_pc(pid) == point->pc + 1, "signal %d at %#llx", signal,
                   (unsigned long long)read_pc(pid));
        if (++turn == point->turn) {
            write_pc(pid, point->pc);
            poke(pid, point->pc, original);
            return TRACER_REACHED;
        }
        step_over(pid, point->pc, original);
    }
}

enum tracer_end tracer_run_to(pid_t pid, const struct path_point *point)
{
    return run_to(pid, point, NULL, NULL);
}

enum tracer_end tracer_run_to_unless(pid_t pid, const struct path_point *point,
                                     tracer_done_fn is_done, void *user)
{
    return run_to(pid, point, is_done, user);
}

enum tracer_end tracer_step_to(pid_t pid, const struct path_point *point)
{
    for (uint32_t turn = 0;;) {
        if (read_pc(pid) == point->pc && ++turn == point->turn)
            return TRACER_REACHED;
        trace_must(PTRACE_SINGLESTEP, pid, 0, 0, "SINGLESTEP");
        int signal = await_signal(pid);
        if (signal == SIGSTOP)
            return TRACER_FINISHED;
        test_check(signal == SIGTRAP, "signal %d in a single step", signal);
    }
}

bool tracer_finish(pid_t pid)
{
    tracer_continue(pid);
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    while (lki_clock_now_ns() < deadline_ns) {
        bool ended;
        int signal = stop_signal(pid, WNOHANG, &ended);
        test_check((signal == 0 || signal == SIGSTOP) && !ended, "signal %d", signal);
        if (signal == SIGSTOP)
            return true;
        sched_yield();
    }
    return false;
}

enum tracer_end tracer_run_to_sleep(pid_t pid)
{
    tracer_continue(pid);
    uint64_t deadline_ns = lki_clock_now_ns() + STUCK_NS;
    while (test_process_state(pid) != 'S') {
        bool ended;
        int signal = stop_signal(pid, WNOHANG, &ended);
        if (signal == SIGSTOP)
            return TRACER_FINISHED;
        test_check(signal == 0 && !ended, "signal %d", signal);
        test_check(lki_clock_now_ns() < deadline_ns, "process %d neither sleeps nor ends",
                   (int)pid);
        sched_yield();
    }
    return TRACER_REACHED;
}
