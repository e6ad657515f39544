/* SPDX-License-Identifier: MIT */
/* Who has allocated what: the linker puts these in the place of the allocator (--wrap), so that all
 * that a worker or a client process had can be freed when it dies in the middle of anything. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MEMORY_NOBODY 0u /* not noted: the simulation's own, freed by itself */
#define MEMORY_WORLD 1u  /* of one run of the simulation */
#define MEMORY_WORKER 2u
#define MEMORY_PROCESS 3u /* and above: by process */

/* For whom allocations are noted from now on. Returns who it was before. */
uint32_t memory_set_owner(uint32_t owner);

/* Zeroed, noted for the owner whoever runs; free() gives it back. Never NULL. */
void *memory_take(uint32_t owner, size_t bytes);

void memory_free_owned(uint32_t owner);
void memory_free_all(void);
