/* SPDX-License-Identifier: MIT */
/* lockkeeper seg rm NAME...: removes names; who has a segment open keeps it. */
#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "common/cleanup.h"

static const char help[] = "Usage: lockkeeper seg rm [options] NAME...\n"
                           "\n"
                           "Removes segments by name. Programs that have one open keep it, with "
                           "its locks, until they close\n"
                           "it; the name is free at once.\n"
                           "\n"
                           "      --socket PATH  the broker to use; see 'lockkeeper where'\n"
                           "  -h, --help         show this help\n"
                           "  -V, --version      show the version\n"
                           "\n"
                           "EXIT STATUS\n"
                           "  0 all removed; else of the last one that failed: 1 there is none; 64 "
                           "wrong usage; 66 no broker;\n"
                           "  71 system error; 76 protocol; 77 not permitted\n"
                           "\n"
                           "EXAMPLES\n"
                           "  lockkeeper seg rm frames journal\n";

static const struct option long_options[] = {
    LKI_OPTIONS_COMMON,
    {NULL, 0, NULL, 0},
};

int lki_cli_seg_rm(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    int code = lki_cli_check_output_options(cli, false);
    if (code > 0)
        return code;
    if (optind == argc)
        return lki_cli_usage(cli, "no NAME given");
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    code = LKI_EXIT_OK;
    for (int i = optind; i < argc; i++) {
        int r = lk_segment_remove(session, argv[i]);
        if (r < 0)
            code = lki_cli_refusal(r);
    }
    return code;
}
