/* SPDX-License-Identifier: MIT */
/* Segments: names, rights, options, their making, files, publishing, growing and their end. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"

TestSuite(segment, .init = world_setup, .fini = world_teardown, .timeout = 60);

Test(segment, is_created_once_and_then_attached)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);

    struct lki_opened first = opened(a, "build", LK_CREATE);
    struct lki_opened second = opened(b, "build", LK_CREATE);

    cr_expect(first.created);
    cr_expect(not(second.created));
    cr_expect(eq(u32, first.segment, second.segment));
    cr_expect(ne(u32, first.attachment, second.attachment));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_MAKE_SEGMENT), 1));
    cr_expect(eq(int, last_effect(LKD_EFFECT_SEND)->effect.fds, LKD_FDS_READ_WRITE));
}

Test(segment, second_open_by_one_session_is_the_same_attachment)
{
    uint64_t a = connect_as(1000, 1);

    struct lki_opened first = opened(a, "build", LK_CREATE);
    struct lki_opened second = opened(a, "build", LK_CREATE);

    cr_expect(eq(u32, first.attachment, second.attachment));
    cr_expect(not(second.created));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_MAKE_SEGMENT), 1));
}

Test(segment, name_that_nobody_created_is_not_found)
{
    uint64_t a = connect_as(1000, 1);
    uint64_t id = request_open(a, "build", 0);
    EXPECT_STATUS(a, id, LKI_STATUS_NOT_FOUND);
    cr_expect(ne(ptr, strstr(detail_of(a, id), "'build'"), NULL));
}

Test(segment, create_new_refuses_an_existing_name)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "build", LK_CREATE_NEW);
    EXPECT_STATUS(b, request_open(b, "build", LK_CREATE_NEW), LKI_STATUS_EXISTS);
    EXPECT_STATUS(a, request_open(a, "build", LK_CREATE_NEW), LKI_STATUS_EXISTS);
}

Test(segment, bare_names_of_two_users_are_two_segments)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1001, 2);
    struct lki_opened mine = opened(a, "build", LK_CREATE);
    struct lki_opened theirs = opened(b, "build", LK_CREATE);
    cr_expect(ne(u32, mine.segment, theirs.segment));
    cr_expect(theirs.created);
    struct lki_opened again = opened(a, "~1000/build", 0);
    cr_expect(eq(u32, again.segment, mine.segment), "one name, spelled out");
}

Test(segment, invented_names_are_refused_with_the_reason)
{
    static const char *const names[] = {"", "a#b", "a/b", "~/x", "@x/y", "tab\t", "~77", "~1/"};
    uint64_t a = connect_as(1000, 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint64_t id = request_open(a, names[i], LK_CREATE);
        cr_expect(eq(int, status_of(a, id), LKI_STATUS_INVALID), "'%s'", names[i]);
        cr_expect(gt(sz, strlen(detail_of(a, id)), 20));
    }
}

/* Rows: who opens what that uid 1000 (group 1000) created with this mode. */
Test(segment, mode_bits_decide_as_for_a_file)
{
    static const struct {
        const char *name;
        uint32_t mode, uid, group, flags;
        enum lki_status status;
    } rows[] = {
        {"owner", 0600, 1000, 0, 0, LKI_STATUS_OK},
        {"owner without write", 0400, 1000, 0, 0, LKI_STATUS_DENIED},
        {"owner reads", 0400, 1000, 0, LK_READ_ONLY, LKI_STATUS_OK},
        {"stranger", 0600, 1001, 0, 0, LKI_STATUS_DENIED},
        {"stranger reads", 0604, 1001, 0, LK_READ_ONLY, LKI_STATUS_OK},
        {"stranger writes a readable one", 0604, 1001, 0, 0, LKI_STATUS_DENIED},
        {"stranger, all open", 0606, 1001, 0, 0, LKI_STATUS_OK},
        {"member", 0660, 1001, 1000, 0, LKI_STATUS_OK},
        {"member shut out while others may", 0606, 1001, 1000, 0, LKI_STATUS_DENIED},
        {"root", 0000, 0, 0, 0, LKI_STATUS_OK},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t owner = connect_as(1000, 100 + 2 * i);
        uint64_t other = connect_member(rows[i].uid, 101 + 2 * i, rows[i].group);
        struct lki_message create = open_message("shared", LK_CREATE);
        create.as.open.mode = rows[i].mode ? rows[i].mode : 0001; /* 0 means the default */
        EXPECT_STATUS(owner, send_message(owner, create), LKI_STATUS_OK);
        uint64_t id = request_open(other, "~1000/shared", rows[i].flags);
        cr_expect(eq(int, status_of(other, id), rows[i].status), "%s: %s", rows[i].name,
                  detail_of(other, id));
        if (rows[i].status == LKI_STATUS_DENIED) {
            cr_expect(ne(ptr, strstr(detail_of(other, id), "uid 1000"), NULL), "%s",
                      detail_of(other, id));
        }
        end_process(100 + 2 * i);
        end_process(101 + 2 * i);
        work();
    }
}

