/* SPDX-License-Identifier: MIT */
/* Who is blamed when workers fail, what a segment in quarantine still answers, and a successor that
 * runs out of memory. That nothing is lost otherwise is for test_takeover_steps.c. */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE

TestSuite(adoption, .init = world_setup, .fini = world_teardown, .timeout = 60);

static struct lkd_ledger_header *header(void)
{
    return world.ledger;
}

/* The worker dies while it is at a request of the session about the segment; 0: about none. */
static void die_at(uint64_t session, uint32_t segment)
{
    crash();
    atomic_store(&header()->work_session, session);
    atomic_store(&header()->work_segment, segment);
}

static void fail_at(uint64_t session, uint32_t segment)
{
    die_at(session, segment);
    take_over_faulty();
    for (uint32_t i = 0; i < world.left_count; i++)
        resume(world.left_sessions[i]);
}

/* --- Sessions --- */

Test(adoption, a_request_that_two_workers_in_a_row_fail_over_ends_its_session)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    opened(b, "y", LK_CREATE);
    fail_at(a, 0);
    cr_expect(not(was_disconnected(a)), "once may be chance");
    fail_at(a, 0);
    cr_expect(was_disconnected(a));
    cr_expect(logged("over a request of pid 1"));
    cr_expect(not(was_disconnected(b)));
}

Test(adoption, the_worker_notes_what_it_is_at)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    cr_expect(eq(u64, atomic_load(&header()->work_session), 0), "nothing between two events");
    cr_expect(eq(u32, atomic_load(&header()->work_segment), 0));
    (void)at;
}

Test(adoption, failures_over_different_sessions_end_none)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    fail_at(a, 0);
    fail_at(b, 0);
    fail_at(a, 0);
    cr_expect(not(was_disconnected(a)));
    cr_expect(not(was_disconnected(b)));
}

Test(adoption, a_worker_that_was_killed_blames_nobody)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    for (int i = 0; i < 3; i++) {
        die_at(a, at.segment);
        take_over();
        resume(a);
    }
    cr_expect(not(was_disconnected(a)));
    opened(connect_as(1000, 2), "x", 0);
}

Test(adoption, a_session_to_blame_that_is_gone_or_lost_already_is_let_be)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(b, "x", LK_CREATE);
    fail_at(a, 0);
    lose(a);
    fail_at(a, 0);
    cr_expect(not(logged("two workers in a row")), "it is gone");
    fail_at(b, 0);
    lose(b);
    fail_at(b, 0);
    cr_expect(not(logged("two workers in a row")), "it is lost, and holds the segment still");
}

/* --- Segments --- */

/* Two workers fail over "x", at requests of two sessions. */
static struct lki_opened quarantine(uint64_t a, uint64_t b)
{
    struct lki_opened at = opened(a, "x", LK_CREATE | LK_STRICT);
    opened(b, "x", LK_STRICT);
    fail_at(a, at.segment);
    fail_at(b, at.segment);
    cr_assert(logged("'x' of uid 1000: it is in quarantine"));
    return at;
}

Test(adoption, a_segment_that_two_workers_fail_over_is_looked_at_no_more)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened at = quarantine(a, b);
    cr_expect(not(was_disconnected(a)));
    cr_expect(not(was_disconnected(b)));

    uint64_t id = request_acquire(a, at.segment, 1, X, 0);
    EXPECT_STATUS(a, id, LKI_STATUS_STALE);
    cr_expect(ne(ptr, strstr(detail_of(a, id), "failed twice"), NULL), "%s", detail_of(a, id));
    EXPECT_STATUS(c, request_open(c, "x", 0), LKI_STATUS_STALE);
}

