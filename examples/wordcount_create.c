/* SPDX-License-Identifier: MIT */
/* wordcount_create FILE [CHUNKS]
 *
 * Offers FILE to everybody as a segment, and makes the table to count into. Both are kept, so they
 * outlive this program: `lockkeeper seg rm wordcount.text wordcount.table` removes them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "wordcount.h"

static struct lk_segment *offer_text(struct lk_session *session, const char *path)
{
    /* The file is opened here, with our rights: the broker only hands the descriptor on. */
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "cannot open %s: %s\n", path, strerror(errno));
        exit(1);
    }
    struct lk_segment_options options = {.size = sizeof(options)};
    options.flags = LK_CREATE_NEW | LK_KEEP;
    struct lk_segment *text;
    check(lk_segment_offer(session, TEXT_SEGMENT, fd, &options, &text));
    return text;
}

static void make_table(struct lk_session *session, uint64_t text_bytes, uint64_t chunks)
{
    struct lk_segment_options options = {.size = sizeof(options)};
    options.size_bytes = sizeof(struct table) + chunks * sizeof(struct chunk);
    options.locks = (uint32_t)chunks + 1;
    /* Unpublished: nobody opens it before it is filled in, even if we die half way. */
    options.flags = LK_CREATE_NEW | LK_KEEP | LK_UNPUBLISHED;
    struct lk_segment *segment;
    check(lk_segment_open(session, TABLE_SEGMENT, &options, &segment));

    void *address;
    check(lk_segment_map(segment, 0, 0, &address));
    struct table *table = address; /* zeroed, as fresh memory is */
    table->text_bytes = text_bytes;
    table->chunk_bytes = (text_bytes + chunks - 1) / chunks;
    table->chunks = chunks;
    check(lk_segment_publish(segment));
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: wordcount_create FILE [CHUNKS]\n");
        return 64;
    }
    long chunks = argc == 3 ? strtol(argv[2], NULL, 10) : 240;
    if (chunks < 1 || chunks > 100000) {
        fprintf(stderr, "CHUNKS: a number from 1 to 100000\n");
        return 64;
    }
    struct lk_session *session;
    check(lk_session_open(NULL, NULL, &session));
    uint64_t text_bytes = lk_segment_size(offer_text(session, argv[1]));
    make_table(session, text_bytes, (uint64_t)chunks);
    printf("%llu bytes in %ld chunks\n", (unsigned long long)text_bytes, chunks);
    lk_session_close(session); /* closes all that was opened through it */
    return 0;
}
