/* SPDX-License-Identifier: MIT */
/* Records that no well-behaved peer sends. They are written here byte by byte. */
#include "proto/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

enum format {
    VARINT = 0,
    FIXED64 = 1,
    BYTES = 2,
    GROUP = 3,
    GROUP_END = 4,
    FIXED32 = 5,
};

enum field { /* of the envelope */
             ID = 1,
             APPLIED = 2,
             HELLO = 101,
             ACQUIRE = 108,
             LIST = 116,
             GOODBYE = 117,
             RESULT = 132,
             GRANTED = 134,
             HOLDER_IS = 135,
             LIST_PAGE = 136,
};

struct writer {
    size_t length_bytes;
    uint8_t bytes[2 * LKI_REPLY_BYTES_MAX];
};

static struct lki_arena arena;
static struct writer record;
static struct writer inner;
static struct lki_message message;
static const char *reason;

static void setup(void)
{
    record.length_bytes = 0;
    inner.length_bytes = 0;
    reason = "(none)";
}

TestSuite(codec_refusals, .init = setup, .timeout = 50);

static void put_byte(struct writer *writer, unsigned byte)
{
    cr_assert(lt(sz, writer->length_bytes, sizeof(writer->bytes)));
    writer->bytes[writer->length_bytes++] = (uint8_t)byte;
}

static void put_varint(struct writer *writer, uint64_t value)
{
    for (; value > 0x7f; value >>= 7)
        put_byte(writer, (unsigned)(value & 0x7f) | 0x80);
    put_byte(writer, (unsigned)value);
}

static void put_tag(struct writer *writer, unsigned number, enum format format)
{
    put_varint(writer, number << 3 | format);
}

static void put_number(struct writer *writer, unsigned number, uint64_t value)
{
    put_tag(writer, number, VARINT);
    put_varint(writer, value);
}

/* What was written to `inner` so far, as a field of `record`. */
static void put_inner(unsigned number)
{
    put_tag(&record, number, BYTES);
    put_varint(&record, inner.length_bytes);
    for (size_t i = 0; i < inner.length_bytes; i++)
        put_byte(&record, inner.bytes[i]);
    inner.length_bytes = 0;
}

static int decode(enum lki_direction direction)
{
    return lki_message_decode(&arena, record.bytes, record.length_bytes, direction, &message,
                              &reason);
}

static void expect_refusal(enum lki_direction direction, int result, const char *part_of_reason)
{
    cr_expect(eq(int, decode(direction), result));
    cr_expect(ne(ptr, strstr(reason, part_of_reason), NULL), "%s", reason);
}

Test(codec_refusals, an_empty_record)
{
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "empty");
}

Test(codec_refusals, an_id_and_no_message)
{
    put_number(&record, ID, 1);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "no message");
}

Test(codec_refusals, not_the_reserved_applied_field)
{
    put_number(&record, ID, 5);
    put_number(&record, APPLIED, 4);
    put_inner(RESULT);
    cr_expect(eq(int, decode(LKI_DIRECTION_REPLY), 0), "%s", reason);
    cr_expect(eq(int, message.type, LKI_REPLY_RESULT));
    cr_expect(eq(u64, message.id, 5));
}

Test(codec_refusals, unknown_fields_beside_the_message)
{
    static const unsigned numbers[] = {3, 100, 130, 131, 199, 1000, 536870911};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        record.length_bytes = 0;
        put_inner(GOODBYE);
        put_number(&record, numbers[i], 1);
        cr_expect(eq(int, decode(LKI_DIRECTION_REQUEST), -EPROTO), "field %u", numbers[i]);
        cr_expect(ne(ptr, strstr(reason, "unknown"), NULL), "field %u: %s", numbers[i], reason);
    }
}

Test(codec_refusals, an_unknown_field_in_a_message)
{
    put_number(&inner, 4, 1);
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "unknown");
}

Test(codec_refusals, an_unknown_field_in_a_message_without_fields)
{
    put_number(&inner, 1, 1);
    put_inner(GOODBYE);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "unknown");
}

/* Three levels down: envelope, page, entry. */
static void put_page_with_entry_field(unsigned number, uint64_t value)
{
    struct writer entry = {0};

    put_number(&entry, number, value);
    put_tag(&inner, 2, BYTES);
    put_varint(&inner, entry.length_bytes);
    for (size_t i = 0; i < entry.length_bytes; i++)
        put_byte(&inner, entry.bytes[i]);
    put_inner(LIST_PAGE);
}

Test(codec_refusals, an_unknown_field_in_an_entry)
{
    put_page_with_entry_field(20, 1);
    expect_refusal(LKI_DIRECTION_REPLY, -EPROTO, "unknown");
}

Test(codec_refusals, two_messages)
{
    put_inner(GOODBYE);
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "more than one");
}

Test(codec_refusals, the_same_message_twice)
{
    put_number(&inner, 1, 1);
    put_inner(HELLO);
    put_number(&inner, 2, 1);
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "more than one");
}

