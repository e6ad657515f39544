/* SPDX-License-Identifier: MIT */
/* lockkeeper where: which broker a program started here would use, and why. */
#include <inttypes.h>
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>

#include <lockkeeper/lockkeeper.h>

#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/probe.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "common/cleanup.h"
#include "common/place.h"

static const char help[] =
    "Usage: lockkeeper where [options]\n"
    "\n"
    "Says which broker a program started from here would use, and why: every place where its "
    "socket\n"
    "may be, in order, and what is there. Starts nothing.\n"
    "\n"
    "  -o, --output COLUMNS  USE,PATH,STATE,PID,UP,SESSIONS,SEGMENTS,WHY, or some of them\n"
    "      --raw, --no-headings, --json (schema lockkeeper.where/1)\n"
    "      --socket PATH     ask about this path\n"
    "  -h, --help            show this help\n"
    "  -V, --version         show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 a broker answers; 66 nobody does; 64 wrong usage, also a path that is too long; 71 system "
    "error;\n"
    "  77 the place belongs to somebody else\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper where\n"
    "  LOCKKEEPER_SOCKET=/srv/app/lk.sock lockkeeper where\n";

static const struct option long_options[] = {
    LKI_OPTIONS_TABLE,
    {NULL, 0, NULL, 0},
};

enum { USE, PATH, STATE, PID, UP, SESSIONS, SEGMENTS, WHY, COLUMNS };

static const struct lki_table_column columns[COLUMNS] = {
    [USE] = {"USE", 0},
    [PATH] = {"PATH", 0},
    [STATE] = {"STATE", 0},
    [PID] = {"PID", SCOLS_FL_RIGHT},
    [UP] = {"UP", SCOLS_FL_RIGHT},
    [SESSIONS] = {"SESSIONS", SCOLS_FL_RIGHT},
    [SEGMENTS] = {"SEGMENTS", SCOLS_FL_RIGHT},
    [WHY] = {"WHY", 0},
};

static const char *use_text(const struct lki_probe *probe)
{
    if (!probe->used || !lki_probe_is_usable(probe))
        return "";
    return probe->answers ? "yes" : "start";
}

static const char *state_text(const struct lki_probe *probe)
{
    return probe->answers ? "answers" : lki_probe_is_usable(probe) ? "nobody" : "unusable";
}

static int print_table(const struct lki_cli *cli, struct lki_table *table,
                       const struct lki_probe *probes, size_t count)
{
    int code = lki_table_open(cli, table);
    if (code >= 0)
        return code;
    for (size_t i = 0; i < count; i++) {
        const struct lki_probe *probe = &probes[i];
        char pid[16], sessions[16], segments[16];
        struct lki_text up = lki_text_duration(probe->up_ns);
        snprintf(pid, sizeof(pid), "%" PRId32, probe->pid);
        snprintf(sessions, sizeof(sessions), "%" PRIu32, probe->sessions);
        snprintf(segments, sizeof(segments), "%" PRIu32, probe->segments);
        /* What is wrong with a place itself, its reason says already. */
        bool says_more = probe->place->result == 0 && !probe->answers;
        char why[512];
        snprintf(why, sizeof(why), "%s%s%s", probe->place->reason, says_more ? "; " : "",
                 says_more ? probe->problem : "");
        const char *cells[COLUMNS] = {
            [USE] = *use_text(probe) ? use_text(probe) : NULL,
            [PATH] = *probe->place->path ? probe->place->path : NULL,
            [STATE] = state_text(probe),
            [PID] = probe->answers ? pid : NULL,
            [UP] = probe->answers ? up.text : NULL,
            [SESSIONS] = probe->answers ? sessions : NULL,
            [SEGMENTS] = probe->answers ? segments : NULL,
            [WHY] = why,
        };
        if (!lki_table_add(table, NULL, cells))
            return LKI_EXIT_OS;
    }
    return lki_table_print(table);
}

static const char *kind_text(enum lki_place_kind kind)
{
    switch (kind) {
    case LKI_PLACE_EXPLICIT:
        return "explicit";
    case LKI_PLACE_ENVIRONMENT:
        return "environment";
    case LKI_PLACE_SYSTEM:
        return "system";
    case LKI_PLACE_USER:
        return "user";
    case LKI_PLACE_FALLBACK:
        return "fallback";
    }
    return "?";
}

static int print_json(const struct lki_probe *probes, size_t count)
{
    json_t *places = json_array();
    const char *used = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct lki_probe *probe = &probes[i];
        json_t *broker = json_null();
        if (probe->answers)
            broker =
                json_pack("{s:i, s:I, s:o, s:I, s:I}", "pid", (int)probe->pid, "uid",
                          (json_int_t)probe->uid, "up_ns", lki_json_known(probe->up_ns), "sessions",
                          (json_int_t)probe->sessions, "segments", (json_int_t)probe->segments);
        if (probe->used)
            used = probe->place->path;
        json_array_append_new(
            places, json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:o}", "path", probe->place->path,
                              "kind", kind_text(probe->place->kind), "state", state_text(probe),
                              "used", probe->used, "reason", probe->place->reason, "problem",
                              probe->problem, "broker", broker));
    }
    return lki_cli_print_json(json_pack("{s:s, s:s?, s:o}", "schema", "lockkeeper.where/1", "used",
                                        used, "places", places));
}

/* The text above the table: the answer in one sentence, and what looks wrong. */
static void print_summary(const struct lki_probe *probes, size_t count)
{
    size_t answering = 0;
    for (size_t i = 0; i < count; i++) {
        const struct lki_probe *probe = &probes[i];
        answering += probe->answers;
        if (probe->used && probe->answers)
            printf("Programs started from here use the broker at %s (pid %" PRId32 ").\n",
                   probe->place->path, probe->pid);
        else if (probe->used && !lki_probe_is_usable(probe) && probe->place->result != 0)
            printf("No broker can be used: %s.\n", probe->place->reason);
        else if (probe->used && !lki_probe_is_usable(probe))
            printf("No broker can be used at %s: %s.\n", probe->place->path, probe->problem);
        else if (probe->used)
            printf("Nobody answers. The next program starts a broker at %s.\n", probe->place->path);
    }
    if (answering > 1)
        lki_cli_complain(
            "where: more than one broker answers; programs that find different ones do "
            "not exclude each other; give --socket or LOCKKEEPER_SOCKET");
    putchar('\n');
}

int lki_cli_where(struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "o:qhV", long_options, NULL)) != -1) {
        int code = lki_cli_common_option(cli, option, help);
        if (code >= 0)
            return code;
    }
    if (optind != argc)
        return lki_cli_usage(cli, "too many arguments");
    int code = lki_cli_check_output_options(cli, true);
    if (code > 0)
        return code;
    LKI_CLEANUP(lki_table_deinit) struct lki_table table;
    code = lki_table_choose(cli, columns, COLUMNS, &table);
    if (code >= 0)
        return code;

    struct lki_places places;
    struct lki_probe probes[LKI_PLACES_MAX];
    size_t used = lki_probe_all(cli->socket_path, &places, probes);
    if (cli->json) {
        code = print_json(probes, places.count);
    } else {
        if (!cli->raw && !cli->no_headings && !cli->columns)
            print_summary(probes, places.count);
        code = lki_cli_finish(print_table(cli, &table, probes, places.count));
    }
    if (code != LKI_EXIT_OK)
        return code;
    if (probes[used].answers)
        return LKI_EXIT_OK;
    return lki_probe_is_usable(&probes[used]) ? LKI_EXIT_NO_BROKER
                                              : lki_cli_exit_code(probes[used].result);
}
