/* SPDX-License-Identifier: MIT */
#include "broker/core/segment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/charge.h"
#include "broker/core/fact.h"
#include "broker/core/lock_name.h"
#include "broker/core/monitor.h"
#include "broker/core/registry.h"
#include "common/assert.h"
#include "engine/step.h"
#include "lockkeeper/lockkeeper.h"

#define SLOT_CAPACITY_MIN 8u

/* The only writer of the state. */
static void enter(struct lkd_segment *segment, enum lkd_segment_state state)
{
    switch (segment->state) {
    case LKD_SEGMENT_MAKING:
        LKI_ASSERT(state != LKD_SEGMENT_MAKING);
        break;
    case LKD_SEGMENT_UNPUBLISHED:
        LKI_ASSERT(state == LKD_SEGMENT_PUBLISHED || state == LKD_SEGMENT_ENDED);
        break;
    case LKD_SEGMENT_PUBLISHED:
        LKI_ASSERT(state == LKD_SEGMENT_ENDED);
        break;
    case LKD_SEGMENT_ENDED:
        LKI_UNREACHABLE("a segment that has ended changes no more");
        break;
    }
    segment->state = state;
}

struct lkd_segment_spec lkd_segment_spec_of(const struct lkd_segment_wish *wish)
{
    return (struct lkd_segment_spec){
        .area_bytes = lki_area_bytes(wish->locks, wish->attachments_max),
        .format_bytes = lki_area_format_bytes(wish->locks, wish->attachments_max),
        .data_bytes = wish->data_bytes,
        .data_bytes_max = wish->data_bytes_max,
        .reserve = wish->flags & LK_RESERVE,
        .offered = wish->file,
    };
}

static void fill(struct lkd_segment *segment, const struct lkd_segment_wish *wish)
{
    segment->name = wish->name;
    segment->name_bytes = wish->name_bytes;
    segment->uid = wish->uid;
    segment->gid = wish->gid;
    segment->mode = wish->mode;
    segment->flags = wish->flags;
    segment->locks = wish->locks;
    segment->attachments_max = wish->attachments_max;
    segment->patience_ns = wish->patience_ns;
    segment->lease_ns = wish->lease_ns;
    segment->on_expiry = wish->on_expiry;
    segment->data_bytes = wish->data_bytes;
    segment->data_bytes_max = wish->data_bytes_max;
    segment->file = wish->file;
    segment->file_device = wish->file_device;
    segment->file_inode = wish->file_inode;
    segment->offered_by = wish->offered_by;
    segment->lowest_free = 1;
    segment->spec = lkd_segment_spec_of(wish);
}

static struct lkd_segment *segment_new(struct lkd_core *core, const struct lkd_segment_wish *wish)
{
    struct lkd_segment *segment = calloc(1, sizeof(*segment));
    if (!segment)
        return NULL;
    segment->core = core;
    fill(segment, wish);
    lki_list_init(&segment->parked);
    lki_list_init(&segment->waits);
    lki_list_init(&segment->repairs);
    lki_list_init(&segment->of_repairs);
    lkd_effect_node_init(&segment->make, LKD_EFFECT_MAKE_SEGMENT);
    lkd_effect_node_init(&segment->grow, LKD_EFFECT_GROW_SEGMENT);
    lkd_effect_node_init(&segment->drop, LKD_EFFECT_DROP_SEGMENT);
    return segment;
}

struct lkd_segment *lkd_segment_new(struct lkd_core *core, const struct lkd_segment_wish *wish)
{
    struct lkd_segment *segment = segment_new(core, wish);
    if (segment && !lkd_registry_add(core, segment)) {
        free(segment);
        return NULL;
    }
    return segment;
}

static bool reserve_slot(struct lkd_segment *segment, uint32_t slot)
{
    if (slot < segment->slot_capacity)
        return true;
    uint32_t capacity = segment->slot_capacity ? segment->slot_capacity * 2 : SLOT_CAPACITY_MIN;
    if (capacity > segment->attachments_max + 1)
        capacity = segment->attachments_max + 1;
    struct lkd_slot *slots = realloc(segment->slots, capacity * sizeof(*slots));
    if (!slots)
        return false;
    for (uint32_t i = segment->slot_capacity; i < capacity; i++)
        slots[i] = (struct lkd_slot){.generation = segment->last_generation};
    segment->slots = slots;
    segment->slot_capacity = capacity;
    return true;
}

