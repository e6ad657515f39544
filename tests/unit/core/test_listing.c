/* SPDX-License-Identifier: MIT */
/* Names of locks, holders, and listings. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED

TestSuite(listing, .init = world_setup, .fini = world_teardown, .timeout = 60);

static uint64_t value_of(uint64_t session, uint64_t id)
{
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.result.value;
}

static struct lki_opened create(uint64_t session, const char *name, uint32_t flags, uint32_t locks)
{
    struct lki_message message = open_message(name, LK_CREATE | flags);
    message.as.open.locks = locks;
    uint64_t id = send_message(session, message);
    EXPECT_STATUS(session, id, LKI_STATUS_OK);
    return reply(session, id)->effect.message.as.opened;
}

/* --- Lock names --- */

Test(listing, lock_names_take_the_lowest_entry_after_the_first)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), reader = connect_as(1000, 3);
    struct lki_opened at = create(a, "x", 0, 4);
    opened(b, "x", 0);
    opened(reader, "x", LK_READ_ONLY);
    cr_expect(eq(u64, value_of(a, request_lock_named(a, at.segment, "orders")), 1));
    cr_expect(eq(u64, value_of(b, request_lock_named(b, at.segment, "stock")), 2));
    cr_expect(eq(u64, value_of(b, request_lock_named(b, at.segment, "orders")), 1));
    cr_expect(eq(u64, value_of(reader, request_lock_named(reader, at.segment, "stock")), 2));
    EXPECT_STATUS(reader, request_lock_named(reader, at.segment, "new"), LKI_STATUS_DENIED);
    cr_expect(eq(u64, value_of(a, request_lock_named(a, at.segment, "third")), 3));
    EXPECT_STATUS(a, request_lock_named(a, at.segment, "fourth"), LKI_STATUS_NO_SPACE);

    struct native client;
    native_init(&client, a, &at);
    cr_expect(eq(u32, client.area.cold[2].name_bytes, 5));
    cr_expect(eq(int, memcmp(client.area.cold[2].name, "stock", 5), 0));
    client.area.cold[2].name_bytes = UINT32_MAX; /* the broker keeps its own */
    cr_expect(eq(u64, value_of(b, request_lock_named(b, at.segment, "stock")), 2));
}

Test(listing, single_lock_may_have_a_name)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, 1);
    cr_expect(eq(u64, value_of(a, request_lock_named(a, at.segment, "only")), 0));
    EXPECT_STATUS(a, request_lock_named(a, at.segment, "more"), LKI_STATUS_NO_SPACE);
}

Test(listing, lock_names_are_checked)
{
    static const char *const names[] = {"", "123", "a#b", "a\nb"};
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, 4);
    for (size_t i = 0; i < 4; i++)
        EXPECT_STATUS(a, request_lock_named(a, at.segment, names[i]), LKI_STATUS_INVALID);
    char longest[LKI_NAME_BYTES_MAX + 2];
    memset(longest, 'n', sizeof(longest));
    longest[LKI_NAME_BYTES_MAX + 1] = 0;
    EXPECT_STATUS(a, request_lock_named(a, at.segment, longest), LKI_STATUS_INVALID);
    longest[LKI_NAME_BYTES_MAX] = 0;
    EXPECT_STATUS(a, request_lock_named(a, at.segment, longest), LKI_STATUS_OK);
}

/* --- Holders --- */

static struct lki_holder_is holder_of(uint64_t session, uint32_t segment, uint32_t lock)
{
    uint64_t id = request_holder(session, segment, lock);
    cr_assert(ne(ptr, (void *)reply(session, id), NULL));
    cr_assert(eq(int, reply(session, id)->effect.message.type, LKI_REPLY_HOLDER_IS));
    return reply(session, id)->effect.message.as.holder_is;
}

