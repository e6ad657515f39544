/* SPDX-License-Identifier: MIT */
#include "broker/io/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/fd.h"

#define REOPEN_NS (5 * LKI_NS_PER_S)

/* Then it is asked once more: a request or an answer that was lost costs no more than that. */
#define ASK_AGAIN_NS (500 * LKI_NS_PER_MS)

/* Of this worker; its predecessors' answers have another one's number. */
static struct {
    pthread_mutex_t lock;
    uint32_t last_number;
} reopening = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

/* An answer to a request that was given up: the keeper had opened it just before the deadline. What an
 * earlier worker was sent is closed already, by the survey of its successor, and its number may be
 * another's by now. */
static void drop_late(const struct lkd_worker_start *start, const struct lkd_request *answer)
{
    if (answer->worker == start->number && answer->result >= 0)
        (void)lki_close(answer->result);
}

/* Whatever fails here is tried again until the time is over: an answer names a descriptor that is
 * ours by then, and stays open for ever if nobody takes it. */
static int await_reopened(const struct lkd_worker_start *start, const struct lkd_request *request)
{
    struct lkd_request answer;
    for (;;) {
        while (recv(start->reopened_fd, &answer, sizeof(answer), MSG_DONTWAIT) == sizeof(answer)) {
            if (answer.worker == request->worker && answer.number == request->number)
                return answer.result;
            drop_late(start, &answer);
        }
        uint64_t now_ns = lki_clock_now_ns();
        if (now_ns >= request->deadline_ns)
            return -ETIMEDOUT;
        struct pollfd wait = {.fd = start->reopened_fd, .events = POLLIN};
        (void)poll(&wait, 1, (int)((request->deadline_ns - now_ns) / LKI_NS_PER_MS) + 1);
    }
}

static int ask_to_reopen(const struct lkd_worker_start *start, int fd, uint64_t deadline_ns)
{
    const struct lkd_request request = {.kind = LKD_REQUEST_READ_ONLY,
                                        .fd = fd,
                                        .worker = start->number,
                                        .number = ++reopening.last_number,
                                        .deadline_ns = deadline_ns};
    return put(start, &request) ? await_reopened(start, &request) : -EAGAIN;
}

int lkd_worker_reopen_read_only(const struct lkd_worker_start *start, int fd)
{
    (void)pthread_mutex_lock(&reopening.lock);
    uint64_t now_ns = lki_clock_now_ns();
    uint64_t end_ns = now_ns + REOPEN_NS;
    int r = -ETIMEDOUT;
    for (; r == -ETIMEDOUT && now_ns < end_ns; now_ns = lki_clock_now_ns())
        r = ask_to_reopen(start, fd, now_ns + ASK_AGAIN_NS);
    (void)pthread_mutex_unlock(&reopening.lock);
    return r;
}
