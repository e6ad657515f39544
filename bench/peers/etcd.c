/* SPDX-License-Identifier: MIT */
/* etcd's lock service (v3): a lock belongs to a lease, and ends with it. Spoken to in JSON over HTTP, by
 * connections that stay, on the loopback interface: it has no lock over a Unix socket that is not
 * gRPC. One member, whose data is in memory where the system has a place for that. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
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
    char lease[32];
    char key[128]; /* what the holder has to give back; base64 */
    char buffer[2048];
};

static char program[PATH_MAX];
static pid_t server;
static uint16_t port;

static const char *missing(void)
{
    return bench_find_program("etcd", program, sizeof(program)) ? NULL : "etcd is not on PATH";
}

/* That nobody listens at just now. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        bench_fail("cannot find a free port: %s", strerror(errno));
    close(fd);
    return ntohs(address.sin_port);
}

static int connect_once(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        fd = -1;
    }
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Until all of the answer is there: its head says how long the rest is. NULL: none came. */
static char *read_body(struct connection *connection)
{
    size_t have = 0;
    for (;;) {
        ssize_t got = recv(connection->fd, connection->buffer + have,
                           sizeof(connection->buffer) - 1 - have, 0);
        if (got <= 0)
            return NULL;
        have += (size_t)got;
        connection->buffer[have] = '\0';
        char *body = strstr(connection->buffer, "\r\n\r\n");
        const char *length = strcasestr(connection->buffer, "\r\ncontent-length:");
        if (!body || !length || length > body)
            continue;
        body += 4;
        if ((size_t)(body - connection->buffer) + strtoul(length + 17, NULL, 10) <= have)
            return body;
    }
}

/* The body of a good answer, else NULL. */
static const char *ask(struct connection *connection, const char *what, const char *body)
{
    char request[512];
    int length =
        snprintf(request, sizeof(request),
                 "POST /v3/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%s", what,
                 strlen(body), body);
    if (send(connection->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        return NULL;
    const char *answer = read_body(connection);
    return answer && strncmp(connection->buffer, "HTTP/1.1 200", 12) == 0 ? answer : NULL;
}

/* The text of a string in an object. All that is looked for here has no quotes in it. */
static bool find_text(const char *json, const char *name, char *out, size_t capacity)
{
    char quoted[32];
    snprintf(quoted, sizeof(quoted), "\"%s\":\"", name);
    const char *at = json ? strstr(json, quoted) : NULL;
    if (!at)
        return false;
    at += strlen(quoted);
    size_t length = strcspn(at, "\"");
    return (size_t)snprintf(out, capacity, "%.*s", (int)length, at) < capacity;
}

static void leave(void *arg)
{
    struct connection *connection = arg;
    close(connection->fd);
    free(connection);
}

/* NULL: it does not answer yet. */
static struct connection *try_join(void)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        bench_fail("no memory");
    connection->fd = connect_once();
    if (connection->fd >= 0 && find_text(ask(connection, "lease/grant", "{\"TTL\":\"600\"}"), "ID",
                                         connection->lease, sizeof(connection->lease)))
        return connection;
    if (connection->fd >= 0)
        close(connection->fd);
    free(connection);
    return NULL;
}

static void *join(const struct bench *bench)
{
    (void)bench;
    struct connection *connection = try_join();
    if (!connection)
        bench_fail("etcd grants no lease");
    return connection;
}

/* In memory, for what is measured is not the disk; else beside the others' data. */
static void make_home(struct bench *bench, char *out_path, size_t capacity)
{
    char *other = bench->leavings->directory;
    snprintf(other, sizeof(bench->leavings->directory), "/dev/shm/lk-bench-XXXXXX");
    if (!mkdtemp(other))
        *other = '\0';
    snprintf(out_path, capacity, "%s/etcd", *other ? other : bench->directory);
}

static void start(struct bench *bench)
{
    char home[64], clients[48], peers[48], cluster[64];
    uint64_t deadline_ns = lki_clock_now_ns() + 20 * LKI_NS_PER_S;
    struct connection *connection;
    make_home(bench, home, sizeof(home));
    port = free_port();
    uint16_t peer_port = free_port();
    snprintf(clients, sizeof(clients), "http://127.0.0.1:%u", port);
    snprintf(peers, sizeof(peers), "http://127.0.0.1:%u", peer_port);
    snprintf(cluster, sizeof(cluster), "default=%s", peers);
    char *arguments[] = {program,
                         (char *)"--data-dir",
                         home,
                         (char *)"--listen-client-urls",
                         clients,
                         (char *)"--advertise-client-urls",
                         clients,
                         (char *)"--listen-peer-urls",
                         peers,
                         (char *)"--initial-advertise-peer-urls",
                         peers,
                         (char *)"--initial-cluster",
                         cluster,
                         (char *)"--logger",
                         (char *)"zap",
                         (char *)"--log-level",
                         (char *)"error",
                         NULL};
    server = bench_exec(bench, arguments, "etcd.log", SIGKILL, 0, 0);
    while (!(connection = try_join())) {
        if (waitpid(server, NULL, WNOHANG) != 0 || lki_clock_now_ns() > deadline_ns)
            bench_fail("etcd does not answer. It said: %s", bench_last_line(bench, "etcd.log"));
        bench_sleep(20 * LKI_NS_PER_MS);
    }
    leave(connection);
}

static void stop(struct bench *bench)
{
    (void)bench;
    bench_kill(server);
}

static int take(void *arg, enum bench_mode mode)
{
    struct connection *connection = arg;
    char body[96];
    (void)mode;
    snprintf(body, sizeof(body), "{\"name\":\"bG9jaw==\",\"lease\":\"%s\"}", connection->lease);
    return find_text(ask(connection, "lock/lock", body), "key", connection->key,
                     sizeof(connection->key))
               ? 0
               : -EIO;
}

static int drop(void *arg, enum bench_mode mode)
{
    struct connection *connection = arg;
    char body[160];
    (void)mode;
    snprintf(body, sizeof(body), "{\"key\":\"%s\"}", connection->key);
    return ask(connection, "lock/unlock", body) ? 0 : -EIO;
}

static int pairs(void *arg, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, take(arg, mode), drop(arg, mode));
}

const struct bench_peer bench_peer_etcd = {
    .name = "etcd",
    .what = "etcd: its lock service with a lease, JSON over HTTP on the loopback interface",
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
