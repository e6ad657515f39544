/* SPDX-License-Identifier: MIT */
/* peer: the C library behind a pipe, for tests that let another client meet it. Reads a command a
 * line, answers each with a line: its numbers, negative errno values among them.
 *
 *     open NAME FLAGS SIZE LOCKS     result
 *     acquire LOCK MODE TIMEOUT_MS   result token; -1 waits for ever
 *     upgrade LOCK TIMEOUT_MS        result token
 *     downgrade LOCK MODE            result
 *     release LOCK | mark LOCK       result
 *     put OFFSET VALUE | get OFFSET  result | value
 *     holder LOCK                    result pid mode holders waiters
 *     recovery LOCK                  result cause pid token declared offset length
 *     churn LOCK MILLISECONDS        rounds: takes the lock, writes one number at both ends, again
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lockkeeper/lockkeeper.h>

enum { LOCKS_MAX = 16 };

static struct lk_session *session;
static struct lk_segment *segment;
static struct lk_lock *locks[LOCKS_MAX];
static uint64_t *data;
static uint64_t data_words;

static struct lk_lock *lock_of(const char *text)
{
    unsigned long index = strtoul(text, NULL, 10);
    if (index >= LOCKS_MAX || !locks[index]) {
        fprintf(stderr, "peer: no lock %s\n", text);
        exit(2);
    }
    return locks[index];
}

static int open_segment(char **words)
{
    struct lk_segment_options options = {
        .size = sizeof(options),
        .flags = (uint32_t)strtoul(words[2], NULL, 10),
        .size_bytes = strtoull(words[3], NULL, 10),
        .locks = (uint32_t)strtoul(words[4], NULL, 10),
    };
    int r = lk_segment_open(session, words[1], &options, &segment);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < LOCKS_MAX && lk_lock_at(segment, i, &locks[i]) == 0; i++)
        ;
    void *address = NULL;
    data_words = lk_segment_size(segment) / sizeof(*data);
    if (data_words && lk_segment_map(segment, 0, 0, &address) < 0)
        return -1;
    data = address;
    return r;
}

static uint64_t timeout_of(const char *text)
{
    long milliseconds = strtol(text, NULL, 10);
    return milliseconds < 0 ? LK_WAIT_FOREVER : (uint64_t)milliseconds * 1000000;
}

static enum lk_mode mode_of(const char *text)
{
    return (enum lk_mode)strtoul(text, NULL, 10);
}

static void tell_taken(struct lk_lock *lock, int result)
{
    printf("%d %" PRIu64 "\n", result, lk_lock_token(lock));
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Relaxed: readers look on without the lock, and tell by its sequence whether the pair is whole. */
static uint64_t churn(struct lk_lock *lock, uint64_t milliseconds)
{
    uint64_t rounds = 0;
    for (uint64_t end = now_ms() + milliseconds; now_ms() < end; rounds++) {
        if (lk_lock_acquire(lock, LK_EXCLUSIVE, LK_WAIT_FOREVER) < 0)
            return 0;
        uint64_t token = lk_lock_token(lock);
        __atomic_store_n(&data[0], token, __ATOMIC_RELAXED);
        __atomic_store_n(&data[data_words - 1], token, __ATOMIC_RELAXED);
        if (lk_lock_release(lock) < 0)
            return 0;
    }
    return rounds;
}

static void tell_holder(struct lk_lock *lock)
{
    struct lk_holder holder = {.size = sizeof(holder)};
    int r = lk_lock_holder(lock, &holder);
    printf("%d %d %u %u %u\n", r, holder.pid, holder.mode, holder.holders, holder.waiters);
}

static void tell_recovery(struct lk_lock *lock)
{
    struct lk_recovery found = {.size = sizeof(found)};
    int r = lk_lock_recovery(lock, &found);
    printf("%d %u %d %" PRIu64 " %u %" PRIu64 " %" PRIu64 "\n", r, found.cause, found.pid,
           found.token, found.declared, found.dirty_offset, found.dirty_length_bytes);
}

static void obey(char **words, int count)
{
    const char *verb = words[0];
    if (strcmp(verb, "open") == 0 && count == 5) {
        printf("%d\n", open_segment(words));
    } else if (strcmp(verb, "acquire") == 0 && count == 4) {
        struct lk_lock *lock = lock_of(words[1]);
        tell_taken(lock, lk_lock_acquire(lock, mode_of(words[2]), timeout_of(words[3])));
    } else if (strcmp(verb, "upgrade") == 0 && count == 3) {
        struct lk_lock *lock = lock_of(words[1]);
        tell_taken(lock, lk_lock_upgrade(lock, timeout_of(words[2])));
    } else if (strcmp(verb, "downgrade") == 0 && count == 3) {
        printf("%d\n", lk_lock_downgrade(lock_of(words[1]), mode_of(words[2])));
    } else if (strcmp(verb, "release") == 0 && count == 2) {
        printf("%d\n", lk_lock_release(lock_of(words[1])));
    } else if (strcmp(verb, "mark") == 0 && count == 2) {
        printf("%d\n", lk_lock_mark_consistent(lock_of(words[1])));
    } else if (strcmp(verb, "put") == 0 && count == 3) {
        data[strtoul(words[1], NULL, 10) / sizeof(*data)] = strtoull(words[2], NULL, 10);
        puts("0");
    } else if (strcmp(verb, "get") == 0 && count == 2) {
        printf("%" PRIu64 "\n", data[strtoul(words[1], NULL, 10) / sizeof(*data)]);
    } else if (strcmp(verb, "holder") == 0 && count == 2) {
        tell_holder(lock_of(words[1]));
    } else if (strcmp(verb, "recovery") == 0 && count == 2) {
        tell_recovery(lock_of(words[1]));
    } else if (strcmp(verb, "churn") == 0 && count == 3) {
        printf("%" PRIu64 "\n", churn(lock_of(words[1]), strtoull(words[2], NULL, 10)));
    } else {
        fprintf(stderr, "peer: what is '%s'?\n", verb);
        exit(2);
    }
}

int main(void)
{
    const struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    if (lk_session_open(NULL, &options, &session) < 0) {
        fprintf(stderr, "peer: %s\n", lk_last_error());
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    char line[512];
    while (fgets(line, sizeof(line), stdin)) {
        char *words[8] = {NULL};
        int count = 0;
        for (char *word = strtok(line, " \n"); word && count < 8; word = strtok(NULL, " \n"))
            words[count++] = word;
        if (count)
            obey(words, count);
    }
    lk_session_close(session);
    return 0;
}