/* Whoever touches its memory dies of it. */
Test(adoption, a_segment_in_quarantine_is_touched_for_no_request)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), root = connect_as(0, 3);
    struct lki_opened at = quarantine(a, b), other = opened(a, "y", LK_CREATE);
    struct native native;
    native_init(&native, a, &other);
    native_try(&native, 3, X);
    int r = mprotect(world.areas[at.segment], at.area_bytes, PROT_NONE);
    cr_assert(eq(int, r, 0));

    request_ask(a, at.segment, 1, at.attachment);
    request_ask(a, at.segment, 1, 0);
    request_segment(a, LKI_REQUEST_NUDGE, at.segment);
    uint64_t id = request_force(root, "~1000/x", 1, "it hangs");
    EXPECT_STATUS(root, id, LKI_STATUS_STALE);
    cr_expect(ne(ptr, strstr(detail_of(root, id), "failed twice"), NULL), "%s",
              detail_of(root, id));
    request_list(root, LKI_LIST_SEGMENTS, "", 0);
    request_list(root, LKI_LIST_LOCKS, "~1000/x", 0);
    const struct recorded *page = reply(root, request_list(root, LKI_LIST_LOCKS, "", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 1));
    cr_expect(eq(str, page->strings[0][0], "~1000/y"));
    request_list(root, LKI_LIST_GRAPH, "", 0);
    opened(b, "y", 0);
    uint64_t acquire = request_async(b, other.segment, 3, X, LKI_TIME_NEVER); /* a search */
    pass(LKI_NS_PER_S);
    request_cancel(b, acquire);
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    lose(b);
    end_process(2);
    work();
    cr_expect(eq(u32, last_effect(LKD_EFFECT_DROP_SEGMENT)->effect.segment, at.segment));
}

Test(adoption, a_segment_in_quarantine_can_be_left_removed_and_made_anew)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2), c = connect_as(1000, 3);
    struct lki_opened at = quarantine(a, b);
    memset(world.areas[at.segment], 0xa5, at.area_bytes); /* what made the workers fail */
    forget_effects();
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    EXPECT_STATUS(c, request_remove(c, "x"), LKI_STATUS_OK);
    cr_expect(ne(u32, opened(c, "x", LK_CREATE).segment, at.segment));
    end_process(2);
    work();
    cr_expect(eq(u32, last_effect(LKD_EFFECT_DROP_SEGMENT)->effect.segment, at.segment));
}

Test(adoption, quarantine_outlives_the_worker_and_is_told_once)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = quarantine(a, b);
    memset(world.areas[at.segment], 0xa5, at.area_bytes);
    forget_effects();
    crash();
    take_over();
    resume(a);
    EXPECT_STATUS(a, request_acquire(a, at.segment, 1, X, 0), LKI_STATUS_STALE);
    fail_at(a, at.segment);
    fail_at(b, at.segment);
    cr_expect(not(logged("quarantine")));
}

Test(adoption, a_segment_to_blame_that_has_ended_is_let_be)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE);
    fail_at(a, at.segment);
    request_segment(a, LKI_REQUEST_DETACH, at.segment);
    work();
    fail_at(b, at.segment);
    cr_expect(not(logged("quarantine")));
}

/* --- The way back --- */

Test(adoption, a_session_that_was_not_interrupted_may_not_resume)
{
    uint64_t a = connect_as(1000, 1);
    resume(a);
    cr_expect(was_disconnected(a));
}

Test(adoption, a_resume_that_died_with_a_worker_is_asked_for_again)
{
    uint64_t a = connect_as(1000, 1);
    opened(a, "x", LK_CREATE);
    crash();
    take_over();
    crash(); /* it has read the RESUME, and did no more */
    take_over();
    cr_assert(eq(u64, resumed_count(a), 2), "else both would wait for the other for ever");
    resume(a);
    opened(a, "y", LK_CREATE);
}

Test(adoption, a_resume_for_a_worker_that_died_is_not_heard)
{
    uint64_t a = connect_as(1000, 1);
    crash();
    take_over();
    uint32_t first = atomic_load(&header()->restarts);
    crash();
    take_over();
    resume_as(a, first);
    uint64_t early = request_open(a, "x", LK_CREATE);
    cr_expect(eq(ptr, (void *)reply(a, early), NULL), "it comes again");
    resume(a);
    opened(a, "x", LK_CREATE);
}

