/* SPDX-License-Identifier: MIT */
/* What a hostile client of a segment writes into its control area: values that look right in places
 * where they are wrong, and plain noise. */
#pragma once

#include "engine/layout.h"
#include "fuzz.h"

/* One scribble, anywhere in the area. The area's counts are the true ones, whatever its header says. */
void fuzz_scribble(struct fuzz_input *input, const struct lki_area *area);
