/* SPDX-License-Identifier: MIT */
/* Making, growing, removing: what the driver may answer, what is asked twice, and what is offered. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "broker/core/registry.h"
#include "common/cleanup.h"
#include "common/clock.h"

TestSuite(making, .init = world_setup, .fini = world_teardown, .timeout = 60);

static void expect_detail(uint64_t session, uint64_t id, const char *text)
{
    cr_expect(ne(ptr, strstr(detail_of(session, id), text), NULL), "'%s' is not in '%s'", text,
              detail_of(session, id));
}

static struct lki_opened create_sized(uint64_t session, const char *name, uint64_t bytes,
                                      uint64_t max)
{
    struct lki_message message = open_message(name, LK_CREATE);
    message.as.open.size_bytes = bytes;
    message.as.open.size_max_bytes = max;
    uint64_t id = send_message(session, message);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.opened;
}

static const struct {
    int result;
    enum lki_status status;
    const char *text;
} failures[] = {
    {-ENOSPC, LKI_STATUS_NO_SPACE, "no space left"},
    {-ENOMEM, LKI_STATUS_NO_MEMORY, "no memory left"},
    {-EMFILE, LKI_STATUS_NO_FILES, "no descriptor left"},
    {-ENFILE, LKI_STATUS_NO_FILES, "no descriptor left"},
    {-EDQUOT, LKI_STATUS_QUOTA, "the quota is used up"},
    {-EACCES, LKI_STATUS_DENIED, "the broker has no right to"},
    {-EPERM, LKI_STATUS_NOT_HOLDER, "the broker has no right to"},
    {-EFBIG, LKI_STATUS_TOO_LARGE, "larger than files may be"},
    {-EBADF, LKI_STATUS_BAD_FD, "not a regular file open for reading and writing"},
    {-EIO, LKI_STATUS_TRUNCATED, "shorter than it was, or cannot be read"},
    {-ENOSYS, LKI_STATUS_PROTOCOL, "the broker could not make its memory"},
};

Test(making, that_fails_is_told_with_its_cause)
{
    uint64_t a = connect_as(1000, 1);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(failures); i++) {
        world.make_result = failures[i].result;
        uint64_t id = request_open(a, "x", LK_CREATE);
        EXPECT_STATUS(a, id, failures[i].status);
        expect_detail(a, id, "cannot create 'x'");
        expect_detail(a, id, failures[i].text);
    }
    world.make_result = 0;
    opened(a, "x", LK_CREATE);
}

Test(making, growth_that_fails_is_told_with_its_cause_and_leaves_the_size)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create_sized(a, "x", 4096, 1 << 20);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(failures); i++) {
        world.grow_result = failures[i].result;
        uint64_t id = request_grow(a, at.segment, 8192);
        EXPECT_STATUS(a, id, failures[i].status);
        expect_detail(a, id, "cannot grow 'x' to 8192 bytes");
        expect_detail(a, id, failures[i].text);
    }
    const struct lki_header *header = world.areas[at.segment];
    cr_expect(eq(u64, header->data_bytes, 4096));
    world.grow_result = 0;
    EXPECT_STATUS(a, request_grow(a, at.segment, 8192), LKI_STATUS_OK);
}

Test(making, growth_is_refused_to_who_has_too_much_waiting)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = create_sized(a, "x", 4096, 1 << 20);
    create_sized(b, "other", 4096, 4096);
    world.making_waits = true;
    for (uint32_t i = 0; i < LKI_PARKED_REQUESTS_MAX; i++)
        request_open(a, "slow", LK_CREATE);
    EXPECT_STATUS(a, request_grow(a, at.segment, 8192), LKI_STATUS_QUOTA);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_GROW_SEGMENT), 0));
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    EXPECT_STATUS(a, request_grow(a, at.segment, 8192), LKI_STATUS_OK);
}

/* --- Removing --- */

Test(making, what_cannot_be_a_name_cannot_be_removed)
{
    uint64_t a = connect_as(1000, 1);
    EXPECT_STATUS(a, request_remove(a, ""), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, request_remove(a, "~x/a"), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, request_remove(a, "x"), LKI_STATUS_NOT_FOUND);
}

