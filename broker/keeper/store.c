/* SPDX-License-Identifier: MIT */
#include "broker/keeper/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/io/log.h"
#include "broker/io/peer.h"

#define LEDGER_NAME "ledger"
#define NAME_BYTES 16 /* a letter and a number */

/* The memory of one segment: what stands in its record, and what the manager calls it. Short names,
 * since there may be thousands. */
enum part {
    AREA,
    DATA,
    READ_ONLY,
    PARTS,
};

struct lkd_stored {
    uint32_t number; /* 0: nothing is stored */
    uint32_t parts;  /* which, as bits */
};

static const char letters[PARTS] = {'a', 'd', 'r'};

static int32_t *part_of(struct lkd_segment_record *record, enum part part)
{
    switch (part) {
    case AREA:
        return &record->area_fd;
    case DATA:
        return &record->data_fd;
    case READ_ONLY:
        return &record->read_only_fd;
    case PARTS:
        break;
    }
    return NULL;
}

static void name_part(uint32_t number, enum part part, char out_name[NAME_BYTES])
{
    (void)snprintf(out_name, NAME_BYTES, "%c%" PRIu32, letters[part], number);
}

static uint32_t used(const _Atomic uint32_t *count)
{
    /* acquire: records below it have a state */
    return atomic_load_explicit(count, memory_order_acquire);
}

/* Maps and views a ledger that has something in it. NULL: it is none, or one for other limits. */
static void *map_ledger(int fd, const struct lkd_limits *limits, struct lkd_ledger *out_ledger)
{
    struct stat status;
    uint64_t bytes = lkd_ledger_bytes(limits);
    if (fd < 0 || fstat(fd, &status) < 0 || (uint64_t)status.st_size != bytes)
        return NULL;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (lkd_ledger_view(out_ledger, base, limits) == 1)
        return base;
    (void)munmap(base, bytes);
    return NULL;
}

/* --- Lifecycle --- */

static void note_stored(struct lkd_store *store, struct lkd_segment_record *record,
                        struct lkd_stored *stored)
{
    if (lkd_record_state(&record->state) == LKD_RECORD_FREE)
        return;
    stored->number = record->number;
    for (enum part part = AREA; part < PARTS; part++) {
        if (*part_of(record, part) < 0)
            continue;
        stored->parts |= 1u << part;
        store->fds++;
    }
}

int lkd_store_init(struct lkd_store *store, struct lkd_service *service,
                   const struct lkd_limits *limits, int ledger_fd)
{
    struct lkd_ledger ledger;
    *store = (struct lkd_store){.service = service};
    if (!lkd_service_is_managed(service))
        return 0;
    uint32_t count = (uint32_t)lkd_limits_max(limits, LKD_SEGMENTS);
    store->stored = calloc(count, sizeof(*store->stored));
    if (store->stored == NULL)
        return -ENOMEM;
    store->stored_max = count;
    void *base = map_ledger(ledger_fd, limits, &ledger);
    if (base == NULL)
        return 0;
    store->has_ledger = true;
    for (uint32_t i = 0; i < used(&ledger.header->segments_used) && i < count; i++)
        note_stored(store, &ledger.segments[i], &store->stored[i]);
    (void)munmap(base, lkd_ledger_bytes(limits));
    return 0;
}

void lkd_store_deinit(struct lkd_store *store)
{
    free(store->stored);
    *store = (struct lkd_store){.service = store->service};
}

/* --- Telling the manager --- */

static bool is_full(struct lkd_store *store)
{
    if (store->fds + PARTS <= LKD_STORE_FDS_MAX)
        return false;
    if (!store->full)
        lkd_log_line(
            LKD_LOG_WARNING,
            "the service manager keeps no more than %u descriptors: segments that come now "
            "are lost should this broker be lost, and their names refused then",
            LKD_STORE_FDS_MAX);
    store->full = true;
    return true;
}

/* May be called again for a segment of which a part was stored. */
static int store_segment(struct lkd_store *store, struct lkd_stored *stored,
                         struct lkd_segment_record *record)
{
    char name[NAME_BYTES];
    for (enum part part = AREA; part < PARTS; part++) {
        int fd = *part_of(record, part);
        if (fd < 0 || stored->parts & 1u << part)
            continue;
        name_part(record->number, part, name);
        int r = lkd_service_store(store->service, name, fd);
        if (r < 0)
            return r;
        stored->number = record->number;
        stored->parts |= 1u << part;
        store->fds++;
    }
    return 0;
}

