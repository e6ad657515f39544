/* SPDX-License-Identifier: MIT */
/* A core with a driver made of memory: events go in by hand, effects are recorded, segments are
 * shared mappings, time stands still until it is moved. lkd_core_check() runs after every event.
 * One world per test.
 *
 * The worker may die, between two events or at any step within one: all memory that the core has
 * allocated is freed then, so that a successor finds the ledger and the areas and nothing else. */
#pragma once

#include <setjmp.h>

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "broker/core/core.h"
#include "broker/core/ledger.h"
#include "engine/repair.h"
#include "engine/wait.h"
#include "lockkeeper/lockkeeper.h"

#define WORLD_TEXT_BYTES 2100

struct recorded {
    struct lkd_effect effect;      /* its message without what it points to */
    char detail[WORLD_TEXT_BYTES]; /* RESULT, HOLDER_IS: detail or command; LOG, EVENT: the text */
    struct lki_list_entry entries[LKI_LIST_PAGE_ENTRIES_MAX];
    char (*strings)[3][300]; /* LIST_PAGE: name, lock_name, command of each entry; EVENT: of it */
};

struct world {
    struct lkd_core *core;
    struct lkd_core_config config;
    void *ledger;
    size_t ledger_bytes;
    uint64_t now_ns;
    uint64_t last_id;
    struct recorded *records;
    size_t record_count;
    size_t record_capacity;
    /* The driver. */
    bool making_waits; /* MAKE_SEGMENT is not answered by itself */
    bool growing_waits;
    int make_result;
    int grow_result;
    uint64_t file_bytes;  /* what an offered file turns out to have */
    bool in_core;         /* a call into the core is under way */
    bool scarce;          /* a new session may be refused */
    bool deaf;            /* the sockets take no events */
    uint32_t fail_one_in; /* of so many allocations in the core one fails; 0: none */
    uint32_t fails_at;    /* the so manieth allocation in the core from now fails; 0: none */
    unsigned seed;
    void *areas[4096]; /* by segment number */
    uint64_t area_bytes[4096];
    uint32_t group_of[4096];    /* by session number, what connect_member() was told */
    uint64_t left_sessions[64]; /* that the last worker has taken over, of few */
    uint32_t left_count;
    uint64_t steps;   /* taken in the core, and before each effect is carried out */
    uint64_t dies_at; /* the worker dies at this step; 0: it does not */
    jmp_buf death;    /* where that goes: see survives() */
};

extern struct world world;

void world_setup(void); /* broker uid 1000, token epoch 1000 */
void world_setup_with(const struct lkd_core_config *config);
void world_teardown(void);

/* --- Events --- */
uint64_t connect_peer(const struct lkd_peer *peer);  /* no HELLO; 0: no memory */
uint64_t connect_as(uint32_t uid, uint64_t process); /* with HELLO; pid = process, gid = uid */
uint64_t connect_member(uint32_t uid, uint64_t process, uint32_t group);
uint64_t send_message(uint64_t session, struct lki_message message); /* returns the id */
uint64_t send_offer(uint64_t session, struct lki_message message, const struct lkd_offer *offer);
void lose(uint64_t session);
void drop(uint64_t session, const char *reason);
void end_process(uint64_t process);
void signaled(uint64_t process, int signal, int result);
void looked(uint64_t process, enum lkd_process_state state);
void tick(void); /* at world.now_ns, large slices */
void tick_slice(uint32_t locks);
void pass(uint64_t ns); /* moves time; ticks whenever the core wants to until then */
void work(void);        /* ticks while there is work to be done at once */
void made(uint32_t segment, int result);
void grown(uint32_t segment, int result);

