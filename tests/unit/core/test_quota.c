/* SPDX-License-Identifier: MIT */
/* The rules of quota.h in exact numbers, and what they promise under random use. With LK_SEED=n in
 * the environment that seed alone is run. */
#include "broker/core/quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/bounds.h"

#define BROKER_UID 1000u

static struct lkd_quota quota;

static void setup_with(uint64_t max)
{
    struct lkd_limits limits;
    for (int i = 0; i < LKD_RESOURCES; i++)
        limits.max[i] = max;
    lkd_quota_init(&quota, &limits, BROKER_UID, 4711);
}

static void setup(void)
{
    setup_with(600);
}

static void teardown(void)
{
    lkd_quota_check_sums(&quota);
    lkd_quota_deinit(&quota);
}

TestSuite(quota, .init = setup, .fini = teardown, .timeout = 60);

Test(quota, limits_that_are_not_given_fit_into_the_descriptor_table)
{
    struct lkd_limits limits = {.max = {[LKD_SEGMENTS] = 7}};
    lkd_limits_fit(&limits, 1024);
    cr_expect(eq(u64, limits.max[LKD_SESSIONS], 192));
    cr_expect(eq(u64, limits.max[LKD_SEGMENTS], 7), "what was given stays");
    cr_expect(eq(u64, limits.max[LKD_BYTES], 0), "what has no descriptors stays");

    limits = (struct lkd_limits){.max = {0}};
    lkd_limits_fit(&limits, 1 << 20);
    cr_expect(eq(u64, limits.max[LKD_SESSIONS], 0), "all that is usual fits");
    lkd_limits_fit(&limits, 0);
    cr_expect(eq(u64, limits.max[LKD_SESSIONS], 1), "0 would mean the usual");
}

static enum lkd_quota_verdict take(uint32_t uid, struct lkd_usage *usage, uint64_t amount)
{
    struct lkd_account *account = lkd_quota_account(&quota, uid);
    struct lkd_claim claim = {account, usage, LKD_LOCKS, amount};
    enum lkd_quota_verdict verdict = lkd_quota_check(&quota, &claim);
    if (verdict == LKD_QUOTA_FITS)
        lkd_quota_charge(&quota, account, usage, LKD_LOCKS, amount);
    else
        lkd_quota_drop_unused(&quota, account);
    lkd_quota_check_sums(&quota);
    return verdict;
}

static void give_back(uint32_t uid, struct lkd_usage *usage, uint64_t amount)
{
    lkd_quota_uncharge(&quota, lkd_quota_account(&quota, uid), usage, LKD_LOCKS, amount);
    lkd_quota_check_sums(&quota);
}

/* One by one, as much as it gets. */
static uint64_t take_all(uint32_t uid, struct lkd_usage *usage)
{
    uint64_t count = 0;
    while (take(uid, usage, 1) == LKD_QUOTA_FITS)
        count++;
    return count;
}

Test(quota, one_user_alone_gets_half_and_not_one_more)
{
    cr_expect(eq(int, take(1, NULL, 301), LKD_QUOTA_USER));
    cr_expect(eq(int, take(1, NULL, 300), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(1, NULL, 1), LKD_QUOTA_USER));
}

Test(quota, shares_of_users_who_take_all_they_can)
{
    static const uint64_t expected[] = {300, 100, 50, 30, 20}; /* 600 / (k (k + 1)) */
    for (uint32_t k = 0; k < 5; k++)
        cr_expect(eq(u64, take_all(k + 1, NULL), expected[k]), "user %u", k + 1);
    cr_expect(eq(u64, quota.used[LKD_LOCKS], 500), "a sixth is left for the next");
    for (uint32_t k = 0; k < 5; k++)
        cr_expect(eq(int, take(k + 1, NULL, 1), LKD_QUOTA_USER), "user %u", k + 1);
}

Test(quota, a_user_gets_more_when_another_has_ended)
{
    take_all(1, NULL);
    take_all(2, NULL);
    give_back(1, NULL, 300);
    cr_expect(eq(u64, take_all(2, NULL), 200), "100 and 200: the half that a single user may have");
}

Test(quota, whoever_is_above_its_share_keeps_it_and_gets_no_more)
{
    take_all(1, NULL);
    take_all(2, NULL);
    give_back(1, NULL, 1);
    cr_expect(eq(int, take(1, NULL, 1), LKD_QUOTA_USER), "with two users its share is smaller");
}

Test(quota, the_brokers_own_user_and_root_have_the_total)
{
    cr_expect(eq(int, take(BROKER_UID, NULL, 400), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(0, NULL, 201), LKD_QUOTA_TOTAL));
    cr_expect(eq(int, take(0, NULL, 200), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(1, NULL, 1), LKD_QUOTA_TOTAL));
}

Test(quota, plain_users_make_the_total_smaller_but_do_not_share_it)
{
    take(BROKER_UID, NULL, 400);
    cr_expect(eq(u64, take_all(1, NULL), 100));
}

