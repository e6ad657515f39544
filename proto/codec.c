/* SPDX-License-Identifier: MIT */
#include "proto/codec.h"

#include <errno.h>

#include "common/compiler.h"
#include "proto/wire.h"

/* In lockkeeper.proto a message's field in the envelope has the number of its type and this. */
#define MESSAGE_FIELD_BASE 100u

enum envelope_field {
    ENVELOPE_ID = 1,
    ENVELOPE_APPLIED = 2,
};

enum wire_format { /* the low three bits of a protobuf tag */
                   WIRE_VARINT = 0,
                   WIRE_BYTES = 2,
};

struct reader {
    const uint8_t *next;
    const uint8_t *end;
};

static bool read_varint(struct reader *reader, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (reader->next == reader->end)
            return false;
        uint8_t byte = *reader->next++;
        if (shift == 63 && byte > 1)
            return false; /* more than 64 bits */
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool is_type(uint64_t number)
{
    return (number >= LKI_REQUEST_HELLO && number <= LKI_REQUEST_CHANGE_MODE) ||
           (number >= LKI_REPLY_RESULT && number <= LKI_REPLY_EVENT);
}

/* Reads one field of the envelope and skips its value. NULL, or why not. */
static const char *scan_field(struct reader *reader, enum lki_direction direction,
                              uint32_t *seen_numbers, enum lki_message_type *type)
{
    uint64_t tag, value;

    if (!read_varint(reader, &tag))
        return "malformed tag";
    const uint64_t number = tag >> 3;
    const uint64_t format = tag & 7;
    if (number == ENVELOPE_ID || number == ENVELOPE_APPLIED) {
        if (*seen_numbers & (1u << number))
            return "the same field twice";
        *seen_numbers |= 1u << number;
        return format == WIRE_VARINT && read_varint(reader, &value) ? NULL : "malformed id";
    }
    if (number < MESSAGE_FIELD_BASE || !is_type(number - MESSAGE_FIELD_BASE))
        return "unknown field";
    if (*type != LKI_MESSAGE_NONE)
        return "more than one message in a record";
    *type = (enum lki_message_type)(number - MESSAGE_FIELD_BASE);
    if (lki_message_direction(*type) != direction)
        return direction == LKI_DIRECTION_REQUEST ? "a reply from a client"
                                                  : "a request from a broker";
    if (format != WIRE_BYTES || !read_varint(reader, &value) ||
        value > (uint64_t)(reader->end - reader->next))
        return "malformed message";
    reader->next += value;
    return NULL;
}

/* Looks at the outline of a record before anything is unpacked: a wrong record costs no memory, and
 * a message that comes twice is seen, which protobuf would merge. NULL and *out_type, or why not.
 */
static const char *scan_envelope(const uint8_t *bytes, size_t size_bytes,
                                 enum lki_direction direction, enum lki_message_type *out_type)
{
    struct reader reader = {bytes, bytes + size_bytes};
    uint32_t seen_numbers = 0;

    *out_type = LKI_MESSAGE_NONE;
    while (reader.next != reader.end) {
        const char *reason = scan_field(&reader, direction, &seen_numbers, out_type);
        if (reason)
            return reason;
    }
    return *out_type == LKI_MESSAGE_NONE ? "no message in the record" : NULL;
}

static const char *check_message(const ProtobufCMessage *message);

static const char *check_field(const ProtobufCMessage *message,
                               const ProtobufCFieldDescriptor *field)
{
    const uint8_t *member = (const uint8_t *)message + field->offset;

    if (field->type == PROTOBUF_C_TYPE_ENUM) { /* never repeated here */
        const int value = *(const int *)(const void *)member;
        if (!protobuf_c_enum_descriptor_get_value(field->descriptor, value))
            return "a value outside its enum";
        return NULL;
    }
    if (field->type != PROTOBUF_C_TYPE_MESSAGE)
        return NULL;
    if (field->label != PROTOBUF_C_LABEL_REPEATED) {
        const ProtobufCMessage *part = *(ProtobufCMessage *const *)(const void *)member;
        return part ? check_message(part) : NULL;
    }
    const size_t count =
        *(const size_t *)(const void *)((const uint8_t *)message + field->quantifier_offset);
    ProtobufCMessage *const *parts = *(ProtobufCMessage *const *const *)(const void *)member;
    for (size_t i = 0; i < count; i++) {
        const char *reason = check_message(parts[i]);
        if (reason)
            return reason;
    }
    return NULL;
}

/* Refuses what protobuf lets pass: fields that are not in the schema, and enum values that are not.
 * No type of the schema contains itself (a test sees to it), so this goes three levels deep at
 * most. */
static const char *check_message(const ProtobufCMessage *message)
{
    if (message->n_unknown_fields != 0)
        return "unknown field";
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const char *reason = check_field(message, &message->descriptor->fields[i]);
        if (reason)
            return reason;
    }
    return NULL;
}

