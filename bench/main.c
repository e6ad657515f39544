/* SPDX-License-Identifier: MIT */
/* lockkeeper-bench, which people meet as `lockkeeper bench`: see bench/README.md. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "bench/bench.h"
#include "common/clock.h"

#define TRIES 3
#define CASES_MAX 20

static const char usage[] =
    "Usage: lockkeeper bench [options]\n"
    "\n"
    "Measures this build of lockkeeper on this machine, with a broker of its own. Each figure is "
    "the\n"
    "median of several rounds, in which all take their turns; figures of different runs are "
    "hardly\n"
    "comparable, ratios within one are.\n"
    "\n"
    "      --vs all|LIST   beside lockkeeper: all peers that are found here, or these\n"
    "      --case LIST     only these cases\n"
    "      --rounds N      so many rounds of everything (default: 3 to 51, by case)\n"
    "      --seconds N     how long a measurement under contention takes (default 0.5)\n"
    "      --quick         small sizes and few rounds\n"
    "      --json          the figures as JSON (schema lockkeeper.bench/1)\n"
    "      --svg DIR       plots as well, as files in this directory, which is made\n"
    "      --check         exit with 1 if a ratio was far beyond its goal, three times in a row;\n"
    "                      without --case: of the cases that have such limits\n"
    "      --list          the cases and the peers, and which of them are here\n"
    "  -h, --help          show this help\n"
    "\n"
    "LIST has names with commas between them. Without --vs it takes some four minutes, with all "
    "seven.\n"
    "\n"
    "EXIT STATUS\n"
    "  0 done; 1 --check: far beyond a goal; 64 wrong usage; 69 a peer is not here; 71 it failed\n"
    "\n"
    "EXAMPLES\n"
    "  lockkeeper bench --case pairs\n"
    "  lockkeeper bench --vs all --svg plots\n"
    "  lockkeeper bench --vs flock,redis --case contended --seconds 2 --json\n";

struct options {
    const char *vs;
    const char *only;
    const char *svg;
    bool json;
    bool check;
};

static bool chosen[CASES_MAX];

static int complain(const char *what, const char *value, const char *why)
{
    fprintf(stderr, "lockkeeper: bench: %s '%s': %s\n", what, value, why);
    return EX_USAGE;
}

static void list_cases(FILE *out)
{
    for (const struct bench_case *one = bench_cases; one->name; one++)
        fprintf(out, "  %-20s %s\n", one->name, one->what);
}

static void list_peers(FILE *out)
{
    for (size_t i = 0; bench_peers[i]; i++) {
        const struct bench_peer *peer = bench_peers[i];
        const char *why = peer->missing ? peer->missing() : NULL;
        fprintf(out, "  %-20s %s%s%s%s%s\n", peer->name, peer->what,
                peer->always ? " [always]" : "", why ? " [not here: " : "", why ? why : "",
                why ? "]" : "");
    }
}

/* Calls `found` for each name of the list, until it fails. */
static int each_name(const char *list, int (*found)(struct bench *bench, const char *name),
                     struct bench *bench)
{
    char name[64];
    for (; *list; list += *list == ',') {
        size_t length = strcspn(list, ",");
        snprintf(name, sizeof(name), "%.*s", (int)(length < 63 ? length : 63), list);
        list += length;
        int r = found(bench, name);
        if (r != 0)
            return r;
    }
    return 0;
}

static int choose_case(struct bench *bench, const char *name)
{
    (void)bench;
    for (size_t i = 0; bench_cases[i].name; i++)
        if (strcmp(bench_cases[i].name, name) == 0) {
            chosen[i] = true;
            return 0;
        }
    complain("--case", name, "there is no such case; there are:");
    list_cases(stderr);
    return EX_USAGE;
}

static int choose_peer(struct bench *bench, const char *name)
{
    const struct bench_peer *peer = bench_peer_find(name);
    if (!peer) {
        complain("--vs", name, "there is no such peer; there are:");
        list_peers(stderr);
        return EX_USAGE;
    }
    const char *why = peer->missing ? peer->missing() : NULL;
    if (why) {
        complain("--vs", name, why);
        return EX_UNAVAILABLE;
    }
    if (!bench_takes_part(bench, peer))
        bench->peers[bench->peer_count++] = peer;
    return 0;
}

/* In the order of the tables, whatever the order of the list. */
static int choose_peers(struct bench *bench, const char *vs)
{
    struct bench wanted = {0};
    bool all = vs && strcmp(vs, "all") == 0;
    int r = vs && !all ? each_name(vs, choose_peer, &wanted) : 0;
    for (size_t i = 0; r == 0 && bench_peers[i]; i++) {
        const struct bench_peer *peer = bench_peers[i];
        const char *why = all && peer->missing ? peer->missing() : NULL;
        if (why)
            fprintf(stderr, "lockkeeper: bench: without %s: %s\n", peer->name, why);
        else if (all || peer->always || bench_takes_part(&wanted, peer))
            bench->peers[bench->peer_count++] = peer;
    }
    return r;
}

static int choose_cases(struct bench *bench, const struct options *options)
{
    int r = options->only ? each_name(options->only, choose_case, bench) : 0;
    for (size_t i = 0; r == 0 && bench_cases[i].name; i++) {
        if (!options->only)
            chosen[i] = !options->check || bench_cases[i].checked;
        if (chosen[i])
            bench->weight_total += bench_cases[i].weight;
    }
    return r;
}

static bool parse_number(const char *text, double low, double high, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && isfinite(*out) && *out >= low &&
           *out <= high;
}

