/* SPDX-License-Identifier: MIT */
/* A client that uses all of the library in a segment that somebody else spoils. */
#pragma once

#include <stdint.h>

/**
 * Works in a segment that exists until then: locks in every way, maps, reads, asks. Whatever a call
 * answers is right; only that it comes back, and that the process lives, is of interest.
 * @seed: the same gives the same calls
 */
void victim_work(const char *socket_path, const char *name, uint64_t seed, uint64_t end_ns);
