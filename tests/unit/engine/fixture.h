/* SPDX-License-Identifier: MIT */
/* One control area with a few parties on it, moved by explicit calls and a clock by hand. */
#pragma once

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "common/clock.h"
#include "engine/fast.h"
#include "engine/layout.h"
#include "engine/lock.h"
#include "engine/repair.h"
#include "engine/wait.h"

#define LOCKS 20
#define SLOTS 8
#define FIRST_SEQUENCE (UINT64_C(5) << 32)
#define X LKI_MODE_EXCLUSIVE
#define S LKI_MODE_SHARED
#define U LKI_MODE_UPDATE

/* The parties, in order of their slots. */
enum who { ANNA, BERT, CARL, DORA, EMIL, PARTIES };

extern struct lki_area area;
extern uint64_t now_ns; /* the clock */
extern uint32_t lock;   /* the lock that the helpers act on; 0 at first */

void setup(void);      /* default patience */
void setup_fifo(void); /* no patience: strict order */
void teardown(void);

struct lki_party *party(enum who who);
struct lki_sleep *last_sleep(enum who who);
struct lki_wait *wait_of(enum who who);

uint32_t word(void);
uint64_t sequence(void);
uint32_t word_id(void);
uint32_t flags(void); /* of the word */
uint64_t fact(enum who who);
uint32_t futex(enum who who);

/* One attempt. */
int try_lock(enum who who, enum lki_mode mode);
int release(enum who who);
void take(enum who who, enum lki_mode mode); /* has to succeed */

/* Begins to wait and looks once; then once more each. LKI_SLEEP stays in the queue. */
int wait_until(enum who who, enum lki_mode mode, uint64_t deadline_ns);
int queue_up(enum who who, enum lki_mode mode); /* without a deadline */
int look(enum who who);

/* Whether the party was woken since the last question; forgets it. */
bool was_woken(enum who who);
void forget_wakes(void);

/* The whole death of a party, and its return in the same slot. */
void die(enum who who);
void close_session(enum who who);
void reopen(enum who who, uint32_t generation);

/* Everything is free, nobody waits or reads, and the sequence is even. */
void check_all_quiet(void);
