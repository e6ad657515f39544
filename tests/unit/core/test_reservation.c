/* SPDX-License-Identifier: MIT */
/* The notes of names that outlive a broker: what the driver is told to write down, and whom a name is
 * kept from that an earlier broker wrote down. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "proto/name.h"

TestSuite(reservation, .init = world_setup, .fini = world_teardown, .timeout = 60);

/* What is noted, by index, as the driver would have written it down. */
static struct {
    bool present;
    uint64_t process;
    uint32_t kind, id;
    char name[LKI_NAME_BYTES_MAX + 1];
} notes[64];

static uint32_t take_changes(void)
{
    struct lkd_name_change change;
    uint32_t count = 0;
    for (; lkd_core_next_name_change(world.core, &change); count++) {
        cr_assert(lt(u32, change.index, 64));
        memset(&notes[change.index], 0, sizeof(notes[0]));
        notes[change.index].present = change.present;
        if (!change.present)
            continue;
        notes[change.index].process = change.process;
        notes[change.index].kind = change.name_kind;
        notes[change.index].id = change.name_id;
        memcpy(notes[change.index].name, change.name, change.name_bytes);
    }
    return count;
}

static uint32_t count_notes(uint64_t process, const char *name)
{
    uint32_t count = 0;
    for (size_t i = 0; i < 64; i++)
        count += notes[i].present && notes[i].process == process &&
                 strcmp(notes[i].name, name) == 0 && notes[i].id == 1000;
    return count;
}

static void forget_notes(void)
{
    memset(notes, 0, sizeof(notes));
}

Test(reservation, every_attachment_is_noted_while_it_lasts)
{
    forget_notes();
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    opened(b, "x", 0);
    cr_expect(eq(u32, take_changes(), 2));
    cr_expect(eq(u32, count_notes(1, "x"), 1));
    cr_expect(eq(u32, count_notes(2, "x"), 1));
    cr_expect(eq(u32, take_changes(), 0), "told once");

    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    take_changes();
    cr_expect(eq(u32, count_notes(1, "x"), 0));
    end_process(2);
    work();
    take_changes();
    cr_expect(eq(u32, count_notes(2, "x"), 0));
}

/* It stands beside a main one that is noted, and comes and goes with each asynchronous acquire. */
Test(reservation, an_extra_attachment_is_not_noted)
{
    forget_notes();
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    struct lki_opened at = opened(b, "y", LK_CREATE);
    cr_expect(eq(u32, take_changes(), 2));
    EXPECT_STATUS(b, request_async(b, at.segment, 0, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER),
                  LKI_STATUS_OK);
    cr_expect(eq(u32, take_changes(), 0));
    request_goodbye(a);
    work();
    /* It takes the record of a main one whose end was not told yet. */
    EXPECT_STATUS(b, request_async(b, at.segment, 1, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER),
                  LKI_STATUS_OK);
    take_changes();
    cr_expect(eq(u32, count_notes(1, "x"), 0));
    cr_expect(eq(u32, count_notes(2, "y"), 1));
}

Test(reservation, what_came_and_went_between_two_looks_is_told_as_it_is_now)
{
    forget_notes();
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    cr_expect(eq(u32, take_changes(), 1));
    cr_expect(eq(u32, count_notes(1, "x"), 0));
}

Test(reservation, a_name_that_was_removed_is_not_kept)
{
    forget_notes();
    uint64_t a = connect_as(1000, 1);
    opened(a, "x", LK_CREATE);
    take_changes();
    EXPECT_STATUS(a, request_remove(a, "x"), LKI_STATUS_OK);
    cr_expect(eq(u32, take_changes(), 1));
    cr_expect(eq(u32, count_notes(1, "x"), 0));
    opened(a, "x", LK_CREATE);
    take_changes();
    cr_expect(eq(u32, count_notes(1, "x"), 1), "the new one is");
}

Test(reservation, a_successor_writes_all_notes_again)
{
    opened(connect_as(1000, 1), "x", LK_CREATE);
    take_changes();
    crash();
    forget_notes();
    take_over();
    take_changes();
    cr_expect(eq(u32, count_notes(1, "x"), 1));
}

/* --- Kept names --- */

static struct lkd_name_change note_of(uint32_t kind, uint32_t id, const char *name)
{
    return (struct lkd_name_change){
        .present = true,
        .process = 5,
        .name_kind = kind,
        .name_id = id,
        .name_bytes = (uint32_t)strlen(name),
        .name = (const uint8_t *)name,
    };
}

static int keep(uint32_t kind, uint32_t id, const char *name)
{
    struct lkd_name_change change = note_of(kind, id, name);
    return lkd_core_reserve_name(world.core, &change, 4711);
}

Test(reservation, nobody_gets_a_kept_name_until_its_process_has_ended)
{
    uint64_t a = connect_as(1000, 1);
    cr_assert(eq(int, keep(LKI_NAME_USER, 1000, "x"), 0));
    uint64_t id = request_open(a, "x", LK_CREATE);
    EXPECT_STATUS(a, id, LKI_STATUS_BUSY);
    cr_expect(ne(ptr, strstr(detail_of(a, id), "pid 4711"), NULL), "%s", detail_of(a, id));
    EXPECT_STATUS(a, request_open(a, "x", 0), LKI_STATUS_BUSY);
    end_process(6);
    EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_BUSY);
    end_process(5);
    EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_OK);
}

Test(reservation, only_the_very_name_is_kept)
{
    uint64_t a = connect_member(1000, 1, 1000);
    cr_assert(eq(int, keep(LKI_NAME_USER, 1000, "x"), 0));
    cr_expect(eq(int, status_of(a, request_open(a, "y", LK_CREATE)), LKI_STATUS_OK));
    cr_expect(eq(int, status_of(a, request_open(a, "xx", LK_CREATE)), LKI_STATUS_OK));
    cr_expect(eq(int, status_of(a, request_open(a, "@1000/x", LK_CREATE)), LKI_STATUS_OK));
    uint64_t b = connect_as(1001, 2);
    cr_expect(eq(int, status_of(b, request_open(b, "x", LK_CREATE)), LKI_STATUS_OK));
}

Test(reservation, two_processes_keep_a_name_until_both_have_ended)
{
    uint64_t a = connect_as(1000, 1);
    struct lkd_name_change change = note_of(LKI_NAME_USER, 1000, "x");
    cr_assert(eq(int, lkd_core_reserve_name(world.core, &change, 4711), 0));
    change.process = 6;
    cr_assert(eq(int, lkd_core_reserve_name(world.core, &change, 4712), 0));
    end_process(5);
    EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_BUSY);
    end_process(6);
    EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_OK);
}

Test(reservation, a_note_that_is_too_long_is_cut_and_harms_nobody)
{
    static const uint8_t bytes[2 * LKI_NAME_BYTES_MAX] = {'x'};
    struct lkd_name_change change = note_of(LKI_NAME_USER, 1000, "x");
    change.name = bytes;
    change.name_bytes = sizeof(bytes);
    cr_expect(eq(int, lkd_core_reserve_name(world.core, &change, 4711), 0));
    uint64_t a = connect_as(1000, 1);
    EXPECT_STATUS(a, request_open(a, "x", LK_CREATE), LKI_STATUS_OK);
}

Test(reservation, keeping_a_name_takes_memory)
{
    world.in_core = true;
    world.fail_one_in = 1;
    int r = keep(LKI_NAME_USER, 1000, "x");
    world.fail_one_in = 0;
    world.in_core = false;
    cr_expect(eq(int, r, -ENOMEM));
}
