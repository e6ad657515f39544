/* SPDX-License-Identifier: MIT */
/* The least that a server of descriptors can do: receive a name, send two descriptors. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/bench.h"

#define BARE_BYTES 4096
#define BARE_FDS 2
#define BARE_CONNECTIONS 16

union control {
    char bytes[CMSG_SPACE(BARE_FDS * sizeof(int))];
    struct cmsghdr align;
};

static int make_memory(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, BARE_BYTES) < 0 || pwrite(fd, "x", 1, 0) != 1)
        _exit(1);
    return fd;
}

/* False: the connection has ended. */
static bool serve_one(int connection, const int *fds)
{
    char name[256];
    union control control = {0};
    struct iovec part = {.iov_base = name, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    if (recv(connection, name, sizeof(name), 0) <= 0)
        return false;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(BARE_FDS * sizeof(int));
    memcpy(CMSG_DATA(header), fds, BARE_FDS * sizeof(int));
    return sendmsg(connection, &message, MSG_NOSIGNAL) > 0;
}

/* The listener and few connections: poll(2) is as good as anything. */
static void serve(int listener, const int *fds)
{
    struct pollfd polled[BARE_CONNECTIONS + 1] = {{.fd = listener, .events = POLLIN}};
    nfds_t count = 1;
    while (poll(polled, count, -1) > 0) {
        for (nfds_t i = count; i-- > 1;)
            if (polled[i].revents && !serve_one(polled[i].fd, fds)) {
                close(polled[i].fd);
                polled[i] = polled[--count];
            }
        if (polled[0].revents && count <= BARE_CONNECTIONS) {
            int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (connection >= 0)
                polled[count++] = (struct pollfd){.fd = connection, .events = POLLIN};
        }
    }
}

static int make_address(const char *socket_path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(out->sun_path, sizeof(out->sun_path), "%s", socket_path);
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

struct bare {
    int listener;
};

static int be_bare(void *arg)
{
    int fds[BARE_FDS] = {make_memory("bare-control"), make_memory("bare-data")};
    serve(((struct bare *)arg)->listener, fds);
    return 1;
}

pid_t bench_bare_start(const char *socket_path)
{
    struct sockaddr_un address;
    struct bare bare = {.listener = make_address(socket_path, &address)};

    if (bare.listener < 0 ||
        bind(bare.listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(bare.listener, BARE_CONNECTIONS) < 0)
        bench_fail("cannot listen at %s: %s", socket_path, strerror(errno));
    pid_t pid = bench_spawn(be_bare, &bare);
    close(bare.listener);
    return pid;
}

int bench_bare_connect(const char *socket_path)
{
    struct sockaddr_un address;
    int connection = make_address(socket_path, &address);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return connection;
}

int bench_bare_ask(int connection, unsigned char *out_first_byte)
{
    char reply[16];
    int fds[BARE_FDS];
    void *memory[BARE_FDS];
    unsigned char sum = 0;
    union control control = {0};
    struct iovec part = {.iov_base = reply, .iov_len = sizeof(reply)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};

    if (send(connection, "bench", 5, MSG_NOSIGNAL) != 5 ||
        recvmsg(connection, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -errno;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(sizeof(fds)))
        return -EPROTO;
    memcpy(fds, CMSG_DATA(header), sizeof(fds));
    for (unsigned i = 0; i < BARE_FDS; i++) {
        memory[i] = mmap(NULL, BARE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        if (memory[i] == MAP_FAILED)
            return -errno;
        close(fds[i]);
        sum = (unsigned char)(sum + *(const unsigned char *)memory[i]);
    }
    for (unsigned i = 0; i < BARE_FDS; i++)
        munmap(memory[i], BARE_BYTES);
    *out_first_byte = sum;
    return 0;
}
