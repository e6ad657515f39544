/* SPDX-License-Identifier: MIT */
/* The process that dies: a child with the library's own objects, made once in the driver, so that a
 * fork is all it takes. Its session has no connection, as after the loss of a broker: what the library
 * sends to a broker is for killsweep_broker. */
#pragma once

#include "scenario.h"

struct victim;

struct victim *victim_new(struct stage *stage);
struct victim *victim_free(struct victim *victim);

/* Forks one. It has done what comes before its call and has stopped. slow: it will be single-stepped,
 * so that time passes a hundred times as fast. */
pid_t victim_start(struct victim *victim, const struct scenario *scenario, bool slow);

/* What its call returned. */
int victim_result(const struct victim *victim);

/* Its attachment. */
uint32_t victim_id(const struct victim *victim);
