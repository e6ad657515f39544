/* SPDX-License-Identifier: MIT */
/* An upgrade: the keeper executes the program that is installed by now, in its own place. All
 * descriptors stay open across execve(2), so the next image finds the ledger and everything that it
 * speaks of; what the keeper knows besides goes along in a file in memory, whose number is an
 * argument. Nobody notices but for a pause, as after a worker's death. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "broker/io/instance.h"
#include "broker/io/names.h"
#include "broker/keeper/service_manager.h"

#define LKD_HANDOVER_VERSION 2u /* raise it with the ledger's version, and with the structure */

/* What an upgrade asks the new program before it commits itself: can it go on from this?
 * `version` as the old one writes it. */
bool lkd_handover_accepts(uint64_t version);

/* Runs `program --accepts VERSION`, and says whether it ended with 0. */
bool lkd_handover_ask(const char *program);

struct lkd_handover {
    const char *program; /* where this image was started from */
    char **argv;         /* how */
};

/**
 * Becomes the program. Returns on failure only, with -errno and nothing changed. No worker may run.
 * @ledger_fd: of the keeper
 */
int lkd_handover_execute(const struct lkd_handover *handover, int ledger_fd,
                         const struct lkd_instance *instance, const struct lkd_names *names,
                         const struct lkd_service *manager);

/* In the new image: takes over what the one before left in this file, which it closes. Returns the
 * ledger's descriptor, or -EPROTO. */
int lkd_handover_resume(int file_fd, struct lkd_instance *out_instance, struct lkd_names *out_names,
                        struct lkd_service *out_manager);

/**
 * `lockkeeperd --upgrade`: asks the broker that answers at one of the usual places, or at
 * socket_path, to do all that, and waits until another worker goes on.
 * Returns: an exit code; says on stderr why not
 */
int lkd_handover_request(const char *socket_path);
