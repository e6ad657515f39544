/* SPDX-License-Identifier: MIT */
/* lockkeeper seg: the subcommands about segments. */
#include <stddef.h>

#include "client/cli/cli.h"

static const char help[] =
    "Usage: lockkeeper seg COMMAND ...\n"
    "\n"
    "COMMANDS\n"
    "  create  make a segment that lives until it is removed\n"
    "  ls      list segments\n"
    "  stat    show one segment\n"
    "  dump    write its data to a file, to stdout or as hex\n"
    "  rm      remove segments; who has one open keeps it\n"
    "\n"
    "'lockkeeper seg COMMAND --help' says more.\n"
    "\n"
    "EXIT STATUS\n"
    "  0 done; 1 exists, or does not exist; 64 wrong usage; 65 bad data; 66 no broker;\n"
    "  71 system error; 76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper seg create frames --size 64M\n"
    "  lockkeeper seg dump frames --length 64 --hex\n"
    "  lockkeeper seg rm frames\n";

static const struct lki_cli_command commands[] = {
    {"create", "make a segment", lki_cli_seg_create}, {"ls", "list segments", lki_cli_seg_ls},
    {"stat", "show one segment", lki_cli_seg_stat},   {"dump", "write its data", lki_cli_seg_dump},
    {"rm", "remove segments", lki_cli_seg_rm},        {NULL, NULL, NULL},
};

int lki_cli_seg(struct lki_cli *cli, int argc, char **argv)
{
    return lki_cli_run_group(cli, commands, help, argc, argv);
}
