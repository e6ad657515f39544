/* SPDX-License-Identifier: MIT */
#include "broker/core/open.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "broker/core/attachment.h"
#include "broker/core/charge.h"
#include "broker/core/lease.h"
#include "broker/core/parked.h"
#include "broker/core/registry.h"
#include "broker/core/reservation.h"
#include "broker/core/rights.h"
#include "broker/core/segment.h"
#include "common/assert.h"
#include "common/clock.h"
#include "lockkeeper/lockkeeper.h"

#define FLAGS_KNOWN                                                                                \
    (LK_CREATE | LK_CREATE_NEW | LK_READ_ONLY | LK_KEEP | LK_STRICT | LK_RESERVE | LK_INHERIT |    \
     LK_GUARD | LK_ACCEPT_KILL | LK_UNPUBLISHED)
#define MODE_DEFAULT 0600u
#define MODE_MASK 0777u

/* One OPEN on its way: who asks for what. */
struct opening {
    struct lkd_core *core;
    struct lkd_session *session;
    const struct lki_message *message;
    const struct lki_open *open;
    const struct lkd_offer *offer;
    uint64_t now_ns;
    struct lkd_name name;
    uint32_t name_bytes;
    char shown[LKI_NAME_TEXT_BYTES_MAX + 1];
};

/* "cannot open 'NAME': " and the rest. */
__attribute__((format(printf, 3, 4))) static void
refuse(const struct opening *opening, enum lki_status status, const char *format, ...)
{
    char why[LKD_TEXT_BYTES_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, sizeof(why), format, arguments);
    va_end(arguments);
    lkd_refuse(opening->core, opening->session, opening->message->id, status,
               "cannot open '%s': %s", opening->shown, why);
}

static bool wants_creation(const struct opening *opening)
{
    return opening->open->flags & (LK_CREATE | LK_CREATE_NEW) || opening->open->offered;
}

static bool check_counts(struct opening *opening)
{
    const struct lki_open *open = opening->open;

    if (open->size_bytes > LKI_SEGMENT_BYTES_MAX || open->size_max_bytes > LKI_SEGMENT_BYTES_MAX) {
        refuse(opening, LKI_STATUS_TOO_LARGE, "a segment has at most %" PRIu64 " bytes",
               (uint64_t)LKI_SEGMENT_BYTES_MAX);
        return false;
    }
    if (open->size_max_bytes != 0 && open->size_max_bytes < open->size_bytes) {
        refuse(opening, LKI_STATUS_INVALID,
               "size_max_bytes %" PRIu64 " is less than size_bytes %" PRIu64, open->size_max_bytes,
               open->size_bytes);
        return false;
    }
    if (open->size_max_bytes != 0 && open->size_bytes == 0 && !open->offered) {
        refuse(opening, LKI_STATUS_INVALID,
               "size_bytes is 0, which means no data at all; give a size, or no size_max_bytes");
        return false;
    }
    if (open->locks > LKI_LOCKS_MAX) {
        refuse(opening, LKI_STATUS_TOO_LARGE, "%u locks; a segment has at most %u", open->locks,
               LKI_LOCKS_MAX);
        return false;
    }
    if (open->attachments_max > LKI_ATTACHMENTS_MAX) {
        refuse(opening, LKI_STATUS_TOO_LARGE, "attachments_max %u; a segment has at most %u",
               open->attachments_max, LKI_ATTACHMENTS_MAX);
        return false;
    }
    return true;
}

/* Whoever asks for a lease relies on it. */
static bool check_lease(struct opening *opening)
{
    const struct lki_open *open = opening->open;

    if (open->on_expiry > LK_EXPIRY_FENCE) {
        refuse(opening, LKI_STATUS_INVALID, "on_expiry %u: use 0 report, 1 kill or 2 fence",
               open->on_expiry);
        return false;
    }
    if (open->on_expiry != LK_EXPIRY_REPORT && open->lease_ns == 0) {
        refuse(
            opening, LKI_STATUS_INVALID,
            "on_expiry says what to do when a lease is over, and lease_ns is 0: none; give both");
        return false;
    }
    return true;
}

