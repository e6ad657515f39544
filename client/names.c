/* SPDX-License-Identifier: MIT */
#include "client/names.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "common/cleanup.h"

#define OWNER_BYTES_MAX 256u        /* of a user's or group's name, with its zero */
#define LOOKUP_BYTES_MAX (1u << 20) /* a group with many members needs a large buffer */

static bool is_number(const char *word)
{
    return word[strspn(word, "0123456789")] == '\0';
}

/* One look-up with a buffer of the given size. Returns 0 or an errno value; ENOENT: there is none.
 */
static int look_up(enum lki_name_kind kind, const char *owner, char *buffer, size_t bytes,
                   uint32_t *out_number)
{
    int error = 0;
    if (kind == LKI_NAME_USER) {
        struct passwd entry, *found = NULL;
        error = getpwnam_r(owner, &entry, buffer, bytes, &found);
        if (found)
            *out_number = found->pw_uid;
        return found ? 0 : error ? error : ENOENT;
    }
    struct group entry, *found = NULL;
    error = getgrnam_r(owner, &entry, buffer, bytes, &found);
    if (found)
        *out_number = found->gr_gid;
    return found ? 0 : error ? error : ENOENT;
}

/* Looks a login or group name up, with as much buffer as it takes. */
static int owner_number(enum lki_name_kind kind, const char *owner, uint32_t *out_number)
{
    size_t bytes = 1024;
    while (bytes <= LOOKUP_BYTES_MAX) {
        LKI_CLEANUP(lki_free_p) char *buffer = malloc(bytes);
        if (!buffer)
            return -ENOMEM;
        int error = look_up(kind, owner, buffer, bytes, out_number);
        if (error == ERANGE)
            bytes *= 4;
        else if (error != EINTR)
            return -error;
    }
    return -ENOENT;
}

/* "~alice/" or "@staff/" to a number. Writes the whole name with the number instead. */
static int resolve_owner(const char *name, enum lki_name_kind kind, struct lki_bytes who,
                         struct lki_bytes rest, char *out_full)
{
    const char *what = kind == LKI_NAME_USER ? "user" : "group";
    char owner[OWNER_BYTES_MAX];
    if (who.length_bytes == 0 || who.length_bytes >= sizeof(owner) ||
        rest.length_bytes > LKI_NAME_BYTES_MAX)
        return lki_fail(
            -EINVAL, "the name '%.300s' is not allowed: a part of it is empty or too long", name);
    memcpy(owner, who.data, who.length_bytes);
    owner[who.length_bytes] = '\0';
    if (is_number(owner)) {
        /* Digits stay digits; what is too large for a number is refused with the whole name. */
        if (who.length_bytes > 10)
            return lki_fail(-EINVAL, "the number in the name '%.300s' is too large", name);
        memcpy(out_full, name, strlen(name) + 1);
        return 0;
    }
    uint32_t number = 0;
    int r = owner_number(kind, owner, &number);
    if (r == -ENOENT)
        return lki_fail(r, "the name '%.300s' is of a %s '%s' that does not exist here", name, what,
                        owner);
    if (r < 0)
        return lki_fail(r, "cannot look up the %s '%s' of the name '%.300s'", what, owner, name);
    (void)snprintf(out_full, LKI_FULL_NAME_BYTES_MAX, "%c%u/%.*s", name[0], number,
                   (int)rest.length_bytes, (const char *)rest.data);
    return 0;
}

int lki_name_resolve(const char *name, char out_full[LKI_FULL_NAME_BYTES_MAX])
{
    if (!name)
        return lki_fail(-EINVAL, "a segment has to have a name");
    struct lki_bytes text = {(const uint8_t *)name, strlen(name)};
    struct lki_bytes who, rest;
    enum lki_name_kind kind = lki_name_split(text, &who, &rest);
    char full[LKI_FULL_NAME_BYTES_MAX];
    if (kind == LKI_NAME_OWN) {
        if (text.length_bytes > LKI_NAME_BYTES_MAX)
            return lki_fail(-EINVAL, "the name '%.80s...' has %zu bytes; 1 to %u are allowed", name,
                            text.length_bytes, LKI_NAME_BYTES_MAX);
        memcpy(full, name, text.length_bytes + 1);
    } else {
        int r = resolve_owner(name, kind, who, rest, full);
        if (r < 0)
            return r;
    }
    struct lki_name parsed;
    const char *reason = "";
    struct lki_bytes wire = {(const uint8_t *)full, strlen(full)};
    if (lki_name_parse(wire, &parsed, &reason) < 0)
        return lki_fail(-EINVAL, "the name '%.300s' is not allowed: %s", name, reason);
    memcpy(out_full, full, wire.length_bytes + 1);
    return 0;
}
