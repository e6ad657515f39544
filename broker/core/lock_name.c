/* SPDX-License-Identifier: MIT */
#include "broker/core/lock_name.h"

#include <stdlib.h>
#include <string.h>

#include "broker/core/fact.h"
#include "common/assert.h"

static struct lkd_lock_name *find(const struct lkd_core *core, const struct lkd_segment *segment,
                                  struct lki_bytes text)
{
    struct lkd_lock_name *name;
    unsigned hash = lkd_hash(core->config.hash_seed, text.data, text.length_bytes);
    HASH_FIND_BYHASHVALUE(by_name, segment->lock_names, text.data, text.length_bytes, hash, name);
    return name;
}

/* False: no memory. */
static bool add(struct lkd_core *core, struct lkd_segment *segment, uint32_t lock,
                struct lki_bytes text)
{
    if (!segment->lock_name_at) {
        segment->lock_name_at = calloc(segment->locks, sizeof(struct lkd_lock_name *));
        if (!segment->lock_name_at)
            return false;
    }
    struct lkd_lock_name *name = calloc(1, sizeof(*name) + text.length_bytes);
    if (!name)
        return false;
    name->lock = lock;
    name->length_bytes = (uint32_t)text.length_bytes;
    memcpy(name->bytes, text.data, text.length_bytes);
    unsigned hash = lkd_hash(core->config.hash_seed, text.data, text.length_bytes);
    HASH_ADD_KEYPTR_BYHASHVALUE(by_name, segment->lock_names, name->bytes, name->length_bytes, hash,
                                name);
    if (!name->by_name.tbl) {
        free(name);
        return false;
    }
    LKI_ASSERT(lock < segment->locks && !segment->lock_name_at[lock]);
    segment->lock_name_at[lock] = name;
    segment->next_named = lock + 1;
    lkd_fact_name_lock(&segment->area, lock, name->bytes, name->length_bytes);
    return true;
}

/* Entries get their names in order, so the first without one ends the walk: the table may be large
 * and is touched no further. */
bool lkd_lock_names_adopt(struct lkd_core *core, struct lkd_segment *segment)
{
    for (uint32_t lock = segment->locks == 1 ? 0 : 1; lock < segment->locks; lock++) {
        uint8_t bytes[LKI_NAME_BYTES_MAX + 1];
        uint32_t length = lkd_fact_lock_name(&segment->area, lock, bytes);
        struct lki_bytes text = {.data = bytes, .length_bytes = length};
        const char *reason = "";
        if (length == 0)
            break;
        if (lki_lock_name_check(text, &reason) == 0 && !find(core, segment, text) &&
            !add(core, segment, lock, text))
            return false;
    }
    return true;
}

void lkd_lock_name_request(struct lkd_core *core, struct lkd_attachment *main,
                           const struct lki_message *message)
{
    struct lkd_segment *segment = main->segment;
    struct lkd_session *session = main->session;
    struct lki_bytes text = message->as.lock_named.name;
    const char *reason = "";

    if (lki_lock_name_check(text, &reason) < 0) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a lock: %s", reason);
        return;
    }
    const struct lkd_lock_name *name = find(core, segment, text);
    if (name) {
        lkd_reply_result(core, session, message->id, LKI_STATUS_OK, name->lock);
        return;
    }
    if (main->read_only) {
        lkd_refuse(core, session, message->id, LKI_STATUS_DENIED,
                   "no lock has the name '%.*s', and this session opened the segment read-only; "
                   "a session that may write has to name it first",
                   (int)text.length_bytes, (const char *)text.data);
        return;
    }
    uint32_t lock = segment->next_named > 0 || segment->locks == 1 ? segment->next_named : 1;
    if (lock >= segment->locks) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NO_SPACE,
                   "no entry is left for the lock '%.*s': the segment has %u and all have names; "
                   "create it with more locks",
                   (int)text.length_bytes, (const char *)text.data, segment->locks);
        return;
    }
    if (!add(core, segment, lock, text)) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NO_MEMORY,
                   "the broker has no memory for the name of one more lock");
        return;
    }
    lkd_reply_result(core, session, message->id, LKI_STATUS_OK, lock);
}

bool lkd_lock_name_find(const struct lkd_core *core, const struct lkd_segment *segment,
                        struct lki_bytes text, uint32_t *out_lock)
{
    const struct lkd_lock_name *name = find(core, segment, text);
    if (name)
        *out_lock = name->lock;
    return name != NULL;
}

struct lki_bytes lkd_lock_name_at(const struct lkd_segment *segment, uint32_t lock)
{
    LKI_ASSERT(lock < segment->locks);
    const struct lkd_lock_name *name = segment->lock_name_at ? segment->lock_name_at[lock] : NULL;
    if (!name)
        return (struct lki_bytes){.data = NULL};
    return (struct lki_bytes){.data = name->bytes, .length_bytes = name->length_bytes};
}

void lkd_lock_names_deinit(struct lkd_segment *segment)
{
    struct lkd_lock_name *name, *next;
    HASH_ITER(by_name, segment->lock_names, name, next)
    {
        HASH_DELETE(by_name, segment->lock_names, name);
        free(name);
    }
    free(segment->lock_name_at);
    segment->lock_name_at = NULL;
}
