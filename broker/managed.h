/* SPDX-License-Identifier: MIT */
/* The daemon under a service manager: what it takes over at the start and says at the turns of its
 * life. Joins broker/keeper/service_manager.h with the instance and the log; a message that cannot
 * be sent is logged and otherwise ignored, since no manager is needed to serve. Main thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct lkd_instance;
struct lkd_instance_problem;
struct lkd_service;

#define LKD_MANAGED_NO_LISTENER 1

/* Opens the service. A process that a client started has none: the environment is the client's. */
void lkd_managed_open(struct lkd_service *service, bool autostarted);

/**
 * Takes the path over a socket that was left to us: the manager's of a socket unit, else the one
 * that a broker before us made and stored.
 * @path:   where it has to listen; NULL: wherever it does
 * Returns: 0; LKD_MANAGED_NO_LISTENER: there is none, or the stored one is of no use any more
 * Errors:  as of lkd_instance_adopt()
 */
int lkd_managed_adopt(struct lkd_service *service, const char *path, uint64_t now_s,
                      struct lkd_instance *instance, struct lkd_instance_problem *out_problem);

/* Closes what nobody has taken, and has the manager drop it too. */
void lkd_managed_drop_rest(struct lkd_service *service);

/* READY=1 and a status. A socket that we made is stored: connections then wait for a successor
 * when we crash. */
void lkd_managed_tell_ready(struct lkd_service *service, const struct lkd_instance *instance);

/* STOPPING=1. Before lkd_instance_close(). */
void lkd_managed_tell_stopping(struct lkd_service *service, const struct lkd_instance *instance);

/* WATCHDOG=1; every lkd_service_ping_interval_ms(). user: the service. */
void lkd_managed_ping(void *user);