/* What the record says it was made from. */
static struct lkd_segment_wish wish_of(const struct lkd_segment_record *record, uint32_t facts)
{
    struct lkd_segment_wish wish = {
        .name = {.kind = record->name_kind, .id = record->name_id},
        .name_bytes = record->name_bytes,
        .uid = record->uid,
        .gid = record->gid,
        .mode = record->mode,
        .flags = record->flags,
        .locks = record->locks,
        .attachments_max = record->attachments_max,
        .patience_ns = record->patience_ns,
        .lease_ns = record->lease_ns,
        .on_expiry = record->on_expiry,
        /* relaxed: written by a worker that has ended */
        .data_bytes = atomic_load_explicit(&record->data_bytes, memory_order_relaxed),
        .data_bytes_max = record->data_bytes_max,
        .file = facts & LKD_SEGMENT_IS_FILE,
        .file_device = record->file_device,
        .file_inode = record->file_inode,
    };
    memcpy(wish.name.bytes, record->name, record->name_bytes);
    return wish;
}

int lkd_segment_adopt(struct lkd_core *core, struct lkd_segment_record *record, void *area_base,
                      struct lkd_segment **out_segment)
{
    /* relaxed: as above */
    uint32_t facts = atomic_load_explicit(&record->facts, memory_order_relaxed);
    const struct lkd_segment_wish wish = wish_of(record, facts);
    struct lki_area area;
    /* The counts are ours: what clients wrote over the header must not keep us from going on. */
    lki_area_restore(area_base, record->locks, record->attachments_max, record->patience_ns, &area);
    struct lkd_segment *segment = segment_new(core, &wish);
    if (!segment)
        return -ENOMEM;
    segment->number = record->number;
    if (!lkd_registry_adopt(core, segment, facts & LKD_SEGMENT_NAMED)) {
        free(segment);
        return -ENOMEM;
    }
    segment->area = area;
    segment->record = record;
    segment->quarantined = facts & LKD_SEGMENT_IS_QUARANTINED;
    segment->creator_session = record->creator_session;
    segment->creator_request = record->creator_request;
    /* What was given to slots that are free now nobody remembers: begin elsewhere. */
    segment->last_generation =
        atomic_load_explicit(&core->ledger.header->restarts, memory_order_relaxed) * 61 %
        LKI_GENERATION_MAX;
    enter(segment,
          facts & LKD_SEGMENT_IS_PUBLISHED ? LKD_SEGMENT_PUBLISHED : LKD_SEGMENT_UNPUBLISHED);
    if (facts & LKD_SEGMENT_IS_PUBLISHED)
        lkd_fact_publish(&area);
    if (!segment->quarantined)
        lkd_fact_set_data_bytes(&area, segment->data_bytes);
    *out_segment = segment;
    return 0;
}

bool lkd_segment_adopt_slot(struct lkd_segment *segment, struct lkd_attachment *attachment,
                            uint32_t id)
{
    uint32_t slot = id & LKI_SLOT_MASK;
    while (slot >= segment->slot_capacity)
        if (!reserve_slot(segment, segment->slot_capacity))
            return false;
    LKI_ASSERT(slot >= 1 && !segment->slots[slot].attachment);
    segment->slots[slot].attachment = attachment;
    segment->slots[slot].generation = id >> LKI_GENERATION_SHIFT;
    segment->slots_taken++;
    return true;
}

void lkd_segment_drop_unknown(const struct lkd_segment *segment)
{
    uint32_t used = lki_area_slots_used(&segment->area);
    for (uint32_t slot = 1; slot <= used; slot++)
        if (slot >= segment->slot_capacity || !segment->slots[slot].attachment)
            lkd_fact_drop_id(&segment->area, slot);
}

void lkd_segment_free(struct lkd_segment *segment)
{
    lkd_effect_cancel(&segment->make);
    lkd_effect_cancel(&segment->grow);
    lkd_effect_cancel(&segment->drop);
    lkd_lock_names_deinit(segment);
    free(segment->slots);
    free(segment);
}

