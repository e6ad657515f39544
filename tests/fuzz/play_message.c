/* SPDX-License-Identifier: MIT */
/* Requests out of bytes: mostly such that the core does something with them, and some that no client
 * of ours would send. */
#include "play.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "proto/codec.h"

static struct lki_message sent;
static struct lkd_offer offer;
static struct play_member *sender;
static struct lkd_peer peer;
static bool as_it_is; /* its id too */

static const char *const names[PLAY_NAMES] = {"x", "~1000/y", "z", "~1000/w", "@100/g"};

static struct lki_bytes bytes_of(const char *text)
{
    return (struct lki_bytes){.data = (const uint8_t *)text, .length_bytes = strlen(text)};
}

/* --- Connecting --- */

static void do_connect(void)
{
    sender->session = connect_peer(&peer);
    if (sender->session && sender->session < 4096)
        world.group_of[sender->session] = 100;
}

static void do_send(void)
{
    if (as_it_is)
        send_again(sender->session, &sent);
    else
        (void)send_offer(sender->session, sent, &offer);
}

static void send_guarded(struct play_member *member)
{
    sender = member;
    member->last = sent;
    if (!as_it_is)
        member->last.id = world.last_id + 1; /* what it will be, also if the worker dies over it */
    play_guarded(do_send);
}

void play_connect(struct play_member *member)
{
    static const uint32_t group = 100;
    uint8_t how = fuzz_byte(stage.input);
    play_native_forget(member, 0);
    *member = (struct play_member){.process = stage.processes[how % PLAY_PROCESSES]};
    uint32_t uid = how & 64 ? 1001 : how == 32 ? 0 : 1000;
    peer = (struct lkd_peer){.pid = (int32_t)member->process,
                             .uid = uid,
                             .gid = uid,
                             .groups = &group,
                             .group_count = how & 128 ? 0 : 1,
                             .process = member->process,
                             .command = "player"};
    sender = member;
    play_guarded(do_connect);
    if (!member->session)
        return;
    sent = (struct lki_message){
        .type = LKI_REQUEST_HELLO,
        .as.hello = {.protocol_major = LKI_PROTOCOL_MAJOR, .layout_major = LKI_LAYOUT_MAJOR}};
    if (how == 255)
        sent.as.hello.protocol_major = fuzz_byte(stage.input);
    offer = (struct lkd_offer){.present = false};
    as_it_is = false;
    if (how != 254) /* it says nothing at first */
        send_guarded(member);
}

/* --- Requests --- */

static uint32_t pick_flags(struct fuzz_input *input)
{
    static const uint32_t flags[] = {
        LK_CREATE,
        0,
        LK_CREATE,
        LK_CREATE | LK_KEEP,
        LK_CREATE | LK_STRICT,
        LK_CREATE | LK_UNPUBLISHED,
        LK_READ_ONLY,
        LK_CREATE_NEW | LK_UNPUBLISHED | LK_KEEP,
        LK_CREATE | LK_ACCEPT_KILL,
        LK_CREATE | LK_STRICT | LK_ACCEPT_KILL,
    };
    uint32_t which = fuzz_below(input, LKI_ARRAY_LENGTH(flags) + 1);
    return which < LKI_ARRAY_LENGTH(flags) ? flags[which] : fuzz_u32(input) & 0xffff;
}

static uint32_t fill_open(struct fuzz_input *input)
{
    uint32_t name = fuzz_below(input, PLAY_NAMES);
    uint8_t how = fuzz_byte(input);
    sent.as.open = (struct lki_open){.name = bytes_of(names[name]),
                                     .flags = pick_flags(input),
                                     .locks = PLAY_LOCKS,
                                     .attachments_max = PLAY_ATTACHMENTS,
                                     .mode = how & 1 ? 0666 : 0600,
                                     .size_bytes = how & 2 ? 4096 : 0,
                                     .size_max_bytes = how & 2 ? 16384 : 0,
                                     .patience_ns = how & 4 ? LK_PATIENCE_FIFO : 0};
    if (how & 8) {
        sent.as.open.lease_ns = (how >> 6) * LKI_NS_PER_MS;
        sent.as.open.on_expiry = how >> 4 & 3;
    }
    if (how == 128) {
        sent.as.open.offered = true;
        offer = (struct lkd_offer){.present = true,
                                   .usable = fuzz_byte(input) & 1,
                                   .device = 1,
                                   .inode = fuzz_below(input, 3),
                                   .size_bytes = 4096};
        world.file_bytes = offer.size_bytes;
    } else {
        world.file_bytes = 0;
    }
    return name;
}

