/* SPDX-License-Identifier: MIT */
/* hold_and_die NAME: takes the lock NAME, not to exit, says "held" and kills itself inside. */
#include <signal.h>
#include <stdio.h>

#include <lockkeeper/lockkeeper.h>

int main(int argc, char **argv)
{
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *lock;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE | LK_KEEP};
    if (argc != 2 || lk_session_open(NULL, NULL, &session) < 0 ||
        lk_segment_open(session, argv[1], &options, &segment) < 0 ||
        lk_lock_at(segment, 0, &lock) < 0 ||
        lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) < 0) {
        fprintf(stderr, "%s\n", lk_last_error());
        return 1;
    }
    puts("held");
    fflush(stdout);
    raise(SIGKILL);
    return 1;
}
