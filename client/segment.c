/* SPDX-License-Identifier: MIT */
#include "client/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/error.h"
#include "client/lock.h"
#include "client/names.h"
#include "client/options.h"
#include "client/wait.h"
#include "client/window.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd.h"

/* --- Life --- */

void lki_segment_unmap_all(struct lk_segment *segment)
{
    lki_lock_end_all(segment);
    bool ours = *segment->session->alive;
    LKI_LIST_FOREACH_SAFE (node, &segment->windows)
        lki_window_free(LKI_LIST_ENTRY(node, struct lki_window, node), ours);
    if (segment->area_base && ours)
        (void)munmap(segment->area_base, segment->area.area_bytes);
    segment->area_base = NULL;
    segment->data_fd = lki_close(segment->data_fd);
}

struct lk_segment *lki_segment_free(struct lk_segment *segment)
{
    if (!segment)
        return NULL;
    lki_list_remove(&segment->node);
    lki_segment_unmap_all(segment);
    lki_lock_free_all(segment);
    free(segment->handles);
    free(segment->name);
    free(segment);
    return NULL;
}
LKI_DEFINE_CLEANUP(struct lk_segment *, lki_segment_free)

/* The memory of a closed handle of this name, so that opening and closing in turn does not grow the
 * process; else fresh. In no list. */
static struct lk_segment *take_memory(struct lk_session *session, const char *name)
{
    LKI_LIST_FOREACH_SAFE (node, &session->closed_segments) {
        struct lk_segment *closed = LKI_LIST_ENTRY(node, struct lk_segment, node);
        if (strcmp(closed->name, name) == 0) {
            lki_list_remove(node);
            return closed;
        }
    }
    struct lk_segment *segment = calloc(1, sizeof(*segment));
    if (!segment)
        return NULL;
    lki_list_init(&segment->node);
    lki_list_init(&segment->windows);
    segment->session = session;
    segment->data_fd = -1;
    segment->name = strdup(name);
    return segment->name ? segment : lki_segment_free(segment);
}

/* --- What the broker sent --- */

/* A descriptor of at least `bytes` that its sender cannot shrink under our map. */
static bool is_sealed_memory(int fd, uint64_t bytes)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t size = lseek(fd, 0, SEEK_END); /* shared with the broker, which never seeks */
    return seals >= 0 && (seals & F_SEAL_SHRINK) && size >= 0 && (uint64_t)size >= bytes;
}

static int map_area(struct lk_segment *segment, int area_fd, const struct lki_opened *opened)
{
    if (opened->area_bytes > lki_area_bytes(LKI_LOCKS_MAX, LKI_ATTACHMENTS_MAX) ||
        !is_sealed_memory(area_fd, opened->area_bytes))
        return -EPROTO;
    int protection = opened->brokered ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = mmap(NULL, opened->area_bytes, protection, MAP_SHARED, area_fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    /* Never in a child: its writes into our words would be ours. */
    if (madvise(base, opened->area_bytes, MADV_DONTFORK) < 0) {
        int r = -errno;
        (void)munmap(base, opened->area_bytes);
        return r;
    }
    segment->area_base = base;
    segment->area.area_bytes =
        opened->area_bytes; /* what unmapping needs, whatever the view says */
    int r = lki_area_view(base, opened->area_bytes, &segment->area);
    segment->area.area_bytes = opened->area_bytes;
    return r;
}

static int take_data_fd(struct lk_segment *segment, struct lki_record *record,
                        const struct lki_opened *opened)
{
    segment->data_bytes_max = opened->data_bytes_max;
    if (opened->data_bytes_max == 0)
        return 0;
    LKI_CLEANUP(lki_close_p) int fd = lki_record_take_fd(record, 1);
    struct stat status;
    if (fd < 0 || opened->data_bytes_max > LKI_SEGMENT_BYTES_MAX)
        return -EPROTO;
    if (opened->file ? fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)
                     : !is_sealed_memory(fd, opened->data_bytes_max))
        return -EPROTO;
    segment->data_fd = lki_steal_fd(&fd);
    return 0;
}

