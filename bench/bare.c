/* SPDX-License-Identifier: MIT */
/* The least that a server of descriptors can do: accept, receive a name, send two descriptors. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/bench.h"

#define BARE_BYTES 4096
#define BARE_FDS 2

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

static void serve_one(int listener, const int *fds)
{
    char name[256];
    union control control = {0};
    struct iovec part = {.iov_base = name, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return;
    if (recv(connection, name, sizeof(name), 0) > 0) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(BARE_FDS * sizeof(int));
        memcpy(CMSG_DATA(header), fds, BARE_FDS * sizeof(int));
        sendmsg(connection, &message, MSG_NOSIGNAL);
    }
    close(connection);
}

static int make_address(const char *socket_path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(out->sun_path, sizeof(out->sun_path), "%s", socket_path);
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

pid_t bench_bare_start(const char *socket_path)
{
    struct sockaddr_un address;
    int listener = make_address(socket_path, &address);
    pid_t parent = getpid();

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 16) < 0)
        bench_fail("cannot listen at %s: %s", socket_path, strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("cannot fork: %s", strerror(errno));
    if (pid > 0) {
        close(listener);
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    int fds[BARE_FDS] = {make_memory("bare-control"), make_memory("bare-data")};
    for (;;)
        serve_one(listener, fds);
}

int bench_bare_open(const char *socket_path, unsigned char *out_first_byte)
{
    struct sockaddr_un address;
    char reply[16];
    int fds[BARE_FDS];
    union control control = {0};
    struct iovec part = {.iov_base = reply, .iov_len = sizeof(reply)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int connection = make_address(socket_path, &address);

    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        send(connection, "bench", 5, MSG_NOSIGNAL) != 5 ||
        recvmsg(connection, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -errno;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_len != CMSG_LEN(sizeof(fds)))
        return -EPROTO;
    memcpy(fds, CMSG_DATA(header), sizeof(fds));
    unsigned char sum = 0;
    for (unsigned i = 0; i < BARE_FDS; i++) {
        const unsigned char *memory =
            mmap(NULL, BARE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        if (memory == MAP_FAILED)
            return -errno;
        close(fds[i]);
        sum = (unsigned char)(sum + memory[0]);
    }
    *out_first_byte = sum;
    return 0;
}