Test(codec_refusals, the_same_id_twice)
{
    put_number(&record, ID, 1);
    put_number(&record, ID, 2);
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "twice");
}

Test(codec_refusals, a_reply_from_a_client)
{
    put_inner(RESULT);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "reply");
}

Test(codec_refusals, a_request_from_a_broker)
{
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REPLY, -EPROTO, "request");
}

Test(codec_refusals, values_outside_their_enums)
{
    static const struct {
        const char *what;
        unsigned envelope_field, field;
        uint64_t value;
        enum lki_direction direction;
    } rows[] = {
        {"mode 4", ACQUIRE, 3, 4, LKI_DIRECTION_REQUEST},
        {"mode -1", ACQUIRE, 3, UINT64_MAX, LKI_DIRECTION_REQUEST},
        {"what 5", LIST, 1, 5, LKI_DIRECTION_REQUEST},
        {"status 3", RESULT, 1, 3, LKI_DIRECTION_REPLY},
        {"status 34", RESULT, 1, 34, LKI_DIRECTION_REPLY},
        {"granted status 9", GRANTED, 1, 9, LKI_DIRECTION_REPLY},
        {"holder's mode 4", HOLDER_IS, 3, 4, LKI_DIRECTION_REPLY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        record.length_bytes = 0;
        put_number(&inner, rows[i].field, rows[i].value);
        put_inner(rows[i].envelope_field);
        cr_expect(eq(int, decode(rows[i].direction), -EPROTO), "%s", rows[i].what);
        cr_expect(ne(ptr, strstr(reason, "enum"), NULL), "%s: %s", rows[i].what, reason);
    }
}

Test(codec_refusals, a_value_outside_its_enum_in_an_entry)
{
    put_page_with_entry_field(5, 5);
    expect_refusal(LKI_DIRECTION_REPLY, -EPROTO, "enum");
}

Test(codec_refusals, wrong_wire_formats)
{
    static const struct {
        const char *what;
        unsigned number;
        enum format format;
    } rows[] = {
        {"id as bytes", ID, BYTES},          {"id as fixed64", ID, FIXED64},
        {"hello as number", HELLO, VARINT},  {"hello as fixed32", HELLO, FIXED32},
        {"hello as group", HELLO, GROUP},    {"end of a group", HELLO, GROUP_END},
        {"format 7", HELLO, (enum format)7}, {"field 0", 0, VARINT},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        record.length_bytes = 0;
        put_tag(&record, rows[i].number, rows[i].format);
        for (int k = 0; k < 8; k++)
            put_byte(&record, 0);
        cr_expect(eq(int, decode(LKI_DIRECTION_REQUEST), -EPROTO), "%s", rows[i].what);
    }
}

Test(codec_refusals, a_length_beyond_the_end)
{
    static const uint64_t lengths[] = {1, 127, UINT32_MAX, UINT64_MAX >> 1, UINT64_MAX};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        record.length_bytes = 0;
        put_tag(&record, HELLO, BYTES);
        put_varint(&record, lengths[i]);
        expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "malformed");
    }
}

Test(codec_refusals, a_number_without_end)
{
    put_tag(&record, ID, VARINT);
    for (int i = 0; i < 11; i++)
        put_byte(&record, 0xff);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "malformed");
}

Test(codec_refusals, a_record_of_the_maximum_and_one_byte)
{
    static const struct {
        enum lki_direction direction;
        unsigned envelope_field, field;
        size_t bytes_max;
    } rows[] = {
        {LKI_DIRECTION_REQUEST, 105, 1, LKI_REQUEST_BYTES_MAX},
        {LKI_DIRECTION_REPLY, RESULT, 3, LKI_REPLY_BYTES_MAX},
    };
    for (size_t i = 0; i < 2; i++) {
        const size_t length_bytes = rows[i].bytes_max < 1u << 14 ? 2 : 3;
        for (size_t over = 0; over < 2; over++) {
            record.length_bytes = 0;
            inner.length_bytes = 0;
            put_tag(&inner, rows[i].field, BYTES);
            /* tag and length of the message, tag and length of the text */
            const size_t text_bytes =
                rows[i].bytes_max + over - (2 + length_bytes) - (1 + length_bytes);
            put_byte(&inner, (unsigned)(text_bytes & 0x7f) | 0x80);
            if (length_bytes == 3)
                put_byte(&inner, (unsigned)(text_bytes >> 7 & 0x7f) | 0x80);
            put_byte(&inner, (unsigned)(text_bytes >> (7 * (length_bytes - 1))));
            for (size_t k = 0; k < text_bytes; k++)
                put_byte(&inner, 'x');
            put_tag(&record, rows[i].envelope_field, BYTES);
            const size_t message_bytes = inner.length_bytes;
            put_byte(&record, (unsigned)(message_bytes & 0x7f) | 0x80);
            if (length_bytes == 3)
                put_byte(&record, (unsigned)(message_bytes >> 7 & 0x7f) | 0x80);
            put_byte(&record, (unsigned)(message_bytes >> (7 * (length_bytes - 1))));
            for (size_t k = 0; k < message_bytes; k++)
                put_byte(&record, inner.bytes[k]);
            cr_assert(eq(sz, record.length_bytes, rows[i].bytes_max + over));
            cr_expect(eq(int, decode(rows[i].direction), over ? -EMSGSIZE : 0), "%s", reason);
        }
    }
}

