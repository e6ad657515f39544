/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define OPEN_NAME "bench-open"

extern char **environ;

static int open_lockkeeper(const char *socket_path, unsigned char *out_first_byte)
{
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    struct lk_session *session;
    struct lk_segment *segment;
    void *data;

    int r = lk_session_open(socket_path, &options, &session);
    if (r == 0)
        r = lk_segment_open(session, OPEN_NAME, NULL, &segment);
    if (r == 0)
        r = lk_segment_map(segment, 0, 0, &data);
    if (r == 0)
        *out_first_byte = *(unsigned char *)data;
    return r;
}

int bench_open_child(const char *kind, const char *socket_path)
{
    unsigned char first_byte = 0;
    /* Begins here, not at exec: loading the program is the same for both and the larger part. What
     * the library needs of its own when first called (symbols, allocator) counts. */
    uint64_t start_ns = lki_clock_now_ns();
    int r = strcmp(kind, "bare") == 0 ? bench_bare_open(socket_path, &first_byte)
                                      : open_lockkeeper(socket_path, &first_byte);
    uint64_t took_ns = lki_clock_now_ns() - start_ns;
    if (r < 0) {
        fprintf(stderr, "lockkeeper-bench: %s: %s\n", kind,
                strcmp(kind, "bare") == 0 ? strerror(-r) : lk_last_error());
        return 1;
    }
    return first_byte != 0 && write(STDOUT_FILENO, &took_ns, sizeof(took_ns)) == sizeof(took_ns)
               ? 0
               : 1;
}

static double one_open(const char *kind, const char *socket_path)
{
    char *arguments[] = {(char *)"lockkeeper-bench", (char *)"--child", (char *)kind,
                         (char *)socket_path, NULL};
    posix_spawn_file_actions_t actions;
    int result[2];
    uint64_t took_ns;
    int status;
    pid_t pid;

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
        bench_fail("a new process could not open by '%s'", kind);
    return (double)took_ns;
}

void bench_open(const struct bench *bench, struct bench_group *group)
{
    char bare_path[64];
    struct lk_session *session = bench_connect(bench);
    struct lk_segment *segment = bench_segment(session, OPEN_NAME, 0);
    void *data;

    if (lk_segment_map(segment, 0, 0, &data) < 0)
        bench_fail("%s", lk_last_error());
    *(unsigned char *)data = 'x';
    snprintf(bare_path, sizeof(bare_path), "%s/bare.sock", bench->directory);
    pid_t server = bench_bare_start(bare_path);

    bench_group_init(group, "open and map by a new process", bench->opens);
    int bare = bench_group_add(group, "bare server of descriptors", BENCH_NO_BASE, 0, 0);
    int ours = bench_group_add(group, "lockkeeper", bare, 2.0, 5.0);
    one_open("bare", bare_path); /* warm */
    one_open("lockkeeper", bench->socket_path);
    for (unsigned round = 0; round < bench->opens; round++)
        for (unsigned turn = 0; turn < 2; turn++) {
            bool is_bare = (turn + round) % 2 == 0;
            bench_sample(group, is_bare ? bare : ours,
                         one_open(is_bare ? "bare" : "lockkeeper",
                                  is_bare ? bare_path : bench->socket_path));
        }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(bare_path);
    lk_session_close(session);
}