static void fill_acquire(struct fuzz_input *input)
{
    uint8_t how = fuzz_byte(input);
    bool update = (how & 0x30) == 0x10;
    sent.as.acquire = (struct lki_acquire){.segment = play_pick_segment(),
                                           .lock = how % PLAY_LOCKS,
                                           .mode = update ? LKI_MODE_UPDATE : 1u + (how >> 2 & 1),
                                           .to_exit = (how & 0x38) == 0x38,
                                           .asynchronous = how >> 6 & 1,
                                           .deadline_ns = LKI_TIME_NEVER};
    if (how & 128)
        sent.as.acquire.deadline_ns = how & 8 ? 0 : world.now_ns + fuzz_byte(input) * LKI_NS_PER_MS;
}

static void fill_change(struct play_member *member, uint32_t at, uint8_t how)
{
    static const enum lki_mode modes[] = {LKI_MODE_EXCLUSIVE, LKI_MODE_EXCLUSIVE, LKI_MODE_UPDATE,
                                          LKI_MODE_SHARED};
    for (uint32_t i = 0; i < 8 && stage.holds[at].session != member->session && how != 254; i++)
        at = (at + 1) % 8; /* else it is nearly always somebody else's */
    sent.type = LKI_REQUEST_CHANGE_MODE;
    sent.as.change_mode = (struct lki_change_mode){.segment = stage.holds[at].segment,
                                                   .lock = stage.holds[at].lock,
                                                   .attachment = stage.holds[at].attachment,
                                                   .mode = how == 255 ? 0 : modes[how & 3],
                                                   .deadline_ns = LKI_TIME_NEVER};
    if (how & 128)
        sent.as.change_mode.deadline_ns =
            how & 64 ? 0 : world.now_ns + (how >> 2 & 15) * LKI_NS_PER_MS;
    member->acquires[member->acquire_count++ % 4] = world.last_id + 1; /* to be cancelled */
}

static void fill_hold(struct play_member *member, struct fuzz_input *input)
{
    uint32_t what = fuzz_below(input, 4);
    uint32_t at = fuzz_below(input, 8);
    uint8_t how = fuzz_byte(input);
    if (what == 3) {
        fill_change(member, at, how);
        return;
    }
    sent.type = what < 2  ? LKI_REQUEST_RELEASE
                : how & 1 ? LKI_REQUEST_MARK_CONSISTENT
                          : LKI_REQUEST_DECLARE;
    sent.as.hold_ref = (struct lki_hold_ref){.segment = stage.holds[at].segment,
                                             .lock = stage.holds[at].lock,
                                             .attachment = stage.holds[at].attachment,
                                             .offset = how,
                                             .length_bytes = 16};
}

static void fill_lists(struct fuzz_input *input)
{
    uint8_t how = fuzz_byte(input);
    struct lki_bytes name = bytes_of(how & 16 ? "" : names[how % PLAY_NAMES]);
    if (how & 32) {
        sent.type = LKI_REQUEST_MONITOR;
        sent.as.monitor.name = name;
        return;
    }
    sent.type = LKI_REQUEST_LIST;
    sent.as.list = (struct lki_list_request){
        .what = 1 + (how >> 6), .cursor = fuzz_number(input, how & 8 ? 8 : 1), .name = name};
}

static void fill_force(struct fuzz_input *input)
{
    uint8_t how = fuzz_byte(input);
    sent.as.force_release = (struct lki_force_release){
        .name = bytes_of(names[how % PLAY_NAMES]),
        .lock = how >> 3 & 3,
        .lock_name = bytes_of(how & 128 ? "one" : ""),
        .reason = bytes_of("at random"),
    };
}

/* Any record at all, with the id that it has. */
static bool fill_raw(struct fuzz_input *input)
{
    static struct lki_arena arena;
    const char *reason;
    size_t bytes;
    const uint8_t *data = fuzz_bytes(input, 255, &bytes);
    as_it_is = true;
    return lki_message_decode(&arena, data, bytes, LKI_DIRECTION_REQUEST, &sent, &reason) == 0 &&
           sent.type != LKI_REQUEST_OPEN; /* whose counts would fill the memory of the test */
}

static bool fill_again(struct play_member *member, struct fuzz_input *input)
{
    as_it_is = true;
    stage.repeated = true;
    if (fuzz_below(input, 2)) {
        const struct lkd_ledger_header *header = world.ledger;
        sent.type = LKI_REQUEST_RESUME;
        sent.as.resume.number = header->restarts;
        return true;
    }
    sent = member->last;
    return sent.type != LKI_MESSAGE_NONE;
}