Test(listing, holder_is_named_with_mode_and_counts)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened at_a = create(a, "x", 0, 4);
    struct lki_opened at_b = opened(b, "x", 0), at_c = opened(c, "x", 0);
    struct native first, second, third;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    native_init(&third, c, &at_c);

    struct lki_holder_is nobody = holder_of(a, at_a.segment, 0);
    cr_expect(eq(i32, nobody.pid, 0));
    cr_expect(eq(u32, nobody.mode, 0));
    cr_expect(eq(u32, nobody.holders, 0));

    native_try(&first, 0, X);
    native_wait(&second, 0, X);
    struct lki_holder_is owner = holder_of(c, at_a.segment, 0);
    cr_expect(eq(i32, owner.pid, 1));
    cr_expect(eq(u32, owner.uid, 1000));
    cr_expect(eq(u32, owner.mode, X));
    cr_expect(eq(u32, owner.holders, 1));
    cr_expect(eq(u32, owner.waiters, 1));
    cr_expect(eq(u64, owner.token, (UINT64_C(1000) << 32) + 1));
    cr_expect(eq(u64, owner.held_ns, 0), "nobody wrote down when");

    native_try(&first, 1, S);
    native_try(&third, 1, S);
    struct lki_holder_is readers = holder_of(c, at_a.segment, 1);
    cr_expect(eq(u32, readers.mode, S));
    cr_expect(eq(u32, readers.holders, 2));
    cr_expect(eq(i32, readers.pid, 1));
    EXPECT_STATUS(a, request_holder(a, at_a.segment, 4), LKI_STATUS_OUT_OF_RANGE);
}

Test(listing, one_for_update_is_told_from_the_readers_beside_it)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = create(a, "x", 0, 4), at_b = opened(b, "x", 0);
    struct native first, second;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    first.party.self->held_since_ns = world.now_ns - 5; /* of an earlier hold, to exit */
    native_try(&first, 1, LKI_MODE_UPDATE);
    native_try(&second, 1, S);

    struct lki_holder_is owner = holder_of(b, at_b.segment, 1);
    cr_expect(eq(u32, owner.mode, LKI_MODE_UPDATE));
    cr_expect(eq(i32, owner.pid, 1));
    cr_expect(eq(u32, owner.holders, 2));
    cr_expect(eq(u64, owner.held_ns, 0), "nobody wrote down when");
    const struct recorded *page = reply(b, request_list(b, LKI_LIST_LOCKS, "", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 2));
    cr_expect(eq(u32, page->entries[0].mode, LKI_MODE_UPDATE));
    cr_expect(eq(u32, page->entries[0].flags, 0), "not to exit");
    cr_expect(eq(u64, page->entries[0].since_ns, 0));
    cr_expect(eq(u32, page->entries[1].mode, S));
    page = reply(b, request_list(b, LKI_LIST_GRAPH, "", 0));
    cr_expect(eq(sz, page->effect.message.as.list_page.count, 0), "nobody waits");
}