Test(making, removal_that_is_repeated_leaves_a_later_segment_of_that_name_alone)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE | LK_KEEP);
    uint64_t id = request_remove(a, "x");
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    opened(b, "x", LK_CREATE | LK_KEEP);
    forget_effects();
    crash();
    take_over();
    resume(a);
    resume(b);
    send_again(a, &(struct lki_message){.id = id,
                                        .type = LKI_REQUEST_REMOVE,
                                        .as.remove = {{(const uint8_t *)"x", 1}}});
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    opened(connect_as(1000, 3), "x", 0);
}

/* --- Files --- */

static uint64_t offer(uint64_t session, const char *name, uint32_t flags, uint64_t max,
                      const struct lkd_offer *descriptor)
{
    struct lki_message message = open_message(name, flags);
    message.as.open.offered = true;
    message.as.open.size_max_bytes = max;
    world.file_bytes = descriptor->size_bytes;
    return send_offer(session, message, descriptor);
}

static struct lkd_offer file(uint64_t device, uint64_t inode)
{
    return (struct lkd_offer){
        .present = true, .usable = true, .device = device, .inode = inode, .size_bytes = 5000};
}

Test(making, whoever_offers_a_file_wants_it_made)
{
    uint64_t a = connect_as(1000, 1);
    const struct lkd_offer offered = file(7, 11);
    EXPECT_STATUS(a, offer(a, "x", 0, 0, &offered), LKI_STATUS_OK);
    cr_expect(eq(u64, last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.spec.data_bytes, 5000));
}

Test(making, a_file_may_grow_to_a_size_that_is_not_below_its_own)
{
    uint64_t a = connect_as(1000, 1);
    const struct lkd_offer offered = file(7, 11);
    uint64_t id = offer(a, "x", LK_CREATE, 4999, &offered);
    EXPECT_STATUS(a, id, LKI_STATUS_INVALID);
    expect_detail(a, id, "size_max_bytes 4999 is less than the file's 5000");
    EXPECT_STATUS(a, offer(a, "x", LK_CREATE, 6000, &offered), LKI_STATUS_OK);
    cr_expect(eq(u64, last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.spec.data_bytes_max, 6000));
}

Test(making, a_file_of_the_same_number_on_another_device_is_another_one)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lkd_offer offered = file(7, 11);
    EXPECT_STATUS(a, offer(a, "x", LK_CREATE, 0, &offered), LKI_STATUS_OK);
    offered = file(8, 11);
    uint64_t id = offer(b, "x", LK_CREATE, 0, &offered);
    EXPECT_STATUS(b, id, LKI_STATUS_STALE);
    expect_detail(b, id, "another file (device or inode differ)");
}

/* --- Options --- */

Test(making, patience_is_the_creators)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message message = open_message("x", LK_CREATE);
    message.as.open.patience_ns = 7 * LKI_NS_PER_MS;
    struct lki_opened at = reply(a, send_message(a, message))->effect.message.as.opened;
    struct native native;
    native_init(&native, a, &at);
    cr_expect(eq(u64, native.area.patience_ns, 7 * LKI_NS_PER_MS));
}

Test(making, who_may_only_read_is_told_to_and_who_may_not_is_not)
{
    uint64_t owner = connect_as(1000, 1), other = connect_as(1001, 2);
    struct lki_message message = open_message("x", LK_CREATE);
    message.as.open.mode = 0644;
    EXPECT_STATUS(owner, send_message(owner, message), LKI_STATUS_OK);
    uint64_t id = request_open(other, "~1000/x", 0);
    EXPECT_STATUS(other, id, LKI_STATUS_DENIED);
    expect_detail(other, id, "open it with LK_READ_ONLY");
    message = open_message("y", LK_CREATE);
    EXPECT_STATUS(owner, send_message(owner, message), LKI_STATUS_OK);
    id = request_open(other, "~1000/y", LK_READ_ONLY);
    EXPECT_STATUS(other, id, LKI_STATUS_DENIED);
    expect_detail(other, id, "ask its owner to create it with a wider mode");
}

/* --- Numbers --- */

Test(making, numbers_begin_anew_and_leave_out_what_is_in_use)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened first = opened(a, "first", LK_CREATE);
    cr_assert(eq(u32, first.segment, 1));
    crash();
    struct lkd_ledger_header *header = world.ledger;
    atomic_store(&header->last_segment, LKD_SEGMENT_NUMBER_MAX);
    take_over();
    resume(a);
    cr_expect(eq(u32, opened(a, "second", LK_CREATE).segment, 2));
    cr_expect(eq(u32, opened(a, "first", 0).segment, 1));
}
