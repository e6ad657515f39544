/* SPDX-License-Identifier: MIT */
/* Rings of waiting sessions over several segments: who is refused, what it is told, and what is no
 * deadlock. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "engine/step.h"

#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define NEVER LKI_TIME_NEVER
#define LOCK 3u
#define MEMBERS 16

/* Session i is attached to the segments i and i + 1, where native[i][0] and [1] are its places. */
static uint64_t sessions[MEMBERS];
static struct lki_opened places[MEMBERS][2];
static struct native natives[MEMBERS][2];

static void attach_ring(unsigned members, uint32_t flags)
{
    world_setup();
    for (unsigned i = 0; i < members; i++)
        sessions[i] = connect_as(1000, i + 1);
    for (unsigned i = 0; i < members; i++)
        for (unsigned side = 0; side < 2; side++) {
            char name[16];
            snprintf(name, sizeof(name), "s%u", (i + side) % members);
            places[i][side] = opened(sessions[i], name, LK_CREATE | flags);
            native_init(&natives[i][side], sessions[i], &places[i][side]);
        }
}

static uint32_t segment(unsigned i, unsigned side)
{
    return places[i][side].segment;
}

static uint64_t request_check(uint64_t session, uint32_t number, uint32_t lock)
{
    return send_message(session, (struct lki_message){.type = LKI_REQUEST_DEADLOCK_CHECK,
                                                      .as.lock_ref = {number, lock}});
}

static enum lki_status check(unsigned i, unsigned side)
{
    uint64_t id = request_check(sessions[i], segment(i, side), LOCK);
    return status_of(sessions[i], id);
}

static bool is_answered(uint64_t session, uint64_t id)
{
    return reply(session, id) != NULL;
}

static void expect_granted(uint64_t session, uint64_t id)
{
    cr_assert(is_answered(session, id), "not granted");
    cr_expect(eq(int, reply(session, id)->effect.message.type, LKI_REPLY_GRANTED), "%s",
              detail_of(session, id));
}

TestSuite(deadlock, .fini = world_teardown, .timeout = 60);

Test(deadlock, native_ring_has_one_victim_the_one_that_closed_it)
{
    for (unsigned members = 2; members <= MEMBERS; members++) {
        attach_ring(members, 0);
        for (unsigned i = 0; i < members; i++)
            cr_assert(eq(int, native_try(&natives[i][0], LOCK, X), LKI_TAKEN));
        for (unsigned i = 0; i < members; i++) {
            native_wait(&natives[i][1], LOCK, i % 2 ? S : X);
            bool closes = i == members - 1;
            cr_assert(eq(int, check(i, 1), closes ? LKI_STATUS_DEADLOCK : LKI_STATUS_OK));
        }
        /* From here on nobody else is told the same, though the victim has not given up yet. */
        for (unsigned i = 0; i < members - 1; i++)
            cr_assert(eq(int, check(i, 1), LKI_STATUS_OK));
        lki_wait_give_up(&natives[members - 1][1].wait);
        native_release(&natives[members - 1][0], LOCK);
        for (unsigned i = members - 1; i-- > 0;) {
            enum lki_verdict verdict = native_step(&natives[i][1]);
            cr_assert(eq(int, verdict, LKI_TAKEN));
            native_release(&natives[i][1], LOCK);
            native_release(&natives[i][0], LOCK);
        }
        world_teardown();
    }
    world_setup();
}

Test(deadlock, victim_that_asks_again_is_told_again)
{
    attach_ring(2, 0);
    for (unsigned i = 0; i < 2; i++)
        native_try(&natives[i][0], LOCK, X);
    for (unsigned i = 0; i < 2; i++)
        native_wait(&natives[i][1], LOCK, X);
    cr_expect(eq(int, check(1, 1), LKI_STATUS_DEADLOCK));
    cr_expect(eq(int, check(0, 1), LKI_STATUS_OK));
    cr_expect(eq(int, check(1, 1), LKI_STATUS_DEADLOCK), "its answer may have been lost");
}

