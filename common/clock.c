/* SPDX-License-Identifier: MIT */
#include "common/clock.h"

#include <time.h>

uint64_t lki_clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * LKI_NS_PER_S + (uint64_t)now.tv_nsec;
}
