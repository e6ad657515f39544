/* SPDX-License-Identifier: MIT */
/* The parts of lockkeeper-bench: the stage on which cases run, and the cases. Each measures one or
 * more groups of figures into the report, series by series in turn (A B A B), so that whatever the
 * machine does meanwhile does it to all of them. Failures that are no figures end the program with a
 * message. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <lockkeeper/lockkeeper.h>

#include "bench/figure.h"
#include "bench/peers/peer.h"

#define BENCH_PEERS_MAX 20
#define BENCH_ARENA_BYTES 4096u

/* What outlives whoever made it, and the sweeper has to know. In shared memory. */
struct bench_leavings {
    int sysv_id; /* meant if ... */
    int sysv_made;
    char shm_name[32];  /* empty: none */
    char directory[32]; /* another one than the bench's; empty: none */
};

struct bench {
    unsigned rounds;  /* 0: as many as each case finds good */
    uint64_t cell_ns; /* how long one measurement that is bound by time takes */
    bool quick;       /* small sizes and few rounds: does it run at all? */
    bool progress;    /* a bar on stderr */

    /* Those that were chosen and are here, lockkeeper's own among them. */
    const struct bench_peer *peers[BENCH_PEERS_MAX];
    size_t peer_count;

    char directory[32];
    char socket_path[48];
    pid_t daemon;
    bool (*before_exec)(
        void); /* in each process that becomes a program, if not NULL; false: it ends */
    pid_t sweeper;
    int sweeper_fd;
    unsigned makes; /* how many peers were made: tells names apart */
    void *arena;    /* inherited by all processes, zeroed before a peer is made */
    struct bench_leavings *leavings;

    const char *case_name; /* for the bar */
    unsigned weight_done, weight_here, weight_total;
};

struct bench_case {
    const char *name;
    const char *what;
    void (*run)(struct bench *bench, struct bench_report *report);
    unsigned weight; /* about how many seconds it takes with all peers */
    bool checked;    /* has limits: --check runs these */
};

/* All of them, the last without a name. */
extern const struct bench_case bench_cases[];

/* --- The stage: stage.c --- */

/* Ends with a message. */
void bench_fail(const char *format, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

/* A directory, which goes when this process ends, whatever way; and a broker in it. */
void bench_stage_open(struct bench *bench);
void bench_stage_close(struct bench *bench);
void bench_daemon_start(struct bench *bench);
void bench_daemon_stop(struct bench *bench);

/* What everybody opens: session, segment of one page, lock 0. */
struct lk_session *bench_connect(const struct bench *bench);
struct lk_segment *bench_segment(struct lk_session *session, const char *name,
                                 uint32_t attachments);
struct lk_lock *bench_lock(struct lk_segment *segment);

/* Whether it is among those that were chosen. */
bool bench_takes_part(const struct bench *bench, const struct bench_peer *peer);

/* Makes a peer in a zeroed arena, and ends it. */
void bench_peer_make(struct bench *bench, const struct bench_peer *peer);
void bench_peer_unmake(struct bench *bench, const struct bench_peer *peer);

/* Finds what it may use of a server's programs: on PATH. False: it is not there. */
bool bench_find_program(const char *name, char *out_path, size_t capacity);

/* Connects to a path, waiting until somebody listens there: a server that has just been started.
 * Fails after 20 s, or when that process has ended. */
int bench_connect_stream(const char *socket_path, pid_t server);

/* How many rounds: what the user said, else this, or few. */
unsigned bench_rounds(const struct bench *bench, unsigned usual);

/* The bar: this part of the case is done. Nothing without a terminal. */
void bench_progress(const struct bench *bench, unsigned done, unsigned total, const char *what);
void bench_progress_end(const struct bench *bench);

/* --- Processes and time: process.c --- */

/* A child that dies with this process. Its result is the exit code. */
pid_t bench_spawn(int (*body)(void *arg), void *arg);

/* A child that becomes a program, which dies with this process by this signal; its output goes to a
 * file of the directory. As this user if this is root and uid is not 0. */
pid_t bench_exec(const struct bench *bench, char *const *arguments, const char *log, int signal,
                 uid_t uid, gid_t gid);

/* The end of such a file, for a message. Static. */
const char *bench_last_line(const struct bench *bench, const char *log);

/* Waits for its end, and fails unless it ended with 0. */
void bench_reap(pid_t pid);
void bench_kill(pid_t pid);

/* Sleeps until somebody kills this process. */
int bench_stay(void) __attribute__((noreturn));

/* Pins the calling process to one of the processors that it may use, modulo their number. */
void bench_pin(unsigned processor);
void bench_unpin(void);
unsigned bench_processors(void);
void bench_sleep(uint64_t ns);

/* Memory that children share with this process, zeroed. */
void *bench_share(size_t bytes);
void bench_unshare(void *memory, size_t bytes);

/* Futex words in it. wait returns when the word is not `value` any more; false: not within 30 s. */
bool bench_wait_while(_Atomic uint32_t *word, uint32_t value);
void bench_set(_Atomic uint32_t *word, uint32_t value);
void bench_count(_Atomic uint32_t *word); /* one more */

/* Where processes meet: each says that it is ready, and waits until all may go. */
struct bench_gate {
    _Atomic uint32_t ready, go, stop;
};
void bench_gate_enter(struct bench_gate *gate);
void bench_gate_await(struct bench_gate *gate, uint32_t processes);

/* The cheapest clock there is, and how long a difference of it is. */
static inline uint64_t bench_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    uint64_t bench_clock(void);
    return bench_clock();
#endif
}
extern double bench_ns_per_tick;
void bench_calibrate(void);
static inline uint64_t bench_ticks_ns(uint64_t from, uint64_t to)
{
    return to > from ? (uint64_t)((double)(to - from) * bench_ns_per_tick) : 0;
}

