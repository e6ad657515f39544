/* SPDX-License-Identifier: MIT */
/* doctor: the broker's process, and the machine below it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "client/autostart.h"
#include "client/cli/cli.h"
#include "client/cli/doctor.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/fd.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

#define FILES_PER_SESSION 2u /* the socket, and a pidfd for its process */
#define FILES_PER_SEGMENT 2u /* control area and data */
#define FILES_OWN 32u        /* about: loop, listener, timers, lock, log */
#define FILES_FEW 1024u      /* fewer than this is a small machine's limit, or a mistake */
#define MAPS_PER_SEGMENT 1u
#define MAPS_OWN 256u

/* --- The broker's process --- */

/* The soft limit of open files of a process; 0: not known. */
static uint64_t files_max(int32_t pid)
{
    char path[64], line[256];
    unsigned long long soft = 0;
    snprintf(path, sizeof(path), "/proc/%" PRId32 "/limits", pid);
    FILE *limits = fopen(path, "re");
    if (!limits)
        return 0;
    while (soft == 0 && fgets(line, sizeof(line), limits))
        if (sscanf(line, "Max open files %llu", &soft) != 1)
            soft = 0;
    (void)fclose(limits);
    return soft;
}

uint64_t lki_doctor_files_for(uint64_t sessions, uint64_t segments)
{
    return FILES_OWN + sessions * FILES_PER_SESSION + segments * FILES_PER_SEGMENT;
}

static void look_at_files(struct lki_doctor *doctor, uint64_t max)
{
    const struct lki_probe *used = doctor->used;
    uint64_t now = lki_doctor_files_for(used->sessions, used->segments);
    uint64_t room = max > now ? (max - now) / FILES_PER_SESSION : 0;
    char found[256];
    if (max == 0)
        return; /* /proc does not show it */
    snprintf(found, sizeof(found),
             "the broker may open %" PRIu64 " files and needs about %" PRIu64 " for %" PRIu32
             " sessions and %" PRIu32 " segments; there is room for about %" PRIu64 " more",
             max, now, used->sessions, used->segments, room);
    bool scarce = max < FILES_FEW || now > max / 4 * 3;
    lki_doctor_tell(doctor, scarce ? LKI_HEALTH_WARNING : LKI_HEALTH_OK, "files",
                    scarce ? "start the broker with a higher limit: 'ulimit -n', or LimitNOFILE= "
                             "of its unit; it raises its soft limit to the hard one"
                           : NULL,
                    "%s", found);
}

static void look_at_owner(struct lki_doctor *doctor)
{
    const struct lki_probe *used = doctor->used;
    enum lki_place_kind kind = used->place->kind;
    bool own = kind == LKI_PLACE_USER || kind == LKI_PLACE_FALLBACK;
    if (used->uid == getuid() || used->uid == 0 || !own) {
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "owner", NULL, "the broker runs as %s",
                        lki_text_user(used->uid).text);
        return;
    }
    lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "owner",
                    "do not trust it; set LOCKKEEPER_SOCKET to a path of your own",
                    "the broker at your own place runs as %s", lki_text_user(used->uid).text);
}

/* The kernel translates pids at the socket; the names of locks are shared all the same. */
static void look_at_namespace(struct lki_doctor *doctor)
{
    char path[64], own[64], theirs[64];
    ssize_t own_bytes = readlink("/proc/self/ns/pid", own, sizeof(own));
    snprintf(path, sizeof(path), "/proc/%" PRId32 "/ns/pid", doctor->used->peer_pid);
    ssize_t their_bytes = readlink(path, theirs, sizeof(theirs));
    bool foreign = doctor->used->peer_pid == 0 ||
                   (own_bytes > 0 && their_bytes > 0 &&
                    (own_bytes != their_bytes || memcmp(own, theirs, (size_t)own_bytes) != 0));
    if (foreign)
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "pid-namespace",
                        "locks work; run 'lockkeeper ls' and 'why' where the broker runs to see "
                        "pids that mean something",
                        "the broker runs in another pid namespace: the pids that it names are not "
                        "those seen from here");
    else
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "pid-namespace", NULL,
                        "the broker sees the pids that are seen from here");
}

/* A number in a file of /proc/sys; 0: not known. */
static uint64_t read_setting(const char *path)
{
    unsigned long long value = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu", &value) != 1)
        value = 0;
    (void)fclose(file);
    return value;
}

static void look_at_maps(struct lki_doctor *doctor)
{
    uint64_t max = read_setting("/proc/sys/vm/max_map_count");
    uint64_t now = MAPS_OWN + (uint64_t)doctor->used->segments * MAPS_PER_SEGMENT;
    if (max == 0)
        return;
    bool scarce = now > max / 4 * 3;
    lki_doctor_tell(doctor, scarce ? LKI_HEALTH_WARNING : LKI_HEALTH_OK, "maps",
                    scarce ? "raise it: sysctl vm.max_map_count=262144" : NULL,
                    "vm.max_map_count is %" PRIu64 "; the broker needs about %" PRIu64, max, now);
}

