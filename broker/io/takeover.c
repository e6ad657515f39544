/* SPDX-License-Identifier: MIT */
#include "broker/io/takeover.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/core/ledger.h"
#include "broker/io/hostile_fd.h"
#include "broker/io/link.h"
#include "broker/io/log.h"
#include "common/clock.h"

/* --- The survey --- */

/* A set of descriptors, as bits. */
struct fd_set_of_all {
    uint64_t *words;
    size_t count;
};

static bool has(const struct fd_set_of_all *set, int fd)
{
    return (size_t)fd / 64 < set->count && set->words[fd / 64] >> (fd % 64) & 1;
}

static int add(struct fd_set_of_all *set, int fd)
{
    if (fd < 0)
        return 0;
    if ((size_t)fd / 64 >= set->count) {
        size_t count = (size_t)fd / 64 * 2 + 16;
        uint64_t *words = realloc(set->words, count * sizeof(*words));
        if (words == NULL)
            return -ENOMEM;
        memset(words + set->count, 0, (count - set->count) * sizeof(*words));
        set->words = words;
        set->count = count;
    }
    set->words[fd / 64] |= UINT64_C(1) << (fd % 64);
    return 0;
}

static int add_known(struct fd_set_of_all *set, struct lkd_core *core, const int *kept,
                     size_t kept_count, int ready_fd)
{
    struct lkd_left_segment segment;
    struct lkd_left_session session;
    int r = add(set, ready_fd);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && r == 0; fd++)
        r = add(set, fd);
    for (size_t i = 0; i < kept_count && r == 0; i++)
        r = add(set, kept[i]);
    for (uint32_t cursor = 0; r == 0 && lkd_core_next_left_segment(core, &cursor, &segment);) {
        r = add(set, segment.area_fd);
        if (r == 0)
            r = add(set, segment.data_fd);
        if (r == 0)
            r = add(set, segment.read_only_fd);
    }
    for (uint32_t cursor = 0; r == 0 && lkd_core_next_left_session(core, &cursor, &session);) {
        r = add(set, session.socket_fd);
        if (r == 0)
            r = add(set, session.pidfd);
    }
    return r;
}

static int add_stray(struct lkd_strays *strays, size_t *capacity, int fd)
{
    if (strays->count == *capacity) {
        size_t more = *capacity * 2 + 64;
        int *fds = realloc(strays->fds, more * sizeof(*fds));
        if (fds == NULL)
            return -ENOMEM;
        strays->fds = fds;
        *capacity = more;
    }
    strays->fds[strays->count++] = fd;
    return 0;
}

static int list_strays(const struct fd_set_of_all *known, struct lkd_strays *strays)
{
    size_t capacity = 0;
    DIR *table = opendir("/proc/self/fd");
    if (table == NULL)
        return -errno;
    int r = 0;
    for (const struct dirent *entry; r == 0 && (entry = readdir(table)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (fd != dirfd(table) && !has(known, fd))
            r = add_stray(strays, &capacity, fd);
    }
    closedir(table);
    return r;
}

int lkd_takeover_survey(struct lkd_core *core, const int *kept, size_t kept_count, int ready_fd,
                        struct lkd_strays *out_strays)
{
    struct fd_set_of_all known = {.words = NULL};
    *out_strays = (struct lkd_strays){.fds = NULL};
    int r = add_known(&known, core, kept, kept_count, ready_fd);
    if (r == 0)
        r = list_strays(&known, out_strays);
    free(known.words);
    return r;
}

void lkd_strays_deinit(struct lkd_strays *strays)
{
    free(strays->fds);
    *strays = (struct lkd_strays){.fds = NULL};
}

/* --- Taking over --- */

static int take_segments(struct lkd_daemon *daemon)
{
    struct lkd_left_segment left;
    for (uint32_t cursor = 0; lkd_core_next_left_segment(daemon->core, &cursor, &left);) {
        int r = lkd_effects_adopt_segment(daemon, &left);
        if (r < 0) {
            lkd_log_line(LKD_LOG_ERROR, "cannot map segment %u again: %s", left.number,
                         strerror(-r));
            return r;
        }
    }
    return 0;
}

static int take_sessions(struct lkd_daemon *daemon)
{
    struct lkd_left_session left;
    for (uint32_t cursor = 0; lkd_core_next_left_session(daemon->core, &cursor, &left);) {
        int r = lkd_link_adopt(daemon, &left);
        if (r < 0) {
            lkd_log_line(LKD_LOG_ERROR, "cannot go on for pid %d: %s", left.pid, strerror(-r));
            return r;
        }
    }
    return 0;
}

/* Whether somebody connected through our socket. A listening socket is no connection, and no client
 * can give one of its own the address of ours. */
static bool is_connection(const struct lkd_daemon *daemon, int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNSPEC};
    socklen_t address_bytes = sizeof(address);
    int type = 0;
    int listens = 0;
    socklen_t int_bytes = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_bytes) < 0 || type != SOCK_SEQPACKET ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_bytes) < 0 || listens != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &address_bytes) < 0)
        return false;
    size_t path_bytes = address_bytes - offsetof(struct sockaddr_un, sun_path);
    return address.sun_family == AF_UNIX &&
           strnlen(address.sun_path, path_bytes) == strlen(daemon->instance->path) &&
           memcmp(address.sun_path, daemon->instance->path, strlen(daemon->instance->path)) == 0;
}

