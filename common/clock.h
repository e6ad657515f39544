/* SPDX-License-Identifier: MIT */
/* Time: nanoseconds on CLOCK_MONOTONIC, as uint64_t, everywhere. */
#pragma once

#include <stdint.h>

#define LKI_NS_PER_US UINT64_C(1000)
#define LKI_NS_PER_MS UINT64_C(1000000)
#define LKI_NS_PER_S UINT64_C(1000000000)
#define LKI_TIME_NEVER UINT64_MAX

/* Now, in nanoseconds on CLOCK_MONOTONIC. Cannot fail. */
uint64_t lki_clock_now_ns(void);

/* now + delta, and LKI_TIME_NEVER where that would overflow. */
static inline uint64_t lki_time_add(uint64_t now_ns, uint64_t delta_ns)
{
    return delta_ns > LKI_TIME_NEVER - now_ns ? LKI_TIME_NEVER : now_ns + delta_ns;
}