Test(adoption, one_way_requests_are_heard_before_the_resume_and_others_are_not)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    struct native holder;
    native_init(&holder, a, &at_a);
    cr_assert(eq(int, native_try(&holder, 0, X), LKI_TAKEN));
    crash();
    take_over();
    forget_effects();
    uint64_t id = request_open(b, "y", LK_CREATE);
    cr_expect(eq(ptr, (void *)reply(b, id), NULL));
    request_segment(b, LKI_REQUEST_NUDGE, at_b.segment);
    request_ask(b, at_b.segment, 0, at_a.attachment);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_CHECK_PROCESS), 1));
}

Test(adoption, a_second_hello_after_the_resume_is_the_first_one_again)
{
    uint64_t a = connect_peer(&(struct lkd_peer){.pid = 1, .uid = 1000, .process = 1});
    struct lki_message hello = {
        .id = ++world.last_id,
        .type = LKI_REQUEST_HELLO,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR, .layout_major = LKI_LAYOUT_MAJOR},
    };
    send_again(a, &hello);
    crash();
    take_over();
    resume(a);
    send_again(a, &hello);
    cr_expect(not(was_disconnected(a)));
    opened(a, "x", LK_CREATE);
}

Test(adoption, a_grow_that_had_its_effect_is_answered_with_the_size_of_now)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.size_bytes = 4096;
    create.as.open.size_max_bytes = 16384;
    uint64_t made_by = send_message(a, create);
    uint32_t segment = reply(a, made_by)->effect.message.as.opened.segment;
    opened(b, "x", 0);
    uint64_t id = request_grow(a, segment, 8192);
    request_grow(b, segment, 12288);
    crash();
    take_over();
    forget_effects();
    resume(a);
    send_again(
        a, &(struct lki_message){.id = id, .type = LKI_REQUEST_GROW, .as.grow = {segment, 8192}});
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u64, reply(a, id)->effect.message.as.result.value, 12288));
    EXPECT_STATUS(a, request_grow(a, segment, 8192), LKI_STATUS_INVALID);
}

/* Rows: what stands in the area in place of the second of three names. */
Test(adoption, names_of_locks_come_back_unless_somebody_wrote_over_them)
{
    static const struct {
        const char *row;
        uint32_t bytes;
        const char *name;
        enum lki_status status; /* of asking for the third */
        uint32_t lock;          /* that answers to "c" */
    } rows[] = {
        {"as it was", 1, "b", LKI_STATUS_OK, 3},
        {"the first one again", 1, "a", LKI_STATUS_OK, 3},
        {"no name", 2, "\x01/", LKI_STATUS_OK, 3},
        {"too long", 100000, "b", LKI_STATUS_OK, 2},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t a = connect_as(1000, 1);
        struct lki_opened at = opened(a, "x", LK_CREATE);
        struct native client;
        native_init(&client, a, &at);
        for (const char *name = "a\0b\0c\0"; *name; name += 2)
            EXPECT_STATUS(a, request_lock_named(a, at.segment, name), LKI_STATUS_OK);
        struct lki_lock_cold *cold = &client.area.cold[2];
        memcpy(cold->name, rows[i].name, strlen(rows[i].name));
        atomic_store(&cold->name_bytes, rows[i].bytes);
        crash();
        take_over();
        resume(a);
        uint64_t id = request_lock_named(a, at.segment, "c");
        cr_expect(eq(int, status_of(a, id), rows[i].status), "%s", rows[i].row);
        cr_expect(eq(u64, reply(a, id)->effect.message.as.result.value, rows[i].lock), "%s",
                  rows[i].row);
        world_teardown();
        world_setup();
    }
}

Test(adoption, the_last_entry_may_have_a_name_too)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_message create = open_message("x", LK_CREATE);
    create.as.open.locks = 2;
    uint64_t id = send_message(a, create);
    uint32_t segment = reply(a, id)->effect.message.as.opened.segment;
    EXPECT_STATUS(a, request_lock_named(a, segment, "a"), LKI_STATUS_OK);
    crash();
    take_over();
    resume(a);
    EXPECT_STATUS(a, request_lock_named(a, segment, "b"), LKI_STATUS_NO_SPACE);
}