static void put_page_of_empty_entries(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_tag(&inner, 2, BYTES);
        put_varint(&inner, 0);
    }
    put_inner(LIST_PAGE);
}

Test(codec_refusals, one_entry_more_than_a_page_has)
{
    put_page_of_empty_entries(LKI_LIST_PAGE_ENTRIES_MAX);
    cr_assert(eq(int, decode(LKI_DIRECTION_REPLY), 0), "%s", reason);
    cr_assert(eq(sz, message.as.list_page.count, LKI_LIST_PAGE_ENTRIES_MAX));

    record.length_bytes = 0;
    put_page_of_empty_entries(LKI_LIST_PAGE_ENTRIES_MAX + 1);
    expect_refusal(LKI_DIRECTION_REPLY, -EMSGSIZE, "too many entries");
}

Test(codec_refusals, eight_thousand_entries_end_in_the_arena)
{
    put_page_of_empty_entries(8000);
    expect_refusal(LKI_DIRECTION_REPLY, -EMSGSIZE, "memory");
    cr_expect(arena.exhausted);
}

Test(codec_refusals, thirty_two_thousand_entries_end_in_the_arena)
{
    put_page_of_empty_entries(32000);
    expect_refusal(LKI_DIRECTION_REPLY, -EMSGSIZE, "memory");
}

Test(codec_refusals, eight_thousand_unknown_fields_end_in_the_arena)
{
    for (int k = 0; k < 8000; k++)
        put_number(&inner, 15, 1);
    put_inner(HELLO);
    expect_refusal(LKI_DIRECTION_REQUEST, -EMSGSIZE, "memory");
}

/* The last one counts, as everywhere in protobuf; it costs memory, but no more than there is. */
Test(codec_refusals, not_a_number_that_comes_eight_thousand_times)
{
    for (unsigned k = 1; k <= 8000; k++)
        put_number(&inner, 1, k % 100);
    put_number(&inner, 1, 7);
    put_inner(HELLO);
    cr_assert(eq(int, decode(LKI_DIRECTION_REQUEST), 0), "%s", reason);
    cr_expect(eq(u32, message.as.hello.protocol_major, 7));
    cr_expect(le(sz, arena.used_bytes, LKI_ARENA_BYTES_MAX));
}

Test(codec_refusals, a_wrong_outline_before_any_memory_is_taken)
{
    put_page_of_empty_entries(8000);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "reply");
    cr_expect(eq(sz, arena.used_bytes, 0));
    record.length_bytes = 0;
    for (int i = 0; i < 4000; i++)
        put_number(&record, 3, 1);
    expect_refusal(LKI_DIRECTION_REQUEST, -EPROTO, "unknown");
    cr_expect(eq(sz, arena.used_bytes, 0));
}

Test(codec_refusals, a_good_record_is_read_after_an_exhausted_one)
{
    put_page_of_empty_entries(8000);
    decode(LKI_DIRECTION_REPLY);
    record.length_bytes = 0;
    put_page_of_empty_entries(1);
    cr_expect(eq(int, decode(LKI_DIRECTION_REPLY), 0), "%s", reason);
}

/* A small generator, so that a seed gives the same records everywhere. */
static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

Test(codec_refusals, scribbled_records_are_read_or_refused_and_never_more)
{
    const char *given = getenv("LK_TEST_SEED");
    random_state = given ? strtoull(given, NULL, 0) : 0x5eed;
    fprintf(stderr, "LK_TEST_SEED=%llu\n", (unsigned long long)random_state);

    unsigned long read = 0, refused = 0;
    for (int round = 0; round < 100000; round++) {
        static const unsigned fields[] = {HELLO, 102, ACQUIRE, LIST, RESULT, HOLDER_IS, LIST_PAGE};
        const unsigned field = fields[next_random() % 7];

        record.length_bytes = 0;
        put_number(&record, ID, next_random());
        for (uint64_t k = next_random() % 6; k > 0; k--)
            put_number(&inner, (unsigned)(next_random() % 10 + 1), next_random() % 4);
        put_inner(field);
        for (uint64_t k = next_random() % 3; k > 0; k--)
            record.bytes[next_random() % record.length_bytes] = (uint8_t)next_random();
        const int r = decode(field >= RESULT ? LKI_DIRECTION_REPLY : LKI_DIRECTION_REQUEST);
        if (r == 0)
            read++;
        else
            refused++;
        const bool foreseen = r == 0 || r == -EPROTO || r == -EMSGSIZE;
        cr_assert(foreseen, "round %d: %d", round, r);
    }
    cr_expect(ge(ulong, read, 1000), "the records have to be almost right");
    cr_expect(ge(ulong, refused, 1000));
}