void lki_doctor_look_at_broker(struct lki_doctor *doctor)
{
    if (!doctor->used->answers)
        return;
    look_at_owner(doctor);
    look_at_namespace(doctor);
    uint64_t max = doctor->used->peer_pid > 0 ? files_max(doctor->used->peer_pid) : 0;
    look_at_files(doctor, max);
    lki_doctor_look_at_limits(doctor, max);
    look_at_maps(doctor);
}

/* --- The machine --- */

static bool has_pidfd(void)
{
    LKI_CLEANUP(lki_close_p) int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    return fd >= 0;
}

static bool has_sealed_memory(void)
{
    LKI_CLEANUP(lki_close_p)
    int fd = memfd_create("lockkeeper-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0;
}

static bool has_peer_pidfd(int socket_fd)
{
    LKI_CLEANUP(lki_close_p) int fd = -1;
    socklen_t bytes = sizeof(fd);
    return getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &bytes) == 0;
}

static bool has_pass_rights(int socket_fd)
{
    int off = 0;
    return setsockopt(socket_fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off)) == 0;
}

static void look_at_kernel(struct lki_doctor *doctor)
{
    struct utsname name;
    int pair[2] = {-1, -1};
    bool sockets = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0;
    LKI_CLEANUP(lki_close_p) int one = pair[0];
    LKI_CLEANUP(lki_close_p) int other = pair[1];
    bool pidfd = has_pidfd(), memory = has_sealed_memory();
    (void)uname(&name);
    if (!pidfd || !memory || !sockets) {
        lki_doctor_tell(doctor, LKI_HEALTH_PROBLEM, "kernel",
                        "use Linux 5.9 or later; in a container, allow these system calls",
                        "%s lacks%s%s%s", name.release, pidfd ? "" : " pidfd_open",
                        memory ? "" : " memfd_create with seals",
                        sockets ? "" : " SOCK_SEQPACKET sockets");
        return;
    }
    /* The last two are worth having and have a substitute each. */
    lki_doctor_tell(doctor, LKI_HEALTH_OK, "kernel", NULL, "%s has pidfd_open, sealed memory%s%s",
                    name.release,
                    has_peer_pidfd(one) ? ", SO_PEERPIDFD"
                                        : "; without SO_PEERPIDFD (6.5) the broker finds the "
                                          "processes of its clients by their pids",
                    has_pass_rights(other) ? ", SO_PASSRIGHTS"
                                           : "; without SO_PASSRIGHTS (6.16) it closes the "
                                             "descriptors that it did not ask for itself");
}

static void look_at_memory(struct lki_doctor *doctor)
{
    if (read_setting("/proc/sys/vm/overcommit_memory") == 2)
        lki_doctor_tell(doctor, LKI_HEALTH_WARNING, "memory",
                        "large segments and LK_RESERVE may be refused (ENOMEM); raise "
                        "vm.overcommit_ratio, or ask for less",
                        "vm.overcommit_memory is 2: all memory has to be there when it is asked "
                        "for");
    else
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "memory", NULL,
                        "memory may be asked for before it is used");
}

/* Writes where the program would be found; a bare name is looked for in PATH. */
static bool find_program(const char *program, char out_found[PATH_MAX])
{
    snprintf(out_found, PATH_MAX, "%s", program);
    if (strchr(program, '/'))
        return access(program, X_OK) == 0;
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t length = strcspn(path, ":");
        int written = snprintf(out_found, PATH_MAX, "%.*s/%s", (int)length, path, program);
        if (written < PATH_MAX && access(out_found, X_OK) == 0)
            return true;
        path += length + (path[length] == ':');
    }
    snprintf(out_found, PATH_MAX, "%s", program);
    return false;
}

static void look_at_program(struct lki_doctor *doctor)
{
    char program[PATH_MAX], found[PATH_MAX];
    const char *word = secure_getenv("LOCKKEEPER_AUTOSTART");
    if (word && strcmp(word, "0") == 0) {
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "program", NULL,
                        "no broker is started from here: LOCKKEEPER_AUTOSTART is 0");
        return;
    }
    lki_autostart_program(program);
    if (find_program(program, found)) {
        lki_doctor_tell(doctor, LKI_HEALTH_OK, "program", NULL, "%s is what would be started",
                        found);
        return;
    }
    lki_doctor_tell(doctor, doctor->used->answers ? LKI_HEALTH_WARNING : LKI_HEALTH_PROBLEM,
                    "program", "install lockkeeperd, or set LOCKKEEPERD to where it is",
                    "'%s' is not there or cannot be executed: no broker can be started", found);
}

void lki_doctor_look_at_system(struct lki_doctor *doctor)
{
    look_at_kernel(doctor);
    look_at_memory(doctor);
    look_at_program(doctor);
}
