/* SPDX-License-Identifier: MIT */
#include "client/cli/probe.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/admin.h"
#include "client/cli/cli.h"
#include "common/cleanup.h"
#include "common/clock.h"

static int keep_broker(const struct lki_list_entry *entry, void *user)
{
    struct lki_probe *probe = user;
    probe->pid = entry->pid;
    probe->uid = entry->uid;
    probe->sessions = entry->waiters;
    probe->segments = entry->attachments;
    probe->up_ns = lki_clock_now_ns() - entry->since_ns; /* a time, not a duration, of the broker */
    return 0;
}

void lki_probe(const struct lki_place *place, struct lki_probe *probe)
{
    *probe = (struct lki_probe){.place = place, .result = place->result};
    if (probe->result != 0) {
        snprintf(probe->problem, sizeof(probe->problem), "%s", lk_strerror(probe->result));
        return;
    }
    struct lk_session_options options = {.size = sizeof(options), .flags = LK_NO_AUTOSTART};
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    int r = lk_session_open(place->path, &options, &session);
    if (r == 0)
        r = lki_admin_list(session, LKI_LIST_BROKER, NULL, keep_broker, probe);
    probe->answers = r == 0;
    probe->result = r;
    if (r < 0)
        snprintf(probe->detail, sizeof(probe->detail), "%s", lk_last_error());
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (r == 0 &&
        getsockopt(lki_admin_socket(session), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0)
        probe->peer_pid = peer.pid;
    struct stat status;
    probe->blocked =
        r == -ECONNREFUSED && stat(place->path, &status) == 0 && !S_ISSOCK(status.st_mode);
    if (r < 0)
        snprintf(probe->problem, sizeof(probe->problem), "%s",
                 probe->blocked ? "it is not a socket" : lk_strerror(r));
}

bool lki_probe_is_usable(const struct lki_probe *probe)
{
    return probe->answers || probe->place->result == -ENOENT ||
           (probe->result == -ECONNREFUSED && !probe->blocked);
}

size_t lki_probe_all(const char *explicit_path, struct lki_places *places,
                     struct lki_probe probes[LKI_PLACES_MAX])
{
    lki_places_find(explicit_path, getuid(), places);
    size_t used = places->start;
    bool found = false;
    for (size_t i = 0; i < places->count; i++) {
        lki_probe(&places->entries[i], &probes[i]);
        if (probes[i].answers && !found) {
            found = true;
            used = i;
        }
    }
    probes[used].used = true;
    return used;
}