/* Rows: what stands in held_since_ns of a hold to exit, relative to now and to the opening. */
Test(listing, absurd_times_are_not_told)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, 4);
    uint64_t opened_ns = world.now_ns;
    struct native client;
    native_init(&client, a, &at);
    cr_assert(eq(int, lki_lock_try(&client.party, 0, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    world.now_ns += 1000;
    const struct {
        uint64_t since_ns, held_ns;
    } rows[] = {
        {opened_ns, 1000},     {opened_ns + 400, 600}, {opened_ns + 1000, 0},
        {opened_ns + 1001, 0}, {opened_ns - 1, 0},     {0, 0},
        {UINT64_MAX, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        client.party.self->held_since_ns = rows[i].since_ns;
        cr_expect(eq(u64, holder_of(a, at.segment, 0).held_ns, rows[i].held_ns), "row %zu", i);
    }
}

/* --- Segments --- */

Test(listing, shows_only_what_the_caller_may_see)
{
    uint64_t a = connect_member(1000, 1, 50), root = connect_as(0, 2);
    uint64_t member = connect_member(1001, 3, 50), stranger = connect_as(1002, 4);
    struct lki_message open = open_message("open", LK_CREATE);
    open.as.open.mode = 0604;
    send_message(a, open);
    opened(a, "closed", LK_CREATE);
    opened(a, "@50/team", LK_CREATE);
    static const struct {
        const char *row;
        int who;
        const char *names[4];
    } rows[] = {
        {"owner", 0, {"open", "closed", "@50/team"}},
        {"root", 1, {"~1000/open", "~1000/closed", "@50/team"}},
        {"member", 2, {"~1000/open", "@50/team"}},
        {"stranger", 3, {"~1000/open"}},
    };
    uint64_t sessions[] = {a, root, member, stranger};
    for (size_t i = 0; i < 4; i++) {
        uint64_t session = sessions[rows[i].who];
        const struct recorded *page =
            reply(session, request_list(session, LKI_LIST_SEGMENTS, "", 0));
        size_t expected = 0;
        while (rows[i].names[expected])
            expected++;
        cr_assert(eq(sz, page->effect.message.as.list_page.count, expected), "%s", rows[i].row);
        for (size_t k = 0; k < expected; k++)
            cr_expect(eq(str, page->strings[k][0], (char *)rows[i].names[k]));
    }
    EXPECT_STATUS(stranger, request_list(stranger, LKI_LIST_SEGMENTS, "~1000/closed", 0),
                  LKI_STATUS_DENIED);
    EXPECT_STATUS(stranger, request_list(stranger, LKI_LIST_LOCKS, "none", 0),
                  LKI_STATUS_NOT_FOUND);
    EXPECT_STATUS(stranger, request_list(stranger, 5, "", 0), LKI_STATUS_INVALID);
    EXPECT_STATUS(stranger, request_list(stranger, LKI_LIST_LOCKS, "a#b", 0), LKI_STATUS_INVALID);
}

Test(listing, segments_come_in_pages)
{
    uint64_t a = connect_as(1000, 1);
    char name[32];
    for (int i = 0; i < 150; i++) {
        snprintf(name, sizeof(name), "s%03d", i);
        create(a, name, 0, 1);
    }
    uint64_t cursor = 0;
    int seen = 0, pages = 0;
    do {
        const struct recorded *page = reply(a, request_list(a, LKI_LIST_SEGMENTS, "", cursor));
        const struct lki_list_page *list = &page->effect.message.as.list_page;
        for (size_t i = 0; i < list->count; i++) {
            snprintf(name, sizeof(name), "s%03d", seen++);
            cr_assert(eq(str, page->strings[i][0], name));
        }
        cursor = list->next_cursor;
        pages++;
    } while (cursor != 0);
    cr_expect(eq(int, seen, 150));
    cr_expect(eq(int, pages, 3));
}

Test(listing, segment_is_described)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message message = open_message("x", LK_CREATE | LK_KEEP);
    message.as.open.size_bytes = 100;
    message.as.open.size_max_bytes = 200;
    message.as.open.mode = 0640;
    send_message(a, message);
    const struct recorded *page = reply(a, request_list(a, LKI_LIST_SEGMENTS, "x", 0));
    const struct lki_list_entry *entry = &page->entries[0];
    cr_expect(eq(u32, entry->mode, 0640));
    cr_expect(eq(u32, entry->uid, 1000));
    cr_expect(eq(u32, entry->attachments, 1));
    cr_expect(eq(u32, entry->locks, 16));
    cr_expect(eq(u32, entry->flags, LK_KEEP));
    cr_expect(eq(u64, entry->size_bytes, 100));
    cr_expect(eq(u64, entry->size_max_bytes, 200));
    cr_expect(not(entry->file));
}

Test(listing, broker_describes_itself)
{
    uint64_t a = connect_as(1000, 1);
    create(a, "x", 0, 1);
    const struct recorded *page = reply(a, request_list(a, LKI_LIST_BROKER, "", 0));
    const struct lki_list_entry *entry = &page->entries[0];
    cr_expect(eq(sz, page->effect.message.as.list_page.count, 1));
    cr_expect(eq(str, page->strings[0][0], (char *)"/run/user/1000/lockkeeper/broker.sock"));
    cr_expect(eq(i32, entry->pid, 42));
    cr_expect(eq(u32, entry->uid, 1000));
    cr_expect(eq(u32, entry->waiters, 1));
    cr_expect(eq(u32, entry->attachments, 1));
    cr_expect(eq(u64, entry->since_ns, 77));
}

/* --- Locks --- */

Test(listing, locks_show_owner_readers_waiters_and_damage)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    uint64_t dead = connect_as(1000, 4);
    struct lki_opened at_a = create(a, "x", 0, 8);
    struct lki_opened at_b = opened(b, "x", 0), at_c = opened(c, "x", 0);
    struct lki_opened at_dead = opened(dead, "x", 0);
    struct native first, second, third, gone;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    native_init(&third, c, &at_c);
    native_init(&gone, dead, &at_dead);
    request_lock_named(a, at_a.segment, "orders");
    native_try(&first, 1, X);
    native_wait(&second, 1, S);
    world.now_ns += 500;
    native_try(&third, 2, S);
    native_try(&first, 2, S);
    native_try(&gone, 5, X);
    end_process(4);
    work();

    const struct recorded *page = reply(c, request_list(c, LKI_LIST_LOCKS, "", 0));
    static const struct {
        uint32_t lock, state, mode;
        int32_t pid;
        uint32_t waiters;
        uint64_t since_ns;
    } rows[] = {
        {1, LKI_ENTRY_HELD, X, 1, 1, 0},    {1, LKI_ENTRY_WAITING, S, 2, 0, 500},
        {2, LKI_ENTRY_HELD, S, 1, 0, 0},    {2, LKI_ENTRY_HELD, S, 3, 0, 0},
        {5, LKI_ENTRY_DAMAGED, X, 0, 0, 0},
    };
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 5));
    for (size_t i = 0; i < 5; i++) {
        const struct lki_list_entry *entry = &page->entries[i];
        cr_expect(eq(u32, entry->lock, rows[i].lock), "row %zu", i);
        cr_expect(eq(u32, entry->state, rows[i].state), "row %zu", i);
        cr_expect(eq(u32, entry->mode, rows[i].mode), "row %zu", i);
        cr_expect(eq(i32, entry->pid, rows[i].pid), "row %zu", i);
        cr_expect(eq(u32, entry->waiters, rows[i].waiters), "row %zu", i);
        cr_expect(eq(u64, entry->since_ns, rows[i].since_ns), "row %zu", i);
    }
    cr_expect(eq(str, page->strings[0][1], (char *)"orders"));
    cr_expect(eq(str, page->strings[0][2], (char *)"worker"));
}

