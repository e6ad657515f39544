/* SPDX-License-Identifier: MIT */
/* A token that is passed through the kernel: who has received it has the lock. Dies with its
 * holder. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/bench.h"

/* Both ends, inherited by all. */
struct token {
    int out, in;
};

static void *join(const struct bench *bench)
{
    return bench->arena;
}

static void put_in(struct bench *bench, int out, int in)
{
    struct token *token = bench->arena;
    *token = (struct token){.out = out, .in = in};
}

static void close_both(struct bench *bench)
{
    struct token *token = bench->arena;
    close(token->out);
    if (token->in != token->out)
        close(token->in);
}

static int receive(int fd)
{
    char byte;
    ssize_t got;
    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1 ? 0 : -EIO;
}

static int give(int fd)
{
    return write(fd, "t", 1) == 1 ? 0 : -EIO;
}

static int byte_take(void *arg, enum bench_mode mode)
{
    (void)mode;
    return receive(((struct token *)arg)->out);
}

static int byte_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return give(((struct token *)arg)->in);
}

static int byte_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, byte_take(arg, mode), byte_drop(arg, mode));
}

static void make_pipe(struct bench *bench)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        bench_fail("cannot make a pipe: %s", strerror(errno));
    put_in(bench, ends[0], ends[1]);
    byte_drop(bench->arena, BENCH_EXCLUSIVE);
}

static void make_seqpacket(struct bench *bench)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        bench_fail("cannot make a pair of sockets: %s", strerror(errno));
    put_in(bench, ends[0], ends[1]);
    byte_drop(bench->arena, BENCH_EXCLUSIVE);
}

/* --- POSIX message queue --- */

static int mq_take(void *arg, enum bench_mode mode)
{
    char byte;
    ssize_t got;
    (void)mode;
    do
        got = mq_receive(((struct token *)arg)->out, &byte, 1, NULL);
    while (got < 0 && errno == EINTR);
    return got == 1 ? 0 : -EIO;
}

static int mq_drop(void *arg, enum bench_mode mode)
{
    (void)mode;
    return mq_send(((struct token *)arg)->in, "t", 1, 0) < 0 ? -errno : 0;
}

static int mq_pairs(void *arg, enum bench_mode mode, unsigned count)
{
    BENCH_PAIRS(count, mq_take(arg, mode), mq_drop(arg, mode));
}

static mqd_t open_queue(void)
{
    char name[32];
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 1};
    snprintf(name, sizeof(name), "/lk-bench-%d", (int)getpid());
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
    if (queue != (mqd_t)-1)
        mq_unlink(name); /* children inherit the descriptor, which is one on Linux */
    return queue;
}

static const char *mq_missing(void)
{
    mqd_t queue = open_queue();
    if (queue == (mqd_t)-1)
        return strerror(errno);
    mq_close(queue);
    return NULL;
}

static void make_mq(struct bench *bench)
{
    mqd_t queue = open_queue();
    if (queue == (mqd_t)-1)
        bench_fail("cannot make a message queue: %s", strerror(errno));
    put_in(bench, queue, queue);
    if (mq_drop(bench->arena, BENCH_EXCLUSIVE) < 0)
        bench_fail("cannot send to a message queue: %s", strerror(errno));
}

const struct bench_peer bench_peer_pipe = {
    .name = "pipe",
    .what = "a token in a pipe",
    .make = make_pipe,
    .unmake = close_both,
    .join = join,
    .pairs = byte_pairs,
    .take = byte_take,
    .drop = byte_drop,
};

const struct bench_peer bench_peer_seqpacket = {
    .name = "seqpacket",
    .what = "a token in a pair of sockets",
    .make = make_seqpacket,
    .unmake = close_both,
    .join = join,
    .pairs = byte_pairs,
    .take = byte_take,
    .drop = byte_drop,
};

const struct bench_peer bench_peer_mq = {
    .name = "mq",
    .what = "a token in a POSIX message queue",
    .missing = mq_missing,
    .make = make_mq,
    .unmake = close_both,
    .join = join,
    .pairs = mq_pairs,
    .take = mq_take,
    .drop = mq_drop,
};