static int fill(struct lk_segment *segment, uint32_t option_flags, struct lki_record *record)
{
    const struct lki_opened *opened = &record->message.as.opened;
    segment->number = opened->segment;
    segment->attached = opened->attachment;
    segment->brokered = opened->brokered;
    segment->read_only = opened->read_only;
    segment->file = opened->file;
    segment->broker_minor = opened->protocol_minor;
    segment->flags = option_flags;
    atomic_store_explicit(&segment->truncated_here, 0, memory_order_relaxed);

    LKI_CLEANUP(lki_close_p) int area_fd = lki_record_take_fd(record, 0);
    if (area_fd < 0)
        return -EPROTO;
    int r = map_area(segment, area_fd, opened);
    if (r < 0)
        return r;
    r = take_data_fd(segment, record, opened);
    if (r < 0)
        return r;
    segment->fenceless = false;
    if (!segment->brokered && !lki_party_init(&segment->party, &segment->area, opened->attachment,
                                              lki_wake_native, segment))
        return -EPROTO;
    segment->party.barrier = lki_barrier_native;
    return lki_lock_table_new(segment);
}

static struct lk_segment *find_attached(struct lk_session *session, const struct lki_opened *opened)
{
    LKI_LIST_FOREACH_SAFE (node, &session->segments) {
        struct lk_segment *segment = LKI_LIST_ENTRY(node, struct lk_segment, node);
        if (segment->number == opened->segment && segment->attached == opened->attachment)
            return segment;
    }
    return NULL;
}

int lki_segment_attach(struct lk_session *session, const char *name, uint32_t option_flags,
                       struct lki_record *record, struct lk_segment **out)
{
    struct lk_segment *known = find_attached(session, &record->message.as.opened);
    if (known) {
        known->count++;
        *out = known;
        return 0;
    }
    LKI_CLEANUP(lki_segment_free_p) struct lk_segment *segment = take_memory(session, name);
    if (!segment)
        return -ENOMEM;
    int r = fill(segment, option_flags, record);
    if (r < 0) {
        /* Its old handles may still be in somebody's hands: back to the closed ones. */
        lki_segment_unmap_all(segment);
        lki_list_append(&session->closed_segments, &LKI_STEAL(&segment)->node);
        return r;
    }
    segment->count = 1;
    lki_list_append(&session->segments, &segment->node);
    *out = LKI_STEAL(&segment);
    return 0;
}

/* --- Checks --- */

int lki_segment_check(const struct lk_segment *segment, const char *verb)
{
    if (!segment)
        return lki_fail(-EINVAL, "cannot %s: no segment", verb);
    if (segment->count > 0 && *segment->session->alive)
        return 0;
    if (segment->count > 0)
        return lki_session_check(segment->session, verb);
    lki_fail(-ESTALE, "cannot %s: the segment '%s' is closed", verb, segment->name);
    return lki_fail_hint(-ESTALE, "open it again");
}

int lki_segment_check_data(const struct lk_segment *segment, const char *verb)
{
    int r = lki_segment_check(segment, verb);
    if (r < 0 || !lki_segment_truncated(segment))
        return r;
    lki_fail(-EIO, "cannot %s: the file of the segment '%s' was truncated under the map", verb,
             segment->name);
    return lki_fail_hint(-EIO, "restore the file, remove the segment and offer it again");
}

/* --- Opening --- */

#define OPTION_FLAGS                                                                               \
    (LK_CREATE | LK_CREATE_NEW | LK_READ_ONLY | LK_KEEP | LK_STRICT | LK_RESERVE | LK_INHERIT |    \
     LK_GUARD | LK_ACCEPT_KILL | LK_UNPUBLISHED)

static int read_options(const char *name, const struct lk_segment_options *given,
                        struct lk_segment_options *out)
{
    if (lki_options_read(given, sizeof(*out), out) < 0)
        return lki_fail(-EINVAL,
                        "cannot open the segment '%.300s': the options have a wrong size, or "
                        "ask for what this version does not know",
                        name);
    /* Whoever wants holders ended relies on it: a lease must not be missing silently. */
    if (out->on_expiry > LK_EXPIRY_FENCE || (out->on_expiry != 0 && out->lease_ns == 0))
        return lki_fail(
            -EINVAL, "cannot open the segment '%.300s': on_expiry %u %s", name, out->on_expiry,
            out->on_expiry > LK_EXPIRY_FENCE ? "is none of LK_EXPIRY_REPORT, _KILL and _FENCE"
                                             : "needs a lease that can be over: lease_ns is 0");
    if (out->reserved != 0)
        return lki_fail(-EINVAL, "cannot open the segment '%.300s': reserved has to be 0", name);
    if (out->flags & ~(uint32_t)OPTION_FLAGS)
        return lki_fail(-EINVAL, "cannot open the segment '%.300s': unknown flag in 0x%x", name,
                        out->flags);
    return 0;
}

