/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

void bench_fail(const char *format, ...)
{
    va_list arguments;
    fputs("lockkeeper-bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    /* What is left, the kernel and the sweeper take away. Not the buffers of a parent. */
    fflush(stderr);
    _exit(EX_OSERR);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    remove(path);
    return 0;
}

/* Servers that are ending meanwhile may still write. */
static void remove_all(const char *directory)
{
    for (unsigned tries = 0; tries < 200 && access(directory, F_OK) == 0; tries++) {
        nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        if (access(directory, F_OK) == 0)
            bench_sleep(20 * LKI_NS_PER_MS);
    }
}

/* Waits for the end of the bench, however it comes, and removes what it left. In a session of its
 * own, so that the terminal's signals do not reach it. */
static void sweep(struct bench *bench, int alive)
{
    char byte;
    setsid();
    signal(SIGTERM, SIG_IGN);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd <= 2; fd++) /* whoever reads our output need not wait for this one */
        dup2(null, fd);
    while (read(alive, &byte, 1) < 0 && errno == EINTR)
        ;
    bench_sysv_sweep(bench);
    if (*bench->leavings->shm_name)
        shm_unlink(bench->leavings->shm_name);
    if (*bench->leavings->directory)
        remove_all(bench->leavings->directory);
    remove_all(bench->directory);
    _exit(0);
}

static void start_sweeper(struct bench *bench)
{
    int alive[2];
    if (pipe2(alive, O_CLOEXEC) < 0)
        bench_fail("cannot make a pipe: %s", strerror(errno));
    bench->sweeper = fork();
    if (bench->sweeper < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (bench->sweeper == 0) {
        close(alive[1]);
        sweep(bench, alive[0]);
    }
    close(alive[0]);
    bench->sweeper_fd = alive[1]; /* children have it too: they end with this process */
}

void bench_stage_open(struct bench *bench)
{
    snprintf(bench->directory, sizeof(bench->directory), "/tmp/lk-bench-XXXXXX");
    if (!mkdtemp(bench->directory))
        bench_fail("cannot make a directory in /tmp: %s", strerror(errno));
    snprintf(bench->socket_path, sizeof(bench->socket_path), "%s/broker.sock", bench->directory);
    bench->arena = bench_share(BENCH_ARENA_BYTES);
    bench->leavings = bench_share(sizeof(*bench->leavings));
    start_sweeper(bench);
    for (size_t i = 0; i < bench->peer_count; i++)
        if (bench->peers[i]->start)
            bench->peers[i]->start(bench);
}

void bench_stage_close(struct bench *bench)
{
    for (size_t i = 0; i < bench->peer_count; i++)
        if (bench->peers[i]->stop)
            bench->peers[i]->stop(bench);
    close(bench->sweeper_fd);
    waitpid(bench->sweeper, NULL, 0);
    bench_unshare(bench->arena, BENCH_ARENA_BYTES);
    bench_unshare(bench->leavings, sizeof(*bench->leavings));
}

/* The daemon of this build or installation: $LOCKKEEPERD, or beside this program, or where the
 * installation has it. */
static void find_daemon(char *out_path, size_t capacity)
{
    char self[PATH_MAX];
    const char *chosen = getenv("LOCKKEEPERD");
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (chosen && *chosen) {
        snprintf(out_path, capacity, "%s", chosen);
        return;
    }
    if (length < 0)
        bench_fail("cannot read /proc/self/exe: %s", strerror(errno));
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    int needed = snprintf(out_path, capacity, "%s/lockkeeperd", self);
    if (needed > 0 && (size_t)needed < capacity && access(out_path, X_OK) == 0)
        return;
    needed = snprintf(out_path, capacity, "%s/" BENCH_BIN_FROM_LIBEXEC "/lockkeeperd", self);
    if (needed < 0 || (size_t)needed >= capacity || access(out_path, X_OK) < 0)
        bench_fail("cannot find lockkeeperd beside %s; set LOCKKEEPERD to its path", self);
}

void bench_daemon_start(struct bench *bench)
{
    char program[PATH_MAX];
    find_daemon(program, sizeof(program));
    char *arguments[] = {program, (char *)"--socket", bench->socket_path, NULL};
    bench->daemon = bench_exec(bench, arguments, "broker.log", SIGKILL, 0, 0);

    uint64_t deadline_ns = lki_clock_now_ns() + 10 * LKI_NS_PER_S;
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session;
    while (lk_session_open(bench->socket_path, &options, &session) < 0) {
        if (waitpid(bench->daemon, NULL, WNOHANG) != 0 || lki_clock_now_ns() > deadline_ns)
            bench_fail("%s does not answer: %s", program, lk_last_error());
        bench_sleep(LKI_NS_PER_MS);
    }
    lk_session_close(session);
}

void bench_daemon_stop(struct bench *bench)
{
    kill(bench->daemon, SIGTERM);
    waitpid(bench->daemon, NULL, 0);
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

bool bench_takes_part(const struct bench *bench, const struct bench_peer *peer)
{
    for (size_t i = 0; i < bench->peer_count; i++)
        if (bench->peers[i] == peer)
            return true;
    return false;
}

void bench_peer_make(struct bench *bench, const struct bench_peer *peer)
{
    memset(bench->arena, 0, BENCH_ARENA_BYTES);
    bench->makes++;
    if (peer->make)
        peer->make(bench);
}

void bench_peer_unmake(struct bench *bench, const struct bench_peer *peer)
{
    if (peer->unmake)
        peer->unmake(bench);
}

bool bench_find_program(const char *name, char *out_path, size_t capacity)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t length = strcspn(path, ":");
        int needed = snprintf(out_path, capacity, "%.*s/%s", (int)length, path, name);
        if (needed > 0 && (size_t)needed < capacity && access(out_path, X_OK) == 0)
            return true;
        path += length + (path[length] == ':');
    }
    return false;
}

int bench_connect_stream(const char *socket_path, pid_t server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t deadline_ns = lki_clock_now_ns() + 20 * LKI_NS_PER_S;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            bench_fail("cannot make a socket: %s", strerror(errno));
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        close(fd);
        if (server == 0 || waitpid(server, NULL, WNOHANG) != 0 || lki_clock_now_ns() > deadline_ns)
            bench_fail("nobody answers at %s", socket_path);
        bench_sleep(5 * LKI_NS_PER_MS);
    }
}

unsigned bench_rounds(const struct bench *bench, unsigned usual)
{
    if (bench->rounds > 0)
        return bench->rounds;
    return bench->quick ? (usual + 2) / 3 : usual;
}

void bench_progress(const struct bench *bench, unsigned done, unsigned total, const char *what)
{
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    if (!bench->progress || total == 0)
        return;
    double part =
        (bench->weight_done + (double)bench->weight_here * done / total) / bench->weight_total;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < part * WIDTH ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f %%  %s: %s", bar, part * 100, bench->case_name, what);
}

void bench_progress_end(const struct bench *bench)
{
    if (bench->progress)
        fputs("\r\033[K", stderr);
}
