/* SPDX-License-Identifier: MIT */
#include "common/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/assert.h"

/* Checks that path is a directory that uid owns. With alone, that nobody else may enter it. */
static int check_directory(const char *path, uid_t uid, bool alone)
{
    struct stat status;
    if (lstat(path, &status) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    /* Nobody else's, and without bits for others: then no one can put a socket of his own in here.
     */
    if (status.st_uid != uid || (alone && (status.st_mode & 077) != 0))
        return -EPERM;
    return 0;
}

/* The directory of place->path, in the caller's buffer. */
static void directory_of(const struct lki_place *place, char *out_directory, size_t bytes)
{
    (void)snprintf(out_directory, bytes, "%s", place->path);
    char *slash = strrchr(out_directory, '/');
    LKI_ASSERT(slash != NULL);
    *slash = '\0';
}

static int check_place(const struct lki_place *place, uid_t uid)
{
    if (place->path[0] == '\0')
        return -ENAMETOOLONG;
    if (!place->own_directory)
        return 0; /* named by the user, or below root's /run: connect() will tell */
    char directory[sizeof(place->path)];
    directory_of(place, directory, sizeof(directory));
    return check_directory(directory, uid, true);
}

static void set_reason(struct lki_place *place, const char *why)
{
    const char *problem = "";
    switch (place->result) {
    case 0:
        break;
    case -ENOENT:
        problem = ": its directory does not exist";
        break;
    case -ENAMETOOLONG:
        problem = ": too long for a socket address (107 bytes)";
        break;
    case -ENOTDIR:
        problem = ": not used, its directory is a link or no directory";
        break;
    case -EPERM:
        problem = ": not used, its directory is owned by or open to others";
        break;
    default:
        problem = ": not used, its directory cannot be examined";
        break;
    }
    /* Not snprintf(): this is on the way of every connecting program, and its first use costs a new
     * process more than the connection. */
    size_t why_bytes = strlen(why);
    size_t problem_bytes = strlen(problem);
    LKI_ASSERT(why_bytes + problem_bytes < sizeof(place->reason));
    memcpy(place->reason, why, why_bytes);
    memcpy(place->reason + why_bytes, problem, problem_bytes + 1);
}

static const char *why_candidate(enum lki_place_kind kind)
{
    switch (kind) {
    case LKI_PLACE_EXPLICIT:
        return "given explicitly";
    case LKI_PLACE_ENVIRONMENT:
        return "from $LOCKKEEPER_SOCKET";
    case LKI_PLACE_SYSTEM:
        return "the system broker";
    case LKI_PLACE_USER:
        return "the user's own broker";
    case LKI_PLACE_FALLBACK:
        return "the user's own broker, where there is no /run/user directory";
    }
    return "";
}

/* Adds a candidate; path is checked for length here. */
static void add(struct lki_places *places, enum lki_place_kind kind, uid_t uid, const char *path)
{
    LKI_ASSERT(places->count < LKI_PLACES_MAX);
    struct lki_place *place = &places->entries[places->count++];
    memset(place, 0, sizeof(*place));
    place->kind = kind;
    place->own_directory = kind == LKI_PLACE_USER || kind == LKI_PLACE_FALLBACK;
    size_t length = strlen(path);
    if (length < sizeof(place->path))
        memcpy(place->path, path, length + 1);
    place->result = check_place(place, uid);
    set_reason(place, why_candidate(kind));
}

void lki_places_find_in(const struct lki_place_roots *roots, const char *explicit_path, uid_t uid,
                        struct lki_places *out_places)
{
    out_places->count = 0;
    out_places->start = 0;
    if (explicit_path != NULL) {
        add(out_places, LKI_PLACE_EXPLICIT, uid, explicit_path);
        return;
    }
    if (roots->environment != NULL && roots->environment[0] != '\0') {
        add(out_places, LKI_PLACE_ENVIRONMENT, uid, roots->environment);
        return;
    }

    char path[512];
    (void)snprintf(path, sizeof(path), "%s/lockkeeper/broker.sock", roots->run_directory);
    add(out_places, LKI_PLACE_SYSTEM, uid, path);
    (void)snprintf(path, sizeof(path), "%s/user/%lu/lockkeeper/broker.sock", roots->run_directory,
                   (unsigned long)uid);
    add(out_places, LKI_PLACE_USER, uid, path);
    (void)snprintf(path, sizeof(path), "%s/lockkeeper-%lu/broker.sock", roots->tmp_directory,
                   (unsigned long)uid);
    add(out_places, LKI_PLACE_FALLBACK, uid, path);

    /* A broker of the user's own goes below /run/user/UID where the system provides that: it is on
     * tmpfs, and no cleaner of temporary files removes the socket. */
    char user_directory[512];
    (void)snprintf(user_directory, sizeof(user_directory), "%s/user/%lu", roots->run_directory,
                   (unsigned long)uid);
    const struct lki_place *user = &out_places->entries[1];
    bool user_usable = check_directory(user_directory, uid, false) == 0 &&
                       (user->result == 0 || user->result == -ENOENT);
    out_places->start = user_usable ? 1 : 2;
}

void lki_places_find(const char *explicit_path, uid_t uid, struct lki_places *out_places)
{
    const struct lki_place_roots roots = {
        .run_directory = "/run",
        .tmp_directory = "/tmp",
        .environment = explicit_path == NULL ? secure_getenv("LOCKKEEPER_SOCKET") : NULL,
    };
    lki_places_find_in(&roots, explicit_path, uid, out_places);
}

int lki_place_prepare(struct lki_place *place, uid_t uid)
{
    if (place->result == -ENOENT && place->own_directory) {
        char directory[sizeof(place->path)];
        directory_of(place, directory, sizeof(directory));
        /* EEXIST: another process was faster; the check below looks at what it made. */
        if (mkdir(directory, 0700) < 0 && errno != EEXIST)
            return -errno;
        place->result = check_place(place, uid);
        set_reason(place, why_candidate(place->kind));
    }
    return place->result;
}