static bool check_options(struct opening *opening)
{
    const struct lki_open *open = opening->open;

    if (open->flags & ~(uint32_t)FLAGS_KNOWN) {
        refuse(opening, LKI_STATUS_INVALID, "unknown flags %#x",
               open->flags & ~(uint32_t)FLAGS_KNOWN);
        return false;
    }
    if (open->mode & ~MODE_MASK) {
        refuse(opening, LKI_STATUS_INVALID, "mode %#o has more than permission bits (0777)",
               open->mode);
        return false;
    }
    return check_lease(opening) && check_counts(opening);
}

/* The descriptor that came along. Only from those who could have read the file through the broker's
 * own rights anyway. */
static bool check_offer(struct opening *opening)
{
    const struct lki_open *open = opening->open;
    const struct lkd_offer *offer = opening->offer;
    uint32_t uid = opening->session->uid;

    if (!open->offered)
        return true;
    if (uid != 0 && uid != opening->core->config.broker_uid) {
        refuse(opening, LKI_STATUS_DENIED,
               "this broker runs as uid %u and takes files from nobody else; use a broker of your "
               "own",
               opening->core->config.broker_uid);
        return false;
    }
    if (!offer || !offer->usable) {
        refuse(opening, LKI_STATUS_BAD_FD,
               "the offered descriptor is not a regular file open for reading and writing");
        return false;
    }
    if (offer->size_bytes > LKI_SEGMENT_BYTES_MAX) {
        refuse(opening, LKI_STATUS_TOO_LARGE, "the file has more than %" PRIu64 " bytes",
               (uint64_t)LKI_SEGMENT_BYTES_MAX);
        return false;
    }
    return true;
}

static bool check_create_rights(struct opening *opening)
{
    const struct lkd_session *session = opening->session;

    if (lkd_rights_may_create(session, &opening->name))
        return true;
    if (opening->name.kind == LKI_NAME_GROUP)
        refuse(opening, LKI_STATUS_DENIED,
               "there is none, and only members of group %u may create it; uid %u is none of them",
               opening->name.id, session->uid);
    else
        refuse(opening, LKI_STATUS_DENIED,
               "there is none, and only uid %u may create it, not uid %u; ask that user, or use a "
               "name of your own or of a group",
               opening->name.id, session->uid);
    return false;
}

/* The size of a new segment's data. */
static bool choose_size(struct opening *opening, struct lkd_segment_wish *wish)
{
    const struct lki_open *open = opening->open;

    wish->data_bytes = open->size_bytes;
    if (open->offered) {
        uint64_t file_bytes = opening->offer->size_bytes;
        if (wish->data_bytes == 0)
            wish->data_bytes = file_bytes;
        if (wish->data_bytes == 0) {
            refuse(opening, LKI_STATUS_INVALID,
                   "the file is empty; give size_bytes, and it is extended to that");
            return false;
        }
        if (file_bytes != 0 && wish->data_bytes > file_bytes) {
            refuse(opening, LKI_STATUS_INVALID,
                   "the file has %" PRIu64 " bytes and size_bytes is %" PRIu64
                   "; extend the file first, or grow the segment later",
                   file_bytes, wish->data_bytes);
            return false;
        }
        wish->file = true;
        wish->file_device = opening->offer->device;
        wish->file_inode = opening->offer->inode;
        wish->offered_by = opening->session->number;
    }
    wish->data_bytes_max = open->size_max_bytes ? open->size_max_bytes : wish->data_bytes;
    if (wish->data_bytes_max < wish->data_bytes) {
        refuse(opening, LKI_STATUS_INVALID,
               "size_max_bytes %" PRIu64 " is less than the file's %" PRIu64, wish->data_bytes_max,
               wish->data_bytes);
        return false;
    }
    return true;
}

/* Whether the session may have all that the segment costs. */
static bool check_quota(struct opening *opening, const struct lkd_segment_wish *wish)
{
    static const enum lkd_resource costs[] = {LKD_SEGMENTS, LKD_LOCKS, LKD_BYTES, LKD_ATTACHMENTS};
    const struct lkd_segment_spec spec = lkd_segment_spec_of(wish);
    char why[LKD_CHARGE_TEXT_BYTES];

    for (size_t i = 0; i < LKI_ARRAY_LENGTH(costs); i++) {
        uint64_t amount = costs[i] == LKD_ATTACHMENTS
                              ? 1 /* its creator's */
                              : lkd_charge_of_segment(&spec, wish->locks, costs[i]);
        if (!lkd_charge_fits(opening->core, opening->session, costs[i], amount, why)) {
            refuse(opening, LKI_STATUS_QUOTA, "%s", why);
            return false;
        }
    }
    return true;
}

