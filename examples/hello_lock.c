/* SPDX-License-Identifier: MIT */
/* Takes the lock "hello", and names the holder if somebody else has it. */
#include <lockkeeper/lockkeeper.h>
#include <stdio.h>

int main(void)
{
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *lock;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_CREATE};
    if (lk_session_open(NULL, NULL, &session) < 0 ||
        lk_segment_open(session, "hello", &options, &segment) < 0 ||
        lk_lock_at(segment, 0, &lock) < 0 || lk_lock_acquire(lock, LK_EXCLUSIVE, 1000000000) < 0) {
        fprintf(stderr, "%s\n", lk_last_error());
        return 1;
    }
    printf("locked, token %llu\n", (unsigned long long)lk_lock_token(lock));
    lk_lock_release(lock);
    lk_session_close(session);
    return 0;
}
