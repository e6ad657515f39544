/* SPDX-License-Identifier: MIT */
/* lockkeeper-bench [--json] [--quick] [--check]: see bench/README.md. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define GROUPS 3
#define TRIES 3

static const char usage[] =
    "usage: lockkeeper-bench [--json] [--quick] [--check]\n"
    "  --json   the figures as JSON\n"
    "  --quick  fewer rounds: a few seconds\n"
    "  --check  exit with 1 if a ratio was far beyond its goal, three times in a row\n";

static void measure(struct bench *bench, struct bench_group *groups)
{
    bench_daemon_start(bench);
    bench_pairs(bench, &groups[0]);
    bench_crowd(bench, &groups[1]);
    bench_open(bench, &groups[2]);
    bench_daemon_stop(bench);
}

static int print(const struct bench_group *groups, bool json)
{
    if (!json) {
        bench_print_table(stdout, groups, GROUPS);
        return fflush(stdout);
    }
    return bench_print_json(stdout, groups, GROUPS);
}

static bool within_limits(const struct bench_group *groups)
{
    bool within = true;
    for (size_t i = 0; i < GROUPS; i++)
        within = bench_group_within_limits(&groups[i]) && within;
    return within;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"quick", no_argument, NULL, 'q'},
                                            {"check", no_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct bench bench = {.rounds = 51, .pairs = 200000, .opens = 301, .crowd = 1000};
    bool json = false;
    bool check = false;

    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return bench_open_child(argv[2], argv[3]);
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'j':
            json = true;
            break;
        case 'q':
            bench.rounds = 15;
            bench.pairs = 50000;
            bench.opens = 51;
            break;
        case 'c':
            check = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    bool within = false;
    for (unsigned tries = check ? TRIES : 1; !within && tries > 0; tries--) {
        struct bench_group groups[GROUPS] = {0};
        measure(&bench, groups);
        if (print(groups, json) != 0)
            bench_fail("cannot write the figures");
        within = within_limits(groups);
        for (size_t i = 0; i < GROUPS; i++)
            bench_group_deinit(&groups[i]);
    }
    return within || !check ? 0 : 1;
}