/* --- The worker's death --- */
size_t world_count_memory(void);    /* how much of what the core has allocated is not freed */
void world_free_all(void);          /* what the core has allocated and not freed; crash() does it */
void crash(void);                   /* now, between two events; effects that wait are lost */
void take_over(void);               /* another worker goes on, after one that was killed */
void take_over_faulty(void);        /* after one that failed by itself */
int attempt_take_over(bool faulty); /* -ENOMEM: it could not, and has ended */
void send_again(uint64_t session, const struct lki_message *message); /* with its id as it is */
void resume(uint64_t session); /* the session's answer to the last RESUMED */
void resume_as(uint64_t session, uint32_t number);
uint32_t count_records(void);             /* of the ledger, that are in use */
uint64_t resumed_count(uint64_t session); /* how many RESUMED it was sent */

/* Whether the worker was alive at the end of what `event` did. It dies at step world.dies_at. */
bool survives(void (*event)(void *user), void *user);

/* --- Requests; each returns its id --- */
struct lki_message open_message(const char *name, uint32_t flags);
uint64_t request_open(uint64_t session, const char *name, uint32_t flags);
uint64_t request_segment(uint64_t session, enum lki_message_type type, uint32_t segment);
uint64_t request_remove(uint64_t session, const char *name);
uint64_t request_grow(uint64_t session, uint32_t segment, uint64_t size_bytes);
uint64_t request_lock_named(uint64_t session, uint32_t segment, const char *name);
uint64_t request_acquire(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                         uint64_t deadline_ns);
uint64_t request_async(uint64_t session, uint32_t segment, uint32_t lock, uint32_t mode,
                       uint64_t deadline_ns);
uint64_t request_hold(uint64_t session, enum lki_message_type type, uint32_t segment, uint32_t lock,
                      uint32_t attachment);
uint64_t request_cancel(uint64_t session, uint64_t request);
uint64_t request_ask(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner);
uint64_t request_complain(uint64_t session, uint32_t segment, uint32_t lock, uint32_t owner,
                          uint64_t sequence);
uint64_t request_force(uint64_t session, const char *name, uint32_t lock, const char *reason);
uint64_t request_holder(uint64_t session, uint32_t segment, uint32_t lock);
uint64_t request_list(uint64_t session, uint32_t what, const char *name, uint64_t cursor);
uint64_t request_goodbye(uint64_t session);
uint64_t request_monitor(uint64_t session, const char *name);

/* Opens (with LK_CREATE among the flags if wanted) and asserts that it worked. */
struct lki_opened opened(uint64_t session, const char *name, uint32_t flags);

/* --- What came of it --- */
const struct recorded *reply(uint64_t session,
                             uint64_t id);                /* NULL: none yet; asserts at most one */
enum lki_status status_of(uint64_t session, uint64_t id); /* of RESULT or GRANTED; asserts one */
const char *detail_of(uint64_t session, uint64_t id);
size_t count_effects(enum lkd_effect_kind kind); /* since the last forget_effects() */
const struct recorded *last_effect(enum lkd_effect_kind kind);
size_t count_wakes(uint32_t segment, uint32_t slot);
size_t count_logged(const char *text); /* lines of the log that have it */
bool logged(const char *text);
bool was_disconnected(uint64_t session);
void forget_effects(void);

/* --- A native client --- */
struct native {
    uint64_t session;
    uint32_t segment;
    struct lki_area area;
    struct lki_party party;
    struct lki_wait wait;
};
void native_init(struct native *native, uint64_t session, const struct lki_opened *opened);
enum lki_verdict native_try(struct native *native, uint32_t lock, enum lki_mode mode);
void native_wait(struct native *native, uint32_t lock,
                 enum lki_mode mode); /* begins; has to sleep */
enum lki_verdict native_step(struct native *native);
void native_release(struct native *native, uint32_t lock);

/* The next EVENT to the session from record *position on, which moves behind it; NULL: no more. */
const struct recorded *next_event(uint64_t session, size_t *position);

/* Asserts on a reply's status, with the text in the message. */
#define EXPECT_STATUS(session, id, expected)                                                       \
    do {                                                                                           \
        enum lki_status lki_seen = status_of(session, id);                                         \
        cr_expect(eq(int, lki_seen, expected), "%s", detail_of(session, id));                      \
    } while (0)