Test(listing, drain_and_hold_to_exit_are_told_apart)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = create(a, "x", 0, 8), at_b = opened(b, "x", 0);
    struct native first, second;
    native_init(&first, a, &at_a);
    native_init(&second, b, &at_b);
    native_try(&first, 0, S);
    native_wait(&second, 0, X);
    lki_lock_try(&first.party, 1, X, LKI_HOLD_TO_EXIT);
    const struct recorded *page = reply(a, request_list(a, LKI_LIST_LOCKS, "x", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 3));
    cr_expect(eq(u32, page->entries[0].state, LKI_ENTRY_DRAINING));
    cr_expect(eq(u32, page->entries[0].flags, 0));
    cr_expect(eq(u32, page->entries[1].state, LKI_ENTRY_HELD));
    cr_expect(eq(u32, page->entries[2].flags, 1));
}

Test(listing, shared_hold_has_a_time_only_when_it_is_kept_to_exit)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = create(a, "x", 0, 8);
    struct native reader;
    opened(b, "x", 0);
    native_init(&reader, a, &at_a);
    native_try(&reader, 0, S);
    atomic_store(&reader.party.self->held_since_ns, world.now_ns);
    world.now_ns += 5000;
    const struct recorded *page = reply(b, request_list(b, LKI_LIST_LOCKS, "x", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 1));
    cr_expect(eq(u64, page->entries[0].since_ns, 0), "the time may be that of another hold");
    lose(a);
    page = reply(b, request_list(b, LKI_LIST_LOCKS, "x", 0));
    cr_expect(eq(u64, page->entries[0].since_ns, 5000));
}

/* Every line comes exactly once, whatever the pages cut through: locks held by one, and a queue. */
Test(listing, locks_come_in_pages)
{
    enum { HELD = 100, QUEUE = 90 };
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, HELD);
    struct native holder;
    static struct native waiters[QUEUE];
    native_init(&holder, a, &at);
    for (uint32_t lock = 0; lock < HELD; lock++)
        native_try(&holder, lock, X);
    for (uint64_t i = 0; i < QUEUE; i++) {
        uint64_t session = connect_as(1000, 100 + i);
        struct lki_opened place = opened(session, "x", 0);
        native_init(&waiters[i], session, &place);
        native_wait(&waiters[i], 7, X);
    }
    uint64_t cursor = 0;
    uint32_t held = 0;
    int32_t queued = 0;
    do {
        const struct recorded *page = reply(a, request_list(a, LKI_LIST_LOCKS, "", cursor));
        const struct lki_list_page *list = &page->effect.message.as.list_page;
        for (size_t i = 0; i < list->count; i++) {
            const struct lki_list_entry *entry = &page->entries[i];
            if (entry->state == LKI_ENTRY_HELD) {
                cr_assert(eq(u32, entry->lock, held));
                cr_expect(eq(u32, entry->waiters, held == 7 ? QUEUE : 0));
                held++;
            } else {
                cr_assert(eq(u32, entry->lock, 7));
                cr_assert(eq(i32, entry->pid, 100 + queued), "in the order of the queue");
                queued++;
            }
        }
        cursor = list->next_cursor;
    } while (cursor != 0);
    cr_expect(eq(u32, held, HELD));
    cr_expect(eq(i32, queued, QUEUE));
}

