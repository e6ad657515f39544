/* SPDX-License-Identifier: MIT */
#include "client/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/text.h"
#include "common/printable.h"

#ifndef LKI_VERSION
#define LKI_VERSION "unknown"
#endif

__attribute__((format(printf, 1, 0))) static void complain(const char *format, va_list arguments)
{
    char line[4096];
    vsnprintf(line, sizeof(line), format, arguments);
    fprintf(stderr, "lockkeeper: %s\n", lki_printable(line));
}

static bool has_complained;

int lki_cli_explain(int code)
{
    if (code != LKI_EXIT_OS || has_complained)
        return code;
    lki_cli_complain("cannot go on: %s", strerror(errno != 0 ? errno : ENOMEM));
    return code;
}

void lki_cli_complain(const char *format, ...)
{
    va_list arguments;
    has_complained = true;
    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
}

int lki_cli_usage(const struct lki_cli *cli, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    lki_cli_complain("%s%s%s; try 'lockkeeper %s%s--help'", cli->command, *cli->command ? ": " : "",
                     line, cli->command, *cli->command ? " " : "");
    return LKI_EXIT_USAGE;
}

int lki_cli_exit_code(int result)
{
    switch (-result) {
    case EBUSY:
    case ETIMEDOUT:
    case EEXIST:
    case ENOENT:
    case EAGAIN: /* not yet published */
        return LKI_EXIT_CONFLICT;
    case EINVAL:
    case ERANGE:
    case EFBIG:
    case ENAMETOOLONG:
        return LKI_EXIT_USAGE;
    case EBADF:
    case EIO:
        return LKI_EXIT_DATA;
    case ECONNREFUSED:
    case ECONNRESET:
        return LKI_EXIT_NO_BROKER;
    case EDEADLK:
    case ESTALE:
        return LKI_EXIT_LOST;
    case EPROTO:
    case EPROTONOSUPPORT:
        return LKI_EXIT_PROTOCOL;
    case EACCES:
    case EPERM:
    case EROFS:
        return LKI_EXIT_DENIED;
    default:
        return LKI_EXIT_OS;
    }
}

int lki_cli_refusal(int result)
{
    const char *detail = lk_last_error();
    lki_cli_complain("%s", *detail ? detail : lk_strerror(result));
    return lki_cli_exit_code(result);
}

int lki_cli_open(const struct lki_cli *cli, bool autostart, struct lk_session **out_session)
{
    struct lk_session_options options = {
        .size = sizeof(options),
        .flags = autostart ? 0 : LK_NO_AUTOSTART,
    };
    int r = lk_session_open(cli->socket_path, &options, out_session);
    return r < 0 ? lki_cli_refusal(r) : 0;
}

void lki_cli_close_session(struct lk_session **session)
{
    *session = lk_session_close(*session);
}

int lki_cli_common_option(struct lki_cli *cli, int option, const char *help)
{
    switch (option) {
    case LKI_OPTION_SOCKET:
        cli->socket_path = optarg;
        return -1;
    case LKI_OPTION_JSON:
        cli->json = true;
        return -1;
    case LKI_OPTION_RAW:
        cli->raw = true;
        return -1;
    case LKI_OPTION_NO_HEADINGS:
        cli->no_headings = true;
        return -1;
    case 'o':
        cli->columns = optarg;
        return -1;
    case 'q':
        cli->quiet = true;
        return -1;
    case 'h':
        fputs(help, stdout);
        return lki_cli_finish(LKI_EXIT_OK);
    case 'V':
        puts("lockkeeper " LKI_VERSION);
        return lki_cli_finish(LKI_EXIT_OK);
    default: /* getopt_long() has said what is wrong */
        fprintf(stderr, "Try 'lockkeeper %s%s--help'.\n", cli->command, *cli->command ? " " : "");
        return LKI_EXIT_USAGE;
    }
}

int lki_cli_check_output_options(const struct lki_cli *cli, bool reads)
{
    if (cli->json && !reads)
        return lki_cli_usage(cli, "--json: this command prints nothing to read");
    if (cli->json && (cli->columns || cli->raw || cli->no_headings))
        return lki_cli_usage(
            cli, "--json prints everything; -o, --raw and --no-headings are for tables");
    return 0;
}

int lki_cli_finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    lki_cli_complain("cannot write to standard output: %s", strerror(errno));
    return LKI_EXIT_OS;
}

static const struct lki_cli_command *find_command(const struct lki_cli_command *table,
                                                  const char *name)
{
    for (; table->name; table++)
        if (strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

int lki_cli_run_group(struct lki_cli *cli, const struct lki_cli_command *table, const char *help,
                      int argc, char **argv)
{
    static const struct option long_options[] = {
        LKI_OPTIONS_READ,
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "+qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (optind >= argc)
        return lki_cli_usage(cli, "no command given");
    const struct lki_cli_command *command = find_command(table, argv[optind]);
    if (!command)
        return lki_cli_usage(cli, "there is no command '%s'", argv[optind]);
    size_t used = strlen(cli->command);
    snprintf(cli->command + used, sizeof(cli->command) - used, "%s%s", used ? " " : "",
             command->name);
    snprintf(cli->title, sizeof(cli->title), "lockkeeper %s", cli->command);
    argc -= optind;
    argv += optind;
    argv[0] = cli->title;
    optind = 0; /* glibc: begin anew, with another option string */
    return command->run(cli, argc, argv);
}