Test(segment, only_its_user_creates_a_name)
{
    static const struct {
        const char *row, *name;
        uint32_t uid, group;
        enum lki_status status;
    } rows[] = {
        {"another's", "~1001/x", 1000, 0, LKI_STATUS_DENIED},
        {"root for another", "~1001/x", 0, 0, LKI_STATUS_OK},
        {"of a group not one's own", "@50/x", 1000, 51, LKI_STATUS_DENIED},
        {"of a supplementary group", "@50/x", 1000, 50, LKI_STATUS_OK},
        {"of the main group", "@1000/x", 1000, 0, LKI_STATUS_OK},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t a = connect_member(rows[i].uid, 10 + i, rows[i].group);
        uint64_t id = request_open(a, rows[i].name, LK_CREATE);
        cr_expect(eq(int, status_of(a, id), rows[i].status), "%s: %s", rows[i].row,
                  detail_of(a, id));
        end_process(10 + i);
        work();
    }
}

Test(segment, created_by_root_for_a_user_belongs_to_that_user)
{
    uint64_t root = connect_as(0, 1), user = connect_as(1001, 2);
    opened(root, "~1001/x", LK_CREATE | LK_KEEP);
    opened(user, "x", 0);
    EXPECT_STATUS(user, request_remove(user, "x"), LKI_STATUS_OK);
}

Test(segment, defaults_are_those_of_the_header)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    struct lki_area area;
    cr_assert(eq(int, lki_area_view(world.areas[at.segment], at.area_bytes, &area), 0));
    cr_expect(eq(u32, area.locks, 16));
    cr_expect(eq(u32, area.attachments_max, 1024));
    cr_expect(eq(u64, area.patience_ns, 500000));
    cr_expect(eq(u64, at.data_bytes_max, 0), "size 0 is a plain lock");
    uint64_t id = request_list(a, LKI_LIST_SEGMENTS, "x", 0);
    cr_expect(eq(u32, reply(a, id)->entries[0].mode, 0600));
}

Test(segment, fifo_on_the_wire_is_no_patience_in_the_area)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message open = open_message("x", LK_CREATE);
    open.as.open.patience_ns = UINT64_MAX;
    uint64_t id = send_message(a, open);
    struct lki_opened at = reply(a, id)->effect.message.as.opened;
    struct lki_area area;
    cr_assert(eq(int, lki_area_view(world.areas[at.segment], at.area_bytes, &area), 0));
    cr_expect(eq(u64, area.patience_ns, LKI_PATIENCE_NONE));
}

/* Each row is one step beyond a bound, or nonsense. */
Test(segment, options_beyond_the_bounds_are_refused)
{
    static const struct {
        const char *row;
        struct lki_open open;
        enum lki_status status;
    } rows[] = {
        {"size", {.size_bytes = LKI_SEGMENT_BYTES_MAX + 1}, LKI_STATUS_TOO_LARGE},
        {"size 2^63", {.size_bytes = UINT64_C(1) << 63}, LKI_STATUS_TOO_LARGE},
        {"size max",
         {.size_bytes = 1, .size_max_bytes = LKI_SEGMENT_BYTES_MAX + 1},
         LKI_STATUS_TOO_LARGE},
        {"locks", {.locks = LKI_LOCKS_MAX + 1}, LKI_STATUS_TOO_LARGE},
        {"attachments", {.attachments_max = LKI_ATTACHMENTS_MAX + 1}, LKI_STATUS_TOO_LARGE},
        {"max below size", {.size_bytes = 4096, .size_max_bytes = 4095}, LKI_STATUS_INVALID},
        {"max without size", {.size_max_bytes = 4096}, LKI_STATUS_INVALID},
        {"mode", {.mode = 01000}, LKI_STATUS_INVALID},
        {"flags", {.flags = 1u << 10}, LKI_STATUS_INVALID},
        {"read-only creation", {.flags = LK_READ_ONLY}, LKI_STATUS_INVALID},
    };
    uint64_t a = connect_as(1000, 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct lki_message message = open_message("x", 0);
        struct lki_bytes name = message.as.open.name;
        message.as.open = rows[i].open;
        message.as.open.name = name;
        message.as.open.flags |= LK_CREATE;
        uint64_t id = send_message(a, message);
        cr_expect(eq(int, status_of(a, id), rows[i].status), "%s: %s", rows[i].row,
                  detail_of(a, id));
    }
    cr_expect(eq(sz, count_effects(LKD_EFFECT_MAKE_SEGMENT), 0));
}