/* One full page ends with a segment, the next one begins with another. */
Test(listing, locks_of_several_segments_come_in_pages)
{
    uint64_t a = connect_as(1000, 1);
    static const char *const names[] = {"x", "y", "z"};
    for (size_t i = 0; i < 3; i++) {
        struct lki_opened at = create(a, names[i], 0, LKI_LIST_PAGE_ENTRIES_MAX);
        struct native holder;
        native_init(&holder, a, &at);
        for (uint32_t lock = 0; lock < LKI_LIST_PAGE_ENTRIES_MAX; lock++)
            native_try(&holder, lock, X);
    }
    uint64_t cursor = 0;
    size_t pages = 0;
    do {
        const struct recorded *page = reply(a, request_list(a, LKI_LIST_LOCKS, "", cursor));
        cr_assert(eq(sz, page->effect.message.as.list_page.count, LKI_LIST_PAGE_ENTRIES_MAX));
        cr_expect(eq(str, page->strings[0][0], (char *)names[pages]));
        cr_expect(eq(u32, page->entries[0].lock, 0));
        cursor = page->effect.message.as.list_page.next_cursor;
        pages++;
    } while (cursor != 0);
    cr_expect(eq(sz, pages, 3));
}

/* The work of one page is bounded: many locks take several, some of them empty. */
Test(listing, large_tables_are_walked_page_by_page)
{
    enum { LOCKS = 200000 };
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, LOCKS);
    struct native holder;
    native_init(&holder, a, &at);
    native_try(&holder, LOCKS - 1, X);
    uint64_t cursor = 0;
    size_t lines = 0, pages = 0;
    do {
        const struct recorded *page = reply(a, request_list(a, LKI_LIST_LOCKS, "", cursor));
        lines += page->effect.message.as.list_page.count;
        cursor = page->effect.message.as.list_page.next_cursor;
        pages++;
    } while (cursor != 0);
    cr_expect(eq(sz, lines, 1));
    cr_expect(eq(sz, pages, 4));
}

Test(listing, scribbles_and_absurd_cursors_are_survived)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, 8);
    struct native client;
    native_init(&client, a, &at);
    client.area.hot[0].word = UINT32_MAX;
    client.area.hot[1].word = 1023u << 16 | 65535;
    client.party.self->wait = UINT64_MAX;
    for (size_t cell = 0; cell < LKI_SHARED_HOLDS_MAX; cell++)
        client.party.self->cells[cell] = UINT32_MAX - (uint32_t)cell;
    client.area.header->attachments_used = UINT32_MAX;
    static const uint64_t cursors[] = {0, UINT64_MAX, UINT64_C(1) << 40 | 0xffffffffff, 1};
    for (size_t i = 0; i < 4; i++) {
        for (uint32_t what = LKI_LIST_SEGMENTS; what <= LKI_LIST_GRAPH; what++)
            request_list(a, what, "", cursors[i]);
    }
    struct lki_holder_is holder = holder_of(a, at.segment, 0);
    cr_expect(eq(u32, holder.mode, LKI_MODE_UPDATE), "all bits are set");
    cr_expect(eq(i32, holder.pid, 0));
}

/* --- What is asked for --- */

Test(listing, there_are_four_listings)
{
    uint64_t a = connect_as(1000, 1);
    EXPECT_STATUS(a, request_list(a, 0, "", 0), LKI_STATUS_INVALID);
    EXPECT_STATUS(a, request_list(a, LKI_LIST_GRAPH + 1, "", 0), LKI_STATUS_INVALID);
    const struct recorded *page = reply(a, request_list(a, LKI_LIST_BROKER, "no/such", 0));
    cr_expect(eq(sz, page->effect.message.as.list_page.count, 1), "which has no name");
}

Test(listing, a_segment_in_the_making_is_not_there_yet)
{
    uint64_t a = connect_as(1000, 1);
    world.making_waits = true;
    request_open(a, "x", LK_CREATE);
    EXPECT_STATUS(a, request_list(a, LKI_LIST_LOCKS, "x", 0), LKI_STATUS_NOT_FOUND);
    made(last_effect(LKD_EFFECT_MAKE_SEGMENT)->effect.segment, 0);
    cr_expect(eq(int, reply(a, request_list(a, LKI_LIST_LOCKS, "x", 0))->effect.message.type,
                 LKI_REPLY_LIST_PAGE));
}

