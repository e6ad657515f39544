/* SPDX-License-Identifier: MIT */
#include "broker/core/quota.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/bounds.h"
#include "common/cleanup.h"

static const struct {
    const char *name;
    uint64_t usual;
    uint64_t ceiling;
} resources[LKD_RESOURCES] = {
    [LKD_SESSIONS] = {"sessions", LKI_SESSIONS_MAX, UINT32_MAX},
    /* Segments have numbers, which must not come round too soon. */
    [LKD_SEGMENTS] = {"segments", LKI_SEGMENTS_MAX, 1u << 24},
    [LKD_BYTES] = {"bytes", LKI_QUOTA_BYTES_MAX, UINT64_MAX / 2},
    [LKD_LOCKS] = {"locks", LKI_QUOTA_LOCKS_MAX, UINT32_MAX},
    [LKD_ATTACHMENTS] = {"attachments", LKI_QUOTA_ATTACHMENTS_MAX, UINT32_MAX},
    [LKD_WAITS] = {"waits", LKI_QUOTA_WAITS_MAX, UINT32_MAX},
};

const char *lkd_resource_name(enum lkd_resource resource)
{
    LKI_ASSERT(resource < LKD_RESOURCES);
    return resources[resource].name;
}

uint64_t lkd_limits_max(const struct lkd_limits *limits, enum lkd_resource resource)
{
    LKI_ASSERT(resource < LKD_RESOURCES);
    return limits->max[resource] != 0 ? limits->max[resource] : resources[resource].usual;
}

uint64_t lkd_resource_ceiling(enum lkd_resource resource)
{
    LKI_ASSERT(resource < LKD_RESOURCES);
    return resources[resource].ceiling;
}

void lkd_limits_fit(struct lkd_limits *limits, uint64_t descriptors)
{
    static const enum lkd_resource with_descriptors[] = {LKD_SESSIONS, LKD_SEGMENTS};
    /* Three quarters of the table, for two kinds of things with two descriptors each. */
    uint64_t fits = descriptors / 16 * 3;
    for (size_t i = 0; i < LKI_ARRAY_LENGTH(with_descriptors); i++) {
        enum lkd_resource resource = with_descriptors[i];
        if (limits->max[resource] == 0 && fits < resources[resource].usual)
            limits->max[resource] = fits > 0 ? fits : 1;
    }
}

/* --- Accounts --- */

void lkd_quota_init(struct lkd_quota *quota, const struct lkd_limits *limits, uint32_t plain_uid,
                    uint64_t hash_seed)
{
    *quota = (struct lkd_quota){.hash_seed = hash_seed, .plain_uid = plain_uid};
    for (int i = 0; i < LKD_RESOURCES; i++)
        quota->limits.max[i] = lkd_limits_max(limits, (enum lkd_resource)i);
}

void lkd_quota_deinit(struct lkd_quota *quota)
{
    struct lkd_account *account, *next;
    HASH_ITER(by_uid, quota->accounts, account, next)
    {
        HASH_DELETE(by_uid, quota->accounts, account);
        free(account);
    }
}

struct lkd_account *lkd_quota_account(struct lkd_quota *quota, uint32_t uid)
{
    struct lkd_account *account;
    unsigned hash = lkd_hash(quota->hash_seed, &uid, sizeof(uid));
    HASH_FIND_BYHASHVALUE(by_uid, quota->accounts, &uid, sizeof(uid), hash, account);
    if (account)
        return account;
    account = calloc(1, sizeof(*account));
    if (!account)
        return NULL;
    account->uid = uid;
    account->plain = uid == 0 || uid == quota->plain_uid;
    lki_list_init(&account->silent);
    HASH_ADD_KEYPTR_BYHASHVALUE(by_uid, quota->accounts, &account->uid, sizeof(uid), hash, account);
    if (!account->by_uid.tbl) {
        free(account);
        return NULL;
    }
    return account;
}

void lkd_quota_drop_unused(struct lkd_quota *quota, struct lkd_account *account)
{
    for (int i = 0; i < LKD_RESOURCES; i++)
        if (account->used[i] > 0)
            return;
    LKI_ASSERT(lki_list_is_empty(&account->silent) && account->silent_count == 0);
    HASH_DELETE(by_uid, quota->accounts, account);
    free(account);
}

/* --- The rules --- */

static uint64_t left_in_all(const struct lkd_quota *quota, enum lkd_resource resource)
{
    LKI_ASSERT(quota->used[resource] <= quota->limits.max[resource]);
    return quota->limits.max[resource] - quota->used[resource];
}

/* How many users share the resource once this one has some. */
static uint32_t sharers_with(const struct lkd_quota *quota, const struct lkd_account *account,
                             enum lkd_resource resource)
{
    return quota->sharers[resource] + (account->used[resource] == 0);
}

/* The most that the account may have now: so much that n times as much is left over. */
static uint64_t share_of(const struct lkd_quota *quota, const struct lkd_account *account,
                         enum lkd_resource resource)
{
    uint64_t within_reach = account->used[resource] + left_in_all(quota, resource);
    if (account->plain)
        return within_reach;
    return within_reach / ((uint64_t)sharers_with(quota, account, resource) + 1);
}

/* The most that the connection may have now. */
static uint64_t part_of(uint64_t connection_used, uint64_t account_left)
{
    uint64_t within_reach = connection_used + account_left;
    return within_reach / 2 + within_reach % 2;
}

/* What the account may still take. Nothing when others have come since and made its share small. */
static uint64_t left_of_share(const struct lkd_quota *quota, const struct lkd_account *account,
                              enum lkd_resource resource)
{
    uint64_t share = share_of(quota, account, resource);
    uint64_t used = account->used[resource];
    return share > used ? share - used : 0;
}

