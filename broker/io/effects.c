/* SPDX-License-Identifier: MIT */
#include "broker/io/daemon.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1 /* the default ends the daemon */
#define uthash_nonfatal_oom(element) ((element)->hashed = false)
#include <uthash.h>

#include "broker/io/hostile_fd.h"
#include "broker/io/link.h"
#include "broker/io/log.h"
#include "broker/io/segment_memory.h"
#include "common/assert.h"
#include "common/clock.h"
#include "common/fd.h"

/* One segment, by the core's number. Making and growing may take the kernel long (a gigabyte to
 * reserve, a slow file system), so what may is done on a helper thread; one job at a time, since
 * the core asks for one at a time. */
struct lkd_memory_entry {
    struct lkd_daemon *daemon;
    uint32_t number;
    bool hashed;
    bool working; /* on a helper thread: the memory is its own */
    bool dropped; /* the core does not want it any more */
    bool viewed;  /* area is valid */
    int offered_fd;
    struct lkd_segment_spec spec;
    struct lkd_segment_memory memory;
    struct lkd_segment_made made;
    int grown;
    struct lki_area area;
    uv_work_t work;
    UT_hash_handle hh;
};

static struct lkd_memory_entry *find(struct lkd_daemon *daemon, uint32_t number)
{
    struct lkd_memory_entry *entry = NULL;
    HASH_FIND(hh, daemon->segments, &number, sizeof(number), entry);
    return entry;
}

static void entry_free(struct lkd_memory_entry *entry)
{
    if (entry->hashed)
        HASH_DELETE(hh, entry->daemon->segments, entry);
    lkd_segment_memory_deinit(&entry->memory);
    (void)lki_close(entry->offered_fd);
    free(entry);
}

/* --- Making --- */

/* Memory can be opened anew at any time, by ourselves; for a file that takes rights which a worker
 * has not. */
static void open_for_readers(struct lkd_memory_entry *entry)
{
    int fd = lkd_worker_reopen_read_only(entry->daemon->options.start, entry->memory.data_fd);
    if (fd >= 0) {
        lkd_segment_memory_set_read_only(&entry->memory, fd);
        entry->made.read_only_fd = fd;
        return;
    }
    lkd_segment_memory_deinit(&entry->memory);
    entry->made = (struct lkd_segment_made){.result = fd};
}

static void make(uv_work_t *work)
{
    struct lkd_memory_entry *entry = LKI_CONTAINER_OF(work, struct lkd_memory_entry, work);
    lkd_segment_memory_make(&entry->memory, &entry->spec, lki_steal_fd(&entry->offered_fd),
                            &entry->made);
    if (entry->made.result == 0 && entry->spec.offered)
        open_for_readers(entry);
}

/* For the keeper's eyes. One that it misses it sees with the next. */
static void tell_segments(const struct lkd_daemon *daemon)
{
    if (daemon->options.tell_segments)
        (void)lkd_worker_tell(daemon->options.start, LKD_REQUEST_SEGMENTS);
}

static void finish_make(struct lkd_memory_entry *entry)
{
    struct lkd_daemon *daemon = entry->daemon;
    uint32_t number = entry->number;
    struct lkd_segment_made made = entry->made;
    if (made.result < 0) {
        entry_free(entry);
        lkd_core_segment_made(daemon->core, number, &made, lki_clock_now_ns());
        return;
    }
    lkd_core_segment_made(daemon->core, number, &made, lki_clock_now_ns());
    /* The core has laid it out, and no client has it yet: what the header says now can be believed.
     */
    int r = lkd_instance_use_epoch(daemon->instance, lkd_core_token_epoch_s(daemon->core));
    if (r < 0)
        lkd_log_line(LKD_LOG_WARNING, "cannot write %s.lock: %s", daemon->instance->path,
                     strerror(-r));
    tell_segments(daemon);
    entry->viewed =
        lki_area_view(entry->memory.area_base, entry->memory.area_bytes, &entry->area) == 0;
}

static void after_make(uv_work_t *work, int status)
{
    (void)status;
    struct lkd_memory_entry *entry = LKI_CONTAINER_OF(work, struct lkd_memory_entry, work);
    struct lkd_daemon *daemon = entry->daemon;
    daemon->works--;
    entry->working = false;
    if (entry->dropped)
        entry_free(entry);
    else
        finish_make(entry);
    lkd_daemon_note_use(daemon);
    lkd_daemon_settle(daemon);
}

static void refuse_make(struct lkd_daemon *daemon, uint32_t number, int result)
{
    struct lkd_segment_made made = {.result = result};
    lkd_core_segment_made(daemon->core, number, &made, lki_clock_now_ns());
}

