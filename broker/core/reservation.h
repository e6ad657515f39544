/* SPDX-License-Identifier: MIT */
/* Names that nobody gets: clients of a broker that is gone altogether still have segments of theirs,
 * with which nobody here can do anything. Two memories of one name must not live together. */
#pragma once

#include "broker/core/state.h"

struct lkd_reservation {
    struct lki_list node; /* in core->reserved */
    struct lkd_name name;
    uint32_t name_bytes;
    uint64_t process;
    int32_t pid;
};

/* One of those that reserve the name, or NULL. */
const struct lkd_reservation *
lkd_reservation_find(const struct lkd_core *core, const struct lkd_name *name, uint32_t name_bytes);

/* The process has ended: what it reserved is free. */
void lkd_reservations_end(struct lkd_core *core, uint64_t process);

void lkd_reservations_deinit(struct lkd_core *core);