/* --- No memory --- */

/* As take_over(), and stops at the first thing that fails. */
static int try_to_take_over(void)
{
    struct lkd_left_segment segment;
    struct lkd_left_session session;
    int r = lkd_core_new(&world.config, &world.core);
    if (r < 0)
        return r;
    lkd_core_blame(world.core, false);
    for (uint32_t cursor = 0; r == 0 && lkd_core_next_left_segment(world.core, &cursor, &segment);)
        r = lkd_core_adopt_segment(world.core, &segment, world.areas[segment.number]);
    for (uint32_t cursor = 0;
         r == 0 && lkd_core_next_left_session(world.core, &cursor, &session);) {
        const uint32_t group = 77;
        const struct lkd_peer peer = {
            .process = (uint64_t)session.pid, .groups = &group, .group_count = session.pid == 2};
        uint64_t number;
        r = lkd_core_adopt_session(world.core, &session, &peer, &number);
    }
    return r < 0 ? r : lkd_core_adopt(world.core, world.now_ns);
}

Test(adoption, a_successor_without_memory_leaves_everything_to_the_next)
{
    uint64_t a = connect_as(1000, 1), b = connect_member(1001, 2, 77);
    struct lki_opened strict = opened(a, "x", LK_CREATE | LK_STRICT);
    struct lki_opened native = opened(a, "y", LK_CREATE);
    struct lki_message other = open_message("z", LK_CREATE);
    EXPECT_STATUS(b, send_message(b, other), LKI_STATUS_OK);
    EXPECT_STATUS(a, request_lock_named(a, native.segment, "named"), LKI_STATUS_OK);
    uint64_t held = request_acquire(a, strict.segment, 1, X, LKI_TIME_NEVER);
    EXPECT_STATUS(a, held, LKI_STATUS_OK);
    uint64_t aside = request_async(a, native.segment, 3, X, LKI_TIME_NEVER);
    EXPECT_STATUS(a, aside, LKI_STATUS_OK);
    crash();
    forget_effects();

    /* Where memory sufficed for all but an answer, that worker has ended the session for it. */
    void *ledger = malloc(world.ledger_bytes);
    cr_assert(ne(ptr, ledger, NULL));
    memcpy(ledger, world.ledger, world.ledger_bytes);
    uint32_t failed = 0;
    for (unsigned seed = 1; seed <= 3000; seed++) {
        world.seed = seed;
        world.fail_one_in = 4 + seed % 24;
        world.in_core = true;
        int r = try_to_take_over();
        world.fail_one_in = 0;
        failed += r < 0;
        cr_assert(r == 0 || r == -ENOMEM, "seed %u: %d", seed, r);
        crash(); /* and the worker ends */
        if (r == 0)
            memcpy(world.ledger, ledger, world.ledger_bytes);
    }
    free(ledger);
    cr_expect(lt(u32, 2000, failed));

    take_over();
    resume(a);
    send_again(a, &(struct lki_message){.id = held,
                                        .type = LKI_REQUEST_ACQUIRE,
                                        .as.acquire = {.segment = strict.segment,
                                                       .lock = 1,
                                                       .mode = X,
                                                       .deadline_ns = LKI_TIME_NEVER}});
    EXPECT_STATUS(a, held, LKI_STATUS_OK);
    resume(b);
    EXPECT_STATUS(b, request_open(b, "z", 0), LKI_STATUS_OK);
    uint64_t again = request_acquire(a, strict.segment, 1, X, 0);
    EXPECT_STATUS(a, again, LKI_STATUS_DEADLOCK);
    cr_expect(
        eq(u64,
           reply(a, request_lock_named(a, native.segment, "named"))->effect.message.as.result.value,
           1));
}