Test(segment, largest_size_is_accepted)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message open = open_message("x", LK_CREATE | LK_RESERVE);
    open.as.open.size_bytes = LKI_SEGMENT_BYTES_MAX;
    EXPECT_STATUS(a, send_message(a, open), LKI_STATUS_OK);
    const struct lkd_segment_spec *spec = &last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.spec;
    cr_expect(eq(u64, spec->data_bytes, LKI_SEGMENT_BYTES_MAX));
    cr_expect(eq(u64, spec->data_bytes_max, LKI_SEGMENT_BYTES_MAX));
    cr_expect(spec->reserve);
}

Test(segment, opening_never_resizes)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.size_bytes = 4096;
    create.as.open.size_max_bytes = 8192; /* room to grow is not what the opener asked for */
    create.as.open.locks = 4;
    EXPECT_STATUS(a, send_message(a, create), LKI_STATUS_OK);

    struct lki_message larger = create, more_locks = create, smaller = create, strict = create;
    larger.as.open.size_bytes = 4097;
    more_locks.as.open.locks = 5;
    strict.as.open.flags |= LK_STRICT;
    smaller.as.open.size_bytes = 1;
    smaller.as.open.attachments_max = 7;
    EXPECT_STATUS(b, send_message(b, larger), LKI_STATUS_INVALID);
    EXPECT_STATUS(b, send_message(b, more_locks), LKI_STATUS_INVALID);
    EXPECT_STATUS(b, send_message(b, strict), LKI_STATUS_INVALID);
    EXPECT_STATUS(b, send_message(b, smaller), LKI_STATUS_OK);
}

Test(segment, read_only_and_strict_attachments_are_brokered)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened strict = opened(a, "x", LK_CREATE | LK_STRICT);
    cr_expect(strict.brokered);
    cr_expect(eq(int, last_effect(LKD_EFFECT_SEND)->effect.fds, LKD_FDS_STRICT));
    struct lki_opened reader = opened(b, "x", LK_READ_ONLY);
    cr_expect(reader.brokered && reader.read_only);
    cr_expect(eq(int, last_effect(LKD_EFFECT_SEND)->effect.fds, LKD_FDS_READ_ONLY));
    struct lki_area area;
    cr_assert(eq(int, lki_area_view(world.areas[strict.segment], strict.area_bytes, &area), 0));
    cr_expect(
        eq(u32, lki_area_attachment(&area, reader.attachment)->flags, LKI_ATTACHMENT_BROKERED));
    EXPECT_STATUS(b, request_open(b, "x", 0), LKI_STATUS_INVALID);
}

/* --- Making --- */

Test(segment, requests_for_a_name_in_the_making_wait_for_it)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    world.making_waits = true;
    uint64_t create = request_open(a, "x", LK_CREATE | LK_KEEP);
    uint64_t join = request_open(b, "x", 0);
    uint64_t other = request_open(b, "y", 0);
    uint64_t removal = request_remove(c, "x");
    uint64_t late = request_open(c, "x", 0);
    cr_expect(eq(ptr, (void *)reply(a, create), NULL));
    cr_expect(eq(ptr, (void *)reply(b, join), NULL));
    EXPECT_STATUS(b, other, LKI_STATUS_NOT_FOUND);

    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);

    cr_expect(reply(a, create)->effect.message.as.opened.created);
    cr_expect(not(reply(b, join)->effect.message.as.opened.created));
    EXPECT_STATUS(c, removal, LKI_STATUS_OK);
    EXPECT_STATUS(c, late, LKI_STATUS_NOT_FOUND);
}