/* Its record, from here on: a successor finds the segment. */
static void record(struct lkd_core *core, struct lkd_segment *segment,
                   const struct lkd_segment_made *made)
{
    struct lkd_segment_record *record = lkd_ledger_take_segment(&core->ledger);
    LKI_ASSERT(record);         /* as many as the quota admits */
    LKI_ASSERT(segment->named); /* what removes the name waits until it is made */
    uint32_t facts = LKD_SEGMENT_NAMED |
                     (segment->state == LKD_SEGMENT_PUBLISHED ? LKD_SEGMENT_IS_PUBLISHED : 0) |
                     (segment->file ? LKD_SEGMENT_IS_FILE : 0);
    LKI_STEP("segment_record");
    record->number = segment->number;
    record->area_fd = made->area_fd;
    record->data_fd = made->data_fd;
    record->read_only_fd = made->read_only_fd;
    record->uid = segment->uid;
    record->gid = segment->gid;
    record->mode = segment->mode;
    record->flags = segment->flags;
    record->locks = segment->locks;
    record->attachments_max = segment->attachments_max;
    record->patience_ns = segment->patience_ns;
    record->lease_ns = segment->lease_ns;
    record->on_expiry = segment->on_expiry;
    record->area_bytes = segment->spec.area_bytes;
    record->data_bytes_max = segment->data_bytes_max;
    record->file_device = segment->file_device;
    record->file_inode = segment->file_inode;
    record->creator_session = segment->creator_session;
    record->creator_request = segment->creator_request;
    record->charged_session = segment->charged_session;
    record->charged_uid = segment->account->uid;
    record->name_kind = segment->name.kind;
    record->name_id = segment->name.id;
    record->name_bytes = segment->name_bytes;
    memcpy(record->name, segment->name.bytes, sizeof(record->name));
    /* relaxed: the state vouches for them */
    atomic_store_explicit(&record->facts, facts, memory_order_relaxed);
    atomic_store_explicit(&record->data_bytes, segment->data_bytes, memory_order_relaxed);
    lkd_record_enter(&record->state, LKD_RECORD_LIVE);
    segment->record = record;
}

void lkd_segment_format(struct lkd_core *core, struct lkd_segment *segment,
                        const struct lkd_segment_made *made)
{
    /* Tokens rise over re-creation: a name's next segment starts beyond its last. */
    uint64_t epoch = core->last_epoch_s + 1;
    if (epoch < core->config.token_epoch_s)
        epoch = core->config.token_epoch_s;
    core->last_epoch_s = epoch;
    LKI_STEP("last_epoch");
    /* release: before a token of it is given */
    atomic_store_explicit(&core->ledger.header->last_epoch_s, epoch, memory_order_release);

    bool unpublished = segment->flags & LK_UNPUBLISHED;
    struct lki_area_config config = {
        .locks = segment->locks,
        .attachments_max = segment->attachments_max,
        .patience_ns = segment->patience_ns,
        .data_bytes = segment->data_bytes,
        .data_bytes_max = segment->data_bytes_max,
        .sequence_start = epoch << 32,
        .state = unpublished ? LKI_SEGMENT_UNPUBLISHED : LKI_SEGMENT_PUBLISHED,
        .bias = core->config.barrier != NULL,
    };
    int r = lki_area_format(made->area_base, &config, &segment->area);
    LKI_ASSERT(r == 0); /* the wish was checked */
    enter(segment, unpublished ? LKD_SEGMENT_UNPUBLISHED : LKD_SEGMENT_PUBLISHED);
    record(core, segment, made);
}

void lkd_segment_publish(struct lkd_segment *segment)
{
    enter(segment, LKD_SEGMENT_PUBLISHED);
    LKI_STEP("publish");
    /* seq_cst: a successor publishes it once more */
    atomic_fetch_or_explicit(&segment->record->facts, LKD_SEGMENT_IS_PUBLISHED,
                             memory_order_seq_cst);
    lkd_fact_publish(&segment->area);
}

void lkd_segment_set_data_bytes(struct lkd_segment *segment, uint64_t data_bytes)
{
    segment->data_bytes = data_bytes;
    LKI_STEP("data_bytes");
    /* release: a successor tells those who map it */
    atomic_store_explicit(&segment->record->data_bytes, data_bytes, memory_order_release);
    lkd_fact_set_data_bytes(&segment->area, data_bytes);
}

void lkd_segment_quarantine(struct lkd_segment *segment)
{
    segment->quarantined = true;
    LKI_STEP("quarantine");
    /* seq_cst: before whatever is done next */
    atomic_fetch_or_explicit(&segment->record->facts, LKD_SEGMENT_IS_QUARANTINED,
                             memory_order_seq_cst);
}

void lkd_segment_settle(struct lkd_core *core, struct lkd_segment *segment)
{
    if (segment->slots_taken > 0 || segment->growing)
        return;
    LKI_ASSERT(!segment->orphaned); /* somebody attached asked, and is repaired after that */
    switch (segment->state) {
    case LKD_SEGMENT_MAKING:
    case LKD_SEGMENT_ENDED:
        LKI_UNREACHABLE("nothing of a segment ends before it is made, or after it");
        break;
    case LKD_SEGMENT_UNPUBLISHED: /* its creator is gone: nobody can publish it */
        lkd_segment_end(core, segment, true);
        break;
    case LKD_SEGMENT_PUBLISHED:
        if (!segment->named || !(segment->flags & LK_KEEP))
            lkd_segment_end(core, segment, true);
        break;
    }
}

