/* SPDX-License-Identifier: MIT */
/* What a worker of the broker does while it is swept: something that a client asks for, the repair after
 * a client's death, or the beginning of a worker after another's death. */
#pragma once

#include "tests/torture/killsweep/call.h"

enum deed_kind {
    DEED_CALL,     /* serves the call of a client, and whom it lets go on */
    DEED_DEATH,    /* cleans up behind a client that died before its call, or in its upgrade */
    DEED_TAKEOVER, /* begins, while a client stands before its call, or is in its upgrade */
};

struct deed {
    char title[120];
    enum deed_kind kind;
    const struct call *call;
    bool is_slow; /* a limit of time is not to expire in it */
    bool begun;   /* its client is in its call */
};

/* All of them, in an order that stays. Static storage. */
const struct deed *deeds(size_t *out_count);
