/* SPDX-License-Identifier: MIT */
/* Where a broker's socket may be: the candidates in order, each with the reason why it is one and
 * whether it can be trusted. Client and daemon ask here, so that a login shell, a cron job and a
 * unit end up at the same broker.
 *
 *     an explicit path                          alone, if given
 *     $LOCKKEEPER_SOCKET                        alone, if set and not empty (ignored in setuid
 * programs) /run/lockkeeper/broker.sock               the system broker; never started from here
 *     /run/user/UID/lockkeeper/broker.sock      computed from the uid: cron has no XDG_RUNTIME_DIR
 *     /tmp/lockkeeper-UID/broker.sock           a directory of mode 0700 that nobody else owns
 *
 * A client connects to the first usable candidate that answers. If none does, it starts a broker at
 * `places.start`, after lki_place_prepare(). It never connects to a candidate that is not usable:
 * somebody else may have put it there. Looks at directories, opens nothing, connects to nothing.
 * Thread-safe apart from the environment. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/bounds.h"

enum lki_place_kind {
    LKI_PLACE_EXPLICIT,
    LKI_PLACE_ENVIRONMENT,
    LKI_PLACE_SYSTEM,
    LKI_PLACE_USER,
    LKI_PLACE_FALLBACK,
};

struct lki_place {
    enum lki_place_kind kind;
    /* 0: may be connected to. -ENOENT: its directory does not exist (lki_place_prepare() may make
     * it). -ENAMETOOLONG, -ENOTDIR (no directory, or a symbolic link), -EPERM (owned by or open to
     * others), or what lstat(2) said. */
    int result;
    bool own_directory; /* the directory is ours alone: mode 0700, made by lki_place_prepare() */
    char path[LKI_SOCKET_PATH_BYTES_MAX + 1]; /* empty with -ENAMETOOLONG */
    char reason[160]; /* for people, one line, without path and control bytes */
};

#define LKI_PLACES_MAX 3

struct lki_places {
    size_t count; /* at least 1 */
    size_t start; /* index of the candidate at which a broker is started when nobody answers */
    struct lki_place entries[LKI_PLACES_MAX];
};

/**
 * Lists the candidates for uid.
 * @explicit_path: given by the caller, or NULL
 */
void lki_places_find(const char *explicit_path, uid_t uid, struct lki_places *out_places);

/* As above, with what it would look up by itself: for tests. environment may be NULL. */
struct lki_place_roots {
    const char *run_directory; /* "/run" */
    const char *tmp_directory; /* "/tmp" */
    const char *environment;   /* value of $LOCKKEEPER_SOCKET */
};
void lki_places_find_in(const struct lki_place_roots *roots, const char *explicit_path, uid_t uid,
                        struct lki_places *out_places);

/* Makes the candidate's directory where it is ours to make, and checks it again; a directory that
 * the user named is left alone. Returns 0 or place->result's errors, and -EACCES, -EROFS, ... from
 * mkdir(2). */
int lki_place_prepare(struct lki_place *place, uid_t uid);
