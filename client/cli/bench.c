/* SPDX-License-Identifier: MIT */
/* lockkeeper bench: becomes lockkeeper-bench, which is a program of its own because it links the
 * shared library as others do, and because not everybody installs it. All options are that
 * program's. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"

#define PROGRAM "lockkeeper-bench"

static const char help[] =
    "Usage: lockkeeper bench [options]\n"
    "\n"
    "Measures lockkeeper on this machine, beside other locks if asked to. The program that does "
    "it,\n"
    "lockkeeper-bench, is not installed, so that its options cannot be shown here.\n";

/* False: it is not there either. */
static bool try_directory(const char *own, const char *directory, char *out_path, size_t capacity)
{
    int needed = snprintf(out_path, capacity, "%s%s/" PROGRAM, own, directory);
    return needed > 0 && (size_t)needed < capacity && access(out_path, X_OK) == 0;
}

/* $LOCKKEEPER_BENCH, beside this program (in a build tree), or where the installation has it. */
static bool find_program(char *own, char *out_path, size_t capacity)
{
    const char *chosen = getenv("LOCKKEEPER_BENCH");
    ssize_t length = readlink("/proc/self/exe", own, PATH_MAX - 1);
    char *slash = NULL;
    if (length > 0) {
        own[length] = '\0';
        slash = strrchr(own, '/');
    }
    if (!slash) {
        snprintf(own, PATH_MAX, "?");
        return false;
    }
    *slash = '\0';
    if (chosen && *chosen)
        return snprintf(out_path, capacity, "%s", chosen) < (int)capacity;
    return try_directory(own, "", out_path, capacity) ||
           try_directory(own, "/" LKI_LIBEXEC_FROM_BIN, out_path, capacity);
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

int lki_cli_bench(struct lki_cli *cli, int argc, char **argv)
{
    char own[PATH_MAX], path[PATH_MAX];
    if (cli->socket_path)
        return lki_cli_usage(cli, "--socket: it measures with a broker of its own");
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-V") == 0 || strcmp(argv[i], "--version") == 0)
            return lki_cli_common_option(cli, 'V', help);
    if (!find_program(own, path, sizeof(path))) {
        if (asks_for_help(argc, argv))
            return lki_cli_common_option(cli, 'h', help);
        lki_cli_complain("bench: cannot find " PROGRAM " beside this program (%s) or in %s/%s; "
                         "install it, or set LOCKKEEPER_BENCH to its path",
                         own, own, LKI_LIBEXEC_FROM_BIN);
        return LKI_EXIT_CANNOT_EXEC;
    }
    /* Its name, --json if it was said before the command, the rest, NULL. */
    char **arguments = calloc((size_t)argc + 2, sizeof(*arguments));
    if (!arguments) {
        lki_cli_complain("bench: no memory");
        return LKI_EXIT_OS;
    }
    int count = 0;
    arguments[count++] = argv[0];
    if (cli->json)
        arguments[count++] = (char *)"--json";
    for (int i = 1; i < argc; i++)
        arguments[count++] = argv[i];
    execv(path, arguments);
    lki_cli_complain("bench: cannot execute %s: %s", path, strerror(errno));
    free(arguments);
    return LKI_EXIT_CANNOT_EXEC;
}