static void fill_open(struct lki_message *request, const char *full_name,
                      const struct lk_segment_options *options)
{
    *request = (struct lki_message){
        .type = LKI_REQUEST_OPEN,
        .as.open = {.name = {(const uint8_t *)full_name, strlen(full_name)},
                    .flags = options->flags,
                    .size_bytes = options->size_bytes,
                    .size_max_bytes = options->size_max_bytes,
                    .locks = options->locks,
                    .attachments_max = options->attachments_max,
                    .mode = options->mode,
                    .patience_ns = options->patience_ns,
                    .lease_ns = options->lease_ns,
                    .on_expiry = options->on_expiry},
    };
}

/* The broker has the request even if it does not answer in this time: closing need not hang with
 * it. */
#define DETACH_NS (2 * LKI_NS_PER_S)

static void detach(struct lk_session *session, uint32_t number)
{
    struct lki_message request = {.type = LKI_REQUEST_DETACH,
                                  .as.segment_ref = {.segment = number}};
    struct lki_record reply = {.fd_count = 0};
    uint64_t deadline_ns = lki_time_add(lki_clock_now_ns(), DETACH_NS);
    (void)lki_session_call(session, &request, -1, deadline_ns, &reply);
    lki_record_deinit(&reply);
}

/* Whether this process can take in the two descriptors that will come. Asked before anything is
 * sent, so that a full table does not leave an attachment, or a segment, that the caller was told
 * nothing of. */
static int check_room_for_fds(int any_fd)
{
    LKI_CLEANUP(lki_close_p) int first = fcntl(any_fd, F_DUPFD_CLOEXEC, 0);
    LKI_CLEANUP(lki_close_p) int second = first < 0 ? -1 : fcntl(any_fd, F_DUPFD_CLOEXEC, 0);
    return second >= 0 || errno != EMFILE ? 0 : -EMFILE;
}

/* The broker takes descriptors of nobody that it has not looked at: waits until it has. Asks for
 * anything at all, since a hello alone is not answered. */
static int await_welcome(struct lk_session *session)
{
    struct lki_message request = {.type = LKI_REQUEST_LIST, .as.list.what = LKI_LIST_BROKER};
    struct lki_record reply = {.fd_count = 0};
    if (session->transport.heard)
        return 0;
    int r = lki_session_call(session, &request, -1, LKI_TIME_NEVER, &reply);
    lki_record_deinit(&reply);
    return r;
}

/* Sends OPEN and attaches what comes back. */
static int open_segment(struct lk_session *session, const char *name, struct lki_message *request,
                        int offered_fd, struct lk_segment **out)
{
    const char *verb = offered_fd >= 0 ? "offer" : "open";
    struct lki_record reply = {.fd_count = 0};
    int r = check_room_for_fds(session->transport.socket_fd);
    if (r == 0 && offered_fd >= 0)
        r = await_welcome(session);
    if (r == 0)
        r = lki_session_call(session, request, offered_fd, LKI_TIME_NEVER, &reply);
    if (r == 0 && reply.message.type != LKI_REPLY_OPENED) {
        r = lki_session_result(session, &reply.message, "%s the segment '%s'", verb, name);
        lki_record_deinit(&reply);
        return r < 0 ? r : lki_session_fail(session, -EPROTO, "%s the segment '%s'", verb, name);
    }
    bool opened = (r == 0 || r == -EMFILE) && reply.message.type == LKI_REPLY_OPENED;
    uint32_t number = opened ? reply.message.as.opened.segment : 0;
    int created = opened && reply.message.as.opened.created ? LK_CREATED : 0;
    if (r == 0)
        r = lki_segment_attach(session, name, request->as.open.flags, &reply, out);
    lki_record_deinit(&reply);
    if (r == 0)
        return created;
    if (opened)
        detach(session, number); /* another thread took the last descriptor, or memory is short */
    return lki_session_fail(session, r, "%s the segment '%s'", verb, name);
}

/* What the broker would refuse too, told with the reason that only we can see. */
static int check_offered(const char *name, int fd)
{
    struct stat status;
    int access = fcntl(fd, F_GETFL);
    if (access < 0 || fstat(fd, &status) < 0)
        return lki_fail(-EBADF, "cannot offer descriptor %d as the segment '%s': it is not open",
                        fd, name);
    if (!S_ISREG(status.st_mode))
        return lki_fail(
            -EBADF, "cannot offer descriptor %d as the segment '%s': not a regular file", fd, name);
    if ((access & O_PATH) || (access & O_ACCMODE) != O_RDWR)
        return lki_fail(-EBADF,
                        "cannot offer descriptor %d as the segment '%s': it has to be open for "
                        "reading and writing",
                        fd, name);
    return 0;
}

