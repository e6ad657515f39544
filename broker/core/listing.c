/* SPDX-License-Identifier: MIT */
#include "broker/core/listing.h"

#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "broker/core/fact.h"
#include "broker/core/listing_locks.h"
#include "broker/core/registry.h"
#include "broker/core/rights.h"
#include "common/assert.h"

bool lkd_page_begin(struct lkd_page *page, struct lkd_core *core, struct lkd_session *session,
                    uint64_t request, uint64_t now_ns)
{
    size_t entries_bytes = LKI_LIST_PAGE_ENTRIES_MAX * sizeof(struct lki_list_entry);
    struct lkd_sending *sending =
        lkd_reply(core, session, LKI_REPLY_LIST_PAGE, request,
                  entries_bytes + LKI_LIST_PAGE_ENTRIES_MAX * LKD_ENTRY_TEXT_BYTES_MAX);
    if (!sending)
        return false;
    *page = (struct lkd_page){
        .core = core,
        .session = session,
        .now_ns = now_ns,
        .list = &sending->message.as.list_page,
        .entries = (struct lki_list_entry *)(void *)sending->extra,
        .text = sending->extra + entries_bytes,
    };
    page->list->entries = page->entries;
    return true;
}

size_t lkd_page_room(const struct lkd_page *page)
{
    return LKI_LIST_PAGE_ENTRIES_MAX - page->list->count;
}

struct lki_list_entry *lkd_page_add(struct lkd_page *page)
{
    LKI_ASSERT(lkd_page_room(page) > 0);
    return &page->entries[page->list->count++];
}

struct lki_bytes lkd_page_copy(struct lkd_page *page, const void *data, size_t length_bytes)
{
    struct lki_bytes copy = {.data = page->text, .length_bytes = length_bytes};
    if (length_bytes > 0)
        memcpy(page->text, data, length_bytes);
    page->text += length_bytes;
    return copy;
}

struct lki_bytes lkd_page_name(struct lkd_page *page, const struct lkd_segment *segment)
{
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];
    size_t length = lkd_name_show(&segment->name, segment->name_bytes, page->session->uid, shown);
    return lkd_page_copy(page, shown, length);
}

static void add_segment(struct lkd_page *page, const struct lkd_segment *segment)
{
    struct lki_list_entry *entry = lkd_page_add(page);

    entry->name = lkd_page_name(page, segment);
    entry->mode = segment->mode;
    entry->uid = segment->uid;
    entry->attachments = segment->slots_taken;
    entry->locks = segment->locks;
    entry->flags = segment->flags;
    if (segment->state != LKD_SEGMENT_UNPUBLISHED)
        entry->flags &= ~(uint32_t)LK_UNPUBLISHED; /* it was, until its creator published it */
    entry->size_bytes = segment->data_bytes;
    entry->size_max_bytes = segment->data_bytes_max;
    entry->file = segment->file;
}

/* Whether the segment belongs into this listing. */
static bool is_listed(const struct lkd_page *page, const struct lkd_segment *segment,
                      uint64_t cursor_segment)
{
    if (segment->state == LKD_SEGMENT_MAKING || segment->number < cursor_segment)
        return false;
    /* A ring of waiters may go through what has no name any more, and through what is not for the
     * caller's eyes. */
    return page->graph || (segment->named && lkd_rights_may_see(page->session, segment));
}

static void list_segments(struct lkd_page *page, uint64_t cursor, struct lkd_segment *only)
{
    if (only) {
        add_segment(page, only);
        return;
    }
    const struct lkd_segment *segment, *next;
    HASH_ITER(by_number, page->core->by_number, segment, next)
    {
        if (!is_listed(page, segment, cursor))
            continue;
        if (lkd_page_room(page) == 0) {
            page->list->next_cursor = segment->number;
            return;
        }
        add_segment(page, segment);
    }
}

