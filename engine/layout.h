/* SPDX-License-Identifier: MIT */
/* The control area of a segment: what lies where in the memory that clients and broker share.
 * Layout version 2, native byte order, one machine only. Fixed-width types and offsets, no
 * pointers. Everything here can be written by any client of the segment: counts come from struct
 * lki_area, never from the header again; a word is copied once, the copy checked, and the copy
 * used. */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bounds.h"

#define LKI_LAYOUT_MAGIC UINT32_C(0x6b4c6b31) /* "1kLk" */
#define LKI_LAYOUT_MAJOR 2
#define LKI_LAYOUT_MINOR 0

/* The lock word. An id is generation and slot; slot 0 is never given, so a free word has id 0. */
#define LKI_PARKED (UINT32_C(1) << 31) /* the next unlock looks for waiters */
#define LKI_DIED (UINT32_C(1) << 30)   /* an owner died inside, nobody has repaired the data */
#define LKI_FAIR (UINT32_C(1) << 29)   /* on a free word: reserved for the oldest waiter */
#define LKI_BIASED (UINT32_C(1) << 28) /* beside READ: readers come and go without a fence */
#define LKI_UPDATE (UINT32_C(1) << 27) /* beside an id: it writes nothing, readers may join */
#define LKI_READ (UINT32_C(1) << 26)   /* readers may be inside: a taker looks at the cells */
#define LKI_ID_MASK UINT32_C(0x03ffffff)
#define LKI_SLOT_MASK UINT32_C(0xffff)
#define LKI_GENERATION_SHIFT 16
#define LKI_GENERATION_MAX 1023u

#define LKI_LATE UINT32_C(1)      /* in an attachment's futex: stopped, passed over */
#define LKI_WAKE_STEP UINT32_C(2) /* a waker adds this to the futex */

/* The wait fact of an attachment, one atomic of 64 bits: kind 63..62, mode 61..60, IMPATIENT 59,
 * lock index 51..32, ticket 31..0. Tickets are compared modulo 2^32, among waiters of one moment.
 */
#define LKI_WAIT_NONE UINT64_C(0)
#define LKI_WAIT_KIND_MASK (UINT64_C(3) << 62)
#define LKI_WAIT_QUEUED (UINT64_C(1) << 62)   /* waits for its turn */
#define LKI_WAIT_DRAINING (UINT64_C(2) << 62) /* owns the word, waits for readers to leave */
#define LKI_WAIT_MODE_SHIFT 60
#define LKI_WAIT_IMPATIENT (UINT64_C(1) << 59)
#define LKI_WAIT_LOCK_SHIFT 32
#define LKI_WAIT_LOCK_MASK UINT64_C(0xfffff)

static_assert(LKI_LOCKS_MAX <= LKI_WAIT_LOCK_MASK + 1, "a lock index fits in the wait fact");
static_assert(LKI_ATTACHMENTS_MAX < LKI_SLOT_MASK, "a slot fits in the lock word");

enum lki_segment_state { /* stored as uint32_t */
                         LKI_SEGMENT_UNPUBLISHED = 0,
                         LKI_SEGMENT_PUBLISHED = 1,
};

struct lki_header {         /* one page */
    _Atomic uint32_t magic; /* LKI_LAYOUT_MAGIC, stored last with release [shm-ready] */
    uint16_t version_major;
    uint16_t version_minor;
    uint64_t area_bytes;
    _Atomic uint32_t locks; /* atomic, like what follows: others may write it while it is checked */
    _Atomic uint32_t attachments; /* slots 1..attachments; the array has attachments + 1 entries */
    uint64_t hot_offset;
    uint64_t attachment_offset;
    uint64_t cold_offset;
    uint64_t patience_ns; /* LKI_PATIENCE_NONE: strict first in, first out */
    uint64_t data_bytes_max;
    _Atomic uint64_t data_bytes;       /* raised by the broker alone */
    _Atomic uint32_t attachments_used; /* highest slot ever given [slot-count] */
    _Atomic uint32_t state;            /* enum lki_segment_state */
    _Atomic uint32_t truncated;        /* not 0: the file was truncated under the map */
    _Atomic uint32_t bias;             /* not 0: readers may set BIASED */
    uint8_t padding[4096 - 88];
};

struct lki_lock_hot { /* one cache line per lock: all that the fast paths touch */
    _Atomic uint32_t word;
    _Atomic uint32_t ticket;
    _Atomic uint64_t sequence;
    _Atomic uint64_t dirty_sequence; /* the hold that declared; the range counts only for it */
    _Atomic uint64_t dirty_offset;
    _Atomic uint64_t dirty_length;
    uint8_t padding[24];
};

struct lki_attachment { /* four cache lines */
    /* The mailbox. */
    _Atomic uint32_t futex; /* LATE and the count of wakes; what its owner sleeps on */
    _Atomic uint32_t id;    /* generation and slot while live, else 0; written by the broker */
    _Atomic uint64_t wait;  /* see LKI_WAIT_... */
    _Atomic uint32_t flags; /* LKI_ATTACHMENT_...; written by the broker, BROKERED before the id */
    uint32_t padding0;
    _Atomic uint64_t waiting_since_ns; /* for people: when the present wait began */
    _Atomic uint64_t held_since_ns;    /* for people: when the last hold to exit began */
    uint64_t reserved;
    uint8_t padding1[16];
    /* The hold cells: lock index + 1 of each lock held shared, 0 when empty. */
    _Atomic uint32_t cells[LKI_SHARED_HOLDS_MAX];
    uint8_t padding2[128];
};

