/* SPDX-License-Identifier: MIT */
/* lockkeeper: the command line. Global options, then a subcommand, each in a file of its own. */
#include <locale.h>
#include <stdio.h>

#include "client/cli/cli.h"

static const struct lki_cli_command commands[] = {
    {"run", "take locks and become a command", lki_cli_run},
    {"ls", "list locks that are held or waited for", lki_cli_ls},
    {"why", "say who holds a lock, and who waits", lki_cli_why},
    {"where", "say which broker is used, and why", lki_cli_where},
    {"graph", "print who waits for whom", lki_cli_graph},
    {"doctor", "look for what is wrong, and say what to do", lki_cli_doctor},
    {"monitor", "print what happens at the broker", lki_cli_monitor},
    {"release", "end whoever holds a lock, by force", lki_cli_release},
    {"seg", "create, list, inspect and remove segments", lki_cli_seg},
    {"bench", "measure this machine, beside other locks if asked to", lki_cli_bench},
    {NULL, NULL, NULL},
};

static const char *make_help(void)
{
    static char text[2048];
    int used = snprintf(text, sizeof(text),
                        "Usage: lockkeeper [options] COMMAND ...\n"
                        "\n"
                        "Locks and shared memory for unrelated processes on one machine.\n"
                        "\n"
                        "COMMANDS\n");
    for (const struct lki_cli_command *command = commands; command->name; command++)
        used += snprintf(text + used, sizeof(text) - (size_t)used, "  %-8s %s\n", command->name,
                         command->summary);
    snprintf(text + used, sizeof(text) - (size_t)used,
             "\n"
             "OPTIONS, here or behind the command\n"
             "      --socket PATH  the broker's socket; else $LOCKKEEPER_SOCKET, else the "
             "system's, else\n"
             "                     your own, which is started when it does not run\n"
             "      --json         of the commands that read: JSON\n"
             "  -q, --quiet        run: say nothing when giving up\n"
             "  -h, --help         show this help; 'lockkeeper COMMAND --help' says more\n"
             "  -V, --version      show the version\n"
             "\n"
             "EXIT STATUS\n"
             "  0 done; 1 conflict, exists, or does not exist; 64 wrong usage; 65 bad data; 66 no "
             "broker;\n"
             "  69 cannot execute; 70 internal error; 71 system error; 75 lock lost or deadlock;\n"
             "  76 protocol; 77 not permitted. run: else the exit status of its command\n"
             "\n"
             "EXAMPLES\n"
             "  lockkeeper run -n backup -- ./backup.sh\n"
             "  lockkeeper ls\n"
             "  lockkeeper why backup\n");
    return text;
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    struct lki_cli cli = {.title = "lockkeeper"};
    if (argc < 1)
        return LKI_EXIT_USAGE;
    argv[0] = cli.title;
    return lki_cli_explain(lki_cli_run_group(&cli, commands, make_help(), argc, argv));
}
