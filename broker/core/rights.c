/* SPDX-License-Identifier: MIT */
#include "broker/core/rights.h"

bool lkd_rights_in_group(const struct lkd_session *session, uint32_t gid)
{
    if (session->gid == gid)
        return true;
    for (uint32_t i = 0; i < session->group_count; i++)
        if (session->groups[i] == gid)
            return true;
    return false;
}

bool lkd_rights_allow(const struct lkd_session *session, const struct lkd_segment *segment,
                      uint32_t access)
{
    if (session->uid == 0)
        return true;
    /* As for files the first class that fits decides, also against the caller. */
    uint32_t bits;
    if (session->uid == segment->uid)
        bits = segment->mode >> 6;
    else if (lkd_rights_in_group(session, segment->gid))
        bits = segment->mode >> 3;
    else
        bits = segment->mode;
    return (bits & access) == access;
}

bool lkd_rights_may_create(const struct lkd_session *session, const struct lkd_name *name)
{
    if (session->uid == 0)
        return true;
    if (name->kind == LKI_NAME_GROUP)
        return lkd_rights_in_group(session, name->id);
    return session->uid == name->id;
}

bool lkd_rights_may_remove(const struct lkd_session *session, const struct lkd_segment *segment)
{
    return session->uid == 0 || session->uid == segment->uid;
}

bool lkd_rights_may_see(const struct lkd_session *session, const struct lkd_segment *segment)
{
    if (session->uid == segment->uid || lkd_rights_allow(session, segment, LKD_ACCESS_READ))
        return true;
    return segment->name.kind == LKI_NAME_GROUP && lkd_rights_in_group(session, segment->name.id);
}
