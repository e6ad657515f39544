/* SPDX-License-Identifier: MIT */
/* What the driver and its clients share, in memory that lockkeeper knows nothing of. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/history/record.h"
#include "tests/support/client.h"
#include "tests/support/process.h"

#define RUN_CLIENTS_MAX 32u
#define RUN_SEGMENTS 4u
#define RUN_LOCKS_EACH 2u
#define RUN_LOCKS (RUN_SEGMENTS * RUN_LOCKS_EACH)
#define RUN_CANARY_WORDS 32u
#define RUN_RECORDS 32768u     /* of each client in one part */
#define RUN_RECORDS_SPARE 512u /* what one action may take */

/* In the data of the segment, one per lock: all words alike, except while a writer is inside. */
struct run_canary {
    _Atomic uint64_t words[RUN_CANARY_WORDS];
};

/* Of one client, whoever that is at the moment. */
struct run_ring {
    _Atomic uint32_t used;
    struct record records[RUN_RECORDS];
};

/* Mistakes that can be planted in the clients, to see them found. */
enum run_break {
    RUN_BREAK_NONE,
    RUN_BREAK_SKIP,   /* enters without the lock */
    RUN_BREAK_TOKEN,  /* tells of a token that another one had */
    RUN_BREAK_DEAF,   /* hides that an owner died */
    RUN_BREAK_CRIER,  /* tells of a death that was none */
    RUN_BREAK_SLOPPY, /* marks as consistent, and then does not */
    RUN_BREAK_LAZY,   /* does not write */
    RUN_BREAK_BLIND,  /* takes a read for valid without asking */
    RUN_BREAK_LATE,   /* began to wait a minute before it says so */
    RUN_BREAK_STAY,   /* never leaves: somebody is stuck */
    RUN_BREAK_HASTY,  /* does not ask before it is exclusive, having been for update */
    RUN_BREAK_LEAK,   /* the driver's: a session that is not closed */
    RUN_BREAKS,
};

struct run_shared {
    _Atomic uint32_t phase; /* odd: clients act; even: they come to rest, and say so */
    _Atomic uint32_t end;
    _Atomic uint32_t resting[RUN_CLIENTS_MAX];  /* the phase in which that client rests */
    _Atomic uint32_t at[RUN_CLIENTS_MAX + 1];   /* line of its last call, for a report */
    struct run_ring rings[RUN_CLIENTS_MAX + 1]; /* the last one is the driver's */
};

struct run_client {
    struct run_shared *shared;
    const char *socket_path;
    uint32_t index;
    uint32_t life;   /* never used twice */
    bool reads_only; /* may not write the data, and locks through the broker everywhere */
    enum run_break broken;
    struct test_random random;
    struct test_client segments[RUN_SEGMENTS]; /* one session for all */
    struct lk_lock *locks[RUN_LOCKS];
};

/* Even ones are locked in shared memory, odd ones through the broker. */
void run_segment_name(uint32_t number, char out_name[32]);
struct lk_segment_options run_segment_options(uint32_t number);

/* Opens everything; the session is segments[0].session. */
void run_client_open(struct run_client *client);

/* The body of a client process, for test_spawn(): acts until it is told to end, or until it has had
 * enough and leaves by itself. */
int run_client_live(void *client);

/* Takes each lock once, mends what is damaged, and leaves; as a client, in the driver's ring. */
void run_client_take_all(struct run_client *client, uint64_t patience_ns);

/* The next record of a ring, in which this call is asked now. */
struct record *run_record(struct run_ring *ring, enum record_kind kind, uint32_t life);