Test(quota, a_connection_gets_half_of_what_its_user_has_left)
{
    struct lkd_usage a = {0}, b = {0};
    cr_expect(eq(int, take(1, &a, 151), LKD_QUOTA_CONNECTION));
    cr_expect(eq(int, take(1, &a, 150), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(1, &a, 1), LKD_QUOTA_CONNECTION));
    cr_expect(eq(u64, take_all(1, &b), 75));
    give_back(1, &b, 75);
    cr_expect(eq(int, take(1, &a, 1), LKD_QUOTA_CONNECTION));
}

Test(quota, the_last_one_can_be_had)
{
    teardown();
    setup_with(1);
    struct lkd_usage a = {0};
    cr_expect(eq(int, take(0, &a, 1), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(0, &a, 1), LKD_QUOTA_TOTAL));
}

Test(quota, what_outlives_its_connection_counts_for_the_user)
{
    struct lkd_usage a = {0};
    take(1, &a, 100);
    cr_expect(eq(u64, take_all(1, NULL), 200));
    give_back(1, NULL, 100); /* as if `a` had ended */
    cr_expect(eq(u64, quota.used[LKD_LOCKS], 200));
}

Test(quota, an_account_ends_with_its_last_balance)
{
    take(1, NULL, 5);
    cr_expect(ne(ptr, quota.accounts, NULL));
    give_back(1, NULL, 5);
    cr_expect(eq(ptr, quota.accounts, NULL));
    cr_expect(eq(u32, quota.sharers[LKD_LOCKS], 0));
}

Test(quota, resources_do_not_mix)
{
    take_all(1, NULL);
    struct lkd_account *account = lkd_quota_account(&quota, 1);
    struct lkd_claim claim = {account, NULL, LKD_WAITS, 300};
    cr_expect(eq(int, lkd_quota_check(&quota, &claim), LKD_QUOTA_FITS));
}

Test(quota, largest_amounts_do_not_wrap_round)
{
    teardown();
    setup_with(UINT64_MAX / 2);
    struct lkd_usage a = {0};
    cr_expect(eq(int, take(1, &a, UINT64_MAX), LKD_QUOTA_TOTAL));
    cr_expect(eq(int, take(1, &a, UINT64_MAX / 2), LKD_QUOTA_USER));
    cr_expect(eq(int, take(0, NULL, UINT64_MAX / 2), LKD_QUOTA_FITS));
    cr_expect(eq(int, take(1, &a, 1), LKD_QUOTA_TOTAL));
}

Test(quota, no_limit_given_means_the_default)
{
    struct lkd_limits none = {{0}};
    struct lkd_quota usual;
    lkd_quota_init(&usual, &none, BROKER_UID, 1);
    cr_expect(eq(u64, usual.limits.max[LKD_SESSIONS], (uint64_t)LKI_SESSIONS_MAX));
    cr_expect(eq(u64, usual.limits.max[LKD_BYTES], LKI_QUOTA_BYTES_MAX));
    for (int i = 0; i < LKD_RESOURCES; i++)
        cr_expect(le(u64, usual.limits.max[i], lkd_resource_ceiling(i)), "%s",
                  lkd_resource_name(i));
}

/* Every text says who has how much of what, and one "; " stands before what to do. */
Test(quota, every_refusal_is_explained)
{
    struct lkd_usage usage = {{[LKD_LOCKS] = 77}};
    static const enum lkd_quota_verdict verdicts[] = {LKD_QUOTA_TOTAL, LKD_QUOTA_USER,
                                                      LKD_QUOTA_CONNECTION};
    take(31337, NULL, 123);
    for (size_t i = 0; i < 3; i++) {
        for (int resource = 0; resource < LKD_RESOURCES; resource++) {
            struct lkd_claim claim = {lkd_quota_account(&quota, 31337), &usage, resource, 4242};
            char text[512];
            char option[64];
            lkd_quota_explain(&quota, &claim, verdicts[i], text, sizeof(text));
            cr_expect(lt(sz, strlen(text), 400), "%s", text);
            cr_expect(ne(ptr, strstr(text, "uid 31337"), NULL), "%s", text);
            cr_expect(ne(ptr, strstr(text, "4242 more"), NULL), "%s", text);
            const char *hint = strstr(text, "; ");
            cr_assert(ne(ptr, (void *)hint, NULL), "%s", text);
            cr_expect(eq(ptr, strstr(hint + 2, "; "), NULL), "%s", text);
            snprintf(option, sizeof(option), "--limit %s=N", lkd_resource_name(resource));
            cr_expect(ne(ptr, strstr(hint, option), NULL), "%s", text);
        }
    }
    char text[512];
    struct lkd_claim claim = {lkd_quota_account(&quota, 31337), &usage, LKD_LOCKS, 4242};
    lkd_quota_explain(&quota, &claim, LKD_QUOTA_USER, text, sizeof(text));
    cr_expect(eq(str, text,
                 "uid 31337 has 123 locks and asks for 4242 more, its share is 300 now (users: 1, "
                 "in all: 600, left: 477); ask for fewer locks, or remove segments (see: "
                 "lockkeeper seg ls), or have the broker started with a larger --limit locks=N"));
}

