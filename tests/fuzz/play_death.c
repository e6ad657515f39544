/* SPDX-License-Identifier: MIT */
/* Workers die and others go on. Between two steps the worker stores without order, so whoever takes
 * over may find any part of those stores: that part is chosen here, word by word. */
#include "play.h"

#include <errno.h>
#include <string.h>

#include "common/assert.h"

#define LEDGER_BYTES_MAX (64u * 1024)
#define WORD_BYTES 8u

static struct {
    uint8_t bytes[LEDGER_BYTES_MAX]; /* of the ledger, at step `at` */
    uint64_t at;
    bool valid;
    uint64_t kept; /* which of the words that have changed since keep their new value, by number */
    bool tears;
} before;

void play_death_setup(void)
{
    FUZZ_CHECK(world.ledger_bytes <= LEDGER_BYTES_MAX);
    before.valid = false;
    before.tears = false;
}

void play_arm_worker(void)
{
    /* Few events have many steps. */
    uint32_t within = fuzz_byte(stage.input) & 3 ? 40 : 600;
    world.dies_at = world.steps + 1 + fuzz_number(stage.input, 2) % within;
    before.tears = fuzz_byte(stage.input) & 1;
    before.kept = before.tears ? fuzz_u64(stage.input) : 0;
    before.valid = false;
}

/* What came of the events before was seen outside: it is not to be undone. */
void play_death_begin(void)
{
    before.valid = false;
}

static void tear(void)
{
    uint8_t *ledger = world.ledger;
    unsigned changed = 0;
    for (size_t at = 0; at < world.ledger_bytes; at += WORD_BYTES) {
        if (memcmp(ledger + at, before.bytes + at, WORD_BYTES) == 0)
            continue;
        if (!(before.kept >> (changed++ % 64) & 1))
            memcpy(ledger + at, before.bytes + at, WORD_BYTES);
    }
}

/* Comes before the world's own count, which jumps out at its last step. */
void play_death_on_step(void)
{
    if (!world.in_core || world.dies_at == 0 || !before.tears)
        return;
    if (world.steps + 2 == world.dies_at) {
        memcpy(before.bytes, world.ledger, world.ledger_bytes);
        before.at = world.steps + 1;
        before.valid = true;
    } else if (world.steps + 1 == world.dies_at && before.valid && before.at == world.steps) {
        tear();
    }
}

/* --- Bits that turn --- */

/* Somewhere in the header, or in a record that was ever used. */
static uint8_t *pick_byte(const struct lkd_ledger_header *header)
{
    struct fuzz_input *input = stage.input;
    struct lkd_ledger ledger;
    uint32_t which = fuzz_below(input, 4), index = fuzz_byte(input), offset = fuzz_u32(input) % 512;
    lkd_ledger_peek(&ledger, world.ledger, &world.config.limits);
    if (which == 1 && header->sessions_used > 0)
        return (uint8_t *)&ledger.sessions[index % header->sessions_used] + offset % 128;
    if (which == 2 && header->segments_used > 0)
        return (uint8_t *)&ledger.segments[index % header->segments_used] + offset;
    if (header->attachments_used > 0)
        return (uint8_t *)&ledger.attachments[index % header->attachments_used] + offset % 128;
    return (uint8_t *)world.ledger + offset % sizeof(struct lkd_ledger_header);
}

static void flip(void)
{
    if (stage.flipped)
        return;                     /* once: after that the counts are not to be relied on */
    struct lkd_ledger_header whole; /* before the first bit turns */
    memcpy(&whole, world.ledger, sizeof(whole));
    uint32_t count = 1 + fuzz_below(stage.input, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *byte = pick_byte(&whole);
        *byte = (uint8_t)(*byte ^ 1u << fuzz_below(stage.input, 8));
    }
    stage.flipped = true;
}

/* A worker that fails over such a ledger has refused it: its keeper starts another one, and gives up
 * after some. Whatever it allocated goes with it. */
void play_refused(void)
{
    stage.over = true;
    longjmp(world.death, 2);
}

void __real_lki_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn));
void __wrap_lki_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn));
void __wrap_lki_assert_failed(const char *expression, const char *file, int line)
{
    if (stage.flipped)
        play_refused();
    __real_lki_assert_failed(expression, file, line);
}

/* What the real driver finds out by mapping and by fstat(2). */
static void adopt_flipped_segments(void)
{
    struct lkd_left_segment left;
    for (uint32_t cursor = 0; lkd_core_next_left_segment(world.core, &cursor, &left);) {
        uint32_t number = (uint32_t)left.area_fd;
        if (number >= 4096 || !world.areas[number] || left.area_bytes != world.area_bytes[number] ||
            left.locks == 0 || lkd_core_adopt_segment(world.core, &left, world.areas[number]) < 0)
            play_refused();
    }
}

static void adopt_flipped_sessions(void)
{
    struct lkd_left_session left;
    for (uint32_t cursor = 0; lkd_core_next_left_session(world.core, &cursor, &left);) {
        const struct lkd_peer peer = {
            .pid = left.pid, .uid = left.uid, .gid = left.gid, .process = (uint64_t)left.pid};
        uint64_t session;
        if (lkd_core_adopt_session(world.core, &left, &peer, &session) < 0)
            play_refused();
    }
}

static void take_over_flipped(void)
{
    world.in_core = true;
    if (lkd_core_new(&world.config, &world.core) < 0 || !lkd_core_is_successor(world.core))
        play_refused();
    lkd_core_blame(world.core, true);
    world.left_count = 0;
    adopt_flipped_segments();
    adopt_flipped_sessions();
    if (lkd_core_adopt(world.core, world.now_ns) < 0)
        play_refused();
    world.in_core = false;
    looked(0, LKD_PROCESS_RUNS); /* nobody: the effects are carried out */
}

/* --- The next worker --- */

static bool is_faulty;

static void take_over_any(void *user)
{
    (void)user;
    if (stage.flipped)
        take_over_flipped();
    else if (is_faulty)
        take_over_faulty();
    else
        take_over();
}

static bool is_left(uint64_t session)
{
    for (uint32_t i = 0; i < world.left_count; i++)
        if (world.left_sessions[i] == session)
            return true;
    return false;
}

void play_next_worker(void)
{
    uint32_t fail_one_in = world.fail_one_in;
    world.fail_one_in = 0; /* it would end, and the next one try: one with memory is that one */
    is_faulty = fuzz_byte(stage.input) & 1;
    stage.make_count = stage.grow_count = 0;
    if (stage.rules->flips && fuzz_below(stage.input, 2))
        flip();
    for (int i = 0; i < 3 && !stage.over; i++) {
        if (stage.rules->workers_die && fuzz_below(stage.input, 4) == 1)
            play_arm_worker();
        if (survives(take_over_any, NULL))
            break;
    }
    if (!stage.over && !world.core && !survives(take_over_any, NULL))
        stage.over = true;
    world.fail_one_in = fail_one_in;
    world.dies_at = 0;
    if (stage.over || stage.flipped)
        return;
    for (int i = 0; i < PLAY_MEMBERS; i++)
        if (stage.members[i].session && !is_left(stage.members[i].session))
            stage.members[i].session = 0;
}