Test(segment, failure_is_told_to_its_creator_and_the_next_one_tries)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    world.making_waits = true;
    uint64_t create = request_open(a, "x", LK_CREATE);
    uint64_t attach = request_open(b, "x", 0);
    uint64_t retry = request_open(c, "x", LK_CREATE);

    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, -ENOSPC);

    EXPECT_STATUS(a, create, LKI_STATUS_NO_SPACE);
    EXPECT_STATUS(b, attach, LKI_STATUS_NOT_FOUND);
    cr_expect(eq(ptr, (void *)reply(c, retry), NULL));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0), "nothing was made");
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    cr_expect(reply(c, retry)->effect.message.as.opened.created);
}

Test(segment, creator_lost_before_it_was_made_leaves_nothing)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    world.making_waits = true;
    request_open(a, "x", LK_CREATE | LK_KEEP);
    uint64_t join = request_open(b, "x", 0);
    lose(a);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    EXPECT_STATUS(b, join, LKI_STATUS_NOT_FOUND);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}

Test(segment, waiting_requests_of_a_session_are_bounded)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    world.making_waits = true;
    request_open(a, "x", LK_CREATE);
    uint64_t id = 0;
    for (uint32_t i = 0; i < LKI_PARKED_REQUESTS_MAX; i++)
        id = request_open(b, "x", 0);
    cr_expect(eq(ptr, (void *)reply(b, id), NULL), "the last one within the bound waits");
    EXPECT_STATUS(b, request_open(b, "x", 0), LKI_STATUS_QUOTA);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    EXPECT_STATUS(b, id, LKI_STATUS_OK);
}

Test(segment, goodbye_cancels_requests_that_wait)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    world.making_waits = true;
    request_open(a, "x", LK_CREATE);
    uint64_t join = request_open(b, "x", 0);
    uint64_t bye = request_goodbye(b);
    EXPECT_STATUS(b, join, LKI_STATUS_CANCELED);
    EXPECT_STATUS(b, bye, LKI_STATUS_OK);
}

Test(segment, table_of_segments_is_bounded)
{
    world_teardown();
    world_setup_with(&(struct lkd_core_config){.broker_uid = 1000, .limits.max[LKD_SEGMENTS] = 2});
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    struct lki_opened y = opened(b, "y", LK_CREATE);
    uint64_t id = request_open(a, "z", LK_CREATE);
    EXPECT_STATUS(a, id, LKI_STATUS_QUOTA);
    cr_expect(ne(ptr, strstr(detail_of(a, id), "2 segments"), NULL));
    request_segment(b, LKI_REQUEST_DETACH, y.segment);
    work();
    opened(b, "z", LK_CREATE);
}

/* --- Files --- */

static uint64_t offer(uint64_t session, const char *name, uint64_t inode, uint64_t size_bytes,
                      uint64_t asked_bytes)
{
    struct lkd_offer descriptor = {
        .present = true, .usable = true, .device = 7, .inode = inode, .size_bytes = size_bytes};
    struct lki_message open = open_message(name, LK_CREATE);
    open.as.open.offered = true;
    open.as.open.size_bytes = asked_bytes;
    world.file_bytes = size_bytes ? size_bytes : asked_bytes;
    return send_offer(session, open, &descriptor);
}

Test(segment, file_is_taken_and_another_one_refused)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), root = connect_as(0, 3);
    EXPECT_STATUS(a, offer(a, "file", 11, 5000, 0), LKI_STATUS_OK);
    const struct lkd_effect *make = &last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect;
    cr_expect(make->spec.offered);
    cr_expect(eq(u64, make->session, a));
    cr_expect(eq(u64, make->spec.data_bytes, 5000));
    EXPECT_STATUS(b, offer(b, "file", 11, 5000, 0), LKI_STATUS_OK);
    EXPECT_STATUS(b, offer(b, "file", 12, 5000, 0), LKI_STATUS_STALE);
    uint64_t other = connect_as(1000, 4);
    EXPECT_STATUS(other, offer(other, "file", 12, 5000, 0), LKI_STATUS_STALE);
    struct lki_opened plain = opened(other, "file", 0);
    cr_expect(plain.file);
    EXPECT_STATUS(root, offer(root, "roots", 13, 10, 0), LKI_STATUS_OK);
}

Test(segment, file_and_memory_do_not_mix)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    EXPECT_STATUS(b, offer(b, "x", 11, 5000, 0), LKI_STATUS_STALE);
}