Test(deadlock, report_tells_the_whole_ring)
{
    attach_ring(3, 0);
    uint64_t named = request_lock_named(sessions[0], segment(0, 0), "ledger");
    EXPECT_STATUS(sessions[0], named, LKI_STATUS_OK);
    uint32_t ledger = (uint32_t)reply(sessions[0], named)->effect.message.as.result.value;
    native_try(&natives[0][0], ledger, X);
    native_try(&natives[1][0], 0, X);
    native_try(&natives[2][0], LOCK, X);
    native_wait(&natives[2][1], ledger, X);
    native_wait(&natives[1][1], LOCK, X);
    native_wait(&natives[0][1], 0, X);
    uint64_t id = request_check(sessions[0], segment(0, 1), 0);
    EXPECT_STATUS(sessions[0], id, LKI_STATUS_DEADLOCK);
    cr_expect(eq(str, (char *)detail_of(sessions[0], id),
                 "cannot lock 's1': the wait would never end, 3 sessions in a ring: this session "
                 "waits for 's1', held by pid 2 (worker), which waits for 's2#3', held by pid 3 "
                 "(worker), which waits for 's0#ledger', held by this session; release what you "
                 "hold, and try again"));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 4), "the ring, and each of its edges");
    cr_expect(eq(str, (char *)last_effect(LKD_EFFECT_LOG)->detail,
                 "deadlock: pid 3 (worker, uid 1000) waits for '~1000/s0#ledger', held by pid 1 "
                 "(worker)"));
}

Test(deadlock, report_hides_what_its_reader_may_not_see)
{
    attach_ring(3, 0);
    /* Two of another user meet in a segment of their own. */
    uint64_t eve = connect_as(1001, 31), mallory = connect_as(1001, 32);
    struct lki_opened secret_eve = opened(eve, "secret", LK_CREATE);
    struct lki_opened secret_mallory = opened(mallory, "secret", 0);
    struct lki_message open = open_message("meeting", LK_CREATE);
    open.as.open.mode = 0666;
    send_message(sessions[0], open);
    struct lki_opened meet = opened(sessions[0], "meeting", 0);
    struct lki_opened meet_eve = opened(eve, "~1000/meeting", 0);
    struct lki_opened meet_mallory = opened(mallory, "~1000/meeting", 0);
    static struct native own, eve_meets, mallory_meets, eve_hides, mallory_hides;
    native_init(&own, sessions[0], &meet);
    native_init(&eve_meets, eve, &meet_eve);
    native_init(&mallory_meets, mallory, &meet_mallory);
    native_init(&eve_hides, eve, &secret_eve);
    native_init(&mallory_hides, mallory, &secret_mallory);

    native_try(&own, 1, X);
    native_try(&eve_meets, 2, X);
    native_try(&mallory_hides, 0, X);
    native_wait(&eve_hides, 0, X);
    native_wait(&mallory_meets, 1, X);
    native_wait(&own, 2, X);
    uint64_t id = request_check(sessions[0], meet.segment, 2);
    EXPECT_STATUS(sessions[0], id, LKI_STATUS_DEADLOCK);
    const char *detail = detail_of(sessions[0], id);
    cr_expect(eq(ptr, (void *)strstr(detail, "secret"), NULL), "%s", detail);
    cr_expect(ne(ptr, (void *)strstr(detail, "a lock that you may not see, held by pid 32"), NULL),
              "%s", detail);
}

