/* SPDX-License-Identifier: MIT */
/* A ledger in which something stands that no worker wrote: memory that failed. The next worker refuses
 * it, and neither reads nor writes where it points. Each of these was found by tests/fuzz/fuzz_adopt.c.
 */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "engine/step.h"

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
REFUSES(with_an_attachment_in_no_slot, ledger.attachments[0].id &= ~LKI_SLOT_MASK;
        ledger.attachments[0].slot = 0)
REFUSES(with_an_id_without_generation, ledger.attachments[0].id &= LKI_SLOT_MASK)
REFUSES(with_an_acquire_of_no_lock, ledger.attachments[0].stage = LKD_ACQUIRE_TRYING;
        ledger.attachments[0].mode = LKI_MODE_SHARED; ledger.attachments[0].lock = 1u << 19)
REFUSES(with_an_acquire_in_no_mode, ledger.attachments[0].stage = LKD_ACQUIRE_TRYING;
        ledger.attachments[0].mode = 7)
REFUSES(with_an_acquire_in_mode_0, ledger.attachments[0].stage = LKD_ACQUIRE_TRYING;
        ledger.attachments[0].mode = 0)
REFUSES(with_an_upgrade_of_no_lock, ledger.attachments[0].upgrading = true;
        ledger.attachments[0].change_lock = 1u << 19)
REFUSES(with_a_segment_of_other_counts, ledger.segments[0].locks ^= 1u << 10)
REFUSES(with_a_segment_without_locks, ledger.segments[0].locks = 0)
REFUSES(with_a_name_that_is_too_long, ledger.segments[0].name_bytes |= 1u << 12)
REFUSES(with_a_session_without_a_number, ledger.sessions[0].number = 0)
REFUSES(with_a_command_that_does_not_end,
        memset(ledger.sessions[0].command, 'x', sizeof(ledger.sessions[0].command)))
REFUSES(with_an_attachment_of_no_session, ledger.attachments[0].session ^= 1u << 9)
REFUSES(with_an_attachment_of_no_segment, ledger.attachments[0].segment ^= 1u << 9)
REFUSES(with_a_segment_of_too_many_locks, ledger.segments[0].locks = LKI_LOCKS_MAX + 1)
REFUSES(with_a_segment_without_a_number, ledger.segments[0].number = 0)
REFUSES(with_a_segment_without_attachments, ledger.segments[0].attachments_max = 0)
REFUSES(with_a_segment_of_too_many_attachments,
        ledger.segments[0].attachments_max = LKI_ATTACHMENTS_MAX + 1)
REFUSES(with_a_segment_of_another_size, ledger.segments[0].area_bytes += 4096)
REFUSES(with_a_segment_twice, ledger.segments[1] = ledger.segments[0];
        ledger.header->segments_used = 2)
REFUSES(with_a_session_twice, ledger.sessions[1] = ledger.sessions[0];
        ledger.header->sessions_used = 2)
REFUSES(with_an_id_of_a_generation_that_is_never_given,
        ledger.attachments[0].id |= UINT32_C(0xffff) << LKI_GENERATION_SHIFT)

/* --- As a table --- */

static struct lkd_ledger three_of_each(void)
{
    static struct lkd_limits limits = {
        .max = {[LKD_SESSIONS] = 3, [LKD_SEGMENTS] = 3, [LKD_ATTACHMENTS] = 3}};
    struct lkd_ledger ledger;
    uint64_t bytes = lkd_ledger_bytes(&limits);
    cr_assert(le(u64, bytes, world.ledger_bytes));
    crash();
    memset(world.ledger, 0, bytes);
    int r = lkd_ledger_view(&ledger, world.ledger, &limits);
    cr_assert(eq(int, r, 0));
#ifdef LKI_STEPS
    lki_step_hook = NULL;
#endif
    return ledger;
}

#define FILLS_AND_EMPTIES(kind)                                                                    \
    Test(ledger, gives_every_##kind##_once)                                                        \
    {                                                                                              \
        struct lkd_ledger ledger = three_of_each();                                                \
        struct lkd_##kind##_record *taken[4];                                                      \
        for (int i = 0; i < 4; i++)                                                                \
            taken[i] = lkd_ledger_take_##kind(&ledger);                                            \
        cr_expect(eq(ptr, (void *)taken[3], NULL), "there are three");                             \
        lkd_ledger_give_##kind(&ledger, taken[3]); /* which is nothing */                          \
        for (int i = 0; i < 3; i++)                                                                \
            lkd_ledger_give_##kind(&ledger, taken[i]);                                             \
        for (int i = 3; i-- > 0;)                                                                  \
            cr_expect(eq(ptr, (void *)lkd_ledger_take_##kind(&ledger), (void *)taken[i]));         \
        cr_expect(eq(ptr, (void *)lkd_ledger_take_##kind(&ledger), NULL));                         \
    }

FILLS_AND_EMPTIES(session)
FILLS_AND_EMPTIES(segment)
FILLS_AND_EMPTIES(attachment)
