/* SPDX-License-Identifier: MIT */
/* What the codec relies on in lockkeeper.proto. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "proto/codec.h"
#include "proto/lockkeeper.pb-c.h"
#include "proto/status.h"
#include "proto/wire_fields.h"

#define DEPTH_MAX 8

TestSuite(schema, .timeout = 20);

static const ProtobufCMessageDescriptor *envelope(void)
{
    return &lockkeeper__wire__envelope__descriptor;
}

typedef void (*visit_fn)(const ProtobufCMessageDescriptor *type,
                         const ProtobufCFieldDescriptor *field);

/* Visits every field of the type and of the types in it. False if a type is inside itself. */
static bool walk(const ProtobufCMessageDescriptor *type,
                 const ProtobufCMessageDescriptor *path[DEPTH_MAX], unsigned depth, visit_fn visit)
{
    for (unsigned i = 0; i < depth; i++) {
        if (path[i] == type)
            return false;
    }
    if (depth == DEPTH_MAX)
        return false;
    path[depth] = type;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (visit)
            visit(type, field);
        if (field->type == PROTOBUF_C_TYPE_MESSAGE &&
            !walk(field->descriptor, path, depth + 1, visit))
            return false;
    }
    return true;
}

Test(schema, no_type_contains_itself)
{
    const ProtobufCMessageDescriptor *path[DEPTH_MAX];
    cr_assert(walk(envelope(), path, 0, NULL));
}

Test(schema, the_walk_finds_a_type_that_contains_itself)
{
    ProtobufCMessageDescriptor outer = {.n_fields = 1};
    ProtobufCMessageDescriptor inner = {.n_fields = 1};
    const ProtobufCFieldDescriptor to_inner = {.type = PROTOBUF_C_TYPE_MESSAGE,
                                               .descriptor = &inner};
    const ProtobufCFieldDescriptor to_outer = {.type = PROTOBUF_C_TYPE_MESSAGE,
                                               .descriptor = &outer};
    const ProtobufCMessageDescriptor *path[DEPTH_MAX];
    outer.fields = &to_inner;
    inner.fields = &to_outer;
    cr_assert(not(walk(&outer, path, 0, NULL)));
}

static void expect_bounded_field(const ProtobufCMessageDescriptor *type,
                                 const ProtobufCFieldDescriptor *field)
{
    cr_expect(ne(int, field->label, PROTOBUF_C_LABEL_REQUIRED), "%s.%s", type->name, field->name);
    cr_expect(ne(int, field->type, PROTOBUF_C_TYPE_STRING), "%s.%s", type->name, field->name);
    if (field->label == PROTOBUF_C_LABEL_REPEATED) /* the codec checks no repeated enums */
        cr_expect(eq(int, field->type, PROTOBUF_C_TYPE_MESSAGE), "%s.%s", type->name, field->name);
}

Test(schema, nothing_is_required_or_a_string_or_a_repeated_number)
{
    const ProtobufCMessageDescriptor *path[DEPTH_MAX];
    cr_assert(walk(envelope(), path, 0, expect_bounded_field));
}

static void expect_zero_is_the_default(const ProtobufCMessageDescriptor *type,
                                       const ProtobufCFieldDescriptor *field)
{
    cr_expect(eq(ptr, (void *)field->default_value, NULL), "%s.%s", type->name, field->name);
    if (field->type == PROTOBUF_C_TYPE_ENUM) {
        const ProtobufCEnumDescriptor *values = field->descriptor;
        cr_expect(ne(ptr, (void *)protobuf_c_enum_descriptor_get_value(values, 0), NULL),
                  "%s.%s has no zero", type->name, field->name);
    }
}

Test(schema, absent_means_zero)
{
    const ProtobufCMessageDescriptor *path[DEPTH_MAX];
    cr_assert(walk(envelope(), path, 0, expect_zero_is_the_default));
}

Test(schema, a_message_has_the_number_100_and_its_type_and_the_name_of_its_type)
{
    unsigned types = 0;

    for (unsigned i = 0; i < envelope()->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &envelope()->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        const char *name = lki_message_type_name((enum lki_message_type)(field->id - 100));
        cr_expect(eq(str, (char *)name, (char *)field->name));
        types++;
    }
    cr_assert(eq(uint, types, LKI_REQUEST_CHANGE_MODE + LKI_REPLY_EVENT - LKI_REPLY_RESULT + 1));
}

#define ONE(field) +1
#define COUNT(FIELDS) (0 FIELDS(ONE, ONE, ONE))

