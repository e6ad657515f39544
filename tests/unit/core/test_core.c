/* SPDX-License-Identifier: MIT */
/* The core as a whole: what it does not begin with, what it says of itself, and its end. */
#include "world.h"

#include <errno.h>
#include <string.h>

#include "broker/core/session.h"
#include "common/cleanup.h"

TestSuite(core, .init = world_setup, .fini = world_teardown, .timeout = 60);

/* Another core; it has to refuse. */
static int begin_with(const struct lkd_core_config *config)
{
    struct lkd_core *core = NULL;
    int r = lkd_core_new(config, &core);
    cr_expect(eq(ptr, (void *)core, NULL), "written on success only");
    return r;
}

Test(core, does_not_begin_with_an_epoch_that_leaves_no_room_for_the_next)
{
    struct lkd_core_config config = world.config;
    config.token_epoch_s = LKD_TOKEN_EPOCH_S_MAX + 1;
    cr_expect(eq(int, begin_with(&config), -EINVAL));
}

Test(core, does_not_take_over_a_ledger_of_other_limits)
{
    static const enum lkd_resource resources[] = {LKD_SESSIONS, LKD_SEGMENTS, LKD_ATTACHMENTS};
    crash();
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(resources); i++) {
        struct lkd_core_config config = world.config;
        config.limits.max[resources[i]] = 100;
        cr_expect(eq(int, begin_with(&config), -EPROTO), "resource %d", resources[i]);
    }
    take_over();
}

Test(core, does_not_take_over_a_ledger_of_another_version)
{
    struct lkd_ledger_header *header = world.ledger;
    crash();
    uint32_t version = atomic_load(&header->version);
    atomic_store(&header->version, version + 1);
    cr_expect(eq(int, begin_with(&world.config), -EPROTO));
    atomic_store(&header->version, version);
    take_over();
}

Test(core, tells_the_highest_epoch_that_it_has_given)
{
    cr_expect(eq(u64, lkd_core_token_epoch_s(world.core), 0), "none yet");
    uint64_t a = connect_as(1000, 1);
    opened(a, "x", LK_CREATE);
    cr_expect(eq(u64, lkd_core_token_epoch_s(world.core), 1000));
    opened(a, "y", LK_CREATE);
    cr_expect(eq(u64, lkd_core_token_epoch_s(world.core), 1001));
    crash();
    take_over();
    cr_expect(eq(u64, lkd_core_token_epoch_s(world.core), 1001));
}

Test(core, frees_what_was_on_its_way_out)
{
    uint64_t a = connect_as(1000, 1), b = connect_as(1000, 2);
    opened(a, "x", LK_CREATE);
    request_monitor(b, "");
    const struct lki_message list = {
        .id = ++world.last_id, .type = LKI_REQUEST_LIST, .as.list = {.what = LKI_LIST_SEGMENTS}};
    world.in_core = true; /* no effect is carried out */
    lkd_core_message(world.core, a, &list, NULL, world.now_ns);
    lkd_core_session_lost(world.core, a, world.now_ns);
    lkd_core_process_ended(world.core, 1, world.now_ns);
    lkd_core_tick(world.core, world.now_ns, 1000);
    cr_assert(lt(sz, 0, world_count_memory()));
    world.core = lkd_core_free(world.core);
    world.in_core = false;
    cr_expect(eq(sz, world_count_memory(), 0));
}

Test(core, cuts_a_text_that_does_not_fit)
{
    char text[LKD_TEXT_BYTES_MAX + 100];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    uint64_t a = connect_as(1000, 1);
    world.in_core = true;
    lkd_refuse(world.core, lkd_session_find(world.core, a), 77, LKI_STATUS_INVALID, "%s", text);
    world.in_core = false;
    tick();
    EXPECT_STATUS(a, 77, LKI_STATUS_INVALID);
    cr_expect(eq(sz, strlen(detail_of(a, 77)), LKD_TEXT_BYTES_MAX - 1));
}
