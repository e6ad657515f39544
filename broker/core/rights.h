/* SPDX-License-Identifier: MIT */
/* Who may do what with a segment: owner, group and mode bits as for a file, with root past them
 * all. Asks what the kernel said about the peer, nothing else. Pure. */
#pragma once

#include "broker/core/state.h"

enum lkd_access {
    LKD_ACCESS_READ = 4,  /* attach read-only */
    LKD_ACCESS_WRITE = 2, /* with READ: attach as usual */
};

bool lkd_rights_in_group(const struct lkd_session *session, uint32_t gid);

/* Whether all of `access` (bits of enum lkd_access) is granted. */
bool lkd_rights_allow(const struct lkd_session *session, const struct lkd_segment *segment,
                      uint32_t access);

/* A bare name belongs to its user, a group's name to its members. */
bool lkd_rights_may_create(const struct lkd_session *session, const struct lkd_name *name);

bool lkd_rights_may_remove(const struct lkd_session *session, const struct lkd_segment *segment);

/* Whether it shows up in listings. */
bool lkd_rights_may_see(const struct lkd_session *session, const struct lkd_segment *segment);