static int forget_segment(struct lkd_store *store, struct lkd_stored *stored)
{
    char name[NAME_BYTES];
    for (enum part part = AREA; part < PARTS; part++) {
        if (!(stored->parts & 1u << part))
            continue;
        name_part(stored->number, part, name);
        int r = lkd_service_forget(store->service, name);
        if (r < 0)
            return r;
        stored->parts &= ~(1u << part);
        store->fds--;
    }
    stored->number = 0;
    store->full = false;
    return 0;
}

static int update_record(struct lkd_store *store, struct lkd_stored *stored,
                         struct lkd_segment_record *record)
{
    uint32_t number = lkd_record_state(&record->state) == LKD_RECORD_FREE ? 0 : record->number;
    int r = stored->number != 0 && stored->number != number ? forget_segment(store, stored) : 0;
    if (r < 0 || number == 0 || (stored->number == 0 && is_full(store)))
        return r;
    return store_segment(store, stored, record);
}

static int store_ledger(struct lkd_store *store, int ledger_fd)
{
    int r = store->has_ledger ? 0 : lkd_service_store(store->service, LEDGER_NAME, ledger_fd);
    store->has_ledger = r >= 0;
    return r;
}

bool lkd_store_update(struct lkd_store *store, const struct lkd_ledger *ledger, int ledger_fd)
{
    uint32_t count = used(&ledger->header->segments_used);
    if (count == 0 || store->stored_max == 0)
        return true;
    /* What the manager cannot be told at all, for another reason than a full queue, it never will. */
    if (store_ledger(store, ledger_fd) == -EAGAIN)
        return false;
    for (uint32_t i = 0; i < count && i < store->stored_max; i++)
        if (update_record(store, &store->stored[i], &ledger->segments[i]) == -EAGAIN)
            return false;
    return true;
}

void lkd_store_clear(struct lkd_store *store)
{
    if (store->stored_max == 0)
        return;
    /* First: without it the rest is of no use, and is dropped at the next start at the latest. */
    if (store->has_ledger)
        (void)lkd_service_forget(store->service, LEDGER_NAME);
    for (uint32_t i = 0; i < store->stored_max; i++)
        (void)forget_segment(store, &store->stored[i]);
}

/* --- Going on from it --- */

static struct lkd_inherited *find_inherited(struct lkd_service *service, const char *name)
{
    for (size_t i = 0; i < service->inherited_count; i++)
        if (service->inherited[i].fd >= 0 && strcmp(service->inherited[i].name, name) == 0)
            return &service->inherited[i];
    return NULL;
}

/* False: a part of it is missing. */
static bool restore_segment(struct lkd_service *service, struct lkd_segment_record *record)
{
    struct lkd_inherited *found[PARTS] = {NULL};
    char name[NAME_BYTES];
    for (enum part part = AREA; part < PARTS; part++) {
        name_part(record->number, part, name);
        found[part] = find_inherited(service, name);
        if (*part_of(record, part) >= 0 && found[part] == NULL)
            return false;
    }
    for (enum part part = AREA; part < PARTS; part++)
        if (*part_of(record, part) >= 0)
            *part_of(record, part) = lkd_inherited_take(found[part]);
    return true;
}

static bool has_segment(const struct lkd_ledger *ledger, uint32_t number)
{
    for (uint32_t i = 0; i < used(&ledger->header->segments_used); i++)
        if (lkd_record_state(&ledger->segments[i].state) != LKD_RECORD_FREE &&
            ledger->segments[i].number == number)
            return true;
    return false;
}

static uint32_t restore_segments(struct lkd_service *service, struct lkd_ledger *ledger)
{
    uint32_t lost = 0;
    for (uint32_t i = 0; i < used(&ledger->header->segments_used); i++) {
        struct lkd_segment_record *record = &ledger->segments[i];
        if (lkd_record_state(&record->state) == LKD_RECORD_FREE || restore_segment(service, record))
            continue;
        lost++;
        lkd_record_leave(&record->state, LKD_RECORD_FREE);
    }
    for (uint32_t i = 0; lost > 0 && i < used(&ledger->header->attachments_used); i++) {
        struct lkd_attachment_record *record = &ledger->attachments[i];
        if (lkd_record_state(&record->state) != LKD_RECORD_FREE &&
            !has_segment(ledger, record->segment))
            lkd_record_leave(&record->state, LKD_RECORD_FREE);
    }
    return lost;
}

