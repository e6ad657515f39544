/* SPDX-License-Identifier: MIT */
#include "tests/unit/engine/fixture.h"

#include <stdlib.h>
#include <string.h>

struct lki_area area;
uint64_t now_ns;
uint32_t lock;

static void *memory;
static struct lki_party parties[PARTIES];
static struct lki_wait waits[PARTIES];
static struct lki_sleep sleeps[PARTIES];
static unsigned wakes[SLOTS + 1];
static uint64_t last_sequences[LOCKS];

static void record_wake(void *user, uint32_t slot, bool brokered)
{
    (void)user;
    (void)brokered;
    cr_assert(le(u32, slot, SLOTS));
    wakes[slot]++;
}

static void setup_with(uint64_t patience_ns)
{
    struct lki_area_config config = {
        .locks = LOCKS,
        .attachments_max = SLOTS,
        .patience_ns = patience_ns,
        .sequence_start = FIRST_SEQUENCE,
        .state = LKI_SEGMENT_PUBLISHED,
    };
    size_t bytes = lki_area_bytes(LOCKS, SLOTS);
    memory = aligned_alloc(4096, bytes);
    cr_assert(ne(ptr, memory, NULL));
    memset(memory, 0, bytes);
    cr_assert(eq(int, lki_area_format(memory, &config, &area), 0));
    now_ns = 1000 * LKI_NS_PER_S;
    for (enum who who = ANNA; who < PARTIES; who++)
        reopen(who, 1);
}

void setup(void)
{
    setup_with(LKI_PATIENCE_DEFAULT_NS);
}

void setup_fifo(void)
{
    setup_with(LKI_PATIENCE_NONE);
}

void teardown(void)
{
    free(memory);
}

struct lki_party *party(enum who who)
{
    return &parties[who];
}

struct lki_sleep *last_sleep(enum who who)
{
    return &sleeps[who];
}

struct lki_wait *wait_of(enum who who)
{
    return &waits[who];
}

uint32_t word(void)
{
    return atomic_load(&area.hot[lock].word);
}

uint64_t sequence(void)
{
    return lki_lock_sequence(&area, lock);
}

uint32_t word_id(void)
{
    return word() & LKI_ID_MASK;
}

uint32_t flags(void)
{
    return word() & ~LKI_ID_MASK;
}

uint64_t fact(enum who who)
{
    return atomic_load(&parties[who].self->wait);
}

uint32_t futex(enum who who)
{
    return atomic_load(&parties[who].self->futex);
}

/* After each operation: no sequence fell, and on a free word odd means damage and nothing else. */
static int checked(enum lki_verdict verdict)
{
    for (uint32_t i = 0; i < LOCKS; i++) {
        uint64_t now = lki_lock_sequence(&area, i);
        uint32_t value = atomic_load(&area.hot[i].word);
        cr_assert(le(u64, last_sequences[i], now), "lock %u", i);
        last_sequences[i] = now;
        if ((value & LKI_ID_MASK) == 0)
            cr_assert(eq(u64, now & 1, (value & LKI_DIED) != 0), "lock %u, word %08x", i, value);
        else
            cr_assert(eq(u32, value & (LKI_FAIR | (value & LKI_UPDATE ? 0 : LKI_READ)), 0),
                      "lock %u, word %08x", i, value);
    }
    return (int)verdict;
}

int try_lock(enum who who, enum lki_mode mode)
{
    return checked(lki_lock_try(&parties[who], lock, mode, LKI_HOLD_DATA));
}

int release(enum who who)
{
    return checked(lki_lock_release(&parties[who], lock));
}

void take(enum who who, enum lki_mode mode)
{
    cr_assert(eq(int, try_lock(who, mode), LKI_TAKEN), "the lock is free");
}

int wait_until(enum who who, enum lki_mode mode, uint64_t deadline_ns)
{
    int begun = (int)lki_wait_begin(&waits[who], &parties[who], lock, mode, LKI_HOLD_DATA, now_ns,
                                    deadline_ns);
    return begun == LKI_SLEEP ? look(who) : begun;
}

int queue_up(enum who who, enum lki_mode mode)
{
    return wait_until(who, mode, LKI_TIME_NEVER);
}

int look(enum who who)
{
    return checked(lki_wait_step(&waits[who], now_ns, &sleeps[who]));
}

bool was_woken(enum who who)
{
    unsigned *count = &wakes[parties[who].id & LKI_SLOT_MASK];
    bool woken = *count > 0;
    *count = 0;
    return woken;
}

void forget_wakes(void)
{
    memset(wakes, 0, sizeof(wakes));
}

static void end_session(enum who who, enum lki_cause cause)
{
    struct lki_repair repair;
    struct lki_death death = {.pid = 100 + (int)who,
                              .uid = 1000,
                              .cause = cause,
                              .when_ns = now_ns,
                              .command = "the-dead-one"};
    lki_repair_begin(&repair, &area, parties[who].id);
    while (!lki_repair_step(&repair, &death, 7, record_wake, NULL))
        ;
    checked(LKI_RELEASED);
}

void die(enum who who)
{
    end_session(who, LKI_CAUSE_EXITED);
}

void close_session(enum who who)
{
    end_session(who, LKI_CAUSE_CLOSED);
}

void reopen(enum who who, uint32_t generation)
{
    uint32_t id = lki_attachment_open(&area, (uint32_t)who + 1, generation, 0);
    cr_assert(lki_party_init(&parties[who], &area, id, record_wake, NULL));
}

void check_all_quiet(void)
{
    for (uint32_t i = 0; i < LOCKS; i++) {
        struct lki_lock_state state;
        lki_lock_look(&area, i, &state);
        cr_expect(eq(u32, state.word & (LKI_ID_MASK | LKI_PARKED | LKI_FAIR | LKI_DIED), 0));
        cr_expect(eq(u64, state.sequence & 1, 0));
        cr_expect(eq(u32, state.readers, 0));
        cr_expect(eq(u32, state.waiters, 0));
    }
}
