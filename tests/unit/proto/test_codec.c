/* SPDX-License-Identifier: MIT */
/* What is written is read again, to the last field and up to the bounds. */
#include "proto/codec.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }

static struct lki_arena arena;
static uint8_t record[LKI_REPLY_BYTES_MAX + 16];
static uint8_t filler[LKI_REPLY_BYTES_MAX + 16];

TestSuite(codec, .timeout = 30);

static const struct lki_list_entry two_entries[] = {
    {
        .name = BYTES("jobs"),
        .lock_name = BYTES("orders"),
        .command = BYTES("rsync"),
        .lock = 1,
        .state = LKI_ENTRY_DAMAGED,
        .mode = 0640,
        .pid = -3,
        .uid = 4,
        .waiters = 5,
        .attachments = 6,
        .locks = 7,
        .flags = 8,
        .token = UINT64_MAX - 9,
        .since_ns = UINT64_MAX - 10,
        .size_bytes = UINT64_MAX - 11,
        .size_max_bytes = UINT64_MAX - 12,
        .file = true,
        .session = UINT64_MAX - 13,
        .segment = UINT32_MAX - 14,
    },
    {.name = BYTES("all else is zero")},
};

/* Every type with every field set, to values that differ and are as large as the field. */
static const struct lki_message full_messages[] = {
    {.type = LKI_REQUEST_HELLO, .id = 1, .as.hello = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2}},
    {.type = LKI_REQUEST_OPEN,
     .id = UINT64_MAX,
     .as.open = {.name = BYTES("with a \0 inside"),
                 .flags = UINT32_MAX,
                 .size_bytes = UINT64_MAX,
                 .size_max_bytes = UINT64_MAX - 1,
                 .locks = UINT32_MAX - 1,
                 .attachments_max = UINT32_MAX - 2,
                 .mode = 0666,
                 .patience_ns = UINT64_MAX - 2,
                 .offered = true,
                 .lease_ns = UINT64_MAX - 3,
                 .on_expiry = UINT32_MAX - 3}},
    {.type = LKI_REQUEST_PUBLISH, .id = 3, .as.segment_ref = {UINT32_MAX}},
    {.type = LKI_REQUEST_DETACH, .id = 4, .as.segment_ref = {UINT32_MAX}},
    {.type = LKI_REQUEST_REMOVE, .id = 5, .as.remove = {BYTES("~1000/jobs")}},
    {.type = LKI_REQUEST_GROW, .id = 6, .as.grow = {UINT32_MAX, UINT64_MAX}},
    {.type = LKI_REQUEST_LOCK_NAMED, .id = 7, .as.lock_named = {UINT32_MAX, BYTES("orders")}},
    {.type = LKI_REQUEST_ACQUIRE,
     .id = 8,
     .as.acquire = {UINT32_MAX, UINT32_MAX - 1, 2, true, true, UINT64_MAX}},
    {.type = LKI_REQUEST_CANCEL, .id = 9, .as.cancel = {UINT64_MAX}},
    {.type = LKI_REQUEST_RELEASE,
     .id = 10,
     .as.hold_ref = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2, UINT64_MAX, UINT64_MAX - 1}},
    {.type = LKI_REQUEST_MARK_CONSISTENT,
     .id = 11,
     .as.hold_ref = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2, UINT64_MAX, UINT64_MAX - 1}},
    {.type = LKI_REQUEST_DECLARE,
     .id = 12,
     .as.hold_ref = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2, UINT64_MAX, UINT64_MAX - 1}},
    {.type = LKI_REQUEST_ASK,
     .id = 13,
     .as.ask = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2, UINT64_MAX}},
    {.type = LKI_REQUEST_NUDGE, .id = 14, .as.segment_ref = {UINT32_MAX}},
    {.type = LKI_REQUEST_HOLDER, .id = 15, .as.lock_ref = {UINT32_MAX, UINT32_MAX - 1}},
    {.type = LKI_REQUEST_LIST,
     .id = 16,
     .as.list = {LKI_LIST_BROKER, UINT64_MAX, BYTES("@27/gpu")}},
    {.type = LKI_REQUEST_GOODBYE, .id = 17},
    {.type = LKI_REQUEST_BARRIER, .id = 22},
    {.type = LKI_REQUEST_CHANGE_MODE,
     .id = 23,
     .as.change_mode = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 2, 3, UINT64_MAX}},
    {.type = LKI_REQUEST_DEADLOCK_CHECK, .id = 30, .as.lock_ref = {UINT32_MAX, UINT32_MAX - 1}},
    {.type = LKI_REQUEST_RESUME, .id = 31},
    {.type = LKI_REPLY_RESUMED, .id = 32},
    {.type = LKI_REQUEST_MONITOR, .id = 31, .as.monitor = {BYTES("jobs")}},
    {.type = LKI_REQUEST_FORCE_RELEASE,
     .id = 31,
     .as.force_release = {BYTES("~1000/jobs"), UINT32_MAX, BYTES("orders"), BYTES("it hangs")}},
    {.type = LKI_REPLY_RESULT,
     .id = 18,
     .as.result = {LKI_STATUS_BAD_FD, UINT64_MAX, BYTES("not a regular file")}},
    {.type = LKI_REPLY_OPENED,
     .id = 19,
     .as.opened = {true, true, true, true, UINT32_MAX, UINT32_MAX - 1, UINT64_MAX, UINT64_MAX - 1,
                   UINT32_MAX - 2, UINT32_MAX - 3}},
    {.type = LKI_REPLY_GRANTED,
     .id = 20,
     .as.granted = {LKI_STATUS_OWNER_DIED, UINT32_MAX, UINT64_MAX}},
    {.type = LKI_REPLY_HOLDER_IS,
     .id = 21,
     .as.holder_is = {INT32_MIN, UINT32_MAX, 2, UINT32_MAX - 1, UINT32_MAX - 2, UINT64_MAX,
                      UINT64_MAX - 1, BYTES("train.py")}},
    {.type = LKI_REPLY_LIST_PAGE,
     .id = 22,
     .as.list_page = {.next_cursor = UINT64_MAX, .count = 2, .entries = two_entries}},
    {.type = LKI_REPLY_EVENT,
     .as.event = {LKI_EVENT_DROPPED, UINT64_MAX, INT32_MIN, UINT32_MAX, BYTES("make"),
                  UINT64_MAX - 1, BYTES("~1000/jobs"), BYTES("orders"), UINT32_MAX - 1,
                  UINT32_MAX - 2, UINT64_MAX - 2, UINT32_MAX - 3, UINT64_MAX - 3, BYTES("why"),
                  UINT64_MAX - 4}},
};

