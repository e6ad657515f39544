/* SPDX-License-Identifier: MIT */
/* From nothing, or from an open connection, to the first byte of a mapped segment: in a new process,
 * and again in one that has done it before. Against a server that does nothing but hand out two
 * descriptors, and against a file of tmpfs that everybody can open by name. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define OPEN_NAME "bench-open"
#define AGAIN 500u /* per sample: the first milliseconds are those of processes that have slept */

extern char **environ;

static int open_segment(struct lk_session *session, struct lk_segment **out_segment,
                        unsigned char *out_first_byte)
{
    void *data;
    int r = lk_segment_open(session, OPEN_NAME, NULL, out_segment);
    if (r == 0)
        r = lk_segment_map(*out_segment, 0, 0, &data);
    if (r == 0)
        *out_first_byte = *(unsigned char *)data;
    return r;
}

static struct lk_session *opened; /* closed when nobody measures any more */

static int open_lockkeeper(const char *socket_path, unsigned char *out_first_byte)
{
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_segment *segment;
    int r = lk_session_open(socket_path, &options, &opened);
    return r < 0 ? r : open_segment(opened, &segment, out_first_byte);
}

static int open_bare(const char *socket_path, unsigned char *out_first_byte)
{
    int connection = bench_bare_connect(socket_path);
    return connection < 0 ? connection : bench_bare_ask(connection, out_first_byte);
}

static int open_shm(const char *name, unsigned char *out_first_byte)
{
    int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    void *memory =
        fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    close(fd);
    *out_first_byte = *(unsigned char *)memory;
    munmap(memory, 4096);
    return 0;
}

struct way {
    const char *name;
    int (*open)(const char *place, unsigned char *out_first_byte);
};

static const struct way ways[] = {
    {"bare server of descriptors", open_bare},
    {"lockkeeper", open_lockkeeper},
    {"shm_open + mmap", open_shm},
};
enum { BARE, OURS, SHM, WAYS };

int bench_open_child(const char *kind, const char *place)
{
    unsigned char first_byte = 0;
    unsigned way = (unsigned)strtoul(kind, NULL, 10);
    if (way >= WAYS)
        return 1;
    /* Begins here, not at exec: loading the program is the same for all and the larger part. What
     * the library needs of its own when first called (symbols, allocator) counts. */
    uint64_t start_ns = lki_clock_now_ns();
    int r = ways[way].open(place, &first_byte);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    opened = lk_session_close(opened);
    if (r < 0) {
        fprintf(stderr, "lockkeeper-bench: %s: %s\n", ways[way].name,
                way == OURS ? lk_last_error() : strerror(-r));
        return 1;
    }
    return first_byte != 0 && write(STDOUT_FILENO, &took_ns, sizeof(took_ns)) == sizeof(took_ns)
               ? 0
               : 1;
}

static double open_in_new_process(unsigned way, const char *place)
{
    char kind[4];
    char *arguments[] = {(char *)"lockkeeper-bench", (char *)"--child", kind, (char *)place, NULL};
    posix_spawn_file_actions_t actions;
    int result[2];
    uint64_t took_ns;
    int status;
    pid_t pid;

    snprintf(kind, sizeof(kind), "%u", way % WAYS);
    if (pipe(result) < 0)
        bench_fail("cannot make a pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, result[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, result[0]);
    posix_spawn_file_actions_addclose(&actions, result[1]);
    int r = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (r != 0)
        bench_fail("cannot start a process: %s", strerror(r));
    close(result[1]);
    ssize_t got = read(result[0], &took_ns, sizeof(took_ns));
    close(result[0]);
    waitpid(pid, &status, 0);
    if (got != sizeof(took_ns) || status != 0)
        bench_fail("a new process could not open by '%s'", ways[way].name);
    return (double)took_ns;
}

static void measure_new(struct bench *bench, struct bench_report *report,
                        const char *const places[WAYS])
{
    unsigned rounds = bench_rounds(bench, 151);
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds, "open and map by a new process");
    for (unsigned way = 0; way < WAYS; way++) {
        bench_series_add(group, ways[way].name);
        open_in_new_process(way, places[way]); /* warm */
    }
    bench_series_compare(group, OURS, BARE, 1.5, 5.0);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, round, 3 * rounds, group->name);
        for (unsigned turn = 0; turn < WAYS; turn++) {
            unsigned way = (turn + round) % WAYS;
            bench_sample(group, (int)way, open_in_new_process(way, places[way]));
        }
    }
}