static void make_segment(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    struct lkd_memory_entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL) {
        refuse_make(daemon, effect->segment, -ENOMEM);
        return;
    }
    entry->daemon = daemon;
    entry->number = effect->segment;
    entry->spec = effect->spec;
    entry->memory = (struct lkd_segment_memory)LKD_SEGMENT_MEMORY_EMPTY;
    struct lkd_connection *offerer =
        effect->spec.offered ? lkd_link_connection(daemon, effect->session) : NULL;
    entry->offered_fd = offerer != NULL ? lkd_connection_take_offer(offerer) : -1;
    entry->hashed = true;
    HASH_ADD(hh, daemon->segments, number, sizeof(entry->number), entry);
    if (!entry->hashed) {
        entry_free(entry);
        refuse_make(daemon, effect->segment, -ENOMEM);
        return;
    }
    lkd_daemon_note_use(daemon);
    if (!lkd_segment_memory_takes_long(&entry->spec)) {
        make(&entry->work);
        finish_make(entry);
        return;
    }
    entry->working = true;
    daemon->works++;
    int r = uv_queue_work(&daemon->loop, &entry->work, make, after_make);
    LKI_ASSERT(r == 0); /* fails without a work callback alone */
}

int lkd_effects_adopt_segment(struct lkd_daemon *daemon, const struct lkd_left_segment *left)
{
    struct lkd_memory_entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL)
        return -ENOMEM;
    entry->daemon = daemon;
    entry->number = left->number;
    entry->offered_fd = -1;
    int r = lkd_segment_memory_adopt(&entry->memory, left);
    if (r < 0) { /* its descriptors are for a successor to find */
        free(entry);
        return r;
    }
    entry->spec.area_bytes = left->area_bytes;
    entry->hashed = true;
    HASH_ADD(hh, daemon->segments, number, sizeof(entry->number), entry);
    if (!entry->hashed)
        return -ENOMEM; /* and the process ends */
    lki_area_restore(entry->memory.area_base, left->locks, left->attachments_max, 0, &entry->area);
    entry->viewed = true;
    return lkd_core_adopt_segment(daemon->core, left, entry->memory.area_base);
}

/* --- Growing --- */

static void grow(uv_work_t *work)
{
    struct lkd_memory_entry *entry = LKI_CONTAINER_OF(work, struct lkd_memory_entry, work);
    entry->grown =
        lkd_segment_memory_grow(&entry->memory, entry->spec.data_bytes, entry->spec.reserve);
}

static void after_grow(uv_work_t *work, int status)
{
    (void)status;
    struct lkd_memory_entry *entry = LKI_CONTAINER_OF(work, struct lkd_memory_entry, work);
    struct lkd_daemon *daemon = entry->daemon;
    daemon->works--;
    entry->working = false;
    if (entry->dropped)
        entry_free(entry);
    else
        lkd_core_segment_grown(daemon->core, entry->number, entry->grown, lki_clock_now_ns());
    lkd_daemon_settle(daemon);
}

static void grow_segment(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    struct lkd_memory_entry *entry = find(daemon, effect->segment);
    if (entry == NULL || entry->working) {
        LKI_ASSERT(entry == NULL); /* one job at a time */
        lkd_core_segment_grown(daemon->core, effect->segment, -ESTALE, lki_clock_now_ns());
        return;
    }
    entry->spec.data_bytes = effect->spec.data_bytes;
    entry->spec.reserve = effect->spec.reserve;
    if (!entry->memory.is_file && !entry->spec.reserve) {
        grow(&entry->work);
        lkd_core_segment_grown(daemon->core, entry->number, entry->grown, lki_clock_now_ns());
        return;
    }
    entry->working = true;
    daemon->works++;
    int r = uv_queue_work(&daemon->loop, &entry->work, grow, after_grow);
    LKI_ASSERT(r == 0);
}

/* --- The rest --- */

static void drop_segment(struct lkd_daemon *daemon, uint32_t number)
{
    struct lkd_memory_entry *entry = find(daemon, number);
    if (entry == NULL)
        return;
    if (entry->working)
        entry->dropped = true;
    else
        entry_free(entry);
    tell_segments(daemon);
    lkd_daemon_note_use(daemon);
}

/* Everybody who sleeps there: one is legitimate, and whoever else does must not swallow the wake.
 */
