/* SPDX-License-Identifier: MIT */
#include "broker/io/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1 /* the default ends the daemon */
#define uthash_nonfatal_oom(element) ((element)->hashed = false)
#include <uthash.h>

#include "broker/io/hostile_fd.h"
#include "broker/io/log.h"
#include "broker/io/one_way.h"
#include "broker/io/proc.h"
#include "common/assert.h"
#include "common/clock.h"
#include "common/fd.h"

#define SHED_AT_ONCE 4u /* one session takes up to two descriptors, a segment two more */

struct lkd_link {
    uint64_t session;
    bool hashed;
    bool introduced;
    int32_t pid;
    struct lkd_watched *process;       /* counted */
    struct lki_list of_process;        /* while it is in the table */
    struct lkd_connection *connection; /* NULL: ended */
    UT_hash_handle hh;
};

static struct lkd_link *find(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = NULL;
    HASH_FIND(hh, daemon->links, &session, sizeof(session), link);
    return link;
}

static struct lkd_link *link_new(void)
{
    struct lkd_link *link = calloc(1, sizeof(*link));
    if (link != NULL)
        lki_list_init(&link->of_process);
    return link;
}

static void link_free(struct lkd_link *link)
{
    if (link == NULL)
        return;
    lki_list_remove(&link->of_process);
    lkd_watched_unref(link->process);
    free(link);
}

void lkd_link_refuse(struct lkd_daemon *daemon, int socket_fd, int result, const char *why,
                     void (*closed)(struct lkd_daemon *daemon))
{
    struct lki_message message = {
        .type = LKI_REPLY_RESULT,
        .as.result = {.status = lki_status_from_result(result),
                      .detail = {.data = (const uint8_t *)why, .length_bytes = strlen(why)}},
    };
    (void)lki_channel_send(socket_fd, &message, NULL, 0, LKI_CHANNEL_NO_WAIT); /* a courtesy */
    lkd_hostile_close_socket(daemon, socket_fd, closed);
}

bool lkd_link_make_room(struct lkd_daemon *daemon)
{
    bool shed = lkd_core_shed_silent(daemon->core, SHED_AT_ONCE, lki_clock_now_ns()) > 0;
    lkd_daemon_settle(daemon);
    return shed;
}

/* Why the kernel does not tell us who the peer is, for the peer. */
static void refuse_unknown(struct lkd_daemon *daemon, int socket_fd, int result,
                           const struct lkd_peer *peer)
{
    switch (result) {
    case -ESRCH: /* it connected and ended: nobody is left to be told, and nothing is wrong */
        lkd_hostile_close_socket(daemon, socket_fd, NULL);
        return;
    case -ENXIO:
        lkd_log_line(LKD_LOG_WARNING,
                     "refused a peer (uid %u) from a pid namespace that is not visible here",
                     peer->uid);
        lkd_link_refuse(daemon, socket_fd, -EACCES,
                        "this broker cannot see your process, since it runs in another pid "
                        "namespace: its death would go unnoticed. Start a broker in your own "
                        "namespace, or this one in the outermost",
                        NULL);
        return;
    default:
        if (result == -EMFILE || result == -ENFILE)
            (void)lkd_link_make_room(daemon); /* for the next */
        lkd_log_line(LKD_LOG_WARNING, "refused pid %d (uid %u): cannot watch its process: %s",
                     peer->pid, peer->uid, strerror(-result));
        lkd_link_refuse(daemon, socket_fd, result,
                        result == -EMFILE || result == -ENFILE
                            ? LKD_NO_FILES_TEXT
                            : "the broker cannot watch your process; its log says why",
                        NULL);
        return;
    }
}

static bool enlist(struct lkd_daemon *daemon, struct lkd_link *link)
{
    link->hashed = true;
    HASH_ADD(hh, daemon->links, session, sizeof(link->session), link);
    if (link->hashed)
        lki_list_append(lkd_watched_links(link->process), &link->of_process);
    return link->hashed;
}

/* Makes the link and tells the core. On success *out_link is in the table, without connection. */
static int open_session(struct lkd_daemon *daemon, struct lkd_peer_info *info,
                        struct lkd_link **out_link)
{
    struct lkd_link *link = link_new();
    if (link == NULL)
        return -ENOMEM;
    int r = lkd_processes_get(&daemon->processes, info, &link->process);
    if (r < 0) {
        link_free(link);
        return r;
    }
    link->pid = info->peer.pid;
    info->peer.process = lkd_watched_number(link->process);
    r = lkd_core_session_opened(daemon->core, &info->peer, lki_clock_now_ns(), &link->session);
    if (r < 0) {
        link_free(link);
        return r;
    }
    if (!enlist(daemon, link)) {
        lkd_core_session_lost(daemon->core, link->session, lki_clock_now_ns());
        link_free(link);
        return -ENOMEM;
    }
    *out_link = link;
    return 0;
}