#define LKI_ATTACHMENT_BROKERED UINT32_C(1) /* its waits are driven by the broker */
#define LKI_ATTACHMENT_OWING UINT32_C(2)    /* its repair has changed something: wake everybody */

struct lki_lock_cold {           /* what is rarely touched */
    _Atomic uint32_t name_bytes; /* 0: no name; stored with release after the name [lock-name] */
    uint32_t kind;               /* reserved for semaphores and queues */
    /* The last recovery; written by the broker before the word is freed. */
    _Atomic uint32_t recovery_cause; /* enum lk_recovery_cause; 0: none yet */
    int32_t recovery_pid;
    uint32_t recovery_uid;
    uint32_t recovery_declared;
    uint64_t recovery_token;
    uint64_t recovery_when_ns;
    uint64_t recovery_dirty_offset;
    uint64_t recovery_dirty_length;
    uint8_t recovery_command[32]; /* zero-terminated */
    uint8_t name[256];
    uint8_t padding[40];
};

static_assert(sizeof(struct lki_header) == 4096, "layout version 2");
static_assert(offsetof(struct lki_header, data_bytes) == 64, "layout version 2");
static_assert(sizeof(struct lki_lock_hot) == 64, "layout version 2");
static_assert(sizeof(struct lki_attachment) == 256, "layout version 2");
static_assert(offsetof(struct lki_attachment, cells) == 64, "layout version 2");
static_assert(sizeof(struct lki_lock_cold) == 384, "layout version 2");
static_assert(sizeof(_Atomic uint32_t) == 4 && ATOMIC_INT_LOCK_FREE == 2, "words shared as is");
static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "words shared as is");

#define LKI_PATIENCE_NONE UINT64_C(0)
#define LKI_PATIENCE_DEFAULT_NS UINT64_C(500000)

/* A checked view of one mapped control area. The counts are private copies. Plain data; the mapping
 * belongs to whoever made it and must outlive the view. */
struct lki_area {
    struct lki_header *header;
    struct lki_lock_hot *hot;
    struct lki_attachment *attachments; /* index 0 is not used */
    struct lki_lock_cold *cold;
    uint32_t locks;
    uint32_t attachments_max;
    uint64_t patience_ns;
    uint64_t area_bytes;
    bool bias; /* readers may set BIASED: the broker can make the barrier that ends it */
};

struct lki_area_config {
    uint32_t locks;           /* 1..LKI_LOCKS_MAX */
    uint32_t attachments_max; /* 1..LKI_ATTACHMENTS_MAX */
    uint64_t patience_ns;
    uint64_t data_bytes;
    uint64_t data_bytes_max;
    uint64_t sequence_start; /* even; the first token of every lock */
    enum lki_segment_state state;
    bool bias; /* see struct lki_area */
};

/* Bytes that a control area with these counts needs, a multiple of 4096. Pure. */
uint64_t lki_area_bytes(uint32_t locks, uint32_t attachments_max);

/* How many of these bytes, from the beginning on, lki_area_format() writes to: with many locks it is
 * the kernel's work of providing them that takes long. Pure. */
uint64_t lki_area_format_bytes(uint32_t locks, uint32_t attachments_max);

/* Lays out a fresh, zeroed mapping of lki_area_bytes() and fills *out_area. The broker only.
 * Returns 0; -EINVAL when a count is out of bounds or the sequence is odd. */
int lki_area_format(void *base, const struct lki_area_config *config, struct lki_area *out_area);

/* A view of what lki_area_format() laid out with these counts, whatever its header says by now. The
 * broker only, which remembers them. */
void lki_area_restore(void *base, uint32_t locks, uint32_t attachments_max, uint64_t patience_ns,
                      struct lki_area *out_area);

/* Checks a mapping of mapped_bytes made by somebody else and fills *out_area.
 * Returns 0; -EPROTO when it is not a control area, of another major version, or inconsistent. */
int lki_area_view(void *base, uint64_t mapped_bytes, struct lki_area *out_area);

/* The attachment that a word or id names, or NULL when the slot is out of bounds. */
static inline struct lki_attachment *lki_area_attachment(const struct lki_area *area, uint32_t id)
{
    uint32_t slot = id & LKI_SLOT_MASK;
    return slot != 0 && slot <= area->attachments_max ? &area->attachments[slot] : NULL;
}

static inline uint32_t lki_wait_lock(uint64_t fact)
{
    return (uint32_t)(fact >> LKI_WAIT_LOCK_SHIFT & LKI_WAIT_LOCK_MASK);
}

static inline uint32_t lki_wait_ticket(uint64_t fact)
{
    return (uint32_t)fact;
}

/* 1 shared, 2 exclusive, 3 update; 0 is a scribble. */
static inline uint32_t lki_wait_mode(uint64_t fact)
{
    return (uint32_t)(fact >> LKI_WAIT_MODE_SHIFT) & 3;
}

static inline bool lki_wait_is(uint64_t fact, uint64_t kind, uint32_t lock)
{
    return (fact & LKI_WAIT_KIND_MASK) == kind && lki_wait_lock(fact) == lock;
}

/* How many slots were ever given: scans go from 1 to here. Never beyond the array. */
static inline uint32_t lki_area_slots_used(const struct lki_area *area)
{
    /* [slot-count] seq_cst, pairs with the store in lki_attachment_open(): a slot whose owner has
     * published a wait or a cell is counted by everyone who looks for it afterwards. */
    uint32_t used = atomic_load_explicit(&area->header->attachments_used, memory_order_seq_cst);
    return used < area->attachments_max ? used : area->attachments_max;
}