enum {
    OPTION_VS = 256,
    OPTION_CASE,
    OPTION_ROUNDS,
    OPTION_SECONDS,
    OPTION_QUICK,
    OPTION_JSON,
    OPTION_SVG,
    OPTION_CHECK,
    OPTION_LIST
};

/* Returns -1 to carry on, else the exit code. */
static int parse_option(int option, struct bench *bench, struct options *options)
{
    double number;
    switch (option) {
    case OPTION_VS:
        options->vs = optarg;
        return -1;
    case OPTION_CASE:
        options->only = optarg;
        return -1;
    case OPTION_ROUNDS:
        if (!parse_number(optarg, 1, 1000, &number) || number != floor(number))
            return complain("--rounds", optarg, "not a whole number from 1 to 1000");
        bench->rounds = (unsigned)number;
        return -1;
    case OPTION_SECONDS:
        if (!parse_number(optarg, 0.001, 600, &number))
            return complain("--seconds", optarg, "not a number from 0.001 to 600");
        bench->cell_ns = (uint64_t)(number * 1e9);
        return -1;
    case OPTION_QUICK:
        bench->quick = true;
        return -1;
    case OPTION_JSON:
        options->json = true;
        return -1;
    case OPTION_SVG:
        options->svg = optarg;
        return -1;
    case OPTION_CHECK:
        options->check = true;
        return -1;
    case OPTION_LIST:
        puts("CASES");
        list_cases(stdout);
        puts("\nPEERS");
        list_peers(stdout);
        return fflush(stdout) == 0 ? EX_OK : EX_OSERR;
    case 'h':
        fputs(usage, stdout);
        return fflush(stdout) == 0 ? EX_OK : EX_OSERR;
    default: /* getopt_long() has said what is wrong */
        fputs("Try 'lockkeeper bench --help'.\n", stderr);
        return EX_USAGE;
    }
}

static int parse(int argc, char **argv, struct bench *bench, struct options *options)
{
    static const struct option long_options[] = {
        {"vs", required_argument, NULL, OPTION_VS},
        {"case", required_argument, NULL, OPTION_CASE},
        {"rounds", required_argument, NULL, OPTION_ROUNDS},
        {"seconds", required_argument, NULL, OPTION_SECONDS},
        {"quick", no_argument, NULL, OPTION_QUICK},
        {"json", no_argument, NULL, OPTION_JSON},
        {"svg", required_argument, NULL, OPTION_SVG},
        {"check", no_argument, NULL, OPTION_CHECK},
        {"list", no_argument, NULL, OPTION_LIST},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        int code = parse_option(option, bench, options);
        if (code >= 0)
            return code;
    }
    if (optind < argc)
        return complain("argument", argv[optind], "not expected; try 'lockkeeper bench --help'");
    int code = choose_cases(bench, options);
    if (code == 0)
        code = choose_peers(bench, options->vs);
    return code == 0 ? -1 : code;
}

static void measure(struct bench *bench, struct bench_report *report)
{
    uint64_t start_ns = lki_clock_now_ns();
    bench->weight_done = 0;
    bench_stage_open(bench);
    bench_daemon_start(bench);
    for (size_t i = 0; bench_cases[i].name; i++) {
        if (!chosen[i])
            continue;
        bench->case_name = report->case_name = bench_cases[i].name;
        bench->weight_here = bench_cases[i].weight;
        bench_cases[i].run(bench, report);
        bench->weight_done += bench->weight_here;
    }
    bench_progress_end(bench);
    bench_daemon_stop(bench);
    bench_stage_close(bench);
    report->took_ns = lki_clock_now_ns() - start_ns;
}

static void print_machine(FILE *out, const struct bench_machine *machine)
{
    fprintf(out, "%u processors (%s), Linux %s, load %.2f before\n", machine->processors,
            machine->processor, machine->release, machine->load);
    fflush(out);
}

static void check_plots(const struct options *options, int result)
{
    if (result < 0)
        bench_fail("cannot write plots to '%s': %s", options->svg, strerror(-result));
}

static void write_out(const struct bench *bench, const struct options *options,
                      const struct bench_machine *machine, const struct bench_report *report)
{
    if (options->json) {
        if (bench_print_json(stdout, bench, machine, report) != 0)
            bench_fail("cannot write the figures");
    } else {
        bench_print_table(stdout, report);
    }
    if (fflush(stdout) != 0)
        bench_fail("cannot write the figures: %s", strerror(errno));
    if (options->svg)
        check_plots(options, bench_plot(options->svg, report));
}

int main(int argc, char **argv)
{
    struct bench bench = {.progress = isatty(STDERR_FILENO)};
    struct options options = {0};
    struct bench_machine machine;

    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return bench_open_child(argv[2], argv[3]);
    int code = parse(argc, argv, &bench, &options);
    if (code >= 0)
        return code;
    if (options.svg)
        check_plots(&options, bench_plot_into(options.svg)); /* not after all that takes its time */
    if (bench.cell_ns == 0)
        bench.cell_ns = bench.quick ? LKI_NS_PER_S / 20 : LKI_NS_PER_S / 2;
    bench_calibrate();
    bench_machine_look(&machine);
    print_machine(options.json ? stderr : stdout, &machine);
    bool within = false;
    for (unsigned tries = options.check ? TRIES : 1; !within && tries > 0; tries--) {
        struct bench_report report = {0};
        measure(&bench, &report);
        write_out(&bench, &options, &machine, &report);
        within = bench_report_within_limits(&report);
        bench_report_deinit(&report);
    }
    return within || !options.check ? 0 : 1;
}