#define OPEN LKI_REQUEST_OPEN
#define ACQUIRE LKI_REQUEST_ACQUIRE
#define RAW ((enum lki_message_type)100)
#define AGAIN ((enum lki_message_type)101)

/* As often as they are worth it. */
static const enum lki_message_type types[32] = {
    OPEN,
    OPEN,
    OPEN,
    OPEN,
    OPEN,
    OPEN,
    ACQUIRE,
    ACQUIRE,
    ACQUIRE,
    ACQUIRE,
    ACQUIRE,
    ACQUIRE,
    ACQUIRE,
    LKI_REQUEST_RELEASE,
    LKI_REQUEST_RELEASE,
    LKI_REQUEST_RELEASE,
    LKI_REQUEST_CANCEL,
    LKI_REQUEST_DETACH,
    LKI_REQUEST_PUBLISH,
    LKI_REQUEST_REMOVE,
    LKI_REQUEST_GROW,
    LKI_REQUEST_LOCK_NAMED,
    LKI_REQUEST_NUDGE,
    LKI_REQUEST_ASK,
    LKI_REQUEST_HOLDER,
    LKI_REQUEST_DEADLOCK_CHECK,
    LKI_REQUEST_LIST,
    LKI_REQUEST_FORCE_RELEASE,
    LKI_REQUEST_GOODBYE,
    RAW,
    AGAIN,
    AGAIN,
};

/* Of those that are about a segment by number. */
static void fill_about_segment(struct fuzz_input *input)
{
    uint32_t segment = play_pick_segment();
    switch ((int)sent.type) {
    case LKI_REQUEST_GROW:
        sent.as.grow = (struct lki_grow){segment, fuzz_below(input, 6) * UINT64_C(4096)};
        break;
    case LKI_REQUEST_LOCK_NAMED:
        sent.as.lock_named =
            (struct lki_lock_named){segment, bytes_of(fuzz_byte(input) & 1 ? "one" : "two")};
        break;
    case LKI_REQUEST_ASK:
        sent.as.ask =
            (struct lki_ask){segment, fuzz_below(input, PLAY_LOCKS),
                             stage.holds[fuzz_below(input, 8)].attachment, fuzz_number(input, 1)};
        break;
    case LKI_REQUEST_HOLDER:
    case LKI_REQUEST_DEADLOCK_CHECK:
        sent.as.lock_ref = (struct lki_lock_ref){segment, fuzz_below(input, PLAY_LOCKS + 1)};
        break;
    default: /* DETACH, PUBLISH, NUDGE */
        sent.as.segment_ref.segment = segment;
        break;
    }
}

/* Mostly it stays, and asks for a barrier or for nothing: much would end with it. */
static bool fill_goodbye(struct play_member *member, struct fuzz_input *input)
{
    uint32_t what = fuzz_below(input, 4);
    if (what == 1) {
        sent.type = LKI_REQUEST_BARRIER;
        return true;
    }
    play_native_forget(member, 0);
    return what == 0;
}

/* False: nothing is sent. */
static bool fill(struct play_member *member)
{
    struct fuzz_input *input = stage.input;
    sent.type = types[fuzz_below(input, 32)];
    switch ((int)sent.type) {
    case OPEN:
        stage.opening[(world.last_id + 1) % 64] = fill_open(input);
        return true;
    case ACQUIRE:
        fill_acquire(input);
        member->acquires[member->acquire_count++ % 4] = world.last_id + 1;
        return true;
    case LKI_REQUEST_RELEASE:
        fill_hold(member, input);
        return true;
    case LKI_REQUEST_CANCEL:
        sent.as.cancel.request = member->acquires[fuzz_below(input, 4)];
        return true;
    case LKI_REQUEST_REMOVE:
        sent.as.remove.name = bytes_of(names[fuzz_below(input, PLAY_NAMES)]);
        return true;
    case LKI_REQUEST_LIST:
        fill_lists(input);
        return true;
    case LKI_REQUEST_FORCE_RELEASE:
        fill_force(input);
        return true;
    case LKI_REQUEST_GOODBYE:
        return fill_goodbye(member, input);
    case RAW:
        return fill_raw(input);
    case AGAIN:
        return fill_again(member, input);
    default:
        fill_about_segment(input);
        if (sent.type == LKI_REQUEST_DETACH)
            play_native_forget(member, sent.as.segment_ref.segment);
        return true;
    }
}

void play_message(struct play_member *member)
{
    sent = (struct lki_message){.type = LKI_MESSAGE_NONE};
    offer = (struct lkd_offer){.present = false};
    as_it_is = false;
    if (fill(member))
        send_guarded(member);
}
