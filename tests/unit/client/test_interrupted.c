/* SPDX-License-Identifier: MIT */
/* A signal while a reply is waited for: the wait goes on, and its deadline stays where it was. */
#include "client/transport.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/channel.h"

#define TICKS 3 /* signals before the broker answers */

static int broker_end = -1; /* the test plays the broker */
static struct lki_inbox inbox;
static struct lki_transport transport;
static uint8_t answer[64];
static size_t answer_bytes;
static volatile sig_atomic_t ticks;

static void set_timer(long us)
{
    const struct itimerval timer = {{.tv_usec = us}, {.tv_usec = us}};
    cr_assert(eq(int, setitimer(ITIMER_REAL, &timer, NULL), 0));
}

/* The answer comes when the wait has been interrupted before; send(2) may be called here. */
static void on_tick(int number)
{
    int saved = errno;
    (void)number;
    if (++ticks == TICKS)
        (void)send(broker_end, answer, answer_bytes, MSG_DONTWAIT);
    errno = saved;
}

static void setup(void)
{
    static const struct lki_message reply = {.type = LKI_REPLY_RESULT, .id = 7};
    struct sigaction action = {.sa_handler = on_tick}; /* no SA_RESTART */
    int ends[2];
    cr_assert(eq(int, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0));
    lki_transport_init(&transport, ends[0], &inbox);
    broker_end = ends[1];
    cr_assert(eq(int, lki_message_encode(&reply, answer, sizeof(answer), &answer_bytes), 0));
    cr_assert(eq(int, sigaction(SIGALRM, &action, NULL), 0));
    ticks = 0;
}

static void teardown(void)
{
    broker_end = lki_close(broker_end);
    lki_transport_deinit(&transport);
}

TestSuite(interrupted, .init = setup, .fini = teardown, .timeout = 60);

static void expect_answer(uint64_t deadline_ns)
{
    struct lki_record record;
    set_timer(1000);
    int r = lki_transport_receive(&transport, deadline_ns, &record);
    set_timer(0);
    cr_expect(eq(int, r, 0));
    cr_expect(eq(u64, record.message.id, 7));
    cr_expect(ge(int, ticks, TICKS));
    lki_record_deinit(&record);
}

Test(interrupted, a_signal_does_not_end_a_wait_with_a_deadline)
{
    expect_answer(lki_time_add(lki_clock_now_ns(), 3600 * LKI_NS_PER_S));
}

Test(interrupted, nor_one_without)
{
    expect_answer(LKI_TIME_NEVER);
}
