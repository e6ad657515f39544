/* SPDX-License-Identifier: MIT */
#include "client/connect.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/autostart.h"
#include "client/error.h"
#include "common/cleanup.h"
#include "common/fd.h"
#include "proto/channel.h"

/* Whether the one who listens may be trusted with our locks: root, ourselves, or whoever owns the
 * socket file that the caller chose. Else somebody took the place of a broker that has gone. */
static int check_peer(int fd, const char *path)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return -errno;
    if (peer.uid == 0 || peer.uid == geteuid())
        return 0;
    struct stat status;
    return lstat(path, &status) == 0 && status.st_uid == peer.uid ? 0 : -EACCES;
}

int lki_connect_path(const char *path, int *out_fd)
{
    struct sockaddr_un address;
    socklen_t address_bytes;
    int r = lki_socket_address(path, &address, &address_bytes);
    if (r < 0)
        return r;
    LKI_CLEANUP(lki_close_p) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    while (connect(fd, (const struct sockaddr *)&address, address_bytes) < 0)
        if (errno != EINTR)
            return errno == EPROTOTYPE ? -EPROTO : -errno;
    r = check_peer(fd, path);
    if (r < 0)
        return r;
    *out_fd = lki_steal_fd(&fd);
    return 0;
}

static bool means_nobody(int result)
{
    return result == -ENOENT || result == -ECONNREFUSED || result == -ENOTDIR;
}

/* The text for a candidate that cannot be used although it is there. */
static int fail_at(const struct lki_place *place, int result)
{
    switch (result) {
    case -ENAMETOOLONG:
        lki_fail(result, "cannot connect to a broker: the socket path was %s", place->reason);
        return lki_fail_hint(result, "choose a shorter one");
    case -EACCES:
        lki_fail(result, "cannot connect to %s (%s): no permission, or a stranger answers there",
                 place->path, place->reason);
        return lki_fail_hint(result, "look at its owner and mode with 'ls -l'");
    case -EPROTO:
        return lki_fail(result, "cannot connect to %s (%s): not a broker's socket", place->path,
                        place->reason);
    case -EPERM: /* somebody else has our place in /tmp: not the words that locks have for EPERM */
        lki_fail(-EACCES, "cannot use %s (%s)", place->path, place->reason);
        return lki_fail_hint(-EACCES, "have that directory removed, or set $LOCKKEEPER_SOCKET");
    case -EMFILE:
        lki_fail(result, "cannot connect to %s (%s): this process has no descriptor left",
                 place->path, place->reason);
        return lki_fail_hint(result, "close some or raise 'ulimit -n', and try again");
    default:
        return lki_fail(result, "cannot connect to %s (%s): %s", place->path, place->reason,
                        lk_strerror(result));
    }
}

static bool autostart_allowed(uint32_t flags)
{
    const char *word = secure_getenv("LOCKKEEPER_AUTOSTART");
    return !(flags & LK_NO_AUTOSTART) && !(word && strcmp(word, "0") == 0);
}

/* Nobody answers anywhere: starts a broker, or says how to. */
static int start(struct lki_place *place, uint32_t flags, int *out_fd)
{
    struct stat status;
    if (stat(place->path, &status) == 0 && !S_ISSOCK(status.st_mode)) {
        lki_fail(-ECONNREFUSED, "cannot connect to %s (%s): it is not a socket", place->path,
                 place->reason);
        return lki_fail_hint(-ECONNREFUSED, "remove it, or choose another path");
    }
    if (!autostart_allowed(flags)) {
        lki_fail(-ECONNREFUSED, "no broker answers at %s (%s)", place->path, place->reason);
        return lki_fail_hint(-ECONNREFUSED, "start one: lockkeeperd --socket %s", place->path);
    }
    int r = lki_place_prepare(place, geteuid());
    if (r < 0)
        return fail_at(place, r);
    return lki_autostart(place->path, out_fd);
}

int lki_connect(const char *explicit_path, uint32_t flags, int *out_fd,
                char out_path[LKI_SOCKET_PATH_BYTES_MAX + 1])
{
    struct lki_places places;
    lki_places_find(explicit_path, geteuid(), &places);
    for (size_t i = 0; i < places.count; i++) {
        const struct lki_place *place = &places.entries[i];
        int r = place->result == 0 ? lki_connect_path(place->path, out_fd) : place->result;
        memcpy(out_path, place->path, sizeof(place->path));
        if (r == 0)
            return 0;
        /* A system broker that does not want us is no reason not to have an own one; a full
         * descriptor table is one to stop. */
        bool stop = places.count == 1 || r == -EMFILE || r == -ENFILE || r == -ENOMEM;
        if (stop && !means_nobody(r))
            return fail_at(place, r);
    }
    struct lki_place *place = &places.entries[places.start];
    memcpy(out_path, place->path, sizeof(place->path));
    return start(place, flags, out_fd);
}
