/* SPDX-License-Identifier: MIT */
/* A listing of the broker as a whole: all pages, copied, sorted by name, and for locks gathered per
 * lock: who holds it, then the queue in its order. Owned by the caller; one thread. */
#pragma once

#include <stddef.h>

#include "proto/message.h"

struct lk_session;

struct lki_listing_entry {
    struct lki_list_entry is; /* its texts are those below */
    char *name;
    char *lock_name;
    char *command;
    char *label;  /* of a lock, as `run` takes it: SEGMENT, SEGMENT#3, SEGMENT#orders */
    size_t place; /* in the broker's order */
};

struct lki_listing {
    size_t count;
    struct lki_listing_entry *entries;
};

/* name NULL: everything. Returns 0 or the errors of lki_admin_list(), -ENOMEM; nothing is owned
 * then. */
int lki_listing_read(struct lk_session *session, enum lki_list_what what, const char *name,
                     struct lki_listing *out_listing);
void lki_listing_deinit(struct lki_listing *listing);

/* The entries of one lock: a slice of a sorted listing. */
struct lki_listing_lock {
    const struct lki_listing_entry *first;
    size_t count;
    size_t holders; /* the first `holders` entries do not wait (held, draining, damaged) */
};

/* Takes the next lock of a listing of locks; *position starts at 0. count 0: there is none. */
struct lki_listing_lock lki_listing_next_lock(const struct lki_listing *listing, size_t *position);
