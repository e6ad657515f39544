/* SPDX-License-Identifier: MIT */
/* What the tests of the judge write histories with. Times are small numbers; a wait may take 1000, a deadline be
 * missed by 100. */
#pragma once

#include <lockkeeper/lockkeeper.h>

#include "tests/history/check.h"

#define LOCK 3
#define WAIT_MAX 1000
#define SLACK 100

extern struct record records[32];
extern size_t count;
extern struct history *history;
extern uint64_t value; /* that the last writer wrote */

void setup(void);
void teardown(void);
struct record *record(enum record_kind kind, uint32_t life, enum record_stage stage);
/* A hold as it should be: asked for 5 before its answer, released at once when asked for. */
struct record *hold(uint32_t life, enum lk_mode mode, uint64_t from_ns, uint64_t to_ns,
                    uint64_t token);
void tell(struct record *of_hold, int32_t pid, uint64_t token);
void tell_and_mend(struct record *of_hold, int32_t pid, uint64_t token);
/* Its pid is its life + 1000. */
void die(uint32_t life, uint64_t at_ns);
void die_asking(uint32_t life, enum lk_mode mode, uint64_t at_ns);
struct record *read_at(uint64_t from_ns, uint64_t to_ns, uint64_t seen, uint64_t version);
struct record *refusal(int result, uint64_t timeout_ns, uint64_t waited_ns);
size_t judge(void);
void expect_nothing(void);
/* This rule is broken, and no other. */
void expect_only(enum history_rule expected);
