/* SPDX-License-Identifier: MIT */
#include "actors_stage.h"

#include <string.h>

#include "common/clock.h"

static const char *const lock_names[] = {"red", "green", "blue"};

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){.data = (const uint8_t *)text, .length_bytes = strlen(text)};
}

static struct lki_message acquire_of(const struct line *line, uint32_t segment)
{
    uint64_t never = line->amount ? world.now_ns + line->amount * LKI_NS_PER_MS : LKI_TIME_NEVER;
    return (struct lki_message){
        .type = LKI_REQUEST_ACQUIRE,
        .as.acquire = {.segment = segment,
                       .lock = line->lock,
                       .mode = line->verb == TO_EXIT ? X : line->mode,
                       .to_exit = line->verb == TO_EXIT,
                       .asynchronous = line->verb == ASYNC || line->verb == TO_EXIT,
                       .deadline_ns = line->verb == TRY ? 0 : never},
    };
}

static uint64_t acquire_to_cancel(const struct actor *actor, const struct line *line)
{
    for (uint32_t i = actor->asked_count; i-- > 0;) {
        const struct lki_message *message = &actor->asked[i].message;
        if (message->type == LKI_REQUEST_ACQUIRE && message->as.acquire.lock == line->lock)
            return message->id;
    }
    return 0;
}

static struct lki_message open_of(const struct line *line)
{
    struct lki_message message = open_message(segment_names[line->name], line->flags);
    message.as.open.locks = LOCKS;
    message.as.open.attachments_max = 8;
    message.as.open.mode = 0666;
    message.as.open.size_bytes = line->flags & (LK_CREATE | LK_CREATE_NEW) ? 4096 : 0;
    message.as.open.size_max_bytes = message.as.open.size_bytes * 8;
    message.as.open.patience_ns = stage.fifo ? LK_PATIENCE_FIFO : 0;
    return message;
}

static struct lki_message hold_of(const struct actor *actor, const struct line *line,
                                  enum lki_message_type type, uint32_t segment)
{
    return (struct lki_message){.type = type,
                                .as.hold_ref = {.segment = segment,
                                                .lock = line->lock,
                                                .attachment = actor->held[line->name][line->lock],
                                                .offset = 8,
                                                .length_bytes = 16}};
}

struct lki_message message_of(const struct actor *actor, const struct line *line)
{
    uint32_t segment = actor->at[line->name].segment;
    switch ((int)line->verb) {
    case OPEN:
        return open_of(line);
    case PUBLISH:
        return (struct lki_message){.type = LKI_REQUEST_PUBLISH, .as.segment_ref = {segment}};
    case DETACH:
        return (struct lki_message){.type = LKI_REQUEST_DETACH, .as.segment_ref = {segment}};
    case REMOVE:
        return (struct lki_message){.type = LKI_REQUEST_REMOVE,
                                    .as.remove = {bytes_of(segment_names[line->name])}};
    case GROW:
        return (struct lki_message){.type = LKI_REQUEST_GROW, .as.grow = {segment, line->amount}};
    case LOCK_NAMED:
        return (struct lki_message){.type = LKI_REQUEST_LOCK_NAMED,
                                    .as.lock_named = {segment, bytes_of(lock_names[line->amount])}};
    case CANCEL:
        return (struct lki_message){.type = LKI_REQUEST_CANCEL,
                                    .as.cancel = {acquire_to_cancel(actor, line)}};
    case RELEASE:
        return hold_of(actor, line, LKI_REQUEST_RELEASE, segment);
    case LET_GO: {
        struct lki_message message = hold_of(actor, line, LKI_REQUEST_RELEASE, segment);
        message.as.hold_ref.one_way = true;
        return message;
    }
    case MARK:
        return hold_of(actor, line, LKI_REQUEST_MARK_CONSISTENT, segment);
    case DECLARE:
        return hold_of(actor, line, LKI_REQUEST_DECLARE, segment);
    case GOODBYE:
        return (struct lki_message){.type = LKI_REQUEST_GOODBYE};
    case CONNECT:
        return (struct lki_message){
            .type = LKI_REQUEST_HELLO,
            .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR, .layout_major = LKI_LAYOUT_MAJOR}};
    default:
        return acquire_of(line, segment);
    }
}

struct asked *ask(struct actor *actor, const struct lki_message *message, const struct line *line)
{
    cr_assert(lt(u32, actor->asked_count, ASKED_MAX));
    struct asked *asked = &actor->asked[actor->asked_count++];
    *asked = (struct asked){.message = *message};
    asked->message.id = actor->asked_count;
    asked->one_way = message->type == LKI_REQUEST_HELLO || message->type == LKI_REQUEST_NUDGE ||
                     (line && line->verb == LET_GO);
    if (line) {
        asked->name = line->name;
        if (!asked->one_way)
            asked->outcome = note_outcome(line->verb, line->who, 0, 0);
    }
    return asked;
}
