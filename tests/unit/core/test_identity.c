/* SPDX-License-Identifier: MIT */
/* What must never be taken for something else: the ids of a slot's owners, one after the other, and
 * files of one inode number on two devices. */
#include "world.h"

#include "engine/layout.h"

TestSuite(identity, .init = world_setup, .fini = world_teardown, .timeout = 60);

static void detach(uint64_t session, uint32_t segment)
{
    uint64_t id = request_segment(session, LKI_REQUEST_DETACH, segment);
    work();
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
}

Test(identity, a_slot_is_given_again_under_another_id)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened stays = opened(a, "x", LK_CREATE);
    uint32_t last = 0;
    for (int i = 0; i < 3; i++) {
        struct lki_opened at = opened(b, "x", 0);
        cr_expect(eq(u32, at.attachment & LKI_SLOT_MASK, (stays.attachment & LKI_SLOT_MASK) + 1));
        cr_expect(ne(u32, at.attachment, last));
        last = at.attachment;
        detach(b, at.segment);
    }
}

Test(identity, a_successor_gives_no_id_that_was_given_before)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    struct lki_opened before = opened(b, "x", 0);
    detach(b, before.segment);
    crash();
    take_over();
    resume(a);
    resume(b);
    struct lki_opened after = opened(b, "x", 0);
    cr_expect(eq(u32, after.attachment & LKI_SLOT_MASK, before.attachment & LKI_SLOT_MASK));
    cr_expect(ne(u32, after.attachment, before.attachment),
              "the slot's record is gone with its owner");
}

static uint64_t offer(uint64_t session, uint64_t device, uint64_t inode)
{
    struct lkd_offer descriptor = {
        .present = true, .usable = true, .device = device, .inode = inode, .size_bytes = 5000};
    struct lki_message open = open_message("file", LK_CREATE);
    open.as.open.offered = true;
    world.file_bytes = descriptor.size_bytes;
    return send_offer(session, open, &descriptor);
}

Test(identity, a_file_is_known_by_its_device_too)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    EXPECT_STATUS(a, offer(a, 7, 11), LKI_STATUS_OK);
    EXPECT_STATUS(b, offer(b, 8, 11), LKI_STATUS_STALE);
    EXPECT_STATUS(b, offer(b, 7, 11), LKI_STATUS_OK);
}
