/* SPDX-License-Identifier: MIT */
/* What a client does: a thread with a session of its own, which opens segments, locks in every way
 * that the library has, and lets go of all when it is told to. */
#pragma once

#include "tests/sim/sim.h"

void program_main(void *user); /* user: the struct sim_task */

/* Removes what is kept, when all others have left. */
void program_janitor(void *user);
