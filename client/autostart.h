/* SPDX-License-Identifier: MIT */
/* Starting a broker: finds the program, runs it detached from this process, waits until it listens.
 * Of several clients that do so at once one daemon wins, by its lock beside the socket; all connect
 * to it. Leaves no zombie and no descriptor behind. */
#pragma once

#include <limits.h>

/* Which program that would be: a path, or a bare name to be looked for in PATH. It need not exist. */
void lki_autostart_program(char out_program[PATH_MAX]);

/**
 * Starts lockkeeperd for path and connects to it.
 * Errors: -ECONNREFUSED (it could not be started; the text has its own words), -EMFILE, -ENOMEM.
 * Makes the text
 */
int lki_autostart(const char *path, int *out_fd);