Test(adoption, a_release_that_is_repeated_leaves_a_later_hold_alone)
{
    uint64_t a = connect_as(1000, 1);
    struct lki_opened at = opened(a, "x", LK_CREATE | LK_STRICT);
    uint64_t first = request_acquire(a, at.segment, 0, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    uint32_t attachment = reply(a, first)->effect.message.as.granted.attachment;
    uint64_t id = request_hold(a, LKI_REQUEST_RELEASE, at.segment, 0, attachment);
    uint64_t second =
        request_acquire(a, at.segment, 0, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER); /* sent behind it */
    EXPECT_STATUS(a, second, LKI_STATUS_OK);
    forget_effects();
    crash();
    take_over();
    resume(a);
    send_again(a, &(struct lki_message){.id = id,
                                        .type = LKI_REQUEST_RELEASE,
                                        .as.hold_ref = {at.segment, 0, attachment, 0, 0}});
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    uint64_t holder = request_holder(a, at.segment, 0);
    cr_expect(eq(i32, reply(a, holder)->effect.message.as.holder_is.pid, 1));
}

/* A client that was told TIMED_OUT would not know of what the repeated request, on its way already,
 * may get. */
Test(adoption, a_wait_is_not_answered_before_its_request_came_again)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE | LK_STRICT), at_b = opened(b, "x", 0);
    uint64_t held = request_acquire(a, at_a.segment, 0, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    EXPECT_STATUS(a, held, LKI_STATUS_OK);
    uint64_t deadline_ns = world.now_ns + LKI_NS_PER_MS;
    uint64_t id = request_acquire(b, at_b.segment, 0, LKI_MODE_EXCLUSIVE, deadline_ns);
    crash();
    take_over();
    resume(a);
    resume(b);
    pass(2 * LKI_NS_PER_MS);
    cr_expect(eq(ptr, (void *)reply(b, id), NULL));
    send_again(b, &(struct lki_message){.id = id,
                                        .type = LKI_REQUEST_ACQUIRE,
                                        .as.acquire = {.segment = at_b.segment,
                                                       .mode = LKI_MODE_EXCLUSIVE,
                                                       .deadline_ns = deadline_ns}});
    EXPECT_STATUS(b, id, LKI_STATUS_TIMED_OUT);
}

Test(adoption, what_comes_twice_after_the_resume_is_heard_once)
{
    uint64_t a = connect_as(1000, 1);
    uint64_t id = request_list(a, LKI_LIST_BROKER, "", 0);
    const struct lki_message message = {
        .id = id, .type = LKI_REQUEST_LIST, .as.list = {.what = LKI_LIST_BROKER}};
    forget_effects();
    crash();
    take_over();
    resume(a);
    send_again(a, &message);
    send_again(a, &message); /* it was told twice to repeat */
    cr_expect(ne(ptr, (void *)reply(a, id), NULL));
    cr_expect(not(was_disconnected(a)));
}

/* As above, and the client is at its repeating: an earlier request of it has come again already. */
Test(adoption, a_wait_is_not_answered_while_earlier_requests_come_again)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE | LK_STRICT), at_b = opened(b, "x", 0);
    EXPECT_STATUS(a, request_acquire(a, at_a.segment, 0, X, LKI_TIME_NEVER), LKI_STATUS_OK);
    uint64_t list = request_list(b, LKI_LIST_BROKER, "", 0);
    uint64_t deadline_ns = world.now_ns + LKI_NS_PER_MS;
    uint64_t id = request_acquire(b, at_b.segment, 0, X, deadline_ns);
    forget_effects();
    crash();
    take_over();
    resume(a);
    resume(b);
    send_again(b, &(struct lki_message){
                      .id = list, .type = LKI_REQUEST_LIST, .as.list = {.what = LKI_LIST_BROKER}});
    pass(2 * LKI_NS_PER_MS);
    cr_expect(eq(ptr, (void *)reply(b, id), NULL));
    send_again(b,
               &(struct lki_message){
                   .id = id,
                   .type = LKI_REQUEST_ACQUIRE,
                   .as.acquire = {.segment = at_b.segment, .mode = X, .deadline_ns = deadline_ns}});
    EXPECT_STATUS(b, id, LKI_STATUS_TIMED_OUT);
}

