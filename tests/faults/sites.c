/* SPDX-License-Identifier: MIT */
#include "tests/faults/sites.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ours alone have debug information. */
static const char *program_of(const char *module)
{
    static char self[PATH_MAX];
    if (strcmp(module, "lockkeeperd") == 0)
        return LK_DAEMON;
    if (strcmp(module, "lockkeeper") == 0)
        return LK_COMMAND;
    if (strcmp(module, "faults") != 0)
        return NULL;
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    return length > 0 ? self : NULL;
}

/* Two lines: function, and path:line. */
static bool ask(const char *program, uint64_t offset, char *out, size_t bytes)
{
    char command[PATH_MAX + 64];
    char function[128] = "";
    char place[512] = "";
    (void)unsetenv("LD_PRELOAD"); /* not into the tools */
    (void)snprintf(command, sizeof(command), "addr2line -f -e '%s' 0x%llx 2>/dev/null", program,
                   (unsigned long long)offset - 1);
    FILE *answer = popen(command, "re");
    if (answer == NULL)
        return false;
    bool both = fgets(function, sizeof(function), answer) != NULL &&
                fgets(place, sizeof(place), answer) != NULL;
    (void)pclose(answer);
    function[strcspn(function, "\n")] = '\0';
    place[strcspn(place, " \n")] = '\0';
    const char *slash = strrchr(place, '/');
    if (!both || function[0] == '?')
        return false;
    (void)snprintf(out, bytes, "%s (%s)", function, slash != NULL ? slash + 1 : place);
    return true;
}

void sites_name(const struct faults_site *site, char *out, size_t bytes)
{
    const char *program = program_of(site->module);
    if (program == NULL || !ask(program, site->offset, out, bytes))
        (void)snprintf(out, bytes, "%s+0x%llx", site->module, (unsigned long long)site->offset);
}
