/* SPDX-License-Identifier: MIT */
#include "lease_fixture.h"

struct native holder, waiter;
uint64_t holder_session, waiter_session;
struct lki_opened last_opened;
uint64_t held, queued;

/* Opens "a" with this lease; the first one creates it. */
struct lki_opened open_leased(uint64_t session, uint32_t on_expiry, uint32_t flags)
{
    struct lki_message message = open_message("~1000/a", LK_CREATE | flags);
    message.as.open.lease_ns = LEASE_NS;
    message.as.open.on_expiry = on_expiry;
    message.as.open.mode = 0666;
    const struct recorded *answer = reply(session, send_message(session, message));
    cr_assert(eq(int, answer->effect.message.type, LKI_REPLY_OPENED), "%s", answer->detail);
    last_opened = answer->effect.message.as.opened;
    return last_opened;
}

/* Process 11 of user ALICE holds lock 3, process 2 of `uid` waits for it. */
void arrange(uint32_t on_expiry, uint32_t holder_flags, uint32_t uid)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(uid, 2);
    struct lki_opened attached = open_leased(holder_session, on_expiry, holder_flags);
    native_init(&holder, holder_session, &attached);
    attached = open_leased(waiter_session, on_expiry, 0);
    native_init(&waiter, waiter_session, &attached);
    cr_assert(eq(int, native_try(&holder, 3, LKI_MODE_EXCLUSIVE), LKI_TAKEN));
    native_wait(&waiter, 3, LKI_MODE_EXCLUSIVE);
    forget_effects();
}

void complain(void)
{
    request_complain(waiter_session, waiter.segment, 3, holder.party.id,
                     lki_lock_sequence(&holder.area, 3));
}

int last_signal(void)
{
    const struct recorded *effect = last_effect(LKD_EFFECT_SIGNAL_PROCESS);
    if (!effect)
        return 0;
    cr_expect(eq(u64, effect->effect.process, 11));
    return effect->effect.signal;
}

void arrange_strict(uint32_t on_expiry)
{
    holder_session = connect_as(ALICE, 11);
    waiter_session = connect_as(BOB, 2);
    open_leased(holder_session, on_expiry, LK_STRICT);
    open_leased(waiter_session, on_expiry, LK_STRICT);
    uint32_t segment = last_opened.segment;
    held = request_acquire(holder_session, segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    EXPECT_STATUS(holder_session, held, LKI_STATUS_OK);
    queued = request_acquire(waiter_session, segment, 3, LKI_MODE_EXCLUSIVE, LKI_TIME_NEVER);
    cr_assert(eq(ptr, (void *)reply(waiter_session, queued), NULL));
}

struct lki_granted granted(uint64_t session, uint64_t id)
{
    return reply(session, id)->effect.message.as.granted;
}
