/* SPDX-License-Identifier: MIT */
/* Counts in shared memory how often it was run, as long as the segment lives: here, until
 * `lockkeeper seg rm hello-count`. Run it from two shells at once: no run is lost. */
#include <lockkeeper/lockkeeper.h>
#include <stdio.h>

int main(void)
{
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *lock;
    void *address;
    struct lk_segment_options options = {.size = sizeof(options), .size_bytes = 4096};
    options.flags = LK_CREATE | LK_KEEP;
    if (lk_session_open(NULL, NULL, &session) < 0 ||
        lk_segment_open(session, "hello-count", &options, &segment) < 0 ||
        lk_segment_map(segment, 0, 0, &address) < 0 || lk_lock_at(segment, 0, &lock) < 0 ||
        lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) < 0) {
        fprintf(stderr, "%s\n", lk_last_error());
        return 1;
    }
    uint64_t *runs = address;
    printf("run %llu\n", (unsigned long long)++*runs);
    lk_lock_release(lock);
    lk_session_close(session);
    return 0;
}
