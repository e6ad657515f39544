/* SPDX-License-Identifier: MIT */
#include "broker/core/charge.h"

#include <errno.h>

#include "broker/core/monitor.h"
#include "broker/core/session.h"
#include "common/assert.h"

static const enum lkd_resource of_segments[] = {LKD_SEGMENTS, LKD_BYTES, LKD_LOCKS};

bool lkd_charge_fits(struct lkd_core *core, const struct lkd_session *session,
                     enum lkd_resource resource, uint64_t amount, char why[LKD_CHARGE_TEXT_BYTES])
{
    const struct lkd_claim claim = {session->account, &session->usage, resource, amount};
    enum lkd_quota_verdict verdict = lkd_quota_check(&core->quota, &claim);
    if (verdict == LKD_QUOTA_FITS)
        return true;
    lkd_quota_explain(&core->quota, &claim, verdict, why, LKD_CHARGE_TEXT_BYTES);
    lkd_monitor_session(core, LKI_EVENT_QUOTA, session, why);
    return false;
}

void lkd_charge(struct lkd_core *core, struct lkd_session *session, enum lkd_resource resource,
                uint64_t amount)
{
    lkd_quota_charge(&core->quota, session->account, &session->usage, resource, amount);
}

void lkd_uncharge(struct lkd_core *core, struct lkd_session *session, enum lkd_resource resource,
                  uint64_t amount)
{
    lkd_quota_uncharge(&core->quota, session->account, &session->usage, resource, amount);
}

int lkd_charge_admit(struct lkd_core *core, uint32_t uid, struct lkd_account **out_account)
{
    struct lkd_account *account = lkd_quota_account(&core->quota, uid);
    if (!account)
        return -ENOMEM;
    const struct lkd_claim claim = {account, NULL, LKD_SESSIONS, 1};
    enum lkd_quota_verdict verdict = lkd_quota_check(&core->quota, &claim);
    if (verdict != LKD_QUOTA_FITS) {
        lkd_quota_explain(&core->quota, &claim, verdict, core->refusal, sizeof(core->refusal));
        lkd_quota_drop_unused(&core->quota, account);
        return -EDQUOT;
    }
    lkd_quota_charge(&core->quota, account, NULL, LKD_SESSIONS, 1);
    *out_account = account;
    return 0;
}

void lkd_charge_leave(struct lkd_core *core, struct lkd_session *session)
{
    LKI_ASSERT(session->usage.used[LKD_WAITS] == 0 && session->usage.used[LKD_ATTACHMENTS] == 0);
    lkd_quota_uncharge(&core->quota, session->account, NULL, LKD_SESSIONS, 1);
    session->account = NULL;
}

uint64_t lkd_charge_of_segment(const struct lkd_segment_spec *spec, uint32_t locks,
                               enum lkd_resource resource)
{
    switch (resource) {
    case LKD_SEGMENTS:
        return 1;
    case LKD_BYTES: /* a file's data is somebody else's */
        return spec->area_bytes + (spec->offered ? 0 : spec->data_bytes_max);
    case LKD_LOCKS:
        return locks;
    case LKD_SESSIONS:
    case LKD_ATTACHMENTS:
    case LKD_WAITS:
    case LKD_RESOURCES:
        break;
    }
    LKI_UNREACHABLE("segments do not cost that");
}

void lkd_charge_segment(struct lkd_core *core, struct lkd_session *session,
                        struct lkd_segment *segment)
{
    segment->account = session->account;
    segment->charged_session = session->number;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(of_segments); i++)
        lkd_charge(core, session, of_segments[i],
                   lkd_charge_of_segment(&segment->spec, segment->locks, of_segments[i]));
}

void lkd_charge_adopted_segment(struct lkd_core *core, struct lkd_account *account,
                                uint64_t session, struct lkd_segment *segment)
{
    struct lkd_session *payer = lkd_session_find(core, session);
    segment->account = account;
    segment->charged_session = session;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(of_segments); i++)
        lkd_quota_charge(&core->quota, account, payer ? &payer->usage : NULL, of_segments[i],
                         lkd_charge_of_segment(&segment->spec, segment->locks, of_segments[i]));
}

void lkd_uncharge_segment(struct lkd_core *core, struct lkd_segment *segment)
{
    struct lkd_session *session = lkd_session_find(core, segment->charged_session);
    struct lkd_account *account = segment->account;
    segment->account = NULL;
    LKI_ASSERT(account);                        /* charged before anything of it can end */
    LKI_ASSERT(LKD_SEGMENTS == of_segments[0]); /* the account lives until this is given back */
    for (size_t i = LKI_ARRAY_LENGTH(of_segments); i-- > 0;)
        lkd_quota_uncharge(&core->quota, account, session ? &session->usage : NULL, of_segments[i],
                           lkd_charge_of_segment(&segment->spec, segment->locks, of_segments[i]));
}

/* --- Invariants --- */

static uint64_t charged_for(const struct lkd_core *core, const struct lkd_account *account,
                            const struct lkd_session *session, enum lkd_resource resource)
{
    uint64_t sum = 0;
    for (const struct lkd_segment *segment = core->by_number; segment;
         segment = segment->by_number.next)
        if (account ? segment->account == account : segment->charged_session == session->number)
            sum += lkd_charge_of_segment(&segment->spec, segment->locks, resource);
    return sum;
}

static void check_session(const struct lkd_core *core, const struct lkd_session *session)
{
    uint64_t slots = 0;
    uint64_t waits = 0;
    for (const struct lki_list *node = session->attachments.next; node != &session->attachments;
         node = node->next) {
        const struct lkd_attachment *attachment =
            LKI_LIST_ENTRY(node, struct lkd_attachment, of_session);
        slots += attachment->state != LKD_ATTACHMENT_ENDED;
        waits += attachment->waiting;
    }
    LKI_ASSERT(session->usage.used[LKD_ATTACHMENTS] == slots);
    LKI_ASSERT(session->usage.used[LKD_WAITS] == waits);
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(of_segments); i++)
        LKI_ASSERT(session->usage.used[of_segments[i]] ==
                   charged_for(core, NULL, session, of_segments[i]));
}

static void check_account(const struct lkd_core *core, const struct lkd_account *account)
{
    uint64_t sessions = 0;
    uint32_t silent = 0;
    uint64_t slots = 0;
    uint64_t waits = 0;
    for (const struct lkd_session *session = core->sessions; session;
         session = session->by_number.next) {
        if (session->account != account)
            continue;
        LKI_ASSERT(session->uid == account->uid);
        sessions++;
        silent += session->state == LKD_SESSION_GREETING;
        slots += session->usage.used[LKD_ATTACHMENTS];
        waits += session->usage.used[LKD_WAITS];
    }
    LKI_ASSERT(account->used[LKD_SESSIONS] == sessions);
    LKI_ASSERT(account->used[LKD_ATTACHMENTS] == slots);
    LKI_ASSERT(account->used[LKD_WAITS] == waits);
    LKI_ASSERT(account->silent_count == silent);
    LKI_ASSERT(lki_list_is_empty(&account->silent) == (silent == 0));
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(of_segments); i++)
        LKI_ASSERT(account->used[of_segments[i]] ==
                   charged_for(core, account, NULL, of_segments[i]));
}

void lkd_charge_check(const struct lkd_core *core)
{
    lkd_quota_check_sums(&core->quota);
    for (const struct lkd_session *session = core->sessions; session;
         session = session->by_number.next)
        check_session(core, session);
    for (const struct lkd_account *account = core->quota.accounts; account;
         account = account->by_uid.next)
        check_account(core, account);
}