Test(listing, a_segment_is_unpublished_until_it_is_published)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", LK_UNPUBLISHED, 1);
    const struct recorded *page = reply(a, request_list(a, LKI_LIST_SEGMENTS, "x", 0));
    cr_expect(eq(u32, page->entries[0].flags, LK_UNPUBLISHED));
    request_segment(a, LKI_REQUEST_PUBLISH, at.segment);
    page = reply(a, request_list(a, LKI_LIST_SEGMENTS, "x", 0));
    cr_expect(eq(u32, page->entries[0].flags, 0));
}

/* --- Pages --- */

/* Walks all pages; the locks that are shown, in their order. Returns how many pages there were. */
static size_t walk(uint64_t session, const char *name, uint32_t *locks, size_t *out_count)
{
    uint64_t cursor = 0;
    size_t pages = 0;
    *out_count = 0;
    do {
        const struct recorded *page =
            reply(session, request_list(session, LKI_LIST_LOCKS, name, cursor));
        const struct lki_list_page *list = &page->effect.message.as.list_page;
        for (size_t i = 0; i < list->count; i++)
            locks[(*out_count)++] = page->entries[i].lock;
        cursor = list->next_cursor;
        pages++;
    } while (cursor != 0);
    return pages;
}

Test(listing, locks_of_one_segment_by_its_name_come_in_pages)
{
    enum { LOCKS = 2 * LKI_LIST_PAGE_ENTRIES_MAX + 3 };
    uint64_t a = connect_as(1000, 1);
    struct lki_opened others = create(a, "w", 0, 8), at = create(a, "x", 0, LOCKS);
    struct native in_others, holder;
    native_init(&in_others, a, &others);
    native_init(&holder, a, &at);
    native_try(&in_others, 0, X);
    for (uint32_t lock = 0; lock < LOCKS; lock++)
        native_try(&holder, lock, X);
    uint32_t locks[LOCKS];
    size_t count;
    cr_expect(eq(sz, walk(a, "x", locks, &count), 3));
    cr_assert(eq(sz, count, LOCKS));
    for (uint32_t i = 0; i < LOCKS; i++)
        cr_expect(eq(u32, locks[i], i));
}

Test(listing, a_page_ends_when_it_has_looked_at_many_locks_of_several_segments)
{
    enum { LOCKS = 60000, SEGMENTS = 3 };
    uint64_t a = connect_as(1000, 1);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        char name[] = {(char)('a' + i), 0};
        struct lki_opened at = create(a, name, 0, LOCKS);
        struct native holder;
        native_init(&holder, a, &at);
        native_try(&holder, i, X);
    }
    uint32_t locks[SEGMENTS];
    size_t count;
    cr_expect(eq(sz, walk(a, "", locks, &count), 2));
    cr_assert(eq(sz, count, SEGMENTS));
    for (uint32_t i = 0; i < SEGMENTS; i++)
        cr_expect(eq(u32, locks[i], i));
}

Test(listing, a_waiter_is_on_the_page_of_its_lock)
{
    enum { LOCKS = 70000 };
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = create(a, "x", 0, LOCKS), at_b = opened(b, "x", 0);
    struct native holder, waiter;
    native_init(&holder, a, &at_a);
    native_init(&waiter, b, &at_b);
    native_try(&holder, LOCKS - 1, X);
    native_wait(&waiter, LOCKS - 1, X);
    uint32_t locks[4];
    size_t count;
    cr_expect(eq(sz, walk(a, "x", locks, &count), 2));
    cr_expect(eq(sz, count, 2), "the owner and the waiter, once each");
}

Test(listing, a_time_that_nobody_wrote_down_is_none)
{
    world.now_ns = 0; /* as if the machine had just started */
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = create(a, "x", 0, 4);
    struct native client;
    native_init(&client, a, &at);
    cr_assert(eq(int, lki_lock_try(&client.party, 0, X, LKI_HOLD_TO_EXIT), LKI_TAKEN));
    world.now_ns = 1000;
    cr_expect(eq(u64, holder_of(a, at.segment, 0).held_ns, 0));
}