Test(segment, offers_that_cannot_be_taken)
{
    uint64_t a = connect_as(1000, 1), stranger = connect_as(1001, 2);
    EXPECT_STATUS(stranger, offer(stranger, "x", 11, 5000, 0), LKI_STATUS_DENIED);
    EXPECT_STATUS(a, offer(a, "x", 11, 0, 0), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, offer(a, "x", 11, 100, 101), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, offer(a, "x", 11, LKI_SEGMENT_BYTES_MAX + 1, 0), LKI_STATUS_TOO_LARGE);
    struct lki_message open = open_message("x", LK_CREATE);
    open.as.open.offered = true;
    EXPECT_STATUS(a, send_message(a, open), LKI_STATUS_BAD_FD);
    EXPECT_STATUS(a, send_offer(a, open, &(struct lkd_offer){.present = true}), LKI_STATUS_BAD_FD);
    EXPECT_STATUS(a, offer(a, "x", 11, 0, 4096), LKI_STATUS_OK);
    cr_expect(eq(u64, last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.spec.data_bytes, 4096));
}

Test(segment, file_truncated_while_it_is_taken_is_refused)
{
    uint64_t a = connect_as(1000, 1);
    world.making_waits = true;
    uint64_t id = offer(a, "x", 11, 5000, 0);
    world.file_bytes = 4999;
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    EXPECT_STATUS(a, id, LKI_STATUS_TRUNCATED);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}

Test(segment, offer_that_waited_has_no_descriptor_to_create_with)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    world.making_waits = true;
    uint64_t first = offer(a, "x", 11, 5000, 0);
    uint64_t second = offer(b, "x", 11, 5000, 0);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, -EMFILE);
    EXPECT_STATUS(a, first, LKI_STATUS_NO_FILES);
    EXPECT_STATUS(b, second, LKI_STATUS_NOT_READY);
    uint64_t third = offer(a, "x", 11, 5000, 0);
    uint64_t fourth = offer(b, "x", 12, 5000, 0);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    EXPECT_STATUS(a, third, LKI_STATUS_OK);
    EXPECT_STATUS(b, fourth, LKI_STATUS_STALE);
}

/* --- Publishing --- */

Test(segment, unpublished_keeps_others_out_until_its_creator_publishes)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE | LK_UNPUBLISHED);
    EXPECT_STATUS(b, request_open(b, "x", LK_CREATE), LKI_STATUS_NOT_READY);
    opened(a, "x", 0);
    EXPECT_STATUS(a, request_segment(a, LKI_REQUEST_PUBLISH, at.segment), LKI_STATUS_OK);
    EXPECT_STATUS(a, request_segment(a, LKI_REQUEST_PUBLISH, at.segment), LKI_STATUS_OK);
    opened(b, "x", 0);
    EXPECT_STATUS(b, request_segment(b, LKI_REQUEST_PUBLISH, at.segment), LKI_STATUS_NOT_HOLDER);
    struct lki_header *header = world.areas[at.segment];
    cr_expect(eq(u32, header->state, LKI_SEGMENT_PUBLISHED));
}

Test(segment, creator_that_dies_unpublished_is_succeeded_at_once)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened first = opened(a, "x", LK_CREATE | LK_UNPUBLISHED | LK_KEEP);
    lose(a);
    EXPECT_STATUS(b, request_open(b, "x", LK_CREATE), LKI_STATUS_NOT_READY);
    end_process(1);
    EXPECT_STATUS(b, request_open(b, "x", 0), LKI_STATUS_NOT_FOUND);
    struct lki_opened second = opened(c, "x", LK_CREATE);
    cr_expect(second.created);
    cr_expect(ne(u32, second.segment, first.segment));
    work();
    cr_expect(eq(u32, last_effect(LKD_EFFECT_DROP_SEGMENT)->effect.segment, first.segment));
}

/* --- Growing --- */

static struct lki_opened create_sized(uint64_t session, uint64_t bytes, uint64_t max)
{
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.size_bytes = bytes;
    create.as.open.size_max_bytes = max;
    uint64_t id = send_message(session, create);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.opened;
}

