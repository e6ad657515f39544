/* SPDX-License-Identifier: MIT */
/* lockkeeper seg ls: the segments that the caller may see. */
#include <inttypes.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/seg_text.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "common/cleanup.h"

static const char help[] =
    "Usage: lockkeeper seg ls [options]\n"
    "\n"
    "Lists the segments that you may see.\n"
    "\n"
    "  -o, --output COLUMNS  NAME,SIZE,MAX,KIND,OWNER,MODE,USERS,LOCKS,FLAGS, or some of them\n"
    "      --raw, --no-headings\n"
    "      --json            schema lockkeeper.seg-ls/1; sizes in bytes\n"
    "      --socket PATH     the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help            show this help\n"
    "  -V, --version         show the version\n"
    "\n"
    "KIND is memory, file, or locks (no data). USERS: sessions that have it open. FLAGS: kept, "
    "strict,\n"
    "guard, unpublished.\n"
    "\n"
    "EXIT STATUS\n"
    "  0 listed, also when there is none; 64 wrong usage; 66 no broker; 71 system error; 76 "
    "protocol\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper seg ls -o NAME,SIZE\n";

static const struct option long_options[] = {
    LKI_OPTIONS_TABLE,
    {NULL, 0, NULL, 0},
};

enum { NAME, SIZE, MAX, KIND, OWNER, MODE, USERS, LOCKS, FLAGS, COLUMNS };

static const struct lki_table_column columns[COLUMNS] = {
    [NAME] = {"NAME", 0},
    [SIZE] = {"SIZE", SCOLS_FL_RIGHT},
    [MAX] = {"MAX", SCOLS_FL_RIGHT},
    [KIND] = {"KIND", 0},
    [OWNER] = {"OWNER", 0},
    [MODE] = {"MODE", 0},
    [USERS] = {"USERS", SCOLS_FL_RIGHT},
    [LOCKS] = {"LOCKS", SCOLS_FL_RIGHT},
    [FLAGS] = {"FLAGS", 0},
};

static int print_table(const struct lki_cli *cli, struct lki_table *table,
                       const struct lki_listing *listing)
{
    int code = lki_table_open(cli, table);
    if (code >= 0)
        return code;
    for (size_t i = 0; i < listing->count; i++) {
        const struct lki_list_entry *is = &listing->entries[i].is;
        char mode[16], users[16], locks[16];
        struct lki_text size = lki_text_size(is->size_bytes);
        struct lki_text max = lki_text_size(is->size_max_bytes);
        struct lki_text owner = lki_text_user(is->uid);
        struct lki_text flags = lki_seg_flags(is);
        snprintf(mode, sizeof(mode), "%04" PRIo32, is->mode);
        snprintf(users, sizeof(users), "%" PRIu32, is->attachments);
        snprintf(locks, sizeof(locks), "%" PRIu32, is->locks);
        bool data = lki_seg_has_data(is);
        const char *cells[COLUMNS] = {
            [NAME] = listing->entries[i].name,
            [SIZE] = data ? size.text : NULL,
            [MAX] = data ? max.text : NULL,
            [KIND] = lki_seg_kind(is),
            [OWNER] = owner.text,
            [MODE] = mode,
            [USERS] = users,
            [LOCKS] = locks,
            [FLAGS] = *flags.text ? flags.text : NULL,
        };
        if (!lki_table_add(table, NULL, cells))
            return LKI_EXIT_OS;
    }
    return lki_table_print(table);
}

static int print_json(const struct lki_listing *listing)
{
    json_t *segments = json_array();
    for (size_t i = 0; i < listing->count; i++)
        json_array_append_new(segments, lki_seg_json(&listing->entries[i]));
    return lki_cli_print_json(
        json_pack("{s:s, s:o}", "schema", "lockkeeper.seg-ls/1", "segments", segments));
}

int lki_cli_seg_ls(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "o:qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (optind != argc)
        return lki_cli_usage(cli, "too many arguments; 'lockkeeper seg stat NAME' shows one");
    int code = lki_cli_check_output_options(cli, true);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_table_deinit) struct lki_table table;
    code = lki_table_choose(cli, columns, COLUMNS, &table);
    if (code >= 0)
        return code;
    LKI_CLEANUP(lki_cli_close_session) struct lk_session *session = NULL;
    code = lki_cli_open(cli, false, &session);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_listing_deinit) struct lki_listing listing = {0};
    int r = lki_listing_read(session, LKI_LIST_SEGMENTS, NULL, &listing);
    if (r < 0)
        return lki_cli_refusal(r);
    return cli->json ? print_json(&listing) : lki_cli_finish(print_table(cli, &table, &listing));
}
