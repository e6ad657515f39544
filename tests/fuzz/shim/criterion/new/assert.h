/* SPDX-License-Identifier: MIT */
/* See criterion.h beside it. */
#pragma once

#define eq(type, a, b) ((a) == (b))
#define ne(type, a, b) ((a) != (b))
#define lt(type, a, b) ((a) < (b))
#define le(type, a, b) ((a) <= (b))
