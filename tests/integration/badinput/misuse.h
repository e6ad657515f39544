/* SPDX-License-Identifier: MIT */
/* Wrong uses of the C API against a real broker. Each case is one call that has to fail; around it
 * stand a holder, a bystander, shared data and open descriptors, which have to be as before. */
#pragma once

#include <stdint.h>

#include <lockkeeper/lockkeeper.h>

#define DATA_BYTES UINT64_C(8192)
#define DATA_BYTES_MAX UINT64_C(16384)
#define LOCKS 32u

enum place {
    THEIRS = 0,  /* held exclusively by the bystander */
    OURS = 1,    /* held exclusively by us */
    READ = 2,    /* held shared by us and by the bystander */
    FREE = 3,    /* held by nobody, for cases to use */
    DAMAGED = 4, /* an owner died inside */
};

struct scene {
    const char *socket_path;
    const char *directory; /* of the socket; cases clean up what they make there */
    struct lk_session *session, *bystander;
    struct lk_segment *segment; /* ours: DATA_BYTES, may grow to DATA_BYTES_MAX */
    struct lk_segment *theirs;  /* the same, of the bystander */
    unsigned char *data;
    struct lk_lock *locks[LOCKS], *their_locks[LOCKS];
    char text[1024]; /* of the case, where it has to tidy up behind it with calls that fail too */
};

struct misuse {
    const char *name; /* as docs/errors.md has it */
    int (*run)(struct scene *scene);
    int expected; /* what it has to return */
};

extern const struct misuse misuse_of_sessions[], misuse_of_segments[], misuse_of_maps[],
    misuse_of_locks[]; /* each ends with a name of NULL */

/* For a condition without which a case means nothing: ends the program. */
#define NEED(condition) ((condition) ? (void)0 : misuse_broken(#condition, __FILE__, __LINE__))
_Noreturn void misuse_broken(const char *condition, const char *file, int line);

/* An open session or segment of its own, for a case to ruin. */
struct lk_session *misuse_session(const struct scene *scene);
struct lk_segment *misuse_segment(struct lk_session *session, const char *name, uint64_t size_bytes,
                                  uint32_t flags);
