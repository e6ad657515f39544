/* SPDX-License-Identifier: MIT */
/* What a worker makes of the keeper's answers: each is for one request of one worker. */
#include "broker/io/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "common/fd.h"

#define WORKER 7u

static int requests[2];
static int reopened[2];
static struct lkd_worker_start start;

static void setup(void)
{
    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, requests), 0));
    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, reopened), 0));
    start = (struct lkd_worker_start){
        .number = WORKER, .request_fd = requests[1], .reopened_fd = reopened[1]};
}

static void teardown(void)
{
    for (int i = 0; i < 2; i++) {
        close(requests[i]);
        close(reopened[i]);
    }
}

TestSuite(worker, .init = setup, .fini = teardown, .timeout = 60);

static int some_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert(ge(int, fd, 0));
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static struct lkd_request hear(void)
{
    struct lkd_request request;
    if (recv(requests[0], &request, sizeof(request), 0) != sizeof(request))
        request.kind = -1;
    return request;
}

static void answer(struct lkd_request request, int result)
{
    request.result = result;
    (void)send(reopened[0], &request, sizeof(request), 0);
}

/* --- Keepers, each a thread --- */

struct keeper {
    pthread_t thread;
    struct lkd_request first, second;
    int late, right;
};

static void *answer_at_once(void *user)
{
    struct keeper *keeper = user;
    keeper->first = hear();
    answer(keeper->first, keeper->right);
    return NULL;
}

/* The first request is answered when it has been given up, and the second one is under way. */
static void *answer_late(void *user)
{
    struct keeper *keeper = user;
    keeper->first = hear();
    keeper->second = hear();
    answer(keeper->first, keeper->late);
    answer(keeper->second, keeper->right);
    return NULL;
}

static int reopen_with(void *(*behave)(void *), struct keeper *keeper)
{
    *keeper = (struct keeper){.late = some_fd(), .right = some_fd()};
    cr_assert(eq(int, pthread_create(&keeper->thread, NULL, behave, keeper), 0));
    int r = lkd_worker_reopen_read_only(&start, 0);
    cr_assert(eq(int, pthread_join(keeper->thread, NULL), 0));
    return r;
}

Test(worker, a_request_says_who_asks_and_for_how_long)
{
    struct keeper keeper;
    uint64_t now_ns = lki_clock_now_ns();
    cr_expect(eq(int, reopen_with(answer_at_once, &keeper), keeper.right));
    cr_expect(eq(u32, keeper.first.worker, WORKER));
    cr_expect(lt(u64, now_ns, keeper.first.deadline_ns));
    cr_expect(is_open(keeper.late), "nobody has answered with that");
}

Test(worker, a_late_answer_is_known_by_its_number_and_closed)
{
    struct keeper keeper;
    cr_expect(eq(int, reopen_with(answer_late, &keeper), keeper.right));
    cr_expect(lt(u32, keeper.first.number, keeper.second.number));
    cr_expect(not(is_open(keeper.late)));
    cr_expect(is_open(keeper.right));
}

Test(worker, what_an_earlier_worker_was_sent_is_left_alone)
{
    struct keeper keeper;
    int others = some_fd(); /* has the number by now */
    answer((struct lkd_request){.kind = LKD_REQUEST_READ_ONLY, .worker = WORKER - 1, .number = 1},
           others);
    cr_expect(eq(int, reopen_with(answer_at_once, &keeper), keeper.right));
    cr_expect(is_open(others));
}

Test(worker, a_keeper_that_cannot_open_it_says_why)
{
    struct keeper keeper = {.right = -EACCES};
    cr_assert(eq(int, pthread_create(&keeper.thread, NULL, answer_at_once, &keeper), 0));
    cr_expect(eq(int, lkd_worker_reopen_read_only(&start, 0), -EACCES));
    cr_assert(eq(int, pthread_join(keeper.thread, NULL), 0));
}