Test(deadlock, strict_ring_refuses_the_last_acquire_and_no_other)
{
    for (unsigned members = 2; members <= MEMBERS; members++) {
        uint64_t waits[MEMBERS];
        attach_ring(members, LK_STRICT);
        for (unsigned i = 0; i < members; i++)
            expect_granted(sessions[i], request_acquire(sessions[i], segment(i, 0), LOCK, X, 0));
        for (unsigned i = 0; i < members; i++)
            waits[i] = request_acquire(sessions[i], segment(i, 1), LOCK, i % 2 ? S : X, NEVER);
        for (unsigned i = 0; i < members - 1; i++)
            cr_assert(not(is_answered(sessions[i], waits[i])));
        unsigned victim = members - 1;
        EXPECT_STATUS(sessions[victim], waits[victim], LKI_STATUS_DEADLOCK);
        pass(600 * LKI_NS_PER_MS);
        for (unsigned i = 0; i < members - 1; i++)
            cr_assert(not(is_answered(sessions[i], waits[i])));
        request_hold(sessions[victim], LKI_REQUEST_RELEASE, segment(victim, 0), LOCK,
                     places[victim][0].attachment);
        expect_granted(sessions[victim - 1], waits[victim - 1]);
        world_teardown();
    }
    world_setup();
}

Test(deadlock, native_and_brokered_waits_make_one_ring)
{
    attach_ring(3, 0);
    for (unsigned i = 0; i < 3; i++)
        native_try(&natives[i][0], LOCK, X);
    uint64_t first = request_async(sessions[0], segment(0, 1), LOCK, X, NEVER);
    native_wait(&natives[1][1], LOCK, X);
    cr_expect(eq(int, check(1, 1), LKI_STATUS_OK));
    uint64_t last = request_async(sessions[2], segment(2, 1), LOCK, S, NEVER);
    EXPECT_STATUS(sessions[2], last, LKI_STATUS_DEADLOCK);
    cr_expect(not(is_answered(sessions[0], first)));
    native_release(&natives[2][0], LOCK);
    cr_expect(eq(int, native_step(&natives[1][1]), LKI_TAKEN));
}

Test(deadlock, drain_closes_a_ring_with_its_reader)
{
    attach_ring(2, 0);
    cr_assert(eq(int, native_try(&natives[0][0], LOCK, S), LKI_TAKEN));
    /* Session 1 takes the word of the same lock, and waits for the reader. */
    native_wait(&natives[1][1], LOCK, X);
    cr_assert(eq(int, natives[1][1].wait.phase, LKI_WAIT_PHASE_DRAINING));
    cr_expect(eq(int, check(1, 1), LKI_STATUS_OK), "the reader waits for nobody yet");
    cr_assert(eq(int, native_try(&natives[1][0], LOCK, X), LKI_TAKEN));
    native_wait(&natives[0][1], LOCK, X);
    cr_expect(eq(int, check(0, 1), LKI_STATUS_DEADLOCK));
    cr_expect(eq(int, check(1, 1), LKI_STATUS_OK));
}

Test(deadlock, drain_that_begins_last_is_refused_and_readers_go_on)
{
    attach_ring(2, LK_STRICT);
    expect_granted(sessions[0], request_acquire(sessions[0], segment(0, 0), LOCK, S, 0));
    expect_granted(sessions[1], request_acquire(sessions[1], segment(1, 0), LOCK, X, 0));
    uint64_t wait = request_acquire(sessions[0], segment(0, 1), LOCK, X, NEVER);
    uint64_t drain = request_acquire(sessions[1], segment(1, 1), LOCK, X, NEVER);
    EXPECT_STATUS(sessions[1], drain, LKI_STATUS_DEADLOCK);
    cr_expect(ne(ptr, (void *)strstr(detail_of(sessions[1], drain), "held shared by pid 1"), NULL),
              "%s", detail_of(sessions[1], drain));
    cr_expect(not(is_answered(sessions[0], wait)));
}