/* --- The bare server of descriptors, and its client: cases/bare.c --- */

pid_t bench_bare_start(const char *socket_path);
int bench_bare_connect(const char *socket_path);
/* Asks, maps both, reads a byte of each, unmaps. */
int bench_bare_ask(int connection, unsigned char *out_first_byte);

/* The new process of the case `open`: `lockkeeper-bench --child KIND SOCKET`. Returns the exit code. */
int bench_open_child(const char *kind, const char *socket_path);

/* A partner that answers each record over a pair of sockets with one of its own: cases/floors.c. */
struct bench_pong {
    pid_t pid;
    int socket;
};
struct bench_pong bench_pong_start(void);
void bench_pong_stop(struct bench_pong *pong);
int bench_ping(int socket); /* 0, or -1 */

/* --- Reports --- */

void bench_print_table(FILE *out, const struct bench_report *report);
/* The machine as it was before the measurements. */
struct bench_machine {
    char processor[96];
    char release[64];
    unsigned processors;
    double load;
};
void bench_machine_look(struct bench_machine *machine);
/* Returns 0, or -1 when it cannot be written. */
int bench_print_json(FILE *out, const struct bench *bench, const struct bench_machine *machine,
                     const struct bench_report *report);
/* Makes the directory, if it is not there, and looks whether files can be written there. 0, or -errno. */
int bench_plot_into(const char *directory);
/* Percentile curves, and one plot per family, as files in such a directory. 0, or -errno. */
int bench_plot(const char *directory, const struct bench_report *report);

/* --- Cases --- */

void bench_floors(struct bench *bench, struct bench_report *report);
void bench_pairs(struct bench *bench, struct bench_report *report);
void bench_crowd(struct bench *bench, struct bench_report *report);
void bench_waiters(struct bench *bench, struct bench_report *report);
void bench_contended(struct bench *bench, struct bench_report *report);
void bench_readers(struct bench *bench, struct bench_report *report);
void bench_mixed(struct bench *bench, struct bench_report *report);
void bench_bias(struct bench *bench, struct bench_report *report);
void bench_optimistic(struct bench *bench, struct bench_report *report);
void bench_brokered(struct bench *bench, struct bench_report *report);
void bench_async(struct bench *bench, struct bench_report *report);
void bench_throughput(struct bench *bench, struct bench_report *report);
void bench_open(struct bench *bench, struct bench_report *report);
void bench_recovery(struct bench *bench, struct bench_report *report);
void bench_idle(struct bench *bench, struct bench_report *report);
void bench_repair(struct bench *bench, struct bench_report *report);
