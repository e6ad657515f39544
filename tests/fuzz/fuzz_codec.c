/* SPDX-License-Identifier: MIT */
/* The codec: a record from a peer becomes a message or is refused. What was decoded encodes again,
 * into no more bytes than its direction allows, decodes to the same, and points to nothing but the
 * arena. The first byte chooses the direction. */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "proto/codec.h"

static bool is_in_arena(const struct lki_arena *arena, const void *start, size_t bytes)
{
    const uint8_t *first = start;
    return bytes == 0 || (first >= arena->buffer && bytes <= arena->used_bytes &&
                          first + bytes <= arena->buffer + arena->used_bytes);
}

static void check_bytes(const struct lki_arena *arena, struct lki_bytes bytes)
{
    FUZZ_CHECK(is_in_arena(arena, bytes.data, bytes.length_bytes));
}

static void check_page(const struct lki_arena *arena, const struct lki_list_page *page)
{
    FUZZ_CHECK(page->count <= LKI_LIST_PAGE_ENTRIES_MAX);
    FUZZ_CHECK(is_in_arena(arena, page->entries, page->count * sizeof(*page->entries)));
    for (size_t i = 0; i < page->count; i++) {
        check_bytes(arena, page->entries[i].name);
        check_bytes(arena, page->entries[i].lock_name);
        check_bytes(arena, page->entries[i].command);
    }
}

static void check_borrowed(const struct lki_arena *arena, const struct lki_message *message)
{
    switch ((int)message->type) {
    case LKI_REQUEST_OPEN:
        check_bytes(arena, message->as.open.name);
        break;
    case LKI_REQUEST_REMOVE:
        check_bytes(arena, message->as.remove.name);
        break;
    case LKI_REQUEST_LOCK_NAMED:
        check_bytes(arena, message->as.lock_named.name);
        break;
    case LKI_REQUEST_LIST:
        check_bytes(arena, message->as.list.name);
        break;
    case LKI_REQUEST_MONITOR:
        check_bytes(arena, message->as.monitor.name);
        break;
    case LKI_REQUEST_FORCE_RELEASE:
        check_bytes(arena, message->as.force_release.name);
        check_bytes(arena, message->as.force_release.lock_name);
        check_bytes(arena, message->as.force_release.reason);
        break;
    case LKI_REPLY_RESULT:
        check_bytes(arena, message->as.result.detail);
        break;
    case LKI_REPLY_HOLDER_IS:
        check_bytes(arena, message->as.holder_is.command);
        break;
    case LKI_REPLY_LIST_PAGE:
        check_page(arena, &message->as.list_page);
        break;
    case LKI_REPLY_EVENT:
        check_bytes(arena, message->as.event.name);
        check_bytes(arena, message->as.event.lock_name);
        check_bytes(arena, message->as.event.command);
        check_bytes(arena, message->as.event.text);
        break;
    default:
        break;
    }
}

/* Encodes what was decoded, decodes that, and encodes once more: the two texts are one. Encoding has
 * one spelling for each message, so the messages are one too. */
static void check_again(const struct lki_message *message, enum lki_direction direction)
{
    static struct lki_arena arena;
    static uint8_t first[LKI_REPLY_BYTES_MAX], second[LKI_REPLY_BYTES_MAX];
    size_t first_bytes = 0, second_bytes = 0, max = lki_record_bytes_max(direction);
    struct lki_message again;
    const char *reason = NULL;

    int r = lki_message_encode(message, first, max, &first_bytes);
    FUZZ_CHECK(r == 0, "what was decoded does not encode: %d", r);
    FUZZ_CHECK(first_bytes > 0 && first_bytes <= max);
    r = lki_message_decode(&arena, first, first_bytes, direction, &again, &reason);
    FUZZ_CHECK(r == 0, "what was encoded does not decode: %d (%s)", r, reason ? reason : "");
    FUZZ_CHECK(again.type == message->type && again.id == message->id);
    r = lki_message_encode(&again, second, max, &second_bytes);
    FUZZ_CHECK(r == 0 && second_bytes == first_bytes);
    FUZZ_CHECK(memcmp(first, second, first_bytes) == 0, "it changes on the way");
    /* One byte less than it takes is refused, and nothing is written behind the end. */
    memset(second, 0xa5, sizeof(second));
    r = lki_message_encode(message, second, first_bytes - 1, &second_bytes);
    FUZZ_CHECK(r == -EMSGSIZE && second[first_bytes - 1] == 0xa5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static struct lki_arena arena;
    struct lki_message message;
    const char *reason = NULL;
    if (size_bytes == 0)
        return 0;
    enum lki_direction direction = data[0] & 1 ? LKI_DIRECTION_REPLY : LKI_DIRECTION_REQUEST;
    data++;
    size_bytes--;
    int r = lki_message_decode(&arena, data, size_bytes, direction, &message, &reason);
    FUZZ_CHECK(arena.used_bytes <= sizeof(arena.buffer));
    if (r < 0) {
        FUZZ_CHECK((r == -EPROTO || r == -EMSGSIZE) && reason && reason[0]);
        FUZZ_CHECK(size_bytes <= lki_record_bytes_max(direction) || r == -EMSGSIZE);
        return 0;
    }
    FUZZ_CHECK(r == 0 && size_bytes > 0 && size_bytes <= lki_record_bytes_max(direction));
    FUZZ_CHECK(lki_message_direction(message.type) == direction);
    FUZZ_CHECK(strcmp(lki_message_type_name(message.type), "unknown") != 0);
    check_borrowed(&arena, &message);
    check_again(&message, direction);
    return 0;
}
