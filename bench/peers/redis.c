/* SPDX-License-Identifier: MIT */
/* Redis over a Unix socket, nothing persisted. A lock is SET NX with a time to live; who is refused
 * blocks on a list, to which each release adds an element. The dead are found out by the time to
 * live alone. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"

struct connection {
    int fd;
    size_t have, at;
    char buffer[512];
};

static char program[PATH_MAX];
static char socket_path[64];
static pid_t server;

static const char *missing(void)
{
    return bench_find_program("redis-server", program, sizeof(program))
               ? NULL
               : "redis-server is not on PATH";
}

static void start(struct bench *bench)
{
    snprintf(socket_path, sizeof(socket_path), "%s/redis.sock", bench->directory);
    char *arguments[] = {program,      (char *)"--port", (char *)"0",      (char *)"--unixsocket",
                         socket_path,  (char *)"--save", (char *)"",       (char *)"--appendonly",
                         (char *)"no", (char *)"--dir",  bench->directory, NULL};
    server = bench_exec(bench, arguments, "redis.log", SIGKILL, 0, 0);
    close(bench_connect_stream(socket_path, server));
}

static void stop(struct bench *bench)
{
    (void)bench;
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
}

static void *join(const struct bench *bench)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    (void)bench;
    if (!connection)
        bench_fail("no memory");
    connection->fd = bench_connect_stream(socket_path, 0);
    return connection;
}

static void leave(void *arg)
{
    struct connection *connection = arg;
    close(connection->fd);
    free(connection);
}

static int say(struct connection *connection, const char *text)
{
    size_t length = strlen(text);
    return send(connection->fd, text, length, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -EIO;
}

/* The next line of what the server says, without its end. NULL: the connection is lost. */
static const char *read_line(struct connection *connection)
{
    for (;;) {
        char *from = connection->buffer + connection->at;
        char *end = memchr(from, '\n', connection->have - connection->at);
        if (end) {
            end[-1] = '\0'; /* the carriage return */
            connection->at = (size_t)(end + 1 - connection->buffer);
            return from;
        }
        memmove(connection->buffer, from, connection->have - connection->at);
        connection->have -= connection->at;
        connection->at = 0;
        ssize_t got = recv(connection->fd, connection->buffer + connection->have,
                           sizeof(connection->buffer) - connection->have, 0);
        if (got <= 0)
            return NULL;
        connection->have += (size_t)got;
    }
}

/* 1: yes, 0: nil, negative: an error. Arrays hold short strings only. */
static int read_reply(struct connection *connection)
{
    const char *line = read_line(connection);
    if (!line || *line == '-')
        return -EIO;
    if (*line == '*') {
        int elements = atoi(line + 1);
        for (int lines = elements * 2; lines > 0; lines--)
            if (!read_line(connection))
                return -EIO;
        return elements > 0;
    }
    return *line != '$' || atoi(line + 1) >= 0;
}

static int ask(struct connection *connection, const char *text)
{
    int r = say(connection, text);
    return r < 0 ? r : read_reply(connection);
}

static const char set_nx[] = "*6\r\n$3\r\nSET\r\n$4\r\nlock\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n"
                             "$5\r\n30000\r\n";
static const char del[] = "*2\r\n$3\r\nDEL\r\n$4\r\nlock\r\n";
/* A tenth of a second: the list is cut to one element, so a wake-up may be lost. */
static const char wait_for_wake[] = "*3\r\n$5\r\nBLPOP\r\n$4\r\nwake\r\n$3\r\n0.1\r\n";
static const char del_and_wake[] = "*2\r\n$3\r\nDEL\r\n$4\r\nlock\r\n"
                                   "*3\r\n$5\r\nLPUSH\r\n$4\r\nwake\r\n$1\r\n1\r\n"
                                   "*4\r\n$5\r\nLTRIM\r\n$4\r\nwake\r\n$1\r\n0\r\n$1\r\n0\r\n";

static int take(void *arg, enum bench_mode mode)
{
    int r;
    (void)mode;
    while ((r = ask(arg, set_nx)) == 0)
        if ((r = ask(arg, wait_for_wake)) < 0)
            return r;
    return r < 0 ? r : 0;
}

static int drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    int r = say(arg, del_and_wake);
    for (int replies = 0; replies < 3 && r >= 0; replies++)
        r = read_reply(arg);
    return r < 0 ? r : 0;
}

static int pairs(void *arg, enum bench_mode mode, unsigned count)
{
    (void)mode;
    BENCH_PAIRS(count, ask(arg, set_nx) != 1, ask(arg, del) != 1);
}

const struct bench_peer bench_peer_redis = {
    .name = "redis",
    .what = "Redis: SET NX PX and DEL, over a Unix socket",
    .remote = true,
    .missing = missing,
    .start = start,
    .stop = stop,
    .join = join,
    .leave = leave,
    .pairs = pairs,
    .take = take,
    .drop = drop,
};