static void list_locks(struct lkd_page *page, uint64_t cursor, struct lkd_segment *only)
{
    const struct lkd_segment *segment, *next;
    uint64_t cursor_segment = cursor >> LKD_CURSOR_KEY_BITS;

    if (only) {
        uint64_t key = cursor_segment == only->number ? cursor & LKD_CURSOR_KEY_MASK : 0;
        lkd_listing_locks(page, only, key);
        return;
    }
    HASH_ITER(by_number, page->core->by_number, segment, next)
    {
        if (!is_listed(page, segment, cursor_segment))
            continue;
        if (lkd_page_room(page) == 0 || page->work > LKD_PAGE_WORK_MAX) {
            page->list->next_cursor = (uint64_t)segment->number << LKD_CURSOR_KEY_BITS;
            return;
        }
        uint64_t key = segment->number == cursor_segment ? cursor & LKD_CURSOR_KEY_MASK : 0;
        if (!lkd_listing_locks(page, segment, key))
            return;
    }
}

static void list_broker(struct lkd_page *page)
{
    const struct lkd_core_config *config = &page->core->config;
    struct lki_list_entry *entry = lkd_page_add(page);
    const char *path = config->socket_path ? config->socket_path : "";
    size_t length = strlen(path);

    entry->name = lkd_page_copy(
        page, path, length < LKD_ENTRY_TEXT_BYTES_MAX ? length : LKD_ENTRY_TEXT_BYTES_MAX);
    entry->pid = config->broker_pid;
    entry->uid = config->broker_uid;
    entry->waiters = page->core->session_count;
    entry->attachments = page->core->segment_count;
    entry->since_ns = config->started_ns;
}

/* The one segment that the request names. False: refused. */
static bool find_only(struct lkd_core *core, struct lkd_session *session,
                      const struct lki_message *message, struct lkd_segment **out_only)
{
    struct lkd_name name;
    uint32_t name_bytes;
    const char *reason = "";
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];

    if (lkd_registry_parse(session, message->as.list.name, &name, &name_bytes, &reason) < 0) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a segment: %s", reason);
        return false;
    }
    lkd_name_show(&name, name_bytes, session->uid, shown);
    struct lkd_segment *segment = lkd_registry_find_name(core, &name, name_bytes);
    if (!segment || segment->state == LKD_SEGMENT_MAKING) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NOT_FOUND,
                   "cannot list '%s': there is no such segment; see: lockkeeper seg ls", shown);
        return false;
    }
    if (!lkd_rights_may_see(session, segment)) {
        lkd_refuse(core, session, message->id, LKI_STATUS_DENIED,
                   "cannot look at '%s': mode %04o belongs to uid %u, you are uid %u", shown,
                   segment->mode, segment->uid, session->uid);
        return false;
    }
    *out_only = segment;
    return true;
}

void lkd_listing_request(struct lkd_core *core, struct lkd_session *session,
                         const struct lki_message *message, uint64_t now_ns)
{
    const struct lki_list_request *request = &message->as.list;
    struct lkd_segment *only = NULL;
    struct lkd_page page;

    if (request->what < LKI_LIST_SEGMENTS || request->what > LKI_LIST_GRAPH) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID, "there is no listing %u",
                   request->what);
        return;
    }
    if (request->name.length_bytes > 0 && request->what != LKI_LIST_BROKER &&
        !find_only(core, session, message, &only))
        return;
    if (!lkd_page_begin(&page, core, session, message->id, now_ns))
        return;
    switch ((enum lki_list_what)request->what) {
    case LKI_LIST_SEGMENTS:
        list_segments(&page, request->cursor, only);
        break;
    case LKI_LIST_LOCKS:
        list_locks(&page, request->cursor, only);
        break;
    case LKI_LIST_GRAPH:
        page.graph = true;
        list_locks(&page, request->cursor, only);
        break;
    case LKI_LIST_BROKER:
        list_broker(&page);
        break;
    }
}
