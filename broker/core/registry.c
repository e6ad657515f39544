/* SPDX-License-Identifier: MIT */
#include "broker/core/registry.h"

#include <string.h>

#include "common/assert.h"
#include "engine/step.h"

static size_t key_bytes(uint32_t name_bytes)
{
    return offsetof(struct lkd_name, bytes) + name_bytes;
}

int lkd_registry_parse(const struct lkd_session *session, struct lki_bytes text,
                       struct lkd_name *out_name, uint32_t *out_name_bytes, const char **out_reason)
{
    struct lki_name parsed;
    int r = lki_name_parse(text, &parsed, out_reason);
    if (r < 0)
        return r;
    LKI_ASSERT(parsed.bytes.length_bytes <= LKI_NAME_BYTES_MAX);
    memset(out_name, 0, sizeof(*out_name));
    out_name->kind = parsed.kind == LKI_NAME_GROUP ? LKI_NAME_GROUP : LKI_NAME_USER;
    out_name->id = parsed.kind == LKI_NAME_OWN ? session->uid : parsed.id;
    memcpy(out_name->bytes, parsed.bytes.data, parsed.bytes.length_bytes);
    *out_name_bytes = (uint32_t)parsed.bytes.length_bytes;
    return 0;
}

struct lkd_segment *lkd_registry_find_name(const struct lkd_core *core, const struct lkd_name *name,
                                           uint32_t name_bytes)
{
    struct lkd_segment *segment;
    size_t bytes = key_bytes(name_bytes);
    unsigned hash = lkd_hash(core->config.hash_seed, name, bytes);
    HASH_FIND_BYHASHVALUE(by_name, core->by_name, name, bytes, hash, segment);
    return segment;
}

struct lkd_segment *lkd_registry_find_number(const struct lkd_core *core, uint32_t number)
{
    struct lkd_segment *segment;
    unsigned hash = lkd_hash(core->config.hash_seed, &number, sizeof(number));
    HASH_FIND_BYHASHVALUE(by_number, core->by_number, &number, sizeof(number), hash, segment);
    return segment;
}

static uint32_t next_number(const struct lkd_core *core)
{
    uint32_t number = core->last_segment;
    do /* ends: there are far fewer segments than numbers */
        number = number >= LKD_SEGMENT_NUMBER_MAX ? 1 : number + 1;
    while (lkd_registry_find_number(core, number));
    return number;
}

static bool add_name(struct lkd_core *core, struct lkd_segment *segment)
{
    size_t bytes = key_bytes(segment->name_bytes);
    unsigned hash = lkd_hash(core->config.hash_seed, &segment->name, bytes);
    HASH_ADD_KEYPTR_BYHASHVALUE(by_name, core->by_name, &segment->name, bytes, hash, segment);
    segment->named = segment->by_name.tbl != NULL;
    return segment->named;
}

bool lkd_registry_adopt(struct lkd_core *core, struct lkd_segment *segment, bool named)
{
    if (named && !add_name(core, segment))
        return false;
    unsigned hash = lkd_hash(core->config.hash_seed, &segment->number, sizeof(segment->number));
    HASH_ADD_KEYPTR_BYHASHVALUE(by_number, core->by_number, &segment->number,
                                sizeof(segment->number), hash, segment);
    if (!segment->by_number.tbl) {
        lkd_registry_remove_name(core, segment);
        return false;
    }
    core->segment_count++;
    return true;
}

bool lkd_registry_add(struct lkd_core *core, struct lkd_segment *segment)
{
    segment->number = next_number(core);
    if (!lkd_registry_adopt(core, segment, true))
        return false;
    core->last_segment = segment->number;
    LKI_STEP("last_segment");
    /* release: before a record that has it */
    atomic_store_explicit(&core->ledger.header->last_segment, segment->number,
                          memory_order_release);
    return true;
}

void lkd_registry_remove_name(struct lkd_core *core, struct lkd_segment *segment)
{
    if (!segment->named)
        return;
    segment->named = false;
    HASH_DELETE(by_name, core->by_name, segment);
    for (uint32_t slot = 1; slot < segment->slot_capacity; slot++)
        if (segment->slots[slot].attachment)
            lkd_ledger_change(&core->ledger, segment->slots[slot].attachment->record);
    LKI_STEP("remove_name");
    if (segment->record) /* seq_cst: before whatever is done next */
        atomic_fetch_and_explicit(&segment->record->facts, ~LKD_SEGMENT_NAMED,
                                  memory_order_seq_cst);
}

void lkd_registry_remove(struct lkd_core *core, struct lkd_segment *segment)
{
    lkd_registry_remove_name(core, segment);
    HASH_DELETE(by_number, core->by_number, segment);
    core->segment_count--;
}

size_t lkd_name_show(const struct lkd_name *name, uint32_t name_bytes, uint32_t uid, char *buffer)
{
    struct lki_name shown = {
        .kind = (enum lki_name_kind)name->kind,
        .id = name->id,
        .bytes = {.data = name->bytes, .length_bytes = name_bytes},
    };
    if (shown.kind == LKI_NAME_USER && name->id == uid) {
        shown.kind = LKI_NAME_OWN;
        shown.id = 0;
    }
    return lki_name_format(&shown, buffer);
}