#define FULL_MESSAGES (sizeof(full_messages) / sizeof(full_messages[0]))

/* Checks that both have the same bytes; lets `got` point to the expected ones for the comparison of
 * the rest. */
static void expect_same_bytes(struct lki_bytes *got, const struct lki_bytes *expected)
{
    cr_assert(eq(sz, got->length_bytes, expected->length_bytes));
    if (expected->length_bytes > 0)
        cr_assert(eq(int, memcmp(got->data, expected->data, expected->length_bytes), 0));
    *got = *expected;
}

static void expect_same_entry(const struct lki_list_entry *got,
                              const struct lki_list_entry *expected)
{
    struct lki_list_entry copy;

    memset(&copy, 0, sizeof(copy));
#define COPY(field) copy.field = got->field
    COPY(name), COPY(lock_name), COPY(command), COPY(lock), COPY(state), COPY(mode), COPY(pid);
    COPY(uid), COPY(waiters), COPY(attachments), COPY(locks), COPY(flags), COPY(token);
    COPY(since_ns), COPY(size_bytes), COPY(size_max_bytes), COPY(file), COPY(session);
    COPY(segment);
#undef COPY
    expect_same_bytes(&copy.name, &expected->name);
    expect_same_bytes(&copy.lock_name, &expected->lock_name);
    expect_same_bytes(&copy.command, &expected->command);
    cr_assert(eq(int, memcmp(&copy, expected, sizeof(copy)), 0));
}

