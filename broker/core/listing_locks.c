/* SPDX-License-Identifier: MIT */
#include "broker/core/listing_locks.h"

#include <string.h>

#include "broker/core/fact.h"
#include "broker/core/inquiry.h"
#include "broker/core/lock_name.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "common/assert.h"

#define KEY_LOCK_SHIFT 20u
#define KEY_CLASS_SHIFT 18u
#define KEY_REST_MASK ((UINT64_C(1) << KEY_CLASS_SHIFT) - 1)

enum line_class { /* in the order of the lines of a lock */
                  CLASS_OWNER = 0,
                  CLASS_READER = 1,
                  CLASS_WAITER = 2,
};

struct line {
    uint64_t key;
    const struct lkd_attachment *attachment; /* NULL: damaged, or an id that nobody has */
    enum lki_entry_state state;
    uint32_t mode;
    uint32_t waiters;
};

/* The smallest lines from a key on, sorted. */
struct lines {
    struct line line[LKI_LIST_PAGE_ENTRIES_MAX];
    size_t count;
    size_t room;
    uint64_t from;
    bool cut; /* some did not fit */
};

/* Waiters in the order of their tickets; of these the low bits, which may come round in the middle
 * of a queue: then the lines are rotated, none is lost. */
static uint64_t key_of(uint32_t lock, enum line_class class, uint64_t rest)
{
    return (uint64_t)lock << KEY_LOCK_SHIFT | (uint64_t) class << KEY_CLASS_SHIFT |
           (rest & KEY_REST_MASK);
}

static uint32_t lock_of(const struct line *line)
{
    return (uint32_t)(line->key >> KEY_LOCK_SHIFT);
}

static bool is_beyond(const struct lines *lines, uint64_t key)
{
    return lines->count == lines->room && key >= lines->line[lines->count - 1].key;
}

static void insert(struct lines *lines, const struct line *line)
{
    if (line->key < lines->from)
        return;
    if (lines->count == lines->room)
        lines->cut = true;
    if (is_beyond(lines, line->key))
        return;
    size_t at = lines->count < lines->room ? lines->count++ : lines->count - 1;
    for (; at > 0 && lines->line[at - 1].key > line->key; at--)
        lines->line[at] = lines->line[at - 1];
    lines->line[at] = *line;
}

static void insert_owner(struct lines *lines, const struct lkd_segment *segment, uint32_t lock,
                         uint32_t word)
{
    uint32_t owner = word & LKI_ID_MASK;
    struct line line = {
        .key = key_of(lock, CLASS_OWNER, 0),
        .mode = LKI_MODE_EXCLUSIVE,
        .state = LKI_ENTRY_DAMAGED,
    };
    if (owner != 0) {
        line.attachment = lkd_segment_attachment(segment, owner);
        line.state = LKI_ENTRY_HELD;
        line.mode = lkd_inquiry_owned_mode(word);
        if (line.attachment && lki_wait_is(lkd_fact_wait(&segment->area, line.attachment->slot),
                                           LKI_WAIT_DRAINING, lock))
            line.state = LKI_ENTRY_DRAINING;
    }
    insert(lines, &line);
}

static void collect_words(struct lines *lines, const struct lkd_segment *segment, uint32_t first,
                          uint32_t end)
{
    for (uint32_t lock = first; lock < end; lock++) {
        uint32_t word = lkd_fact_word(&segment->area, lock);
        if (word & (LKI_ID_MASK | LKI_DIED))
            insert_owner(lines, segment, lock, word);
        if (lines->cut) /* every later word has a larger key than the one that did not fit */
            break;
    }
}

static void collect_slot(struct lines *lines, const struct lkd_segment *segment, uint32_t slot,
                         uint32_t locks_end)
{
    const struct lki_area *area = &segment->area;
    const struct lkd_attachment *attachment = segment->slots[slot].attachment;
    uint64_t wait = lkd_fact_wait(area, slot);
    uint32_t lock = lki_wait_lock(wait);

    if ((wait & LKI_WAIT_KIND_MASK) == LKI_WAIT_QUEUED && lock < locks_end) {
        struct line line = {
            .key = key_of(lock, CLASS_WAITER, lki_wait_ticket(wait)),
            .attachment = attachment,
            .state = LKI_ENTRY_WAITING,
            .mode = lki_wait_mode(wait),
        };
        insert(lines, &line);
    }
    for (uint32_t cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++) {
        lock = lkd_fact_cell(area, slot, cell);
        if (lock >= locks_end)
            continue;
        struct line line = {
            .key = key_of(lock, CLASS_READER, slot),
            .attachment = attachment,
            .state = LKI_ENTRY_HELD,
            .mode = LKI_MODE_SHARED,
        };
        insert(lines, &line);
    }
}