Test(deadlock, acquire_beside_an_asynchronous_wait_can_close_a_ring)
{
    attach_ring(2, 0);
    native_try(&natives[1][0], LOCK, X);
    uint64_t wait = request_async(sessions[0], segment(0, 1), LOCK, X, NEVER);
    /* Session 1 waits for what session 0 takes only now, before it. */
    uint64_t third = connect_as(1000, 99);
    struct lki_opened place = opened(third, "s0", 0);
    static struct native other;
    native_init(&other, third, &place);
    native_try(&other, LOCK, X);
    native_wait(&natives[1][1], LOCK, X);
    cr_expect(eq(int, check(1, 1), LKI_STATUS_OK));
    native_release(&other, LOCK);
    cr_assert(eq(int, native_try(&natives[0][0], LOCK, X), LKI_TAKEN));
    cr_expect(not(is_answered(sessions[0], wait)));
    EXPECT_STATUS(sessions[0], request_check(sessions[0], segment(0, 0), LOCK), LKI_STATUS_OK);
    EXPECT_STATUS(sessions[0], wait, LKI_STATUS_DEADLOCK);
}

Test(deadlock, ring_that_nobody_asked_about_is_found_with_a_long_nap)
{
    attach_ring(2, 0);
    native_try(&natives[1][0], LOCK, X);
    uint64_t wait = request_async(sessions[0], segment(0, 1), LOCK, X, NEVER);
    native_try(&natives[0][0], LOCK, X);
    native_wait(&natives[1][1], LOCK, X); /* and does not ask */
    cr_expect(not(is_answered(sessions[0], wait)));
    pass(600 * LKI_NS_PER_MS);
    EXPECT_STATUS(sessions[0], wait, LKI_STATUS_DEADLOCK);
}

Test(deadlock, waiting_behind_somebody_in_the_queue_is_no_edge)
{
    attach_ring(3, 0);
    uint64_t third = connect_as(1000, 99);
    struct lki_opened place = opened(third, "s1", 0);
    static struct native owner;
    native_init(&owner, third, &place);
    native_try(&owner, LOCK, X);
    native_try(&natives[0][0], LOCK, X);
    native_wait(&natives[1][0], LOCK, X);
    native_wait(&natives[0][1], LOCK, X); /* behind session 1 */
    cr_expect(eq(int, check(0, 1), LKI_STATUS_OK));
    cr_expect(eq(int, check(1, 0), LKI_STATUS_OK));
}

Test(deadlock, owner_for_update_is_in_no_readers_way)
{
    static const enum lki_mode modes[] = {S, LKI_MODE_UPDATE};
    for (unsigned i = 0; i < 2; i++) {
        attach_ring(2, 0);
        native_try(&natives[0][0], LOCK, X);
        native_try(&natives[1][0], LOCK, X);
        native_wait(&natives[0][1], LOCK, X);
        native_wait(&natives[1][1], LOCK,
                    modes[i]); /* asleep, until it is woken by the downgrade */
        cr_assert(eq(int, (int)lki_lock_downgrade(&natives[0][0].party, LOCK, LKI_MODE_UPDATE),
                     LKI_TAKEN));
        cr_expect(eq(int, check(1, 1), modes[i] == S ? LKI_STATUS_OK : LKI_STATUS_DEADLOCK));
        world_teardown();
    }
    world_setup();
}

Test(deadlock, owner_whose_process_has_ended_is_in_nobodys_way)
{
    attach_ring(2, 0);
    for (unsigned i = 0; i < 2; i++)
        native_try(&natives[i][0], LOCK, X);
    native_wait(&natives[0][1], LOCK, X);
    native_wait(&natives[1][1], LOCK, X);
    lkd_core_process_ended(world.core, 1, world.now_ns);
    cr_expect(eq(int, check(1, 1), LKI_STATUS_OK));
    work();
    cr_expect(eq(int, native_step(&natives[1][1]), LKI_TAKEN_DIED));
}

