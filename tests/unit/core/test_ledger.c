/* SPDX-License-Identifier: MIT */
/* A ledger in which something stands that no worker wrote: memory that failed. The next worker refuses
 * it, and neither reads nor writes where it points. Each of these was found by tests/fuzz/fuzz_adopt.c.
 */
#include "world.h"

#include <errno.h>
#include <string.h>

TestSuite(ledger, .init = world_setup, .fini = world_teardown);

static struct lkd_ledger left_behind(void)
{
    struct lkd_ledger ledger;
    uint64_t session = connect_as(1000, 1);
    opened(session, "x", LK_CREATE | LK_STRICT);
    crash();
    lkd_ledger_peek(&ledger, world.ledger, &world.config.limits);
    return ledger;
}

/* What a successor says in the end; it is gone then. */
static int succeed(void)
{
    struct lkd_left_segment segment;
    struct lkd_left_session session;
    uint32_t cursor = 0;
    uint64_t number;
    world.in_core = true;
    int r = lkd_core_new(&world.config, &world.core);
    while (r == 0 && lkd_core_next_left_segment(world.core, &cursor, &segment))
        r = lkd_core_adopt_segment(world.core, &segment, world.areas[1]);
    cursor = 0;
    while (r == 0 && lkd_core_next_left_session(world.core, &cursor, &session)) {
        const struct lkd_peer peer = {.pid = session.pid, .process = 1};
        r = lkd_core_adopt_session(world.core, &session, &peer, &number);
    }
    if (r == 0)
        r = lkd_core_adopt(world.core, world.now_ns);
    crash();
    return r;
}

Test(ledger, that_is_whole_is_taken_over)
{
    left_behind();
    cr_assert(eq(int, succeed(), 0));
}

#define REFUSES(name, change)                                                                      \
    Test(ledger, name)                                                                             \
    {                                                                                              \
        struct lkd_ledger ledger = left_behind();                                                  \
        change;                                                                                    \
        cr_assert(eq(int, succeed(), -EPROTO));                                                    \
    }

REFUSES(with_more_sessions_than_fit, ledger.header->sessions_used = UINT32_C(1) << 30)
REFUSES(with_more_segments_than_fit, ledger.header->segments_used = UINT32_C(1) << 30)
REFUSES(with_more_attachments_than_fit, ledger.header->attachments_used = UINT32_C(1) << 30)
REFUSES(with_an_attachment_beyond_its_segment, ledger.attachments[0].id ^= 1u << 15;
        ledger.attachments[0].slot ^= 1u << 15)
REFUSES(with_two_slots_for_one_attachment, ledger.attachments[0].slot ^= 2)
REFUSES(with_an_id_without_generation, ledger.attachments[0].id &= LKI_SLOT_MASK)
REFUSES(with_an_acquire_of_no_lock, ledger.attachments[0].stage = LKD_ACQUIRE_TRYING;
        ledger.attachments[0].mode = LKI_MODE_SHARED; ledger.attachments[0].lock = 1u << 19)
REFUSES(with_an_acquire_in_no_mode, ledger.attachments[0].stage = LKD_ACQUIRE_TRYING;
        ledger.attachments[0].mode = 7)
REFUSES(with_a_segment_of_other_counts, ledger.segments[0].locks ^= 1u << 10)
REFUSES(with_a_segment_without_locks, ledger.segments[0].locks = 0)
REFUSES(with_a_name_that_is_too_long, ledger.segments[0].name_bytes |= 1u << 12)
REFUSES(with_a_session_without_a_number, ledger.sessions[0].number = 0)
REFUSES(with_a_command_that_does_not_end,
        memset(ledger.sessions[0].command, 'x', sizeof(ledger.sessions[0].command)))