static void expect_same(struct lki_message *got, const struct lki_message *expected)
{
    const char *name = lki_message_type_name(expected->type);

    cr_assert(eq(int, got->type, expected->type), "%s", name);
    switch (expected->type) {
    case LKI_REQUEST_OPEN:
        expect_same_bytes(&got->as.open.name, &expected->as.open.name);
        break;
    case LKI_REQUEST_REMOVE:
        expect_same_bytes(&got->as.remove.name, &expected->as.remove.name);
        break;
    case LKI_REQUEST_LOCK_NAMED:
        expect_same_bytes(&got->as.lock_named.name, &expected->as.lock_named.name);
        break;
    case LKI_REQUEST_LIST:
        expect_same_bytes(&got->as.list.name, &expected->as.list.name);
        break;
    case LKI_REQUEST_FORCE_RELEASE:
        expect_same_bytes(&got->as.force_release.name, &expected->as.force_release.name);
        expect_same_bytes(&got->as.force_release.lock_name, &expected->as.force_release.lock_name);
        expect_same_bytes(&got->as.force_release.reason, &expected->as.force_release.reason);
        break;
    case LKI_REPLY_RESULT:
        expect_same_bytes(&got->as.result.detail, &expected->as.result.detail);
        break;
    case LKI_REQUEST_MONITOR:
        expect_same_bytes(&got->as.monitor.name, &expected->as.monitor.name);
        break;
    case LKI_REPLY_EVENT:
        expect_same_bytes(&got->as.event.command, &expected->as.event.command);
        expect_same_bytes(&got->as.event.name, &expected->as.event.name);
        expect_same_bytes(&got->as.event.lock_name, &expected->as.event.lock_name);
        expect_same_bytes(&got->as.event.text, &expected->as.event.text);
        break;
    case LKI_REPLY_HOLDER_IS:
        expect_same_bytes(&got->as.holder_is.command, &expected->as.holder_is.command);
        break;
    case LKI_REPLY_LIST_PAGE:
        cr_assert(eq(sz, got->as.list_page.count, expected->as.list_page.count));
        for (size_t i = 0; i < got->as.list_page.count; i++)
            expect_same_entry(&got->as.list_page.entries[i], &expected->as.list_page.entries[i]);
        got->as.list_page.entries = expected->as.list_page.entries;
        break;
    default:
        break;
    }
    /* Both were zeroed first, padding too, so that a field nobody thought of is compared as well.
     */
    cr_assert(eq(int, memcmp(got, expected, sizeof(*got)), 0), "%s", name);
}

static void expect_round_trip(const struct lki_message *message)
{
    const char *name = lki_message_type_name(message->type);
    const enum lki_direction direction = lki_message_direction(message->type);
    const char *reason = "";
    struct lki_message got;
    size_t size_bytes = 0;

    memset(&got, 0, sizeof(got));
    cr_assert(eq(int, lki_message_encode(message, record, sizeof(record), &size_bytes), 0), "%s",
              name);
    cr_assert(eq(int, lki_message_decode(&arena, record, size_bytes, direction, &got, &reason), 0),
              "%s: %s", name, reason);
    memset(record, 0xee, sizeof(record)); /* the message must not point into the record */
    expect_same(&got, message);
}

Test(codec, every_message_survives_with_all_its_fields)
{
    cr_assert(eq(sz, FULL_MESSAGES, 30), "one row for every type");
    for (size_t i = 0; i < FULL_MESSAGES; i++)
        expect_round_trip(&full_messages[i]);
}

Test(codec, every_message_survives_with_none_of_its_fields)
{
    for (size_t i = 0; i < FULL_MESSAGES; i++) {
        static struct lki_message empty;
        memset(&empty, 0, sizeof(empty));
        empty.type = full_messages[i].type;
        expect_round_trip(&empty);
    }
}

Test(codec, writes_the_example_of_the_protocol_page)
{
    static const uint8_t expected[] = {0x08, 0x01, 0xaa, 0x06, 0x04, 0x08, 0x01, 0x18, 0x01};
    const struct lki_message hello = {.type = LKI_REQUEST_HELLO, .id = 1, .as.hello = {1, 0, 1}};
    size_t size_bytes = 0;

    cr_assert(eq(int, lki_message_encode(&hello, record, sizeof(record), &size_bytes), 0));
    cr_assert(eq(sz, size_bytes, sizeof(expected)));
    cr_assert(eq(int, memcmp(record, expected, sizeof(expected)), 0));
}

Test(codec, no_part_of_a_record_is_a_record)
{
    for (size_t i = 0; i < FULL_MESSAGES; i++) {
        const enum lki_direction direction = lki_message_direction(full_messages[i].type);
        struct lki_message got;
        const char *reason;
        size_t size_bytes = 0;

        lki_message_encode(&full_messages[i], record, sizeof(record), &size_bytes);
        for (size_t cut = 0; cut < size_bytes; cut++)
            cr_assert(
                eq(int, lki_message_decode(&arena, record, cut, direction, &got, &reason), -EPROTO),
                "%s cut to %zu bytes", lki_message_type_name(full_messages[i].type), cut);
    }
}

Test(codec, a_page_of_the_longest_entries_fits)
{
    static struct lki_list_entry entries[LKI_LIST_PAGE_ENTRIES_MAX];
    struct lki_message page;

    memset(&page, 0, sizeof(page));
    for (size_t i = 0; i < LKI_LIST_PAGE_ENTRIES_MAX; i++) {
        entries[i] = two_entries[0];
        entries[i].name = (struct lki_bytes){filler, LKI_NAME_BYTES_MAX + 12};
        entries[i].lock_name = (struct lki_bytes){filler, LKI_NAME_BYTES_MAX};
        entries[i].command = (struct lki_bytes){filler, 32};
        entries[i].lock = entries[i].uid = entries[i].waiters = entries[i].attachments = UINT32_MAX;
        entries[i].locks = entries[i].flags = UINT32_MAX;
    }
    page.type = LKI_REPLY_LIST_PAGE;
    page.as.list_page.next_cursor = UINT64_MAX;
    page.as.list_page.count = LKI_LIST_PAGE_ENTRIES_MAX;
    page.as.list_page.entries = entries;
    expect_round_trip(&page);
}

