/* SPDX-License-Identifier: MIT */
#include "world.h"

#include <stdlib.h>
#include <string.h>

/* --- Requests --- */

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){.data = (const uint8_t *)text, .length_bytes = strlen(text)};
}

struct lki_message open_message(const char *name, uint32_t flags)
{
    return (struct lki_message){
        .type = LKI_REQUEST_OPEN,
        .as.open = {.name = bytes_of(name), .flags = flags},
    };
}

uint64_t request_open(uint64_t session, const char *name, uint32_t flags)
{
    return send_message(session, open_message(name, flags));
}

uint64_t request_segment(uint64_t session, enum lki_message_type type, uint32_t segment)
{
    return send_message(session, (struct lki_message){.type = type, .as.segment_ref = {segment}});
}

uint64_t request_remove(uint64_t session, const char *name)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_REMOVE, .as.remove = {bytes_of(name)}});
}

uint64_t request_grow(uint64_t session, uint32_t segment, uint64_t size_bytes)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_GROW, .as.grow = {segment, size_bytes}});
}

uint64_t request_lock_named(uint64_t session, uint32_t segment, const char *name)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_LOCK_NAMED,
                                                      .as.lock_named = {segment, bytes_of(name)}});
}

static uint64_t acquire(uint64_t session, const struct lki_acquire *acquire)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_ACQUIRE, .as.acquire = *acquire});
}

uint64_t request_acquire(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                         uint64_t deadline_ns)
{
    return acquire(session,
                   &(struct lki_acquire){
                       .segment = segment, .lock = lock, .mode = mode, .deadline_ns = deadline_ns});
}

uint64_t request_async(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                       uint64_t deadline_ns)
{
    return acquire(session, &(struct lki_acquire){.segment = segment,
                                                  .lock = lock,
                                                  .mode = mode,
                                                  .asynchronous = true,
                                                  .deadline_ns = deadline_ns});
}

uint64_t request_hold(uint64_t session, enum lki_message_type type, uint32_t segment, uint32_t lock,
                      uint32_t attachment)
{
    return send_message(
        session, (struct lki_message){
                     .type = type,
                     .as.hold_ref = {.segment = segment, .lock = lock, .attachment = attachment}});
}

uint64_t request_cancel(uint64_t session, uint64_t request)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_CANCEL, .as.cancel = {request}});
}

uint64_t request_ask(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner)
{
    return request_complain(session, segment, lock, owner, 0);
}

uint64_t request_complain(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner,
                          uint64_t sequence)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_ASK,
                                                      .as.ask = {segment, lock, owner, sequence}});
}

uint64_t request_force(uint64_t session, const char *name, uint32_t lock, const char *reason)
{
    return send_message(session,
                        (struct lki_message){.type = LKI_REQUEST_FORCE_RELEASE,
                                             .as.force_release = {.name = bytes_of(name),
                                                                  .lock = lock,
                                                                  .reason = bytes_of(reason)}});
}

uint64_t request_holder(uint64_t session, uint32_t segment, uint32_t lock)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_HOLDER, .as.lock_ref = {segment, lock}});
}

uint64_t request_list(uint64_t session, uint32_t what, const char *name, uint64_t cursor)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_LIST,
                                                      .as.list = {what, cursor, bytes_of(name)}});
}

uint64_t request_goodbye(uint64_t session)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_GOODBYE});
}

uint64_t request_monitor(uint64_t session, const char *name)
{
    return send_message(
        session, (struct lki_message){.type = LKI_REQUEST_MONITOR, .as.monitor = {bytes_of(name)}});
}

struct lki_opened opened(uint64_t session, const char *name, uint32_t flags)
{
    uint64_t id = request_open(session, name, flags);
    const struct recorded *answer = reply(session, id);
    cr_assert(ne(ptr, (void *)answer, NULL), "open is not answered");
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_OPENED), "%s", answer->detail);
    return answer->effect.message.as.opened;
}

/* --- What came of it --- */

const struct recorded *reply(uint64_t session, uint64_t id)
{
    const struct recorded *found = NULL;
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        if (effect->kind != LKD_EFFECT_SEND || effect->session != session ||
            effect->message.id != id)
            continue;
        cr_assert(eq(ptr, (void *)found, NULL), "answered twice");
        found = &world.records[i];
    }
    return found;
}

enum lki_status status_of(uint64_t session, uint64_t id)
{
    const struct recorded *answer = reply(session, id);
    cr_assert(ne(ptr, (void *)answer, NULL), "no answer yet");
    if (answer->effect.message.type == LKI_REPLY_GRANTED)
        return answer->effect.message.as.granted.status;
    if (answer->effect.message.type == LKI_REPLY_OPENED)
        return LKI_STATUS_OK;
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_RESULT));
    return answer->effect.message.as.result.status;
}

const char *detail_of(uint64_t session, uint64_t id)
{
    const struct recorded *answer = reply(session, id);
    return answer ? answer->detail : "no answer yet";
}

const struct recorded *next_event(uint64_t session, size_t *position)
{
    while (*position < world.record_count) {
        const struct recorded *record = &world.records[(*position)++];
        if (record->effect.kind == LKD_EFFECT_SEND && record->effect.session == session &&
            record->effect.message.type == LKI_REPLY_EVENT)
            return record;
    }
    return NULL;
}

size_t count_effects(enum lkd_effect_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++)
        count += world.records[i].effect.kind == kind;
    return count;
}

const struct recorded *last_effect(enum lkd_effect_kind kind)
{
    for (size_t i = world.record_count; i > 0; i--)
        if (world.records[i - 1].effect.kind == kind)
            return &world.records[i - 1];
    return NULL;
}

size_t count_wakes(uint32_t segment, uint32_t slot)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++) {
        const struct lkd_effect *effect = &world.records[i].effect;
        count +=
            effect->kind == LKD_EFFECT_WAKE && effect->segment == segment && effect->slot == slot;
    }
    return count;
}

size_t count_logged(const char *text)
{
    size_t count = 0;
    for (size_t i = 0; i < world.record_count; i++)
        count += world.records[i].effect.kind == LKD_EFFECT_LOG &&
                 strstr(world.records[i].detail, text) != NULL;
    return count;
}

bool logged(const char *text)
{
    return count_logged(text) > 0;
}

bool was_disconnected(uint64_t session)
{
    for (size_t i = 0; i < world.record_count; i++)
        if (world.records[i].effect.kind == LKD_EFFECT_DISCONNECT &&
            world.records[i].effect.session == session)
            return true;
    return false;
}