Test(deadlock, scribbled_waits_are_survived)
{
    attach_ring(2, 0);
    native_try(&natives[0][0], LOCK, X);
    native_try(&natives[1][0], LOCK, X);
    for (unsigned bit = 0; bit < 64; bit++) {
        atomic_store(&natives[0][0].party.self->wait, UINT64_C(1) << bit | UINT64_C(3) << 62);
        atomic_store(&natives[0][1].party.self->wait, UINT64_MAX >> bit);
        native_wait(&natives[1][1], LOCK, X);
        check(1, 1);
        EXPECT_STATUS(sessions[1], request_check(sessions[1], segment(1, 1), UINT32_MAX),
                      LKI_STATUS_OK);
        lki_wait_give_up(&natives[1][1].wait);
    }
}

Test(deadlock, log_is_not_filled_by_who_makes_deadlocks)
{
    attach_ring(2, 0);
    for (unsigned i = 0; i < 2; i++)
        native_try(&natives[i][0], LOCK, X);
    for (unsigned i = 0; i < 2; i++)
        native_wait(&natives[i][1], LOCK, X);
    for (unsigned i = 0; i < 100; i++)
        cr_assert(eq(int, check(1, 1), LKI_STATUS_DEADLOCK));
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 16 * 3));
    pass(LKI_NS_PER_S);
    check(1, 1);
    cr_expect(eq(sz, count_effects(LKD_EFFECT_LOG), 17 * 3));
}

Test(deadlock, check_of_a_segment_that_is_not_open_is_stale)
{
    attach_ring(2, 0);
    EXPECT_STATUS(sessions[0], request_check(sessions[0], 999, LOCK), LKI_STATUS_STALE);
}

Test(deadlock, graph_lists_who_waits_for_whom_and_no_idle_lock)
{
    attach_ring(2, 0);
    native_try(&natives[0][0], LOCK, X);
    native_try(&natives[0][0], 5, X);
    native_try(&natives[0][0], 6, S);
    native_wait(&natives[1][1], LOCK, X);
    const struct recorded *page =
        reply(sessions[0], request_list(sessions[0], LKI_LIST_GRAPH, "", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 2));
    cr_expect(eq(u64, page->entries[0].session, sessions[0]));
    cr_expect(eq(u32, page->entries[0].state, LKI_ENTRY_HELD));
    cr_expect(eq(u64, page->entries[1].session, sessions[1]));
    cr_expect(eq(u32, page->entries[1].state, LKI_ENTRY_WAITING));
    cr_expect(eq(u32, page->entries[1].segment, segment(0, 0)));
    cr_expect(eq(str, page->strings[1][0], "s0"));
}

Test(deadlock, graph_shows_a_drain_with_its_readers)
{
    attach_ring(2, 0);
    native_try(&natives[0][0], LOCK, S);
    native_wait(&natives[1][1], LOCK, X);
    const struct recorded *page =
        reply(sessions[0], request_list(sessions[0], LKI_LIST_GRAPH, "", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 2));
    cr_expect(eq(u32, page->entries[0].state, LKI_ENTRY_DRAINING));
    cr_expect(eq(u64, page->entries[0].session, sessions[1]));
    cr_expect(eq(u32, page->entries[1].mode, S));
    cr_expect(eq(u64, page->entries[1].session, sessions[0]));
}

Test(deadlock, graph_of_a_stranger_has_numbers_and_nothing_else)
{
    attach_ring(2, 0);
    native_try(&natives[0][0], LOCK, X);
    native_wait(&natives[1][1], LOCK, X);
    uint64_t stranger = connect_as(1001, 55);
    const struct recorded *page = reply(stranger, request_list(stranger, LKI_LIST_GRAPH, "", 0));
    cr_assert(eq(sz, page->effect.message.as.list_page.count, 2));
    for (size_t i = 0; i < 2; i++) {
        const struct lki_list_entry *entry = &page->entries[i];
        cr_expect(eq(u64, entry->session, sessions[i]));
        cr_expect(eq(str, page->strings[i][0], ""));
        cr_expect(eq(str, page->strings[i][2], ""));
        cr_expect(eq(int, entry->pid, 0));
        cr_expect(eq(u32, entry->uid, 0));
        cr_expect(eq(u64, entry->token, 0));
    }
}

