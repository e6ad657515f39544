/* SPDX-License-Identifier: MIT */
/* PostgreSQL's advisory locks over a Unix socket, by its protocol's simple queries: as a program does
 * that has a database at hand anyway. A cluster of its own in the bench's directory. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

struct connection {
    int fd;
    size_t have, at;
    unsigned char buffer[2048];
};

static char postgres[PATH_MAX];
static char initdb[PATH_MAX];
static char socket_path[96];
static pid_t server;

/* It refuses to run as root. */
static const struct passwd *find_user(void)
{
    const struct passwd *user = getpwnam("postgres");
    return user ? user : getpwnam("nobody");
}

static const char *missing(void)
{
    char link[PATH_MAX];
    if (!bench_find_program("postgres", link, sizeof(link)))
        return "postgres is not on PATH";
    /* Its other programs are beside the real one. */
    if (!realpath(link, postgres))
        return strerror(errno);
    int length = (int)(strrchr(postgres, '/') - postgres);
    int needed = snprintf(initdb, sizeof(initdb), "%.*s/initdb", length, postgres);
    if (needed < 0 || (size_t)needed >= sizeof(initdb) || access(initdb, X_OK) < 0)
        return "no initdb beside postgres";
    if (geteuid() == 0 && !find_user())
        return "it does not run as root, and there is no user postgres or nobody";
    return NULL;
}

static void *join(const struct bench *bench);
static void leave(void *arg);

/* Its socket is there before it takes connections. */
static bool answers(void);

static void start(struct bench *bench)
{
    char home[64], data[80];
    const struct passwd *user = geteuid() == 0 ? find_user() : NULL;
    uid_t uid = user ? user->pw_uid : 0;
    gid_t gid = user ? user->pw_gid : 0;
    int status;

    snprintf(home, sizeof(home), "%s/postgresql", bench->directory);
    snprintf(data, sizeof(data), "%s/data", home);
    if (mkdir(home, 0700) < 0 || (user && chown(home, uid, gid) < 0) ||
        (user && chmod(bench->directory, 0711) < 0))
        bench_fail("cannot make %s: %s", home, strerror(errno));
    char *make[] = {initdb,
                    (char *)"-D",
                    data,
                    (char *)"-U",
                    (char *)"postgres",
                    (char *)"-A",
                    (char *)"trust",
                    (char *)"--no-sync",
                    (char *)"--no-instructions",
                    (char *)"-E",
                    (char *)"UTF8",
                    (char *)"--locale=C",
                    NULL};
    pid_t maker = bench_exec(bench, make, "initdb.log", SIGKILL, uid, gid);
    if (waitpid(maker, &status, 0) < 0 || status != 0)
        bench_fail("initdb failed; leave PostgreSQL out by --vs with a list. It said: %s",
                   bench_last_line(bench, "initdb.log"));
    char *run[] = {postgres,     (char *)"-D", data,         (char *)"-k", home,
                   (char *)"-h", (char *)"",   (char *)"-F", NULL};
    /* The quick way down: it removes its shared memory, and its processes end. */
    server = bench_exec(bench, run, "postgresql.log", SIGQUIT, uid, gid);
    snprintf(socket_path, sizeof(socket_path), "%s/.s.PGSQL.5432", home);
    close(bench_connect_stream(socket_path, server));
    for (unsigned tries = 0; !answers(); tries++) {
        if (tries == 1000)
            bench_fail("PostgreSQL does not answer");
        bench_sleep(20 * LKI_NS_PER_MS);
    }
}

static void stop(struct bench *bench)
{
    (void)bench;
    kill(server, SIGQUIT);
    waitpid(server, NULL, 0);
}

static int fill(struct connection *connection, size_t bytes)
{
    if (connection->have - connection->at >= bytes)
        return 0;
    memmove(connection->buffer, connection->buffer + connection->at,
            connection->have - connection->at);
    connection->have -= connection->at;
    connection->at = 0;
    while (connection->have < bytes) {
        ssize_t got = recv(connection->fd, connection->buffer + connection->have,
                           sizeof(connection->buffer) - connection->have, 0);
        if (got <= 0)
            return -EIO;
        connection->have += (size_t)got;
    }
    return 0;
}

/* Reads messages up to "ready for query". */
static int read_replies(struct connection *connection)
{
    int r = 0;
    for (;;) {
        uint32_t length;
        if (fill(connection, 5) < 0)
            return -EIO;
        unsigned char kind = connection->buffer[connection->at];
        memcpy(&length, connection->buffer + connection->at + 1, sizeof(length));
        length = ntohl(length) + 1;
        if (length > sizeof(connection->buffer) || fill(connection, length) < 0)
            return -EIO;
        connection->at += length;
        if (kind == 'E')
            r = -EIO;
        if (kind == 'E' && connection->have == connection->at)
            return r; /* refused to start: nothing follows */
        if (kind == 'Z')
            return r;
    }
}

static int ask(struct connection *connection, const char *sql)
{
    char message[128];
    uint32_t length = (uint32_t)strlen(sql) + 1;
    uint32_t on_wire = htonl(length + 4);
    message[0] = 'Q';
    memcpy(message + 1, &on_wire, sizeof(on_wire));
    memcpy(message + 5, sql, length);
    if (send(connection->fd, message, length + 5, MSG_NOSIGNAL) != (ssize_t)(length + 5))
        return -EIO;
    return read_replies(connection);
}

static struct connection *log_in(void)
{
    static const char parameters[] = "user\0postgres\0database\0postgres\0";
    char message[8 + sizeof(parameters)];
    uint32_t header[2] = {htonl(sizeof(message)), htonl(3u << 16)}; /* protocol 3.0 */
    struct connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        bench_fail("no memory");
    connection->fd = bench_connect_stream(socket_path, 0);
    memcpy(message, header, sizeof(header));
    memcpy(message + sizeof(header), parameters, sizeof(parameters));
    if (send(connection->fd, message, sizeof(message), MSG_NOSIGNAL) == (ssize_t)sizeof(message) &&
        read_replies(connection) == 0)
        return connection;
    leave(connection);
    return NULL;
}

static bool answers(void)
{
    struct connection *connection = log_in();
    if (!connection)
        return false;
    leave(connection);
    return true;
}

static void *join(const struct bench *bench)
{
    struct connection *connection = log_in();
    (void)bench;
    if (!connection)
        bench_fail("PostgreSQL refuses a connection");
    return connection;
}

static void leave(void *arg)
{
    struct connection *connection = arg;
    close(connection->fd);
    free(connection);
}

static int take(void *arg, enum bench_mode mode)
{
    return ask(arg, mode == BENCH_SHARED ? "SELECT pg_advisory_lock_shared(1)"
                                         : "SELECT pg_advisory_lock(1)");
}

static int drop(void *arg, enum bench_mode mode)
{
    return ask(arg, mode == BENCH_SHARED ? "SELECT pg_advisory_unlock_shared(1)"
                                         : "SELECT pg_advisory_unlock(1)");
}

static int pairs(void *arg, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, take(arg, mode), drop(arg, mode));
}

const struct bench_peer bench_peer_postgresql = {
    .name = "postgresql",
    .what = "PostgreSQL: pg_advisory_lock, over a Unix socket",
    .shares = true,
    .recovers = true,
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
