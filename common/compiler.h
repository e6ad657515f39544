/* SPDX-License-Identifier: MIT */
/* What the compiler is told beyond C17. LKI_CLEANUP has its own header. */
#pragma once

/* Keeps a function's large frame, and the registers that it saves, out of its callers. */
#define LKI_NOINLINE __attribute__((noinline))
