/* SPDX-License-Identifier: MIT */
/* What is to be found at the places where a broker may be: for `where` and `doctor`. Connects to
 * each, starts nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/place.h"

struct lki_probe {
    const struct lki_place *place; /* borrowed */
    int result;                    /* of looking there; 0: a broker answers */
    bool answers;
    bool blocked;     /* something that is no socket lies there: no broker can be started */
    bool used;        /* by a program started now: it connects here, or starts the broker here */
    int32_t pid;      /* as the broker sees itself */
    int32_t peer_pid; /* who listens, as this process sees it; 0: in another pid namespace */
    uint32_t uid, sessions, segments;
    uint64_t up_ns;
    char problem[256]; /* why it does not answer; empty if it does */
    char detail[512];  /* the same in the library's words, with what to do; may be empty */
};

/* Looks at all places that a program started here would look at, and marks the one that it would
 * use. explicit_path may be NULL. Returns its index. */
size_t lki_probe_all(const char *explicit_path, struct lki_places *places,
                     struct lki_probe probes[LKI_PLACES_MAX]);

/* Looks at one. */
void lki_probe(const struct lki_place *place, struct lki_probe *out_probe);

/* Whether a broker is there, or could be: its directory may still have to be made. */
bool lki_probe_is_usable(const struct lki_probe *probe);