static uint64_t patience_of(uint64_t asked_ns)
{
    if (asked_ns == 0)
        return LKI_PATIENCE_DEFAULT_NS;
    return asked_ns == LK_PATIENCE_FIFO ? LKI_PATIENCE_NONE : asked_ns;
}

static void create(struct opening *opening)
{
    const struct lki_open *open = opening->open;
    struct lkd_core *core = opening->core;
    struct lkd_session *session = opening->session;

    if (open->flags & LK_READ_ONLY) {
        refuse(opening, LKI_STATUS_INVALID,
               "there is none, and a segment cannot be created read-only; let its writer start "
               "first");
        return;
    }
    if (!check_create_rights(opening))
        return;
    if (open->offered && !opening->offer->present) { /* it waited for somebody else's creation */
        refuse(opening, LKI_STATUS_NOT_READY, "whoever was creating it failed; try again");
        return;
    }
    struct lkd_segment_wish wish = {
        .name = opening->name,
        .name_bytes = opening->name_bytes,
        /* Also when root creates it for a user: nobody squats another's name. */
        .uid = opening->name.kind == LKI_NAME_USER ? opening->name.id : session->uid,
        .gid = opening->name.kind == LKI_NAME_GROUP ? opening->name.id : session->gid,
        .mode = open->mode ? open->mode : MODE_DEFAULT,
        .flags =
            open->flags & ~(uint32_t)(LK_CREATE | LK_CREATE_NEW | LK_READ_ONLY | LK_ACCEPT_KILL),
        .locks = open->locks ? open->locks : LKI_LOCKS_DEFAULT,
        .attachments_max = open->attachments_max ? open->attachments_max : LKI_ATTACHMENTS_DEFAULT,
        .patience_ns = patience_of(open->patience_ns),
        .lease_ns = open->lease_ns,
        .on_expiry = open->on_expiry,
    };
    if (!choose_size(opening, &wish) || !check_quota(opening, &wish))
        return;
    struct lkd_segment *segment = lkd_segment_new(core, &wish);
    if (!segment) {
        refuse(opening, LKI_STATUS_NO_MEMORY, "the broker has no memory for one more segment");
        return;
    }
    segment->creator_session = session->number;
    segment->creator_request = opening->message->id;
    lkd_charge_segment(core, session, segment);
    segment->leader = lkd_park(core, session, segment, opening->message, opening->offer);
    if (!segment->leader) {
        lkd_segment_end(core, segment, false);
        return;
    }
    lkd_effect_push(core, &segment->make);
}

/* Parses the name; false: refused. */
static bool begin(struct opening *opening, struct lkd_core *core, struct lkd_session *session,
                  const struct lki_message *message, const struct lkd_offer *offer, uint64_t now_ns)
{
    const char *reason = "";

    opening->core = core;
    opening->session = session;
    opening->message = message;
    opening->open = &message->as.open;
    opening->offer = offer;
    opening->now_ns = now_ns;
    if (lkd_registry_parse(session, opening->open->name, &opening->name, &opening->name_bytes,
                           &reason) < 0) {
        lkd_refuse(core, session, message->id, LKI_STATUS_INVALID,
                   "this cannot be the name of a segment: %s", reason);
        return false;
    }
    lkd_name_show(&opening->name, opening->name_bytes, session->uid, opening->shown);
    return true;
}

static void send_opened(struct opening *opening, const struct lkd_attachment *attachment,
                        bool created)
{
    const struct lkd_segment *segment = attachment->segment;
    struct lkd_sending *sending =
        lkd_reply(opening->core, opening->session, LKI_REPLY_OPENED, opening->message->id, 0);
    if (!sending)
        return;
    sending->segment = segment->number;
    if (attachment->read_only)
        sending->fds = LKD_FDS_READ_ONLY;
    else
        sending->fds = attachment->brokered ? LKD_FDS_STRICT : LKD_FDS_READ_WRITE;
    sending->message.as.opened = (struct lki_opened){
        .created = created,
        .brokered = attachment->brokered,
        .read_only = attachment->read_only,
        .file = segment->file,
        .segment = segment->number,
        .attachment = attachment->id,
        .area_bytes = segment->spec.area_bytes,
        .data_bytes_max = segment->data_bytes_max,
        .flags = segment->flags,
        /* Who is older does not know the field, and would take the record for damaged. */
        .protocol_minor = opening->session->knows_1_4 ? LKI_PROTOCOL_MINOR : 0,
    };
}

