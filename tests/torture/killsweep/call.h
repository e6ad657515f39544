/* SPDX-License-Identifier: MIT */
/* What killsweep_broker sweeps: one call of the library, by a victim with a connection to a broker of
 * its own build, beside a crowd. */
#pragma once

#include <stddef.h>

#include "crowd.h"
#include "tests/support/process.h"

enum call_before { /* what the victim has done before its call */
                   BEFORE_CONNECT,
                   BEFORE_OPEN, /* it has a session, greeted, and the other segment */
                   BEFORE_LOCK, /* it has the segment */
                   BEFORE_X,
                   BEFORE_S,
                   BEFORE_U,
                   BEFORE_PENDING, /* an asynchronous acquire waits */
};

enum call_what {
    CALL_CONNECT, /* session and segment, in one flight */
    CALL_OPEN,
    CALL_CREATE,
    CALL_OFFER,
    CALL_MAP, /* a window, and back */
    CALL_NAME,
    CALL_HOLDER,
    CALL_ACQUIRE,
    CALL_TRY,
    CALL_TIMED, /* may expire */
    CALL_ASYNC, /* until it is answered */
    CALL_CANCEL,
    CALL_DISPATCH, /* until what is pending is answered */
    CALL_RELEASE,
    CALL_DECLARE,
    CALL_CLOSE_SEGMENT,
    CALL_CLOSE_SESSION,
    CALL_UPGRADE,
    CALL_TRY_UPGRADE,
    CALL_TIMED_UPGRADE,
    CALL_TO_UPDATE,
    CALL_TO_SHARED,
};

#define CALL_NEW_NAME "made-by-the-victim"

struct call {
    char title[96];
    enum crowd_kind kind;
    enum call_before before;
    enum call_what what;
    char mode;    /* of the victim's acquire */
    bool refused; /* the victim may make no barrier itself: it asks the broker */
    bool async;   /* what it holds before it has acquired asynchronously */
    unsigned age; /* those with a greater one were added later, and so are their deeds */
    struct crowd_part parts[CROWD_ACTORS];
};

#define CALL_AGES 3u

/* All of them, in an order that stays. Static storage. */
const struct call *calls(size_t *out_count);

bool call_is_upgrade(const struct call *call);

/* The victim's exclusive hold ends by its session's or segment's end, at whatever point it dies. */
bool call_always_dies(const struct call *call);

struct call_shared { /* outlives the victim */
    _Atomic int result;
};

/* Forks a victim, which has done what comes before its call and stands before it, to be traced.
 * slow: it is single-stepped. */
pid_t call_start(const struct call *call, const struct crowd *crowd, struct call_shared *shared,
                 int file_fd, bool slow);
