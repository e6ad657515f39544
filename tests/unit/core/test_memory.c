/* SPDX-License-Identifier: MIT */
/* Memory runs out at every allocation of an event, one after the other: whoever asked is told or, when
 * there is no memory for that either, disconnected; nothing is left of the attempt; and the next one
 * succeeds. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define X LKI_MODE_EXCLUSIVE
#define NEVER LKI_TIME_NEVER
#define ALLOCATIONS_MAX 64u

TestSuite(memory, .fini = world_teardown, .timeout = 60);

static uint64_t a, b, watcher;
static struct lki_opened at_a, at_b;

static void arrange(void)
{
    world_setup();
    a = connect_as(1000, 1);
    b = connect_as(1000, 2);
    struct lki_message message = open_message("x", LK_CREATE);
    message.as.open.size_bytes = 4096;
    message.as.open.size_max_bytes = 1 << 20;
    at_a = reply(a, send_message(a, message))->effect.message.as.opened;
    at_b = opened(b, "x", 0);
    opened(b, "other", LK_CREATE);
    for (uint64_t i = 3; i <= 7; i++) /* the next slot of "x" takes more memory */
        opened(connect_as(1000, i), "x", 0);
    watcher = connect_as(0, 9);
    request_monitor(watcher, "");
}

static uint64_t create(void)
{
    return request_open(a, "new", LK_CREATE);
}

static uint64_t join(void)
{
    return request_open(a, "other", 0);
}

static uint64_t acquire_aside(void)
{
    return request_async(a, at_a.segment, 3, X, NEVER);
}

static uint64_t grow(void)
{
    return request_grow(a, at_a.segment, 8192);
}

static uint64_t name_lock(void)
{
    return request_lock_named(a, at_a.segment, "orders");
}

static uint64_t list(void)
{
    return request_list(a, LKI_LIST_LOCKS, "", 0);
}

static uint64_t detach(void)
{
    uint64_t id = request_segment(a, LKI_REQUEST_DETACH, at_a.segment);
    work();
    return id;
}

struct scenario {
    const char *name;
    uint64_t (*ask)(void);
};

static const struct scenario scenarios[] = {
    {"create", create}, {"join", join},
    {"grow", grow},     {"acquire aside", acquire_aside},
    {"list", list},     {"name a lock", name_lock},
    {"detach", detach},
};

static bool is_success(uint64_t id)
{
    if (!reply(a, id))
        return false;
    return reply(a, id)->effect.message.type == LKI_REPLY_LIST_PAGE ||
           status_of(a, id) == LKI_STATUS_OK || status_of(a, id) == LKI_STATUS_OWNER_DIED;
}

/* Returns whether memory ran out at all. */
static bool run_short(const struct scenario *scenario, uint32_t at)
{
    arrange();
    world.fails_at = at;
    uint64_t id = scenario->ask();
    bool ran_out = world.fails_at == 0;
    world.fails_at = 0;
    if (is_success(id)) /* what was missing was a line for the log, or an event */
        return ran_out;
    cr_assert(ran_out, "%s: %s", scenario->name, detail_of(a, id));
    if (reply(a, id)) {
        EXPECT_STATUS(a, id, LKI_STATUS_NO_MEMORY);
        cr_expect(not(was_disconnected(a)), "%s, allocation %u", scenario->name, at);
    } else {
        cr_expect(was_disconnected(a), "%s, allocation %u", scenario->name, at);
        end_process(1); /* what it was given and not told of */
        work();
        a = connect_as(1000, 1);
        at_a = opened(a, "x", 0);
    }
    id = scenario->ask();
    cr_expect(is_success(id), "%s after allocation %u: %s", scenario->name, at, detail_of(a, id));
    return true;
}

