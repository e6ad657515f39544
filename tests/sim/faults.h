/* SPDX-License-Identifier: MIT */
/* What goes wrong, and how often. */
#pragma once

#include "tests/sim/sim.h"

void faults_draw_plan(void); /* for the seed */
void faults_happen(void);    /* perhaps one, now: somebody is stopped or ended wherever it is */
void faults_before_barrier(void); /* perhaps the end of who is about to make it */
void faults_deliver_signal(int process, int signal);
