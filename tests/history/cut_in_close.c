/* SPDX-License-Identifier: MIT */
/* cut_in_close [--kills N] [--seed N]
 *
 * Clients come and go as fast as they can while the worker is killed at any moment. A helper of the
 * worker closes a connection's descriptor; a worker that was killed after that and before it had
 * noted that the connection was cut left a ledger that names a descriptor which is closed, or is
 * something else by now, and no later worker could go on.
 *
 * Exit 0: no worker failed by itself, and the last one serves. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/broker.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define CLIENTS 4u

static struct test_broker broker;

/* Until it is killed. Without a word: the end of a connection that says goodbye is another one. */
static int come_and_go(void *arg)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)arg;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", broker.socket_path);
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        test_check(fd >= 0, "socket");
        (void)connect(fd, (struct sockaddr *)&address, sizeof(address));
        close(fd);
    }
    return 0;
}

static void kill_workers(unsigned kills, struct test_random *random)
{
    for (unsigned i = 0; i < kills; i++) {
        pid_t worker = test_broker_worker(&broker);
        test_sleep_ns(test_random_below(random, 30 * LKI_NS_PER_MS));
        (void)kill(worker, SIGKILL); /* it may have failed by itself: that is seen here */
        test_check(!test_broker_logged(&broker, "cannot go on"), "a worker could not take over");
    }
}

static void check_it_serves(void)
{
    struct test_client client;
    struct lk_segment_options options = test_options(4096, 1);
    test_client_open(&client, broker.socket_path, "last", &options);
    test_acquire(test_lock(&client, 0), LK_EXCLUSIVE);
    test_client_close(&client);
}

int main(int argc, char **argv)
{
    unsigned kills = 200;
    struct test_random random = {1};
    pid_t pids[CLIENTS];
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kills") == 0)
            kills = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            random.state = strtoull(argv[i + 1], NULL, 10);
    }
    test_broker_start(&broker);
    broker.restarts = true;
    for (unsigned i = 0; i < CLIENTS; i++)
        pids[i] = test_spawn(come_and_go, NULL);
    kill_workers(kills, &random);
    for (unsigned i = 0; i < CLIENTS; i++)
        test_kill(pids[i]);
    check_it_serves();
    test_broker_stop(&broker);
    printf("cut_in_close: %u workers killed while clients came and went; the last one serves\n",
           kills);
    return 0;
}
