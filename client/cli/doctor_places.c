/* SPDX-License-Identifier: MIT */
/* doctor: the places where a broker may be. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/doctor.h"
#include "client/cli/text.h"

/* The process that holds PATH.lock, as every broker does for life; 0: nobody. Read from /proc/locks:
 * to try the lock could keep a broker that starts now from getting it. */
static int32_t find_lock_owner(const char *socket_path)
{
    char path[LKI_SOCKET_PATH_BYTES_MAX + 8], line[256];
    struct stat status;
    int32_t owner = 0;

    snprintf(path, sizeof(path), "%s.lock", socket_path);
    if (stat(path, &status) < 0)
        return 0;
    FILE *locks = fopen("/proc/locks", "re");
    if (!locks)
        return 0;
    while (owner == 0 && fgets(line, sizeof(line), locks)) {
        char kind[16];
        int32_t pid;
        unsigned device_major, device_minor;
        unsigned long inode;
        if (sscanf(line, "%*d: %15s %*s %*s %" SCNd32 " %x:%x:%lu", kind, &pid, &device_major,
                   &device_minor, &inode) == 5 &&
            strcmp(kind, "FLOCK") == 0 && inode == status.st_ino &&
            device_major == major(status.st_dev) && device_minor == minor(status.st_dev))
            owner = pid;
    }
    (void)fclose(locks);
    return owner;
}

/* Nobody answers at this place although something is there, or should be. */
static void look_at_silent(struct lki_doctor *doctor, const struct lki_probe *probe)
{
    const char *path = probe->place->path;
    char advice[512];
    struct stat status;
    int32_t owner = find_lock_owner(path);
    bool exists = lstat(path, &status) == 0;

    if (probe->blocked) {
        snprintf(advice, sizeof(advice),
                 "no broker can listen there: remove it, or choose another path: rm %s", path);
        lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "socket", advice, "%s is not a socket", path);
    } else if (owner != 0) {
        snprintf(advice, sizeof(advice),
                 "nobody new can reach it, and no other can start: end it with 'kill %" PRId32
                 "' when its clients are done",
                 owner);
        lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "socket", advice,
                        "a broker (pid %" PRId32 ") holds %s.lock, but its socket %s", owner, path,
                        exists ? "was replaced: nobody listens at it" : "has been removed");
    } else if (exists) {
        snprintf(advice, sizeof(advice),
                 probe->place->kind == LKI_PLACE_SYSTEM
                     ? "have the system's broker started: lockkeeperd --socket %s"
                     : "the next client replaces it; or start a broker: lockkeeperd --socket %s",
                 path);
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "socket", advice,
                        "nobody listens at %s: its broker ended without cleaning up", path);
    }
}

/* A place that cannot be used at all. */
static void look_at_unusable(struct lki_doctor *doctor, const struct lki_probe *probe)
{
    const char *path = probe->place->path;
    char advice[512];
    enum lki_health health = probe->used ? LKI_HEALTH_PROBLEM : LKI_HEALTH_WARNING;

    switch (probe->result) {
    case -ENAMETOOLONG:
        lki_doctor_tell(doctor, health, "path", "choose a shorter path", "the socket path was %s",
                        probe->place->reason);
        return;
    case -EPERM:
    case -ENOTDIR:
        snprintf(advice, sizeof(advice),
                 "somebody else may have put it there: have the directory of %s removed, or set "
                 "LOCKKEEPER_SOCKET",
                 path);
        break;
    case -EACCES:
        snprintf(advice, sizeof(advice),
                 "look at owner and mode of socket and directory: ls -ld %s; a broker in a pid "
                 "namespace of its own serves nobody outside of it",
                 path);
        break;
    case -EPROTONOSUPPORT:
    case -EPROTO:
        snprintf(advice, sizeof(advice),
                 "broker and client have to be of the same release: restart whichever is older");
        break;
    default:
        snprintf(advice, sizeof(advice), "see: lockkeeper --socket %s ls", path);
        break;
    }
    const char *check =
        probe->result == -EPROTONOSUPPORT || probe->result == -EPROTO ? "version" : "path";
    lki_doctor_tell(doctor, health, check, advice, "%s cannot be used (%s): %s", path,
                    probe->place->reason, *probe->detail ? probe->detail : probe->problem);
}

static void look_at(struct lki_doctor *doctor, const struct lki_probe *probe)
{
    if (probe->answers)
        return;
    switch (probe->result) {
    case -ECONNREFUSED:
    case -ENOENT: /* no directory: then there is no file of any kind */
        look_at_silent(doctor, probe);
        break;
    default:
        look_at_unusable(doctor, probe);
        break;
    }
}

static void tell_used(struct lki_doctor *doctor)
{
    const struct lki_probe *used = doctor->used;
    if (used->answers)
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "broker", NULL,
                        "pid %" PRId32 " answers at %s (%s), up %s, %" PRIu32 " sessions, %" PRIu32
                        " segments",
                        used->pid, used->place->path, used->place->reason,
                        lki_text_duration(used->up_ns).text, used->sessions, used->segments);
    else if (lki_probe_is_usable(used))
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "broker", NULL,
                        "nobody answers; the next program starts a broker at %s (%s)",
                        used->place->path, used->place->reason);
}

/* Another broker than the one that is used from here. */
static void tell_second(struct lki_doctor *doctor, const struct lki_probe *second)
{
    char advice[512];
    snprintf(advice, sizeof(advice),
             "names at one are not known at the other: end one, or set LOCKKEEPER_SOCKET to the "
             "same path for all programs that belong together");
    lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "second-broker", advice,
                    "pid %" PRId32 " answers at %s (%s), beside pid %" PRId32
                    " at %s, which is used from here",
                    second->pid, second->place->path, second->place->reason, doctor->used->pid,
                    doctor->used->place->path);
}

/* With a path of its own, this program looks nowhere else; others may. */
static void look_for_second_elsewhere(struct lki_doctor *doctor)
{
    static const struct lki_place_roots roots = {.run_directory = "/run", .tmp_directory = "/tmp"};
    struct lki_places places;
    struct lki_probe probe;

    lki_places_find_in(&roots, NULL, getuid(), &places);
    for (size_t i = 0; i < places.count; i++) {
        if (strcmp(places.entries[i].path, doctor->used->place->path) == 0)
            continue;
        lki_probe(&places.entries[i], &probe);
        if (probe.answers && probe.pid != doctor->used->pid)
            tell_second(doctor, &probe);
    }
}

void lki_doctor_look_at_places(struct lki_doctor *doctor)
{
    size_t used = lki_probe_all(doctor->cli->socket_path, &doctor->places, doctor->probes);
    doctor->used = &doctor->probes[used];
    tell_used(doctor);
    for (size_t i = 0; i < doctor->places.count; i++) {
        const struct lki_probe *probe = &doctor->probes[i];
        look_at(doctor, probe);
        if (probe->answers && i != used)
            tell_second(doctor, probe);
    }
    if (doctor->used->answers && doctor->places.count == 1)
        look_for_second_elsewhere(doctor);
}