static void *arena_alloc(void *arena, size_t size_bytes)
{
    return lki_arena_take(arena, size_bytes);
}

static void arena_free(void *arena, void *memory)
{
    (void)arena, (void)memory; /* the next reset takes all back */
}

/* Unpacks a record whose outline was found good. */
static int unpack(struct lki_arena *arena, const uint8_t *bytes, size_t size_bytes,
                  enum lki_message_type type, struct lki_message *out, const char **out_reason)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_free, arena};
    struct lki_list_entry *entries = NULL;

    Lockkeeper__Wire__Envelope *envelope =
        lockkeeper__wire__envelope__unpack(&allocator, size_bytes, bytes);
    if (!envelope) {
        *out_reason = arena->exhausted ? "takes too much memory" : "malformed message";
        return arena->exhausted ? -EMSGSIZE : -EPROTO;
    }
    *out_reason = check_message(&envelope->base);
    if (*out_reason)
        return -EPROTO;
    if (type == LKI_REPLY_LIST_PAGE) {
        const size_t count = envelope->list_page->n_entries;
        if (count > LKI_LIST_PAGE_ENTRIES_MAX) {
            *out_reason = "too many entries in a page";
            return -EMSGSIZE;
        }
        entries = lki_arena_take(arena, count * sizeof(*entries));
        if (!entries) {
            *out_reason = "takes too much memory";
            return -EMSGSIZE;
        }
    }
    lki_wire_take(envelope, type, entries, out);
    return 0;
}

int lki_message_decode(struct lki_arena *arena, const uint8_t *bytes, size_t size_bytes,
                       enum lki_direction direction, struct lki_message *out,
                       const char **out_reason)
{
    enum lki_message_type type;

    lki_arena_reset(arena);
    if (size_bytes == 0) {
        *out_reason = "an empty record";
        return -EPROTO;
    }
    if (size_bytes > lki_record_bytes_max(direction)) {
        *out_reason = "a record longer than allowed";
        return -EMSGSIZE;
    }
    *out_reason = scan_envelope(bytes, size_bytes, direction, &type);
    if (*out_reason)
        return -EPROTO;
    return unpack(arena, bytes, size_bytes, type, out, out_reason);
}

static int pack(const struct lki_wire_parts *parts, enum lki_direction direction, uint8_t *buffer,
                size_t capacity_bytes, size_t *out_bytes)
{
    if (check_message(&parts->envelope.base))
        return -EINVAL;
    const size_t size_bytes = lockkeeper__wire__envelope__get_packed_size(&parts->envelope);
    if (size_bytes > capacity_bytes || size_bytes > lki_record_bytes_max(direction))
        return -EMSGSIZE;
    *out_bytes = lockkeeper__wire__envelope__pack(&parts->envelope, buffer);
    return 0;
}

/* Apart, since its frame is large and few messages are pages. */
static LKI_NOINLINE int pack_page(const struct lki_list_page *page, struct lki_wire_parts *parts,
                                  uint8_t *buffer, size_t capacity_bytes, size_t *out_bytes)
{
    Lockkeeper__Wire__ListEntry entries[LKI_LIST_PAGE_ENTRIES_MAX];
    Lockkeeper__Wire__ListEntry *pointers[LKI_LIST_PAGE_ENTRIES_MAX];

    if (page->count > LKI_LIST_PAGE_ENTRIES_MAX)
        return -EMSGSIZE;
    for (size_t i = 0; i < page->count; i++) {
        lki_wire_put_entry(&page->entries[i], &entries[i]);
        pointers[i] = &entries[i];
    }
    parts->message.list_page.n_entries = page->count;
    parts->message.list_page.entries = pointers;
    return pack(parts, LKI_DIRECTION_REPLY, buffer, capacity_bytes, out_bytes);
}

int lki_message_encode(const struct lki_message *message, uint8_t *buffer, size_t capacity_bytes,
                       size_t *out_bytes)
{
    struct lki_wire_parts parts;

    if (!lki_wire_put(message, &parts))
        return -EINVAL;
    if (message->type == LKI_REPLY_LIST_PAGE)
        return pack_page(&message->as.list_page, &parts, buffer, capacity_bytes, out_bytes);
    return pack(&parts, lki_message_direction(message->type), buffer, capacity_bytes, out_bytes);
}