static void say_goodbye(void *user)
{
    request_goodbye(*(const uint64_t *)user);
    work();
}

/* Else the client waits for an answer that nobody owes it any more. */
Test(adoption, a_goodbye_is_answered_or_heard_again_wherever_the_worker_dies)
{
    uint32_t repeated = 0;
    for (uint64_t step = 1;; step++) {
        uint64_t a = connect_as(1000, 1);
        opened(a, "x", LK_CREATE);
        world.dies_at = world.steps + step;
        bool survived = survives(say_goodbye, &a);
        world.dies_at = 0;
        if (survived)
            break;
        uint64_t goodbye = world.last_id;
        take_over();
        if (reply(a, goodbye))
            continue;
        cr_assert(eq(u64, resumed_count(a), 1), "step %u", (unsigned)step);
        resume(a);
        send_again(a, &(struct lki_message){.id = goodbye, .type = LKI_REQUEST_GOODBYE});
        work();
        EXPECT_STATUS(a, goodbye, LKI_STATUS_OK);
        cr_expect(was_disconnected(a));
        repeated++;
    }
    cr_expect(gt(u32, repeated, 10));
}

/* With a segment that its user has left: its account has to be made anew. */
Test(adoption, a_successor_ends_at_whichever_allocation_fails)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1001, 2);
    struct lki_opened at = opened(a, "x", LK_CREATE | LK_STRICT);
    EXPECT_STATUS(a, request_lock_named(a, at.segment, "named"), LKI_STATUS_OK);
    EXPECT_STATUS(a, request_async(a, at.segment, 3, X, LKI_TIME_NEVER), LKI_STATUS_OK);
    opened(b, "kept", LK_CREATE | LK_KEEP);
    request_goodbye(b);
    work();
    crash();
    void *ledger = malloc(world.ledger_bytes);
    cr_assert(ne(ptr, ledger, NULL));
    memcpy(ledger, world.ledger, world.ledger_bytes);
    uint32_t at_allocation = 0, failed = 0;
    do {
        cr_assert(lt(u32, at_allocation, 200));
        world.fails_at = ++at_allocation;
        world.in_core = true;
        int r = try_to_take_over();
        cr_assert(r == 0 || r == -ENOMEM, "%d", r);
        failed += r < 0;
        crash();
        memcpy(world.ledger, ledger, world.ledger_bytes);
    } while (world.fails_at == 0);
    world.fails_at = 0;
    free(ledger);
    cr_expect(lt(u32, 10, failed));
    take_over();
    resume(a);
    opened(connect_as(1001, 3), "kept", 0);
}

/* The worker died in an unlock, between clearing PARKED and its look for waiters. */
Test(adoption, an_unlock_that_is_begun_anew_keeps_the_turn_of_a_native_waiter)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    struct lki_opened at_a = opened(a, "x", LK_CREATE), at_b = opened(b, "x", 0);
    uint64_t held = request_async(a, at_a.segment, 0, X, LKI_TIME_NEVER);
    uint32_t attachment = reply(a, held)->effect.message.as.granted.attachment;
    struct native waiter;
    native_init(&waiter, b, &at_b);
    native_wait(&waiter, 0, X);
    pass(LKI_NS_PER_S);
    cr_assert(eq(int, native_step(&waiter), LKI_SLEEP), "and is impatient now");
    _Atomic uint32_t *word = &waiter.area.hot[0].word;
    atomic_fetch_and(word, ~LKI_PARKED);
    crash();
    take_over();
    resume(a);
    uint64_t id = request_hold(a, LKI_REQUEST_RELEASE, at_a.segment, 0, attachment);
    EXPECT_STATUS(a, id, LKI_STATUS_OK);
    cr_expect(eq(u32, atomic_load(word), LKI_FAIR | LKI_PARKED), "nobody passes it");
    cr_expect(eq(int, native_step(&waiter), LKI_TAKEN));
}
