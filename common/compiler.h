/* SPDX-License-Identifier: MIT */
/* What the compiler is told beyond C17. LKI_CLEANUP has its own header. */
#pragma once

/* Keeps a function's large frame, and the registers that it saves, out of its callers. */
#define LKI_NOINLINE __attribute__((noinline))

/* Which way the uncontended pairs go: what is expected lies in a row, since each jump that is taken counts in five
 * nanoseconds (docs/performance.md). Of no use elsewhere. */
#define LKI_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define LKI_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
