/* SPDX-License-Identifier: MIT */
/* The client library on a hostile control area: two sessions of this process, without a broker, and
 * somebody who writes anything into the area between and inside their calls. Results are among those
 * that the header names, texts end, no wait outlasts its time by more than its last nap. */
#include <errno.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/bias.h"
#include "client/lock.h"
#include "engine/step.h"
#include "fuzz.h"
#include "scribble.h"
#include "tests/unit/client/area_fixture.h"

#define SEGMENTS 2
#define LOCKS 3u
#define CALLS_MAX 60
#define STEPS_MAX 1000000u

static struct {
    struct fuzz_input *input;
    struct area_fixture fixture;
    struct lk_segment *segments[SEGMENTS];
    struct lk_lock *locks[SEGMENTS][LOCKS];
    uint64_t steps;
    uint32_t scribble_in;
} field;

static void on_step(const char *name)
{
    (void)name;
    FUZZ_CHECK(++field.steps < STEPS_MAX, "a call does not end");
    if (field.scribble_in > 0 && --field.scribble_in == 0)
        fuzz_scribble(field.input, &field.fixture.area);
}

static void check_result(int result)
{
    static const int known[] = {LK_ACQUIRED, LK_ACQUIRED_OWNER_DIED,
                                -EBUSY,      -ETIMEDOUT,
                                -EDEADLK,    -ENOLCK,
                                -ESTALE,     -EPERM,
                                -EAGAIN,     -EOWNERDEAD,
                                -EIO,        -ENOENT,
                                -EINVAL,     -ECONNRESET,
                                -ENOTCONN,   -EALREADY,
                                -ENODATA};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (result == known[i]) {
            FUZZ_CHECK(strlen(lk_last_error()) < 4096 && lk_strerror(result) != NULL);
            return;
        }
    FUZZ_CHECK(false, "the result %d: %s", result, lk_last_error());
}

static void acquire(struct lk_lock *lock, uint8_t how)
{
    static const enum lk_mode modes[] = {LK_EXCLUSIVE, LK_SHARED, LK_EXCLUSIVE_TO_EXIT, LK_SHARED};
    /* Mostly tries; a time that is over at once goes all the way into a wait and out again. */
    check_result(lk_lock_acquire(lock, modes[how & 3], (how & 0x70) == 0x70 ? 1000 : 0));
}

static void read_optimistically(const struct lk_lock *lock)
{
    uint64_t version = 0;
    int r = lk_read_begin(lock, &version);
    check_result(r);
    if (r == 0)
        (void)lk_read_valid(lock, version);
}

static void ask_recovery(struct lk_lock *lock)
{
    struct lk_recovery recovery = {.size = sizeof(recovery)};
    int r = lk_lock_recovery(lock, &recovery);
    check_result(r);
    if (r == 0)
        FUZZ_CHECK(memchr(recovery.command, 0, sizeof(recovery.command)) != NULL,
                   "a command that does not end");
}

static void map(struct lk_segment *segment, uint8_t how)
{
    void *address = NULL;
    uint64_t size_bytes = lk_segment_size(segment);
    /* The size comes from the header, which anybody may write: what is mapped must be there. */
    int r = lk_segment_map(segment, (how & 7) * UINT64_C(4096), 1 + how, &address);
    if (r == 0) {
        FUZZ_CHECK(((volatile uint8_t *)address)[how] == 0);
        FUZZ_CHECK(lk_segment_unmap(segment, address) == 0);
    }
    (void)size_bytes;
}

static void call(void)
{
    uint8_t what = fuzz_byte(field.input), how = fuzz_byte(field.input);
    uint32_t who = how >> 7;
    struct lk_lock *lock = field.locks[who][(how >> 2) % LOCKS];
    field.steps = 0;
    switch (what % 12) {
    case 0:
    case 1:
        acquire(lock, how);
        break;
    case 2:
    case 3:
        check_result(lk_lock_release(lock));
        break;
    case 4:
        check_result(lk_lock_mark_consistent(lock));
        break;
    case 5:
        read_optimistically(lock);
        break;
    case 6:
        ask_recovery(lock);
        break;
    case 7:
        (void)lk_lock_token(lock);
        check_result(lk_lock_declare(lock, how, 8));
        break;
    case 8:
        map(field.segments[who], how);
        break;
    case 9:
        field.scribble_in = how % 32;
        break;
    case 10:
        if (how < 4)
            area_fixture_repair(&field.fixture, field.segments[how & 1]);
        break;
    default:
        fuzz_scribble(field.input, &field.fixture.area);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct fuzz_input input = {data, size_bytes};
    memset(&field, 0, sizeof(field));
    field.input = &input;
    area_fixture_init(&field.fixture);
    field.fixture.area.header->bias = 1; /* as from a broker that can make barriers */
    lki_bias_reads = 1;
    for (int who = 0; who < SEGMENTS; who++) {
        field.segments[who] = area_fixture_attach(&field.fixture, -1);
        for (uint32_t i = 0; i < LOCKS; i++)
            FUZZ_CHECK(lk_lock_at(field.segments[who], i, &field.locks[who][i]) == 0);
    }
    lki_step_hook = on_step;
    for (int i = 0; i < CALLS_MAX && input.left > 0; i++)
        call();
    field.steps = 0;
    field.scribble_in = 0;
    for (int who = 0; who < SEGMENTS; who++)
        lk_session_close(field.segments[who]->session);
    lki_step_hook = NULL;
    area_fixture_deinit(&field.fixture);
    return 0;
}