/* A pidfd of a process that has ended, for all those that cannot be found any more. */
static int pidfd_of_the_dead(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid < 0)
        return -errno;
    int pidfd = pidfd_open(pid, 0);
    (void)waitpid(pid, NULL, 0);
    return pidfd;
}

static bool is_same_process(const struct lkd_session_record *a, const struct lkd_session_record *b)
{
    return a->pid == b->pid && a->process_key[0] == b->process_key[0] &&
           a->process_key[1] == b->process_key[1];
}

/* The pidfd that an earlier record of the same process has by now, or one of its own. -1: none. */
static int find_pidfd(const struct lkd_ledger *ledger, uint32_t index)
{
    const struct lkd_session_record *record = &ledger->sessions[index];
    const struct lkd_process_key key = {.first = record->process_key[0],
                                        .second = record->process_key[1]};
    for (uint32_t i = 0; i < index; i++)
        if (lkd_record_state(&ledger->sessions[i].state) != LKD_RECORD_FREE &&
            is_same_process(&ledger->sessions[i], record))
            return ledger->sessions[i].pidfd;
    return lkd_peer_find(record->pid, &key);
}

/* dead: stands for all processes that have ended. Returns how many still run. */
static int restore_sessions(struct lkd_ledger *ledger, int dead)
{
    int living = 0;
    for (uint32_t i = 0; i < used(&ledger->header->sessions_used); i++) {
        struct lkd_session_record *record = &ledger->sessions[i];
        if (lkd_record_state(&record->state) == LKD_RECORD_FREE)
            continue;
        if (record->pidfd == LKD_NO_FD) { /* it was being opened */
            lkd_record_leave(&record->state, LKD_RECORD_FREE);
            continue;
        }
        record->socket_fd = LKD_NO_FD;
        /* relaxed: nobody else looks at it before there is a worker */
        atomic_fetch_or_explicit(&record->flags, LKD_SESSION_CUT, memory_order_relaxed);
        int pidfd = find_pidfd(ledger, i);
        living += pidfd >= 0;
        record->pidfd = pidfd >= 0 ? pidfd : dead;
    }
    return living;
}

int lkd_store_restore(struct lkd_service *service, const struct lkd_limits *limits)
{
    struct lkd_ledger ledger;
    struct lkd_inherited *stored = find_inherited(service, LEDGER_NAME);
    if (stored == NULL)
        return -1;
    void *base = map_ledger(stored->fd, limits, &ledger);
    if (base == NULL) {
        lkd_log_line(LKD_LOG_WARNING, "what the service manager kept is of another version or for "
                                      "other limits: begins with nothing");
        return -1;
    }
    int dead = pidfd_of_the_dead();
    if (dead < 0) {
        lkd_log_line(LKD_LOG_WARNING, "cannot go on from what the service manager kept: %s",
                     strerror(-dead));
        (void)munmap(base, lkd_ledger_bytes(limits));
        return -1;
    }
    uint32_t lost = restore_segments(service, &ledger);
    int living = restore_sessions(&ledger, dead); /* a worker closes `dead` if nobody needs it */
    (void)munmap(base, lkd_ledger_bytes(limits));
    lkd_log_line(LKD_LOG_WARNING,
                 "the broker before was lost: goes on with what the service manager kept of it "
                 "(connections of living processes that are lost: %d; segments not kept: %u)",
                 living, lost);
    return lkd_inherited_take(stored);
}

bool lkd_store_has_name(int ledger_fd, const struct lkd_limits *limits, uint32_t name_kind,
                        uint32_t name_id, const uint8_t *name, uint32_t name_bytes)
{
    struct lkd_ledger ledger;
    void *base = map_ledger(ledger_fd, limits, &ledger);
    bool has = false;
    for (uint32_t i = 0; base != NULL && !has && i < used(&ledger.header->segments_used); i++) {
        const struct lkd_segment_record *record = &ledger.segments[i];
        /* relaxed: written by a worker that has ended */
        uint32_t facts = atomic_load_explicit(&record->facts, memory_order_relaxed);
        has = lkd_record_state(&record->state) != LKD_RECORD_FREE && facts & LKD_SEGMENT_NAMED &&
              record->name_kind == name_kind && record->name_id == name_id &&
              record->name_bytes == name_bytes && memcmp(record->name, name, name_bytes) == 0;
    }
    if (base != NULL)
        (void)munmap(base, lkd_ledger_bytes(limits));
    return has;
}