/* --- Words --- */

Test(deadlock, session_that_waits_for_its_own_other_place_is_a_ring_of_one)
{
    attach_ring(2, 0);
    uint64_t monitor = connect_as(1000, 77);
    request_monitor(monitor, "");
    expect_granted(sessions[0], request_async(sessions[0], segment(0, 0), 5, X, NEVER));
    native_wait(&natives[0][0], 5, X);
    uint64_t id = request_check(sessions[0], segment(0, 0), 5);
    EXPECT_STATUS(sessions[0], id, LKI_STATUS_DEADLOCK);
    cr_expect(eq(str, (char *)detail_of(sessions[0], id),
                 "cannot lock 's0#5': the wait would never end, 1 session in a ring: this session "
                 "waits for 's0#5', held by this session; release what you hold, and try again"));
    const struct recorded *event, *last = NULL;
    for (size_t position = 0; (event = next_event(monitor, &position));)
        last = event;
    cr_expect(eq(str, (char *)last->detail,
                 "1 session in a ring: it waits for 's0#5', held by pid 1 (worker)"));
}

static void expect_words(unsigned name_bytes)
{
    char name[LKI_NAME_BYTES_MAX + 1] = {0};
    memset(name, 'n', name_bytes);
    attach_ring(MEMBERS, 0);
    for (unsigned i = 0; i < MEMBERS; i++) {
        EXPECT_STATUS(sessions[i], request_lock_named(sessions[i], segment(i, 0), name),
                      LKI_STATUS_OK);
        native_try(&natives[i][0], 1, X);
    }
    for (unsigned i = MEMBERS; i-- > 0;)
        native_wait(&natives[i][1], 1, X);
    uint64_t id = request_check(sessions[0], segment(0, 1), 1);
    EXPECT_STATUS(sessions[0], id, LKI_STATUS_DEADLOCK);
    const char *detail = detail_of(sessions[0], id);
    unsigned told = 0, more = 0;
    for (const char *at = detail; (at = strstr(at, "held by")); at++)
        told++;
    const char *rest = strstr(detail, ", and so on through ");
    cr_assert(ne(ptr, (void *)rest, NULL), "%s", detail);
    cr_assert(eq(int, sscanf(rest, ", and so on through %u more; release", &more), 1), "%s", rest);
    cr_expect(eq(uint, told + more, MEMBERS));
    cr_expect(ne(ptr, (void *)strstr(rest, " more; release what you hold, and try again"), NULL));
    for (unsigned i = 0; i < MEMBERS; i++) {
        char edge[sizeof(name) + 64];
        snprintf(edge, sizeof(edge), "s%u#%s', held by pid %u (worker)", i, name, i + 1);
        cr_expect(logged(edge), "the log has every edge in full: %s", edge);
    }
}

Test(deadlock, report_of_a_ring_with_long_names_ends_in_words)
{
    for (unsigned name_bytes = 100; name_bytes <= LKI_NAME_BYTES_MAX; name_bytes += 5) {
        expect_words(name_bytes);
        if (name_bytes < LKI_NAME_BYTES_MAX)
            world_teardown();
    }
}