enum lkd_quota_verdict lkd_quota_check(const struct lkd_quota *quota, const struct lkd_claim *claim)
{
    enum lkd_resource resource = claim->resource;
    uint64_t left = left_of_share(quota, claim->account, resource);

    if (claim->amount == 0)
        return LKD_QUOTA_FITS;
    if (claim->amount > left_in_all(quota, resource))
        return LKD_QUOTA_TOTAL;
    if (claim->amount > left)
        return LKD_QUOTA_USER;
    if (!claim->usage)
        return LKD_QUOTA_FITS;
    uint64_t connection_used = claim->usage->used[resource];
    return connection_used + claim->amount <= part_of(connection_used, left) ? LKD_QUOTA_FITS
                                                                             : LKD_QUOTA_CONNECTION;
}

/* --- Charging --- */

void lkd_quota_charge(struct lkd_quota *quota, struct lkd_account *account, struct lkd_usage *usage,
                      enum lkd_resource resource, uint64_t amount)
{
    LKI_ASSERT(amount <= left_in_all(quota, resource));
    if (amount > 0 && account->used[resource] == 0 && !account->plain)
        quota->sharers[resource]++;
    quota->used[resource] += amount;
    account->used[resource] += amount;
    if (usage)
        usage->used[resource] += amount;
}

void lkd_quota_uncharge(struct lkd_quota *quota, struct lkd_account *account,
                        struct lkd_usage *usage, enum lkd_resource resource, uint64_t amount)
{
    LKI_ASSERT(account->used[resource] >= amount && quota->used[resource] >= amount);
    quota->used[resource] -= amount;
    account->used[resource] -= amount;
    if (usage) {
        LKI_ASSERT(usage->used[resource] >= amount);
        usage->used[resource] -= amount;
    }
    if (amount > 0 && account->used[resource] == 0 && !account->plain) {
        LKI_ASSERT(quota->sharers[resource] > 0);
        quota->sharers[resource]--;
    }
    lkd_quota_drop_unused(quota, account);
}

/* --- Words --- */

/* What ends the use of a resource. */
static const char *remedy_of(enum lkd_resource resource)
{
    switch (resource) {
    case LKD_SESSIONS:
        return "end some of them";
    case LKD_SEGMENTS:
        return "remove some (see: lockkeeper seg ls)";
    case LKD_BYTES:
        return "ask for a smaller maximum size, or remove segments (see: lockkeeper seg ls)";
    case LKD_LOCKS:
        return "ask for fewer locks, or remove segments (see: lockkeeper seg ls)";
    case LKD_ATTACHMENTS:
        return "close segments that are not needed";
    case LKD_WAITS:
        return "wait for some of them first, or cancel some";
    case LKD_RESOURCES:
        break;
    }
    LKI_UNREACHABLE("a resource");
}

void lkd_quota_explain(const struct lkd_quota *quota, const struct lkd_claim *claim,
                       enum lkd_quota_verdict verdict, char *buffer, size_t buffer_bytes)
{
    enum lkd_resource resource = claim->resource;
    const struct lkd_account *account = claim->account;
    const char *name = resources[resource].name;
    uint64_t max = quota->limits.max[resource];
    uint64_t used = account->used[resource];
    int length = 0;

    switch (verdict) {
    case LKD_QUOTA_FITS:
        LKI_UNREACHABLE("there is nothing to explain");
    case LKD_QUOTA_TOTAL:
        length = snprintf(buffer, buffer_bytes,
                          "this broker has %" PRIu64 " %s, its maximum is %" PRIu64
                          ", uid %u has %" PRIu64 " of them and asks for %" PRIu64 " more",
                          quota->used[resource], name, max, account->uid, used, claim->amount);
        break;
    case LKD_QUOTA_USER:
        length = snprintf(
            buffer, buffer_bytes,
            "uid %u has %" PRIu64 " %s and asks for %" PRIu64 " more, its share is %" PRIu64
            " now (users: %u, in all: %" PRIu64 ", left: %" PRIu64 ")",
            account->uid, used, name, claim->amount, share_of(quota, account, resource),
            sharers_with(quota, account, resource), max, left_in_all(quota, resource));
        break;
    case LKD_QUOTA_CONNECTION: {
        uint64_t left = left_of_share(quota, account, resource);
        length =
            snprintf(buffer, buffer_bytes,
                     "this connection has %" PRIu64 " %s and asks for %" PRIu64
                     " more, its part is %" PRIu64 ": half of what uid %u has left (%" PRIu64 ")",
                     claim->usage->used[resource], name, claim->amount,
                     part_of(claim->usage->used[resource], left), account->uid, left);
        break;
    }
    }
    LKI_ASSERT(length > 0);
    if ((size_t)length < buffer_bytes)
        snprintf(buffer + length, buffer_bytes - (size_t)length,
                 "; %s, or have the broker started with a larger --limit %s=N", remedy_of(resource),
                 name);
}

/* --- Invariants --- */

void lkd_quota_check_sums(const struct lkd_quota *quota)
{
    for (int i = 0; i < LKD_RESOURCES; i++) {
        uint64_t used = 0;
        uint32_t sharers = 0;
        for (const struct lkd_account *account = quota->accounts; account;
             account = account->by_uid.next) {
            used += account->used[i];
            sharers += account->used[i] > 0 && !account->plain;
        }
        LKI_ASSERT(used == quota->used[i] && used <= quota->limits.max[i]);
        LKI_ASSERT(sharers == quota->sharers[i]);
    }
}
