/* SPDX-License-Identifier: MIT */
#include "client/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/async.h"
#include "client/connect.h"
#include "client/error.h"
#include "client/options.h"
#include "client/segment.h"
#include "common/assert.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"
#include "engine/layout.h"

/* A broker that does not answer a farewell in this time is left without. */
#define GOODBYE_NS (2 * LKI_NS_PER_S)

#define VIEWS_AT_HAND 8 /* as many locks as most sessions have */

/* What a forked child finds zeroed, in whole pages. One map of it all: each costs a new process as much as
 * several system calls. The arena begins in the first page, and takes no other as a rule. What a session has
 * learned of waiting goes with it to the next one. */
struct own_memory {
    uint32_t alive;
    _Alignas(64) struct lk_inline views[VIEWS_AT_HAND];
    _Alignas(64) struct lki_inbox inbox;
};

/* --- Own memory --- */

/* That of the last session that was closed, or NULL: mapping and touching another one takes longer than the
 * rest of what the library does to open a session. */
static _Atomic(struct own_memory *) spare_memory;
bool lki_session_leaves_memory = true;

static void give_own_memory(struct own_memory *memory)
{
    if (!memory)
        return;
    memory->alive = 0;
    memset(memory->views, 0, sizeof(memory->views));
    /* acq_rel: whoever takes it comes after us, and we after who left the one that is in our way */
    if (lki_session_leaves_memory)
        memory = atomic_exchange_explicit(&spare_memory, memory, memory_order_acq_rel);
    if (memory)
        (void)munmap(memory, sizeof(*memory));
}

static int map_own_memory(struct own_memory **out_memory)
{
    const size_t bytes = sizeof(**out_memory);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    if (madvise(base, bytes, MADV_WIPEONFORK) < 0) {
        int r = -errno;
        (void)munmap(base, bytes);
        return r;
    }
    *out_memory = base;
    return 0;
}

static int take_own_memory(struct own_memory **out_memory)
{
    struct own_memory *memory =
        atomic_exchange_explicit(&spare_memory, NULL, memory_order_acq_rel); /* as above */
    int r = memory ? 0 : map_own_memory(&memory);
    if (r < 0)
        return r;
    memory->alive = 1;
    *out_memory = memory;
    return 0;
}

/* --- Life --- */

static struct lk_session *session_free(struct lk_session *session)
{
    lki_async_deinit(session);
    LKI_LIST_FOREACH_SAFE (node, &session->segments)
        lki_segment_free(LKI_LIST_ENTRY(node, struct lk_segment, node));
    LKI_LIST_FOREACH_SAFE (node, &session->closed_segments)
        lki_segment_free(LKI_LIST_ENTRY(node, struct lk_segment, node));
    lki_transport_deinit(&session->transport);
    lki_views_deinit(&session->views);
    give_own_memory(session->own_memory);
    free(session);
    return NULL;
}
LKI_DEFINE_CLEANUP(struct lk_session *, session_free)

/* A session without a connection. */
static int make_session(struct lk_session **out)
{
    LKI_CLEANUP(session_free_p) struct lk_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->event_fd = -1;
    lki_list_init(&session->segments);
    lki_list_init(&session->closed_segments);
    lki_list_init(&session->pending);
    lki_list_init(&session->answered);
    lki_list_init(&session->open_locks);
    lki_transport_init(&session->transport, -1, NULL);
    int r = take_own_memory(&session->own_memory);
    if (r < 0)
        return r;
    session->alive = &session->own_memory->alive;
    lki_views_init(&session->views, session->own_memory->views, VIEWS_AT_HAND);
    *out = LKI_STEAL(&session);
    return 0;
}

/* Consumes socket_fd, -1 for none. */
static void take_connection(struct lk_session *session, int socket_fd, const char *path)
{
    size_t path_bytes = strlen(path) + 1;
    LKI_ASSERT(path_bytes <= sizeof(session->path));
    memcpy(session->path, path, path_bytes);
    lki_transport_init(&session->transport, socket_fd, &session->own_memory->inbox);
}

int lki_session_new(int socket_fd, const char *path, struct lk_session **out)
{
    LKI_CLEANUP(lki_close_p) int fd = socket_fd;
    LKI_CLEANUP(session_free_p) struct lk_session *session = NULL;
    int r = make_session(&session);
    if (r < 0)
        return r;
    take_connection(session, lki_steal_fd(&fd), path);
    *out = LKI_STEAL(&session);
    return 0;
}

int lk_session_open(const char *socket_path, const struct lk_session_options *options,
                    struct lk_session **out)
{
    struct lk_session_options own;
    if (!out)
        return lki_fail(-EINVAL, "cannot open a session: no place for the result");
    if (lki_options_read(options, sizeof(own), &own) < 0 ||
        (own.flags & ~(uint32_t)LK_NO_AUTOSTART))
        return lki_fail(-EINVAL,
                        "cannot open a session: wrong size or unknown flag in the options");

