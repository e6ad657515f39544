/* SPDX-License-Identifier: MIT */
#include "broker/core/parked.h"

#include <string.h>

#include "common/assert.h"

/* Points the copied message at the copied name. */
static void copy_name(struct lkd_parked *parked, struct lki_bytes *name)
{
    LKI_ASSERT(name->length_bytes <= LKI_NAME_TEXT_BYTES_MAX); /* it was parsed before */
    memcpy(parked->name, name->data, name->length_bytes);
    name->data = (const uint8_t *)parked->name;
}

static void copy_message(struct lkd_parked *parked, const struct lki_message *message)
{
    parked->message = *message;
    if (message->type == LKI_REQUEST_OPEN)
        copy_name(parked, &parked->message.as.open.name);
    else if (message->type == LKI_REQUEST_REMOVE)
        copy_name(parked, &parked->message.as.remove.name);
    else
        LKI_ASSERT(message->type == LKI_REQUEST_GROW);
}

struct lkd_parked *lkd_park(struct lkd_core *core, struct lkd_session *session,
                            struct lkd_segment *segment, const struct lki_message *message,
                            const struct lkd_offer *offer)
{
    if (session->parked_count >= LKI_PARKED_REQUESTS_MAX) {
        lkd_refuse(core, session, message->id, LKI_STATUS_QUOTA,
                   "this session has %u requests that wait for a segment already; read their "
                   "answers first",
                   LKI_PARKED_REQUESTS_MAX);
        return NULL;
    }
    struct lkd_parked *parked = calloc(1, sizeof(*parked));
    if (!parked) {
        lkd_refuse(core, session, message->id, LKI_STATUS_NO_MEMORY,
                   "the broker has no memory to remember this request");
        return NULL;
    }
    copy_message(parked, message);
    parked->session = session;
    parked->segment = segment;
    parked->repeating = session->repeating;
    if (offer)
        parked->offer = *offer;
    lki_list_append(&segment->parked, &parked->of_segment);
    lki_list_append(&session->parked, &parked->of_session);
    session->parked_count++;
    return parked;
}

void lkd_parked_free(struct lkd_parked *parked)
{
    LKI_ASSERT(parked->segment); /* none is freed between taking and resuming */
    if (parked->segment->leader == parked)
        parked->segment->leader = NULL;
    lki_list_remove(&parked->of_segment);
    lki_list_remove(&parked->of_session);
    parked->session->parked_count--;
    free(parked);
}

void lkd_parked_take(struct lkd_segment *segment, struct lki_list *out_list)
{
    lki_list_init(out_list);
    LKI_LIST_FOREACH_SAFE (node, &segment->parked) {
        struct lkd_parked *parked = LKI_LIST_ENTRY(node, struct lkd_parked, of_segment);
        if (parked == segment->leader)
            continue;
        lki_list_remove(node);
        lki_list_append(out_list, node);
        parked->segment = NULL;
    }
}

void lkd_parked_resume(struct lkd_core *core, struct lki_list *list, uint64_t now_ns)
{
    while (!lki_list_is_empty(list)) {
        struct lkd_parked *parked = LKI_LIST_ENTRY(list->next, struct lkd_parked, of_segment);
        /* Off the lists first, so that it may be parked again. */
        lki_list_remove(&parked->of_segment);
        lki_list_remove(&parked->of_session);
        parked->session->parked_count--;
        parked->offer.present = false; /* the driver kept no descriptor; what it was counts still */
        parked->session->repeating = parked->repeating;
        lkd_core_apply(core, parked->session, &parked->message, &parked->offer, now_ns);
        free(parked);
    }
}

void lkd_parked_drop_session(struct lkd_core *core, struct lkd_session *session)
{
    (void)core;
    while (!lki_list_is_empty(&session->parked))
        lkd_parked_free(LKI_LIST_ENTRY(session->parked.next, struct lkd_parked, of_session));
}

void lkd_parked_cancel_session(struct lkd_core *core, struct lkd_session *session)
{
    LKI_LIST_FOREACH_SAFE (node, &session->parked) {
        struct lkd_parked *parked = LKI_LIST_ENTRY(node, struct lkd_parked, of_session);
        lkd_refuse(core, session, parked->message.id, LKI_STATUS_CANCELED,
                   "the session says goodbye");
    }
    lkd_parked_drop_session(core, session);
}
