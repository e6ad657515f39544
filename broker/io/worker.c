/* SPDX-License-Identifier: MIT */
#include "broker/io/worker.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/fd.h"

#define REOPEN_MS 5000
#define RECEIVE_TRIES 4

static bool put(const struct lkd_worker_start *start, const struct lkd_request *request)
{
    return send(start->request_fd, request, sizeof(*request), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           sizeof(*request);
}

static bool ask(const struct lkd_worker_start *start, enum lkd_request_kind kind, int fd, int value)
{
    const struct lkd_request request = {.kind = (int32_t)kind, .fd = fd, .value = value};
    return put(start, &request);
}

bool lkd_worker_request_signal(const struct lkd_worker_start *start, int pidfd, int signal,
                               uint64_t process)
{
    const struct lkd_request request = {
        .kind = LKD_REQUEST_SIGNAL, .fd = pidfd, .value = signal, .process = process};
    return put(start, &request);
}

bool lkd_worker_answer(const struct lkd_worker_start *start, struct lkd_request *out_request)
{
    return recv(start->request_fd, out_request, sizeof(*out_request), MSG_DONTWAIT) ==
           sizeof(*out_request);
}

bool lkd_worker_tell(const struct lkd_worker_start *start, enum lkd_request_kind kind)
{
    return ask(start, kind, -1, 0);
}

int lkd_worker_reopen_read_only(const struct lkd_worker_start *start, int fd)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return -errno;
    LKI_CLEANUP(lki_close_p) int ours = ends[0];
    LKI_CLEANUP(lki_close_p) int keepers = ends[1];
    int32_t answer;
    struct pollfd wait = {.fd = ours, .events = POLLIN};
    if (!ask(start, LKD_REQUEST_READ_ONLY, fd, keepers))
        return -EAGAIN;
    int ready;
    do
        ready = poll(&wait, 1, REOPEN_MS);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return -ETIMEDOUT;
    /* It is there, and names a descriptor that is ours by now: not to be given up at the first
     * attempt, or it stays open for ever. */
    for (int tries = 0; tries < RECEIVE_TRIES; tries++)
        if (recv(ours, &answer, sizeof(answer), 0) == sizeof(answer))
            return answer;
    return -EPROTO;
}