static void wake(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    struct lkd_memory_entry *entry = find(daemon, effect->segment);
    struct lki_attachment *attachment =
        entry != NULL && entry->viewed ? lki_area_attachment(&entry->area, effect->slot) : NULL;
    if (attachment != NULL)
        (void)syscall(SYS_futex, &attachment->futex, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void send_event(struct lkd_daemon *daemon, struct lkd_connection *connection,
                       const struct lkd_effect *effect)
{
    uint64_t lost_before = effect->message.as.event.lost;
    if (!lkd_connection_send_event(connection, &effect->message))
        lkd_core_events_lost(daemon->core, effect->session, lost_before + 1);
}

static void send_message(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    struct lkd_connection *connection = lkd_link_connection(daemon, effect->session);
    if (connection == NULL)
        return;
    if (effect->message.type == LKI_REPLY_EVENT) {
        send_event(daemon, connection, effect);
        return;
    }
    struct lkd_segment_fds fds = {.count = 0};
    if (effect->fds != LKD_FDS_NONE) {
        struct lkd_memory_entry *entry = find(daemon, effect->segment);
        int r = entry != NULL ? lkd_segment_memory_fds(&entry->memory, effect->fds, &fds) : -ESTALE;
        if (r < 0) {
            /* The core counts it as attached; without descriptors it could never do anything. */
            lkd_connection_drop(connection, "no descriptors left to send it its segment");
            return;
        }
    }
    lkd_connection_send(connection, &effect->message, &fds);
    lkd_segment_fds_deinit(&fds);
}

static void disconnect(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    struct lkd_connection *connection = lkd_link_connection(daemon, effect->session);
    if (connection == NULL)
        return;
    lkd_connection_log(connection, effect->warning ? LKD_LOG_WARNING : LKD_LOG_DEBUG, effect->text);
    /* Before the socket goes. */
    lkd_core_session_lost(daemon->core, effect->session, lki_clock_now_ns());
    lkd_connection_close(connection);
}

/* The keeper alone may send signals; its answer comes later, see lkd_daemon_hear_keeper(). */
static void signal_process(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    int pidfd = lkd_processes_pidfd(&daemon->processes, effect->process);
    if (pidfd >= 0 &&
        lkd_worker_request_signal(daemon->options.start, pidfd, effect->signal, effect->process))
        return;
    lkd_core_process_signaled(daemon->core, effect->process, effect->signal,
                              pidfd < 0 ? pidfd : -EAGAIN, lki_clock_now_ns());
}

void lkd_daemon_hear_keeper(struct lkd_daemon *daemon)
{
    struct lkd_request answer;
    while (lkd_worker_answer(daemon->options.start, &answer))
        if (answer.kind == LKD_REQUEST_SIGNAL)
            lkd_core_process_signaled(daemon->core, answer.process, answer.value, answer.result,
                                      lki_clock_now_ns());
    lkd_daemon_settle(daemon);
}

void lkd_effect_carry_out(struct lkd_daemon *daemon, const struct lkd_effect *effect)
{
    switch (effect->kind) {
    case LKD_EFFECT_NONE:
        break;
    case LKD_EFFECT_SEND:
        send_message(daemon, effect);
        break;
    case LKD_EFFECT_DISCONNECT:
        disconnect(daemon, effect);
        break;
    case LKD_EFFECT_MAKE_SEGMENT:
        make_segment(daemon, effect);
        break;
    case LKD_EFFECT_GROW_SEGMENT:
        grow_segment(daemon, effect);
        break;
    case LKD_EFFECT_DROP_SEGMENT:
        drop_segment(daemon, effect->segment);
        break;
    case LKD_EFFECT_WAKE:
        wake(daemon, effect);
        break;
    case LKD_EFFECT_CHECK_PROCESS:
        lkd_processes_check(&daemon->processes, effect->process);
        break;
    case LKD_EFFECT_SIGNAL_PROCESS:
        signal_process(daemon, effect);
        break;
    case LKD_EFFECT_LOOK_AT_PROCESS:
        lkd_core_process_looked(daemon->core, effect->process,
                                lkd_processes_state(&daemon->processes, effect->process),
                                lki_clock_now_ns());
        break;
    case LKD_EFFECT_FORGET_SESSION:
        lkd_link_forget(daemon, effect->session);
        lkd_daemon_note_use(daemon);
        break;
    case LKD_EFFECT_LOG:
        lkd_log_line(effect->warning ? LKD_LOG_WARNING : LKD_LOG_INFO, "%s", effect->text);
        break;
    }
}

void lkd_effects_deinit(struct lkd_daemon *daemon)
{
    struct lkd_memory_entry *entry;
    struct lkd_memory_entry *next;
    HASH_ITER(hh, daemon->segments, entry, next)
    {
        if (entry->working)
            entry->dropped = true;
        else
            entry_free(entry);
    }
}