/* Attaches; rights and options were checked. */
static void attach(struct opening *opening, struct lkd_segment *segment, bool created)
{
    bool read_only = opening->open->flags & LK_READ_ONLY;
    const struct lkd_attachment_wish wish = {
        .read_only = read_only,
        .brokered = read_only || segment->flags & LK_STRICT,
        .creator = created,
        .accepts_kill = opening->open->flags & LK_ACCEPT_KILL,
    };
    if (segment->slots_taken >= segment->attachments_max) {
        refuse(opening, LKI_STATUS_FULL,
               "all of its %u attachments are taken; close a session that uses it, or create it "
               "with a larger attachments_max",
               segment->attachments_max);
        return;
    }
    char why[LKD_CHARGE_TEXT_BYTES];
    if (!lkd_charge_fits(opening->core, opening->session, LKD_ATTACHMENTS, 1, why)) {
        refuse(opening, LKI_STATUS_QUOTA, "%s", why);
        return;
    }
    const struct lkd_attachment *attachment =
        lkd_attachment_open(opening->core, opening->session, segment, &wish, opening->now_ns);
    if (attachment)
        send_opened(opening, attachment, created);
    else
        refuse(opening, LKI_STATUS_NO_MEMORY, "the broker has no memory for one more attachment");
}

static bool check_join_rights(struct opening *opening, const struct lkd_segment *segment)
{
    bool read_only = opening->open->flags & LK_READ_ONLY;
    uint32_t access = read_only ? LKD_ACCESS_READ : LKD_ACCESS_READ | LKD_ACCESS_WRITE;

    if (lkd_rights_allow(opening->session, segment, access))
        return true;
    bool readable = !read_only && lkd_rights_allow(opening->session, segment, LKD_ACCESS_READ);
    refuse(opening, LKI_STATUS_DENIED,
           "mode %04o belongs to uid %u and group %u, you are uid %u; %s", segment->mode,
           segment->uid, segment->gid, opening->session->uid,
           readable ? "open it with LK_READ_ONLY, or ask its owner for the right to write"
                    : "ask its owner to create it with a wider mode");
    return false;
}

/* An offered file has to be the one that the segment has. */
static bool check_same_file(struct opening *opening, const struct lkd_segment *segment)
{
    if (!opening->open->offered)
        return true;
    if (segment->file && segment->file_device == opening->offer->device &&
        segment->file_inode == opening->offer->inode)
        return true;
    refuse(opening, LKI_STATUS_STALE,
           "it exists with %s, not the one that was offered; remove it first, or use another name",
           segment->file ? "another file (device or inode differ)" : "memory of its own, no file");
    return false;
}

/* Opening never resizes: what asks for more than there is has to be told. */
static bool check_fit(struct opening *opening, const struct lkd_segment *segment)
{
    const struct lki_open *open = opening->open;

    if (!check_same_file(opening, segment))
        return false;
    if (open->size_bytes > segment->data_bytes) {
        refuse(opening, LKI_STATUS_INVALID,
               "it exists with %" PRIu64 " bytes and you ask for %" PRIu64
               "; open it with size 0 and grow it (up to %" PRIu64 ")",
               segment->data_bytes, open->size_bytes, segment->data_bytes_max);
        return false;
    }
    if (open->locks > segment->locks) {
        refuse(opening, LKI_STATUS_INVALID,
               "it exists with %u locks and you ask for %u; ask for no more, or remove it first",
               segment->locks, open->locks);
        return false;
    }
    if (open->flags & LK_STRICT && !(segment->flags & LK_STRICT)) {
        refuse(opening, LKI_STATUS_INVALID,
               "it exists and is not strict: its members can write its locks; remove it first, or "
               "open it without LK_STRICT");
        return false;
    }
    if (open->lease_ns != 0 &&
        (open->lease_ns != segment->lease_ns || open->on_expiry != segment->on_expiry)) {
        refuse(opening, LKI_STATUS_INVALID,
               "it exists with a lease of %" PRIu64
               " ms (0: none) and %s on expiry, as its creator "
               "chose; open it with lease_ns 0, or remove it first",
               segment->lease_ns / LKI_NS_PER_MS, lkd_lease_policy(segment->on_expiry));
        return false;
    }
    return true;
}

