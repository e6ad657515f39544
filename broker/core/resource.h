/* SPDX-License-Identifier: MIT */
/* What users share in a broker, and how much of it there is. */
#pragma once

#include <stdint.h>

enum lkd_resource {
    LKD_SESSIONS,
    LKD_SEGMENTS,
    LKD_BYTES,       /* anonymous memory: data at its maximum size, and control areas */
    LKD_LOCKS,       /* entries of lock tables */
    LKD_ATTACHMENTS, /* slots of segments, those of asynchronous acquires too */
    LKD_WAITS,       /* acquires that wait in the broker */
    LKD_RESOURCES,   /* their number */
};

struct lkd_limits { /* of one broker; 0: the default of common/bounds.h */
    uint64_t max[LKD_RESOURCES];
};

/* Chooses what is left to choose so that all of it together fits into a table of that many
 * descriptors: a session takes up to two, its socket and its process's, and so does a segment. A
 * quarter of the table is left for replies on their way and for the broker itself. */
void lkd_limits_fit(struct lkd_limits *limits, uint64_t descriptors);

/* "sessions", ... as in --limit. Static. */
const char *lkd_resource_name(enum lkd_resource resource);

/* What is chosen for this resource, or its default. */
uint64_t lkd_limits_max(const struct lkd_limits *limits, enum lkd_resource resource);

/* The largest that an operator may choose. */
uint64_t lkd_resource_ceiling(enum lkd_resource resource);