Test(memory, that_runs_out_is_told_to_who_asked_and_to_nobody_else)
{
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(scenarios); i++) {
        uint32_t at = 1;
        bool ran_out = true;
        for (; ran_out; at++) {
            cr_assert(lt(u32, at, ALLOCATIONS_MAX));
            ran_out = run_short(&scenarios[i], at);
            cr_expect(not(was_disconnected(b)));
            for (uint64_t process = 1; process <= 9; process++)
                end_process(process);
            work();
            cr_expect(eq(u32, count_records(), 0), "%s: something is left", scenarios[i].name);
            world.core = lkd_core_free(world.core);
            cr_expect(eq(sz, world_count_memory(), 0), "%s: memory is left", scenarios[i].name);
            if (ran_out)
                world_teardown();
        }
        cr_expect(lt(u32, 2, at), "%s allocates nothing", scenarios[i].name);
        if (i + 1 < LKI_ARRAY_LENGTH(scenarios))
            world_teardown();
    }
}

/* --- Connections --- */

static int connect_short(uint32_t uid, uint32_t at)
{
    const uint32_t groups[] = {5, 6};
    const struct lkd_peer peer = {
        .pid = 7, .uid = uid, .process = 7, .groups = groups, .group_count = 2};
    uint64_t session;
    world.in_core = true;
    world.fails_at = at;
    int r = lkd_core_session_opened(world.core, &peer, world.now_ns, &session);
    world.in_core = false;
    return r;
}

Test(memory, that_runs_out_for_a_connection_leaves_nothing)
{
    for (uint32_t at = 1;; at++) {
        cr_assert(lt(u32, at, ALLOCATIONS_MAX));
        world_setup();
        uint32_t before = count_records();
        int r = connect_short(1001, at);
        bool ran_out = world.fails_at == 0;
        world.fails_at = 0;
        lkd_core_check(world.core);
        cr_expect(eq(int, r, ran_out ? -ENOMEM : 0), "allocation %u", at);
        cr_expect(eq(u32, count_records() - before, ran_out ? 0 : 1));
        if (!ran_out)
            break;
        cr_expect(ne(u64, connect_as(1001, 7), 0));
        world_teardown();
    }
}

Test(memory, that_runs_out_while_a_silent_one_makes_room_ends_nobody)
{
    for (uint32_t at = 1;; at++) {
        cr_assert(lt(u32, at, ALLOCATIONS_MAX));
        world_setup_with(&(struct lkd_core_config){
            .broker_uid = 1000, .token_epoch_s = 1000, .limits.max[LKD_SESSIONS] = 1});
        uint64_t first = connect_as(1000, 1);
        int r = connect_short(1001, at); /* of a user without an account, and all are taken */
        bool ran_out = world.fails_at == 0;
        world.fails_at = 0;
        lkd_core_check(world.core);
        cr_expect(eq(int, r, ran_out ? -ENOMEM : -EDQUOT), "allocation %u", at);
        cr_expect(not(was_disconnected(first)));
        if (!ran_out)
            break;
        world_teardown();
    }
}

/* --- Leases --- */

Test(memory, that_runs_out_for_a_lease_starts_its_clock_later)
{
    for (uint32_t at = 1;; at++) {
        cr_assert(lt(u32, at, ALLOCATIONS_MAX));
        world_setup();
        a = connect_as(1000, 1);
        b = connect_as(1000, 2);
        struct lki_message message = open_message("x", LK_CREATE);
        message.as.open.lease_ns = LKI_NS_PER_S;
        at_a = reply(a, send_message(a, message))->effect.message.as.opened;
        at_b = opened(b, "x", 0);
        struct native holder, waiter;
        native_init(&holder, a, &at_a);
        native_init(&waiter, b, &at_b);
        cr_assert(eq(int, native_try(&holder, 3, X), LKI_TAKEN));
        native_wait(&waiter, 3, X);
        world.fails_at = at;
        request_complain(b, at_b.segment, 3, at_a.attachment, lki_lock_sequence(&holder.area, 3));
        bool ran_out = world.fails_at == 0;
        world.fails_at = 0;
        uint64_t expected = ran_out ? NEVER : world.now_ns + LKI_NS_PER_S;
        cr_expect(eq(u64, lkd_core_deadline_ns(world.core), expected), "allocation %u", at);
        if (!ran_out)
            break;
        request_complain(b, at_b.segment, 3, at_a.attachment, lki_lock_sequence(&holder.area, 3));
        cr_expect(eq(u64, lkd_core_deadline_ns(world.core), world.now_ns + LKI_NS_PER_S));
        world_teardown();
    }
}