/* Whether this very request has made the segment, under another worker. */
static bool is_creation(const struct opening *opening, const struct lkd_segment *segment)
{
    return segment->creator_session == opening->session->number &&
           segment->creator_request == opening->message->id;
}

/* This session has it open: the same attachment again. */
static void open_again(struct opening *opening, const struct lkd_attachment *attachment)
{
    if (attachment->read_only && !(opening->open->flags & LK_READ_ONLY)) {
        refuse(opening, LKI_STATUS_INVALID,
               "this session has it open read-only; close that first, or use another session");
        return;
    }
    if (check_fit(opening, attachment->segment))
        send_opened(opening, attachment, is_creation(opening, attachment->segment));
}

static void join(struct opening *opening, struct lkd_segment *segment)
{
    if (segment->quarantined) {
        refuse(opening, LKI_STATUS_STALE,
               "the broker failed twice over its memory and does not look at it any more; remove "
               "it, and let it be created anew");
        return;
    }
    if (opening->open->flags & LK_CREATE_NEW && !is_creation(opening, segment)) {
        refuse(opening, LKI_STATUS_EXISTS,
               "it exists, owned by uid %u; open it without LK_CREATE_NEW, or remove it first",
               segment->uid);
        return;
    }
    const struct lkd_attachment *own =
        lkd_attachment_find(opening->core, opening->session, segment->number);
    if (own) {
        open_again(opening, own);
        return;
    }
    if (!check_join_rights(opening, segment) || !check_fit(opening, segment))
        return;
    if (segment->state == LKD_SEGMENT_UNPUBLISHED) {
        refuse(opening, LKI_STATUS_NOT_READY,
               "its creator is still filling it and has not published it; try again");
        return;
    }
    attach(opening, segment, is_creation(opening, segment));
}

void lkd_open_created(struct lkd_core *core, struct lkd_segment *segment,
                      const struct lkd_parked *leader, uint64_t now_ns)
{
    struct opening opening;
    bool parsed = begin(&opening, core, leader->session, &leader->message, &leader->offer, now_ns);
    LKI_ASSERT(parsed); /* as it was before it waited */
    attach(&opening, segment, true);
}

static void open_existing(struct opening *opening, struct lkd_segment *segment)
{
    switch (segment->state) {
    case LKD_SEGMENT_MAKING:
        lkd_park(opening->core, opening->session, segment, opening->message, opening->offer);
        break;
    case LKD_SEGMENT_UNPUBLISHED:
    case LKD_SEGMENT_PUBLISHED:
        join(opening, segment);
        break;
    case LKD_SEGMENT_ENDED:
        LKI_UNREACHABLE("a segment that has ended has no name");
        break;
    }
}

void lkd_open_request(struct lkd_core *core, struct lkd_session *session,
                      const struct lki_message *message, const struct lkd_offer *offer,
                      uint64_t now_ns)
{
    struct opening opening;

    if (!begin(&opening, core, session, message, offer, now_ns) || !check_options(&opening) ||
        !check_offer(&opening))
        return;
    struct lkd_segment *segment = lkd_registry_find_name(core, &opening.name, opening.name_bytes);
    const struct lkd_reservation *reservation =
        segment ? NULL : lkd_reservation_find(core, &opening.name, opening.name_bytes);
    if (segment)
        open_existing(&opening, segment);
    else if (reservation)
        refuse(&opening, LKI_STATUS_BUSY,
               "pid %d has the segment of that name that an earlier broker made, and nobody may "
               "make another beside it; end that process, or use another name",
               reservation->pid);
    else if (wants_creation(&opening))
        create(&opening);
    else
        refuse(&opening, LKI_STATUS_NOT_FOUND,
               "there is no such segment; start the program that creates it, or use LK_CREATE");
}
