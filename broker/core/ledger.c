/* SPDX-License-Identifier: MIT */
#include "broker/core/ledger.h"

#include <errno.h>

#include "common/assert.h"
#include "engine/fence.h"
#include "engine/step.h"

#define PAGE_BYTES 4096u

static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

struct shape {
    uint32_t sessions;
    uint32_t segments;
    uint32_t attachments;
    uint64_t sessions_at;
    uint64_t segments_at;
    uint64_t attachments_at;
    uint64_t bytes;
};

static struct shape shape_of(const struct lkd_limits *limits)
{
    struct shape shape = {
        .sessions = (uint32_t)lkd_limits_max(limits, LKD_SESSIONS),
        .segments = (uint32_t)lkd_limits_max(limits, LKD_SEGMENTS),
        .attachments = (uint32_t)lkd_limits_max(limits, LKD_ATTACHMENTS),
    };
    shape.sessions_at = pages(sizeof(struct lkd_ledger_header));
    shape.segments_at =
        shape.sessions_at + pages((uint64_t)shape.sessions * sizeof(struct lkd_session_record));
    shape.attachments_at =
        shape.segments_at + pages((uint64_t)shape.segments * sizeof(struct lkd_segment_record));
    shape.bytes = shape.attachments_at +
                  pages((uint64_t)shape.attachments * sizeof(struct lkd_attachment_record));
    return shape;
}

uint64_t lkd_ledger_bytes(const struct lkd_limits *limits)
{
    return shape_of(limits).bytes;
}

void lkd_record_enter(_Atomic uint32_t *state, uint32_t value)
{
    LKI_STEP("record_enter");
    /* release: everything that the value vouches for was stored before */
    atomic_store_explicit(state, value, memory_order_release);
    LKI_STEP("record_entered");
}

void lkd_record_leave(_Atomic uint32_t *state, uint32_t value)
{
    LKI_STEP("record_leave");
    atomic_store_explicit(state, value, memory_order_relaxed);
    /* release fence: what is stored from here on comes after it */
    lki_fence(memory_order_release);
    LKI_STEP("record_left");
}