static void accept_known(struct lkd_daemon *daemon, int socket_fd, struct lkd_peer_info *info)
{
    struct lkd_connection_peer peer = {
        .pid = info->peer.pid,
        .uid = info->peer.uid,
        .may_offer = info->peer.uid == daemon->uid || info->peer.uid == 0,
    };
    struct lkd_link *link = NULL;
    int r = open_session(daemon, info, &link);
    if (r < 0) {
        if (r == -EDQUOT)
            lkd_link_refuse(daemon, socket_fd, r, lkd_core_refusal(daemon->core), NULL);
        else
            refuse_unknown(daemon, socket_fd, r, &info->peer);
        return;
    }
    if (peer.may_offer)
        lkd_peer_allow_fds(socket_fd);
    peer.session = link->session;
    /* Before anything is read from it: a successor that finds it unknown accepts it once more. */
    const struct lkd_session_fds fds = {.socket_fd = socket_fd,
                                        .pidfd = lkd_watched_pidfd(link->process),
                                        .process_key = {info->key.first, info->key.second}};
    lkd_core_session_fds(daemon->core, link->session, &fds);
    r = lkd_connection_open(daemon, socket_fd, &peer, &link->connection);
    if (r < 0) {
        lkd_log_line(LKD_LOG_WARNING, "dropped pid %d (uid %u): %s", peer.pid, peer.uid,
                     strerror(-r));
        lkd_core_session_lost(daemon->core, peer.session, lki_clock_now_ns());
        lkd_hostile_close_socket(daemon, socket_fd, NULL); /* the ledger names it no more */
        return;
    }
    /* A client sends its first requests without waiting: as a rule they are here by now. */
    lkd_connection_start(link->connection);
}

void lkd_link_accept(struct lkd_daemon *daemon, int socket_fd)
{
    struct lkd_peer_info info;
    int r = lkd_peer_ask(socket_fd, daemon->options.peer_pidfd, &info);
    if (r < 0)
        refuse_unknown(daemon, socket_fd, r, &info.peer);
    else
        accept_known(daemon, socket_fd, &info);
    lkd_peer_info_deinit(&info);
    lkd_daemon_settle(daemon);
}

/* The process of a pidfd that an earlier worker opened. */
static int recall_process(struct lkd_daemon *daemon, struct lkd_peer_info *info,
                          struct lkd_link *link)
{
    int r = lkd_processes_get(&daemon->processes, info, &link->process);
    if (r < 0)
        return r;
    if (info->pidfd == lkd_watched_pidfd(link->process))
        info->pidfd = -1; /* another session of the process came before, with the same one */
    link->pid = info->peer.pid;
    link->introduced = true;
    info->peer.process = lkd_watched_number(link->process);
    return 0;
}

static int recall_connection(struct lkd_daemon *daemon, const struct lkd_left_session *left,
                             struct lkd_link *link)
{
    struct lkd_connection_peer peer = {
        .session = link->session,
        .pid = left->pid,
        .uid = left->uid,
        .may_offer = left->uid == daemon->uid || left->uid == 0,
    };
    return lkd_connection_open(daemon, left->socket_fd, &peer, &link->connection);
}

int lkd_link_adopt(struct lkd_daemon *daemon, const struct lkd_left_session *left)
{
    struct lkd_peer_info info;
    struct lkd_link *link = link_new();
    if (link == NULL)
        return -ENOMEM;
    int r = lkd_peer_recall(left->socket_fd, left->pidfd, left->pid, &info);
    if (r == 0)
        r = recall_process(daemon, &info, link);
    if (r == 0)
        r = lkd_core_adopt_session(daemon->core, left, &info.peer, &link->session);
    if (r == 0 && !enlist(daemon, link))
        r = -ENOMEM;
    else if (r < 0)
        link_free(link);
    if (r == 0 && left->socket_fd >= 0)
        r = recall_connection(daemon, left, link);
    if (r < 0)
        info.pidfd = -1; /* a successor needs it */
    lkd_peer_info_deinit(&info);
    return r;
}

void lkd_links_start(struct lkd_daemon *daemon)
{
    struct lkd_link *link;
    struct lkd_link *next;
    HASH_ITER(hh, daemon->links, link, next)
    {
        lkd_watched_start(link->process);
    }
    LKI_LIST_FOREACH_SAFE (node, &daemon->connections)
        lkd_connection_resume(lkd_connection_of(node));
}

void lkd_link_introduce(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    if (link == NULL || link->introduced)
        return;
    link->introduced = true;
    char command[32];
    lkd_proc_command(link->pid, command, sizeof(command));
    if (command[0] != '\0')
        lkd_core_session_renamed(daemon->core, session, command);
}

void lkd_link_watch(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    if (link != NULL)
        lkd_watched_start(link->process); /* does nothing the second time */
}

void lkd_link_look(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    if (link != NULL && lkd_core_session_is_attached(daemon->core, session))
        lkd_watched_look(link->process);
}

void lkd_links_hear_last(struct lkd_watched *process)
{
    uint32_t records_left = LKD_LAST_RECORDS_MAX;
    LKI_LIST_FOREACH_SAFE (node, lkd_watched_links(process)) {
        const struct lkd_link *link = LKI_LIST_ENTRY(node, struct lkd_link, of_process);
        if (link->connection != NULL)
            lkd_connection_hear_last(link->connection, &records_left);
    }
}

struct lkd_connection *lkd_link_connection(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    return link != NULL ? link->connection : NULL;
}

void lkd_link_cut(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    if (link != NULL)
        link->connection = NULL;
}

static void forget(struct lkd_daemon *daemon, struct lkd_link *link)
{
    struct lkd_connection *connection = link->connection;
    HASH_DELETE(hh, daemon->links, link);
    link_free(link);
    if (connection != NULL)
        lkd_connection_close(connection);
}

void lkd_link_forget(struct lkd_daemon *daemon, uint64_t session)
{
    struct lkd_link *link = find(daemon, session);
    if (link != NULL)
        forget(daemon, link);
}

void lkd_links_deinit(struct lkd_daemon *daemon)
{
    while (daemon->links != NULL)
        forget(daemon, daemon->links);
}
