/* SPDX-License-Identifier: MIT */
#include "common/spin.h"

#include <sched.h>
#include <stdatomic.h>

/* About what a sleep and a wake cost on another processor: looking never costs more than twice what it may
 * save. */
#define LIMIT_NS_MAX 50000u
#define LIMIT_NS_MIN 2000u
#define MISSES_MAX 8u
#define LOOK_NS_MAX 5000u /* ten times what a look takes, less than two switches and an answer */

bool lki_has_one_processor(void)
{
    static _Atomic int processors; /* 0: not asked yet */
    /* relaxed: a number that is the same whoever asks */
    int count = atomic_load_explicit(&processors, memory_order_relaxed);
    if (count == 0) {
        cpu_set_t allowed;
        /* Fails where there are more processors than the set has bits. */
        count = sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed)
                                                                     : CPU_SETSIZE;
        atomic_store_explicit(&processors, count, memory_order_relaxed);
    }
    return count == 1;
}

bool lki_spin_begin(struct lki_spin *spin, uint64_t now_ns)
{
    if (spin->limit_ns == 0) { /* whoever answers the first request has slept as a rule: it is woken
                                  sooner where we let it have our processor */
        spin->limit_ns = LIMIT_NS_MAX;
        return false;
    }
    if (spin->pausing > 0) {
        spin->pausing--;
        return false;
    }
    spin->began_ns = now_ns;
    spin->seen_ns = now_ns;
    spin->vain = 0;
    spin->disturbed = false;
    return true;
}

bool lki_spin_go_on(struct lki_spin *spin, uint64_t now_ns, bool came)
{
    spin->vain += !came;
    spin->disturbed |= now_ns - spin->seen_ns > LOOK_NS_MAX;
    spin->seen_ns = now_ns;
    return !came && !spin->disturbed && now_ns - spin->began_ns < spin->limit_ns;
}

static uint64_t within_limits(uint64_t limit_ns)
{
    if (limit_ns < LIMIT_NS_MIN)
        return LIMIT_NS_MIN;
    return limit_ns > LIMIT_NS_MAX ? LIMIT_NS_MAX : limit_ns;
}

void lki_spin_end(struct lki_spin *spin, bool came)
{
    if (came && !spin->disturbed) {
        uint64_t took_ns = spin->seen_ns - spin->began_ns;
        if (spin->vain == 0)
            return; /* it was there already, which tells nothing */
        spin->limit_ns = within_limits((7 * spin->limit_ns + 2 * took_ns) / 8);
        spin->misses = 0;
        return;
    }
    /* What has become slower is found again by looking longer, the more rarely. */
    spin->limit_ns = within_limits(2 * spin->limit_ns);
    spin->pausing = (uint16_t)(1u << spin->misses);
    if (spin->misses < MISSES_MAX)
        spin->misses++;
}
