/* SPDX-License-Identifier: MIT */
/* The broker's worker: the real core, driven as broker/io drives it. It may die at any step; its
 * successor finds the ledger, the control areas and the sockets, and nothing else. */
#pragma once

#include "broker/core/core.h"
#include "broker/core/ledger.h"
#include "tests/sim/kernel.h"

void worker_init(void); /* of one run: an empty ledger */

/* What the task runs; takes over if there was one before. */
void worker_main(void *user);

/* Its memory is freed by whoever ends it; the rest of it is forgotten here. */
void worker_forget(void);

/* Whether it has work now, or knows of work to come: of anything but timers. */
bool worker_is_quiet(void);

/* A signal was delivered, and what came of it. */
void worker_hear_signal(uint64_t process, int signal, int result);

const struct lkd_core *worker_core(void); /* NULL: there is none */
void worker_view_ledger(struct lkd_ledger *out);

/* At an event, from the call into the core to its last effect. */
bool worker_in_core(void);
