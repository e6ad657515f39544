/* SPDX-License-Identifier: MIT */
/* wordcount_worker [--delay MS] [--stop-in N]
 *
 * Counts the words of every chunk that nobody else is counting. Kill it whenever you like: the
 * others count its chunk again, and the total stays exact.
 *   --delay MS   rests after each chunk, so that a person can watch
 *   --stop-in N  stops itself (SIGSTOP) inside its critical section, in the N-th chunk it counts */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wordcount.h"

struct worker {
    struct lk_segment *segment; /* of the table */
    struct lk_lock *totals_lock;
    struct table *table;
    const unsigned char *text;
    long counted, stop_in, delay_ms;
};

/* Counts the words of chunk i. A word is what `wc -w` takes for one: a run without white space that
 * has something printable. It belongs to the chunk with its first printable byte: none is counted
 * twice. */
static struct counts count_words(const struct worker *worker, uint64_t i)
{
    const unsigned char *text = worker->text;
    uint64_t text_bytes = worker->table->text_bytes, at = i * worker->table->chunk_bytes;
    uint64_t end = at + worker->table->chunk_bytes;
    end = end < text_bytes ? end : text_bytes;
    struct counts counts = {0};
    bool inside = false;
    for (uint64_t j = at; j > 0 && j < end && !isspace(text[j - 1]) && !inside; j--)
        inside = isprint(text[j - 1]);
    for (; at < end; at++) {
        if (isspace(text[at])) {
            inside = false;
        } else if (!inside && isprint(text[at])) {
            inside = true;
            counts.words++;
            counts.by_first_letter[isalpha(text[at]) ? tolower(text[at]) - 'a' : LETTERS - 1]++;
        }
    }
    return counts;
}

/* Somebody died with the totals half changed. The chunks that are done are whole: add them up anew.
 */
static void repair_totals(const struct worker *worker)
{
    struct table *table = worker->table;
    struct lk_recovery died = {.size = sizeof(died)};
    check(lk_lock_recovery(worker->totals_lock, &died));
    memset(&table->totals, 0, sizeof(table->totals));
    table->chunks_done = 0;
    for (uint64_t i = 0; i < table->chunks; i++) {
        if (table->chunk[i].done) {
            add_counts(&table->totals, &table->chunk[i].counts);
            table->chunks_done++;
        }
    }
    check(lk_lock_mark_consistent(worker->totals_lock));
    printf("worker %d: was told that %s[%d] died inside, at work on bytes %" PRIu64 " to %" PRIu64
           " of the table: added the totals up anew from %" PRIu64 " finished chunks\n",
           getpid(), died.command, died.pid, died.dirty_offset,
           died.dirty_offset + died.dirty_length_bytes, table->chunks_done);
}

/* The critical section: the chunk's result and the totals change together, or are repaired. */
static void record(struct worker *worker, struct chunk *chunk, const struct counts *counts)
{
    struct table *table = worker->table;
    int r = check(lk_lock_acquire(worker->totals_lock, LK_EXCLUSIVE, LK_WAIT_FOREVER));
    if (r == LK_ACQUIRED_OWNER_DIED)
        repair_totals(worker);
    check(lk_lock_declare(worker->totals_lock, offsetof(struct table, chunks_done),
                          sizeof(table->chunks_done) + sizeof(table->totals)));
    chunk->counts = *counts;
    add_counts(&table->totals, counts);
    if (++worker->counted == worker->stop_in)
        raise(SIGSTOP); /* the totals are changed, the chunk is not done: the worst moment to die */
    /* Release: not before the counts are written. A signal may end us between two instructions. */
    atomic_store_explicit(&chunk->done, 1, memory_order_release);
    table->chunks_done++;
    check(lk_lock_release(worker->totals_lock));
}

/* Counts chunk i unless it is done, or somebody holds its lock for longer than the time-out. */
static void take_chunk(struct worker *worker, uint64_t i, uint64_t timeout_ns)
{
    struct chunk *chunk = &worker->table->chunk[i];
    struct lk_lock *lock;
    check(lk_lock_at(worker->segment, CHUNK_LOCK(i), &lock));
    int r = lk_lock_acquire(lock, LK_EXCLUSIVE, timeout_ns);
    if (r != -EBUSY) {
        check(r);
        if (!chunk->done) {
            struct counts counts = count_words(worker, i);
            record(worker, chunk, &counts);
            nanosleep(&(struct timespec){.tv_nsec = worker->delay_ms * 1000000}, NULL);
        }
        if (r == LK_ACQUIRED_OWNER_DIED) {
            printf("worker %d: whoever had claimed chunk %" PRIu64 " died: counted it again\n",
                   getpid(), i);
            check(lk_lock_mark_consistent(lock));
        }
        check(lk_lock_release(lock));
    }
    lk_lock_close(lock);
}

int main(int argc, char **argv)
{
    struct worker worker = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--delay") == 0)
            worker.delay_ms = strtol(argv[i + 1], NULL, 10) % 1000;
        if (strcmp(argv[i], "--stop-in") == 0)
            worker.stop_in = strtol(argv[i + 1], NULL, 10);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct lk_session *session;
    struct lk_segment *text;
    struct lk_segment_options read_only = {.size = sizeof(read_only), .flags = LK_READ_ONLY};
    void *address;
    check(lk_session_open(NULL, NULL, &session));
    check(lk_segment_open(session, TEXT_SEGMENT, &read_only, &text));
    check(lk_segment_map(text, 0, 0, &address));
    worker.text = address;
    check(lk_segment_open(session, TABLE_SEGMENT, NULL, &worker.segment));
    check(lk_segment_map(worker.segment, 0, 0, &address));
    worker.table = address;
    check(lk_lock_at(worker.segment, TOTALS_LOCK, &worker.totals_lock));

    /* First what nobody works on; then once more, waiting for those who still do, or die of it. */
    for (uint64_t i = 0; i < worker.table->chunks; i++)
        take_chunk(&worker, i, 0);
    for (uint64_t i = 0; i < worker.table->chunks; i++)
        take_chunk(&worker, i, LK_WAIT_FOREVER);
    printf("worker %d: counted %ld chunks\n", getpid(), worker.counted);
    lk_session_close(session);
    return 0;
}