Test(deadlock, report_names_nobody_between_two_locks_that_one_may_not_see)
{
    enum { OWN, EVE, MALLORY, TRENT, ALL };
    world_setup();
    uint64_t all[ALL];
    struct native meets[ALL], hides[ALL];
    for (unsigned i = OWN; i < ALL; i++) {
        all[i] = connect_as(i == OWN ? 1000 : 1001, 30 + i);
        struct lki_message open = open_message("~1000/meeting", i == OWN ? LK_CREATE : 0);
        open.as.open.mode = 0666;
        struct lki_opened at = reply(all[i], send_message(all[i], open))->effect.message.as.opened;
        native_init(&meets[i], all[i], &at);
        if (i == OWN)
            continue;
        at = opened(all[i], "secret", LK_CREATE);
        native_init(&hides[i], all[i], &at);
    }
    native_try(&meets[OWN], 1, X);
    native_try(&meets[EVE], 2, X);
    native_try(&hides[MALLORY], 5, X);
    native_try(&hides[TRENT], 6, X);
    native_wait(&hides[EVE], 5, X);
    native_wait(&hides[MALLORY], 6, X);
    native_wait(&meets[TRENT], 1, X);
    native_wait(&meets[OWN], 2, X);
    uint64_t id = request_check(all[OWN], meets[OWN].segment, 2);
    EXPECT_STATUS(all[OWN], id, LKI_STATUS_DEADLOCK);
    cr_expect(eq(str, (char *)detail_of(all[OWN], id),
                 "cannot lock 'meeting#2': the wait would never end, 4 sessions in a ring: this "
                 "session waits for 'meeting#2', held by pid 31 (worker), which waits for a lock "
                 "that you may not see, held by a session that you may not see, which waits for a "
                 "lock that you may not see, held by pid 33 (worker), which waits for 'meeting#1', "
                 "held by this session; release what you hold, and try again"));
}

/* --- Ends --- */

Test(deadlock, reader_whose_process_has_ended_is_in_no_drainers_way)
{
    attach_ring(2, 0);
    native_try(&natives[0][0], LOCK, X);
    native_try(&natives[1][0], LOCK, S);
    native_wait(&natives[1][1], LOCK, X);
    native_wait(&natives[0][1], LOCK, X); /* drains */
    lkd_core_process_ended(world.core, 2, world.now_ns);
    cr_expect(eq(int, check(0, 1), LKI_STATUS_OK));
    work();
    cr_expect(eq(int, native_step(&natives[0][1]), LKI_TAKEN));
}

Test(deadlock, wait_in_a_place_that_is_being_left_is_no_edge)
{
    attach_ring(3, 0);
    for (unsigned i = 0; i < 3; i++)
        native_try(&natives[i][0], LOCK, X);
    for (unsigned i = 1; i < 4; i++)
        native_wait(&natives[i % 3][1], LOCK, X);
    request_segment(sessions[1], LKI_REQUEST_DETACH, segment(1, 1));
    cr_expect(eq(int, check(0, 1), LKI_STATUS_OK));
}

#ifdef LKI_STEPS
/* A wait that its owner writes over between the two looks at it: at a lock that there is not. */
static struct lki_attachment *scribbled;
static unsigned looks_left;

static void scribble_between(const char *step)
{
    if (strcmp(step, "fact_look_wait") == 0 && looks_left > 0 && --looks_left == 0)
        atomic_store(&scribbled->wait, LKI_WAIT_QUEUED | LKI_WAIT_LOCK_MASK << LKI_WAIT_LOCK_SHIFT);
}

Test(deadlock, wait_that_changes_under_the_look_is_survived)
{
    attach_ring(2, 0);
    for (unsigned i = 0; i < 2; i++)
        native_try(&natives[i][0], LOCK, X);
    for (unsigned i = 0; i < 2; i++)
        native_wait(&natives[i][1], LOCK, X);
    scribbled = natives[0][1].party.self;
    uint64_t wait = atomic_load(&scribbled->wait);
    lki_step_hook = scribble_between;
    unsigned prevented = 0;
    for (unsigned looks = 1;; looks++) {
        cr_assert(lt(uint, looks, 1000));
        looks_left = looks;
        bool found = check(1, 1) == LKI_STATUS_DEADLOCK;
        prevented += !found;
        atomic_store(&scribbled->wait, wait);
        if (looks_left == 0)
            continue;
        looks_left = 0; /* the search has looked less often: nothing was changed under it */
        cr_expect(found);
        break;
    }
    cr_expect(lt(uint, 2, prevented), "what is not so at both looks is no ring");
}
#endif
