/* SPDX-License-Identifier: MIT */
/* lockkeeper doctor: what is wrong here, and what to do about it. */
#include "client/cli/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/json.h"
#include "client/cli/text.h"
#include "common/clock.h"
#include "common/printable.h"

#define PATIENCE_NS (60 * LKI_NS_PER_S)

static const char help[] =
    "Usage: lockkeeper doctor [options]\n"
    "\n"
    "Looks for what is wrong or soon may be: a second broker, a socket without a broker, a broker\n"
    "that cannot be reached, limits that are too low, a kernel that lacks something, damaged "
    "locks,\n"
    "rings and long waits. Each line is ok, a warning or a problem, with what to do about it.\n"
    "Starts, changes and locks nothing.\n"
    "\n"
    "      --longest-wait SECONDS  waits that last longer are a warning (60)\n"
    "      --json                  the same, schema lockkeeper.doctor/1\n"
    "      --socket PATH           look at this broker; see 'lockkeeper where'\n"
    "  -h, --help                  show this help\n"
    "  -V, --version               show the version\n"
    "\n"
    "EXIT STATUS\n"
    "  0 all is well; 1 there are warnings or problems; 64 wrong usage; 71 system error\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper doctor\n"
    "  lockkeeper doctor --json | jq -r '.findings[] | select(.health != \"ok\") | .found'\n";

enum { OPTION_LONGEST_WAIT = LKI_OPTION_OWN };

static const struct option long_options[] = {
    {"longest-wait", required_argument, NULL, OPTION_LONGEST_WAIT},
    LKI_OPTIONS_READ,
    {NULL, 0, NULL, 0},
};

static const char *health_text(enum lki_health health)
{
    switch (health) {
    case LKI_HEALTH_OK:
        return "ok";
    case LKI_HEALTH_WARNING:
        return "warning";
    case LKI_HEALTH_PROBLEM:
        break;
    }
    return "problem";
}

void lki_doctor_tell(struct lki_doctor *doctor, enum lki_health health, const char *check,
                     const char *advice, const char *format, ...)
{
    char found[2048], todo[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(found, sizeof(found), format, arguments);
    va_end(arguments);
    snprintf(todo, sizeof(todo), "%s", advice ? advice : "");
    lki_printable(found);
    lki_printable(todo);
    doctor->counts[health]++;
    if (doctor->findings) {
        json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:s, s:s?}", "check", check,
                                                          "health", health_text(health), "found",
                                                          found, "advice", advice ? todo : NULL));
        return;
    }
    printf("%-8s %s: %s\n", health_text(health), check, found);
    if (advice)
        printf("%-8s %s\n", "", todo);
}

static int print_json(struct lki_doctor *doctor)
{
    enum lki_health worst = LKI_HEALTH_PROBLEM;
    while (worst != LKI_HEALTH_OK && doctor->counts[worst] == 0)
        worst--;
    return lki_cli_print_json(json_pack("{s:s, s:s, s:o}", "schema", "lockkeeper.doctor/1",
                                        "health", health_text(worst), "findings",
                                        doctor->findings));
}

static int print_summary(const struct lki_doctor *doctor)
{
    unsigned problems = doctor->counts[LKI_HEALTH_PROBLEM];
    unsigned warnings = doctor->counts[LKI_HEALTH_WARNING];
    if (problems + warnings == 0)
        printf("\nAll is well.\n");
    else
        printf("\n%u problem%s, %u warning%s.\n", problems, problems == 1 ? "" : "s", warnings,
               warnings == 1 ? "" : "s");
    return lki_cli_finish(LKI_EXIT_OK);
}

static int read_options(struct lki_doctor *doctor, struct lki_cli *cli, int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "qhV", long_options, NULL)) != -1) {
        int code = -1;
        if (option != OPTION_LONGEST_WAIT)
            code = lki_cli_common_option(cli, option, help);
        else if (lki_text_parse_seconds(optarg, &doctor->patience_ns) < 0)
            code = lki_cli_usage(cli, "--longest-wait takes seconds, not '%s'", optarg);
        if (code >= 0)
            return code;
    }
    return optind == argc ? -1 : lki_cli_usage(cli, "too many arguments");
}

int lki_cli_doctor(struct lki_cli *cli, int argc, char **argv)
{
    struct lki_doctor doctor = {.cli = cli, .patience_ns = PATIENCE_NS};
    int code = read_options(&doctor, cli, argc, argv);
    if (code >= 0)
        return code;
    if (cli->json)
        doctor.findings = json_array();
    lki_doctor_look_at_places(&doctor);
    lki_doctor_look_at_broker(&doctor);
    lki_doctor_look_at_system(&doctor);
    lki_doctor_look_at_locks(&doctor);
    code = cli->json ? print_json(&doctor) : print_summary(&doctor);
    if (code != LKI_EXIT_OK)
        return code;
    return doctor.counts[LKI_HEALTH_WARNING] + doctor.counts[LKI_HEALTH_PROBLEM] > 0
               ? LKI_EXIT_CONFLICT
               : LKI_EXIT_OK;
}