static void take_strays(struct lkd_daemon *daemon, struct lkd_strays *strays)
{
    size_t others = 0;
    for (size_t i = 0; i < strays->count; i++) {
        if (is_connection(daemon, strays->fds[i]))
            lkd_link_accept(daemon, strays->fds[i]);
        else
            strays->fds[others++] = strays->fds[i];
    }
    /* Some may have been a client's, and block whoever closes them. */
    lkd_hostile_close(daemon, strays->fds, others);
    strays->count = 0;
}

int lkd_takeover(struct lkd_daemon *daemon, struct lkd_strays *strays)
{
    uint64_t began_ns = lki_clock_now_ns();
    int r = take_segments(daemon);
    if (r == 0)
        r = take_sessions(daemon);
    if (r == 0)
        r = lkd_core_adopt(daemon->core, lki_clock_now_ns());
    if (r < 0)
        return r;
    lkd_links_start(daemon);
    daemon->taking_over = true;
    lkd_daemon_settle(daemon);
    daemon->taking_over = false;
    if (daemon->takeover_result < 0) {
        lkd_log_line(LKD_LOG_ERROR, "cannot tell every client that this worker goes on: %s",
                     strerror(-daemon->takeover_result));
        return daemon->takeover_result;
    }
    take_strays(daemon, strays);
    lkd_log_line(LKD_LOG_INFO, "took over %u connections in %llu us", daemon->connection_count,
                 (unsigned long long)((lki_clock_now_ns() - began_ns) / 1000));
    return 0;
}

/* --- Names --- */

/* A process that reserves a name; watched for as long as this worker runs. */
struct lkd_reserver {
    struct lkd_reserver *next;
    struct lkd_watched *process;
};

static int reserve(struct lkd_daemon *daemon, const struct lkd_name_change *name,
                   const struct lkd_names_owner *owner)
{
    struct lkd_peer_info info = {
        .pidfd = lkd_peer_find(owner->pid, &owner->key), .peer.pid = owner->pid, .key = owner->key};
    if (info.pidfd < 0)
        return 0; /* it has ended meanwhile */
    struct lkd_reserver *reserver = calloc(1, sizeof(*reserver));
    int r = reserver != NULL ? lkd_processes_get(&daemon->processes, &info, &reserver->process)
                             : -ENOMEM;
    lkd_peer_info_deinit(&info);
    if (r < 0) {
        free(reserver);
        return r == -ESRCH ? 0 : r;
    }
    reserver->next = daemon->reservers;
    daemon->reservers = reserver;
    struct lkd_name_change own = *name;
    own.process = lkd_watched_number(reserver->process);
    r = lkd_core_reserve_name(daemon->core, &own, owner->pid);
    if (r == 0)
        lkd_watched_start(reserver->process);
    return r;
}

int lkd_reserve_names(struct lkd_daemon *daemon)
{
    const struct lkd_names *names = daemon->options.names;
    int r = 0;
    for (size_t i = 0; i < names->carried_count && r == 0; i++) {
        struct lkd_name_change name;
        struct lkd_names_owner owner;
        lkd_names_carried(names, i, &name, &owner);
        r = reserve(daemon, &name, &owner);
    }
    if (names->carried_count > 0)
        lkd_log_line(LKD_LOG_INFO,
                     "%zu names are reserved for clients of an earlier broker, until they end",
                     names->carried_count);
    return r;
}

void lkd_reservers_deinit(struct lkd_daemon *daemon)
{
    while (daemon->reservers != NULL) {
        struct lkd_reserver *reserver = daemon->reservers;
        daemon->reservers = reserver->next;
        lkd_watched_unref(reserver->process);
        free(reserver);
    }
}