Test(segment, grows_in_place_and_never_shrinks)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = create_sized(a, 4096, 1 << 20);
    uint64_t id = request_grow(a, at.segment, 8192);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u64, reply(a, id)->effect.message.as.result.value, 8192));
    cr_expect(eq(u64, last_effect(LKD_EFFECT_GROW_SEGMENT)->effect.spec.data_bytes, 8192));
    struct lki_header *header = world.areas[at.segment];
    cr_expect(eq(u64, header->data_bytes, 8192));
    EXPECT_STATUS(a, request_grow(a, at.segment, 8191), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, request_grow(a, at.segment, (1 << 20) + 1), LKI_STATUS_TOO_LARGE);
    EXPECT_STATUS(a, request_grow(a, at.segment, 1 << 20), LKI_STATUS_OK);
    opened(b, "x", LK_READ_ONLY);
    EXPECT_STATUS(b, request_grow(b, at.segment, 1 << 20), LKI_STATUS_DENIED);
}

Test(segment, size_in_the_area_is_not_believed)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create_sized(a, 4096, 1 << 20);
    struct lki_header *header = world.areas[at.segment];
    header->data_bytes = UINT64_MAX;
    EXPECT_STATUS(a, request_grow(a, at.segment, 8192), LKI_STATUS_OK);
    cr_expect(eq(u64, header->data_bytes, 8192));
}

Test(segment, growing_goes_one_after_the_other)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = create_sized(a, 4096, 1 << 20);
    opened(b, "x", 0);
    world.growing_waits = true;
    uint64_t first = request_grow(a, at.segment, 8192);
    uint64_t second = request_grow(b, at.segment, 6000);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_GROW_SEGMENT), 1));
    grown(at.segment, 0);
    EXPECT_STATUS(a, first, LKI_STATUS_OK);
    EXPECT_STATUS(b, second, LKI_STATUS_INVALID);
    uint64_t third = request_grow(a, at.segment, 9000);
    grown(at.segment, -ENOSPC);
    EXPECT_STATUS(a, third, LKI_STATUS_NO_SPACE);
    struct lki_header *header = world.areas[at.segment];
    cr_expect(eq(u64, header->data_bytes, 8192));
}

Test(segment, is_not_dropped_while_it_grows)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create_sized(a, 4096, 1 << 20);
    world.growing_waits = true;
    request_grow(a, at.segment, 8192);
    lose(a);
    end_process(1);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0));
    grown(at.segment, 0);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}

/* --- The end --- */

Test(segment, ephemeral_ends_with_its_last_attachment)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0));
    lose(b);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0), "its process still lives");
    end_process(2);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
    EXPECT_STATUS(a, request_open(a, "x", 0), LKI_STATUS_NOT_FOUND);
}

Test(segment, kept_ends_when_removed)
{
    uint64_t a = connect_as(1000, 1), stranger = connect_as(1001, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE | LK_KEEP);
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    opened(a, "x", 0);
    EXPECT_STATUS(stranger, request_remove(stranger, "~1000/x"), LKI_STATUS_DENIED);
    EXPECT_STATUS(a, request_remove(a, "x"), LKI_STATUS_OK);
    EXPECT_STATUS(a, request_remove(a, "x"), LKI_STATUS_NOT_FOUND);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0), "still attached");
    struct lki_opened fresh = opened(a, "x", LK_CREATE);
    cr_expect(fresh.created && fresh.segment != at.segment, "the name was free at once");
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    cr_expect(eq(u32, last_effect(LKD_EFFECT_DROP_SEGMENT)->effect.segment, at.segment));
}

Test(segment, kept_and_unused_is_dropped_by_removal)
{
    uint64_t a = connect_as(1000, 1), root = connect_as(0, 2);
    opened(a, "x", LK_CREATE | LK_KEEP);
    end_process(1);
    work();
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 0));
    EXPECT_STATUS(root, request_remove(root, "~1000/x"), LKI_STATUS_OK);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_DROP_SEGMENT), 1));
}

Test(segment, tokens_rise_over_re_creation)
{
    uint64_t a = connect_as(1000, 1);
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        struct lki_opened at = opened(a, "x", LK_CREATE);
        struct lki_area area;
        cr_assert(eq(int, lki_area_view(world.areas[at.segment], at.area_bytes, &area), 0));
        uint64_t token = lki_lock_sequence(&area, 3);
        cr_expect(eq(u64, token, (UINT64_C(1000) + i) << 32));
        cr_expect(lt(u64, last, token));
        last = token;
        request_segment(a, LKI_REQUEST_DETACH, at.segment);
        work();
    }
}