    if (socket_path && socket_path[0] == '\0')
        return lki_fail(-EINVAL, "cannot open a session: the socket path is empty");

    /* Connecting wakes the broker, and that takes it longer than what is made here meanwhile. */
    LKI_CLEANUP(lki_close_p) int fd = -1;
    char path[LKI_SOCKET_PATH_BYTES_MAX + 1];
    int r = lki_connect(socket_path, own.flags, &fd, path);
    if (r < 0)
        return r; /* has its text */
    LKI_CLEANUP(session_free_p) struct lk_session *session = NULL;
    r = make_session(&session);
    if (r < 0)
        return lki_fail(r, "cannot open a session: %s", lk_strerror(r));
    take_connection(session, lki_steal_fd(&fd), path);
    session->may_reconnect = true;
    session->open_flags = own.flags;
    *out = LKI_STEAL(&session);
    return 0;
}

/* Tells the broker, which then hands on what is still held, and waits until that is done: a later
 * session of this process finds a clean table. */
static void say_goodbye(struct lk_session *session)
{
    struct lki_message goodbye = {.type = LKI_REQUEST_GOODBYE};
    struct lki_record reply = {.fd_count = 0};
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), GOODBYE_NS);
    (void)lki_session_call(session, &goodbye, -1, deadline_ns, &reply);
    lki_record_deinit(&reply);
}

struct lk_session *lk_session_close(struct lk_session *session)
{
    if (!session)
        return NULL;
    if (*session->alive) {
        /* Nothing of ours may touch the shared memory once the broker cleans up. */
        LKI_LIST_FOREACH_SAFE (node, &session->segments)
            lki_segment_unmap_all(LKI_LIST_ENTRY(node, struct lk_segment, node));
        session->may_reconnect = false;
        if (session->transport.greeted) /* else the broker knows nothing of us */
            say_goodbye(session);
    }
    return session_free(session);
}

/* --- Calls --- */

int lki_session_check(const struct lk_session *session, const char *verb)
{
    if (!session)
        return lki_fail(-EINVAL, "cannot %s: no session", verb);
    if (*session->alive)
        return 0;
    lki_fail(-ESTALE, "cannot %s: the session was opened before fork() and belongs to the parent",
             verb);
    return lki_fail_hint(-ESTALE, "open one in this process");
}

/* The broker refuses this client altogether: its answer to the hello, which has the first id, or
 * one with id 0, when it refused the connection before any request. */
static int note_refused_hello(struct lk_session *session, const struct lki_message *message)
{
    int r = lki_status_to_result(message->as.result.status);
    session->refused = r < 0 ? r : -EPROTO;
    (void)snprintf(session->refused_detail, sizeof(session->refused_detail), "%.*s",
                   (int)message->as.result.detail.length_bytes,
                   (const char *)message->as.result.detail.data);
    session->transport.lost = true;
    return session->refused;
}

/* Another worker goes on, and has this number: what was not answered is repeated, in the order of its ids. Those that
 * wait for long were sent before the request at hand, which is NULL where there is none. */
static int resume(struct lk_session *session, uint32_t number, const struct lki_message *request,
                  int fd)
{
    int r = lki_transport_resume(&session->transport, number);
    if (r == 0)
        r = lki_async_repeat(session);
    if (r == 0 && request)
        r = lki_transport_repeat(&session->transport, request, fd);
    return r;
}

int lki_session_unasked(struct lk_session *session, const struct lki_message *message)
{
    if (message->type == LKI_REPLY_RESUMED)
        return resume(session, message->as.resumed.number, NULL, -1);
    if (message->id <= LKI_HELLO_ID && message->type == LKI_REPLY_RESULT)
        return note_refused_hello(session, message);
    lki_async_answer(session, message);
    return 0;
}

/* Receives until the reply is there. Not sent: takes what lies there, for the reason may. */
static int await_reply(struct lk_session *session, const struct lki_message *request, int fd,
                       bool sent, uint64_t deadline_ns, struct lki_record *out_reply)
{
    for (;;) {
        int r = lki_transport_receive(&session->transport, sent ? deadline_ns : 0, out_reply);
        if (r < 0 && r != -EMFILE)
            return sent ? r : -ECONNRESET;
        const struct lki_message *message = &out_reply->message;
        if (sent && message->id == request->id)
            return r;
        lki_record_deinit(out_reply);
        r = message->type == LKI_REPLY_RESUMED
                ? resume(session, message->as.resumed.number, sent ? request : NULL, fd)
                : lki_session_unasked(session, message);
        if (r < 0)
            return r;
    }
}

