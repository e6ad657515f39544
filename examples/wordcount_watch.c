/* SPDX-License-Identifier: MIT */
/* wordcount_watch
 *
 * Draws a progress line on stderr until all chunks are counted, then prints the totals. It maps the
 * table read-only and takes no lock, so it never makes a worker wait: it copies, and uses the copy
 * only if nobody wrote meanwhile. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wordcount.h"

/* Copies the head of the table. Returns 0, or -EAGAIN / -EOWNERDEAD: a writer is, or died, inside.
 */
static int look(const struct lk_lock *lock, const struct table *table, struct table *out)
{
    for (;;) {
        uint64_t version;
        int r = lk_read_begin(lock, &version);
        if (r == -EAGAIN || r == -EOWNERDEAD)
            return r;
        check(r);
        lk_read_copy(out, table, sizeof(*table));
        if (lk_read_valid(lock, version))
            return 0;
    }
}

static void draw(const struct table *seen, int state, bool terminal)
{
    int tenths = seen->chunks ? (int)(seen->chunks_done * 30 / seen->chunks) : 0;
    char bar[31];
    memset(bar, '-', 30);
    memset(bar, '#', (size_t)tenths);
    bar[30] = '\0';
    fprintf(stderr, "%s[%s] %llu/%llu chunks, %llu words%s%s", terminal ? "\r\033[K" : "", bar,
            (unsigned long long)seen->chunks_done, (unsigned long long)seen->chunks,
            (unsigned long long)seen->totals.words,
            state == -EAGAIN       ? " (somebody is inside)"
            : state == -EOWNERDEAD ? " (somebody died inside)"
                                   : "",
            terminal ? "" : "\n");
}

int main(void)
{
    struct lk_session *session;
    struct lk_segment *segment;
    struct lk_lock *totals_lock;
    void *address;
    struct lk_segment_options options = {.size = sizeof(options), .flags = LK_READ_ONLY};
    check(lk_session_open(NULL, NULL, &session));
    check(lk_segment_open(session, TABLE_SEGMENT, &options, &segment));
    check(lk_segment_map(segment, 0, 0, &address));
    check(lk_lock_at(segment, TOTALS_LOCK, &totals_lock));

    bool terminal = isatty(STDERR_FILENO);
    struct table seen = {0};
    for (int tick = 0; seen.chunks == 0 || seen.chunks_done < seen.chunks; tick++) {
        int state = look(totals_lock, address, &seen);
        if (terminal || tick % 10 == 0)
            draw(&seen, state, terminal);
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
    draw(&seen, 0, terminal);
    if (terminal)
        fputc('\n', stderr);

    int often = 0;
    for (int i = 0; i < LETTERS - 1; i++)
        if (seen.totals.by_first_letter[i] > seen.totals.by_first_letter[often])
            often = i;
    printf("%llu words; most often they begin with '%c': %llu\n",
           (unsigned long long)seen.totals.words, 'a' + often,
           (unsigned long long)seen.totals.by_first_letter[often]);
    lk_session_close(session);
    return 0;
}