enum opening {
    BY_NAME,
    OFFERS_FILE,
};

/* Opens by name, or offers fd, which is -1 otherwise; a caller may offer -1 by mistake, so that does
 * not tell. */
static int open_checked(struct lk_session *session, const char *name, enum opening how, int fd,
                        const struct lk_segment_options *options, struct lk_segment **out)
{
    const bool offers = how == OFFERS_FILE;
    int r = lki_session_check(session, offers ? "offer a file" : "open a segment");
    if (r < 0)
        return r;
    char full_name[LKI_FULL_NAME_BYTES_MAX];
    struct lk_segment_options own;
    struct lki_message request;
    r = lki_name_resolve(name, full_name);
    if (r < 0)
        return r;
    if (!out)
        return lki_fail(-EINVAL, "cannot %s the segment '%s': no place for the result",
                        offers ? "offer" : "open", name);
    r = read_options(name, options, &own);
    if (r == 0 && offers)
        r = check_offered(name, fd);
    if (r < 0)
        return r;
    fill_open(&request, full_name, &own);
    request.as.open.offered = offers;
    return open_segment(session, name, &request, fd, out);
}

int lk_segment_open(struct lk_session *session, const char *name,
                    const struct lk_segment_options *options, struct lk_segment **out)
{
    return open_checked(session, name, BY_NAME, -1, options, out);
}

int lk_segment_offer(struct lk_session *session, const char *name, int fd,
                     const struct lk_segment_options *options, struct lk_segment **out)
{
    return open_checked(session, name, OFFERS_FILE, fd, options, out);
}

/* --- Requests about one --- */

/* Sends a request that is answered by a RESULT. Returns its result; *out_value may be NULL. */
static int request_result(struct lk_session *session, struct lki_message *request, const char *verb,
                          const char *name, uint64_t *out_value)
{
    struct lki_record reply = {.fd_count = 0};
    int r = lki_session_call(session, request, -1, LKI_TIME_NEVER, &reply);
    if (r < 0)
        return lki_session_fail(session, r, "%s the segment '%s'", verb, name);
    r = lki_session_result(session, &reply.message, "%s the segment '%s'", verb, name);
    if (r >= 0 && out_value)
        *out_value = reply.message.as.result.value;
    lki_record_deinit(&reply);
    return r;
}

int lk_segment_publish(struct lk_segment *segment)
{
    int r = lki_segment_check(segment, "publish");
    if (r < 0)
        return r;
    struct lki_message request = {.type = LKI_REQUEST_PUBLISH,
                                  .as.segment_ref = {.segment = segment->number}};
    return request_result(segment->session, &request, "publish", segment->name, NULL);
}

int lk_segment_grow(struct lk_segment *segment, uint64_t size_bytes)
{
    int r = lki_segment_check_data(segment, "grow");
    if (r < 0)
        return r;
    if (segment->read_only)
        return lki_fail(-EACCES, "cannot grow the segment '%s': it was opened read-only",
                        segment->name);
    struct lki_message request = {
        .type = LKI_REQUEST_GROW,
        .as.grow = {.segment = segment->number, .size_bytes = size_bytes},
    };
    return request_result(segment->session, &request, "grow", segment->name, NULL);
}

int lk_segment_remove(struct lk_session *session, const char *name)
{
    int r = lki_session_check(session, "remove a segment");
    if (r < 0)
        return r;
    char full_name[LKI_FULL_NAME_BYTES_MAX];
    r = lki_name_resolve(name, full_name);
    if (r < 0)
        return r;
    struct lki_message request = {
        .type = LKI_REQUEST_REMOVE,
        .as.remove = {.name = {(const uint8_t *)full_name, strlen(full_name)}},
    };
    return request_result(session, &request, "remove", name, NULL);
}

struct lk_segment *lk_segment_close(struct lk_segment *segment)
{
    if (!segment || segment->count == 0 || !*segment->session->alive)
        return NULL; /* closed before; or inherited by fork: the session's close frees it */
    if (--segment->count > 0)
        return NULL;
    struct lk_session *session = segment->session;
    /* Nothing of ours may touch the shared memory once the broker cleans up behind us. */
    lki_segment_unmap_all(segment);
    lki_list_remove(&segment->node);
    lki_list_append(&session->closed_segments, &segment->node);
    detach(session, segment->number);
    return NULL;
}
