/* SPDX-License-Identifier: MIT */
/* wait_unasked OWN WANTED: takes the lock OWN and says "held"; after a line from stdin it cuts its
 * connection and waits for WANTED. So it can close a ring that nobody is asked about. */
#include <stdio.h>
#include <sys/socket.h>

#include <lockkeeper/lockkeeper.h>

#include "client/session.h"

static struct lk_lock *open_lock(struct lk_session *session, const char *name)
{
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    struct lk_segment *segment;
    struct lk_lock *lock;
    if (lk_segment_open(session, name, &options, &segment) < 0 || lk_lock_at(segment, 0, &lock) < 0)
        return NULL;
    return lock;
}

int main(int argc, char **argv)
{
    struct lk_session *session;
    struct lk_lock *own, *wanted;
    if (argc != 3 || lk_session_open(NULL, NULL, &session) < 0 ||
        !(own = open_lock(session, argv[1])) || !(wanted = open_lock(session, argv[2])) ||
        lk_lock_acquire(own, LK_EXCLUSIVE, LK_WAIT_FOREVER) < 0) {
        fprintf(stderr, "%s\n", lk_last_error());
        return 1;
    }
    puts("held");
    fflush(stdout);
    if (getchar() == EOF || shutdown(session->transport.socket_fd, SHUT_RDWR) < 0)
        return 1;
    lk_lock_acquire(wanted, LK_EXCLUSIVE, LK_WAIT_FOREVER);
    return 1; /* it is killed before that */
}