void lkd_segment_end(struct lkd_core *core, struct lkd_segment *segment, bool was_made)
{
    LKI_ASSERT(segment->slots_taken == 0);
    LKI_ASSERT(lki_list_is_empty(&segment->repairs) && lki_list_is_empty(&segment->waits));
    LKI_ASSERT(lki_list_is_empty(&segment->parked));
    enter(segment, LKD_SEGMENT_ENDED);
    lki_list_remove(&segment->of_repairs);
    lkd_registry_remove(core, segment);
    lkd_uncharge_segment(core, segment);
    lkd_ledger_give_segment(&core->ledger, segment->record);
    segment->record = NULL;
    if (was_made) {
        lkd_monitor_segment(core, LKI_EVENT_SEGMENT_ENDED, segment, NULL);
        lkd_effect_push(core, &segment->drop);
    } else {
        lkd_segment_free(segment);
    }
}

uint32_t lkd_segment_take_slot(struct lkd_segment *segment, struct lkd_attachment *attachment)
{
    uint32_t slot = segment->lowest_free;
    while (slot < segment->slot_capacity && segment->slots[slot].attachment)
        slot++;
    segment->lowest_free = slot;
    LKI_ASSERT(slot <= segment->attachments_max); /* not all are taken */
    if (!reserve_slot(segment, slot))
        return 0;
    struct lkd_slot *taken = &segment->slots[slot];
    taken->attachment = attachment;
    taken->generation = taken->generation >= LKI_GENERATION_MAX ? 1 : taken->generation + 1;
    segment->slots_taken++;
    segment->lowest_free = slot + 1;
    return slot;
}

void lkd_segment_free_slot(struct lkd_segment *segment, uint32_t slot)
{
    LKI_ASSERT(slot >= 1 && slot < segment->slot_capacity);
    LKI_ASSERT(segment->slots[slot].attachment);
    segment->slots[slot].attachment = NULL; /* its generation stays, for the next */
    segment->slots_taken--;
    if (slot < segment->lowest_free)
        segment->lowest_free = slot;
}

struct lkd_attachment *lkd_segment_attachment(const struct lkd_segment *segment, uint32_t id)
{
    uint32_t slot = id & LKI_SLOT_MASK;
    if (slot == 0 || slot >= segment->slot_capacity)
        return NULL;
    struct lkd_attachment *attachment = segment->slots[slot].attachment;
    return attachment && attachment->id == id ? attachment : NULL;
}

void lkd_segment_check(const struct lkd_core *core, const struct lkd_segment *segment)
{
    LKI_ASSERT(segment->state != LKD_SEGMENT_ENDED);
    LKI_ASSERT(lkd_registry_find_number(core, segment->number) == segment);
    if (segment->named)
        LKI_ASSERT(lkd_registry_find_name(core, &segment->name, segment->name_bytes) == segment);
    uint32_t taken = 0;
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++) {
        const struct lkd_attachment *attachment = segment->slots[slot].attachment;
        if (!attachment) {
            LKI_ASSERT(slot >= segment->lowest_free);
            continue;
        }
        taken++;
        LKI_ASSERT(attachment->segment == segment && attachment->slot == slot);
        LKI_ASSERT(attachment->id ==
                   (segment->slots[slot].generation << LKI_GENERATION_SHIFT | slot));
        LKI_ASSERT(attachment->state != LKD_ATTACHMENT_ENDED);
    }
    LKI_ASSERT(taken == segment->slots_taken && taken <= segment->attachments_max);
    LKI_ASSERT(segment->data_bytes <= segment->data_bytes_max);
    bool busy = segment->orphaned || !lki_list_is_empty(&segment->repairs);
    LKI_ASSERT(busy == !lki_list_is_empty(&segment->of_repairs));
    LKI_ASSERT((segment->state == LKD_SEGMENT_MAKING || segment->growing) ||
               lki_list_is_empty(&segment->parked));
    if (segment->state == LKD_SEGMENT_MAKING)
        LKI_ASSERT(taken == 0 && segment->named);
    else /* what nobody can use any more has ended */
        LKI_ASSERT(taken > 0 || segment->growing || segment->orphaned ||
                   (segment->named && segment->flags & LK_KEEP &&
                    segment->state == LKD_SEGMENT_PUBLISHED));
}