/* How many wait for each lock of the page that somebody holds. */
static void count_waiters(struct lines *lines, const struct lkd_segment *segment)
{
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        if (!segment->slots[slot].attachment)
            continue;
        uint64_t wait = lkd_fact_wait(&segment->area, slot);
        if ((wait & LKI_WAIT_KIND_MASK) != LKI_WAIT_QUEUED)
            continue;
        for (size_t i = 0; i < lines->count; i++)
            lines->line[i].waiters += lock_of(&lines->line[i]) == lki_wait_lock(wait);
    }
}

static uint64_t since_ns(const struct line *line, uint64_t sequence, uint64_t now_ns)
{
    const struct lkd_attachment *attachment = line->attachment;
    uint32_t lock = lock_of(line);

    if (line->state == LKI_ENTRY_WAITING)
        return lkd_fact_waiting_ns(&attachment->segment->area, attachment->slot,
                                   attachment->opened_ns, now_ns);
    return lkd_inquiry_held_ns(attachment, lock, line->mode, sequence, now_ns);
}

/* Nobody waits for the lock of this line: neither in its queue, nor for its readers to leave. */
static bool is_idle(const struct lkd_segment *segment, const struct line *line)
{
    if (line->state == LKI_ENTRY_WAITING || line->state == LKI_ENTRY_DRAINING || line->waiters > 0)
        return false;
    uint32_t word = lkd_fact_word(&segment->area, lock_of(line));
    return line->mode != LKI_MODE_SHARED || (word & LKI_ID_MASK) == 0 || word & LKI_UPDATE;
}

static void add_line(struct lkd_page *page, const struct lkd_segment *segment,
                     const struct line *line)
{
    if (page->graph && is_idle(segment, line))
        return;
    struct lki_list_entry *entry = lkd_page_add(page);
    uint32_t lock = lock_of(line);
    struct lki_bytes lock_name = lkd_lock_name_at(segment, lock);

    entry->segment = segment->number;
    entry->session = line->attachment ? line->attachment->session->number : 0;
    if (page->graph && !lkd_rights_may_see(page->session, segment)) {
        entry->lock = lock;
        entry->state = line->state;
        entry->mode = line->mode;
        return;
    }
    entry->name = lkd_page_name(page, segment);
    entry->lock_name = lkd_page_copy(page, lock_name.data, lock_name.length_bytes);
    entry->lock = lock;
    entry->state = line->state;
    entry->mode = line->mode;
    entry->waiters = line->state == LKI_ENTRY_WAITING ? 0 : line->waiters;
    entry->token = lki_lock_sequence(&segment->area, lock);
    entry->flags = line->state == LKI_ENTRY_HELD && line->mode == LKI_MODE_EXCLUSIVE &&
                   (entry->token & 1) == 0;
    if (!line->attachment)
        return;
    const struct lkd_session *session = line->attachment->session;
    entry->pid = session->pid;
    entry->uid = session->uid;
    entry->command = lkd_page_copy(page, session->command, strlen(session->command));
    entry->since_ns = since_ns(line, entry->token, page->now_ns);
}

bool lkd_listing_locks(struct lkd_page *page, const struct lkd_segment *segment, uint64_t key)
{
    uint64_t first = key >> KEY_LOCK_SHIFT;
    if (first >= segment->locks || segment->quarantined)
        return true;
    uint32_t end = segment->locks;
    if (end - first > LKD_PAGE_WORK_MAX)
        end = (uint32_t)first + LKD_PAGE_WORK_MAX;

    struct lines lines = {.room = lkd_page_room(page), .from = key};
    LKI_ASSERT(lines.room > 0); /* a page that is full ends before the next segment */
    collect_words(&lines, segment, (uint32_t)first, end);
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++)
        if (segment->slots[slot].attachment)
            collect_slot(&lines, segment, slot, end);
    count_waiters(&lines, segment);
    page->work += end - first + segment->slot_capacity;

    for (size_t i = 0; i < lines.count; i++)
        add_line(page, segment, &lines.line[i]);
    if (lines.cut) {
        page->list->next_cursor = (uint64_t)segment->number << LKD_CURSOR_KEY_BITS |
                                  (lines.line[lines.count - 1].key + 1);
        return false;
    }
    if (end < segment->locks) {
        page->list->next_cursor =
            (uint64_t)segment->number << LKD_CURSOR_KEY_BITS | key_of(end, CLASS_OWNER, 0);
        return false;
    }
    return true;
}
