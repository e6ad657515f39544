/* SPDX-License-Identifier: MIT */
#include "broker/core/reservation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/registry.h"
#include "broker/core/session.h"
#include "common/assert.h"

bool lkd_core_next_name_change(struct lkd_core *core, struct lkd_name_change *out)
{
    uint32_t index;
    if (!lkd_ledger_next_change(&core->ledger, &index))
        return false;
    const struct lkd_attachment_record *record = &core->ledger.attachments[index];
    *out = (struct lkd_name_change){.index = index};
    if (lkd_record_state(&record->state) == LKD_RECORD_FREE || record->flags & LKD_ATTACHMENT_EXTRA)
        return true;
    const struct lkd_session *session = lkd_session_find(core, record->session);
    const struct lkd_segment *segment = lkd_registry_find_number(core, record->segment);
    LKI_ASSERT(session && segment); /* their records outlive it */
    if (!segment->named)
        return true;
    out->present = true;
    out->process = session->process->number;
    out->name_kind = segment->name.kind;
    out->name_id = segment->name.id;
    out->name_bytes = segment->name_bytes;
    out->name = segment->name.bytes;
    return true;
}

int lkd_core_reserve_name(struct lkd_core *core, const struct lkd_name_change *name, int32_t pid)
{
    struct lkd_reservation *reservation = calloc(1, sizeof(*reservation));
    if (!reservation)
        return -ENOMEM;
    reservation->name.kind = name->name_kind;
    reservation->name.id = name->name_id;
    reservation->name_bytes =
        name->name_bytes <= LKI_NAME_BYTES_MAX ? name->name_bytes : LKI_NAME_BYTES_MAX;
    memcpy(reservation->name.bytes, name->name, reservation->name_bytes);
    reservation->process = name->process;
    reservation->pid = pid;
    lki_list_append(&core->reserved, &reservation->node);
    return 0;
}

/* Few, and only for as long as clients of a lost broker live: a list does. */
const struct lkd_reservation *lkd_reservation_find(const struct lkd_core *core,
                                                   const struct lkd_name *name, uint32_t name_bytes)
{
    for (const struct lki_list *node = core->reserved.next; node != &core->reserved;
         node = node->next) {
        const struct lkd_reservation *reservation =
            LKI_LIST_ENTRY(node, struct lkd_reservation, node);
        if (reservation->name_bytes == name_bytes && reservation->name.kind == name->kind &&
            reservation->name.id == name->id &&
            memcmp(reservation->name.bytes, name->bytes, name_bytes) == 0)
            return reservation;
    }
    return NULL;
}

void lkd_reservations_end(struct lkd_core *core, uint64_t process)
{
    LKI_LIST_FOREACH_SAFE (node, &core->reserved) {
        struct lkd_reservation *reservation = LKI_LIST_ENTRY(node, struct lkd_reservation, node);
        if (reservation->process != process)
            continue;
        lki_list_remove(node);
        free(reservation);
    }
}

void lkd_reservations_deinit(struct lkd_core *core)
{
    LKI_LIST_FOREACH_SAFE (node, &core->reserved) {
        lki_list_remove(node);
        free(LKI_LIST_ENTRY(node, struct lkd_reservation, node));
    }
}
