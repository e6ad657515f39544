/* SPDX-License-Identifier: MIT */
/* Who uses how much of what the broker has, and whether one more is fair. One account per uid, one
 * usage per connection. Pure arithmetic: no sessions, no segments, no texts on the wire. One
 * thread.
 *
 * Of each resource there is a total. Two rules keep some of it for others:
 *
 * - Between users. A uid may have so much that, with n users of the resource (itself included),
 * what is left over is at least n times its own. So alone it gets a half, and always a 1/(n + 1) of
 * the total is left for whoever comes: n users get at least 1/(n (n + 1)) each, and the earlier a
 * user came, the more. (By induction over the last charge of each: own_k <= left_k / k, hence
 * left_k >= left_(k-1) k / (k + 1).) Nothing is taken away when others come; whoever is above its
 * share is refused more. *Plain* uids, the broker's own and root, are under the total alone: who
 * runs the broker can end it anyway, and a private broker serves nobody else.
 * - Between connections of one uid. A connection may take at most half of what its uid has left,
 *   rounded up. This is against accidents: nothing keeps a uid from opening more connections. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/core/hash.h"
#include "broker/core/resource.h"
#include "common/list.h"

/* Of one connection. It ends with it; what the connection made may outlive it, and then counts for
 * the uid alone. Starts zeroed. */
struct lkd_usage {
    uint64_t used[LKD_RESOURCES];
};

/* Of one uid. It exists while any balance is above zero. */
struct lkd_account {
    uint32_t uid;
    bool plain;
    uint64_t used[LKD_RESOURCES];
    struct lki_list silent; /* sessions without a hello, oldest first; their module's business */
    uint32_t silent_count;
    UT_hash_handle by_uid;
};

struct lkd_quota {
    uint64_t hash_seed;
    uint32_t plain_uid;
    struct lkd_limits limits;
    uint64_t used[LKD_RESOURCES];
    uint32_t sharers[LKD_RESOURCES]; /* accounts, not plain, that have some */
    struct lkd_account *accounts;    /* by uid */
};

enum lkd_quota_verdict {
    LKD_QUOTA_FITS,
    LKD_QUOTA_TOTAL,      /* there is not so much left */
    LKD_QUOTA_USER,       /* more than the uid's share */
    LKD_QUOTA_CONNECTION, /* more than this connection's part of it */
};

struct lkd_claim { /* what is asked for, and by whom */
    const struct lkd_account *account;
    const struct lkd_usage *usage; /* NULL: no rule between connections */
    enum lkd_resource resource;
    uint64_t amount;
};

/* Limits of 0 become the defaults. Two uids are plain: this one and 0. */
void lkd_quota_init(struct lkd_quota *quota, const struct lkd_limits *limits, uint32_t plain_uid,
                    uint64_t hash_seed);

/* Frees all accounts, whatever their balances. */
void lkd_quota_deinit(struct lkd_quota *quota);

/* The account of a uid; a new one if there is none. NULL: no memory. One to which nothing was
 * charged in the end goes back with lkd_quota_drop_unused(). */
struct lkd_account *lkd_quota_account(struct lkd_quota *quota, uint32_t uid);
void lkd_quota_drop_unused(struct lkd_quota *quota, struct lkd_account *account);

enum lkd_quota_verdict lkd_quota_check(const struct lkd_quota *quota,
                                       const struct lkd_claim *claim);

/* After a check that said FITS, with nothing in between that charges. */
void lkd_quota_charge(struct lkd_quota *quota, struct lkd_account *account, struct lkd_usage *usage,
                      enum lkd_resource resource, uint64_t amount);

/* Never fails. usage: that of the connection which was charged, NULL when it has ended. Frees the
 * account with its last balance: *account is not to be used then. */
void lkd_quota_uncharge(struct lkd_quota *quota, struct lkd_account *account,
                        struct lkd_usage *usage, enum lkd_resource resource, uint64_t amount);

/* Which limit, how much is used, by whom, and behind "; " what to do. For a verdict other than
 * FITS. */
void lkd_quota_explain(const struct lkd_quota *quota, const struct lkd_claim *claim,
                       enum lkd_quota_verdict verdict, char *buffer, size_t buffer_bytes);

/* Asserts that accounts and totals agree. */
void lkd_quota_check_sums(const struct lkd_quota *quota);