/* --- Again, in this process --- */

struct again {
    unsigned times; /* per sample */
    struct lk_session *session;
    int connection;
    const char *const *places;
};

static int once_more(const struct again *again, unsigned way, bool connect)
{
    unsigned char byte = 0;
    int r;
    if (way == SHM || (way == BARE && !connect))
        return way == SHM ? open_shm(again->places[SHM], &byte)
                          : bench_bare_ask(again->connection, &byte);
    if (way == BARE) {
        int connection = bench_bare_connect(again->places[BARE]);
        r = connection < 0 ? connection : bench_bare_ask(connection, &byte);
        close(connection);
        return r;
    }
    struct lk_segment *segment = NULL;
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session = again->session;
    r = connect ? lk_session_open(again->places[OURS], &options, &session) : 0;
    if (r == 0)
        r = open_segment(session, &segment, &byte);
    lk_segment_close(segment);
    if (connect)
        lk_session_close(session);
    return r;
}

static double once_more_ns(const struct again *again, unsigned way, bool connect)
{
    uint64_t start_ns = lki_clock_now_ns();
    for (unsigned i = 0; i < again->times; i++) {
        int r = once_more(again, way, connect);
        if (r < 0)
            bench_fail("cannot open by '%s': %s", ways[way].name,
                       way == OURS ? lk_last_error() : strerror(-r));
    }
    return (double)(lki_clock_now_ns() - start_ns) / again->times;
}

static void measure_again(struct bench *bench, struct bench_report *report,
                          const struct again *again, bool connect)
{
    unsigned rounds = bench_rounds(bench, 51);
    unsigned count = connect ? SHM : WAYS;
    struct bench_group *group =
        bench_group_add(report, "ns", BENCH_LESS, rounds,
                        connect ? "connect, open, map and close, again"
                                : "open, map and close on an open connection, again");
    for (unsigned way = 0; way < count; way++) {
        bench_series_add(group, ways[way].name);
        once_more_ns(again, way, connect);
    }
    bench_series_compare(group, OURS, BARE, 1.5, 0);
    for (unsigned round = 0; round < rounds; round++) {
        bench_progress(bench, (connect ? 2 : 1) * rounds + round, 3 * rounds, group->name);
        for (unsigned turn = 0; turn < count; turn++) {
            unsigned way = (turn + round) % count;
            bench_sample(group, (int)way, once_more_ns(again, way, connect));
        }
    }
}

static void make_shm(const char *name)
{
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0 || pwrite(fd, "x", 1, 0) != 1)
        bench_fail("cannot make %s: %s", name, strerror(errno));
    close(fd);
}

void bench_open(struct bench *bench, struct bench_report *report)
{
    char bare_path[64], shm_name[32];
    const char *places[WAYS] = {bare_path, bench->socket_path, shm_name};
    struct again again = {.times = bench->quick ? AGAIN / 25 : AGAIN,
                          .session = bench_connect(bench),
                          .places = places};
    struct lk_segment *segment = bench_segment(again.session, OPEN_NAME, 0);
    struct lk_session *keeper = again.session;
    void *data;

    if (lk_segment_map(segment, 0, 0, &data) < 0)
        bench_fail("%s", lk_last_error());
    *(unsigned char *)data = 'x';
    snprintf(bare_path, sizeof(bare_path), "%s/bare.sock", bench->directory);
    snprintf(shm_name, sizeof(shm_name), "/lk-bench-%d", (int)getpid());
    snprintf(bench->leavings->shm_name, sizeof(bench->leavings->shm_name), "%s", shm_name);
    make_shm(shm_name);
    pid_t server = bench_bare_start(bare_path);
    again.session = bench_connect(bench);
    again.connection = bench_bare_connect(bare_path);
    if (again.connection < 0)
        bench_fail("cannot connect to the bare server: %s", strerror(-again.connection));

    measure_new(bench, report, places);
    measure_again(bench, report, &again, false);
    measure_again(bench, report, &again, true);

    bench_kill(server);
    close(again.connection);
    shm_unlink(shm_name);
    bench->leavings->shm_name[0] = '\0';
    lk_session_close(again.session);
    lk_session_close(keeper);
}
