/* SPDX-License-Identifier: MIT */
/* lockkeeper ls: every lock that somebody holds or waits for. */
#include <inttypes.h>
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/listing.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "common/cleanup.h"

static const char help[] =
    "Usage: lockkeeper ls [options] [NAME]\n"
    "\n"
    "Lists the locks that somebody holds or waits for, with the queue below each: of all segments "
    "that\n"
    "you may see, or of NAME alone.\n"
    "\n"
    "  -o, --output COLUMNS  NAME,MODE,STATE,PID,COMMAND,USER,HELD,WAITERS,TOKEN, or some of them\n"
    "      --raw             columns divided by one blank, no tree; blanks in them as \\x20\n"
    "      --no-headings     no line of column names\n"
    "      --json            everything, schema lockkeeper.ls/1\n"
    "      --socket PATH     the broker to ask; see 'lockkeeper where'\n"
    "  -h, --help            show this help\n"
    "  -V, --version         show the version\n"
    "\n"
    "STATE is held, wait, drain (owns the lock, waits for the last readers to leave) or damaged\n"
    "(nobody holds it; its last owner died inside, and the next one will be told).\n"
    "\n"
    "EXIT STATUS\n"
    "  0 listed, also when there is none; 1 no such segment; 64 wrong usage; 66 no broker;\n"
    "  71 system error; 76 protocol; 77 not permitted\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper ls\n"
    "  lockkeeper ls -o NAME,PID --raw --no-headings\n"
    "  lockkeeper ls --json | jq '.locks[] | select(.waiters != [])'\n";

static const struct option long_options[] = {
    LKI_OPTIONS_TABLE,
    {NULL, 0, NULL, 0},
};

enum { NAME, MODE, STATE, PID, COMMAND, USER, HELD, WAITERS, TOKEN, COLUMNS };

static const struct lki_table_column columns[COLUMNS] = {
    [NAME] = {"NAME", SCOLS_FL_TREE},
    [MODE] = {"MODE", 0},
    [STATE] = {"STATE", 0},
    [PID] = {"PID", SCOLS_FL_RIGHT},
    [COMMAND] = {"COMMAND", 0},
    [USER] = {"USER", 0},
    [HELD] = {"HELD", SCOLS_FL_RIGHT},
    [WAITERS] = {"WAITERS", SCOLS_FL_RIGHT},
    [TOKEN] = {"TOKEN", SCOLS_FL_RIGHT},
};

static const char *short_mode(uint32_t mode)
{
    return mode == LK_EXCLUSIVE ? "excl" : lki_text_mode(mode);
}

static const char *state_text(uint32_t state)
{
    switch (state) {
    case LKI_ENTRY_HELD:
        return "held";
    case LKI_ENTRY_WAITING:
        return "wait";
    case LKI_ENTRY_DRAINING:
        return "drain";
    case LKI_ENTRY_DAMAGED:
        return "damaged";
    default: /* of a newer broker */
        return "?";
    }
}

/* One row; the lock's first one also has what belongs to the lock: name, waiters, token. */
static struct libscols_line *add_row(struct lki_table *table, struct libscols_line *parent,
                                     const struct lki_listing_entry *entry, size_t waiters,
                                     const char *name)
{
    char pid[16], waiting[24], token[24];
    struct lki_text held = lki_text_duration(entry->is.since_ns);
    struct lki_text user = lki_text_user(entry->is.uid);
    snprintf(pid, sizeof(pid), "%" PRId32, entry->is.pid);
    snprintf(waiting, sizeof(waiting), "%zu", waiters);
    snprintf(token, sizeof(token), "%" PRIu64, entry->is.token);
    bool somebody = entry->is.pid != 0;
    const char *cells[COLUMNS] = {
        [NAME] = name,
        [MODE] = short_mode(entry->is.mode),
        [STATE] = state_text(entry->is.state),
        [PID] = somebody ? pid : NULL,
        [COMMAND] = *entry->command ? entry->command : NULL,
        [USER] = somebody ? user.text : NULL,
        [HELD] = entry->is.since_ns ? held.text : NULL,
        [WAITERS] = parent ? NULL : waiting,
        [TOKEN] = parent ? NULL : token,
    };
    return lki_table_add(table, parent, cells);
}

/* A lock that has waiters and no holder yet: the moment between an unlock and the next owner. */
static struct libscols_line *add_free_row(struct lki_table *table,
                                          const struct lki_listing_lock *lock)
{
    char waiting[24];
    snprintf(waiting, sizeof(waiting), "%zu", lock->count);
    const char *cells[COLUMNS] = {
        [NAME] = lock->first->label, [STATE] = "free", [WAITERS] = waiting};
    return lki_table_add(table, NULL, cells);
}

static int print_table(const struct lki_cli *cli, struct lki_table *table,
                       const struct lki_listing *listing)
{
    int code = lki_table_open(cli, table);
    if (code >= 0)
        return code;
    size_t position = 0;
    struct lki_listing_lock lock;
    while ((lock = lki_listing_next_lock(listing, &position)).count > 0) {
        size_t waiters = lock.count - lock.holders;
        struct libscols_line *top =
            lock.holders ? add_row(table, NULL, lock.first, waiters, lock.first->label)
                         : add_free_row(table, &lock);
        if (!top)
            return LKI_EXIT_OS;
        /* In a tree the name of the parent is enough; raw rows stand for themselves. */
        const char *name = cli->raw ? lock.first->label : "";
        for (size_t i = lock.holders ? 1 : 0; i < lock.count; i++)
            if (!add_row(table, top, &lock.first[i], 0, name))
                return LKI_EXIT_OS;
    }
    return lki_table_print(table);
}

int lki_cli_ls(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "o:qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (argc - optind > 1)
        return lki_cli_usage(cli, "too many arguments");
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
    int r = lki_listing_read(session, LKI_LIST_LOCKS, argv[optind], &listing);
    if (r < 0)
        return lki_cli_refusal(r);
    if (!cli->json)
        return lki_cli_finish(print_table(cli, &table, &listing));
    return lki_cli_print_json(
        json_pack("{s:s, s:o}", "schema", "lockkeeper.ls/1", "locks", lki_json_locks(&listing)));
}