/* The free records below `used`, lowest first. */
#define REBUILD(ledger, kind, head)                                                                \
    do {                                                                                           \
        (ledger)->head = 0;                                                                        \
        for (uint32_t i =                                                                          \
                 atomic_load_explicit(&(ledger)->header->kind##_used, memory_order_relaxed);       \
             i-- > 0;) {                                                                           \
            if (lkd_record_state(&(ledger)->kind[i].state) != LKD_RECORD_FREE)                     \
                continue;                                                                          \
            (ledger)->kind[i].next_free = (ledger)->head;                                          \
            (ledger)->head = i + 1;                                                                \
        }                                                                                          \
    } while (0)

static void locate(struct lkd_ledger *ledger, void *base, const struct shape *shape)
{
    uint8_t *bytes = base;
    *ledger = (struct lkd_ledger){
        .header = base,
        .sessions = (struct lkd_session_record *)(void *)(bytes + shape->sessions_at),
        .segments = (struct lkd_segment_record *)(void *)(bytes + shape->segments_at),
        .attachments = (struct lkd_attachment_record *)(void *)(bytes + shape->attachments_at),
        .changed = 1,
    };
}

void lkd_ledger_peek(struct lkd_ledger *ledger, void *base, const struct lkd_limits *limits)
{
    const struct shape shape = shape_of(limits);
    locate(ledger, base, &shape);
}

/* No worker writes more: memory that says otherwise is not what a worker left. */
static bool is_within(const _Atomic uint32_t *used, uint32_t max)
{
    /* relaxed: written by a worker that has ended */
    return atomic_load_explicit(used, memory_order_relaxed) <= max;
}

int lkd_ledger_view(struct lkd_ledger *ledger, void *base, const struct lkd_limits *limits)
{
    const struct shape shape = shape_of(limits);
    struct lkd_ledger_header *header = base;

    locate(ledger, base, &shape);
    uint32_t version = lkd_record_state(&header->version);
    if (version == 0) {
        header->sessions_max = shape.sessions;
        header->segments_max = shape.segments;
        header->attachments_max = shape.attachments;
        lkd_record_enter(&header->version, LKD_LEDGER_VERSION);
        return 0;
    }
    if (version != LKD_LEDGER_VERSION || header->sessions_max != shape.sessions ||
        header->segments_max != shape.segments || header->attachments_max != shape.attachments ||
        !is_within(&header->sessions_used, shape.sessions) ||
        !is_within(&header->segments_used, shape.segments) ||
        !is_within(&header->attachments_used, shape.attachments))
        return -EPROTO;
    REBUILD(ledger, sessions, free_session);
    REBUILD(ledger, segments, free_segment);
    REBUILD(ledger, attachments, free_attachment);
    /* relaxed: written by a worker that has ended */
    uint32_t used = atomic_load_explicit(&header->attachments_used, memory_order_relaxed);
    for (uint32_t i = 0; i < used; i++)
        ledger->attachments[i].next_changed = 0;
    return 1;
}

void lkd_ledger_change(struct lkd_ledger *ledger, struct lkd_attachment_record *record)
{
    /* An extra one has the name and the process of its main one; its index may have been a main one's
     * whose change is not told yet. */
    if (record->next_changed != 0 || record->flags & LKD_ATTACHMENT_EXTRA)
        return;
    record->next_changed = ledger->changed;
    ledger->changed = (uint32_t)(record - ledger->attachments) + 2;
}

bool lkd_ledger_next_change(struct lkd_ledger *ledger, uint32_t *out_index)
{
    if (ledger->changed == 1)
        return false;
    *out_index = ledger->changed - 2;
    ledger->changed = ledger->attachments[*out_index].next_changed;
    ledger->attachments[*out_index].next_changed = 0;
    return true;
}

/* Index of a free record, or UINT32_MAX. The count of those in use rises before the record is
 * valid, so that a successor looks at it. */
#define TAKE(ledger, kind, head)                                                                   \
    uint32_t index;                                                                                \
    if ((ledger)->head != 0) {                                                                     \
        index = (ledger)->head - 1;                                                                \
        (ledger)->head = (ledger)->kind[index].next_free;                                          \
    } else {                                                                                       \
        index = atomic_load_explicit(&(ledger)->header->kind##_used, memory_order_relaxed);        \
        if (index >= (ledger)->header->kind##_max)                                                 \
            return NULL;                                                                           \
        lkd_record_enter(&(ledger)->header->kind##_used, index + 1);                               \
    }                                                                                              \
    return &(ledger)->kind[index]

#define GIVE(ledger, record, kind, head)                                                           \
    if (!(record))                                                                                 \
        return;                                                                                    \
    lkd_record_leave(&(record)->state, LKD_RECORD_FREE);                                           \
    LKI_STEP("record_next_free");                                                                  \
    (record)->next_free = (ledger)->head;                                                          \
    (ledger)->head = (uint32_t)((record) - (ledger)->kind) + 1

struct lkd_session_record *lkd_ledger_take_session(struct lkd_ledger *ledger)
{
    TAKE(ledger, sessions, free_session);
}

struct lkd_segment_record *lkd_ledger_take_segment(struct lkd_ledger *ledger)
{
    TAKE(ledger, segments, free_segment);
}

struct lkd_attachment_record *lkd_ledger_take_attachment(struct lkd_ledger *ledger)
{
    TAKE(ledger, attachments, free_attachment);
}

void lkd_ledger_give_session(struct lkd_ledger *ledger, struct lkd_session_record *record)
{
    GIVE(ledger, record, sessions, free_session);
}

void lkd_ledger_give_segment(struct lkd_ledger *ledger, struct lkd_segment_record *record)
{
    GIVE(ledger, record, segments, free_segment);
}

void lkd_ledger_give_attachment(struct lkd_ledger *ledger, struct lkd_attachment_record *record)
{
    GIVE(ledger, record, attachments, free_attachment);
    lkd_ledger_change(ledger, record);
}