Test(schema, the_codec_copies_every_field)
{
    const struct {
        const ProtobufCMessageDescriptor *type;
        unsigned copied;
    } rows[] = {
        {&lockkeeper__wire__hello__descriptor, COUNT(LKI_HELLO_FIELDS)},
        {&lockkeeper__wire__open__descriptor, COUNT(LKI_OPEN_FIELDS)},
        {&lockkeeper__wire__segment_ref__descriptor, COUNT(LKI_SEGMENT_REF_FIELDS)},
        {&lockkeeper__wire__remove__descriptor, COUNT(LKI_REMOVE_FIELDS)},
        {&lockkeeper__wire__grow__descriptor, COUNT(LKI_GROW_FIELDS)},
        {&lockkeeper__wire__lock_named__descriptor, COUNT(LKI_LOCK_NAMED_FIELDS)},
        {&lockkeeper__wire__acquire__descriptor, COUNT(LKI_ACQUIRE_FIELDS)},
        {&lockkeeper__wire__cancel__descriptor, COUNT(LKI_CANCEL_FIELDS)},
        {&lockkeeper__wire__hold_ref__descriptor, COUNT(LKI_HOLD_REF_FIELDS)},
        {&lockkeeper__wire__change_mode__descriptor, COUNT(LKI_CHANGE_MODE_FIELDS)},
        {&lockkeeper__wire__ask__descriptor, COUNT(LKI_ASK_FIELDS)},
        {&lockkeeper__wire__lock_ref__descriptor, COUNT(LKI_LOCK_REF_FIELDS)},
        {&lockkeeper__wire__list_request__descriptor, COUNT(LKI_LIST_REQUEST_FIELDS)},
        {&lockkeeper__wire__goodbye__descriptor, 0},
        {&lockkeeper__wire__barrier__descriptor, 0},
        {&lockkeeper__wire__force_release__descriptor, COUNT(LKI_FORCE_RELEASE_FIELDS)},
        {&lockkeeper__wire__result__descriptor, COUNT(LKI_RESULT_FIELDS)},
        {&lockkeeper__wire__opened__descriptor, COUNT(LKI_OPENED_FIELDS)},
        {&lockkeeper__wire__granted__descriptor, COUNT(LKI_GRANTED_FIELDS)},
        {&lockkeeper__wire__holder_is__descriptor, COUNT(LKI_HOLDER_IS_FIELDS)},
        {&lockkeeper__wire__list_entry__descriptor, COUNT(LKI_LIST_ENTRY_FIELDS)},
        {&lockkeeper__wire__monitor_request__descriptor, COUNT(LKI_MONITOR_REQUEST_FIELDS)},
        {&lockkeeper__wire__event__descriptor, COUNT(LKI_EVENT_FIELDS)},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect(eq(uint, rows[i].copied, rows[i].type->n_fields), "%s", rows[i].type->name);
}

Test(schema, the_enums_have_the_values_of_the_c_ones)
{
    cr_expect(eq(int, LOCKKEEPER__WIRE__LIST_WHAT__LIST_SEGMENTS, LKI_LIST_SEGMENTS));
    cr_expect(eq(int, LOCKKEEPER__WIRE__LIST_WHAT__LIST_LOCKS, LKI_LIST_LOCKS));
    cr_expect(eq(int, LOCKKEEPER__WIRE__LIST_WHAT__LIST_BROKER, LKI_LIST_BROKER));
    cr_expect(eq(int, LOCKKEEPER__WIRE__LIST_WHAT__LIST_GRAPH, LKI_LIST_GRAPH));
    cr_expect(eq(int, LOCKKEEPER__WIRE__ENTRY_STATE__ENTRY_HELD, LKI_ENTRY_HELD));
    cr_expect(eq(int, LOCKKEEPER__WIRE__ENTRY_STATE__ENTRY_WAITING, LKI_ENTRY_WAITING));
    cr_expect(eq(int, LOCKKEEPER__WIRE__ENTRY_STATE__ENTRY_DRAINING, LKI_ENTRY_DRAINING));
    cr_expect(eq(int, LOCKKEEPER__WIRE__ENTRY_STATE__ENTRY_DAMAGED, LKI_ENTRY_DAMAGED));
    cr_expect(
        eq(int, LOCKKEEPER__WIRE__EVENT_KIND__EVENT_SESSION_OPENED, LKI_EVENT_SESSION_OPENED));
    cr_expect(eq(int, LOCKKEEPER__WIRE__EVENT_KIND__EVENT_ATTACHED, LKI_EVENT_ATTACHED));
    cr_expect(eq(int, LOCKKEEPER__WIRE__EVENT_KIND__EVENT_DEADLOCK, LKI_EVENT_DEADLOCK));
    cr_expect(eq(int, LOCKKEEPER__WIRE__EVENT_KIND__EVENT_DROPPED, LKI_EVENT_DROPPED));
    cr_expect(eq(int, LOCKKEEPER__WIRE__STATUS__STATUS_CREATED, LKI_STATUS_CREATED));
    cr_expect(eq(int, LOCKKEEPER__WIRE__STATUS__STATUS_INVALID, LKI_STATUS_INVALID));
    cr_expect(eq(int, LOCKKEEPER__WIRE__STATUS__STATUS_BUSY, LKI_STATUS_BUSY));
    cr_expect(eq(int, LOCKKEEPER__WIRE__STATUS__STATUS_FULL, LKI_STATUS_FULL));
    cr_expect(eq(int, LOCKKEEPER__WIRE__STATUS__STATUS_BAD_FD, LKI_STATUS_BAD_FD));
}

Test(schema, a_number_that_is_no_type_has_a_name_too)
{
    cr_expect(eq(str, (char *)lki_message_type_name((enum lki_message_type)31), "unknown"));
    cr_expect(eq(str, (char *)lki_message_type_name(LKI_MESSAGE_NONE), "none"));
}