Test(codec, a_page_has_64_entries_at_most)
{
    static struct lki_list_entry entries[LKI_LIST_PAGE_ENTRIES_MAX + 1];
    struct lki_message page = {
        .type = LKI_REPLY_LIST_PAGE,
        .as.list_page = {.count = LKI_LIST_PAGE_ENTRIES_MAX + 1, .entries = entries}};
    size_t size_bytes;

    cr_expect(eq(int, lki_message_encode(&page, record, sizeof(record), &size_bytes), -EMSGSIZE));
}

/* The message with as much text that its record has exactly `size_bytes`. */
static struct lki_message sized(enum lki_message_type type, size_t size_bytes)
{
    struct lki_message message = {.type = type};
    /* Around the text: tag and length of message and text. All lengths here take 3 bytes, but in a
     * request of 16 KiB the lengths are below 2^14 and take 2. */
    const size_t frame_bytes = type == LKI_REPLY_RESULT ? 2 + 3 + 1 + 3 : 2 + 2 + 1 + 2;
    const struct lki_bytes text = {filler, size_bytes - frame_bytes};

    if (type == LKI_REPLY_RESULT)
        message.as.result.detail = text;
    else
        message.as.remove.name = text;
    return message;
}

static void expect_bound(enum lki_message_type type, size_t bytes_max)
{
    const struct lki_message longest = sized(type, bytes_max);
    const struct lki_message too_long = sized(type, bytes_max + 1);
    struct lki_message got;
    const char *reason = "";
    size_t size_bytes = 0;

    cr_assert(eq(int, lki_message_encode(&longest, record, sizeof(record), &size_bytes), 0));
    cr_assert(eq(sz, size_bytes, bytes_max));
    cr_assert(eq(int,
                 lki_message_decode(&arena, record, size_bytes, lki_message_direction(type), &got,
                                    &reason),
                 0),
              "%s", reason);
    cr_assert(
        eq(int, lki_message_encode(&too_long, record, sizeof(record), &size_bytes), -EMSGSIZE));
}

Test(codec, a_request_has_16_kib_at_most)
{
    expect_bound(LKI_REQUEST_REMOVE, LKI_REQUEST_BYTES_MAX);
}

Test(codec, a_reply_has_64_kib_at_most)
{
    expect_bound(LKI_REPLY_RESULT, LKI_REPLY_BYTES_MAX);
}

Test(codec, writes_nothing_into_a_buffer_that_is_too_small)
{
    size_t size_bytes = 0;

    cr_assert(
        eq(int, lki_message_encode(&full_messages[1], record, sizeof(record), &size_bytes), 0));
    memset(record, 0xee, sizeof(record));
    const size_t needed_bytes = size_bytes;
    cr_expect(eq(int, lki_message_encode(&full_messages[1], record, needed_bytes - 1, &size_bytes),
                 -EMSGSIZE));
    cr_expect(eq(sz, size_bytes, needed_bytes), "outputs are written on success only");
    for (size_t i = 0; i < needed_bytes; i++)
        cr_assert(eq(u8, record[i], 0xee));
    cr_expect(eq(int, lki_message_encode(&full_messages[1], record, needed_bytes, &size_bytes), 0));
}

Test(codec, does_not_write_what_it_would_not_read)
{
    const struct lki_message wrong[] = {
        {.type = LKI_MESSAGE_NONE},
        {.type = (enum lki_message_type)31},
        {.type = (enum lki_message_type)99},
        {.type = LKI_REQUEST_ACQUIRE, .as.acquire.mode = 4},
        {.type = LKI_REQUEST_ACQUIRE, .as.acquire.mode = 0x102},
        {.type = LKI_REQUEST_LIST, .as.list.what = 5},
        {.type = LKI_REPLY_RESULT, .as.result.status = (enum lki_status)9},
        {.type = LKI_REPLY_HOLDER_IS, .as.holder_is.mode = UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        size_t size_bytes;
        cr_expect(
            eq(int, lki_message_encode(&wrong[i], record, sizeof(record), &size_bytes), -EINVAL),
            "row %zu", i);
    }
}
