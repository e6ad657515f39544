/* SPDX-License-Identifier: MIT */
#include "client/admin.h"

#include <errno.h>
#include <string.h>

#include "client/lock.h"
#include "client/names.h"
#include "client/segment.h"
#include "client/session.h"
#include "common/clock.h"

static const char *noun(enum lki_list_what what)
{
    switch (what) {
    case LKI_LIST_SEGMENTS:
        return "segments";
    case LKI_LIST_LOCKS:
        return "locks";
    case LKI_LIST_GRAPH:
        return "who waits for whom";
    case LKI_LIST_BROKER:
        break;
    }
    return "the broker";
}

/* Hands the entries of one page on. Returns 0 and the cursor of the next page, or what entry_fn
 * says. */
static int deliver_page(const struct lki_list_page *page, lki_admin_entry_fn entry_fn, void *user)
{
    for (size_t i = 0; i < page->count; i++) {
        int r = entry_fn(&page->entries[i], user);
        if (r != 0)
            return r;
    }
    return 0;
}

int lki_admin_list(struct lk_session *session, enum lki_list_what what, const char *name,
                   lki_admin_entry_fn entry_fn, void *user)
{
    int r = lki_session_check(session, "list");
    if (r < 0)
        return r;
    char full[LKI_FULL_NAME_BYTES_MAX] = "";
    if (name) {
        r = lki_name_resolve(name, full);
        if (r < 0)
            return r;
    }
    const char *about = name ? name : noun(what);
    struct lki_message request = {.type = LKI_REQUEST_LIST};
    request.as.list.what = what;
    request.as.list.name.data = (const uint8_t *)full;
    request.as.list.name.length_bytes = strlen(full);
    do {
        struct lki_record reply;
        r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
        if (r < 0)
            return lki_session_fail(session, r, "list %s", about);
        uint64_t cursor = request.as.list.cursor;
        request.as.list.cursor = 0;
        if (reply.message.type != LKI_REPLY_LIST_PAGE) {
            r = lki_session_result(session, &reply.message, "list %s", about);
        } else {
            request.as.list.cursor = reply.message.as.list_page.next_cursor;
            r = deliver_page(&reply.message.as.list_page, entry_fn, user);
        }
        lki_record_deinit(&reply);
        /* A cursor that does not move would go round for ever. */
        if (r == 0 && request.as.list.cursor && request.as.list.cursor <= cursor)
            r = lki_session_fail(session, -EPROTO, "list %s", about);
    } while (r == 0 && request.as.list.cursor);
    return r;
}

int lki_admin_monitor(struct lk_session *session, const char *name)
{
    int r = lki_session_check(session, "watch");
    if (r < 0)
        return r;
    char full[LKI_FULL_NAME_BYTES_MAX] = "";
    if (name) {
        r = lki_name_resolve(name, full);
        if (r < 0)
            return r;
    }
    const char *about = name ? name : "the broker";
    struct lki_message request = {.type = LKI_REQUEST_MONITOR};
    request.as.monitor.name.data = (const uint8_t *)full;
    request.as.monitor.name.length_bytes = strlen(full);
    struct lki_record reply;
    r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "watch %s", about);
    r = lki_session_result(session, &reply.message, "watch %s", about);
    lki_record_deinit(&reply);
    return r < 0 ? r : 0;
}

int lki_admin_next_event(struct lk_session *session, struct lki_event *out_event)
{
    struct lki_record record;
    for (;;) {
        int r = lki_transport_receive(&session->transport, 0, &record);
        if (r == -ETIMEDOUT)
            return 0;
        if (r < 0)
            return lki_session_fail(session, r, "watch any longer");
        lki_record_deinit(&record);
        if (record.message.type == LKI_REPLY_RESUMED) {
            r = lki_session_unasked(session, &record.message);
            return r < 0 ? lki_session_fail(session, r, "watch any longer") : 2;
        }
        if (record.message.type != LKI_REPLY_EVENT)
            continue; /* nothing else was asked for */
        *out_event = record.message.as.event;
        return 1;
    }
}

int lki_admin_socket(const struct lk_session *session)
{
    return session->transport.socket_fd;
}

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){(const uint8_t *)text, text ? strlen(text) : 0};
}

int lki_admin_force_release(struct lk_session *session, const char *name, uint32_t lock,
                            const char *lock_name, const char *reason, uint64_t *out_ended)
{
    char full[LKI_FULL_NAME_BYTES_MAX];
    struct lki_record reply = {.fd_count = 0};
    int r = lki_session_check(session, "release a lock by force");
    if (r == 0)
        r = lki_name_resolve(name, full);
    if (r < 0)
        return r;
    struct lki_message request = {
        .type = LKI_REQUEST_FORCE_RELEASE,
        .as.force_release = {.name = bytes_of(full),
                             .lock = lock,
                             .lock_name = bytes_of(lock_name),
                             .reason = bytes_of(reason)},
    };
    r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "release '%s' by force", name);
    r = lki_session_result(session, &reply.message, "release '%s' by force", name);
    if (r == 0)
        *out_ended = reply.message.as.result.value;
    lki_record_deinit(&reply);
    return r;
}

int lki_admin_data_fd(const struct lk_segment *segment)
{
    return segment->data_fd >= 0 ? segment->data_fd : -ENODATA;
}

void lki_admin_note_hold_to_exit(const struct lk_lock *lock)
{
    if (lock->segment->brokered)
        return; /* the area is not ours to write, and the broker knows */
    /* relaxed: for people; nothing is decided by it */
    atomic_store_explicit(&lock->party->self->held_since_ns, lki_clock_now_ns(),
                          memory_order_relaxed);
}