/* --- Under random use --- */

#define USERS 20u
#define CONNECTIONS 4u
#define STEPS 20000

struct model {
    struct lkd_usage usage[CONNECTIONS];
    uint64_t used;
};

static unsigned seed;

static uint64_t below(uint64_t count)
{
    return (uint64_t)rand_r(&seed) % count;
}

/* Whatever was done before: a 1/(n + 1) is free, so that whoever comes gets at least its share of
 * that. */
static void expect_room_for_newcomer(uint64_t max)
{
    uint64_t n = quota.sharers[LKD_LOCKS];
    uint64_t left = max - quota.used[LKD_LOCKS];
    cr_assert(ge(u64, left * (n + 1), max), "%lu users, %lu left, seed %u", (unsigned long)n,
              (unsigned long)left, seed);
    struct lkd_account *newcomer = lkd_quota_account(&quota, 99999);
    struct lkd_claim claim = {newcomer, NULL, LKD_LOCKS, max / ((n + 1) * (n + 2))};
    cr_assert(eq(int, lkd_quota_check(&quota, &claim), LKD_QUOTA_FITS), "%lu users",
              (unsigned long)n);
    lkd_quota_drop_unused(&quota, newcomer);
}

static void run(unsigned start, uint64_t max)
{
    struct model models[USERS] = {0};
    seed = start;
    setup_with(max);
    for (int step = 0; step < STEPS; step++) {
        uint32_t user = (uint32_t)below(1 + below(USERS)); /* some are busier than others */
        struct lkd_usage *usage = &models[user].usage[below(CONNECTIONS)];
        uint64_t amount = 1 + below(below(4) ? 10 : max / 2);
        if (below(5) < 3) {
            if (take(user + 1, usage, amount) == LKD_QUOTA_FITS)
                models[user].used += amount;
        } else if (usage->used[LKD_LOCKS] > 0) {
            uint64_t back = below(3) ? 1 + below(usage->used[LKD_LOCKS]) : usage->used[LKD_LOCKS];
            give_back(user + 1, usage, back);
            models[user].used -= back;
        }
        expect_room_for_newcomer(max);
    }
    for (uint32_t user = 0; user < USERS; user++)
        for (uint32_t i = 0; i < CONNECTIONS; i++)
            if (models[user].usage[i].used[LKD_LOCKS] > 0)
                give_back(user + 1, &models[user].usage[i], models[user].usage[i].used[LKD_LOCKS]);
    cr_assert(eq(ptr, quota.accounts, NULL), "an account is left, seed %u", start);
    cr_assert(eq(u64, quota.used[LKD_LOCKS], 0));
}

Test(quota, newcomers_always_find_their_share)
{
    const char *given = getenv("LK_SEED");
    teardown();
    if (given) {
        run((unsigned)strtoul(given, NULL, 10), 100000);
        return;
    }
    for (unsigned start = 1; start <= 5; start++)
        run(start, 100000);
    setup();
}

Test(quota, nothing_is_always_to_be_had_and_makes_nobody_a_sharer)
{
    struct lkd_usage usage = {{[LKD_LOCKS] = 5}}; /* of those 300, say */
    cr_assert(eq(int, take(2001, NULL, 300), LKD_QUOTA_FITS));
    cr_assert(eq(int, take(2002, NULL, 1), LKD_QUOTA_FITS));
    cr_assert(eq(int, take(2001, &usage, 1), LKD_QUOTA_USER), "it is above its share");
    cr_expect(eq(int, take(2001, &usage, 0), LKD_QUOTA_FITS));
    struct lkd_account *third = lkd_quota_account(&quota, 2003);
    lkd_quota_charge(&quota, third, NULL, LKD_LOCKS, 0);
    cr_expect(eq(u32, quota.sharers[LKD_LOCKS], 2));
    lkd_quota_uncharge(&quota, third, NULL, LKD_LOCKS, 0);
    cr_expect(eq(u32, quota.sharers[LKD_LOCKS], 2));
}

Test(quota, an_explanation_is_cut_where_the_room_ends)
{
    struct lkd_claim claim = {lkd_quota_account(&quota, 31337), NULL, LKD_LOCKS, 4242};
    char text[24];
    memset(text, 'x', sizeof(text));
    lkd_quota_explain(&quota, &claim, LKD_QUOTA_TOTAL, text, 16);
    cr_expect(eq(str, text, "this broker has"));
    cr_expect(eq(int, text[16], 'x'), "nothing behind it is written");
}