static int call_once(struct lk_session *session, struct lki_message *request, int fd,
                     uint64_t deadline_ns, struct lki_record *out_reply)
{
    int r = lki_transport_send(&session->transport, request, fd);
    if (r < 0 && r != -ECONNRESET)
        return r;
    /* When the broker closed the connection, its reason may still lie in our buffer. */
    return await_reply(session, request, fd, r == 0, deadline_ns, out_reply);
}

int lki_session_ask(struct lk_session *session, struct lki_message *request, uint64_t deadline_ns,
                    struct lki_record *out_reply)
{
    if (session->refused)
        return session->refused;
    if (!lki_transport_send_hint(&session->transport, request))
        return -ETIMEDOUT;
    return await_reply(session, request, -1, true, deadline_ns, out_reply);
}

/* A broker that nobody used may end between our connecting and our first request; then nothing of
 * ours was ever answered, and another connection is as good. */
static bool reconnect(struct lk_session *session)
{
    char path[LKI_SOCKET_PATH_BYTES_MAX + 1];
    int fd = -1;
    if (!session->may_reconnect || session->transport.heard)
        return false;
    session->may_reconnect = false;
    if (lki_connect(session->path, session->open_flags, &fd, path) < 0)
        return false;
    lki_transport_deinit(&session->transport);
    lki_transport_init(&session->transport, fd, &session->own_memory->inbox);
    return true;
}

int lki_session_call(struct lk_session *session, struct lki_message *request, int fd,
                     uint64_t deadline_ns, struct lki_record *out_reply)
{
    if (session->refused)
        return session->refused;
    int r = call_once(session, request, fd, deadline_ns, out_reply);
    if (r == -ECONNRESET && reconnect(session))
        r = call_once(session, request, fd, deadline_ns, out_reply);
    return r;
}

/* --- Texts --- */

/* Where "; what to do next" begins in the broker's words, so that it stands behind the code as in
 * all texts. Less than 0: there is none. A quote behind it: the semicolon was part of a name. */
static int find_hint(const char *words, int length)
{
    for (int i = length - 2; i >= 0 && words[i] != '\''; i--)
        if (words[i] == ';' && words[i + 1] == ' ')
            return i;
    return -1;
}

static int fail_refused(const struct lk_session *session, const char *what)
{
    const char *words = session->refused_detail;
    int length = (int)strlen(words);
    int hint = find_hint(words, length);
    lki_fail(session->refused, "cannot %s: the broker at %s refuses this client: %.*s", what,
             session->path, hint < 0 ? length : hint, words);
    return hint < 0 ? session->refused : lki_fail_hint(session->refused, "%s", words + hint + 2);
}

int lki_session_fail(const struct lk_session *session, int result, const char *format, ...)
{
    char what[400];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    if (session->refused && result == session->refused)
        return fail_refused(session, what);
    switch (result) {
    case -ECONNRESET:
        lki_fail(result, "cannot %s: the broker at %s is gone", what, session->path);
        return lki_fail_hint(result, "locks of mapped segments go on working; for the rest open "
                                     "a new session");
    case -EPROTO:
        lki_fail(result, "cannot %s: what answers at %s does not follow the protocol", what,
                 session->path);
        return lki_fail_hint(result, "library and broker have to be of the same release");
    case -EMFILE:
        lki_fail(result, "cannot %s: this process has no descriptor left", what);
        return lki_fail_hint(result, "close some or raise 'ulimit -n', and try again");
    default:
        return lki_fail(result, "cannot %s: %s", what, lk_strerror(result));
    }
}

int lki_session_result(const struct lk_session *session, const struct lki_message *reply,
                       const char *format, ...)
{
    int r =
        reply->type == LKI_REPLY_RESULT ? lki_status_to_result(reply->as.result.status) : -EPROTO;
    if (r >= 0)
        return r;
    char what[400];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    const struct lki_bytes *detail = &reply->as.result.detail;
    if (reply->type != LKI_REPLY_RESULT || detail->length_bytes == 0)
        return lki_session_fail(session, r, "%s", what);
    const char *words = (const char *)detail->data;
    int length = (int)detail->length_bytes;
    int hint = find_hint(words, length);
    int reason = hint < 0 ? length : hint;
    /* The broker's words are often the whole sentence already. */
    if (length > 7 && memcmp(words, "cannot ", 7) == 0)
        lki_fail(r, "%.*s", reason, words);
    else
        lki_fail(r, "cannot %s: %.*s", what, reason, words);
    return hint < 0 ? r : lki_fail_hint(r, "%.*s", length - hint - 2, words + hint + 2);
}
