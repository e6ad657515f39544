/* SPDX-License-Identifier: MIT */
/* To be preloaded: loses memory in a process that is called lockkeeperd, and nowhere else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void __attribute__((constructor)) lose(void)
{
    static void *volatile kept;
    if (strcmp(program_invocation_short_name, "lockkeeperd") != 0)
        return;
    kept = malloc(77);
    if (kept)
        memset(kept, 1, 77);
    kept = NULL;
}
