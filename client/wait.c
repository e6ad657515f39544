/* SPDX-License-Identifier: MIT */
#include "client/wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/deadlock.h"
#include "common/clock.h"
#include "common/spin.h"
#include "engine/wait.h"

#define SPINS_MAX 200u /* pauses; about 10 us: less than a sleep and a wake cost */
#define SPINS_PER_LOOK 8u

/* --- Futexes: in memory that processes share, so never FUTEX_PRIVATE_FLAG --- */

/* Sleeps while *futex is value, until woken, interrupted, or the time has come. */
static void sleep_on(_Atomic uint32_t *futex, uint32_t value, uint64_t until_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ns / LKI_NS_PER_S),
                                   .tv_nsec = (long)(until_ns % LKI_NS_PER_S)};
    const struct timespec *limit = until_ns == LKI_TIME_NEVER ? NULL : &until;
    /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC: no drift over repeated sleeps. Whatever
     * it returns, the caller looks again. */
    (void)syscall(SYS_futex, futex, FUTEX_WAIT_BITSET, value, limit, NULL, FUTEX_BITSET_MATCH_ANY);
}

void lki_wake_native(void *user, uint32_t slot, bool brokered)
{
    struct lk_segment *segment = user;
    int saved = errno;
    if (brokered) {
        struct lki_message nudge = {.type = LKI_REQUEST_NUDGE,
                                    .as.segment_ref = {.segment = segment->number}};
        lki_transport_send_hint(&segment->session->transport, &nudge);
    } else {
        struct lki_attachment *attachment = lki_area_attachment(&segment->area, slot);
        if (attachment) /* all that sleep there: one legitimate sleeper, and whoever scribbles */
            (void)syscall(SYS_futex, &attachment->futex, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    errno = saved;
}

/* --- Spinning --- */

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* What is wanted: the lock in a mode, or for a hold for update to become exclusive. */
struct wish {
    enum lki_mode mode;
    enum lki_hold hold;
    bool upgrade;
};

static enum lki_verdict try_once(struct lk_lock *lock, const struct wish *wish)
{
    return wish->upgrade ? lki_lock_upgrade_try(lock->party, lock->index, wish->hold)
                         : lki_lock_try(lock->party, lock->index, wish->mode, wish->hold);
}

/* Most holds are short: a little patience here saves two system calls and a switch. How much is
 * worth it is learned per lock: the limit drifts to twice what the last waits needed. */
static enum lki_verdict spin(struct lk_lock *lock, const struct wish *wish)
{
    if (lki_has_one_processor())
        return LKI_BUSY;
    uint32_t limit = 2 * lock->spins + 2 * SPINS_PER_LOOK;
    if (limit > SPINS_MAX)
        limit = SPINS_MAX;
    enum lki_verdict verdict = LKI_BUSY;
    uint32_t spins = 0;
    while (verdict == LKI_BUSY && spins < limit) {
        for (uint32_t i = 0; i < SPINS_PER_LOOK; i++)
            pause_briefly();
        spins += SPINS_PER_LOOK;
        verdict = try_once(lock, wish);
    }
    lock->spins = (7 * lock->spins + (verdict == LKI_BUSY ? 0 : spins)) / 8;
    return verdict;
}

/* --- Waiting --- */

/* The first nap has passed: the owner may be dead, with its memory still being torn down. The
 * broker can tell; if it does not get this, its pidfd tells it a little later. */
static void ask_about_owner(const struct lk_lock *lock, const struct lki_sleep *nap)
{
    struct lki_message ask = {
        .type = LKI_REQUEST_ASK,
        .as.ask = {.segment = lock->segment->number,
                   .lock = lock->index,
                   .owner = nap->owner,
                   .sequence = nap->sequence},
    };
    lki_transport_send_hint(&lock->segment->session->transport, &ask);
}

static enum lki_verdict wait_for(struct lk_lock *lock, const struct wish *wish, uint64_t timeout_ns)
{
    enum lki_verdict verdict = try_once(lock, wish);
    if (verdict != LKI_BUSY || timeout_ns == 0)
        return verdict;
    uint64_t start_ns = lki_clock_now_ns();
    uint64_t deadline_ns = lki_time_add(start_ns, timeout_ns);
    verdict = spin(lock, wish);
    if (verdict != LKI_BUSY)
        return verdict;

    struct lki_wait wait;
    struct lki_deadlock_check check = {.lock = lock, .phase = LKI_WAIT_PHASE_ENDED};
    verdict = wish->upgrade ? lki_wait_begin_upgrade(&wait, lock->party, lock->index, wish->hold,
                                                     start_ns, deadline_ns)
                            : lki_wait_begin(&wait, lock->party, lock->index, wish->mode,
                                             wish->hold, start_ns, deadline_ns);
    while (verdict == LKI_SLEEP) {
        struct lki_sleep nap;
        verdict = lki_wait_step(&wait, lki_clock_now_ns(), &nap);
        if (verdict != LKI_SLEEP)
            break;
        if (lki_deadlock_found(&check, &wait)) {
            lki_wait_give_up(&wait);
            return LKI_BUSY;
        }
        if (nap.ask)
            ask_about_owner(lock, &nap);
        sleep_on(nap.futex, nap.futex_value, nap.until_ns);
    }
    return verdict;
}

enum lki_verdict lki_wait_native(struct lk_lock *lock, enum lki_mode mode, enum lki_hold hold,
                                 uint64_t timeout_ns)
{
    return wait_for(lock, &(struct wish){.mode = mode, .hold = hold}, timeout_ns);
}

enum lki_verdict lki_wait_upgrade(struct lk_lock *lock, uint64_t timeout_ns)
{
    return wait_for(lock, &(struct wish){.hold = LKI_HOLD_DATA, .upgrade = true}, timeout_ns);
}
